"""The adapter against real services: what the sandbox says of OpenStack must be true of OpenStack."""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from openstack.config import OpenStackConfig
from openstack.connection import Connection

from adapters.openstack.adapter import OpenStack
from adapters.registry import Registry
from broker.errors import SiteBusy, SiteConflict, SiteDenied, SiteQuota, SiteRefused
from broker.remote import (
    Deadline,
    MachineSpec,
    MachineState,
    PartKind,
    RemoteMachine,
    RemoteSnapshot,
    RemoteThing,
    Secret,
    SnapshotState,
    Tags,
)
from tests.peers.openstack.federation import CLOUDS, PEER, PUBLIC_KEY, SECONDS, address_and_secret

pytestmark = PEER

Open = Callable[..., OpenStack]
FORMATS = {"disk": "qcow2", "container": "bare"}


def soon() -> Deadline:
    return Deadline.after(SECONDS)


@pytest.fixture
def open_as() -> Iterator[Open]:
    """The adapter for an entry of clouds.yaml, with other fields of the address or the credential if given."""
    registry = Registry()

    def open_one(entry: str, *, fields: dict[str, str] | None = None, **changes: Any) -> OpenStack:
        address, secret = address_and_secret(entry)
        adapter = registry.open(replace(address, **changes), Secret({**secret.reveal(), **(fields or {})}))
        assert isinstance(adapter, OpenStack)
        return adapter

    yield open_one
    registry.close()


@pytest.fixture
def alice(open_as: Open) -> OpenStack:
    return open_as("leeway-alice")


def spec(adapter: OpenStack, flavor: str = "m1.tiny") -> MachineSpec:
    offers = {offer.name: offer.remote_id for offer in adapter.offers(deadline=soon())}
    images = {image.name: image.remote_id for image in adapter.images(deadline=soon())}
    return MachineSpec(
        name="Peer test",
        instance_type=offers[flavor],
        image=images["cirros"],
        public_address=True,
        ssh_key=PUBLIC_KEY,
        user_data="#cloud-config\n{}\n",
    )


def new_tags() -> Tags:
    until = datetime.now(UTC) + timedelta(hours=1)
    return Tags(uuid.uuid4(), uuid.uuid4(), uuid.uuid4(), "climate/Lauf 2 ü", until)


def launch(adapter: OpenStack, machine: MachineSpec, tags: Tags, until: PartKind | None = None) -> dict[PartKind, str]:
    made: dict[PartKind, str] = {}
    for part in adapter.plan(machine):
        if part.kind is until:
            break
        made[part.kind] = adapter.make(part.kind, machine, tags=tags, made=made, deadline=soon())
    return made


def wait_for(adapter: OpenStack, server_id: str, *states: MachineState) -> RemoteMachine:
    limit = time.monotonic() + SECONDS
    while True:
        seen = adapter.look(PartKind.SERVER, server_id, deadline=soon())
        assert isinstance(seen, RemoteMachine)
        if seen.state in states:
            return seen
        assert time.monotonic() < limit, f"still {seen.raw_status} after {SECONDS:.0f} s"
        time.sleep(1)


def remove(adapter: OpenStack, machine: MachineSpec, made: dict[PartKind, str]) -> None:
    """Delete part by part, in the plan's reverse order, each until a look says that it is gone."""
    for kind in reversed([part.kind for part in adapter.plan(machine) if part.kind in made]):
        limit = time.monotonic() + SECONDS
        adapter.delete(kind, made[kind], deadline=soon())
        while adapter.look(kind, made[kind], deadline=soon()) is not None:
            assert time.monotonic() < limit, f"{kind} is still there after {SECONDS:.0f} s"
            time.sleep(1)
        adapter.delete(kind, made[kind], deadline=soon())


