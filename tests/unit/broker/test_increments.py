"""Between complete listings only what changed is asked for: what that tells, and what it must not be taken for."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, cast
from uuid import UUID

import pytest
from sqlalchemy import func, select, update

from adapters.sandbox import machines
from adapters.sandbox.entities import Server, VmState
from adapters.sandbox.state import utc_now
from broker import increments
from broker.errors import SiteDenied, SiteError
from broker.inventory import observe, take_turn
from broker.models.audit import Event, Finding
from broker.models.federation import Installation, Site
from broker.models.holds import QuotaHold, QuotaPool
from broker.models.inventory import Thing
from broker.models.leases import Desired, Lease, LeaseState, Observation, SiteListing
from broker.overdue import Patience, overdue_rows
from broker.ports import Changes, CloudAdapter, Increments
from broker.remote import Deadline, MachineState, PartKind, ThingKind
from broker.sites import site_named
from broker.tools import Pace
from broker.turns import Turn
from broker.unreachable import tell_unreachable
from tests.world import World

LONG = timedelta(hours=1)
HALF = timedelta(minutes=30)


@dataclass
class Steady:
    """A site that was listed once, and is from then on asked for changes where that may be."""

    world: World
    site_id: UUID

    def site(self) -> Site:
        with self.world.sessions() as session:
            return session.get_one(Site, self.site_id)

    def set(self, **values: Any) -> None:
        with self.world.sessions.begin() as session:
            session.execute(update(Site).where(Site.id == self.site_id).values(**values))

    def turn(self) -> Turn:
        self.set(next_listing_at=func.clock_timestamp())
        turn = take_turn(self.world.tools, self.site_id)
        assert turn is not None
        return turn

    def looks(self) -> bool:
        """List it; True where that was a complete listing, by the rows."""
        before = self.complete()
        self.world.observe(self.site_id)
        return self.complete() > before

    def changes(self) -> None:
        assert not self.looks(), "that was a complete listing"

    def lists_all(self) -> None:
        self.set(full_listing_wanted_at=func.clock_timestamp())
        assert self.looks()

    def complete(self) -> int:
        with self.world.sessions() as session:
            return session.scalars(select(func.count()).select_from(SiteListing)).one()

    def running(self, **document: Any) -> UUID:
        """A lease whose machine runs, and was listed."""
        (lease_id,) = self.world.leases(self.world.order(**document))
        self.world.until_running(lease_id)
        self.changes()
        return lease_id

    def server_of(self, lease_id: UUID) -> str:
        parts = self.world.view(lease_id).lease.parts
        found = next(part.remote_id for part in parts if part.kind is PartKind.SERVER)
        assert found is not None
        return found

    def at_site(self, remote_id: str, act: Callable[[Server, datetime], object]) -> None:
        """Somebody does something with a machine there."""
        cloud = self.world.cloud.cloud
        with cloud.lock:
            act(cloud.servers[remote_id], utc_now())

    def delete(self, remote_id: str) -> None:
        self.at_site(remote_id, lambda server, now: machines.delete(self.world.cloud.cloud, server, now))

    def stop(self, remote_id: str) -> None:
        def off(server: Server, now: datetime) -> None:
            machines.enter(server, now, VmState.STOPPED)
            server.power_state = machines.POWER_OFF

        self.at_site(remote_id, off)

    def grows_old(self) -> None:
        """All that is there has not changed for an hour, by the site's clock."""
        cloud = self.world.cloud.cloud
        with cloud.lock:
            for server in cloud.servers.values():
                server.updated -= LONG

    def things(self, *, gone: bool = False) -> dict[str, Thing]:
        with self.world.sessions() as session:
            rows = session.scalars(select(Thing).where(Thing.kind == ThingKind.SERVER, Thing.gone_at.is_(None) != gone))
            return {row.remote_id: row for row in rows}

    def told(self, lease_id: UUID) -> list[str]:
        with self.world.sessions() as session:
            return list(session.scalars(select(Event.text).where(Event.lease_id == lease_id).order_by(Event.at)))


@pytest.fixture
def steady(world: World) -> Steady:
    pace = Pace(listing=timedelta(minutes=2), full=HALF)
    with world.sessions() as session:
        site_id = site_named(session, "aurora").id
    made = Steady(replace(world, tools=replace(world.tools, pace=pace)), site_id)
    made.lists_all()
    return made


# --- which kind of listing ------------------------------------------------------------------------------------------


