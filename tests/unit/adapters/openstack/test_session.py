"""Logins, tokens, pages and odd answers, against a server that says what the test wants."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from adapters.cloud import Bulkhead, tags_as_metadata
from adapters.openstack.adapter import OpenStack
from adapters.openstack.roots import identity_root
from broker.errors import InvalidInput, SiteBusy, SiteConflict, SiteDenied, SiteRefused, SiteUnknown
from broker.remote import Deadline, MachineSpec, MachineState, PartKind, RemoteMachine, Secret, SiteAddress, Tags
from tests.unit.adapters.scripted import Answer, Reply, Request, ScriptedServer, reply

PASSWORD = {"username": "u", "password": "geheim", "project_name": "p"}
SERVER_ID = "5dcc2406-d164-437b-a871-6d3559f8fdc5"


class Cloud:
    """Keystone as it should be; everything else as the test says."""

    def __init__(self) -> None:
        self.logins = 0
        self.life = timedelta(hours=1)
        self.skew = timedelta()
        self.identity: Answer | None = None
        self.rest: Answer = lambda _: reply({"error": {"message": "not in this test"}}, 500)
        self.server = ScriptedServer(self._answer)

    def _answer(self, request: Request) -> Reply:
        if not request.path.startswith("/v3"):
            return self.rest(request)
        if self.identity is not None:
            return self.identity(request)
        self.logins += 1
        return self.token(f"token-{self.logins}")

    def token(self, value: str) -> Reply:
        now = datetime.now(UTC) + self.skew
        url = self.server.url
        services = {"compute": f"{url}/compute/v2.1", "network": f"{url}/network", "image": f"{url}/image"}
        catalog = [
            {"type": kind, "name": kind, "endpoints": [{"region": "R", "url": address, "interface": "public"}]}
            for kind, address in services.items()
        ]
        token = {
            "issued_at": now.isoformat(),
            "expires_at": (now + self.life).isoformat(),
            "project": {"id": "pid", "name": "p"},
            "roles": [{"name": "member"}],
            "catalog": catalog,
        }
        return reply({"token": token}, 201, **{"X-Subject-Token": value})


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    made = Cloud()
    with made.server:
        yield made


Open = Callable[..., OpenStack]


@pytest.fixture
def open_it(cloud: Cloud) -> Iterator[Open]:
    opened: list[OpenStack] = []

    def open_one(*, fields: dict[str, str] | None = None, places: int = 8, **settings: str) -> OpenStack:
        address = SiteAddress(uuid.uuid4(), "x", "openstack", f"{cloud.server.url}/v3", "R", uuid.uuid4(), settings)
        opened.append(OpenStack(address, Secret(fields or PASSWORD), Bulkhead("x", places)))
        return opened[-1]

    yield open_one
    for adapter in opened:
        adapter.close()


@pytest.fixture
def adapter(open_it: Open) -> OpenStack:
    return open_it()


def soon(seconds: float = 5.0) -> Deadline:
    return Deadline.after(seconds)


def server(**changes: Any) -> dict[str, Any]:
    """A server as Nova shows it."""
    return {"id": SERVER_ID, "name": "s", "status": "ACTIVE", "flavor": {"id": "f"}, "metadata": {}, **changes}


def not_found(what: str) -> Reply:
    return reply({"itemNotFound": {"code": 404, "message": f"Instance {what} could not be found."}}, 404)


# --- logging in --------------------------------------------------------------------------------------------------


def test_one_login_serves_all_threads(cloud: Cloud, adapter: OpenStack) -> None:
    cloud.rest = lambda _: reply({"server": server()})
    with ThreadPoolExecutor(8) as pool:
        looks = list(pool.map(lambda _: adapter.look(PartKind.SERVER, SERVER_ID, deadline=soon()), range(40)))
    assert all(isinstance(look, RemoteMachine) and look.state is MachineState.RUNNING for look in looks)
    assert cloud.logins == 1
    assert {request.headers.get("x-auth-token") for request in cloud.server.requests[1:]} == {"token-1"}
    assert cloud.server.connections <= 16


def test_a_dead_token_is_renewed_once_for_all_threads(cloud: Cloud, adapter: OpenStack) -> None:
    def answer(request: Request) -> Reply:
        good = request.headers.get("x-auth-token") != "token-1"
        return reply({"server": server()}) if good else Reply(401, b"Authentication required")

    cloud.rest = answer
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: adapter.look(PartKind.SERVER, SERVER_ID, deadline=soon()), range(16)))
    assert cloud.logins == 2


def test_a_token_is_renewed_before_it_ends_whatever_the_sites_clock_says(cloud: Cloud, adapter: OpenStack) -> None:
    cloud.rest = lambda _: reply({"server": server()})
    cloud.skew = timedelta(days=-2)
    for _ in range(3):
        adapter.look(PartKind.SERVER, SERVER_ID, deadline=soon())
    assert cloud.logins == 1, "two days behind, its tokens are good all the same"
    cloud.life = timedelta(seconds=-1)
    cloud.rest = lambda request: (
        Reply(401) if request.headers["x-auth-token"] == "token-1" else reply({"server": server()})
    )
    for _ in range(2):
        adapter.look(PartKind.SERVER, SERVER_ID, deadline=soon())
    assert cloud.logins == 3


def test_a_401_with_a_fresh_token_is_denied_and_not_tried_for_ever(cloud: Cloud, adapter: OpenStack) -> None:
    cloud.rest = lambda _: Reply(401)
    with pytest.raises(SiteDenied):
        adapter.look(PartKind.SERVER, SERVER_ID, deadline=soon())
    assert len([request for request in cloud.server.requests if request.path.startswith("/compute")]) == 2


def test_a_refused_login_is_not_repeated_for_every_lease(cloud: Cloud, adapter: OpenStack) -> None:
    tried = []

    def refuse(request: Request) -> Reply:
        tried.append(request)
        return reply({"error": {"code": 401, "message": "no", "title": "Unauthorized"}}, 401)

    cloud.identity = refuse
    for _ in range(5):
        with pytest.raises(SiteDenied) as caught:
            adapter.look(PartKind.SERVER, SERVER_ID, deadline=soon())
        assert "geheim" not in str(caught.value)
    assert len(tried) == 1, "Keystone may lock the account"


@pytest.mark.parametrize(
    "answer",
    [
        Reply(201, b"<html>"),
        Reply(201, b"[" * 1_000_000),
        reply({"token": {}}, 201),
        reply({"other": 1}, 201),
        reply([], 201),
        reply({"token": {"issued_at": "x", "expires_at": "y", "catalog": 3}}, 201),
        Reply(200, b"{}"),
        Reply(302, b"", {"Location": "https://portal.example.org"}),
        reply({"error": {"code": 500, "message": "no", "title": "x"}}, 500),
    ],
)
def test_an_unclear_login_is_unknown(cloud: Cloud, adapter: OpenStack, answer: Reply) -> None:
    cloud.identity = lambda _: answer
    with pytest.raises(SiteUnknown):
        adapter.listing(deadline=soon())


def test_the_bodies_of_logins(cloud: Cloud, open_it: Open) -> None:
    cloud.rest = lambda _: not_found(SERVER_ID)
    by_id = {"username": "u", "password": "x", "user_domain_id": "d", "project_id": "p1"}
    application = {"application_credential_id": "i", "application_credential_secret": "s"}
    for fields in ({**PASSWORD, "project_domain_name": "D"}, by_id, application):
        assert open_it(fields=fields).look(PartKind.SERVER, SERVER_ID, deadline=soon()) is None
    bodies = [request.document["auth"] for request in cloud.server.requests if request.path == "/v3/auth/tokens"]
    assert bodies[0]["scope"] == {"project": {"name": "p", "domain": {"name": "D"}}}
    assert bodies[0]["identity"]["password"]["user"]["domain"] == {"name": "Default"}
    assert bodies[1]["scope"] == {"project": {"id": "p1"}}
    assert bodies[1]["identity"]["password"]["user"]["domain"] == {"id": "d"}
    assert bodies[2] == {
        "identity": {"methods": ["application_credential"], "application_credential": {"id": "i", "secret": "s"}}
    }


@pytest.mark.parametrize(
    ("fields", "missing"),
    [
        ({}, "secret.username"),
        ({"username": "u"}, "secret.password"),
        ({"username": "u", "password": "x"}, "secret.project_name"),
        ({"application_credential_id": "i"}, "secret.application_credential_secret"),
        ({"application_credential_secret": "s"}, "secret.application_credential_id"),
    ],
)
def test_a_credential_that_lacks_a_field_is_refused_by_name(
    open_it: Open, fields: dict[str, str], missing: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        open_it(fields=fields or {"x": "y"})
    assert caught.value.field == missing


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"call_timeout": "0"}, "settings.call_timeout"),
        ({"call_timeout": "soon"}, "settings.call_timeout"),
        ({"settle_time": "x"}, "settings.settle_time"),
        ({"settle_time": "-1"}, "settings.settle_time"),
        ({"settle_time": "nan"}, "settings.settle_time"),
        ({"netwrok": "n"}, "settings.netwrok"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(open_it: Open, settings: dict[str, str], field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        open_it(**settings)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("endpoint", "root"),
    [
        ("https://k.example.org:5000/v3", "https://k.example.org:5000"),
        ("https://k.example.org:5000/v3/", "https://k.example.org:5000"),
        ("https://k.example.org/identity/v3/auth/tokens", "https://k.example.org/identity"),
        (" http://127.0.0.1:5000 ", "http://127.0.0.1:5000"),
    ],
)
def test_the_version_in_an_endpoint_is_no_matter(endpoint: str, root: str) -> None:
    assert identity_root(endpoint) == root


@pytest.mark.parametrize(
    "endpoint", ["", "k.example.org", "ftp://k", "https://", "http://k:port/v3", "http://a:b@k/v3"]
)
def test_what_is_no_endpoint_is_refused(endpoint: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        identity_root(endpoint)
    assert caught.value.field == "endpoint"


# --- requests ----------------------------------------------------------------------------------------------------


def test_a_full_bulkhead_is_busy_within_the_deadline(cloud: Cloud, open_it: Open) -> None:
    adapter = open_it(places=1)
    inside, leave = threading.Event(), threading.Event()

    def answer(_: Request) -> Reply:
        inside.set()
        leave.wait(5)
        return reply({"server": server()})

    cloud.rest = answer
    holder = threading.Thread(target=lambda: adapter.look(PartKind.SERVER, SERVER_ID, deadline=soon()))
    holder.start()
    assert inside.wait(5)
    start = time.monotonic()
    with pytest.raises(SiteBusy):
        adapter.look(PartKind.SERVER, SERVER_ID, deadline=soon(0.2))
    assert time.monotonic() - start < 1
    leave.set()
    holder.join()


@pytest.mark.parametrize(
    "document",
    [
        {"server": {**server(), "id": "another"}},
        {"server": {"id": SERVER_ID}},
        {"server": {**server(), "flavor": "f"}},
        {"server": {**server(), "addresses": {"net": [{}]}}},
        {"server": []},
        {"servers": [server()]},
        [server()],
    ],
)
def test_a_server_that_is_not_as_nova_writes_it_is_unknown(cloud: Cloud, adapter: OpenStack, document: Any) -> None:
    cloud.rest = lambda _: reply(document)
    with pytest.raises(SiteUnknown):
        adapter.look(PartKind.SERVER, SERVER_ID, deadline=soon())


@pytest.mark.parametrize("body", [b"", b"null", b"[]", b"{", b"\xff", b"[" * 1_000_000, b"1" * 10_000])
def test_what_is_no_json_object_is_unknown(cloud: Cloud, adapter: OpenStack, body: bytes) -> None:
    cloud.rest = lambda _: Reply(200, body)
    with pytest.raises(SiteUnknown, match="not the API's"):
        adapter.look(PartKind.SERVER, SERVER_ID, deadline=soon())


def test_an_unknown_status_is_unknown_and_there(cloud: Cloud, adapter: OpenStack) -> None:
    cloud.rest = lambda _: reply({"server": server(status="HIBERNATING")})
    seen = adapter.look(PartKind.SERVER, SERVER_ID, deadline=soon())
    assert isinstance(seen, RemoteMachine)
    assert (seen.state, seen.raw_status) == (MachineState.UNKNOWN, "HIBERNATING")


def listing_of(pages: Callable[[str | None], Reply]) -> Answer:
    """Servers by marker; of the rest there is nothing."""

    def answer(request: Request) -> Reply:
        path, _, query = request.path.partition("?")
        if path.endswith("/servers/detail"):
            marker = next((pair[7:] for pair in query.split("&") if pair.startswith("marker=")), None)
            return pages(marker)
        return reply({path.rpartition("/")[2].replace("os-", ""): []})

    return answer


def numbered(*numbers: int) -> Reply:
    return reply({"servers": [server(id=str(number)) for number in numbers]})


def test_a_list_that_moves_under_us_counts_every_machine_once(cloud: Cloud, adapter: OpenStack) -> None:
    pages = {None: numbered(9, 8, 7), "7": numbered(8, 7, 6), "6": numbered(5), "5": numbered()}
    cloud.rest = listing_of(lambda marker: pages[marker])
    found = adapter.listing(deadline=soon()).machines
    assert sorted(machine.remote_id for machine in found) == ["5", "6", "7", "8", "9"]


def test_a_marker_that_was_deleted_begins_the_list_again(cloud: Cloud, adapter: OpenStack) -> None:
    calls: list[str | None] = []
    gone = reply({"badRequest": {"code": 400, "message": "marker [2] not found"}}, 400)

    def page(marker: str | None) -> Reply:
        calls.append(marker)
        if len(calls) == 1:
            return numbered(3, 2)
        return {None: numbered(3), "3": numbered(1), "1": numbered(), "2": gone}[marker]

    cloud.rest = listing_of(page)
    assert [machine.remote_id for machine in adapter.listing(deadline=soon()).machines] == ["3", "1"]
    assert calls == [None, "2", None, "3", "1"]


def test_a_list_that_never_stands_still_is_unknown(cloud: Cloud, adapter: OpenStack) -> None:
    gone = reply({"badRequest": {"code": 400, "message": "marker [2] not found"}}, 400)
    cloud.rest = listing_of(lambda marker: gone if marker else numbered(2))
    with pytest.raises(SiteUnknown, match="changed"):
        adapter.listing(deadline=soon())


def test_a_refused_first_page_is_no_empty_list(cloud: Cloud, adapter: OpenStack) -> None:
    cloud.rest = listing_of(lambda _: reply({"badRequest": {"code": 400, "message": "no"}}, 400))
    with pytest.raises(SiteRefused):
        adapter.listing(deadline=soon())


@pytest.mark.parametrize("page", [{}, {"servers": None}, {"servers": {}}, {"servers": [1]}, {"servers": [{"id": 1}]}])
def test_what_is_no_page_is_no_listing(cloud: Cloud, adapter: OpenStack, page: Any) -> None:
    cloud.rest = listing_of(lambda _: reply(page))
    with pytest.raises(SiteUnknown):
        adapter.listing(deadline=soon())


def test_a_site_that_ignores_the_marker_is_unknown(cloud: Cloud, adapter: OpenStack) -> None:
    cloud.rest = listing_of(lambda _: numbered(1, 2))
    with pytest.raises(SiteUnknown, match="circle"):
        adapter.listing(deadline=soon())


def test_flavors_are_read_from_a_nova_without_the_newer_version(cloud: Cloud, adapter: OpenStack) -> None:
    def answer(request: Request) -> Reply:
        if "openstack-api-version" in request.headers:
            return reply({"computeFault": {"code": 406, "message": "Version 2.61 is not supported"}}, 406)
        if request.path.endswith("/os-extra_specs"):
            return reply({"extra_specs": {"resources:VGPU": "1"}})
        flavor = {"id": "f", "name": "old", "vcpus": 1, "ram": 512, "disk": 1}
        return reply({"flavors": [] if "marker" in request.path else [flavor]})

    cloud.rest = answer
    assert [(offer.name, offer.gpus) for offer in adapter.offers(deadline=soon())] == [("old", 1)]


# --- deleting and making -----------------------------------------------------------------------------------------


def test_a_server_that_a_site_keeps_after_deletion_is_deleted_for_good(cloud: Cloud, adapter: OpenStack) -> None:
    actions: list[Any] = []

    def answer(request: Request) -> Reply:
        if request.method == "DELETE":
            message = "Cannot 'delete' instance while it is in vm_state soft-delete"
            return reply({"conflictingRequest": {"code": 409, "message": message}}, 409)
        if request.method == "POST":
            actions.append(request.document)
            return Reply(202)
        return reply({"server": server(status="SOFT_DELETED")})

    cloud.rest = answer
    adapter.delete(PartKind.SERVER, SERVER_ID, deadline=soon())
    assert actions == [{"forceDelete": None}]


@pytest.mark.parametrize(
    ("shown", "is_fine"),
    [
        (reply({"server": server(**{"OS-EXT-STS:task_state": "deleting"})}), True),
        (not_found(SERVER_ID), True),
        (reply({"server": server()}), False),
    ],
)
def test_a_conflict_while_deleting_is_fine_only_if_it_is_going(
    cloud: Cloud, adapter: OpenStack, shown: Reply, is_fine: bool
) -> None:
    locked = reply({"conflictingRequest": {"code": 409, "message": f"Instance {SERVER_ID} is locked"}}, 409)
    cloud.rest = lambda request: locked if request.method == "DELETE" else shown
    if is_fine:
        adapter.delete(PartKind.SERVER, SERVER_ID, deadline=soon())
    else:
        with pytest.raises(SiteConflict):
            adapter.delete(PartKind.SERVER, SERVER_ID, deadline=soon())


def test_what_nova_is_asked_for(cloud: Cloud, open_it: Open) -> None:
    adapter = open_it(availability_zone="az1")
    cloud.rest = lambda _: reply({"server": {"id": SERVER_ID, "adminPass": "secret"}}, 202)
    tags = Tags(uuid.uuid4(), uuid.uuid4(), uuid.uuid4(), "p", datetime.now(UTC))
    machine = MachineSpec("My App! " + "x" * 80, "flavor", "image", user_data="#!/bin/sh\necho ü\n")
    made = {PartKind.PORT: "port", PartKind.KEY_PAIR: "key"}
    assert adapter.make(PartKind.SERVER, machine, tags=tags, made=made, deadline=soon()) == SERVER_ID
    asked = cloud.server.requests[-1].document["server"]
    assert len(asked.pop("name")) <= 63
    assert asked == {
        "flavorRef": "flavor",
        "imageRef": "image",
        "networks": [{"port": "port"}],
        "metadata": tags_as_metadata(tags),
        "key_name": "key",
        "user_data": "IyEvYmluL3NoCmVjaG8gw7wK",
        "availability_zone": "az1",
    }


def test_a_server_without_its_port_is_refused_before_anything_is_sent(cloud: Cloud, adapter: OpenStack) -> None:
    tags = Tags(uuid.uuid4(), uuid.uuid4(), uuid.uuid4(), "p", datetime.now(UTC))
    with pytest.raises(SiteRefused):
        adapter.make(PartKind.SERVER, MachineSpec("m", "f", "i"), tags=tags, made={}, deadline=soon())
    assert cloud.server.requests == []


@pytest.mark.parametrize(
    "made", [{}, {"server": {}}, {"server": {"id": ""}}, {"server": {"id": 3}}, {"port": {"id": "x"}}]
)
def test_an_acceptance_without_an_id_is_unknown(cloud: Cloud, adapter: OpenStack, made: Any) -> None:
    cloud.rest = lambda _: reply(made, 202)
    tags = Tags(uuid.uuid4(), uuid.uuid4(), uuid.uuid4(), "p", datetime.now(UTC))
    with pytest.raises(SiteUnknown):
        adapter.make(PartKind.SERVER, MachineSpec("m", "f", "i"), tags=tags, made={PartKind.PORT: "p"}, deadline=soon())


def test_a_renamed_server_is_found_through_its_port(cloud: Cloud, adapter: OpenStack) -> None:
    def answer(request: Request) -> Reply:
        if "/ports/" in request.path:
            return reply({"port": {"id": "port", "name": "x", "device_id": SERVER_ID}})
        if request.path.endswith(SERVER_ID):
            return reply({"server": server(name="renamed")})
        return numbered()

    cloud.rest = answer
    found = adapter.find(PartKind.SERVER, lease=uuid.uuid4(), made={PartKind.PORT: "port"}, deadline=soon())
    assert [part.remote_id for part in found] == [SERVER_ID]


def test_an_id_cannot_lead_elsewhere(cloud: Cloud, adapter: OpenStack) -> None:
    cloud.rest = lambda _: not_found("../flavors?x=1")
    assert adapter.look(PartKind.SERVER, "../flavors?x=1", deadline=soon()) is None
    assert cloud.server.requests[-1].path == "/compute/v2.1/servers/..%2Fflavors%3Fx%3D1"