def test_a_machine_lives_stops_shelves_and_goes(alice: OpenStack) -> None:
    machine, tags = spec(alice), new_tags()
    made = launch(alice, machine, tags)
    try:
        running = wait_for(alice, made[PartKind.SERVER], MachineState.RUNNING)
        assert running.tags == tags
        assert running.instance_type == machine.instance_type
        assert running.launched_at is not None
        assert len(running.addresses) == 2
        listing = alice.listing(deadline=soon())
        assert {part.remote_id for part in (*listing.machines, *listing.parts) if part.tags == tags} == set(
            made.values()
        )
        for kind, remote_id in made.items():
            found = alice.find(kind, lease=tags.lease, made=made, deadline=soon())
            assert [(part.remote_id, part.tags) for part in found] == [(remote_id, tags)]
        with pytest.raises(SiteConflict):
            alice.make(PartKind.SERVER, machine, tags=tags, made=made, deadline=soon())
        again = alice.make(PartKind.KEY_PAIR, machine, tags=tags, made={}, deadline=soon())
        assert again == made[PartKind.KEY_PAIR]
        for change, state in (
            (alice.stop, MachineState.STOPPED),
            (alice.start, MachineState.RUNNING),
            (alice.shelve, MachineState.SHELVED),
            (alice.unshelve, MachineState.RUNNING),
        ):
            change(made[PartKind.SERVER], deadline=soon())
            wait_for(alice, made[PartKind.SERVER], state)
            change(made[PartKind.SERVER], deadline=soon())
    finally:
        remove(alice, machine, made)
    listing = alice.listing(deadline=soon())
    assert not [part for part in (*listing.machines, *listing.parts) if part.tags == tags]


@pytest.fixture
def by_hand() -> Iterator[Connection]:
    """What alice does herself."""
    config = OpenStackConfig(config_files=[str(CLOUDS)], load_envvars=False)
    connection = Connection(config=config.get_one("leeway-alice"))
    yield connection
    connection.close()


def look_at(adapter: OpenStack, snapshot: str) -> RemoteSnapshot | None:
    seen = adapter.look(PartKind.SNAPSHOT, snapshot, deadline=soon())
    assert seen is None or isinstance(seen, RemoteSnapshot)
    return seen


def snapshots_of(adapter: OpenStack, *every: Tags) -> dict[str, Tags | None]:
    """What a search for each lease finds; the listing has all of it, and no more of theirs."""
    found: dict[str, Tags | None] = {}
    for tags in every:
        parts = adapter.find(PartKind.SNAPSHOT, lease=tags.lease, made={}, deadline=soon())
        found |= {part.remote_id: part.tags for part in parts}
    listed = [part for part in adapter.listing(deadline=soon()).parts if part.kind is PartKind.SNAPSHOT]
    assert {part.remote_id: part.tags for part in listed if part.tags in every} == found
    return found


def upload(by_hand: Connection, image_id: str) -> None:
    """Send an image's bytes, as the hypervisor would: Nova's fake one never does."""
    path = f"/images/{image_id}"
    change = [{"op": "replace", "path": f"/{name}_format", "value": word} for name, word in FORMATS.items()]
    patch = {"Content-Type": "application/openstack-images-v2.1-json-patch"}
    assert by_hand.image.patch(path, json=change, headers=patch).status_code == 200
    sent = by_hand.image.put(f"{path}/file", data=bytes(65536), headers={"Content-Type": "application/octet-stream"})
    assert sent.status_code == 204, sent.text


def saved(by_hand: Connection, server_id: str) -> list[Any]:
    """Every image that Nova made of a server."""
    return [image for image in by_hand.image.images() if image.instance_uuid == server_id]


