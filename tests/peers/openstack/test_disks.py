"""Disks and groups against real services: what the contract says of the sandbox must be true of the real ones."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from openstack.config import OpenStackConfig
from openstack.connection import Connection

from adapters.openstack.adapter import OpenStack
from adapters.registry import Registry
from broker.errors import SiteBusy, SiteConflict, SiteQuota, SiteRefused
from broker.remote import Deadline, MachineSpec, MachineState, PartKind, RemoteMachine, RemoteThing, Tags, ThingKind
from tests.peers.openstack.federation import CLOUDS, PEER, SECONDS, address_and_secret
from tests.peers.openstack.test_adapter import new_tags, remove, wait_for
from tests.peers.openstack.test_adapter import spec as any_spec

pytestmark = PEER

Open = Callable[..., OpenStack]


def soon() -> Deadline:
    return Deadline.after(SECONDS)


@pytest.fixture
def open_as() -> Iterator[Open]:
    """The adapter for an entry of clouds.yaml, with the settings given."""
    registry = Registry()

    def open_one(entry: str, **settings: str) -> OpenStack:
        address, secret = address_and_secret(entry)
        adapter = registry.open(replace(address, settings=settings), secret)
        assert isinstance(adapter, OpenStack)
        return adapter

    yield open_one
    registry.close()


@pytest.fixture
def by_hand() -> Iterator[Connection]:
    """What alice does herself."""
    connection = Connection(
        config=OpenStackConfig(config_files=[str(CLOUDS)], load_envvars=False).get_one("leeway-alice")
    )
    yield connection
    connection.close()


def spec(adapter: OpenStack, flavor: str = "m1.tiny", **more: Any) -> MachineSpec:
    """A machine with nothing beside its disks."""
    return replace(any_spec(adapter, flavor), public_address=False, ssh_key=None, **more)


def launch(adapter: OpenStack, machine: MachineSpec, tags: Tags, made: dict[PartKind, str]) -> None:
    """Make the plan's parts; where a disk is not there yet, ask again."""
    limit = time.monotonic() + SECONDS
    for part in adapter.plan(machine):
        while part.kind not in made:
            try:
                made[part.kind] = adapter.make(part.kind, machine, tags=tags, made=made, deadline=soon())
            except SiteBusy:
                assert time.monotonic() < limit
                time.sleep(0.5)


def disks(adapter: OpenStack, *, of: str | None) -> dict[str, RemoteThing]:
    """The volumes that a machine has."""
    things = adapter.listing(deadline=soon()).things
    return {thing.remote_id: thing for thing in things if thing.kind is ThingKind.VOLUME and thing.attached_to == of}


def wait_until(is_so: Callable[[], bool]) -> None:
    limit = time.monotonic() + SECONDS
    while not is_so():
        assert time.monotonic() < limit
        time.sleep(0.5)


def test_a_machine_with_two_disks_of_its_own_lives_and_goes(open_as: Open) -> None:
    alice = open_as("leeway-alice")
    machine, tags = spec(alice, boot_volume_gib=2, volume_gib=1), new_tags()
    made: dict[PartKind, str] = {}
    try:
        launch(alice, machine, tags, made)
        server, volume = made[PartKind.SERVER], made[PartKind.VOLUME]
        wait_for(alice, server, MachineState.RUNNING)
        own = disks(alice, of=server)
        (root,) = own.keys() - {volume}
        assert (own[root].size_gib, own[root].tags, own[root].name) == (Decimal(2), None, "")
        assert (own[volume].size_gib, own[volume].tags, own[volume].project) == (Decimal(1), tags, own[root].project)
        found = alice.find(PartKind.VOLUME, lease=tags.lease, made=made, deadline=soon())
        assert [(part.remote_id, part.tags) for part in found] == [(volume, tags)]
        listed = [part for part in alice.listing(deadline=soon()).parts if part.kind is PartKind.VOLUME]
        assert [part.remote_id for part in listed if part.tags == tags] == [volume]

        with pytest.raises(SiteConflict):
            alice.make(PartKind.SERVER, machine, tags=tags, made=made, deadline=soon())
        with pytest.raises(SiteConflict, match="still attached"):
            alice.delete(PartKind.VOLUME, volume, deadline=soon())
        with pytest.raises(SiteRefused, match="root device"):
            alice.detach(server, root, deadline=soon())
        for _ in range(3):  # asked, under way or done, surely done
            alice.detach(server, volume, deadline=soon())
        wait_until(lambda: not disks(alice, of=server).get(volume))
        alice.detach(server, volume, deadline=soon())
        alice.attach(server, volume, deadline=soon())
        alice.attach(server, volume, deadline=soon())
        wait_until(lambda: volume in disks(alice, of=server))
        alice.attach(server, volume, deadline=soon())
        alice.detach(server, str(uuid.uuid4()), deadline=soon())
        with pytest.raises(SiteRefused):
            alice.detach(str(uuid.uuid4()), volume, deadline=soon())
        with pytest.raises(SiteRefused):
            alice.attach(server, str(uuid.uuid4()), deadline=soon())
    finally:
        remove(alice, machine, made)
    assert alice.look(PartKind.VOLUME, root, deadline=soon()) is None, "it goes with its machine"


