"""Orders, extensions, cancels, prices, listings and time in any order, against plain arithmetic (`oracle`).

In both directions: what fits is never refused, what does not fit never wins. On the real database and sandbox clouds.
`LEEWAY_TEST_OVERCOMMIT_EXAMPLES=500` tries more, and others each time.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy.orm import Session, sessionmaker

from adapters.sandbox.faults import FaultKind
from broker.database import Database
from tests.conftest import PostgresForTests
from tests.unit.overcommit.oracle import HALF, KINDS, MARGIN, Asked, Machine, Ordered
from tests.unit.overcommit.stage import Stage, opened, superuser

pytestmark = pytest.mark.postgres

EXAMPLES = int(os.environ.get("LEEWAY_TEST_OVERCOMMIT_EXAMPLES", "0"))
SHORT = 12
STEPS = 30
FAILING = (FaultKind.NO_CAPACITY, FaultKind.QUOTA)
FAULTS = (*FAILING, FaultKind.ANSWER_LOST)

LARGEST = {"instances": 1, "cores": 4, "memory_mib": 8192}
SMALLEST = {"instances": 1, "cores": 2, "memory_mib": 4096}

numbers = st.integers(0, 11)
sites = st.sampled_from(("aurora", "borealis"))
prices = st.integers(1, 4).map(lambda number: number * Decimal("0.06"))


class Overcommit(RuleBasedStateMachine):
    """The rules, and after each of them everything that can be counted."""

    stage: Stage

    def __init__(self) -> None:
        super().__init__()
        self.play = self.stage.play()
        self.books = self.play.books
        self.quotes: list[Asked] = []

    def teardown(self) -> None:
        self.play.end()

    # --- rules ---

    @initialize(count=st.integers(1, 3), ticks=st.integers(2, 4))
    def begin(self, count: int, ticks: int) -> None:
        self.quote(cores=2, count=count, ticks=ticks, limit=Decimal(3), rank=1)

    @rule(
        cores=st.sampled_from((2, 4)),
        count=st.integers(1, 3),
        ticks=st.integers(2, 4),
        limit=st.sampled_from((None, Decimal(3))),
        rank=st.none() | st.integers(1, 2),
    )
    def quote(self, *, cores: int, count: int, ticks: int, limit: Decimal | None, rank: int | None) -> None:
        """Quote, and order at once where a rank is given."""
        bids = self.books.bids(cores=cores, count=count, ticks=ticks, limit=limit)
        quote_id, offers = self.play.quote(cores=cores, count=count, ticks=ticks, limit=limit)
        assert offers == bids
        if not bids:
            return
        self.quotes.append(Asked(quote_id, self.books.now, count, ticks, limit, bids))
        if rank is not None:
            self.order(0, rank - 1)

    @precondition(lambda self: self.quotes)
    @rule(which=numbers, rank=numbers)
    def order(self, which: int, rank: int) -> None:
        asked = self.quotes[-1 - which % min(len(self.quotes), 4)]
        rank = 1 + rank % min(len(asked.bids), 2)
        expected = self.books.refusal(asked, rank)
        order_id, refusal = self.play.order(asked.id, rank)
        assert refusal == expected
        if order_id is None:
            return
        bid = asked.bids[rank - 1]
        order = Ordered(order_id, asked, rank, asked.ticks, bid.hold)
        now = self.books.now
        for lease_id, member, _ in self.play.leases(order_id):
            order.machines.append(Machine(lease_id, member, bid.kind, rank, seen=now, end=now + asked.ticks))
        assert len(order.machines) == asked.count
        self.books.orders[order_id] = order

    @precondition(lambda self: self.going)
    @rule(which=numbers)
    def cancel(self, which: int) -> None:
        order = self.going[which % len(self.going)]
        self.play.stop(order.id)
        for machine in order.live:
            machine.is_wanted = False
        order.state = "over" if order.state == "returned" else "stopping"

    @precondition(lambda self: self.going)
    @rule(which=numbers, ticks=st.integers(1, 3))
    def extend(self, which: int, ticks: int) -> None:
        order = self.going[which % len(self.going)]
        if order.state != "going on" or not order.kept:
            assert self.play.extend(order.id, ticks) == "Conflict"
            return
        end = max(machine.end for machine in order.kept) + ticks
        if end <= self.books.now:
            assert self.play.extend(order.id, ticks) == "InvalidInput"
            return
        self.books.slack = self.play.slack()
        total = self.books.whole_hold(order, self.books.runs(order.live, end=end))
        fits = self.books.fits(order, total)
        refusal = self.play.extend(order.id, ticks)
        assert refusal in (None, "GrantExhausted")
        assert fits is None or fits is (refusal is None)
        if refusal is None:
            self.take_hold(order, total)
            order.ticks += ticks
            for machine in order.kept:
                machine.end = end

    @precondition(lambda self: self.live)
    @rule(which=numbers, fault=st.none() | st.sampled_from(FAULTS), times=st.integers(1, 2))
    def work(self, which: int, fault: FaultKind | None, times: int) -> None:
        """Work on one lease, while its site may be in trouble."""
        order, machine = self.live[which % len(self.live)]
        site = machine.kind.site
        broken = {site: times} if fault in FAILING else {}
        # A refusal that is lost stays unknown until the request's time is over: that is another test's matter.
        if fault in FAILING or (fault is not None and self.books.sites[site].takes(LARGEST)):
            self.play.break_site(site, fault, times)
        self.pursue(order, machine, broken)
        self.play.mend()

    @rule(site=sites, stranger=st.booleans())
    def observe(self, site: str, stranger: bool) -> None:
        """A site is listed; somebody else may have started a machine there after that."""
        self.play.observe(site)
        self.books.sites[site].listed()
        for machine in self.books.machines(site):
            if machine.is_there:
                machine.is_counted = True
                machine.look(self.books.now)
        if stranger and len(self.books.sites[site].there) < 3:
            self.books.sites[site].there[self.play.let_a_stranger_in(site)] = SMALLEST

    @rule(site=sites, small=prices, large=prices, holds=st.integers(0, 4))
    def change_prices(self, site: str, small: Decimal, large: Decimal, holds: int) -> None:
        """Prices change, and maybe there is one more grant."""
        kinds = [kind for kind in KINDS if kind.site == site]
        self.books.prices |= dict(zip(kinds, (small, large), strict=True))
        self.play.import_prices(site)
        if holds:
            self.play.grant(holds * Decimal("0.137"))
            self.books.ceiling += holds * Decimal("0.137")

    @rule(ticks=st.integers(1, 3), is_worked=st.booleans())
    def pass_time(self, ticks: int, is_worked: bool) -> None:
        """Time passes, and workers may keep up with it."""
        self.play.pass_time(ticks)
        self.books.pass_time(ticks)
        if is_worked:
            self.work_all()
            self.settle()

    @rule()
    def work_all(self) -> None:
        for order, machine in self.live:
            self.pursue(order, machine, {})

    @rule()
    def settle(self) -> None:
        self.books.slack = self.play.slack()
        for order in self.books.orders.values():
            if all(machine.is_settled for machine in order.machines):
                continue
            for machine in order.machines:
                self.play.settle(machine.id)
            for machine in order.machines:
                self.books.charge(order, machine, self.play.charged(machine.id))
            self.books.settle(order)

    # --- what a pass over a lease came to ---

    @property
    def going(self) -> list[Ordered]:
        return [order for order in self.books.orders.values() if order.state != "over"]

    @property
    def live(self) -> list[tuple[Ordered, Machine]]:
        return [(order, machine) for order in self.going for machine in order.live]

    def aim(self, machine: Machine) -> str:
        """What a lease comes to, unless its site fails it."""
        now = self.books.now
        if not machine.is_wanted or now > machine.end or (now == machine.end and not machine.is_there):
            return "gone"
        return "running" if now < machine.end else "shelved"

    def pursue(self, order: Ordered, machine: Machine, broken: dict[str, int]) -> None:
        """Work on a lease, and on those that try the next offers. `broken`: how many launches fail, per site."""
        following: Machine | None = machine
        while following is not None:
            machine, aim = following, self.aim(following)
            came_to = self.play.work(machine.id, aim)
            if aim == "running" and not machine.is_there and self.is_refused(machine, broken):
                assert came_to == "gone"
                following = self.fail(order, machine)
            else:
                assert came_to == aim
                self.become(order, machine, aim)
                following = None

    def is_refused(self, machine: Machine, broken: dict[str, int]) -> bool:
        """Whether the site gives no machine, by its own trouble or quota."""
        site = machine.kind.site
        is_broken = broken.get(site, 0) > 0
        broken[site] = broken.get(site, 0) - 1
        return is_broken or not self.books.sites[site].takes(machine.kind.needs)

    def become(self, order: Ordered, machine: Machine, state: str) -> None:
        """Enter that a machine is so now."""
        there, now = self.books.sites[machine.kind.site].there, self.books.now
        if state == "gone":
            machine.is_wanted = False
            there.pop(machine.id, None)
        elif not machine.is_there:
            there[machine.id] = machine.kind.needs
            machine.end = now + order.ticks
        machine.state = state
        machine.look(now)

    def fail(self, order: Ordered, machine: Machine) -> Machine | None:
        """The site gave no machine: the first of the next offers that has room, and money, is tried; or none is."""
        machine.state, machine.is_wanted = "gone", False
        known = {one.id for one in order.machines}
        fresh = [(lease, rank) for lease, member, rank in self.play.leases(order.id) if lease not in known]
        assert len(fresh) <= 1
        self.books.slack = self.play.slack()
        for rank, bid in enumerate(order.asked.bids, start=1):
            if rank <= machine.rank or bid.total > order.approved:
                continue
            others = self.books.runs(order.live)
            total = self.books.whole_hold(order, [*others, (bid.kind, order.ticks * HALF + MARGIN)])
            has_room, fits = self.books.has_room(bid.kind, 1), self.books.fits(order, total)
            if fresh and fresh[0][1] == rank:
                assert has_room
                assert fits is not False
                now = self.books.now
                again = Machine(fresh[0][0], machine.member, bid.kind, rank, seen=now, end=now + order.ticks)
                self.take_hold(order, total)
                order.machines.append(again)
                return again
            assert not (has_room and fits), "an offer that fits was passed over"
        assert not fresh
        if not order.live:
            order.state = "returned"
        return None

    def take_hold(self, order: Ordered, total: Decimal) -> None:
        """The order holds `total` in all, as nearly as the wall clock lets us know it; then exactly what it holds."""
        held = self.play.held(order.id)
        assert abs(held - max(total - order.used, Decimal(0))) <= self.books.slack_of(order)
        order.hold = order.used + held

    # --- all that can be counted ---

    @invariant()
    def agrees(self) -> None:
        books, counted = self.books, self.play.counted()
        assert counted.over_committed == []
        assert counted.differences == []
        assert (counted.posted, counted.held) == (books.posted, books.held)
        assert (counted.ceiling, counted.overdraft) == (books.ceiling, books.overdraft)
        assert counted.orders == {order.id: order.state for order in books.orders.values()}
        assert counted.machines == {one.id: (one.state == "gone", one.is_settled) for one in books.machines()}
        for name, site in books.sites.items():
            free = books.free_quota(name)
            for resource, limit in site.limits.items():
                assert counted.used[name, resource] == site.used.get(resource, 0)
                assert counted.free[name, resource] == free[resource]
                assert counted.taken[name, resource] <= limit


@pytest.fixture
def stage(postgres: PostgresForTests, database: Database, sessions: sessionmaker[Session]) -> Iterator[Stage]:
    """Two clouds."""
    with superuser(postgres, database) as admin, opened(sessions, admin) as made:
        Overcommit.stage = made
        yield made


@pytest.mark.usefixtures("stage")
def test_what_fits_wins_and_nothing_else_does() -> None:
    chosen = settings(
        max_examples=EXAMPLES or SHORT,
        stateful_step_count=STEPS,
        derandomize=not EXAMPLES,
        database=None,
        phases=[Phase.generate],  # to find the shortest way to a failure would take minutes
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(Overcommit, settings=chosen)


@pytest.mark.usefixtures("stage")
def test_a_machine_that_fails_makes_room_for_its_successor_at_a_full_site() -> None:
    play = Overcommit()
    play.change_prices(site="borealis", small=Decimal("0.24"), large=Decimal("0.24"), holds=4)
    for members in (4, 1):  # as many machines as aurora takes
        play.quote(cores=2, count=members, ticks=2, limit=Decimal(3), rank=1)
    play.work(which=4, fault=FaultKind.NO_CAPACITY, times=1)

    play.agrees()
    _, machine = play.live[-1]
    assert (machine.kind.name, machine.state) == ("a1.medium", "running")
    play.teardown()