def test_between_complete_listings_only_what_changed_is_asked_for(steady: Steady) -> None:
    listed_at = steady.site().listed_at
    steady.changes()
    site = steady.site()
    assert site.listed_at == listed_at
    assert site.changes_at is not None
    assert listed_at is not None
    assert site.changes_at > listed_at
    assert (site.listing_claim_until, site.listing_since, site.listing_read) == (None, None, None)
    assert site.next_listing_at > steady.world.now() + timedelta(minutes=1)
    steady.lists_all()
    assert steady.site().changes_at is None


@pytest.mark.parametrize(
    "why",
    [
        {"listed_at": None},
        {"listed_at": func.clock_timestamp() - HALF - timedelta(seconds=1)},
        {"failures": 1},
        {"full_listing_wanted_at": func.clock_timestamp()},
        {"refreshed_at": func.clock_timestamp() - timedelta(hours=7)},
    ],
    ids=lambda why: next(iter(why)),
)
def test_when_a_complete_listing_is_due(steady: Steady, why: dict[str, Any]) -> None:
    steady.changes()
    steady.set(**why)
    assert steady.looks()
    steady.changes()


def test_after_a_restore_every_listing_is_complete(steady: Steady) -> None:
    with steady.world.sessions.begin() as session:
        session.execute(update(Installation).values(observing_since=func.clock_timestamp()))
    assert steady.looks()
    assert steady.looks()


class Plain:
    """The same adapter, which cannot say what changed."""

    def __init__(self, adapter: CloudAdapter) -> None:
        self._adapter = adapter

    def __getattr__(self, name: str) -> Any:
        if name == "changes":
            raise AttributeError(name)
        return getattr(self._adapter, name)


def test_an_adapter_that_cannot_tell_what_changed_is_listed_as_a_whole(steady: Steady) -> None:
    world, tools = steady.world, steady.world.tools
    plain = cast("Callable[[UUID], CloudAdapter]", lambda site_id: Plain(tools.open_site(site_id)))
    steady.world = replace(world, tools=replace(tools, open_site=plain))
    assert not isinstance(steady.world.tools.open_site(steady.site_id), Increments)
    assert steady.looks()
    assert steady.looks()


def test_a_listing_of_changes_that_failed_is_followed_by_a_complete_one(steady: Steady) -> None:
    steady.changes()
    changes_at = steady.site().changes_at
    steady.world.cloud.faults.add("500", service="compute", path=r"/servers/detail$")
    with pytest.raises(SiteError):
        steady.world.observe(steady.site_id)
    site = steady.site()
    assert (site.failures, site.changes_at, site.listing_since) == (1, changes_at, None)
    steady.world.cloud.faults.clear()
    assert steady.looks()
    assert steady.site().failures == 0


# --- machines that it names -----------------------------------------------------------------------------------------


def test_a_machine_of_ours_that_changed_is_observed_and_its_lease_woken(steady: Steady) -> None:
    lease_id = steady.running()
    steady.stop(steady.server_of(lease_id))
    steady.world.jobs.woken.clear()
    steady.changes()
    assert ("reconcile", str(lease_id)) in steady.world.jobs.woken
    with steady.world.sessions() as session:
        last = session.scalars(
            select(Observation).where(Observation.lease_id == lease_id).order_by(Observation.seen_at.desc())
        ).first()
    assert last is not None
    assert (last.state, last.seen_at) == (LeaseState.STOPPED, steady.site().changes_at)


def test_machines_that_came_changed_and_went_are_things_at_once(steady: Steady) -> None:
    came, changed, gone, old = steady.world.cloud.add_foreign_servers(4, project="leeway")
    steady.changes()
    first_at = steady.site().changes_at
    assert {came, changed, gone, old} <= set(steady.things())
    steady.stop(changed)
    steady.delete(gone)
    steady.changes()
    now = steady.site().changes_at
    living = steady.things()
    assert (living[changed].state, living[changed].changed_at) == (MachineState.STOPPED, now)
    assert (living[came].changed_at, living[came].first_seen_at) == (None, first_at)
    assert gone not in living
    row = steady.things(gone=True)[gone]
    assert (row.gone_at, row.last_seen_at) == (now, first_at)


def test_a_lease_is_a_things_of_its_machine_and_other_kinds_wait(steady: Steady) -> None:
    lease_id = steady.running(public_address=True)
    row = steady.things()[steady.server_of(lease_id)]
    assert (row.lease_id, row.installation) == (lease_id, steady.world.tools.installation)
    kinds = select(Thing.kind).where(Thing.gone_at.is_(None)).distinct()
    with steady.world.sessions() as session:
        assert set(session.scalars(kinds)) == {ThingKind.SERVER}
    steady.lists_all()
    with steady.world.sessions() as session:
        assert set(session.scalars(kinds)) == {ThingKind.SERVER, ThingKind.ADDRESS}


