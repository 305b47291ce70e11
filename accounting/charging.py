"""Closed segments become charges and postings; what is still open can be priced the same way, and is not posted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from accounting.funding import fund, split
from accounting.histories import History, use_of
from accounting.ledger import Line, post
from accounting.metering import Use
from accounting.models.charges import Charge, Segment
from accounting.models.ledger import Posting
from accounting.rating import Rated, Resource, Thing, billing_month, charge, rate
from broker.catalogue import rate_card
from broker.errors import PriceUnknown
from broker.models.audit import Finding
from broker.models.catalogue import RateCardVersion
from broker.models.leases import Lease
from broker.pricing import RateCard
from broker.timeline import Concern, close_finding, raise_finding
from broker.values import Amount, Commodity, Period, exact, plain

OVERDRAFT = "overdraft"


@dataclass(frozen=True, slots=True)
class Accounts:
    """Where a lease's charges go besides its grants."""

    provider_id: UUID
    overdraft_id: UUID


@dataclass(frozen=True, slots=True)
class Prices:
    """Rate cards as one transaction needs them, each read once."""

    session: Session
    cards: dict[tuple[UUID, tuple[str, ...]], RateCard] = field(default_factory=dict)

    def of(self, history: History, use: Use, period: Period) -> tuple[Rated, ...]:
        """What a use costs over `period` under the rate card in force.

        Raises:
            PriceUnknown: where no card was in force, or the card does not say.
        """
        if use.version_id is None:
            raise PriceUnknown(
                f"provider {history.provider.name} had no rate card in force on {use.starts_at:%Y-%m-%d %H:%M} UTC",
                hint="Import a rate card that is valid from then on.",
            )
        skus = history.skus_at(use)
        card = self.cards.get((use.version_id, skus))
        if card is None:
            card = self.cards[use.version_id, skus] = rate_card(self.session, use.version_id, skus)
        used = _used(self.session, history, card, period)
        thing = Thing(use.state, history.disk_gib, history.kind, use.size_gib, history.volumes)
        return rate(card, period, thing, skus=skus, used=used)

    def per_day(self, history: History, *, now: datetime) -> Amount | None:
        """What a lease that is there costs from now on; None where that has no price."""
        going = [use for use in history.uses() if use.ends_at is None]
        if not going:
            return None
        try:
            rated = self.of(history, going[-1], Period(now, now + timedelta(days=1)))
        except PriceUnknown:
            return None
        return Amount.total((row.cost for row in rated), rated[0].cost.commodity)

    def unposted(self, history: History, *, now: datetime) -> list[Rated]:
        """What the lease used until `now` and no posting has yet.

        Raises:
            PriceUnknown: where a part of it has no price.
        """
        return [rated for _, rated in self._unposted(history, now=now)]

    def unposted_uses(self, history: History, *, now: datetime) -> list[tuple[Period, Amount]]:
        """The same as periods and what they cost; raises as `unposted`."""
        return [(period, rated.cost) for period, rated in self._unposted(history, now=now)]

    def _unposted(self, history: History, *, now: datetime) -> Iterator[tuple[Period, Rated]]:
        for use in history.uses(known_until=now):
            end = now if use.ends_at is None else use.ends_at
            if end > use.starts_at:
                period = Period(use.starts_at, end)
                yield from ((period, rated) for rated in self.of(history, use, period))


