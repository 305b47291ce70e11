"""Later ends and rolling holds: the dates, the money behind them, and what is left alone where there is none."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from functools import partial

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from accounting.models.grants import Grant
from accounting.proof import prove
from accounting.settle import settle
from broker.errors import Conflict, GrantExhausted, InvalidInput, NotFound, PriceUnknown
from broker.extensions import EXTENDED, HOLD_REFUSED, Funding, due_to_roll, extend_order, orders_to_roll, roll_hold
from broker.models.audit import Event
from broker.models.leases import Desired, Lease, LeaseState
from broker.models.workloads import Order, OrderState
from broker.orders import stop_order
from broker.remote import PartKind
from broker.values import Period, new_id
from tests.unit.accounting.world import HOUR, LEDGER, T0, YEAR, World, eur
from tests.world import NotedJobs

pytestmark = pytest.mark.postgres

RUNNING, STOPPED = LeaseState.RUNNING, LeaseState.STOPPED
DAY = timedelta(days=1)
WINDOW = timedelta(days=7)
PRICE = Decimal("0.06")
# 15 minutes of stop ladder and 2 of settle time, at the running price.
MARGIN = PRICE * 17 / 60


def at(hours: float) -> datetime:
    """So many hours after the order."""
    return T0 + hours * HOUR


@dataclass
class Case:
    """An order with a grant of 100 EUR; its one machine costs 0.06 EUR an hour and runs since the order."""

    world: World
    grant: Grant
    order: Order
    lease: Lease
    jobs: NotedJobs

    @property
    def funding(self) -> Funding:
        """Holds for a week at most."""
        return Funding(LEDGER, self.jobs, WINDOW)

    @property
    def held(self) -> Decimal:
        """What is left of the order's hold."""
        holds = self.world.holds(self.order)
        return sum((hold.remaining for hold in holds if hold.released_at is None), Decimal(0))

    def told(self, kind: str) -> list[str]:
        """The order's events of a kind."""
        wanted = select(Event.text).where(Event.order_id == self.order.id, Event.kind == kind).order_by(Event.id)
        return list(self.world.session.scalars(wanted))

    def extend(self, hours: float, *, now: float = 10) -> Order:
        """To so many hours after the order."""
        return extend_order(self.world.session, self.order.id, at(hours), self.funding, actor="eva", now=at(now))

    def roll(self, days: float) -> bool:
        """So many days after the order."""
        return roll_hold(self.world.session, self.order.id, self.funding, now=T0 + days * DAY)

    def others_hold(self, amount: str) -> Order:
        """Another order that takes so much of the grant."""
        other = self.world.order()
        LEDGER.hold(self.world.session, other.id, [eur(amount)], at(48), now=T0)
        return other


def make_case(world: World, *, hold: str, duration: timedelta) -> Case:
    """The machine was last seen after ten hours."""
    world.card()
    grant = world.grant("100")
    order = world.order(hold, until=T0 + duration)
    lease = world.lease(order)
    world.see(lease, at(0), RUNNING)
    world.still(lease, at(10))
    return Case(world, grant, order, lease, NotedJobs())


@pytest.fixture
def short(world: World) -> Case:
    """48 hours, and 10 EUR held."""
    return make_case(world, hold="10", duration=48 * HOUR)


@pytest.fixture
def long(world: World) -> Case:
    """Thirty days, of which a week is held."""
    case = make_case(world, hold="15", duration=30 * DAY)
    case.order.held_until = T0 + WINDOW
    return case