def test_a_snapshot_is_made_found_told_apart_started_from_and_deleted(alice: OpenStack, by_hand: Connection) -> None:
    machine, tags, child_tags = replace(spec(alice), public_address=False, ssh_key=None), new_tags(), new_tags()
    made, child = launch(alice, machine, tags), {}
    try:
        wait_for(alice, made[PartKind.SERVER], MachineState.RUNNING)
        snapshot = alice.make(PartKind.SNAPSHOT, machine, tags=tags, made=made, deadline=soon())
        young = look_at(alice, snapshot)
        assert young is not None
        assert (young.state, young.size_gib, young.tags) == (SnapshotState.SAVING, None, tags)
        assert snapshots_of(alice, tags) == {snapshot: tags}
        assert snapshot not in {image.remote_id for image in alice.images(deadline=soon())}
        upload(by_hand, snapshot)
        ready = look_at(alice, snapshot)
        assert ready is not None
        assert (ready.state, ready.size_gib) == (SnapshotState.READY, Decimal("0.001"))
        image = next(image for image in alice.images(deadline=soon()) if image.remote_id == snapshot)
        assert (image.name, image.logical) == (ready.name, None)

        # A machine that was started from it hands our tags on to every image of it, whoever makes that.
        child = launch(alice, replace(machine, image=snapshot), child_tags)
        wait_for(alice, child[PartKind.SERVER], MachineState.RUNNING)
        by_hand.compute.create_server_image(child[PartKind.SERVER], "by-hand", wait=False)
        limit = time.monotonic() + SECONDS
        while by_hand.compute.get_server(child[PartKind.SERVER]).task_state is not None:
            assert time.monotonic() < limit
            time.sleep(1)
        alice.shelve(child[PartKind.SERVER], deadline=soon())
        wait_for(alice, child[PartKind.SERVER], MachineState.SHELVED)
        with pytest.raises(SiteBusy):
            alice.make(PartKind.SNAPSHOT, machine, tags=child_tags, made=child, deadline=soon())
        descendants = saved(by_hand, child[PartKind.SERVER])
        assert {image.name.rpartition("-")[2] for image in descendants} == {"hand", "shelved"}
        assert {image.properties["leeway:lease"] for image in descendants} == {str(tags.lease)}
        assert snapshots_of(alice, tags, child_tags) == {snapshot: tags}

        by_hand.image.update_image(snapshot, is_protected=True)
        with pytest.raises(SiteRefused, match="protected"):
            alice.delete(PartKind.SNAPSHOT, snapshot, deadline=soon())
        by_hand.image.update_image(snapshot, is_protected=False)
        alice.delete(PartKind.SNAPSHOT, snapshot, deadline=soon())
        assert look_at(alice, snapshot) is None
        assert snapshots_of(alice, tags) == {}
    finally:
        images = [image for parts in (made, child) for image in saved(by_hand, parts.get(PartKind.SERVER, ""))]
        remove(alice, machine, child)
        remove(alice, machine, made)
        for image in images:
            alice.delete(PartKind.SNAPSHOT, image.id, deadline=soon())


def test_a_gpu_is_read_from_the_flavor_and_gets_a_place(alice: OpenStack) -> None:
    offer = next(offer for offer in alice.offers(deadline=soon()) if offer.name == "g1.a100")
    assert (offer.gpus, offer.gpu_model) == (1, "A100")
    machine, tags = replace(spec(alice, "g1.a100"), public_address=False, ssh_key=None), new_tags()
    made = launch(alice, machine, tags)
    try:
        wait_for(alice, made[PartKind.SERVER], MachineState.RUNNING)
    finally:
        remove(alice, machine, made)


def test_a_machine_without_a_host_is_accepted_fails_and_is_still_there(alice: OpenStack) -> None:
    machine, tags = replace(spec(alice, "x1.nowhere"), public_address=False), new_tags()
    made = launch(alice, machine, tags)
    try:
        failed = wait_for(alice, made[PartKind.SERVER], MachineState.ERROR)
        assert "No valid host" in (failed.fault or "")
    finally:
        remove(alice, machine, made)


def test_two_requests_for_one_port_never_run_two_machines(alice: OpenStack) -> None:
    """Nova takes the port only while it builds: a quick second request may get its 202 too, and then fails."""
    machine, tags = replace(spec(alice), public_address=False), new_tags()
    made = launch(alice, machine, tags, until=PartKind.SERVER)
    servers = [alice.make(PartKind.SERVER, machine, tags=tags, made=made, deadline=soon())]
    with contextlib.suppress(SiteConflict):
        servers.append(alice.make(PartKind.SERVER, machine, tags=tags, made=made, deadline=soon()))
    try:
        states = [
            wait_for(alice, server, MachineState.RUNNING, MachineState.ERROR, MachineState.DELETING).state
            for server in servers
        ]
        assert states.count(MachineState.RUNNING) == 1
        found = alice.find(PartKind.SERVER, lease=tags.lease, made=made, deadline=soon())
        assert {part.remote_id for part in found} == set(servers), "a search finds every one of them"
    finally:
        for server in servers:
            remove(alice, machine, {PartKind.SERVER: server})
        remove(alice, machine, {kind: made[kind] for kind in made if kind is not PartKind.SERVER})