def post_charge(prices: Prices, history: History, segment: Segment, *, accounts: Accounts, now: datetime) -> bool:
    """Charge a closed segment; False where its price is not known: a person is told, and the hold stays."""
    assert segment.ends_at is not None, "only closed segments are charged"
    session = prices.session
    period = Period(segment.starts_at, segment.ends_at)
    try:
        rated = prices.of(history, use_of(segment), period)
    except PriceUnknown as unknown:
        _tell_unknown(session, history, unknown, now=now)
        return False
    with exact():
        total = Amount.total((row.cost for row in rated), rated[0].cost.commodity)
    shares = fund(session, history, period, total, overdraft_id=accounts.overdraft_id)
    text = f"{segment.sku} {segment.state.value} at {history.site.name}"
    entry_id = post(
        session,
        key=f"segment:{segment.id}",
        kind="usage",
        text=text,
        # What was free leaves an entry without lines: it was accounted for, and moved nothing.
        lines=[*(share.line for share in shares), Line(accounts.provider_id, -total)] if total.value else [],
        now=now,
    )
    resource = Resource(
        project_id=history.order.project_id,
        provider=history.provider.name,
        region=history.site.region,
        remote_id=history.thing(segment.state, segment.sku),
        name=str(history.lease.spec["name"]),
    )
    for row, grant_id in split(rated, shares):
        what = replace(resource, remote_id=history.thing(segment.state, row.sku))
        session.add(charge(segment, row, entry_id=entry_id, resource=what, grant_id=grant_id))
    session.flush()
    if any(share.grant_id is None for share in shares):
        tell_overdraft(prices, history, total.commodity, overdraft_id=accounts.overdraft_id, now=now)
    return True


def _used(session: Session, history: History, card: RateCard, period: Period) -> dict[str, Decimal]:
    """What the provider's bill has of each tiered SKU before, in the same month: where its tiers are entered."""
    tiered = [sku for sku, price in card.prices.items() if len(price.tiers) > 1]
    if not tiered:
        return {}
    rows = session.execute(
        select(Charge.sku_id, func.sum(Charge.pricing_quantity))
        .join(Segment, Segment.id == Charge.segment_id)
        .join(RateCardVersion, RateCardVersion.id == Segment.rate_card_version_id)
        .where(
            RateCardVersion.provider_id == history.provider.id,
            Charge.sku_id.in_(tiered),
            Charge.billing_period_start == billing_month(period.start)[0],
        )
        .group_by(Charge.sku_id)
    )
    return dict(rows.all())


def _tell_unknown(session: Session, history: History, unknown: PriceUnknown, *, now: datetime) -> None:
    raise_finding(
        session,
        Concern(
            kind=unknown.code,
            key=str(history.lease.id),
            text=f"Use of {history.lease.spec['name']} at {history.site.name} cannot be charged: {unknown.detail}",
            hint=unknown.hint or "Complete the rate card.",
            site_id=history.site.id,
            lease_id=history.lease.id,
        ),
        now=now,
    )


def resolve_unknown(session: Session, lease: Lease, *, now: datetime) -> None:
    """All is charged: what could not be priced before could be now."""
    session.execute(
        update(Finding)
        .where(Finding.kind == PriceUnknown.code, Finding.key == str(lease.id), Finding.resolved_at.is_(None))
        .values(resolved_at=now)
    )


def tell_overdraft(prices: Prices, history: History, currency: Commodity, *, overdraft_id: UUID, now: datetime) -> None:
    """Told once per lease, with all that it went over so far, and what it costs per day from now on.

    Where a correction has brought it to nothing, the finding is closed.
    """
    session, lease = prices.session, history.lease
    over = session.scalars(
        select(func.sum(Posting.amount)).where(
            Posting.account_id == overdraft_id,
            Posting.commodity == currency.code,
            Posting.entry_id.in_(select(Charge.entry_id).where(Charge.lease_id == lease.id)),
        )
    ).one()
    if not over:
        close_finding(session, OVERDRAFT, str(lease.id))
        return
    raise_finding(
        session,
        Concern(
            kind="overdraft",
            key=str(lease.id),
            text=f"{lease.spec['name']} at {history.site.name} cost {plain(over)} {currency} more than was set aside.",
            hint="Stop the machine if it still runs, and agree on who pays: until then it stands in the project's "
            "overdraft account (`leeway spend`).",
            site_id=history.site.id,
            lease_id=lease.id,
            per_day=Amount.zero(currency) if lease.gone_at else prices.per_day(history, now=now),
        ),
        now=now,
    )
