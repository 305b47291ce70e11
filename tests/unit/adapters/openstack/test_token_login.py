"""A site that is given a token instead of a password: good for as long as the token, and no longer."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest
import requests

from adapters.openstack.adapter import OpenStack
from adapters.openstack.login import Credential
from adapters.registry import Registry
from adapters.sandbox import SandboxCloud, profile, running
from broker.errors import InvalidInput, SiteDenied
from broker.remote import Deadline, Diagnosis, Secret, SiteAddress


@dataclass
class Clock:
    """The time, and how far ahead of it the cloud is."""

    ahead: timedelta = field(default_factory=timedelta)

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead


@pytest.fixture(scope="module")
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="module")
def cloud(clock: Clock) -> Iterator[SandboxCloud]:
    with running(profile("aurora"), clock=clock) as started:
        yield started


Open = Callable[..., OpenStack]


@pytest.fixture
def open_site(cloud: SandboxCloud, clock: Clock) -> Iterator[Open]:
    registry = Registry()

    def open_one(**fields: str) -> OpenStack:
        site = SiteAddress(uuid.uuid4(), "aurora", "openstack", cloud.auth_url, "aurora-1", uuid.uuid4(), {})
        adapter = registry.open(site, Secret(fields))
        assert isinstance(adapter, OpenStack)
        return adapter

    yield open_one
    registry.close()
    clock.ahead = timedelta()


def soon() -> Deadline:
    return Deadline.after(10)


def token_of(cloud: SandboxCloud, identity: dict[str, object]) -> str:
    answer = requests.post(f"{cloud.auth_url}/auth/tokens", json={"auth": {"identity": identity}}, timeout=10)
    assert answer.status_code == 201, answer.text
    return answer.headers["X-Subject-Token"]


@pytest.fixture
def token(cloud: SandboxCloud) -> str:
    """An unscoped one of a user who may work in two projects."""
    user = {"name": "alice", "password": "sandbox", "domain": {"name": "Default"}}
    return token_of(cloud, {"methods": ["password"], "password": {"user": user}})


def failed(adapter: OpenStack) -> Diagnosis:
    (step,) = [step for step in adapter.check(deadline=soon()) if not step.ok]
    return step


def test_a_token_opens_the_project_that_is_named(open_site: Open, token: str) -> None:
    scopes = {open_site(token=token, project_name=name).scope(deadline=soon()) for name in ("leeway", "physics")}
    assert len(scopes) == 2
    adapter = open_site(token=token, project_name="leeway")
    assert not [step for step in adapter.check(deadline=soon()) if not step.ok]
    assert adapter.listing(deadline=soon()).machines


def test_a_token_that_is_over_is_told_so_in_mid_run_too(open_site: Open, token: str, clock: Clock) -> None:
    adapter = open_site(token=token, project_name="leeway")
    assert adapter.listing(deadline=soon()).machines
    clock.ahead = timedelta(hours=5)
    with pytest.raises(SiteDenied) as caught:
        adapter.listing(deadline=soon())
    assert "give the site a new one" in (caught.value.hint or "")


@pytest.mark.parametrize("value", ["garbage", "gAAAAABwho"])
def test_a_token_that_keystone_does_not_know_is_denied(open_site: Open, value: str) -> None:
    adapter = open_site(token=value, project_name="leeway")
    with pytest.raises(SiteDenied, match="new one"):
        adapter.scope(deadline=soon())
    step = failed(open_site(token=value, project_name="leeway"))
    assert (step.step, step.detail) == ("credential", "the token is refused")
    assert "give the site a new one" in (step.hint or "")


def test_the_token_of_an_application_credential_cannot_be_exchanged(open_site: Open, cloud: SandboxCloud) -> None:
    user = {"name": "leeway", "password": "sandbox", "domain": {"name": "Default"}}
    scope = {"project": {"name": "leeway", "domain": {"name": "Default"}}}
    auth = {"identity": {"methods": ["password"], "password": {"user": user}}, "scope": scope}
    login = requests.post(f"{cloud.auth_url}/auth/tokens", json={"auth": auth}, timeout=10)
    path = f"{cloud.auth_url}/users/{login.json()['token']['user']['id']}/application_credentials"
    headers = {"X-Auth-Token": login.headers["X-Subject-Token"]}
    asked = {"application_credential": {"name": f"t-{uuid.uuid4().hex}"}}
    made = requests.post(path, json=asked, headers=headers, timeout=10).json()["application_credential"]
    identity = {"id": made["id"], "secret": made["secret"]}
    delegated = token_of(cloud, {"methods": ["application_credential"], "application_credential": identity})
    with pytest.raises(SiteDenied, match="delegated"):
        open_site(token=delegated, project_name="leeway").scope(deadline=soon())


def test_the_wrong_project_is_told_apart_from_the_wrong_token(open_site: Open, token: str) -> None:
    step = failed(open_site(token=token, project_name="none"))
    assert step.step == "project"
    assert "the token is right" in step.detail
    assert "physics" in (step.hint or "")


def test_a_token_is_for_one_project_and_is_never_shown() -> None:
    with pytest.raises(InvalidInput, match="project_name"):
        Credential.read(Secret({"token": "gAAAAABs3cret"}))
    credential = Credential.read(Secret({"token": "gAAAAABs3cret", "project_id": "x"}))
    assert b"s3cret" in credential.body()
    assert "s3cret" not in repr(credential)
