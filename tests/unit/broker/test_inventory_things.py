"""Rows of `things`: what listings show, written when it changes and at no other time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import literal_column, select, update

from adapters.sandbox.entities import VmState
from broker import things
from broker.models.audit import Finding
from broker.models.federation import Site
from broker.models.inventory import Thing
from broker.remote import Listing, MachineState, PartKind, RemoteMachine, RemoteThing, Tags, ThingKind
from broker.things import record_things
from tests.world import World

START = datetime(2026, 10, 1, tzinfo=UTC)
MADE = START - timedelta(days=100)


def machine(remote_id: str, state: MachineState = MachineState.RUNNING, **changes: Any) -> RemoteMachine:
    made = RemoteMachine(
        PartKind.SERVER, remote_id, f"vm-{remote_id}", None, state, state.upper(), "f1", MADE, MADE, owner="alice"
    )
    return replace(made, **changes)


def volume(remote_id: str, **changes: Any) -> RemoteThing:
    made = RemoteThing(
        ThingKind.VOLUME,
        remote_id,
        f"disk-{remote_id}",
        "available",
        owner="bob",
        size_gib=Decimal(10),
        created_at=MADE,
    )
    return replace(made, **changes)


@dataclass
class Observed:
    """A site whose listings the test makes up, a day apart."""

    world: World
    site_id: UUID
    now: datetime = START

    def shows(self, *seen: RemoteMachine | RemoteThing) -> None:
        machines = tuple(one for one in seen if isinstance(one, RemoteMachine))
        others = tuple(one for one in seen if isinstance(one, RemoteThing))
        self.now += timedelta(days=1)
        listing = Listing("scope", machines, (), others)
        record_things(listing, site_id=self.site_id, started_at=self.now, writing=self.world.sessions.begin)
        with self.world.sessions.begin() as session:
            session.execute(update(Site).where(Site.id == self.site_id).values(listed_at=self.now))

    def rows(self) -> Sequence[Thing]:
        with self.world.sessions() as session:
            return session.scalars(
                select(Thing).where(Thing.site_id == self.site_id).order_by(Thing.first_seen_at, Thing.remote_id)
            ).all()

    def living(self) -> dict[str, Thing]:
        return {row.remote_id: row for row in self.rows() if row.gone_at is None}

    def versions(self) -> set[tuple[UUID, str]]:
        """Which transaction wrote each row last."""
        with self.world.sessions() as session:
            found = session.execute(select(Thing.id, literal_column("CAST(things.xmin AS text)"))).all()
        return {(row[0], row[1]) for row in found}


@pytest.fixture
def observed(world: World) -> Observed:
    with world.sessions.begin() as session:
        session.execute(update(Site).values(listed_at=None))
        return Observed(world, session.scalars(select(Site.id)).one())


def test_what_a_listing_shows_is_a_row_each(observed: Observed) -> None:
    address = RemoteThing(ThingKind.ADDRESS, "a", "203.0.113.7", "ACTIVE", attached_to="m")
    image = RemoteThing(ThingKind.SNAPSHOT, "i", "old", "active", size_gib=Decimal("1.5"))
    seen = (machine("m", project="p1"), volume("v", project="p2"))
    observed.shows(*seen, address, image, replace(image, kind=ThingKind.VOLUME_SNAPSHOT))
    rows = {(row.kind, row.remote_id): row for row in observed.rows()}
    assert len(rows) == 5
    server = rows[ThingKind.SERVER, "m"]
    assert (server.name, server.owner, server.project, server.instance_type) == ("vm-m", "alice", "p1", "f1")
    assert (server.state, server.raw_status, server.created_at) == (MachineState.RUNNING, "RUNNING", MADE)
    assert (server.first_seen_at, server.changed_at, server.last_seen_at, server.gone_at) == (
        observed.now,
        None,
        None,
        None,
    )
    disk = rows[ThingKind.VOLUME, "v"]
    assert (disk.size_gib, disk.state, disk.raw_status, disk.attached_to) == (Decimal(10), None, "available", None)
    assert disk.project == "p2"
    assert (rows[ThingKind.ADDRESS, "a"].attached_to, rows[ThingKind.ADDRESS, "a"].project) == ("m", None)


def test_a_listing_that_shows_the_same_writes_nothing(observed: Observed) -> None:
    seen = [machine("m"), volume("v", size_gib=Decimal(1) / 3), *(volume(str(number)) for number in range(20))]
    observed.shows(*seen)
    before = observed.versions()
    observed.shows(*reversed(seen))
    assert observed.versions() == before
    observed.shows(machine("m", MachineState.STOPPED), *seen[1:])
    assert len(observed.versions() - before) == 1


def test_only_a_change_of_what_it_does_is_a_change_of_state(observed: Observed) -> None:
    observed.shows(machine("m"), volume("v"))
    observed.shows(machine("m", name="renamed", instance_type="f2"), volume("v", size_gib=Decimal(20)))
    rows = observed.living()
    assert (rows["m"].name, rows["m"].instance_type, rows["m"].changed_at) == ("renamed", "f2", None)
    assert (rows["v"].size_gib, rows["v"].changed_at) == (Decimal(20), None)
    observed.shows(machine("m", MachineState.STOPPED), volume("v", attached_to="m"))
    rows = observed.living()
    assert (rows["m"].changed_at, rows["v"].changed_at) == (observed.now, observed.now)
    assert rows["m"].name == "vm-m"


def test_what_is_missing_is_gone_at_once_and_another_one_when_it_comes_back(observed: Observed) -> None:
    observed.shows(machine("m"), volume("v"))
    first = observed.now
    observed.shows(machine("m"), volume("v"))
    last = observed.now
    observed.shows(machine("m"))
    (gone,) = [row for row in observed.rows() if row.gone_at is not None]
    assert (gone.remote_id, gone.first_seen_at, gone.last_seen_at, gone.gone_at) == ("v", first, last, observed.now)
    observed.shows(machine("m"), volume("v"))
    assert observed.living()["v"].id != gone.id
    observed.shows()
    assert observed.living() == {}
    assert len(observed.rows()) == 3


@pytest.mark.parametrize("lost", [{"B"}, {"Z"}, {"a"}, {"b", "c"}, {"-", "z"}, {"-", "0", "B", "Z", "_", "a"}, set()])
def test_stretches_of_the_walk_meet(observed: Observed, monkeypatch: pytest.MonkeyPatch, lost: set[str]) -> None:
    # In many a locale these sort otherwise than byte by byte.
    ids = {"-", "0", "B", "Z", "_", "a", "b", "c", "z", "ä", "\U0001f600"}
    monkeypatch.setattr(things, "STRETCH", 3)
    observed.shows(*map(volume, ids))
    assert set(observed.living()) == ids
    before = observed.versions()
    observed.shows(*map(volume, ids - lost))
    assert set(observed.living()) == ids - lost
    assert len(observed.versions() - before) == len(lost)
    observed.shows(*map(volume, ids))
    assert set(observed.living()) == ids


def test_a_thing_that_two_pages_show_is_one(observed: Observed) -> None:
    observed.shows(volume("v"), volume("v", attached_to="m"), machine("m"), machine("m"))
    assert observed.living()["v"].attached_to == "m"
    assert len(observed.rows()) == 2


def test_a_name_with_a_nul_is_kept_without_it(observed: Observed) -> None:
    observed.shows(volume("v", name="a\x00b"))
    before = observed.versions()
    observed.shows(volume("v", name="a\x00b"))
    assert observed.living()["v"].name == "ab"
    assert observed.versions() == before


def test_another_sites_things_are_left_alone(observed: Observed) -> None:
    observed.shows(volume("v"))
    with observed.world.sessions.begin() as session:
        here = session.get_one(Site, observed.site_id)
        other = Site(
            name="other", provider_id=here.provider_id, adapter="sandbox", endpoint="http://x", next_listing_at=START
        )
        session.add(other)
        session.flush()
        there = Observed(observed.world, other.id)
    there.shows(volume("v", name="there"))
    there.shows()
    assert [row.gone_at for row in observed.rows()] == [None]


def test_tags_say_whose_a_thing_is(observed: Observed) -> None:
    until = START + timedelta(days=3)
    tags = Tags(uuid4(), uuid4(), uuid4(), "climate", until)
    observed.shows(volume("v", tags=tags))
    row = observed.living()["v"]
    assert (row.installation, row.until, row.lease_id) == (tags.installation, until, None)


# --- with the sandbox ------------------------------------------------------------------------------------------------


def test_a_machine_of_ours_is_a_thing_of_its_lease(world: World) -> None:
    (foreign,) = world.cloud.add_foreign_servers(1, project="leeway")
    (lease_id,) = world.leases(world.order())
    site_id = world.until_running(lease_id).lease.site_id
    world.observe(site_id)
    rows = {row.remote_id: row for row in Observed(world, site_id).rows() if row.kind is ThingKind.SERVER}
    assert len(rows) == 2
    ours = next(row for row in rows.values() if row.remote_id != foreign)
    assert (ours.lease_id, ours.installation, ours.state) == (lease_id, world.tools.installation, MachineState.RUNNING)
    assert ours.until is not None
    assert (rows[foreign].lease_id, rows[foreign].installation) == (None, None)


def test_a_machine_that_is_told_as_idle_is_not_told_again_as_unknown(world: World) -> None:
    """Its price would be counted twice."""
    foreign = world.cloud.add_foreign_servers(2, project="leeway")
    with world.sessions() as session:
        site_id = session.scalars(select(Site.id)).one()
    world.observe(site_id)
    world.cloud.cloud.servers[foreign[0]].vm_state = VmState.STOPPED
    tolerance = replace(world.tools.tolerance, machine=timedelta(0))
    world.tools = replace(world.tools, tolerance=tolerance)
    world.observe(site_id)
    assert open_kinds(world) == ["idle_machine", "unknown_machine"]
    world.cloud.cloud.servers[foreign[0]].vm_state = VmState.ACTIVE
    world.observe(site_id)
    assert open_kinds(world) == ["unknown_machine", "unknown_machine"]


def test_where_leeway_only_observes_no_machine_is_unknown(world: World) -> None:
    world.cloud.add_foreign_servers(3, project="leeway")
    with world.sessions() as session:
        site_id = session.scalars(select(Site.id)).one()
    world.observe(site_id)
    assert open_kinds(world) == ["unknown_machine"] * 3
    with world.sessions.begin() as session:
        session.execute(update(Site).values(observe_only=True))
    world.observe(site_id)
    assert open_kinds(world) == []
    assert len(Observed(world, site_id).living()) == 3


def open_kinds(world: World) -> list[str]:
    with world.sessions() as session:
        return list(session.scalars(select(Finding.kind).where(Finding.resolved_at.is_(None)).order_by(Finding.kind)))


def test_a_kind_that_could_not_be_read_stays_as_it_was(observed: Observed) -> None:
    observed.shows(machine("m"), volume("v"))
    unread = {ThingKind.VOLUME: "Cinder is away", ThingKind.VOLUME_SNAPSHOT: "Cinder is away"}
    listing = Listing("scope", (), (), (), unread)
    later = observed.now + timedelta(days=1)
    record_things(listing, site_id=observed.site_id, started_at=later, writing=observed.world.sessions.begin)
    assert set(observed.living()) == {"v"}


def test_a_cinder_that_refuses_us_is_a_finding_and_keeps_no_machine_waiting(world: World) -> None:
    (site_id,) = {lease.site_id for lease in [world.view(world.leases(world.order())[0]).lease]}
    world.cloud.faults.add("403", service="volume", path=r"/volumes/detail$")
    world.observe(site_id)
    assert [finding.kind for finding in open_findings_of(world) if finding.kind == "unread_things"] == [
        "unread_things"
    ] * 2
    with world.sessions() as session:
        assert session.get_one(Site, site_id).trouble is None
    world.cloud.faults.clear()
    world.observe(site_id)
    assert "unread_things" not in {finding.kind for finding in open_findings_of(world)}


def open_findings_of(world: World) -> Sequence[Finding]:
    with world.sessions() as session:
        return session.scalars(select(Finding).where(Finding.resolved_at.is_(None))).all()
