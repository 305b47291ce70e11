"""Whatever is extended, rolled, refused and charged: what was set aside pays for all that a machine may run."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from enum import Enum, auto

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from sqlalchemy.orm import Session

from accounting.models.grants import Grant
from accounting.proof import prove
from accounting.settle import settle
from broker.errors import GrantExhausted
from broker.extensions import Funding, extend_order, orders_to_roll, roll_hold
from broker.meters import SNAPSHOT_SKU, VOLUME_SKU
from broker.models.leases import Desired, Lease, LeaseState
from broker.models.workloads import Order, OrderState
from broker.placement import Volumes
from broker.reckoning import Rates, paid_until, runs_of, whole_hold
from broker.remote import PartKind
from broker.values import Amount, Period
from tests.unit.accounting.world import LEDGER, T0, World, eur
from tests.world import NotedJobs

pytestmark = pytest.mark.postgres

MINUTE = timedelta(minutes=1)
# 0.048 EUR an hour and 0.012 for its volumes, 0.06 in all; and 0.03 for the snapshot of 20 GiB.
PER_MINUTE = Decimal("0.001")
KEPT_PER_MINUTE = Decimal("0.0005")
PRICES = {"m1.small": "0.048", VOLUME_SKU: "0.0002", SNAPSHOT_SKU: "0.0015"}
VOLUMES = Volumes(10, 50)
WINDOW = timedelta(days=2)
SETTLE, GRACE, SNAPSHOT_TIME = 2 * MINUTE, 15 * MINUTE, 120 * MINUTE
RUNNING, STOPPED, SNAPSHOT, GONE = LeaseState.RUNNING, LeaseState.STOPPED, LeaseState.SNAPSHOT, LeaseState.GONE


class Act(Enum):
    """What happens at a moment."""

    NOTHING = auto()
    SEEN = auto()
    RUN = auto()
    STOP = auto()
    SETTLE = auto()
    EXTEND = auto()
    OTHERS_TAKE = auto()
    OTHERS_GIVE_BACK = auto()


@dataclass(frozen=True)
class Step:
    """So many minutes later this happens; `amount`: minutes to extend by, or what others take, in percent."""

    after: int
    act: Act
    amount: int


@dataclass(frozen=True)
class Keep:
    """How long a snapshot is kept, how long the site takes for it and for the machine's end, and where one looks."""

    minutes: int
    taking: int
    looks: tuple[int, ...]


keeps = st.none() | st.builds(
    Keep, st.integers(60, 3000), st.integers(0, 120), st.lists(st.integers(1, 1000), max_size=3).map(tuple)
)
steps = st.lists(
    st.builds(Step, st.integers(1, 1500), st.sampled_from(Act), st.integers(1, 5000)), min_size=3, max_size=14
)


