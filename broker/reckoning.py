"""How much an order must hold in all: what it used so far, and what its machines may still use until the money ends.

What was used is exact (`broker.ports.Ledger`), up to the moment at which each machine was last seen. From then on each
is taken to run without a break, at the prices in force now, until its paid time ends, and for the stop ladder and the
settle time after that: never less than what it will cost, unless a price rises meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from broker import meters
from broker.catalogue import rate_card
from broker.errors import PriceUnknown
from broker.models.catalogue import Offer, RateCardVersion
from broker.models.federation import Provider, Site
from broker.models.leases import Desired, Lease
from broker.models.workloads import Order, Quote, QuoteOffer
from broker.ports import SoFar
from broker.pricing import RateCard
from broker.quotes import assumptions_of
from broker.values import Amount, Commodity, Period


@dataclass(frozen=True, slots=True)
class Run:
    """A machine of an offer that may run over the period, with a public address or without."""

    offer_id: UUID
    has_address: bool
    period: Period


@dataclass(frozen=True, slots=True)
class Rates:
    """Prices in force at `now`, each read once per transaction."""

    session: Session
    now: datetime
    known: dict[tuple[UUID, bool], tuple[RateCard, Sequence[meters.Meter]]] = field(default_factory=dict)

    def cost(self, run: Run) -> Amount:
        """What it costs.

        Raises:
            PriceUnknown: where no card is in force, or the card does not say.
        """
        card, running = self._of(run.offer_id, has_address=run.has_address)
        return meters.cost(running, card, run.period)

    def per_day(self, runs: Iterable[Run]) -> Amount | None:
        """What they cost per day, if it is known and in one currency."""
        try:
            found = [self._of(run.offer_id, has_address=run.has_address) for run in runs]
        except PriceUnknown:
            return None
        currencies = {card.currency for card, _ in found}
        if len(currencies) != 1:
            return None
        return Amount.total((meters.hourly(running, card).times(24) for card, running in found), currencies.pop())

    def _of(self, offer_id: UUID, *, has_address: bool) -> tuple[RateCard, Sequence[meters.Meter]]:
        key = offer_id, has_address
        if key not in self.known:
            card, offer = self._card(offer_id)
            self.known[key] = card, meters.running(card, offer, count=1, has_address=has_address)
        return self.known[key]

    def _card(self, offer_id: UUID) -> tuple[RateCard, str]:
        """The rate card that prices the offer now, and the offer's name."""
        row = self.session.execute(
            select(Offer.name, Provider.name.label("provider"), RateCardVersion.id.label("version_id"))
            .join(Site, Site.id == Offer.site_id)
            .join(Provider, Provider.id == Site.provider_id)
            .outerjoin(
                RateCardVersion,
                (RateCardVersion.provider_id == Provider.id)
                & (RateCardVersion.valid_from <= self.now)
                & (RateCardVersion.valid_to.is_(None) | (RateCardVersion.valid_to > self.now)),
            )
            .where(Offer.id == offer_id)
        ).one()
        if row.version_id is None:
            raise PriceUnknown(
                f"provider {row.provider} has no rate card in force", hint="Its operator must import one first."
            )
        return rate_card(self.session, row.version_id, (row.name, meters.ADDRESS_SKU)), row.name


def margin_of(session: Session, order: Order, lease: Lease | None = None) -> timedelta:
    """What the hold covers beyond the paid time: as the order's quote assumed, and as the lease was promised."""
    assumed = assumptions_of(session.get_one(Quote, order.quote_id))
    grace = None if lease is None else lease.grace
    return assumed.settle_time + (assumed.stop_delay if grace is None else grace)


def paid_until(order: Order, ends_at: datetime) -> datetime:
    """When the paid time of a machine ends: at its end date, or before where the money ends."""
    return ends_at if order.held_until is None else min(ends_at, order.held_until)


def run_of(session: Session, lease: Lease, period: Period) -> Run:
    """The lease's machine over a period."""
    offer_id = session.get_one(QuoteOffer, lease.quote_offer_id).offer_id
    return Run(offer_id, bool(lease.spec.get("public_address")), period)


def runs_of(
    session: Session, order: Order, leases: Iterable[Lease], so_far: SoFar, *, until: datetime | None, now: datetime
) -> list[Run]:
    """What the live leases may still run, each until `until` (None: its own end); one that must go, from now on."""
    runs = []
    for lease in leases:
        end = now if lease.desired is Desired.GONE else until or paid_until(order, lease.ends_at)
        start = so_far.seen.get(lease.id, lease.made_at)
        runs.append(run_of(session, lease, Period(start, max(start, end + margin_of(session, order, lease)))))
    return runs


def whole_hold(rates: Rates, so_far: SoFar, runs: Iterable[Run]) -> list[Amount]:
    """The order's hold in all, per commodity.

    Raises:
        PriceUnknown: where a price is not known now.
    """
    sums: dict[Commodity, Amount] = {}
    for amount in (*so_far.amounts, *(rates.cost(run) for run in runs)):
        sums[amount.commodity] = sums.get(amount.commodity, Amount.zero(amount.commodity)) + amount
    return [sums[commodity] for commodity in sorted(sums)]