def test_a_second_machine_of_a_lease_is_deleted_within_one_listing_of_changes(steady: Steady) -> None:
    lease_id = steady.running()
    kept = steady.server_of(lease_id)
    (twin,) = steady.world.cloud.add_foreign_servers(1, project="leeway")
    cloud = steady.world.cloud.cloud
    with cloud.lock:
        cloud.servers[twin].metadata.update(cloud.servers[kept].metadata)
    steady.changes()
    steady.world.until(lease_id, lambda _: steady.world.cloud.log.alive("server") == {kept})
    assert steady.world.view(lease_id).lease.state is LeaseState.RUNNING


def test_quota_is_read_each_time_and_a_machine_that_shows_in_it_is_held_no_more(steady: Steady) -> None:
    (lease_id,) = steady.world.leases(steady.world.order())
    steady.world.until_running(lease_id)

    def counted() -> set[datetime | None]:
        with steady.world.sessions() as session:
            return set(session.scalars(select(QuotaHold.counted_at).where(QuotaHold.lease_id == lease_id)))

    def instances() -> QuotaPool:
        with steady.world.sessions() as session:
            return session.scalars(select(QuotaPool).where(QuotaPool.resource == "instances")).one()

    assert (counted(), instances().used) == ({None}, 0)
    steady.changes()
    pool = instances()
    assert counted() == {steady.site().changes_at} == {pool.as_of}
    assert pool.used == 1


# --- machines that it does not name ---------------------------------------------------------------------------------


def test_a_machine_that_is_not_named_was_not_seen_and_is_not_missing(steady: Steady) -> None:
    lease_id = steady.running()
    steady.grows_old()
    before = steady.world.view(lease_id).lease
    steady.changes()
    lease = steady.world.view(lease_id).lease
    assert (lease.seen_at, lease.missing_since, lease.state) == (before.seen_at, None, LeaseState.RUNNING)
    steady.world.settle(lease_id)
    assert steady.world.work(lease_id).lease.state is LeaseState.RUNNING
    steady.lists_all()
    assert steady.world.view(lease_id).lease.seen_at == steady.site().listed_at


def test_a_machine_that_vanished_without_a_deletion_is_found_by_complete_listings(steady: Steady) -> None:
    (foreign,) = steady.world.cloud.add_foreign_servers(1, project="leeway")
    lease_id = steady.running()
    seen_at = steady.world.view(lease_id).lease.seen_at
    steady.world.cloud.vanish(steady.server_of(lease_id), foreign)
    for _ in range(3):
        steady.changes()
    assert steady.world.work(lease_id).lease.missing_since is None
    assert foreign in steady.things()

    steady.lists_all()
    assert foreign not in steady.things()
    assert steady.world.work(lease_id).lease.missing_since == steady.site().listed_at
    steady.changes()
    assert not steady.world.view(lease_id).lease.is_missing, "changes say nothing of what they do not name"
    after_settle(steady)
    steady.lists_all()
    lease = steady.world.until_gone(lease_id).lease
    assert lease.stop_reason == "the machine vanished at the site"
    (end,) = ends(steady, lease_id)
    assert (end.since, end.is_estimated) == (seen_at, True), "nobody saw it end: charged until it was seen last"


def after_settle(steady: Steady) -> None:
    """What missed a machine began one settle time earlier than it did."""
    settle = steady.world.tools.timing.settle
    assert settle is not None
    with steady.world.sessions.begin() as session:
        session.execute(update(Lease).values(missing_since=Lease.missing_since - settle))


def ends(steady: Steady, lease_id: UUID) -> list[Observation]:
    with steady.world.sessions() as session:
        gone = select(Observation).where(Observation.lease_id == lease_id, Observation.state == LeaseState.GONE)
        return list(session.scalars(gone.order_by(Observation.seen_at)))


# --- machines that the site says it deleted -------------------------------------------------------------------------


