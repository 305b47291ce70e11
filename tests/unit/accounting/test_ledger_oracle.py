"""Random lives of orders against an oracle of a few lines; and many at once against a grant that takes few."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select
from sqlalchemy.orm import Session, sessionmaker

import broker.database
from accounting.ledger import Line, account, post, verify
from accounting.models.grants import Grant
from accounting.models.ledger import AccountKind, Balance, Posting
from broker.database import Database
from broker.errors import Conflict, GrantExhausted
from broker.models.workloads import Order
from tests.unit.accounting.world import HOUR, LEDGER, T0, World, eur

pytestmark = pytest.mark.postgres

money = st.decimals("0.000000001", "9", places=9)
numbers = st.integers(0, 2)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("hold"), numbers, money),
        st.tuples(st.just("extend"), numbers, money),
        st.tuples(st.just("charge"), numbers, money),
        st.tuples(st.just("replay"), numbers, money),
        st.tuples(st.just("release"), numbers, money),
    ),
    max_size=14,
)


@dataclass
class Oracle:
    """What the books should be: free per grant in order, and of each order what is held where and what it used."""

    free: list[Decimal]
    posted: list[Decimal]
    held: dict[int, list[Decimal]] = field(default_factory=dict)
    used: dict[int, Decimal] = field(default_factory=dict)

    def set(self, number: int, total: Decimal) -> bool:
        """Hold `total` in all; False, and nothing changed, where it does not fit."""
        kept = self.held.get(number, [Decimal(0) for _ in self.free])
        missing = max(total - self.used.get(number, Decimal(0)), Decimal(0))
        new = []
        for have in kept:
            new.append(min(have, missing))
            missing -= new[-1]
        for place, (room, have) in enumerate(zip(self.free, kept, strict=True)):
            part = min(room, missing)
            new[place] += part
            missing -= part
            assert part == 0 or new[place] >= have
        if missing:
            return False
        self.free = [room + have - now for room, have, now in zip(self.free, kept, new, strict=True)]
        self.held[number] = new
        self.used.setdefault(number, Decimal(0))
        return True

    def charge(self, number: int, value: Decimal) -> Decimal:
        """Charge the order's hold, grant by grant; returns what is beyond it."""
        for place, have in enumerate(self.held[number]):
            part = min(have, value)
            self.held[number][place] -= part
            self.posted[place] += part
            self.used[number] += part
            value -= part
        return value

    def release(self, number: int) -> None:
        """Give back what is left."""
        for place, have in enumerate(self.held.pop(number, [])):
            self.free[place] += have
        self.used.pop(number, None)


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(ceilings=st.lists(st.decimals("0.000000001", "12", places=9), min_size=1, max_size=3), life=steps)
def test_random_lives_keep_the_books(
    session: Session, ceilings: list[Decimal], life: list[tuple[str, int, Decimal]]
) -> None:
    with session.begin_nested() as example:
        live_through(World(session), ceilings, life)
        session.flush()
        example.rollback()
    session.expunge_all()


def live_through(world: World, ceilings: list[Decimal], life: list[tuple[str, int, Decimal]]) -> None:
    """Do each step both ways, and compare after each."""
    grants = [world.grant(eur(value)) for value in ceilings]
    orders = [world.order() for _ in range(3)]
    oracle = Oracle(list(ceilings), [Decimal(0) for _ in ceilings])
    beyond = Decimal(0)
    keys: list[tuple[str, list[Line]]] = []
    for step, number, value in life:
        order = orders[number]
        match step:
            case "hold" | "extend":
                is_new = step == "hold"
                if is_new and number in oracle.held and any_open(world, order):
                    with pytest.raises(Conflict):
                        LEDGER.hold(world.session, order.id, [eur(value)], T0 + HOUR, now=T0)
                elif oracle.set(number, value):
                    call = LEDGER.hold if is_new else LEDGER.extend
                    call(world.session, order.id, [eur(value)], T0 + HOUR, now=T0)
                else:
                    with pytest.raises(GrantExhausted):
                        LEDGER.extend(world.session, order.id, [eur(value)], T0 + HOUR, now=T0)
            case "charge" if number in oracle.held:
                lines = charge(world, order, value)
                keys.append((f"segment:{len(keys)}:{world.tag}", lines))
                post(world.session, key=keys[-1][0], kind="usage", text="", lines=lines, now=T0)
                beyond += oracle.charge(number, value)
            case "replay" if keys:
                key, lines = keys[number % len(keys)]
                post(world.session, key=key, kind="usage", text="", lines=lines, now=T0)
            case "release":
                oracle.release(number)
                LEDGER.release(world.session, order.id, now=T0)
            case _:
                continue
        check(world, oracle, grants, beyond)


def any_open(world: World, order: Order) -> bool:
    """Whether the order has an open hold."""
    return any(hold.released_at is None for hold in world.holds(order))