class Life:
    """One machine of one order; another order competes for the grant. The clock rolls holds as it would."""

    def __init__(self, session: Session, *, minutes: int, grant: int, keep: Keep | None) -> None:
        """An order as `place_order` makes it."""
        self.world = World(session)
        self.world.card(PRICES)
        self.keep = keep
        self.margin = GRACE + SETTLE + (SNAPSHOT_TIME if keep else timedelta(0))
        # It opened a moment ago: what it pays is cut nowhere.
        self.grant: Grant = self.world.grant(eur(grant), period=Period(T0 - MINUTE, T0 + timedelta(days=400)))
        duration = minutes * MINUTE
        held = min(duration, WINDOW)
        self.order: Order = self.world.order(until=T0 + duration)
        if duration > WINDOW:
            self.order.held_until = T0 + WINDOW
        kept = timedelta(0) if keep is None else keep.minutes * MINUTE + SETTLE
        until = T0 + held + self.margin + kept
        LEDGER.hold(session, self.order.id, [cost(held + self.margin) + cost(kept, KEPT_PER_MINUTE)], until, now=T0)
        self.other = self.world.order()
        self.lease: Lease = self.world.lease(self.order, volumes=VOLUMES)
        if keep is not None:
            self.lease.keep, self.lease.snapshot_time = keep.minutes * MINUTE, SNAPSHOT_TIME
        self.world.see(self.lease, T0, RUNNING)
        self.funding = Funding(LEDGER, NotedJobs(), WINDOW)
        self.now = T0

    @property
    def last_moment(self) -> datetime:
        """When the machine is gone at the latest: its time, the stop ladder, and the settle time."""
        return paid_until(self.order, self.lease.ends_at) + self.margin

    def take(self, step: Step) -> None:
        """Time passes, the clock ticks, and something happens; the site cannot power off, so it always costs."""
        # Where a snapshot is kept, the end of the grace is the last moment at which anything else can happen.
        latest = self.last_moment - (SNAPSHOT_TIME if self.keep else timedelta(0))
        self.now = max(self.now, min(self.now + step.after * MINUTE, latest))
        session = self.world.session
        if self.order.id in orders_to_roll(session, now=self.now, window=WINDOW):
            event(f"rolled: {roll_hold(session, self.order.id, self.funding, now=self.now)}")
        if step.act in (Act.RUN, Act.STOP):
            state = RUNNING if step.act is Act.RUN else STOPPED
            if self.lease.state is not state and self.now > (self.lease.seen_at or T0):
                self.world.see(self.lease, self.now, state)
        elif step.act is Act.SEEN:
            self.world.still(self.lease, self.now)
        elif step.act is Act.SETTLE:
            settle(session, self.lease.id, now=self.now)
        elif step.act is Act.EXTEND:
            until = self.lease.ends_at + step.amount * MINUTE
            if until > self.now:
                with contextlib.suppress(GrantExhausted):
                    extend_order(session, self.order.id, until, self.funding, actor="eva", now=self.now)
        elif step.act is Act.OTHERS_TAKE:
            with contextlib.suppress(GrantExhausted):
                wanted = [eur(Decimal(step.amount % 100) / 10)]
                LEDGER.extend(session, self.other.id, wanted, self.now + MINUTE, now=self.now)
        elif step.act is Act.OTHERS_GIVE_BACK:
            LEDGER.release(session, self.other.id, now=self.now)

    def end(self) -> None:
        """It runs to the last moment, and is charged; then its snapshot is kept to the last moment."""
        if self.keep is not None:
            self.end_keeping(self.keep)
            return
        seen_at = self.last_moment + MINUTE
        self.world.see(self.lease, seen_at, GONE, since=self.last_moment)
        settle(self.world.session, self.lease.id, now=seen_at)

    def end_keeping(self, keep: Keep) -> None:
        """The machine lapses, is saved and goes; whoever reckons the hold anew meanwhile takes nothing from it."""
        session, lease = self.world.session, self.lease
        lapsed_at = max(self.now, paid_until(self.order, lease.ends_at) + GRACE)
        lease.desired, lease.lapsed_at = Desired.SNAPSHOT, lapsed_at
        part = self.world.part(lease, PartKind.SNAPSHOT, made_at=lapsed_at)
        self.reckon(lapsed_at)
        part.ready_at = lapsed_at + keep.taking * MINUTE
        self.reckon(part.ready_at)
        gone_at = part.ready_at + SETTLE
        self.world.see(lease, gone_at + MINUTE, SNAPSHOT, since=gone_at)
        ends_at = part.ready_at + keep.minutes * MINUTE + SETTLE
        moment = gone_at + MINUTE
        for after in keep.looks:
            moment = min(moment + after * MINUTE, ends_at)
            self.world.still(lease, moment)
            settle(session, lease.id, now=moment)
            self.reckon(moment)
        self.world.see(lease, ends_at + MINUTE, GONE, since=ends_at)
        settle(session, lease.id, now=ends_at + MINUTE)

    def reckon(self, now: datetime) -> None:
        """The whole hold anew, as where another machine of the order is extended; a refusal leaves the hold as it is.

        Refused may it be where the machine was not seen for long: it may have gone since, and its snapshot begun.
        """
        session, order = self.world.session, self.order
        session.flush()
        so_far = LEDGER.so_far(session, order.id)
        uses = runs_of(session, order, [self.lease], so_far, until=None, now=now)
        amounts = whole_hold(Rates(session, now), so_far, uses)
        with contextlib.suppress(GrantExhausted):
            LEDGER.extend(session, order.id, amounts, max(use.period.end for use in uses), now=now)


def cost(length: timedelta, per_minute: Decimal = PER_MINUTE) -> Amount:
    """What so long costs: of a machine that runs, unless another price is given."""
    return eur(per_minute * (length // MINUTE))


@settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(minutes=st.integers(1, 20_000), grant=st.integers(5, 20), life=st.tuples(steps, keeps))
def test_the_hold_always_pays(session: Session, minutes: int, grant: int, life: tuple[list[Step], Keep | None]) -> None:
    taken, keep = life
    with session.begin_nested() as example:
        run = Life(session, minutes=minutes, grant=grant, keep=keep)
        for step in taken:
            run.take(step)
        run.end()
        assert run.world.overdraft == 0
        assert run.order.state is OrderState.OVER
        assert prove(session) == []
        example.rollback()
    session.expunge_all()
