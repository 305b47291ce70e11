"""64 orders of 8 processes at the same moment, and room for 10: exactly 10 win, and of the others nothing is left."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.orm import Session, sessionmaker

from accounting.grants import create_grant
from accounting.ledger import verify
from accounting.models.grants import MoneyHold
from accounting.models.ledger import Balance, Entry
from adapters.sandbox.config import CloudConfig, QuotaConfig
from adapters.sandbox.profiles import aurora, borealis
from broker.database import Database
from broker.models.audit import Event
from broker.models.holds import QuotaHold, QuotaPool
from broker.models.leases import Lease
from broker.models.people import Project
from broker.models.workloads import Order, OrderState
from broker.orders import Choice, stop_order
from broker.values import Amount, Period
from tests.unit.overcommit.racers import AT_ONCE, Racers, racing
from tests.world import World, make_world, quick

pytestmark = pytest.mark.postgres

WINNERS = 10
# Of the winners, so many end; for the others there is new room.
ENDED = 2
REPETITIONS = 4
# Per hour, in EUR. An order sets aside two hours, and 17 minutes to stop and settle (`broker.placement.Assumptions`).
PRICE, HOLD = "0.06", Decimal("0.137")
# Of the smallest machine of either cloud.
SHARES = {"instances": Decimal(1), "cores": Decimal(2), "memory_mib": Decimal(4096)}


@dataclass(frozen=True)
class Room:
    """What there is: money on grants, quota of one site or (None) plenty at two; and who says no to the others."""

    grants: tuple[str, ...]
    quota: QuotaConfig | None
    refusals: frozenset[str]


GRANT, QUOTA = frozenset({"GrantExhausted"}), frozenset({"QuotaExhausted"})
ROOMS = {
    "one grant": Room(("1.37",), None, GRANT),
    "two grants that one order is split over": Room(("0.5", "1.006999999"), None, GRANT),
    "machines": Room(("100",), QuotaConfig(instances=10, cores=1000, ram_mib=10**7), QUOTA),
    "cores": Room(("100",), QuotaConfig(instances=1000, cores=21, ram_mib=10**7), QUOTA),
    "money and memory": Room(("1.37",), QuotaConfig(instances=1000, cores=1000, ram_mib=4096 * 10), GRANT | QUOTA),
}


@pytest.fixture(scope="module")
def racers(database: Database) -> Iterator[Racers]:
    """The processes."""
    with racing(database.application_url) as started:
        yield started


@pytest.mark.parametrize("room", ROOMS)
def test_exactly_as_many_win_as_fit(racers: Racers, sessions: sessionmaker[Session], room: str) -> None:
    limits = ROOMS[room]
    clouds = [with_quota(aurora(), limits.quota)] if limits.quota else [roomy(aurora()), roomy(borealis())]
    with make_world(sessions, *clouds, grant=f"{limits.grants[0]} EUR") as world:
        for cloud in world.clouds.values():
            world.connect(cloud, prices={cloud.config.flavors[0].name: PRICE})
        for number, amount in enumerate(limits.grants[1:]):
            add_grant(world, f"further-{number}", amount)
        quotes = [world.quote(name=f"w-{number}") for number in range(AT_ONCE)]
        choices = [Choice(quote.id, rank=1 + number % len(clouds)) for number, quote in enumerate(quotes)]
        going_on: set[UUID] = set()
        dice = random.Random(room)  # noqa: S311 - an order that can be repeated, not a secret
        for _ in range(REPETITIONS):
            dice.shuffle(choices)
            answers = racers.order(choices)
            won = [answer.order_id for answer in answers if answer.order_id is not None]
            lost = [answer for answer in answers if answer.order_id is None]
            assert {answer.refusal for answer in lost} <= limits.refusals, Counter(map(str, lost))
            assert len(won) == WINNERS
            going_on |= set(won)
            assert set_aside(world) == going_on
            ended = won[:ENDED]
            end(world, ended)
            make_room(world, WINNERS - ENDED, limits)
            going_on -= set(ended)
            assert set_aside(world) == going_on


def with_quota(config: CloudConfig, quota: QuotaConfig) -> CloudConfig:
    """The cloud, quick, with this quota of the project that Leeway uses."""
    ours, *others = config.projects
    return replace(quick(config), projects=(replace(ours, quota=quota), *others))


def roomy(config: CloudConfig) -> CloudConfig:
    """The cloud, quick, with more room than anybody takes here."""
    return with_quota(config, QuotaConfig(instances=1000, cores=1000, ram_mib=10**7))


def add_grant(world: World, name: str, amount: str) -> None:
    """One more grant of the project."""
    century = Period(datetime(2020, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC))
    with world.sessions.begin() as session:
        project_id = session.scalars(select(Project.id)).one()
        create_grant(session, project_id, name=name, amount=Amount.parse(f"{amount} EUR"), period=century)


def set_aside(world: World) -> set[UUID]:
    """The orders that money and quota are set aside for, each for as much as one takes, and of no other any row."""
    with world.sessions() as session:
        orders = set(session.scalars(select(Order.id).where(Order.state != OrderState.OVER)))
        leases = dict(session.execute(select(Lease.id, Lease.order_id).where(Lease.gone_at.is_(None))).all())
        assert Counter(leases.values()) == Counter(orders)
        assert set(session.scalars(select(Lease.order_id))) == set(session.scalars(select(Order.id)))
        told = select(Event.order_id).where(Event.order_id.is_not(None))
        assert set(session.scalars(told)) == set(session.scalars(select(Order.id)))
        assert waking(session) == {str(lease) for lease in session.scalars(select(Lease.id))}

        open_holds = MoneyHold.released_at.is_(None)
        money = select(MoneyHold.order_id, func.sum(MoneyHold.remaining)).where(open_holds).group_by(MoneyHold.order_id)
        assert dict(session.execute(money).all()) == dict.fromkeys(orders, HOLD)
        balances = session.scalars(select(Balance)).all()
        assert sum(balance.held for balance in balances) == HOLD * len(orders)
        assert all(balance.posted == 0 for balance in balances)
        assert session.scalars(select(Entry)).all() == []
        assert verify(session) == []

        taken = session.execute(
            select(QuotaHold.lease_id, QuotaPool.resource, QuotaHold.amount)
            .join(QuotaPool, QuotaPool.id == QuotaHold.pool_id)
            .where(QuotaHold.released_at.is_(None))
        )
        assert {(lease, resource): amount for lease, resource, amount in taken} == {
            (lease, resource): amount for lease in leases for resource, amount in SHARES.items()
        }
    return orders


def waking(session: Session) -> set[str]:
    """The leases that the queue has a wake-up for."""
    return set(session.scalars(text("SELECT args ->> 'key' FROM procrastinate_jobs WHERE task_name = 'reconcile'")))


def end(world: World, orders: Sequence[UUID]) -> None:
    """End orders before anything was launched."""
    for order_id in orders:
        with world.sessions.begin() as session:
            order = stop_order(session, order_id, jobs=world.jobs, actor="tests", reason="room for others")
        for lease_id in world.leases(order):
            world.work(lease_id)


def make_room(world: World, orders: int, limits: Room) -> None:
    """Raise what limits, so that so many more orders fit."""
    with world.sessions.begin() as session:
        if GRANT & limits.refusals:
            first = select(Balance).where(Balance.ceiling.is_not(None)).order_by(Balance.id).limit(1)
            balance = session.scalars(first.with_for_update()).one()
            balance.ceiling = (balance.ceiling or 0) + HOLD * orders
        if QUOTA & limits.refusals:
            for pool in session.scalars(select(QuotaPool).where(QuotaPool.resource.in_(SHARES)).with_for_update()):
                pool.quota = (pool.quota or 0) + SHARES[pool.resource] * orders