def test_quotas_are_read_and_refuse(open_as: Open) -> None:
    tim = open_as("leeway-tim")
    limits = {quota.resource: quota.limit for quota in tim.quotas(deadline=soon())}
    assert [limits[name] for name in ("instances", "cores", "memory_mib")] == [1, 2, 4096]
    assert {"floating_ips", "ports"} <= set(limits)
    unlimited = {quota.resource: quota.limit for quota in open_as("leeway-lena").quotas(deadline=soon())}
    assert unlimited["instances"] is None
    machine, tags = replace(spec(tim, "m1.large"), public_address=False), new_tags()
    made = launch(tim, machine, tags, until=PartKind.SERVER)
    try:
        with pytest.raises(SiteQuota):
            tim.make(PartKind.SERVER, machine, tags=tags, made=made, deadline=soon())
    finally:
        remove(tim, machine, made)


def test_what_nova_does_not_know_is_refused(alice: OpenStack) -> None:
    machine, tags = replace(spec(alice), public_address=False, ssh_key=None), new_tags()
    made = launch(alice, machine, tags, until=PartKind.SERVER)
    try:
        for wrong in (
            replace(machine, image=str(uuid.uuid4())),
            replace(machine, instance_type="none"),
            replace(machine, user_data="x" * 70_000),
        ):
            with pytest.raises(SiteRefused):
                alice.make(PartKind.SERVER, wrong, tags=tags, made=made, deadline=soon())
    finally:
        remove(alice, machine, made)


def test_absence_is_said_by_each_service(alice: OpenStack) -> None:
    for kind in PartKind:
        assert alice.look(kind, str(uuid.uuid4()), deadline=soon()) is None
        alice.delete(kind, str(uuid.uuid4()), deadline=soon())


def test_the_scope_is_the_project_whoever_opens_it(open_as: Open, alice: OpenStack) -> None:
    mine = alice.scope(deadline=soon())
    assert alice.listing(deadline=soon()).scope == mine
    assert open_as("leeway-alice-credential").scope(deadline=soon()) == mine
    other = open_as("leeway-alice", fields={"project_name": "genomes"}).scope(deadline=soon())
    assert other == open_as("leeway-bob").scope(deadline=soon()) != mine


def test_nova_says_to_a_plain_member_when_a_machine_ended(alice: OpenStack) -> None:
    machine, tags = replace(spec(alice), public_address=False, ssh_key=None), new_tags()
    made = launch(alice, machine, tags)
    try:
        running = wait_for(alice, made[PartKind.SERVER], MachineState.RUNNING)
        since = running.launched_at
        assert since is not None
        assert alice.ended_at(made[PartKind.SERVER], since=since, deadline=soon()) is None
    finally:
        remove(alice, machine, made)
    ended_at = alice.ended_at(made[PartKind.SERVER], since=since, deadline=soon())
    assert ended_at is not None
    assert since <= ended_at <= datetime.now(UTC)
    assert alice.ended_at(str(uuid.uuid4()), since=since, deadline=soon()) is None


def test_who_may_only_read_is_denied_and_told_so(open_as: Open) -> None:
    rita = open_as("leeway-rita")
    with pytest.raises(SiteDenied):
        rita.make(PartKind.PORT, spec(rita), tags=new_tags(), made={}, deadline=soon())
    failed = [step for step in rita.check(deadline=soon()) if not step.ok]
    assert [step.step for step in failed] == ["project"]
    assert "member" in (failed[0].hint or "")


@pytest.mark.parametrize("entry", ["leeway-alice", "leeway-alice-credential", "leeway-lena"])
def test_a_good_credential_passes_every_step(open_as: Open, entry: str) -> None:
    assert [step for step in open_as(entry).check(deadline=soon()) if not step.ok] == []


@pytest.mark.parametrize(
    ("entry", "changes", "told"),
    [
        ("leeway-alice", {"fields": {"password": "no"}}, ("credential", "password")),
        ("leeway-alice", {"fields": {"username": "nobody"}}, ("credential", "user name")),
        ("leeway-alice", {"fields": {"user_domain_name": "Elsewhere"}}, ("credential", "Elsewhere")),
        ("leeway-alice", {"fields": {"project_name": "tiny"}}, ("project", "climate")),
        ("leeway-alice", {"fields": {"project_domain_name": "Elsewhere"}}, ("project", "climate")),
        ("leeway-alice-credential", {"fields": {"application_credential_secret": "no"}}, ("credential", "secret")),
        ("leeway-alice-credential", {"fields": {"application_credential_id": "none"}}, ("credential", "id")),
        ("leeway-alice", {"region": "RegionTwo"}, ("region", "RegionOne")),
        ("leeway-alice", {"endpoint": "http://127.0.0.1:8774/v2.1"}, ("endpoint", "auth_url")),
        ("leeway-alice", {"settings": {"network": "none-such"}}, ("networks", "climate-net")),
    ],
)
def test_what_is_wrong_is_told_apart(open_as: Open, entry: str, changes: dict[str, Any], told: tuple[str, str]) -> None:
    step, words = told
    failed = [found for found in open_as(entry, **changes).check(deadline=soon()) if not found.ok]
    assert [found.step for found in failed] == [step]
    assert words in f"{failed[0].detail} {failed[0].hint}"


