"""Attacks on adoption: charged twice, changed after all, ended while it is there, or looked at far too often."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from threading import Event, Thread
from typing import Any, cast
from uuid import UUID, uuid4

import pytest
from sqlalchemy import event, func, select, update
from sqlalchemy.orm import Session, sessionmaker

from accounting.grants import create_grant
from accounting.models.grants import MoneyHold
from accounting.models.ledger import Balance
from accounting.proof import prove
from adapters.sandbox.config import Timing as CloudTiming
from adapters.sandbox.profiles import aurora
from broker import extensions
from broker.adopted import UNSEEN, record_adopted
from broker.adoption import Wish, adopt
from broker.errors import Conflict, InvalidInput
from broker.extensions import extend_order, orders_to_roll, roll_hold
from broker.launching import record_stray
from broker.meters import VOLUME_SKU
from broker.models.catalogue import Offer
from broker.models.federation import Installation, Site
from broker.models.inventory import Thing
from broker.models.leases import LaunchAttempt, Lease, LeaseState, Observation, Outcome, Part
from broker.models.people import Project
from broker.models.workloads import Order, QuoteOffer
from broker.observations import see_gone
from broker.ports import CloudAdapter
from broker.presence import record_presence
from broker.remote import Listing, PartKind, RemoteMachine, RemoteThing, Tags, ThingKind
from broker.restored import begin_observing, living_imprint
from broker.resuming import resume
from broker.things import record_things
from broker.turns import Turn
from broker.values import Amount, Period, month_starts
from tests.found import Found
from tests.world import aurora_prices, make_world


@pytest.fixture
def found(sessions: sessionmaker[Session]) -> Iterator[Found]:
    with make_world(sessions, replace(aurora(), timing=CloudTiming()), grant="10000 EUR") as world:
        site_id = world.connect(world.cloud, prices=aurora_prices() | {VOLUME_SKU: "0.0002"})
        with world.sessions.begin() as session:
            home = session.scalars(select(Project.institution_id)).one()
            physics = Project(name="physics", title="Physics", institution_id=home)
            session.add(physics)
            session.flush()
            century = Period(datetime(2020, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC))
            create_grant(session, physics.id, name="second", amount=Amount.parse("100 EUR"), period=century)
        yield Found(world, site_id)


def machine_of(thing: Thing, *, tags: Tags | None = None) -> RemoteMachine:
    """The thing as a listing shows it."""
    assert thing.state is not None
    return RemoteMachine(
        PartKind.SERVER,
        thing.remote_id,
        thing.name,
        tags,
        state=thing.state,
        raw_status=thing.raw_status,
        instance_type=thing.instance_type,
        created_at=thing.created_at,
        launched_at=None,
        owner=thing.owner,
        project=thing.project,
    )


# --- charged twice ---------------------------------------------------------------------------------------------------


def test_a_listing_under_way_does_not_take_a_thing_from_its_project(found: Found) -> None:
    """It would be nobody's again, and a second project could adopt it."""
    world, machine = found.world, found.things(ThingKind.SERVER)[0]
    opened = 0

    def writing() -> AbstractContextManager[Session]:
        nonlocal opened
        opened += 1
        if opened == 2:  # the listing has begun to write, and somebody adopts
            found.adopt(machine)
        return world.sessions.begin()

    machines = tuple(machine_of(thing) for thing in found.things(ThingKind.SERVER))
    unread = dict.fromkeys(set(ThingKind) - {ThingKind.SERVER}, "not asked")
    listing = Listing("scope", machines, (), unread=unread)
    record_things(listing, site_id=found.site_id, started_at=world.now(), writing=writing)
    assert [thing.lease_id is not None for thing in found.things(ThingKind.SERVER)].count(True) == 1
    with pytest.raises(Conflict, match="climate"):
        found.adopt(machine, project="physics")


def test_who_pays_is_told_by_parts_not_by_the_inventory(found: Found) -> None:
    machine = found.things(ThingKind.SERVER)[0]
    (first,) = found.adopt(machine)
    with found.world.sessions.begin() as session:
        session.execute(update(Thing).where(Thing.id == machine.id).values(lease_id=None))
    with pytest.raises(Conflict, match="climate"):
        found.adopt(machine, project="physics")
    assert found.adopt(machine) == [first]


