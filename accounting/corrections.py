"""A machine's end turns out otherwise than it was charged: the difference, as rows of its own.

The posted charge stays. What a charged segment should have cost until the corrected end is filled from its own rows,
tier by tier; the difference to what is posted is a correction (FOCUS ChargeClass), over the time that it is about, with
negative quantities where money goes back. It goes back the way it came, the last payer first: overdraft, then the
grants from the last to the first. Use beyond what was charged is an ordinary segment and no matter of this module.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import ROUND_HALF_UP, Decimal
from itertools import groupby
from typing import Any, Self
from uuid import UUID

from sqlalchemy import inspect, select
from sqlalchemy.orm import Session

from accounting.charging import Accounts, Prices, tell_overdraft
from accounting.funding import Share, draw, fund, in_proportion
from accounting.histories import History, use_of
from accounting.ledger import Line, post
from accounting.models.charges import Charge, ChargeState, Segment
from accounting.models.grants import Grant
from accounting.rating import billing_month
from broker.values import STORED, Amount, Commodity, Period, exact

# What one payer pays more (or less) of a tier.
Part = tuple[UUID | None, Decimal]


@dataclass(frozen=True, slots=True)
class _Figures:
    """What rows of one SKU and tier come to."""

    quantity: Decimal
    hours: Decimal
    cost: Decimal

    @classmethod
    def of(cls, rows: Sequence[Charge]) -> Self:
        """Their sums."""
        return cls(
            sum((row.pricing_quantity for row in rows), Decimal(0)),
            sum((row.consumed_quantity for row in rows), Decimal(0)),
            sum((row.billed_cost for row in rows), Decimal(0)),
        )

    def part(self, quantity: Decimal) -> _Figures:
        """What a smaller quantity of them comes to."""
        if quantity == self.quantity:
            return self
        share = quantity / self.quantity
        hours, cost = ((figure * share).quantize(STORED, rounding=ROUND_HALF_UP) for figure in (self.hours, self.cost))
        return _Figures(quantity, hours, cost)


@dataclass(frozen=True, slots=True)
class _Tier:
    """All rows of one SKU and tier of a segment, and what is to be added to them."""

    rows: Sequence[Charge]
    added: _Figures


def post_correction(
    prices: Prices, history: History, segment: Segment, until: datetime, *, accounts: Accounts, now: datetime
) -> None:
    """Make a charged segment count until `until`, which is no earlier than its start and no later than its end."""
    assert segment.ends_at is not None, "only closed segments are charged"
    session = prices.session
    before = segment.counted_until or segment.ends_at
    about = Period(min(before, until), max(before, until))
    rows = list(session.scalars(select(Charge).where(Charge.segment_id == segment.id).order_by(Charge.id)))
    number = 1 + max(row.x_correction for row in rows)
    currency = Commodity(rows[0].billing_currency)
    with exact():
        tiers = list(_tiers(rows, _billed(prices, history, segment, until)))
        total = Amount(sum((tier.added.cost for tier in tiers), Decimal(0)), currency)
        if until < before:
            parts, shares = _back(session, tiers, currency, overdraft_id=accounts.overdraft_id)
        else:
            shares = fund(session, history, about, total, overdraft_id=accounts.overdraft_id)
            purses = [(share.grant_id, share.amount.value) for share in shares]
            parts = [draw(purses, tier.added.cost) for tier in tiers]
    entry_id = post(
        session,
        key=f"correction:{segment.id}:{number}",
        kind="correction",
        text=f"{segment.sku} {segment.state.value} at {history.site.name}, until {until:%Y-%m-%d %H:%M:%S} UTC",
        lines=[*(share.line for share in shares), Line(accounts.provider_id, -total)] if total.value else [],
        now=now,
    )
    own = {
        "entry_id": entry_id,
        "x_correction": number,
        "charge_period_start": about.start,
        "charge_period_end": about.end,
    }
    for tier, payers in zip(tiers, parts, strict=True):
        session.add_all(_rows(tier, payers, own, now=now))
    segment.counted_until = None if until == segment.ends_at else until
    session.flush()
    tell_overdraft(prices, history, currency, overdraft_id=accounts.overdraft_id, now=now)


def _billed(prices: Prices, history: History, segment: Segment, until: datetime) -> Mapping[str, Decimal] | None:
    """Per SKU, the quantity that is billed for the time that counts, after minimum and increment; None: all of it."""
    if until == segment.ends_at:
        return None
    billed: dict[str, Decimal] = defaultdict(Decimal)
    if until > segment.starts_at:
        use = replace(use_of(segment), ends_at=until)
        for rated in prices.of(history, use, Period(segment.starts_at, until)):
            billed[rated.sku] += rated.part.quantity.value
    return billed


def _tiers(rows: Sequence[Charge], billed: Mapping[str, Decimal] | None) -> Iterator[_Tier]:
    """Each tier with what is missing to what it should be: filled from the first tier on, as it was charged."""
    left = None if billed is None else dict(billed)
    ordered = sorted(rows, key=lambda row: (row.sku_id, _number_of_tier(row)))
    for (sku, _), group in groupby(ordered, key=lambda row: (row.sku_id, row.sku_price_id)):
        found = list(group)
        charged, posted = _Figures.of([row for row in found if not row.x_correction]), _Figures.of(found)
        wanted = charged
        if left is not None:
            quantity = min(charged.quantity, left.get(sku, Decimal(0)).quantize(STORED, rounding=ROUND_HALF_UP))
            left[sku] = left.get(sku, Decimal(0)) - quantity
            wanted = charged.part(quantity) if quantity else _Figures(Decimal(0), Decimal(0), Decimal(0))
        added = _Figures(wanted.quantity - posted.quantity, wanted.hours - posted.hours, wanted.cost - posted.cost)
        yield _Tier(found, added)


def _number_of_tier(row: Charge) -> int:
    return int(row.sku_price_id.rpartition("/")[2])


def _back(
    session: Session, tiers: Sequence[_Tier], currency: Commodity, *, overdraft_id: UUID
) -> tuple[list[list[Part]], list[Share]]:
    """Money that goes back: per tier by payer, and in all by account."""
    payers = {row.x_grant_id for tier in tiers for row in tier.rows}
    grants = {grant.id: grant for grant in session.scalars(select(Grant).where(Grant.id.in_(payers - {None})))}
    parts: list[list[Part]] = []
    sums: dict[UUID | None, Decimal] = defaultdict(Decimal)
    for tier in tiers:
        paid: dict[UUID | None, Decimal] = defaultdict(Decimal)
        for row in tier.rows:
            paid[row.x_grant_id] += row.billed_cost
        # Overdraft, then the last grant first.
        order = sorted(paid, key=lambda grant_id: -grants[grant_id].position if grant_id else float("-inf"))
        back = draw([(grant_id, paid[grant_id]) for grant_id in order], -tier.added.cost)
        parts.append([(grant_id, -part) for grant_id, part in back])
        for grant_id, part in parts[-1]:
            sums[grant_id] += part
    shares = [
        Share(overdraft_id if grant_id is None else grants[grant_id].account_id, grant_id, Amount(value, currency))
        for grant_id, value in sums.items()
    ]
    return parts, shares


def _rows(tier: _Tier, payers: Sequence[Part], own: dict[str, Any], *, now: datetime) -> Iterator[Charge]:
    """A tier's rows, one per payer; none where nothing changes. A closed month is left alone: they go to this one."""
    added = tier.added
    if not (added.quantity or added.cost):
        return
    model = tier.rows[0]
    like = {attribute.key: getattr(model, attribute.key) for attribute in inspect(Charge).column_attrs} | own
    del like["id"]
    like |= {"charge_class": "Correction", "state": ChargeState.PROVISIONAL, "x_estimated": False}
    if model.state is ChargeState.CLOSED:
        like["billing_period_start"], like["billing_period_end"] = billing_month(now)
    parts = list(payers) or [(None, Decimal(0))]
    costs = [cost for _, cost in parts]
    with exact():
        quantities, hours = in_proportion(added.quantity, costs), in_proportion(added.hours, costs)
    for (grant_id, cost), quantity, consumed in zip(parts, quantities, hours, strict=True):
        figures = dict.fromkeys(("list_cost", "contracted_cost", "billed_cost", "effective_cost"), cost)
        yield Charge(
            **like | figures | {"x_grant_id": grant_id, "pricing_quantity": quantity, "consumed_quantity": consumed}
        )
