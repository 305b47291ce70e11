"""What a resize and a usage are read from, where Nova says it in a way that no cloud on loopback can be made to."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from adapters.cloud import Bulkhead
from adapters.openstack.adapter import OpenStack
from broker.errors import SiteConflict, SiteRefused, SiteUnknown
from broker.remote import Deadline, Secret, SiteAddress
from broker.values import Period
from tests.unit.adapters.scripted import Reply, Request, ScriptedServer, reply

SERVER = "5dcc2406-d164-437b-a871-6d3559f8fdc5"
NEVER_RESIZED = 400, "Instance has not been resized."
WRONG_STATE = 409, f"Cannot 'resize' instance {SERVER} while it is in vm_state x"


@dataclass
class Nova:
    """A Keystone that lets everybody in, and a Nova with one server."""

    server: dict[str, Any] = field(default_factory=dict)
    refusal: tuple[int, str] | None = None  # of every action
    actions: list[dict[str, Any]] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    usage: Callable[[Request], Reply] = lambda _: reply({"tenant_usage": {}})

    def __post_init__(self) -> None:
        self.front = ScriptedServer(self._answer)

    def _answer(self, request: Request) -> Reply:
        path = request.path.partition("?")[0]
        if path == "/v3/auth/tokens":
            return self._token()
        if "os-simple-tenant-usage" in path:
            return self.usage(request)
        if path.endswith("/action"):
            return _fault(*self.refusal) if self.refusal else Reply(202)
        if path.endswith("/os-instance-actions"):
            return reply({"instanceActions": self.actions})
        if "/os-instance-actions/" in path:
            (one,) = (shown for shown in self.actions if path.endswith(f"/{shown['request_id']}"))
            return reply({"instanceAction": one | {"events": self.events}})
        shown = {"id": SERVER, "name": "s", "status": "ACTIVE", "flavor": {"id": "f"}, "metadata": {}, **self.server}
        return reply({"server": shown})

    def _token(self) -> Reply:
        now = datetime.now(UTC)
        point = {"region": "R", "url": f"{self.front.url}/compute/v2.1", "interface": "public"}
        token = {
            "issued_at": now.isoformat(),
            "expires_at": (now + timedelta(hours=1)).isoformat(),
            "project": {"id": "pid", "name": "p"},
            "catalog": [{"type": "compute", "name": "nova", "endpoints": [point]}],
        }
        return reply({"token": token}, 201, **{"X-Subject-Token": "t"})


def _fault(status: int, message: str) -> Reply:
    return reply({"badRequest": {"code": status, "message": message}}, status)


def action(name: str, *, failed: bool = False) -> dict[str, Any]:
    return {"action": name, "request_id": f"req-{name}", "message": "Error" if failed else None}


def event(*, over: bool) -> dict[str, Any]:
    return {"event": "cold_migrate", "finish_time": "2026-01-01T00:00:00.000000" if over else None}


@pytest.fixture
def nova() -> Iterator[Nova]:
    made = Nova()
    with made.front:
        yield made


@pytest.fixture
def adapter(nova: Nova) -> Iterator[OpenStack]:
    address = SiteAddress(uuid.uuid4(), "x", "openstack", f"{nova.front.url}/v3", "R", uuid.uuid4(), {})
    secret = Secret({"username": "u", "password": "p", "project_name": "p"})
    opened = OpenStack(address, secret, Bulkhead("x", 4))
    yield opened
    opened.close()


def soon() -> Deadline:
    return Deadline.after(5)


# --- resize ------------------------------------------------------------------------------------------------------


def test_a_failing_resize_is_no_success_while_its_end_is_not_written_down(nova: Nova, adapter: OpenStack) -> None:
    """Nova sets the server to ACTIVE first, and says Error in the list of actions a moment later."""
    nova.actions, nova.events = [action("resize")], [event(over=True), event(over=False)]
    assert not adapter.confirm_resize(SERVER, deadline=soon())
    nova.actions, nova.events = [action("resize", failed=True)], [event(over=True)]
    with pytest.raises(SiteRefused, match="keeps its former type"):
        adapter.confirm_resize(SERVER, deadline=soon())


def test_only_the_newest_action_about_the_size_counts(nova: Nova, adapter: OpenStack) -> None:
    nova.actions = [action("stop", failed=True), action("confirmResize"), action("resize", failed=True)]
    assert adapter.confirm_resize(SERVER, deadline=soon())
    nova.actions = []
    assert adapter.confirm_resize(SERVER, deadline=soon())


@pytest.mark.parametrize("status", ["RESIZE", "MIGRATING", "REVERT_RESIZE"])
def test_what_moves_is_looked_at(nova: Nova, adapter: OpenStack, status: str) -> None:
    nova.server = {"status": status}
    assert not adapter.confirm_resize(SERVER, deadline=soon())


def test_a_server_in_error_says_why(nova: Nova, adapter: OpenStack) -> None:
    nova.server = {"status": "ERROR", "fault": {"message": "Disk is full"}}
    with pytest.raises(SiteRefused, match="Disk is full"):
        adapter.confirm_resize(SERVER, deadline=soon())


def test_a_second_confirmation_is_fine_only_where_a_first_one_is_under_way(nova: Nova, adapter: OpenStack) -> None:
    nova.server, nova.refusal = {"status": "VERIFY_RESIZE"}, NEVER_RESIZED
    nova.actions = [action("confirmResize")]
    assert not adapter.confirm_resize(SERVER, deadline=soon())
    for wrong in ([action("resize")], [action("confirmResize", failed=True)], []):
        nova.actions = wrong
        with pytest.raises(SiteRefused, match="has not been resized"):
            adapter.confirm_resize(SERVER, deadline=soon())


@pytest.mark.parametrize(
    ("newest", "fine"),
    [
        (action("revertResize"), True),
        (action("resize", failed=True), True),
        (action("revertResize", failed=True), False),
        (action("resize"), False),
        (action("confirmResize"), False),
        (action("migrate", failed=True), False),
    ],
)
@pytest.mark.parametrize("refusal", [NEVER_RESIZED, WRONG_STATE])
def test_what_cannot_be_reverted_is_fine_only_where_it_is_back(
    nova: Nova, adapter: OpenStack, newest: dict[str, Any], *, fine: bool, refusal: tuple[int, str]
) -> None:
    nova.actions, nova.refusal = [newest], refusal
    if fine:
        adapter.revert_resize(SERVER, deadline=soon())
    else:
        with pytest.raises(SiteConflict):
            adapter.revert_resize(SERVER, deadline=soon())


@pytest.mark.parametrize(
    ("server", "fine"),
    [
        ({"status": "VERIFY_RESIZE", "flavor": {"id": "big"}}, True),
        ({"status": "RESIZE", "flavor": {"id": "f"}}, True),
        ({"status": "ACTIVE", "flavor": {"id": "big"}}, True),
        ({"status": "VERIFY_RESIZE", "flavor": {"id": "other"}}, False),
        ({"status": "REVERT_RESIZE", "flavor": {"id": "big"}}, False),
        ({"status": "SUSPENDED", "flavor": {"id": "f"}}, False),
    ],
)
def test_a_refused_resize_is_fine_only_where_it_is_so_or_on_its_way(
    nova: Nova, adapter: OpenStack, server: dict[str, Any], *, fine: bool
) -> None:
    nova.server, nova.refusal = server, WRONG_STATE
    if fine:
        adapter.resize(SERVER, "big", deadline=soon())
    else:
        with pytest.raises(SiteConflict):
            adapter.resize(SERVER, "big", deadline=soon())


@pytest.mark.parametrize("status", ["SUSPENDED", "PAUSED", "SHELVED"])
def test_what_os_start_does_not_start_is_started_otherwise(nova: Nova, adapter: OpenStack, status: str) -> None:
    nova.server, nova.refusal = {"status": status}, WRONG_STATE
    with pytest.raises(SiteConflict):
        adapter.start(SERVER, deadline=soon())
    sent = [request.body for request in nova.front.requests if request.path.endswith("/action")]
    assert len(sent) == 2
    assert b"os-start" not in sent[1]


# --- usage -------------------------------------------------------------------------------------------------------

NOW = datetime(2026, 5, 1, tzinfo=UTC)
MAY = Period(NOW, NOW + timedelta(days=31))


def row(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "instance_id": f"id-{number:04}",
        "name": "m",
        "flavor": "small",
        "state": "active",
        "vcpus": 1,
        "memory_mb": 512,
        "local_gb": 1,
        "hours": 0.1,
        "started_at": "2026-05-01T00:00:00.000000",
        "ended_at": None,
        **changes,
    }


def test_a_nova_that_would_leave_servers_out_is_not_believed(nova: Nova, adapter: OpenStack) -> None:
    nova.usage = lambda _: reply({"computeFault": {"code": 406, "message": "Version 2.40 is not supported"}}, 406)
    with pytest.raises(SiteRefused, match="would leave servers out"):
        adapter.usage(MAY, deadline=soon())


def test_it_is_asked_for_in_utc_and_at_the_version_that_pages(nova: Nova, adapter: OpenStack) -> None:
    assert list(adapter.usage(MAY, deadline=soon())) == []
    asked = nova.front.requests[-1]
    assert "start=2026-05-01T00%3A00%3A00.000000&end=2026-06-01T00%3A00%3A00.000000" in asked.path
    assert asked.headers["openstack-api-version"] == "compute 2.40"


def test_pages_are_read_by_our_own_marker_until_one_is_empty(nova: Nova, adapter: OpenStack) -> None:
    def page(request: Request) -> Reply:
        after = request.path.partition("marker=id-")[2]
        first = int(after[:4]) + 1 if after else 0
        rows = [row(number) for number in range(first, min(first + 3, 6))]
        return reply({"tenant_usage": {"server_usages": rows} if rows else {}})

    nova.usage = page
    found = adapter.usage(MAY, deadline=soon())
    assert [usage.remote_id for usage in found] == [f"id-{number:04}" for number in range(6)]
    assert {str(usage.hours) for usage in found} == {"0.1"}, "what is written is kept, digit by digit"


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"tenant_usage": None},
        {"tenant_usage": {"server_usages": None}},
        {"tenant_usage": {"server_usages": [{}]}},
        {"tenant_usage": {"server_usages": [row(1, hours=None)]}},
        {"tenant_usage": {"server_usages": [row(1, hours=True)]}},
        {"tenant_usage": {"server_usages": [row(1, hours=float("nan"))]}},
        {"tenant_usage": {"server_usages": [row(1, started_at=None)]}},
        {"tenant_usage": {"server_usages": [row(1, ended_at="gestern")]}},
        {"tenant_usage": {"server_usages": [row(1, vcpus="1")]}},
        {"tenant_usage": {"server_usages": [row(1, memory_mb=-1)]}},
    ],
)
def test_what_nova_does_not_write_so_is_unknown(nova: Nova, adapter: OpenStack, answer: dict[str, Any]) -> None:
    nova.usage = lambda _: reply(answer)
    with pytest.raises(SiteUnknown):
        adapter.usage(MAY, deadline=soon())


def test_a_marker_that_is_gone_is_a_list_that_changed(nova: Nova, adapter: OpenStack) -> None:
    def page(request: Request) -> Reply:
        if "marker" in request.path:
            return _fault(400, "Marker id-0001 could not be found.")
        return reply({"tenant_usage": {"server_usages": [row(1)]}})

    nova.usage = page
    with pytest.raises(SiteUnknown, match="changed"):
        adapter.usage(MAY, deadline=soon())
