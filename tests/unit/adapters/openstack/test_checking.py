"""What a person is told when a site cannot be used, against the sandbox."""

from __future__ import annotations

import dataclasses
import http.client
import json
import re
import socket
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from adapters.registry import Registry
from adapters.sandbox import SandboxCloud, profile, running
from adapters.sandbox.config import NetworkConfig
from adapters.sandbox.entities import AppCredential
from broker.remote import Deadline, Diagnosis, Secret, SiteAddress
from tests.unit.adapters.scripted import Reply, Request, ScriptedServer, reply

Check = Callable[..., list[Diagnosis]]
FIELDS = {"username": "alice", "password": "sandbox", "project_name": "leeway"}
OTHER_FIELDS = {"application_credential_id": "observer", "application_credential_secret": "of-alice"}


class Clock:
    """A clock that can be wrong."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead


class Front:
    """Stands before the sandbox's Keystone: grants other roles, and has a clock of its own."""

    def __init__(self, cloud: SandboxCloud) -> None:
        self.roles: tuple[str, ...] | None = None
        self.clock = Clock()
        self.tells_time = True
        self._cloud = cloud
        self.server = ScriptedServer(self._answer)

    def _answer(self, request: Request) -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", self._cloud.port, timeout=10)
        headers = {name: value for name, value in request.headers.items() if name in ("x-auth-token", "content-type")}
        connection.request(request.method, request.path, request.body or None, headers)
        answer = connection.getresponse()
        document = json.loads(answer.read())
        connection.close()
        if self.roles is not None and "token" in document:
            document["token"]["roles"] = [{"id": role, "name": role} for role in self.roles]
        told = {"Date": format_datetime(self.clock(), usegmt=True) if self.tells_time else ""}
        if token := answer.headers["X-Subject-Token"]:
            told["X-Subject-Token"] = token
        return reply(document, answer.status, **told)


@pytest.fixture(scope="module")
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="module")
def cloud(clock: Clock) -> Iterator[SandboxCloud]:
    with running(profile("aurora"), clock=clock) as started:
        yield started


@pytest.fixture
def front(cloud: SandboxCloud) -> Iterator[Front]:
    made = Front(cloud)
    with made.server:
        yield made


@pytest.fixture
def check(cloud: SandboxCloud, clock: Clock) -> Iterator[Check]:
    registry = Registry()
    cloud.faults.clear()

    def run(*, fields: dict[str, str] | None = None, **changes: Any) -> list[Diagnosis]:
        site = SiteAddress(uuid.uuid4(), "aurora", "sandbox", cloud.auth_url, "aurora-1", uuid.uuid4(), {})
        secret = Secret(fields if fields == OTHER_FIELDS else {**FIELDS, **(fields or {})})
        adapter = registry.open(dataclasses.replace(site, **changes), secret)
        return [*adapter.check(deadline=Deadline.after(10))]

    yield run
    registry.close()
    cloud.faults.clear()
    clock.ahead = timedelta()


def failed(steps: list[Diagnosis]) -> Diagnosis:
    """The one step that failed."""
    (step,) = [step for step in steps if not step.ok]
    return step


def test_a_good_site_passes(check: Check) -> None:
    steps = check()
    assert all(step.ok for step in steps)
    assert [step.step for step in steps] == [
        "endpoint",
        "clock",
        "credential",
        "project",
        "region",
        "services",
        "flavors",
        "images",
        "quotas",
        "machines",
        "ports",
        "addresses",
        "volumes",
        "networks",
    ]


def test_only_one_region_needs_no_name(check: Check) -> None:
    assert all(step.ok for step in check(region=None))