class TestALaterEnd:
    def test_dates_and_money_move_together(self, short: Case) -> None:
        assert short.extend(72) is short.order
        assert (short.order.duration, short.order.held_until, short.lease.ends_at) == (72 * HOUR, None, at(72))
        assert short.held == 72 * PRICE + MARGIN
        assert [hold.until for hold in short.world.holds(short.order)] == [at(72) + timedelta(minutes=17)]
        assert short.jobs.woken == [("reconcile", str(short.lease.id))]
        (text,) = short.told(EXTENDED)
        assert text.startswith("extended from 2026-11-23 12:00 UTC to 2026-11-24 12:00 UTC; 4.34 EUR set aside in all")
        assert prove(short.world.session) == []

    def test_what_is_charged_already_is_not_held_again(self, short: Case) -> None:
        short.world.see(short.lease, at(20), STOPPED)
        settle(short.world.session, short.lease.id, now=at(20))
        short.world.still(short.lease, at(30))
        short.extend(72, now=30)
        # 20 h charged; 10 h stopped, at half the price, are not; from then on it may run.
        assert short.world.of_grant(short.grant)[0] == 20 * PRICE
        assert short.held == 10 * PRICE / 2 + 42 * PRICE + MARGIN

    def test_at_most_a_window_is_held(self, short: Case) -> None:
        short.extend(1000)
        assert (short.order.held_until, short.lease.ends_at) == (at(10) + WINDOW, at(1000))
        assert short.held == (10 + 168) * PRICE + MARGIN

    def test_the_same_end_twice_is_one_extension(self, short: Case) -> None:
        short.extend(72)
        short.lease.ends_at = at(72.01)  # it ran only later, and its time counts from then
        short.world.session.flush()
        before = short.held
        short.extend(72, now=11)
        assert (short.order.duration, short.held) == (72 * HOUR, before)
        assert len(short.told(EXTENDED)) == 1

    @pytest.mark.parametrize(
        ("hours", "now", "words"),
        [
            (47, 10, "2026-11-23 11:00 UTC is not after the present end, 2026-11-23 12:00 UTC"),
            (49, 50, "2026-11-23 13:00 UTC is over"),
            (366 * 24 + 1, 10, "at most 366 days in all"),
        ],
    )
    def test_ends_that_cannot_be(self, short: Case, hours: float, now: float, words: str) -> None:
        with pytest.raises(InvalidInput, match=words) as refused:
            short.extend(hours, now=now)
        assert refused.value.field == "until"
        assert refused.value.hint
        assert (short.order.duration, short.lease.ends_at, short.held) == (48 * HOUR, at(48), 10)

    def test_a_naive_end(self, short: Case) -> None:
        naive = at(72).replace(tzinfo=None)
        with pytest.raises(InvalidInput, match="no time zone"):
            extend_order(short.world.session, short.order.id, naive, short.funding, actor="eva", now=at(10))

    def test_without_the_money_nothing_changes(self, short: Case) -> None:
        short.others_hold("89.5")
        with pytest.raises(GrantExhausted):
            short.extend(300)
        assert (short.order.duration, short.order.held_until, short.lease.ends_at) == (48 * HOUR, None, at(48))
        assert (short.held, short.world.of_grant(short.grant), short.jobs.woken) == (10, (0, Decimal("99.5")), [])
        assert short.told(EXTENDED) == []

    def test_the_price_is_the_one_in_force_now(self, short: Case) -> None:
        short.world.card({"m1.small": "0.12"}, since=at(5))
        short.extend(72)
        assert short.lease.ends_at == at(72)
        assert short.held == 5 * PRICE + 5 * 2 * PRICE + 62 * 2 * PRICE + 2 * MARGIN

    @pytest.mark.parametrize("prices", [{"m1.big": "1"}, None])
    def test_no_price_no_extension(self, short: Case, prices: dict[str, str] | None) -> None:
        version = short.world.card(prices or {"m1.small": "0.06"}, since=at(10))
        if prices is None:
            version.valid_to = at(11)
        with pytest.raises(PriceUnknown):
            short.extend(72, now=11)
        assert (short.lease.ends_at, short.held) == (at(48), 10)

    def test_an_address_is_paid_for_too(self, short: Case) -> None:
        short.world.card({"m1.small": "0.06", "public-address": "0.006"}, since=T0 - HOUR)
        short.lease.spec = short.lease.spec | {"public_address": True}
        short.world.part(short.lease, PartKind.ADDRESS, made_at=at(0))
        short.extend(72)
        assert short.held == Decimal("1.1") * (72 * PRICE + MARGIN)

    def test_after_its_end_it_comes_back_while_it_is_not_deleted(self, short: Case) -> None:
        short.world.see(short.lease, at(48.05), LeaseState.SHELVED)
        short.extend(60, now=48.1)
        assert (short.order.duration, short.lease.ends_at) == (60 * HOUR, at(60))
        assert short.jobs.woken == [("reconcile", str(short.lease.id))]

    @pytest.mark.parametrize("desired", [Desired.GONE, Desired.RUNNING])
    def test_what_ends_cannot_be_extended(self, short: Case, desired: Desired) -> None:
        short.lease.desired = desired
        if desired is Desired.RUNNING:
            short.order.state = OrderState.STOPPING
        with pytest.raises(Conflict):
            short.extend(72)
        with pytest.raises(NotFound):
            extend_order(short.world.session, new_id(), at(72), short.funding, actor="eva", now=at(10))

    def test_a_member_that_goes_is_paid_for_until_it_is_gone(self, short: Case) -> None:
        other = short.world.lease(short.order, member=2)
        short.world.see(other, at(0), RUNNING)
        short.world.still(other, at(10))
        other.desired = Desired.GONE
        short.extend(72)
        assert (short.lease.ends_at, other.ends_at) == (at(72), at(48))
        assert short.held == (72 + 10) * PRICE + 2 * MARGIN
        assert short.jobs.woken == [("reconcile", str(short.lease.id))]