def test_one_cloud_that_is_two_sites_is_charged_once(found: Found) -> None:
    machine = found.things(ThingKind.SERVER)[0]
    found.adopt(machine)
    with found.world.sessions.begin() as session:
        site = session.get_one(Site, found.site_id)
        twin = Site(
            name="aurora-2",
            provider_id=site.provider_id,
            adapter=site.adapter,
            endpoint=site.endpoint,
            region=site.region,
            settings={},
            observe_only=True,
            next_listing_at=func.clock_timestamp(),
        )
        session.add(twin)
        session.flush()
        thing = session.get_one(Thing, machine.id)
        columns = {column.key: getattr(thing, column.key) for column in Thing.__table__.columns}
        again = Thing(**(columns | {"id": uuid4(), "site_id": twin.id, "lease_id": None}))
        session.add(again)
        session.flush()
        again_id = again.id
    with pytest.raises(Conflict, match="at aurora"):
        found.adopt(Thing(id=again_id), project="physics", site="aurora-2")


def test_what_one_project_gives_up_another_takes_at_once(found: Found) -> None:
    machine = found.things(ThingKind.SERVER)[0]
    (first,) = found.adopt(machine)
    found.stop(first)
    with pytest.raises(Conflict, match="ending"):
        found.adopt(machine, project="physics")
    found.world.until_gone(first)
    (second,) = found.adopt(machine, project="physics")
    found.stop(second)
    found.world.until_gone(second)
    (before,), (after,) = found.charges(first), found.charges(second)
    assert before.charge_period_end <= after.charge_period_start


# --- changed after all -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_known", [True, False], ids=["of a lease of ours", "of no lease"])
def test_tags_of_ours_that_appear_later_change_nothing(found: Found, *, is_known: bool) -> None:
    """Its owner copied the metadata of a machine of ours: that is no leftover, and no second lease."""
    world = found.world
    machine = found.things(ThingKind.SERVER)[0]
    (adopted,) = found.adopt(machine)
    (ours,) = world.leases(world.order())
    world.until_running(ours)
    cloud = world.cloud.cloud
    with cloud.lock:
        metadata = next(dict(one.metadata) for one in cloud.servers.values() if str(ours) in one.metadata.values())
        if not is_known:
            metadata = {key: str(uuid4()) if value == str(ours) else value for key, value in metadata.items()}
        cloud.servers[machine.remote_id].metadata.update(metadata)
    world.observe(found.site_id)
    for lease_id in (ours, adopted):
        world.work(lease_id)
    with cloud.lock:
        assert machine.remote_id in cloud.servers
    with world.sessions() as session:
        assert session.scalars(select(func.count()).select_from(Lease)).one() == 2
        assert not session.scalars(select(LaunchAttempt.id).where(LaunchAttempt.remote_id == machine.remote_id)).all()
    world.observe(found.site_id)
    (still,) = [thing for thing in found.things(ThingKind.SERVER) if thing.remote_id == machine.remote_id]
    assert still.lease_id == adopted


def test_what_is_being_deleted_as_a_leftover_of_ours_is_not_adopted(found: Found) -> None:
    """The listing that found its tags has not written them into the inventory yet, or they were taken away since."""
    world, machine = found.world, found.things(ThingKind.SERVER)[0]
    (ours,) = world.leases(world.order())
    world.until_running(ours)
    with world.sessions.begin() as session:
        part = session.scalars(select(Part).where(Part.lease_id == ours, Part.kind == PartKind.SERVER)).one()
        record_stray(session, part, machine.remote_id, outcome=Outcome.DISCARD)
    with pytest.raises(Conflict, match="being deleted"):
        found.adopt(machine)


# --- looked at too often ---------------------------------------------------------------------------------------------


def test_what_was_adopted_is_looked_at_when_something_happens(found: Found) -> None:
    """Of twenty thousand, each every minute would be hundreds of passes a second."""
    machine, volume = found.things(ThingKind.SERVER)[0], found.things(ThingKind.VOLUME)[0]
    until = found.world.now() + timedelta(days=2)
    with found.world.sessions.begin() as session:
        session.get_one(Site, found.site_id).observe_only = True
    for lease_id in found.adopt(machine, volume, until=until):
        lease = found.world.work(lease_id).lease
        assert lease.next_look_at is not None
        assert abs(lease.next_look_at - until) < timedelta(seconds=5)