def test_a_deletion_that_the_site_tells_of_is_no_proof_and_makes_the_next_listing_complete(steady: Steady) -> None:
    lease_id = steady.running()
    server = steady.server_of(lease_id)
    deleted_at = steady.world.now()
    steady.delete(server)
    steady.changes()
    site, lease = steady.site(), steady.world.view(lease_id).lease
    assert (lease.missing_since, lease.is_missing, lease.gone_at) == (site.changes_at, False, None)
    assert any("the site says that the machine was deleted there at 20" in text for text in steady.told(lease_id))
    assert site.next_listing_at < steady.world.now() + timedelta(seconds=1)

    lease = steady.world.work(lease_id).lease  # its 404 decides nothing yet
    assert (lease.gone_at, lease.stop_reason) == (None, None)
    after_settle(steady)
    assert steady.looks(), "a complete one"
    assert steady.world.view(lease_id).lease.is_missing
    steady.world.until_gone(lease_id)
    (end,) = ends(steady, lease_id)
    assert not end.is_estimated
    assert end.since is not None
    assert abs(end.since - deleted_at) < timedelta(seconds=3), "the site's own word"
    steady.changes()


def test_listings_of_changes_alone_never_make_a_machine_missing(steady: Steady) -> None:
    lease_id = steady.running()
    steady.delete(steady.server_of(lease_id))
    for _ in range(3):
        steady.set(full_listing_wanted_at=None)
        steady.changes()
        after_settle(steady)
        assert not steady.world.work(lease_id).lease.is_missing
    assert [text for text in steady.told(lease_id) if "deleted there" in text] == [steady.told(lease_id)[-1]]


def test_a_machine_that_a_look_saw_since_the_listing_began_is_not_missing(steady: Steady) -> None:
    lease_id = steady.running()
    turn = steady.turn()
    steady.world.work(lease_id)
    steady.delete(steady.server_of(lease_id))
    assert observe(steady.world.tools, turn)
    assert steady.world.view(lease_id).lease.missing_since is None


def test_an_end_that_was_asked_for_wants_no_complete_listing(steady: Steady) -> None:
    lease_id = steady.running()
    steady.delete(steady.server_of(lease_id))
    steady.world.wake(lease_id, desired=Desired.GONE)
    steady.changes()
    steady.changes()
    steady.world.until_gone(lease_id)


def test_what_was_adopted_may_end_without_a_complete_listing_at_once(steady: Steady) -> None:
    """Its owner ends it, and at a site where thousands were adopted that happens all the time."""
    lease_id = steady.running()
    steady.delete(steady.server_of(lease_id))
    steady.world.wake(lease_id, adopted_at=func.clock_timestamp())
    steady.changes()
    assert steady.world.view(lease_id).lease.missing_since is not None
    steady.changes()


# --- scope, fence, crash --------------------------------------------------------------------------------------------


class Answering:
    """The same adapter, with an answer of the test's own to what changed."""

    def __init__(self, adapter: CloudAdapter, change: Callable[[Changes], Changes]) -> None:
        self._adapter = adapter
        self._change = change

    def changes(self, *, since: datetime, deadline: Deadline) -> Changes:
        assert isinstance(self._adapter, Increments)
        return self._change(self._adapter.changes(since=since, deadline=deadline))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._adapter, name)


def answering(steady: Steady, change: Callable[[Changes], Changes]) -> Steady:
    tools = steady.world.tools
    opened = cast("Callable[[UUID], CloudAdapter]", lambda site_id: Answering(tools.open_site(site_id), change))
    return replace(steady, world=replace(steady.world, tools=replace(tools, open_site=opened)))


@pytest.mark.parametrize("is_used", [True, False])
def test_changes_of_another_scope_are_refused_and_change_nothing(steady: Steady, *, is_used: bool) -> None:
    if is_used:
        steady.running()
    (foreign,) = steady.world.cloud.add_foreign_servers(1, project="leeway")
    elsewhere = answering(steady, lambda seen: replace(seen, scope="aurora-1/another"))
    with pytest.raises(SiteDenied, match="another project"):
        elsewhere.world.observe(steady.site_id)
    assert foreign not in steady.things()
    assert steady.looks(), "a complete one follows"


def test_a_lister_whose_turn_is_over_writes_nothing(steady: Steady) -> None:
    lease_id = steady.running()
    (foreign,) = steady.world.cloud.add_foreign_servers(1, project="leeway")
    steady.stop(steady.server_of(lease_id))

    def overtaken(seen: Changes) -> Changes:
        steady.set(listing_generation=Site.listing_generation + 1)
        return seen

    slow = answering(steady, overtaken)
    turn = slow.turn()
    before = steady.site().changes_at
    assert not observe(slow.world.tools, turn)
    assert foreign not in steady.things()
    assert steady.world.view(lease_id).lease.state is LeaseState.RUNNING
    site = steady.site()
    assert (site.changes_at, site.failures) == (before, 0)


class DiedError(Exception):
    """The process ended here."""