def seen_by(adapter: OpenStack, ids: set[str]) -> dict[str, RemoteThing]:
    """Of the listing's things those of these ids; public images are none of the project's things."""
    things = adapter.listing(deadline=soon()).things
    assert not [thing for thing in things if thing.name in ("cirros", "ubuntu-22.04")]
    return {thing.remote_id: thing for thing in things if thing.remote_id in ids}


def test_things_of_all_kinds_and_changes_are_shown_to_who_may_only_read(
    open_as: Open, alice: OpenStack, by_hand: Connection
) -> None:
    rita, owner = open_as("leeway-rita"), by_hand.current_user_id
    storage: Any = by_hand.block_storage
    begun = datetime.now(UTC)
    machine, tags = replace(spec(alice), ssh_key=None), new_tags()
    made = launch(alice, machine, tags)
    server, free = made[PartKind.SERVER], ""
    volume = storage.create_volume(name="data", size=2)
    image: Any = by_hand.image.create_image("own", visibility="private")
    upload(by_hand, image.id)
    outside = by_hand.network.find_network("public", ignore_missing=False)
    try:
        free = by_hand.network.create_ip(floating_network_id=outside.id).id
        wait_for(alice, server, MachineState.RUNNING)
        volume = storage.wait_for_status(volume, "available", interval=1, wait=int(SECONDS))
        saved_volume = storage.create_snapshot(volume_id=volume.id, name="backup")
        storage.wait_for_status(saved_volume, "available", interval=1, wait=int(SECONDS))
        ids = {volume.id, saved_volume.id, image.id, free, made[PartKind.ADDRESS]}
        things = seen_by(rita, ids)
        assert {
            remote_id: (str(thing.kind), thing.owner, thing.attached_to) for remote_id, thing in things.items()
        } == {
            volume.id: ("volume", owner, None),
            saved_volume.id: ("volume_snapshot", owner, None),
            image.id: ("snapshot", None, None),
            free: ("address", None, None),
            made[PartKind.ADDRESS]: ("address", None, server),
        }
        sizes = {str(thing.kind): thing.size_gib for thing in things.values() if thing.size_gib}
        assert sizes == {"volume": 2, "volume_snapshot": 2, "snapshot": Decimal("0.001")}
        assert things[volume.id].name == "data"
        assert [thing.remote_id for thing in things.values() if thing.tags] == [made[PartKind.ADDRESS]]
        assert all(begun - timedelta(minutes=1) < (thing.created_at or begun) for thing in things.values())
        assert None not in {thing.created_at for thing in things.values()}
        used = {quota.resource: quota.used for quota in rita.quotas(deadline=soon())}
        assert [used[name] for name in ("volumes", "volume_gib", "snapshots")] == [1, 4, 1]

        by_hand.compute.create_volume_attachment(server, volume.id)
        storage.wait_for_status(volume, "in-use", interval=1, wait=int(SECONDS))
        assert seen_by(rita, {volume.id})[volume.id].attached_to == server
        changed = rita.changes(since=begun, deadline=soon())
        assert {found.remote_id: found.owner for found in changed.machines}[server] == owner
        assert server not in changed.ended
    finally:
        remove(alice, machine, made)
        storage.wait_for_status(volume, "available", interval=1, wait=int(SECONDS))
        for snapshot in storage.snapshots(volume_id=volume.id):
            storage.delete_snapshot(snapshot)
            storage.wait_for_delete(snapshot, interval=1, wait=int(SECONDS))
        storage.delete_volume(volume)
        by_hand.image.delete_image(image)
        if free:
            by_hand.network.delete_ip(free)
    assert seen_by(rita, {free, image.id}) == {}
    assert rita.changes(since=begun, deadline=soon()).ended[server] is not None