class TestRolling:
    def test_half_a_window_before_its_money_ends_an_order_is_due(self, long: Case) -> None:
        for days, is_due in ((3.4, False), (3.6, True), (8, True)):
            now = T0 + days * DAY
            assert due_to_roll(long.order, now=now, window=WINDOW) is is_due
            assert (long.order.id in orders_to_roll(long.world.session, now=now, window=WINDOW)) is is_due
        assert not long.roll(3.4)
        long.lease.desired = Desired.GONE
        long.world.session.flush()
        assert long.order.id not in orders_to_roll(long.world.session, now=at(200), window=WINDOW)
        assert not long.roll(4)

    def test_an_order_that_holds_to_its_end_never_rolls(self, long: Case) -> None:
        long.order.held_until = None
        assert not due_to_roll(long.order, now=at(1000), window=WINDOW)

    def test_the_next_window_and_then_the_end(self, long: Case) -> None:
        long.world.still(long.lease, T0 + 4 * DAY)
        assert long.roll(4)
        assert long.order.held_until == T0 + 11 * DAY
        assert long.held == 11 * 24 * PRICE + MARGIN
        assert (long.lease.ends_at, long.order.duration) == (T0 + 30 * DAY, 30 * DAY)
        long.world.still(long.lease, T0 + 24 * DAY)
        assert long.roll(24)
        assert long.order.held_until is None
        assert long.held == 30 * 24 * PRICE + MARGIN
        assert long.jobs.woken == [("reconcile", str(long.lease.id))] * 2
        assert not long.roll(25)
        assert long.told("hold")[-1].endswith("set aside in all, until 2026-12-21 12:00 UTC")

    def test_a_refusal_is_told_once_tried_again_and_forgotten_when_it_works(self, long: Case) -> None:
        other = long.others_hold("85")
        long.world.still(long.lease, T0 + 4 * DAY)
        assert not long.roll(4)
        assert not long.roll(4.1)
        (finding,) = long.world.findings(HOLD_REFUSED, long.order.id)
        assert (finding.per_day, finding.commodity, finding.resolved_at) == (24 * PRICE, "EUR", None)
        assert "era5 has money until 2026-11-28 12:00 UTC, and no more can be set aside" in finding.text
        assert len(long.told("hold")) == 1
        assert (long.order.held_until, long.held, long.jobs.woken) == (T0 + WINDOW, 15, [])
        LEDGER.release(long.world.session, other.id, now=at(0))
        # Its money has ended meanwhile, and its machine is off.
        long.world.see(long.lease, T0 + 7 * DAY, STOPPED)
        assert long.roll(7.005)
        (finding,) = long.world.findings(HOLD_REFUSED, long.order.id)
        assert finding.resolved_at is not None
        assert long.order.held_until == T0 + 14.005 * DAY
        assert long.jobs.woken == [("reconcile", str(long.lease.id))]

    def test_an_order_that_is_over_needs_no_money(self, long: Case) -> None:
        long.others_hold("85")
        assert not long.roll(4)
        long.world.see(long.lease, T0 + 5 * DAY, LeaseState.GONE)
        settle(long.world.session, long.lease.id, now=T0 + 5 * DAY)
        (finding,) = long.world.findings(HOLD_REFUSED, long.order.id)
        assert (long.order.state, finding.resolved_at is None) == (OrderState.OVER, False)

    def test_a_grant_that_ends_refuses_and_so_does_an_unknown_price(self, long: Case) -> None:
        long.grant.ends_at = T0 + 8 * DAY
        assert not long.roll(4)
        (finding,) = long.world.findings(HOLD_REFUSED, long.order.id)
        assert "grant-1: ends on 2026-11-29 12:00 UTC" in finding.text
        long.world.card(since=T0 + 4 * DAY).valid_to = T0 + 4.5 * DAY
        assert not long.roll(5)
        (finding,) = long.world.findings(HOLD_REFUSED, long.order.id)
        assert "no rate card in force" in finding.text
        assert finding.per_day is None

    def test_use_before_the_next_grant_opened_stays_with_the_one_that_ends(self, long: Case) -> None:
        """As at the end of a year: money moves to the new grant for what comes, not for what was used."""
        world = long.world
        long.grant.ends_at = T0 + 5 * DAY
        world.still(long.lease, T0 + 5 * DAY)
        following = world.grant("50", period=Period(T0 + 5 * DAY, YEAR.end))
        assert long.roll(5)
        used = 5 * 24 * PRICE
        assert (world.of_grant(long.grant)[1], world.of_grant(following)[1]) == (used, 7 * 24 * PRICE + MARGIN)
        world.see(long.lease, T0 + 6 * DAY, LeaseState.GONE)
        settle(world.session, long.lease.id, now=T0 + 6 * DAY)
        assert (world.of_grant(long.grant), world.of_grant(following)) == ((used, 0), (24 * PRICE, 0))
        assert world.overdraft == 0