def test_the_disk_that_a_machine_of_ours_boots_from_is_charged_with_it(found: Found) -> None:
    """The site makes such a volume by itself: it has no tags, and no part stands for it."""
    world, volume = found.world, found.things(ThingKind.VOLUME)[0]
    (ours,) = world.leases(world.order())
    world.until_running(ours)
    server = world.view(ours).part(PartKind.SERVER).remote_id
    with world.sessions.begin() as session:
        lease = session.get_one(Lease, ours)
        assert volume.size_gib is not None
        lease.spec = lease.spec | {"boot_volume_gib": int(volume.size_gib)}
        session.execute(update(Thing).where(Thing.id == volume.id).values(attached_to=server))
    with pytest.raises(Conflict, match="charged with that machine"):
        found.adopt(volume)
    with world.sessions.begin() as session:  # one that somebody attached is nobody's
        session.execute(update(Thing).where(Thing.id == volume.id).values(size_gib=volume.size_gib + 1))
    assert found.adopt(volume)


# --- never charged, or not to the end --------------------------------------------------------------------------------


def adopted_of(found: Found, *things: RemoteThing, projects: set[str]) -> None:
    """A complete listing of these projects that shows these things."""
    record_adopted(
        found.world.tools,
        Listing("scope", (), (), things, projects=frozenset(projects)),
        site_id=found.site_id,
        started_at=found.world.now(),
        settle=timedelta(0),
        writing=found.world.sessions.begin,
    )


def test_a_volume_that_was_handed_to_another_project_is_missed_by_listings_of_that(found: Found) -> None:
    """Cinder transfers volumes. Where its first project is all that is read later, nobody says that it is gone."""
    volume = found.things(ThingKind.VOLUME)[0]
    assert volume.project is not None
    (lease_id,) = found.adopt(volume)
    there = RemoteThing(ThingKind.VOLUME, volume.remote_id, "", "available", project="another")
    adopted_of(found, there, projects={volume.project, "another"})
    for _ in range(2):
        adopted_of(found, projects={volume.project})
    assert found.world.view(lease_id).lease.missing_since is None
    adopted_of(found, projects={"another"})
    assert found.world.view(lease_id).lease.missing_since is not None


def test_a_project_that_is_no_longer_read_is_told_while_something_of_it_is_paid(found: Found) -> None:
    """It is held for and never charged: nobody sees it."""
    world, things = found.world, found.things(ThingKind.SERVER)[:2]
    leases = found.adopt(*things)
    world.observe(found.site_id)
    assert found.finding(UNSEEN) is None
    with world.sessions.begin() as session:
        session.execute(update(Lease).where(Lease.adopted_at.is_not(None)).values(site_project="left"))
    world.observe(found.site_id)
    told = found.finding(UNSEEN)
    assert told is not None
    assert told.text.startswith("2 things")
    assert "left" in told.text
    with world.sessions() as session:
        hourly = session.scalars(select(func.sum(QuoteOffer.hourly))).one()
    assert (told.per_day, told.commodity) == (hourly * 24, "EUR")
    for lease_id in leases:
        found.stop(lease_id)
        world.until_gone(lease_id)
    world.observe(found.site_id)
    assert found.finding(UNSEEN) is None


def test_what_was_adopted_for_as_long_as_may_be_is_given_more_time_at_its_end(found: Found) -> None:
    """An order ends for good after 366 days; what was there before does not end with it."""
    world = found.world
    (lease_id,) = found.adopt(found.things(ThingKind.VOLUME)[0])
    order = found.order_of(lease_id)
    end = world.view(lease_id).lease.ends_at
    with world.sessions.begin() as session:
        later = end - timedelta(days=3)
        with pytest.raises(InvalidInput, match="366 days"):
            extend_order(session, order.id, later + timedelta(days=367), found.funding, actor="tests", now=later)
        extend_order(session, order.id, end + timedelta(days=300), found.funding, actor="tests", now=later)
    assert world.view(lease_id).lease.ends_at == end + timedelta(days=300)


