"""Settling at any moments comes to the same as settling once at the end; and at the same moment in many threads."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select
from sqlalchemy.orm import Session, sessionmaker

from accounting.models.charges import Charge, Segment
from accounting.models.ledger import Balance
from accounting.proof import prove
from accounting.settle import settle
from broker.meters import SNAPSHOT_SKU, VOLUME_SKU
from broker.models.leases import Lease, LeaseState
from broker.models.workloads import Order, OrderState
from broker.placement import NO_VOLUMES, Volumes
from broker.remote import MachineState
from broker.values import STORED, Period
from tests.unit.accounting.world import HOUR, LEDGER, T0, YEAR, World, eur

pytestmark = pytest.mark.postgres

# What a machine may be seen doing.
SEEN = [LeaseState(state.value) for state in MachineState]
PRICES = {"m1.small": "0.061234567", "m1.big": "0.199999999", SNAPSHOT_SKU: "0.000543211", VOLUME_SKU: "0.000123457"}
DISK_GIB = 20


@dataclass(frozen=True)
class Look:
    """A listing: so long after the one before; what it saw (None: no change), and how long before the site says."""

    after: timedelta
    state: LeaseState | None
    kind: str
    said: int | None  # thousandths of the time since the look before
    settle_now: bool


@dataclass(frozen=True)
class End:
    """The machine's end: so long after the last look, by the site's word, or vanished some time since then."""

    after: timedelta
    vanished: bool


@dataclass(frozen=True)
class Kept:
    """What is left of the machine: seen so often, so long after each other; whether accounting looked each time."""

    looks: tuple[tuple[timedelta, bool], ...]
    end: End


disks = st.just(NO_VOLUMES) | st.builds(Volumes, st.integers(0, 40), st.integers(0, 900))
spans = st.integers(1, 9 * 24 * 3600 * 1000).map(lambda number: timedelta(milliseconds=number))
ends = st.builds(End, spans, st.booleans())
snapshot_looks = st.lists(st.tuples(spans, st.booleans()), max_size=4).map(tuple)
looks = st.lists(
    st.builds(
        Look,
        spans,
        st.none() | st.sampled_from(SEEN),
        st.sampled_from(["f-1", "f-2"]),
        st.none() | st.integers(1, 1000),
        st.booleans(),
    ),
    min_size=1,
    max_size=8,
)


@settings(
    max_examples=20,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    life=looks,
    change=spans,
    death=st.tuples(ends, st.none() | st.builds(Kept, snapshot_looks, ends)),
    volumes=disks,
)
def test_any_moments_come_to_the_same_as_one(
    session: Session, *, life: list[Look], change: timedelta, death: tuple[End, Kept | None], volumes: Volumes
) -> None:
    end, kept = death
    with session.begin_nested() as example:
        world = World(session)
        world.sell("f-2", "m1.big")
        world.card(PRICES)
        world.card({sku: f"1{price}" for sku, price in PRICES.items()}, since=T0 + 2 * change)
        grant = world.grant("100000", period=Period(YEAR.start, T0 + timedelta(days=900)))
        lives = [seen_through(world, life, end, kept, often=often, volumes=volumes) for often in (True, False)]
        (often, kept_for), (once, _) = lives
        assert prove(session) == []
        tolerance = STORED / 2 * (len(world.charges(often)) + len(world.charges(once)))
        assert abs(total(world, often) - total(world, once)) <= tolerance
        assert tiles(world.segments(often)) == tiles(world.segments(once))
        assert abs(stored(world, often, SNAPSHOT_SKU) - DISK_GIB * Period(T0, T0 + kept_for).hours.value) <= tolerance
        for lease in (often, once):
            was_there = volumes.total_gib * machine_hours(world.segments(lease))
            assert abs(stored(world, lease, VOLUME_SKU) - was_there) <= tolerance
        both = total(world, often) + total(world, once)
        assert (world.of_grant(grant), world.owed) == ((both - world.overdraft, 0), both)
        example.rollback()
    session.expunge_all()


def seen_through(
    world: World, life: list[Look], end: End, kept: Kept | None, *, often: bool, volumes: Volumes
) -> tuple[Lease, timedelta]:
    """Look at a lease, settle when the look says so and twice at the end; then it is over and its hold given back.

    Also says how long a snapshot was kept.
    """
    order = world.order("500", until=T0 + timedelta(days=40))
    lease = world.lease(order, volumes=volumes)
    now, state, kind = T0, LeaseState.PENDING, "f-1"
    for look in life:
        before, now = now, now + look.after
        if look.state is None or (look.state, look.kind) == (state, kind):
            world.still(lease, now)
        else:
            state, kind = look.state, look.kind
            since = None if look.said is None else before + look.after * look.said / 1000
            world.see(lease, now, state, since=since, kind=kind)
        if often and look.settle_now:
            settle(world.session, lease.id, now=now)
    kept_from = kept_until = now
    if kept is not None:
        now, kept_from = see_end(world, lease, end, LeaseState.SNAPSHOT)
        for after, settle_now in kept.looks:
            now += after
            world.still(lease, now)
            if often and settle_now:
                settle(world.session, lease.id, now=now)
    now, kept_until = see_end(world, lease, end if kept is None else kept.end, LeaseState.GONE)
    for _ in range(2):
        settle(world.session, lease.id, now=now)
    assert lease.settled_at == now
    assert order.state is OrderState.OVER
    (hold,) = world.holds(order)
    assert (hold.released_at, hold.amount - hold.remaining) == (now, min(total(world, lease), hold.amount))
    return lease, timedelta(0) if kept is None else kept_until - kept_from


def see_end(world: World, lease: Lease, end: End, state: LeaseState) -> tuple[datetime, datetime]:
    """See it gone, or that a snapshot is what is left; when it was seen, and when it happened."""
    assert lease.seen_at is not None
    last_seen, now = lease.seen_at, lease.seen_at + end.after
    since = last_seen if end.vanished else now
    world.see(lease, now, state, since=since, kind=None, is_estimated=end.vanished)
    return now, since


def stored(world: World, lease: Lease, sku: str) -> Decimal:
    """GiB-hours that were charged."""
    return sum((row.pricing_quantity for row in world.charges(lease) if row.sku_id == sku), Decimal(0))


def machine_hours(segments: list[Segment]) -> Decimal:
    """How long a machine was there, in whichever state."""
    spans = [(one.starts_at, one.ends_at) for one in segments if one.state is not LeaseState.SNAPSHOT]
    return sum((Period(start, end).hours.value for start, end in spans if end is not None), Decimal(0))


def total(world: World, lease: Lease) -> Decimal:
    """What the lease was charged."""
    found = select(func.coalesce(func.sum(Charge.billed_cost), 0)).where(Charge.lease_id == lease.id)
    return Decimal(world.session.scalars(found).one())


def tiles(segments: list[Segment]) -> list[tuple[datetime, datetime | None, str, str]]:
    """The segments, neighbours of one state and type put together; none overlaps another."""
    found: list[tuple[datetime, datetime | None, str, str]] = []
    for segment in segments:
        start = segment.starts_at
        assert not found or (found[-1][1] is not None and found[-1][1] <= start)
        if found and found[-1][1:] == (start, segment.state.value, segment.sku):
            start = found.pop()[0]
        found.append((start, segment.ends_at, segment.state.value, segment.sku))
    return found


def test_many_at_once_settle_each_lease_once(sessions: sessionmaker[Session]) -> None:
    with sessions.begin() as session:
        world = World(session)
        world.card()
        grant = world.grant("10")
        order = world.order("5")
        leases = [world.lease(order, member=member) for member in range(1, 5)]
        for lease in leases:
            world.see(lease, T0, LeaseState.RUNNING)
            world.see(lease, T0 + 10 * HOUR, LeaseState.GONE)
    ids = [lease.id for lease in leases] * 4
    barrier, gate = threading.Barrier(len(ids)), threading.Semaphore(6)

    def run(lease_id: UUID) -> int:
        barrier.wait(timeout=30)
        with gate, sessions.begin() as session:
            return settle(session, lease_id, now=T0 + 11 * HOUR).charged

    with ThreadPoolExecutor(len(ids)) as pool:
        assert sum(pool.map(run, ids)) == len(leases)
    with sessions() as session:
        world.session = session
        assert world.of_grant(grant) == (4 * Decimal("0.6"), 0)
        assert session.get_one(Order, order.id).state is OrderState.OVER
        assert [len(world.charges(lease)) for lease in leases] == [1] * 4
        assert prove(session) == []


def test_settling_and_holding_on_one_grant_do_not_wait_in_a_circle(sessions: sessionmaker[Session]) -> None:
    with sessions.begin() as session:
        world = World(session)
        world.card()
        grants = [world.grant("50"), world.grant("50")]
        leases = [world.lease(world.order("5")) for _ in range(8)]
        orders = [world.order().id for _ in range(8)]
        for lease in leases:
            world.see(lease, T0, LeaseState.RUNNING)
            world.see(lease, T0 + 10 * HOUR, LeaseState.GONE)
    gate = threading.Semaphore(6)

    def settle_one(lease_id: UUID) -> None:
        with gate, sessions.begin() as session:
            settle(session, lease_id, now=T0 + 11 * HOUR)

    def hold_one(order_id: UUID) -> None:
        with gate, sessions.begin() as session:
            LEDGER.hold(session, order_id, [eur(5)], T0 + 48 * HOUR, now=T0)

    with ThreadPoolExecutor(16) as pool:
        work = [pool.submit(settle_one, lease.id) for lease in leases]
        work += [pool.submit(hold_one, order_id) for order_id in orders]
        for done in work:
            done.result(timeout=60)
    with sessions() as session:
        world.session = session
        posted = [world.of_grant(grant) for grant in grants]
        assert sum(spent for spent, _ in posted) == 8 * Decimal("0.6")
        assert sum(held for _, held in posted) == 40
        assert prove(session) == []


@pytest.mark.parametrize("first", [Balance, Order])
def test_locks_are_taken_in_the_order_that_all_keep(
    sessions: sessionmaker[Session], first: type[Balance | Order]
) -> None:
    """Grant balances, order, lease: who waits for one of them holds none of those that come after it."""
    with sessions.begin() as session:
        world = World(session)
        world.card()
        world.grant("10")
        order = world.order("5")
        lease = world.lease(order)
        world.see(lease, T0, LeaseState.RUNNING)
        world.see(lease, T0 + HOUR, LeaseState.GONE)

    def run() -> int:
        with sessions.begin() as session:
            return settle(session, lease.id, now=T0 + HOUR).charged

    with ThreadPoolExecutor(1) as pool:
        with sessions.begin() as session:
            session.execute(select(first.id).with_for_update())
            waiting = pool.submit(run)
            with pytest.raises(TimeoutError):
                waiting.result(timeout=0.5)
            after = (Order, Lease) if first is Balance else (Lease,)
            for row in after:
                session.execute(select(row.id).with_for_update(nowait=True))
        assert waiting.result(timeout=10) == 1