def test_what_a_lister_that_died_did_not_get_to_the_next_one_does(
    steady: Steady, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease_id = steady.running()
    came = set(steady.world.cloud.add_foreign_servers(3, project="leeway"))
    steady.stop(steady.server_of(lease_id))
    real = increments.record_ours

    def die(*_: object) -> None:
        raise DiedError

    monkeypatch.setattr(increments, "record_ours", die)
    with pytest.raises(DiedError):
        steady.world.observe(steady.site_id)
    assert not came & set(steady.things())
    monkeypatch.setattr(increments, "record_ours", real)
    # A process that is killed leaves no trouble in the row, and what it had asked for is asked for again.
    steady.set(failures=0)
    steady.grows_old()
    cloud = steady.world.cloud.cloud
    with cloud.lock:
        for server in came:
            cloud.servers[server].updated += LONG
    steady.changes()
    assert came <= set(steady.things())


def test_what_was_accepted_before_a_listing_and_showed_after_it_is_asked_for_by_the_next(steady: Steady) -> None:
    asked: list[datetime] = []

    class Noting(Answering):
        def changes(self, *, since: datetime, deadline: Deadline) -> Changes:
            asked.append(since)
            return super().changes(since=since, deadline=deadline)

    tools = steady.world.tools
    opened = cast("Callable[[UUID], CloudAdapter]", lambda site: Noting(tools.open_site(site), lambda seen: seen))
    noting = replace(steady, world=replace(steady.world, tools=replace(tools, open_site=opened)))
    noting.changes()
    noting.changes()
    settle = tools.timing.settle
    first, second = steady.site().listed_at, steady.site().changes_at
    assert None not in (settle, first, second)
    assert asked[0] == cast("datetime", first) - cast("timedelta", settle)
    assert asked[0] < asked[1] < cast("datetime", second)


# --- and it comes to the same ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_changes_and_one_complete_listing_come_to_what_the_cloud_has(steady: Steady, seed: int) -> None:
    dice = random.Random(seed)  # noqa: S311 - a test's
    cloud = steady.world.cloud
    lease_id = steady.running()
    mine = steady.server_of(lease_id)
    vanished: set[str] = set()
    for _ in range(12):
        theirs = sorted(cloud.log.alive("server") - {mine})
        match dice.choice(("come", "stop", "go", "vanish", "old")) if theirs else "come":
            case "come":
                cloud.add_foreign_servers(dice.randint(1, 3), project="leeway")
            case "stop":
                steady.stop(dice.choice(theirs))
            case "go":
                steady.delete(dice.choice(theirs))
            case "vanish":
                vanished.add(lost := dice.choice(theirs))
                cloud.vanish(lost)
            case "old":
                steady.grows_old()
        steady.changes()
        known = set(steady.things())
        alive = cloud.log.alive("server")
        assert alive <= known <= alive | vanished
    steady.lists_all()
    states = {
        server.id: MachineState.STOPPED if server.vm_state is VmState.STOPPED else MachineState.RUNNING
        for server in cloud.cloud.servers.values()
    }
    assert {remote_id: row.state for remote_id, row in steady.things().items()} == states
    assert steady.world.view(lease_id).lease.missing_since is None


def test_findings_wait_for_a_complete_listing(steady: Steady) -> None:
    (foreign,) = steady.world.cloud.add_foreign_servers(1, project="leeway")

    def unknown() -> list[str]:
        with steady.world.sessions() as session:
            found = select(Finding.key).where(Finding.kind == "unknown_machine", Finding.resolved_at.is_(None))
            return list(session.scalars(found))

    steady.changes()
    assert unknown() == []
    steady.lists_all()
    assert unknown() == [f"{steady.site_id}:{foreign}"]
    steady.delete(foreign)
    steady.changes()
    assert unknown() == [f"{steady.site_id}:{foreign}"]
    steady.lists_all()
    assert unknown() == []


def test_a_site_is_heard_of_by_either_kind_of_listing(steady: Steady) -> None:
    patience = Patience(due=HALF, listing=timedelta(minutes=10), settle=HALF)

    def told() -> list[str]:
        with steady.world.sessions.begin() as session:
            now = steady.world.now()
            tell_unreachable(session, now)
            found = session.scalars(select(Finding.kind).where(Finding.resolved_at.is_(None))).all()
            return [*found, *(thing.kind for thing in overdue_rows(session, patience, now))]

    long_ago = {"listed_at": func.clock_timestamp() - 2 * LONG, "checked_at": func.clock_timestamp()}
    steady.set(**long_ago, failures=1, trouble="no answer")
    assert told() == ["site_unreachable", "site"]
    steady.set(changes_at=func.clock_timestamp())
    assert told() == []