def test_the_hold_of_a_machine_that_its_owner_resized_is_of_its_new_type(found: Found) -> None:
    world, window = found.world, found.funding.window
    machine = found.things(ThingKind.SERVER)[0]
    (lease_id,) = found.adopt(machine)
    order = found.order_of(lease_id)
    with world.sessions() as session:
        large = session.scalars(select(Offer.remote_id).where(Offer.name == "a1.pinned")).one()
        small = session.scalars(select(QuoteOffer.hourly).where(QuoteOffer.id == order.quote_offer_id)).one()
    seen = replace(machine_of(machine), instance_type=large)
    turn = Turn(found.site_id, 0, world.now(), None, refresh=False)
    with world.sessions.begin() as session:
        record_presence(session, turn, {lease_id: seen}, settle=timedelta(0))
    assert order.held_until is not None
    with world.sessions.begin() as session:
        assert roll_hold(session, order.id, found.funding, now=order.held_until - window * 0.4)
        held = session.scalars(select(MoneyHold.amount).where(MoneyHold.order_id == order.id)).one()
    days = window * 1.6 // timedelta(hours=1)
    assert small < Decimal("0.7")
    assert held >= days * Decimal("0.7"), "from when it was seen until the new window's end"


def test_the_end_of_the_money_is_not_told_as_the_end_of_its_time(found: Found) -> None:
    world = found.world
    (lease_id,) = found.adopt(found.things(ThingKind.VOLUME)[0])
    order = found.order_of(lease_id)
    with world.sessions.begin() as session:
        session.execute(update(Order).where(Order.id == order.id).values(held_until=func.clock_timestamp()))
    world.work(lease_id)
    assert found.finding("lease_stuck") is None
    world.wake(lease_id, ends_at=func.clock_timestamp())
    world.work(lease_id)
    assert found.finding("lease_stuck") is not None


def test_after_a_restore_what_was_adopted_goes_on_and_is_given_up(found: Found) -> None:
    world, things = found.world, [found.things(kind)[0] for kind in (ThingKind.SERVER, ThingKind.VOLUME)]
    before = len(world.cloud.log.entries())
    leases = found.adopt(*things)
    world.observe(found.site_id)
    with world.sessions.begin() as session:
        begin_observing(session, "restored")
        session.execute(update(Installation).values(observing_since=func.clock_timestamp() - timedelta(hours=1)))
        session.execute(update(Installation).values(imprint=living_imprint))
    world.observe(found.site_id)
    assert resume(world.tools, actor="tests").leases == len(leases)
    for lease_id in leases:
        world.work(lease_id)
        found.stop(lease_id)
        world.until_gone(lease_id)
        assert len(found.charges(lease_id)) == 1
    assert len(world.cloud.log.entries()) == before


def test_a_credential_of_another_project_ends_nothing_and_the_former_one_goes_on(found: Found) -> None:
    world, things = found.world, [found.things(kind)[0] for kind in (ThingKind.SERVER, ThingKind.VOLUME)]
    leases = found.adopt(*things)
    world.observe(found.site_id)
    seen = [world.view(lease_id).lease.seen_at for lease_id in leases]
    real = world.tools.open_site

    def elsewhere(site_id: UUID) -> CloudAdapter:
        return cast("CloudAdapter", Elsewhere(real(site_id)))

    here, there = world, replace(world, tools=replace(world.tools, open_site=elsewhere))
    for _ in range(3):
        there.observe(found.site_id)
        time.sleep(0.15)
    assert found.finding(UNSEEN) is not None
    for lease_id, seen_at in zip(leases, seen, strict=True):
        lease = there.work(lease_id).lease
        assert (lease.missing_since, lease.gone_at, lease.seen_at) == (None, None, seen_at)
    assert not found.things(ThingKind.SERVER)
    here.observe(found.site_id)
    assert found.finding(UNSEEN) is None
    assert [world.view(lease_id).lease.seen_at != seen_at for lease_id, seen_at in zip(leases, seen, strict=True)] == [
        True,
        True,
    ]
    assert {thing.lease_id for thing in found.things(ThingKind.SERVER)} >= {leases[0]}
    assert found.adopt(*found.things(ThingKind.VOLUME)[:1]) == leases[1:]


class Elsewhere:
    """The same adapter with a credential of another project, in which there is nothing."""

    def __init__(self, adapter: CloudAdapter) -> None:
        self._adapter = adapter

    def listing(self, **_: Any) -> Listing:
        return Listing("another", (), (), projects=frozenset({"another"}))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._adapter, name)