WRONG: dict[str, tuple[dict[str, Any], str, str]] = {
    "secret": ({"fields": {"password": "wrong"}}, "credential", "which of them is wrong: password"),
    "role": ({"roles": ("reader",)}, "project", "ask for the role member"),
    "endpoint": ({"endpoint": "http://127.0.0.1:1/v3"}, "endpoint", "Check host, port and firewall"),
    "clock": ({"ahead": timedelta(minutes=10)}, "clock", "set the clock (NTP)"),
    "region": ({"region": "mars"}, "region", "Regions with machines: aurora-1"),
    "domain": ({"fields": {"user_domain_name": "Elsewhere"}}, "credential", "set user_domain_name"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_six_wrong_set_ups_have_six_diagnoses(check: Check, front: Front, wrong: str) -> None:
    changes, step, words = WRONG[wrong]
    changes = {"endpoint": f"{front.server.url}/v3", **changes}
    front.roles = changes.pop("roles", None)
    front.clock.ahead = changes.pop("ahead", timedelta())
    found = failed(check(**changes))
    assert found.step == step
    assert [name for name, (_, _, said) in WRONG.items() if said in (found.hint or "")] == [wrong], found
    assert words in (found.hint or "")


@pytest.mark.parametrize(
    ("ahead", "words"),
    [
        (timedelta(hours=1), r"its token was issued 3\d\d\d s in the future"),
        (timedelta(hours=-1), r"its token was issued 3\d\d\d s before it was asked for"),
        (timedelta(days=-1), r"its token had expired 7\d\d\d\d s before it arrived"),
    ],
)
def test_keystones_own_clock_is_seen_in_its_token(
    check: Check, front: Front, clock: Clock, *, ahead: timedelta, words: str
) -> None:
    clock.ahead = ahead
    found = failed(check(endpoint=f"{front.server.url}/v3"))
    assert found.step == "clock"
    assert "differ by 0 s; its token" in found.detail or "differ by 1 s; its token" in found.detail
    assert re.search(words, found.detail)


def test_where_the_web_server_tells_no_time_the_token_does(check: Check, front: Front, clock: Clock) -> None:
    front.tells_time = False
    good = step_named(check(endpoint=f"{front.server.url}/v3"), "clock")
    assert (good.ok, good.detail) == (True, "the times of a new token are right")
    clock.ahead = timedelta(hours=1)
    assert failed(check(endpoint=f"{front.server.url}/v3")).step == "clock"


# --- roles -------------------------------------------------------------------------------------------------------


def step_named(steps: list[Diagnosis], name: str) -> Diagnosis:
    (step,) = [step for step in steps if step.step == name]
    return step


def test_a_reader_is_all_that_an_observed_site_needs(check: Check, front: Front) -> None:
    front.roles = ("reader",)
    steps = check(endpoint=f"{front.server.url}/v3", observe_only=True)
    assert all(step.ok for step in steps)
    assert [step.hint for step in steps] == [None] * len(steps)
    assert "roles: reader; needed: reader" in step_named(steps, "project").detail


@pytest.mark.parametrize(
    ("roles", "observe_only", "ok", "hint"),
    [
        (("member", "reader"), True, True, "More than is needed: member may"),
        (("admin", "member", "reader"), True, True, "More than is needed: admin, member may"),
        (("load-balancer_observer",), True, False, "the role reader"),
        ((), True, False, "the role reader"),
        (("member", "reader"), False, True, None),
        (("Member",), False, True, None),
        (("member",), False, True, "`--role member --role reader`"),
        (("reader", "load-balancer_observer"), False, False, "the role member"),
        ((), False, False, "the role member"),
        (("vm-operator",), False, True, "the site's own rule"),
    ],
)
def test_roles_are_compared_with_what_the_use_needs(
    check: Check, front: Front, roles: tuple[str, ...], *, observe_only: bool, ok: bool, hint: str | None
) -> None:
    front.roles = roles
    steps = check(endpoint=f"{front.server.url}/v3", observe_only=observe_only)
    found = step_named(steps, "project")
    assert found.ok is ok
    assert (hint in (found.hint or "")) if hint else found.hint is None
    assert all(step.ok for step in steps if step is not found)


@pytest.mark.parametrize(
    ("changes", "step", "words"),
    [
        ({"fields": {"password": "wrong"}}, "credential", "user_domain_name"),
        ({"fields": {"user_domain_name": "Elsewhere"}}, "credential", "in the domain Default: set user_domain_name"),
        ({"fields": {"user_domain_id": "elsewhere"}}, "credential", "in the domain Default: set user_domain_name"),
        ({"fields": {"project_domain_name": "Elsewhere"}}, "project", "in the domain Default (id default)"),
        ({"fields": {"project_domain_id": "elsewhere"}}, "project", "'leeway' is not in the domain 'elsewhere'"),
        ({"fields": {"project_id": "none", "project_domain_name": "Elsewhere"}}, "project", "physics"),
        ({"fields": {"project_name": "astro"}}, "project", "physics"),
        ({"region": "mars"}, "region", "aurora-1"),
        ({"settings": {"network": "none"}}, "networks", "leeway-net"),
        ({"endpoint": "http://leeway.invalid:5000/v3"}, "endpoint", "name"),
    ],
)
def test_what_is_wrong_is_told_apart(check: Check, changes: dict[str, Any], step: str, words: str) -> None:
    found = failed(check(**changes))
    assert found.step == step
    assert words in f"{found.detail} {found.hint}"


def test_nobody_listening_is_the_endpoints_fault(check: Check) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        found = failed(check(endpoint=f"http://127.0.0.1:{closed.getsockname()[1]}/v3"))
    assert found.step == "endpoint"
    assert "firewall" in (found.hint or "")


def test_an_address_that_speaks_no_tls_is_told(check: Check, cloud: SandboxCloud) -> None:
    found = failed(check(endpoint=cloud.auth_url.replace("http:", "https:")))
    assert found.step == "endpoint"
    assert "http://" in (found.hint or "")


def test_an_address_that_says_nothing_is_told(check: Check) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        found = failed(check(endpoint=f"http://127.0.0.1:{silent.getsockname()[1]}/v3", settings={"call_timeout": "1"}))
    assert found.step == "endpoint"
    assert "did not answer in time" in found.detail
    assert "firewall" in (found.hint or "")


def test_another_service_is_no_keystone(check: Check, cloud: SandboxCloud) -> None:
    assert failed(check(endpoint=f"{cloud.url}/compute")).step == "endpoint"
    cloud.faults.add("html", service="identity")
    assert failed(check()).step == "endpoint"


@pytest.mark.parametrize(
    ("path", "step", "service"),
    [
        ("/flavors", "flavors", "Nova"),
        ("/images", "images", "Glance"),
        ("/os-quota-sets", "quotas", "Nova"),
        ("/v2.0/quotas", "quotas", "Neutron"),
        ("/servers/detail", "machines", "Nova"),
        ("/ports", "ports", "Neutron"),
        ("/floatingips", "addresses", "Neutron"),
        ("/volumes/detail", "volumes", "Cinder"),
        ("/snapshots/detail", "volumes", "Cinder"),
        ("/networks", "networks", "Neutron"),
    ],
)
@pytest.mark.parametrize(("observe_only", "role"), [(False, "member"), (True, "reader")])
def test_a_reading_that_is_not_allowed_is_named(
    check: Check, cloud: SandboxCloud, *, path: str, step: str, service: str, observe_only: bool, role: str
) -> None:
    cloud.faults.add("403", path=path)
    found = failed(check(observe_only=observe_only))
    assert found.step == step
    assert f"{service} does not let these roles do it (member, reader)" in (found.hint or "")
    assert f"the role {role} in project leeway" in (found.hint or "")


@pytest.mark.parametrize(("fields", "words"), [(FIELDS, "clock is off"), (OTHER_FIELDS, "access rules lack")])
def test_a_service_that_does_not_take_a_good_token_is_told(
    check: Check, cloud: SandboxCloud, fields: dict[str, str], words: str
) -> None:
    add_credential(cloud)
    cloud.faults.add("401", path="/images")
    found = failed(check(fields=fields))
    assert found.step == "images"
    assert "Glance does not take it" in (found.hint or "")
    assert words in (found.hint or "")


def test_a_credential_of_a_member_that_may_not_read_is_told(check: Check, cloud: SandboxCloud) -> None:
    """Newer sites ask for the role reader to read, and an application credential has no role that it was not given."""
    add_credential(cloud, "member")
    steps = {step.step: step for step in check(fields=OTHER_FIELDS)}
    assert {step.step for step in steps.values() if not step.ok} == {"images", "quotas", "machines", "volumes"}
    for name in ("project", "images", "quotas", "machines", "volumes"):
        assert "`--role member --role reader`" in (steps[name].hint or "")
    add_credential(cloud, "member", "reader")
    assert all(step.ok and step.hint is None for step in check(fields=OTHER_FIELDS))


def add_credential(cloud: SandboxCloud, *roles: str) -> None:
    """An application credential of alice's, for the project leeway."""
    identifier = OTHER_FIELDS["application_credential_id"]
    with cloud.cloud.lock:
        cloud.cloud.app_credentials[identifier] = AppCredential(
            id=identifier,
            name=identifier,
            secret=OTHER_FIELDS["application_credential_secret"],
            user_id=next(user.id for user in cloud.cloud.users.values() if user.name == "alice"),
            project_id=next(project.id for project in cloud.cloud.projects.values() if project.name == "leeway"),
            description=None,
            roles=roles or ("member", "reader"),
            unrestricted=False,
            expires_at=None,
        )


def test_a_site_that_is_slow_is_told_within_the_deadline(check: Check, cloud: SandboxCloud) -> None:
    cloud.faults.add("slow", service="image", seconds=30)
    found = failed(check(settings={"call_timeout": "1"}))
    assert found.step == "images"


def test_an_unclear_network_names_the_choices() -> None:
    config = profile("aurora")
    networks = (*config.networks, NetworkConfig(name="second", cidr="10.77.0.0/24", project="leeway"))
    registry = Registry()
    with running(dataclasses.replace(config, networks=networks)) as cloud:
        site = SiteAddress(uuid.uuid4(), "aurora", "sandbox", cloud.auth_url, "aurora-1", uuid.uuid4(), {})
        found = failed([*registry.open(site, Secret(FIELDS)).check(deadline=Deadline.after(10))])
        assert found.step == "networks"
        assert "leeway-net" in (found.hint or "")
        assert "second" in (found.hint or "")
        observed = dataclasses.replace(site, observe_only=True)
        assert all(step.ok for step in registry.open(observed, Secret(FIELDS)).check(deadline=Deadline.after(10)))
        chosen = dataclasses.replace(site, settings={"network": "second"})
        assert all(step.ok for step in registry.open(chosen, Secret(FIELDS)).check(deadline=Deadline.after(10)))
        registry.close()


def test_no_secret_is_ever_told(check: Check) -> None:
    for steps in (check(), check(fields={"password": "geheim-4711"})):
        assert "geheim-4711" not in repr(steps)
