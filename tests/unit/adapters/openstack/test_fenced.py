"""The setting `fence` of a sandbox site, and what is sent with each; what each promises is in `tests/contract`."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest

from adapters.openstack.fenced import NOT_KEPT, FencedOpenStack, client_token
from adapters.registry import Registry
from adapters.sandbox import SandboxCloud, profile, running
from adapters.sandbox.config import ServerFence, Timing
from broker.errors import InvalidInput, SiteBusy, SiteConflict, SiteRefused
from broker.ports import CloudAdapter
from broker.remote import Deadline, Fence, MachineSpec, PartKind, Secret, SiteAddress, Tags
from tests.unit.sandbox.wire_client import Clock

SECRET = Secret({"username": "leeway", "password": "sandbox", "project_name": "leeway"})
Open = Callable[..., CloudAdapter]


def soon() -> Deadline:
    return Deadline.after(10)


def new_tags() -> Tags:
    return Tags(uuid.uuid4(), uuid.uuid4(), uuid.uuid4(), "climate", datetime.now(UTC) + timedelta(days=1))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def cloud(clock: Clock) -> Iterator[SandboxCloud]:
    """Remembers tokens; a machine has its port after 5 seconds and runs after 10."""
    timing = Timing(bind_seconds=5, build_seconds=10)
    config = dataclasses.replace(profile("aurora"), fence=ServerFence.TOKEN, timing=timing, foreign_servers=0)
    with running(config, clock=clock) as started:
        yield started


@pytest.fixture
def open_it() -> Iterator[Open]:
    registry = Registry()

    def open_one(endpoint: str = "http://127.0.0.1:9/v3", *, kind: str = "sandbox", **settings: str) -> CloudAdapter:
        return registry.open(SiteAddress(uuid.uuid4(), "a", kind, endpoint, None, uuid.uuid4(), settings), SECRET)

    yield open_one
    registry.close()


@pytest.fixture
def adapter(cloud: SandboxCloud, open_it: Open) -> CloudAdapter:
    return open_it(cloud.auth_url, fence="token")


@pytest.fixture
def machine(cloud: SandboxCloud) -> MachineSpec:
    config = cloud.config
    flavor, image = config.identifier("flavor", "a1.small"), config.identifier("image", "Debian 12")
    return MachineSpec("m", flavor, image, public_address=True)


def make(adapter: CloudAdapter, machine: MachineSpec, tags: Tags) -> str:
    return adapter.make(PartKind.SERVER, machine, tags=tags, made={}, deadline=soon())


@pytest.mark.parametrize("word", list(Fence))
def test_the_fence_is_the_plans_and_only_a_port_needs_a_port(open_it: Open, word: Fence) -> None:
    plan = {part.kind: part for part in open_it(fence=word).plan(MachineSpec("m", "f", "i"))}
    assert plan[PartKind.SERVER].fence is word
    assert not plan[PartKind.SERVER].is_harmless
    assert (PartKind.PORT in plan) == (word is Fence.PART)


def test_without_the_setting_a_sandbox_is_as_any_openstack(open_it: Open) -> None:
    machine = MachineSpec("m", "f", "i", public_address=True, ssh_key="k")
    assert open_it().plan(machine) == open_it(kind="openstack").plan(machine)
    assert isinstance(open_it(), FencedOpenStack)
    assert not isinstance(open_it(kind="openstack"), FencedOpenStack)


def test_another_word_is_refused_with_the_four(open_it: Open) -> None:
    with pytest.raises(InvalidInput) as caught:
        open_it(fence="moat")
    assert caught.value.field == "settings.fence"
    assert "name, token, part, none" in (caught.value.hint or "")


def test_a_real_openstack_has_no_choice(open_it: Open) -> None:
    with pytest.raises(InvalidInput) as caught:
        open_it(kind="openstack", fence="part")
    assert caught.value.field == "settings.fence"
    assert "fence" not in (caught.value.hint or "")


def test_every_attempt_of_a_lease_sends_the_same(adapter: CloudAdapter, machine: MachineSpec) -> None:
    tags = new_tags()
    later = dataclasses.replace(tags, attempt=uuid.uuid4(), until=tags.until + timedelta(days=7))
    first = make(adapter, machine, tags)
    assert make(adapter, machine, later) == first
    assert make(adapter, machine, new_tags()) != first
    seen = adapter.look(PartKind.SERVER, first, deadline=soon())
    assert seen is not None
    assert seen.tags == dataclasses.replace(tags, attempt=client_token(tags.lease), until=NOT_KEPT)


def test_another_machine_under_the_same_token_is_a_conflict(adapter: CloudAdapter, machine: MachineSpec) -> None:
    tags = new_tags()
    make(adapter, machine, tags)
    with pytest.raises(SiteConflict):
        make(adapter, dataclasses.replace(machine, user_data="#!/bin/sh\n"), tags)


def test_an_address_waits_for_the_machines_port(
    adapter: CloudAdapter, machine: MachineSpec, cloud: SandboxCloud, clock: Clock
) -> None:
    tags = new_tags()
    made = {PartKind.SERVER: make(adapter, machine, tags)}
    with pytest.raises(SiteBusy):
        adapter.make(PartKind.ADDRESS, machine, tags=tags, made=made, deadline=soon())
    assert cloud.log.alive("floating_ip") == set()
    clock.pass_by(5)
    address = adapter.make(PartKind.ADDRESS, machine, tags=tags, made=made, deadline=soon())
    assert cloud.log.alive("floating_ip") == {address}
    assert [entry.event for entry in cloud.log.entries(id=address)] == ["created", "pointed"]


def test_a_machine_that_failed_gets_no_address(
    adapter: CloudAdapter, machine: MachineSpec, cloud: SandboxCloud, clock: Clock
) -> None:
    cloud.faults.add("no_capacity", path="/servers$", times=1)
    tags = new_tags()
    made = {PartKind.SERVER: make(adapter, machine, tags)}
    clock.pass_by(5)
    with pytest.raises(SiteRefused, match="No valid host"):
        adapter.make(PartKind.ADDRESS, machine, tags=tags, made=made, deadline=soon())


def test_an_address_needs_its_machine(adapter: CloudAdapter, machine: MachineSpec) -> None:
    with pytest.raises(SiteRefused, match="plan's order"):
        adapter.make(PartKind.ADDRESS, machine, tags=new_tags(), made={}, deadline=soon())


def test_a_network_that_is_gone_is_looked_up_again(
    adapter: CloudAdapter, machine: MachineSpec, cloud: SandboxCloud
) -> None:
    make(adapter, machine, new_tags())
    old = cloud.config.identifier("network", "leeway-net")
    network = cloud.cloud.networks.pop(old)
    network.id = str(uuid.uuid4())
    cloud.cloud.networks[network.id] = network
    tags = new_tags()
    with pytest.raises(SiteRefused, match="could not be found"):
        make(adapter, machine, tags)
    assert make(adapter, machine, tags)