@pytest.mark.parametrize("kind", [ThingKind.SERVER, ThingKind.VOLUME])
def test_what_is_given_up_after_it_was_missed_is_charged_until_it_was_seen(found: Found, kind: ThingKind) -> None:
    world, thing = found.world, found.things(kind)[0]
    (lease_id,) = found.adopt(thing)
    world.observe(found.site_id)
    seen_at = world.view(lease_id).lease.seen_at
    cloud = world.cloud.cloud
    with cloud.lock:
        cloud.servers.pop(thing.remote_id, None)
        cloud.volumes.pop(thing.remote_id, None)
    world.observe(found.site_id)
    assert world.view(lease_id).lease.missing_since is not None
    found.stop(lease_id)
    world.until_gone(lease_id)
    world.settle(lease_id)
    (charge,) = found.charges(lease_id)
    assert (charge.charge_period_end, charge.x_estimated) == (seen_at, True)


def test_a_listing_that_waited_for_a_giving_up_charges_nothing_anew(found: Found) -> None:
    """It began after the end was read from the clock, and before that was committed."""
    world, volume = found.world, found.things(ThingKind.VOLUME)[0]
    (lease_id,) = found.adopt(volume)
    listing, began = Listing("scope", (), (), (_there(volume),)), Event()

    def writing() -> AbstractContextManager[Session]:
        began.set()
        return world.sessions.begin()

    def list_it() -> None:
        record_adopted(
            world.tools,
            listing,
            site_id=found.site_id,
            started_at=world.now(),
            settle=timedelta(0),
            writing=writing,
        )

    with world.sessions.begin() as session:
        lease = session.get_one(Lease, lease_id, with_for_update=True)
        now = session.scalars(select(func.clock_timestamp())).one()
        see_gone(session, lease, seen_at=now, ended_at=now, is_estimated=False)
        session.execute(update(Part).where(Part.lease_id == lease_id).values(gone_at=now))
        session.flush()
        lister = Thread(target=list_it, daemon=True)
        lister.start()
        assert began.wait(10)
        time.sleep(0.3)
    lister.join(10)
    with world.sessions() as session:
        states = session.scalars(select(Observation.state).order_by(Observation.seen_at)).all()
    assert states == [LeaseState.PRESENT, LeaseState.GONE]


def _there(thing: Thing) -> RemoteThing:
    assert thing.size_gib is not None
    return RemoteThing(ThingKind.VOLUME, thing.remote_id, "", "in-use", size_gib=thing.size_gib + 1)


def test_a_kind_that_was_not_read_for_weeks_is_charged_month_by_month_once_it_is(found: Found) -> None:
    world, volume = found.world, found.things(ThingKind.VOLUME)[0]
    began = world.now() - timedelta(days=70)
    with world.sessions.begin() as session:
        wish = Wish("aurora", "climate", [volume.id], began + timedelta(days=300))
        assumed = world.quoting.assumptions
        (order,) = adopt(session, wish, found.funding, assumed=assumed, actor="tests", now=began)
    (lease_id,) = found.leases(order.id)
    unread = Listing("scope", (), (), unread={ThingKind.VOLUME: "Cinder is away"})
    for _ in range(2):
        record_adopted(
            world.tools,
            unread,
            site_id=found.site_id,
            started_at=world.now(),
            settle=timedelta(0),
            writing=world.sessions.begin,
        )
        world.settle(lease_id)
    assert not found.charges(lease_id), "nobody knows whether it is there"
    with world.sessions.begin() as session:
        assert roll_hold(session, order.id, found.funding, now=world.now()), "it is held for all the same"
    world.observe(found.site_id)
    world.settle(lease_id)
    seen_at = world.view(lease_id).lease.seen_at
    assert seen_at is not None
    charges = found.charges(lease_id)
    edges = [*month_starts(Period(began, seen_at))]
    assert [(one.charge_period_start, one.charge_period_end) for one in charges] == [*pairwise([began, *edges])]
    found.stop(lease_id)
    lease = world.until_gone(lease_id).lease
    world.settle(lease_id)
    assert lease.gone_at is not None
    hours = sum((one.consumed_quantity for one in found.charges(lease_id)), Decimal(0)) / (volume.size_gib or 1)
    end = found.charges(lease_id)[-1].charge_period_end
    assert abs(hours - Decimal((end - began) / timedelta(microseconds=1)) / 3_600_000_000) < Decimal("0.000001")
    with world.sessions() as session:
        assert not prove(session)


# --- many at once ----------------------------------------------------------------------------------------------------


