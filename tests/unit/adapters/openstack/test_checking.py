"""What a person is told when a site cannot be used, against the sandbox."""

from __future__ import annotations

import dataclasses
import socket
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from adapters.registry import Registry
from adapters.sandbox import SandboxCloud, profile, running
from adapters.sandbox.config import NetworkConfig
from broker.remote import Deadline, Diagnosis, Secret, SiteAddress

Check = Callable[..., list[Diagnosis]]
FIELDS = {"username": "alice", "password": "sandbox", "project_name": "leeway"}


@pytest.fixture(scope="module")
def cloud() -> Iterator[SandboxCloud]:
    with running(profile("aurora")) as started:
        yield started


@pytest.fixture
def check(cloud: SandboxCloud) -> Iterator[Check]:
    registry = Registry()
    cloud.faults.clear()

    def run(*, fields: dict[str, str] | None = None, **changes: Any) -> list[Diagnosis]:
        site = SiteAddress(uuid.uuid4(), "aurora", "sandbox", cloud.auth_url, "aurora-1", uuid.uuid4(), {})
        adapter = registry.open(dataclasses.replace(site, **changes), Secret({**FIELDS, **(fields or {})}))
        return [*adapter.check(deadline=Deadline.after(10))]

    yield run
    registry.close()
    cloud.faults.clear()


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
        "networks",
    ]


def test_only_one_region_needs_no_name(check: Check) -> None:
    assert all(step.ok for step in check(region=None))


@pytest.mark.parametrize(
    ("changes", "step", "words"),
    [
        ({"fields": {"password": "wrong"}}, "credential", "user_domain_name"),
        ({"fields": {"user_domain_name": "Elsewhere"}}, "credential", "Elsewhere"),
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


def test_another_service_is_no_keystone(check: Check, cloud: SandboxCloud) -> None:
    assert failed(check(endpoint=f"{cloud.url}/compute")).step == "endpoint"
    cloud.faults.add("html", service="identity")
    assert failed(check()).step == "endpoint"


@pytest.mark.parametrize(
    ("path", "step"),
    [("/flavors", "flavors"), ("/images", "images"), ("/networks", "networks"), ("/os-quota-sets", "quotas")],
)
def test_a_reading_that_is_not_allowed_is_named(check: Check, cloud: SandboxCloud, path: str, step: str) -> None:
    cloud.faults.add("403", path=path)
    found = failed(check())
    assert found.step == step
    assert "role" in (found.hint or "")


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
        chosen = dataclasses.replace(site, settings={"network": "second"})
        assert all(step.ok for step in registry.open(chosen, Secret(FIELDS)).check(deadline=Deadline.after(10)))
        registry.close()


def test_no_secret_is_ever_told(check: Check) -> None:
    for steps in (check(), check(fields={"password": "geheim-4711"})):
        assert "geheim-4711" not in repr(steps)
