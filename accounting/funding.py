"""Who pays a charge: the order's holds in the grants' order; and which row says so when several do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from decimal import ROUND_DOWN, Decimal
from uuid import UUID

from sqlalchemy import exists, select
from sqlalchemy.orm import Session

from accounting.histories import History
from accounting.ledger import Line
from accounting.models.grants import Grant, MoneyHold
from accounting.models.ledger import Balance
from accounting.rating import Rated
from broker.values import STORED, Amount, Period, Quantity, exact


@dataclass(frozen=True, slots=True)
class Share:
    """A part of a charge, and who pays it: a grant, from a hold or from what it has free; without one, overdraft."""

    account_id: UUID
    grant_id: UUID | None
    amount: Amount
    hold_id: UUID | None = None

    @property
    def line(self) -> Line:
        """Its posting."""
        return Line(self.account_id, self.amount, self.hold_id)


def fund(session: Session, history: History, period: Period, total: Amount, *, overdraft_id: UUID) -> list[Share]:
    """Who pays: the order's holds on grants that are open all through the period, in the grants' order.

    Where the order has no hold any more (its end was corrected after it was over), what these grants have free. The
    rest is overdraft: it has happened. The balances must be locked.
    """
    shares: list[Share] = []
    left = total
    for share in (*_held(session, history, period, total), *_free(session, history, period, total)):
        part = min(left, share.amount)
        if part.value > 0:
            shares.append(replace(share, amount=part))
            left = left - part
    if left.value:
        shares.append(Share(overdraft_id, None, left))
    return shares


def _held(session: Session, history: History, period: Period, total: Amount) -> Iterator[Share]:
    for hold, grant in session.execute(
        select(MoneyHold, Grant)
        .join(Balance, Balance.id == MoneyHold.balance_id)
        .join(Grant, Grant.account_id == Balance.account_id)
        .where(
            MoneyHold.order_id == history.order.id,
            MoneyHold.released_at.is_(None),
            Balance.commodity == total.commodity.code,
            Grant.starts_at <= period.start,
            Grant.ends_at >= period.end,
        )
        .order_by(Grant.position)
        .execution_options(populate_existing=True)
    ):
        yield Share(grant.account_id, grant.id, Amount(hold.remaining, total.commodity), hold.id)


def _free(session: Session, history: History, period: Period, total: Amount) -> Iterator[Share]:
    has_hold = exists().where(MoneyHold.order_id == history.order.id, MoneyHold.released_at.is_(None))
    for balance, grant in session.execute(
        select(Balance, Grant)
        .join(Grant, Grant.account_id == Balance.account_id)
        .where(
            ~has_hold,
            Grant.project_id == history.order.project_id,
            Balance.commodity == total.commodity.code,
            Grant.starts_at <= period.start,
            Grant.ends_at >= period.end,
        )
        .order_by(Grant.position)
        .execution_options(populate_existing=True)
    ):
        assert balance.ceiling is not None, "a grant's balance has a ceiling"
        with exact():
            free = balance.ceiling - balance.posted - balance.held
        yield Share(grant.account_id, grant.id, Amount(free, total.commodity))


def split(rated: Sequence[Rated], shares: Sequence[Share]) -> Iterator[tuple[Rated, UUID | None]]:
    """Each rated row with its payer; one that several pay becomes several, which add up to it to the last digit.

    Rows are filled in their order from shares in theirs. Price, minimum, increment and tier are those of the whole.
    """
    purses = [(share.grant_id, share.amount.value) for share in shares]
    for row in rated:
        with exact():
            parts = draw(purses, row.cost.value) or [(None, row.cost.value)]
            costs = [cost for _, cost in parts]
            quantities = in_proportion(row.part.quantity.value, costs)
            hours = in_proportion(row.hours, costs)
        for (grant_id, cost), quantity, consumed in zip(parts, quantities, hours, strict=True):
            amount = Amount(cost, row.cost.commodity)
            part = replace(row.part, quantity=Quantity(quantity, row.part.quantity.unit), amount=amount)
            yield replace(row, part=part, hours=consumed, cost=amount), grant_id


def draw(purses: list[tuple[UUID | None, Decimal]], wanted: Decimal) -> list[tuple[UUID | None, Decimal]]:
    """Take `wanted` from the front of the purses, which are changed; says what came from whom."""
    drawn: list[tuple[UUID | None, Decimal]] = []
    while wanted:
        payer, there = purses.pop(0)
        part = min(wanted, there)
        if part < there:
            purses.insert(0, (payer, there - part))
        if part:
            drawn.append((payer, part))
        wanted -= part
    return drawn


def in_proportion(figure: Decimal, costs: Sequence[Decimal]) -> list[Decimal]:
    """A figure in parts as the costs are to each other: rounded down to nine decimals, the last takes what is left."""
    total = sum(costs, Decimal(0))
    parts = [(figure * cost / total).quantize(STORED, rounding=ROUND_DOWN) for cost in costs[:-1]]
    return [*parts, figure - sum(parts, Decimal(0))]