def test_many_are_adopted_with_few_questions_and_the_balances_locked_last(found: Found) -> None:
    """While they are written, listers wait for the site's row, and whoever orders for the balances."""
    engine = found.world.sessions.kw["bind"]
    statements: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        statements.append(statement)

    things = [thing for kind in ThingKind for thing in found.things(kind)]
    event.listen(engine, "before_cursor_execute", note)
    try:
        leases = found.adopt(*things)
    finally:
        event.remove(engine, "before_cursor_execute", note)
    locks = [number for number, text in enumerate(statements) if "FROM grants JOIN balances" in text]
    lines = [number for number, text in enumerate(statements) if text.startswith("INSERT INTO events")]
    assert len(locks) == 1
    assert lines[-1] < locks[0]
    assert sum(text.startswith("INSERT INTO") for text in statements) <= len(things) + 12
    with found.world.sessions() as session:
        held, owed = session.execute(
            select(func.sum(MoneyHold.amount), func.sum(QuoteOffer.hold))
            .join(Order, Order.id == MoneyHold.order_id)
            .join(QuoteOffer, QuoteOffer.id == Order.quote_offer_id)
        ).one()
        assert held == owed
        assert not prove(session)
    assert len(leases) == len(things)


def at_once(acts: Sequence[Callable[[random.Random], object]], *, seconds: float) -> None:
    """Each again and again, in a thread of its own; a conflict is an answer like any other."""
    until, odd = time.monotonic() + seconds, list[BaseException]()

    def again(act: Callable[[random.Random], object], dice: random.Random) -> None:
        while time.monotonic() < until and not odd:
            try:
                act(dice)
            except Conflict:
                time.sleep(0.005)
            except BaseException as error:  # noqa: BLE001 - told below, by the test's own thread
                odd.append(error)

    # The same throws each time.
    dice = [random.Random(seed) for seed in range(len(acts))]  # noqa: S311 - no secret
    threads = [Thread(target=again, args=args, daemon=True) for args in zip(acts, dice, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert not any(thread.is_alive() for thread in threads)
    assert not odd, odd


def test_refused_holds_take_turns(found: Found, monkeypatch: pytest.MonkeyPatch) -> None:
    """A grant that is used up refuses all that was adopted from it, and each tick asks for as many as it can."""
    monkeypatch.setattr(extensions, "MOST", 2)
    world, window = found.world, found.funding.window
    volumes = found.things(ThingKind.VOLUME)
    leases = found.adopt(*volumes)
    orders = [found.order_of(lease_id).id for lease_id in leases]
    assert len(orders) == 3
    with world.sessions.begin() as session:
        session.execute(update(Balance).values(ceiling=Balance.posted + Balance.held))
    now, asked = world.now() + window * 0.6, list[UUID]()
    for minute in range(3):
        moment = now + timedelta(minutes=minute)
        with world.sessions.begin() as session:
            due = orders_to_roll(session, now=moment, window=window)
            assert len(due) == 2
            assert not any(roll_hold(session, order_id, found.funding, now=moment) for order_id in due)
        asked += due
    assert set(asked[:4]) == set(orders)
    assert asked[4] not in asked[2:4], "the one that has waited longest"


def test_two_projects_a_lister_and_who_stops_at_once(found: Found) -> None:
    """No deadlock, and whatever the order: each thing is paid for by one at a time."""
    world = found.world
    things = [*found.things(ThingKind.SERVER), *found.things(ThingKind.VOLUME)]

    def adopting(project: str) -> Callable[[random.Random], object]:
        return lambda dice: found.adopt(*dice.sample(things, 2), project=project)

    def stop(dice: random.Random) -> None:
        with world.sessions() as session:
            live = session.scalars(select(Lease.id).where(Lease.gone_at.is_(None))).all()
        if live:
            lease_id = dice.choice(live)
            found.stop(lease_id)
            world.work(lease_id)

    acts = (adopting("climate"), adopting("physics"), stop, lambda _: world.observe(found.site_id))
    at_once(acts, seconds=4)
    with world.sessions() as session:
        rows = session.execute(
            select(Part.kind, Part.remote_id, Part.made_at, Part.gone_at)
            .where(Part.made_at.is_not(None))
            .order_by(Part.kind, Part.remote_id, Part.made_at)
        ).all()
        assert not prove(session)
    assert len(rows) > len(things), "hardly anything happened"
    for before, after in pairwise(rows):
        if before[:2] == after[:2]:
            assert before.gone_at is not None
            assert before.gone_at <= after.made_at
