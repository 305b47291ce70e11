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
from broker.models.leases import Lease, LeaseState
from broker.models.workloads import Order, OrderState
from broker.reckoning import paid_until
from broker.values import Amount, Period
from tests.unit.accounting.world import LEDGER, T0, World, eur
from tests.world import NotedJobs

pytestmark = pytest.mark.postgres

MINUTE = timedelta(minutes=1)
# 0.06 EUR an hour.
PER_MINUTE = Decimal("0.001")
WINDOW = timedelta(days=2)
MARGIN = timedelta(minutes=17)
RUNNING, STOPPED, GONE = LeaseState.RUNNING, LeaseState.STOPPED, LeaseState.GONE


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


steps = st.lists(
    st.builds(Step, st.integers(1, 1500), st.sampled_from(Act), st.integers(1, 5000)), min_size=3, max_size=14
)


class Life:
    """One machine of one order; another order competes for the grant. The clock rolls holds as it would."""

    def __init__(self, session: Session, *, minutes: int, grant: int) -> None:
        """An order as `place_order` makes it."""
        self.world = World(session)
        self.world.card({"m1.small": "0.06"})
        # It opened a moment ago: what it pays is cut nowhere.
        self.grant: Grant = self.world.grant(eur(grant), period=Period(T0 - MINUTE, T0 + timedelta(days=400)))
        duration = minutes * MINUTE
        held = min(duration, WINDOW)
        self.order: Order = self.world.order(until=T0 + duration)
        if duration > WINDOW:
            self.order.held_until = T0 + WINDOW
        LEDGER.hold(session, self.order.id, [cost(held + MARGIN)], T0 + held + MARGIN, now=T0)
        self.other = self.world.order()
        self.lease: Lease = self.world.lease(self.order)
        self.world.see(self.lease, T0, RUNNING)
        self.funding = Funding(LEDGER, NotedJobs(), WINDOW)
        self.now = T0

    @property
    def last_moment(self) -> datetime:
        """When the machine is gone at the latest: its time, the stop ladder, and the settle time."""
        return paid_until(self.order, self.lease.ends_at) + MARGIN

    def take(self, step: Step) -> None:
        """Time passes, the clock ticks, and something happens; the site cannot power off, so it always costs."""
        self.now = min(self.now + step.after * MINUTE, self.last_moment)
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
        """It runs to the last moment, and is charged."""
        seen_at = self.last_moment + MINUTE
        self.world.see(self.lease, seen_at, GONE, since=self.last_moment)
        settle(self.world.session, self.lease.id, now=seen_at)


def cost(length: timedelta) -> Amount:
    """What running for so long costs."""
    return eur(PER_MINUTE * (length // MINUTE))


@settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(minutes=st.integers(1, 20_000), grant=st.integers(3, 20), life=steps)
def test_the_hold_always_pays(session: Session, minutes: int, grant: int, life: list[Step]) -> None:
    with session.begin_nested() as example:
        run = Life(session, minutes=minutes, grant=grant)
        for step in life:
            run.take(step)
        run.end()
        assert run.world.overdraft == 0
        assert run.order.state is OrderState.OVER
        assert prove(session) == []
        example.rollback()
    session.expunge_all()
