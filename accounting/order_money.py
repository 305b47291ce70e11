"""What orders hold, were charged, and use right now: for tables of workloads."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from accounting.charging import Prices
from accounting.histories import histories
from accounting.models.charges import Charge
from accounting.models.grants import MoneyHold
from accounting.models.ledger import Balance
from broker.errors import PriceUnknown
from broker.models.leases import Lease
from broker.models.workloads import Order, QuoteOffer
from broker.values import Amount, Commodity

Sums = dict[UUID, dict[str, Amount]]


@dataclass(frozen=True, slots=True)
class OrderMoney:
    """One order's money, in the currency that it was ordered in.

    Attributes:
        held: what is set aside and not charged yet.
        spent: what was charged.
        accrued: what its machines used and no charge covers yet; None: a machine has no known price.
        other: what was charged or used in other currencies (a provider may change its own).
    """

    held: Amount
    spent: Amount
    accrued: Amount | None
    other: tuple[Amount, ...]


def order_money(session: Session, order_ids: Collection[UUID], *, now: datetime) -> Mapping[UUID, OrderMoney]:
    """Per order, its money at `now`; a fixed number of queries for any number of orders. Writes and locks nothing."""
    currencies = dict(
        session.execute(
            select(Order.id, QuoteOffer.commodity)
            .join(QuoteOffer, QuoteOffer.id == Order.quote_offer_id)
            .where(Order.id.in_(order_ids))
        ).all()
    )
    held, spent = _held(session, order_ids), _spent(session, order_ids)
    accrued, unpriced = _accrued(session, order_ids, now=now)
    found = {}
    for order_id, code in currencies.items():
        zero = Amount.zero(Commodity(code))
        others = [
            amount
            for sums in (spent[order_id], accrued[order_id])
            for commodity, amount in sums.items()
            if commodity != code
        ]
        found[order_id] = OrderMoney(
            held=held[order_id].get(code, zero),
            spent=spent[order_id].get(code, zero),
            accrued=None if order_id in unpriced else accrued[order_id].get(code, zero),
            other=tuple(others),
        )
    return found


def spent_so_far(session: Session, order_ids: Collection[UUID], *, now: datetime) -> dict[UUID, Amount | None]:
    """Per order, what was charged and used until `now`, in its own currency; None where a price is not known."""
    money = order_money(session, order_ids, now=now)
    return {
        order_id: None if found.accrued is None else found.spent + found.accrued for order_id, found in money.items()
    }


def _held(session: Session, order_ids: Collection[UUID]) -> Sums:
    found: Sums = defaultdict(dict)
    for order_id, code, value in session.execute(
        select(MoneyHold.order_id, Balance.commodity, func.sum(MoneyHold.remaining))
        .join(Balance, Balance.id == MoneyHold.balance_id)
        .where(MoneyHold.order_id.in_(order_ids), MoneyHold.released_at.is_(None))
        .group_by(MoneyHold.order_id, Balance.commodity)
    ):
        found[order_id][code] = Amount.of(value, code)
    return found


def _spent(session: Session, order_ids: Collection[UUID]) -> Sums:
    found: Sums = defaultdict(dict)
    for order_id, code, value in session.execute(
        select(Lease.order_id, Charge.billing_currency, func.sum(Charge.billed_cost))
        .join(Charge, Charge.lease_id == Lease.id)
        .where(Lease.order_id.in_(order_ids))
        .group_by(Lease.order_id, Charge.billing_currency)
    ):
        found[order_id][code] = Amount.of(value, code)
    return found


def _accrued(session: Session, order_ids: Collection[UUID], *, now: datetime) -> tuple[Sums, set[UUID]]:
    """What was used and not charged, and the orders of which a part has no price."""
    unsettled = select(Lease.id).where(Lease.order_id.in_(order_ids), Lease.settled_at.is_(None))
    prices = Prices(session)
    found: Sums = defaultdict(dict)
    unpriced = set()
    for history in histories(session, session.scalars(unsettled).all()):
        sums = found[history.order.id]
        try:
            for rated in prices.unposted(history, now=now):
                code = rated.cost.commodity.code
                sums[code] = sums[code] + rated.cost if code in sums else rated.cost
        except PriceUnknown:
            unpriced.add(history.order.id)
    return found, unpriced
