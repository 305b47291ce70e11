"""Proof that the books agree: with themselves, with the holds, and with the charges that they were made of.

For whoever wants to know after a restore or a crash. Each comparison is one statement; in a transaction of isolation
REPEATABLE READ all of them see one moment, and it may run while others post.
"""

from __future__ import annotations

from decimal import Decimal
from uuid import UUID

from sqlalchemy import Select, case, exists, func, literal, select, union_all
from sqlalchemy.orm import Session, aliased

from accounting.ledger import Difference, verify
from accounting.models.charges import Charge, Segment
from accounting.models.grants import Grant, MoneyHold
from accounting.models.ledger import Account, AccountKind, Entry, Posting
from broker.models.leases import Lease
from broker.models.workloads import Order, OrderState
from broker.values import plain

_OF_USE = ("usage", "correction")


def prove(session: Session) -> list[str]:
    """Every disagreement, in words; empty where there is none.

    - a balance and its postings; what is held and the open holds; an entry and zero;
    - an entry and the charges that it was made of, per payer;
    - a closed segment of a settled lease without a charge; charges of one lease and SKU that overlap;
    - an order that is over and still holds money.
    """
    differences = [*verify(session), *(Difference(*row) for row in session.execute(_payers()))]
    return [
        *map(_words, differences),
        *(f"segment {found} of a settled lease is not charged" for found in session.scalars(_uncharged())),
        *(f"lease {lease} is charged twice for {sku}" for lease, sku in session.execute(_twice())),
        *(f"order {found} is over and still holds money" for found in session.scalars(_left())),
    ]


def _words(found: Difference) -> str:
    kept, summed = plain(found.kept), plain(found.summed)
    return f"the books differ in {found.what} of {found.key}: {kept} and {summed} {found.commodity}"


def _payers() -> Select[str, str, str, Decimal, Decimal]:
    """Entries of use: what was posted to each payer's account, and what its charges come to.

    Charges name no payer where several had paid before Leeway split such rows: those are compared in all.
    """
    names_one = exists().where(Charge.entry_id == Entry.id, Charge.x_grant_id.is_not(None))
    posted = (
        select(
            Entry.key,
            case((names_one & (Account.kind == AccountKind.GRANT), Account.key), else_="").label("payer"),
            Posting.commodity,
            Posting.amount.label("posted"),
            literal(Decimal(0)).label("charged"),
        )
        .join(Posting, Posting.entry_id == Entry.id)
        .join(Account, Account.id == Posting.account_id)
        .where(Entry.kind.in_(_OF_USE), Account.kind != AccountKind.PROVIDER)
    )
    charged = (
        select(
            Entry.key,
            func.coalesce(Account.key, ""),
            Charge.billing_currency,
            literal(Decimal(0)),
            Charge.billed_cost,
        )
        .join(Charge, Charge.entry_id == Entry.id)
        .outerjoin(Grant, Grant.id == Charge.x_grant_id)
        .outerjoin(Account, Account.id == Grant.account_id)
    )
    both = union_all(posted, charged).subquery()
    sums = func.sum(both.c.posted), func.sum(both.c.charged)
    return (
        select(literal("an entry and its charges"), both.c.key, both.c.commodity, *sums)
        .group_by(both.c.key, both.c.payer, both.c.commodity)
        .having(sums[0] != sums[1])
        .order_by(both.c.key)
    )


def _uncharged() -> Select[UUID]:
    is_charged = exists().where(Charge.segment_id == Segment.id)
    return (
        select(Segment.id)
        .join(Lease, Lease.id == Segment.lease_id)
        .where(Lease.settled_at.is_not(None), ~is_charged)
        .order_by(Segment.id)
    )


def _twice() -> Select[UUID, str]:
    """A lease's charges of one SKU over the same time; corrections are about charges, and count with them."""
    other = aliased(Charge)
    overlap = func.tstzrange(Charge.charge_period_start, Charge.charge_period_end).op("&&")(
        func.tstzrange(other.charge_period_start, other.charge_period_end)
    )
    return (
        select(Charge.lease_id, Charge.sku_id)
        .join(
            other,
            (other.lease_id == Charge.lease_id)
            & (other.sku_id == Charge.sku_id)
            & (other.segment_id > Charge.segment_id),
        )
        .where(Charge.x_correction == 0, other.x_correction == 0, overlap)
        .distinct()
        .order_by(Charge.lease_id, Charge.sku_id)
    )


def _left() -> Select[UUID]:
    holds = exists().where(MoneyHold.order_id == Order.id, MoneyHold.released_at.is_(None))
    return select(Order.id).where(Order.state == OrderState.OVER, holds).order_by(Order.id)