def test_extending_rolling_settling_and_ordering_do_not_wait_in_a_circle(sessions: sessionmaker[Session]) -> None:
    with sessions.begin() as session:
        world = World(session)
        world.card()
        grants = [world.grant("20"), world.grant("20")]
        orders = [world.order("1", until=T0 + 4 * DAY) for _ in range(4)]
        leases = [world.lease(order) for order in orders]
        for order, lease in zip(orders, leases, strict=True):
            order.held_until = T0 + 2 * DAY
            world.see(lease, at(0), RUNNING)
            world.see(lease, at(10), STOPPED)
    funding, gate = Funding(LEDGER, NotedJobs(), 3 * DAY), threading.Semaphore(6)

    def run(what: Callable[[Session], object]) -> None:
        with gate, contextlib.suppress(GrantExhausted), sessions.begin() as session:
            what(session)

    works: list[Callable[[Session], object]] = []
    for number, (order, lease) in enumerate(zip(orders, leases, strict=True)):
        for until in (5, 6, 5 + number):
            end = T0 + until * DAY
            works.append(partial(extend_order, order_id=order.id, until=end, funding=funding, actor="eva", now=at(11)))
        works.append(partial(roll_hold, order_id=order.id, funding=funding, now=at(40)))
        works.append(partial(settle, lease_id=lease.id, now=at(12)))
        works.append(partial(stop_order, order_id=order.id, jobs=funding.jobs, actor="eva", reason="enough"))
    with ThreadPoolExecutor(16) as pool:
        for done in [pool.submit(run, work) for work in works]:
            with contextlib.suppress(Conflict, InvalidInput):  # stopped, or extended further, before
                done.result(timeout=60)
    with sessions() as session:
        world.session = session
        assert prove(session) == []
        assert sum(world.of_grant(grant)[0] for grant in grants) == 4 * 10 * PRICE