def charge(world: World, order: Order, value: Decimal) -> list[Line]:
    """The lines that charge `value` to the order's holds in order, and the rest to the overdraft."""
    there = account(world.session, AccountKind.PROVIDER, key=f"provider:{world.provider.id}", title="A cloud")
    over = account(world.session, AccountKind.OVERDRAFT, key=f"overdraft:{world.project.id}", title="Beyond")
    lines = [Line(there, eur(-value))]
    rows = world.session.execute(
        select(Grant.position, Balance.account_id, Balance.id).join(Balance, Balance.account_id == Grant.account_id)
    )
    places = {balance_id: (position, account_id) for position, account_id, balance_id in rows}
    holds = [hold for hold in world.holds(order) if hold.released_at is None]
    for hold in sorted(holds, key=lambda hold: places[hold.balance_id][0]):
        part = min(hold.remaining, value)
        lines.append(Line(places[hold.balance_id][1], eur(part), hold.id))
        value -= part
    return [*lines, Line(over, eur(value))]


def check(world: World, oracle: Oracle, grants: Iterable[Grant], beyond: Decimal) -> None:
    """Entries sum to zero, balances to their postings, and every figure is the oracle's."""
    assert verify(world.session) == []
    assert world.session.scalar(select(func.sum(Posting.amount))) in (None, 0)
    for place, grant in enumerate(grants):
        posted, held = world.of_grant(grant)
        assert posted == oracle.posted[place]
        assert held == sum(parts[place] for parts in oracle.held.values())
        balance = world.balance(f"grant:{grant.id}")
        assert balance is not None
        assert balance.ceiling is not None
        assert balance.ceiling - posted - held == oracle.free[place] >= 0
    assert world.overdraft == beyond
    assert world.owed == sum(oracle.posted) + beyond


def at_once(work: Any, items: list[UUID]) -> list[bool]:
    """Run `work` on every item in a thread of its own, all released at one moment."""
    barrier = threading.Barrier(len(items))

    def start(item: UUID) -> bool:
        barrier.wait(timeout=30)
        return bool(work(item))

    with ThreadPoolExecutor(len(items)) as pool:
        return list(pool.map(start, items))


def test_of_64_orders_at_once_exactly_ten_win(sessions: sessionmaker[Session], database: Database) -> None:
    with sessions.begin() as session:
        world = World(session)
        grants = [world.grant("6.5"), world.grant("4")]
        orders = [world.order().id for _ in range(64)]
    crowd = broker.database.engine(database.application_url, pool_size=64)

    def hold(order_id: UUID) -> bool:
        with Session(crowd) as session:
            # On a busy machine 64 turns may take longer than a request would wait.
            session.execute(sa.text("SET LOCAL lock_timeout = '60s'"))
            try:
                LEDGER.hold(session, order_id, [eur(1)], T0 + HOUR, now=T0)
            except GrantExhausted:
                return False
            session.commit()
            return True

    won = at_once(hold, orders)
    crowd.dispose()
    assert sum(won) == 10
    with sessions() as session:
        world.session = session
        assert [world.of_grant(grant)[1] for grant in grants] == [Decimal("6.5"), Decimal("3.5")]
        assert verify(session) == []


def test_one_key_posted_from_many_threads_is_posted_once(sessions: sessionmaker[Session]) -> None:
    with sessions.begin() as session:
        world = World(session)
        grant = world.grant("10")
        there = account(session, AccountKind.PROVIDER, key="provider:one", title="A cloud")
    gate = threading.Semaphore(8)
    entries: set[UUID] = set()

    def pay(_: UUID) -> bool:
        lines = [Line(grant.account_id, eur(1)), Line(there, eur(-1))]
        with gate, sessions.begin() as session:
            entries.add(post(session, key="segment:1", kind="usage", text="", lines=lines, now=T0))
        return True

    at_once(pay, [grant.id] * 16)
    assert len(entries) == 1
    with sessions() as session:
        world.session = session
        assert world.of_grant(grant) == (1, 0)
        assert verify(session) == []


def test_two_accounts_one_key_at_once_is_still_one_entry(sessions: sessionmaker[Session]) -> None:
    """No lock is shared then: the key alone decides, and the loser learns the winner's entry."""
    with sessions.begin() as session:
        ids = [account(session, AccountKind.PROVIDER, key=f"provider:{name}", title="") for name in "abcd"]
    first, second = sessions(), sessions()
    entry = post(first, key="k", kind="x", text="", lines=[Line(ids[0], eur(1)), Line(ids[1], eur(-1))], now=T0)
    found: list[UUID] = []

    def late() -> None:
        lines = [Line(ids[2], eur(1)), Line(ids[3], eur(-1))]
        found.append(post(second, key="k", kind="x", text="", lines=lines, now=T0))
        second.commit()

    thread = threading.Thread(target=late)
    thread.start()
    thread.join(0.3)
    assert thread.is_alive(), "the second waits for the first"
    first.commit()
    thread.join(10)
    assert found == [entry]
    first.close()
    second.close()
    with sessions() as session:
        assert verify(session) == []
        assert session.scalar(select(func.sum(func.abs(Posting.amount)))) == 2
