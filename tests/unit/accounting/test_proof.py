"""What `leeway ledger verify` finds, one fault at a time, and that it finds nothing where nothing is wrong."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal

import pytest
from sqlalchemy import delete, insert, select, update
from sqlalchemy.orm import Session

from accounting.models.charges import Charge, Segment
from accounting.models.grants import MoneyHold
from accounting.models.ledger import Balance
from accounting.proof import prove
from accounting.settle import settle
from broker.models.leases import LeaseState
from broker.models.workloads import Order, OrderState
from broker.values import new_id
from tests.unit.accounting.world import HOUR, T0, World

pytestmark = pytest.mark.postgres


@pytest.fixture
def life(world: World) -> World:
    """A machine that two grants paid, the rest being overdraft; another that still runs."""
    world.card()
    world.grant("0.5")
    world.grant("5")
    for hold in ("1", "2"):
        order = world.order(hold)
        lease = world.lease(order)
        world.see(lease, T0, LeaseState.RUNNING)
        if hold == "1":
            world.see(lease, T0 + 20 * HOUR, LeaseState.GONE)
        settle(world.session, lease.id, now=T0 + 21 * HOUR)
    return world


def test_nothing_is_wrong(life: World) -> None:
    assert life.overdraft == Decimal("0.2")
    assert prove(life.session) == []


def more_cost(session: Session) -> None:
    session.execute(update(Charge).where(Charge.x_grant_id.is_(None)).values(billed_cost=Charge.billed_cost + 1))


def another_payer(session: Session) -> None:
    for is_overdraft, change in ((True, "0.1"), (False, "-0.1")):
        row = session.scalars(
            select(Charge).where(Charge.x_grant_id.is_(None) if is_overdraft else Charge.x_grant_id.is_not(None))
        ).first()
        assert row is not None
        row.billed_cost += Decimal(change)
    session.flush()


def no_charge(session: Session) -> None:
    session.execute(delete(Charge))


def twice(session: Session) -> None:
    row = session.scalars(select(Charge)).first()
    assert row is not None
    segment = session.get_one(Segment, row.segment_id)
    later = timedelta(hours=100)
    made = new_id()
    session.execute(
        insert(Segment).values(
            id=made, lease_id=segment.lease_id, starts_at=T0 + later, ends_at=T0 + 2 * later, state=segment.state,
            sku=segment.sku, is_estimated=False,
        )
    )  # fmt: skip
    columns = {column.key: getattr(row, column.key) for column in Charge.__table__.columns}
    free = {"id": new_id(), "segment_id": made, "billed_cost": Decimal(0)}
    session.execute(insert(Charge).values(columns | free))


def over_with_money(session: Session) -> None:
    session.execute(update(Order).values(state=OrderState.OVER))


def less_held(session: Session) -> None:
    session.execute(update(MoneyHold).where(MoneyHold.released_at.is_(None)).values(remaining=0))


def more_posted(session: Session) -> None:
    session.execute(update(Balance).where(Balance.ceiling.is_(None)).values(posted=Balance.posted + 1))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (more_cost, "the books differ in an entry and its charges of segment:"),
        (another_payer, "the books differ in an entry and its charges of segment:"),
        (no_charge, "of a settled lease is not charged"),
        (twice, "is charged twice for m1.small"),
        (over_with_money, "is over and still holds money"),
        (less_held, "the books differ in held and its open holds of grant:"),
        (more_posted, "the books differ in balance and its postings of"),
    ],
)
def test_what_is_wrong_is_found(life: World, spoil: Callable[[Session], None], words: str) -> None:
    spoil(life.session)
    life.session.expire_all()
    assert any(words in line for line in prove(life.session))