def test_a_disk_is_promised_to_a_machine_without_a_host_and_free_after_it(open_as: Open) -> None:
    alice = open_as("leeway-alice")
    machine, tags = spec(alice, "x1.nowhere", boot_volume_gib=1, volume_gib=1), new_tags()
    made: dict[PartKind, str] = {}
    try:
        launch(alice, machine, tags, made)
        wait_for(alice, made[PartKind.SERVER], MachineState.ERROR)
        with pytest.raises(SiteConflict, match="reserved"):
            alice.delete(PartKind.VOLUME, made[PartKind.VOLUME], deadline=soon())
        with pytest.raises(SiteConflict):
            alice.make(PartKind.SERVER, machine, tags=tags, made=made, deadline=soon())
    finally:
        remove(alice, machine, made)


def test_volumes_have_a_quota_and_a_failed_root_disk_is_not_left_behind(open_as: Open) -> None:
    tim = open_as("leeway-tim")
    machine, tags = spec(tim, boot_volume_gib=1, volume_gib=1), new_tags()
    made: dict[PartKind, str] = {}
    try:
        launch(tim, machine, tags, made)
        with pytest.raises(SiteQuota):
            tim.make(PartKind.VOLUME, machine, tags=tags, made={}, deadline=soon())
        with pytest.raises(SiteQuota):
            tim.make(PartKind.VOLUME, replace(machine, volume_gib=1000), tags=tags, made={}, deadline=soon())
        failed = wait_for(tim, made[PartKind.SERVER], MachineState.ERROR)  # the project may have one volume
        assert failed.fault
        assert "VolumeLimitExceeded" in failed.fault
    finally:
        remove(tim, machine, made)
    assert not [thing for thing in tim.listing(deadline=soon()).things if thing.kind is ThingKind.VOLUME]


def test_what_cinder_does_not_know_is_refused(open_as: Open) -> None:
    alice = open_as("leeway-alice", volume_type="no-such-type")
    machine = spec(alice, volume_gib=1)
    with pytest.raises(SiteRefused, match="no-such-type"):
        alice.make(PartKind.VOLUME, machine, tags=new_tags(), made={}, deadline=soon())
    for kind in (PartKind.VOLUME, PartKind.VOLUME_SNAPSHOT):
        nothing = str(uuid.uuid4())
        assert alice.look(kind, nothing, deadline=soon()) is None
        assert not alice.find(kind, lease=uuid.uuid4(), made={}, deadline=soon())
        alice.delete(kind, nothing, deadline=soon())


def test_a_volume_with_a_snapshot_stays_until_that_is_gone(open_as: Open, by_hand: Connection) -> None:
    alice, storage = open_as("leeway-alice", volume_type="standard"), _storage(by_hand)
    machine, tags = spec(alice, volume_gib=1), new_tags()
    volume = alice.make(PartKind.VOLUME, machine, tags=tags, made={}, deadline=soon())
    storage.wait_for_status(storage.get_volume(volume), "available", interval=1, wait=int(SECONDS))
    snapshot = storage.create_snapshot(volume_id=volume, name="backup").id
    try:
        wait_until(lambda: storage.get_snapshot(snapshot).status == "available")
        with pytest.raises(SiteRefused) as refused:
            alice.delete(PartKind.VOLUME, volume, deadline=soon())
        assert refused.value.hint
        assert "snapshots" in refused.value.hint
    finally:
        wait_until(lambda: _gone(alice, PartKind.VOLUME_SNAPSHOT, snapshot))
        wait_until(lambda: _gone(alice, PartKind.VOLUME, volume))


def _storage(connection: Connection) -> Any:
    return connection.block_storage


def _gone(adapter: OpenStack, kind: PartKind, remote_id: str) -> bool:
    try:
        adapter.delete(kind, remote_id, deadline=soon())
    except SiteBusy:
        return False
    return adapter.look(kind, remote_id, deadline=soon()) is None


def test_machines_are_in_the_groups_that_the_settings_name(open_as: Open, by_hand: Connection) -> None:
    name = f"test-disks-{uuid.uuid4().hex[:8]}"
    ports = by_hand.network.create_security_group(name=name)
    apart: Any = by_hand.compute.create_server_group(name=name, policy="soft-anti-affinity")
    made: dict[PartKind, str] = {}
    alice = open_as("leeway-alice", security_groups=f"default, {name}", server_group=name)
    machine = spec(alice)
    try:
        launch(alice, machine, new_tags(), made)
        port: Any = by_hand.network.get_port(made[PartKind.PORT])
        default = by_hand.network.find_security_group("default", ignore_missing=False)
        assert set(port.security_group_ids) == {ports.id, default.id}
        assert by_hand.compute.get_server_group(apart).member_ids == [made[PartKind.SERVER]]
        running = wait_for(alice, made[PartKind.SERVER], MachineState.RUNNING)
        assert isinstance(running, RemoteMachine)
        for setting, kind in (("security_groups", PartKind.PORT), ("server_group", PartKind.SERVER)):
            wrong = open_as("leeway-alice", **{setting: f"{name}-not"})
            with pytest.raises(SiteRefused) as refused:
                wrong.make(kind, machine, tags=new_tags(), made=made, deadline=soon())
            assert refused.value.hint
            assert f"{name} (" in refused.value.hint
    finally:
        remove(alice, machine, made)
        by_hand.compute.delete_server_group(apart)
        by_hand.network.delete_security_group(ports)
