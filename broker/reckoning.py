"""How much an order must hold in all: what it used so far, and what its machines may still use until the money ends.

What was used is exact (`broker.ports.Ledger`), up to the moment at which each machine was last seen. From then on each
is taken to run without a break, at the prices in force now, until its paid time ends, and for the stop ladder and the
settle time after that; then its snapshot, where one is to be kept, for all of its time. That is never less than what it
will cost, unless a price rises meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from broker import meters
from broker.catalogue import rate_card
from broker.errors import PriceUnknown
from broker.models.catalogue import CatalogueVersion, Offer, RateCardVersion
from broker.models.federation import Provider, Site
from broker.models.leases import ENDING, Desired, Lease, LeaseState, Observation, Part
from broker.models.workloads import Order, Quote, QuoteOffer
from broker.placement import NO_VOLUMES, Assumptions, Volumes
from broker.ports import SoFar
from broker.pricing import RateCard
from broker.quotes import assumptions_of
from broker.remote import PartKind
from broker.values import Amount, Commodity, Period


@dataclass(frozen=True, slots=True)
class Ware:
    """An offer as it is sold now: the card that prices it, its name, and its disk (0: not said)."""

    card: RateCard
    name: str
    disk_gib: int


@dataclass(frozen=True, slots=True)
class Run:
    """A machine of an offer that may run over the period, with a public address or without, and with its volumes."""

    offer_id: UUID
    has_address: bool
    period: Period
    volumes: Volumes = NO_VOLUMES

    def meters(self, ware: Ware) -> tuple[meters.Meter, ...]:
        """What it uses."""
        return meters.running(ware.card, ware.name, count=1, has_address=self.has_address, volumes=self.volumes)


@dataclass(frozen=True, slots=True)
class Kept:
    """The snapshot of a machine of an offer, kept over the period."""

    offer_id: UUID
    period: Period

    def meters(self, ware: Ware) -> tuple[meters.Meter, ...]:
        """What it uses."""
        return (meters.kept(ware.card, ware.disk_gib),)


@dataclass(frozen=True, slots=True)
class Present:
    """A thing of a site that is no machine, there over the period."""

    site_id: UUID
    kind: PartKind
    size_gib: Decimal | None
    period: Period


Use = Run | Kept | Present


@dataclass(frozen=True, slots=True)
class Rates:
    """Prices in force at `now`, each read once per transaction."""

    session: Session
    now: datetime
    known: dict[UUID, Ware] = field(default_factory=dict)
    cards: dict[UUID, RateCard] = field(default_factory=dict)

    def cost(self, use: Use) -> Amount:
        """What it costs.

        Raises:
            PriceUnknown: where no card is in force, or the card does not say.
        """
        card, used = self.meters_of(use)
        return meters.cost(used, card, use.period)

    def per_day(self, uses: Iterable[Use]) -> Amount | None:
        """What they cost per day, if it is known and in one currency."""
        try:
            found = [self.meters_of(use) for use in uses]
        except PriceUnknown:
            return None
        currencies = {card.currency for card, _ in found}
        if len(currencies) != 1:
            return None
        return Amount.total((meters.hourly(used, card).times(24) for card, used in found), currencies.pop())

    def meters_of(self, use: Use) -> tuple[RateCard, tuple[meters.Meter, ...]]:
        """The rate card in force, and what is used by it; raises as `cost`."""
        if isinstance(use, Present):
            card = self._card(use.site_id)
            return card, (meters.present(card, use.kind, use.size_gib),)
        ware = self._ware(use.offer_id)
        return ware.card, use.meters(ware)

    def _card(self, site_id: UUID) -> RateCard:
        """What a site's provider asks for what is no machine."""
        if site_id not in self.cards:
            row = self.session.execute(
                select(Provider.name.label("provider"), RateCardVersion.id.label("version_id"))
                .join(Site, Site.provider_id == Provider.id)
                .outerjoin(RateCardVersion, self._in_force())
                .where(Site.id == site_id)
            ).one()
            version_id = _required(row.version_id, row.provider)
            self.cards[site_id] = rate_card(self.session, version_id, tuple(set(meters.SKU_OF.values())))
        return self.cards[site_id]

    def _in_force(self) -> ColumnElement[bool]:
        return (
            (RateCardVersion.provider_id == Provider.id)
            & (RateCardVersion.valid_from <= self.now)
            & (RateCardVersion.valid_to.is_(None) | (RateCardVersion.valid_to > self.now))
        )

    def _ware(self, offer_id: UUID) -> Ware:
        if offer_id not in self.known:
            self.known[offer_id] = self._read(offer_id)
        return self.known[offer_id]

    def _read(self, offer_id: UUID) -> Ware:
        """The offer, and the rate card that prices it now."""
        row = self.session.execute(
            select(Offer.name, Offer.disk_gib, Provider.name.label("provider"), RateCardVersion.id.label("version_id"))
            .join(Site, Site.id == Offer.site_id)
            .join(Provider, Provider.id == Site.provider_id)
            .outerjoin(RateCardVersion, self._in_force())
            .where(Offer.id == offer_id)
        ).one()
        version_id = _required(row.version_id, row.provider)
        skus = (row.name, *set(meters.SKU_OF.values()))
        return Ware(rate_card(self.session, version_id, skus), row.name, row.disk_gib)


def _required(version_id: UUID | None, provider: str) -> UUID:
    if version_id is None:
        raise PriceUnknown(f"provider {provider} has no rate card in force", hint="Its operator must import one first.")
    return version_id


def margin_of(session: Session, order: Order, lease: Lease) -> timedelta:
    """What the hold of a machine covers beyond its paid time: as the quote assumed, and as the lease was promised."""
    assumed = _assumed(session, order)
    margin = assumed.settle_time + (assumed.stop_delay if lease.grace is None else lease.grace)
    if lease.keep is None:
        return margin
    return margin + (assumed.snapshot_time if lease.snapshot_time is None else lease.snapshot_time)


def _assumed(session: Session, order: Order) -> Assumptions:
    return assumptions_of(session.get_one(Quote, order.quote_id))


def paid_until(order: Order, ends_at: datetime) -> datetime:
    """When the paid time of a machine ends: at its end date, or before where the money ends."""
    return ends_at if order.held_until is None else min(ends_at, order.held_until)


def use_of(session: Session, lease: Lease, period: Period) -> Run | Present:
    """What the lease is (its machine, or the thing that was adopted), over a period."""
    offer_id = session.get_one(QuoteOffer, lease.quote_offer_id).offer_id
    if offer_id is None:
        return _present(session, lease, period)
    if lease.adopted_at is not None:
        offer_id = _resized(session, lease) or offer_id
    return Run(offer_id, bool(lease.spec.get("public_address")), period, Volumes.of(lease.spec))


def _resized(session: Session, lease: Lease) -> UUID | None:
    """The newest offer of the type that the machine was last seen to have; its owner may have changed that."""
    kind = (
        select(Observation.instance_type)
        .where(Observation.lease_id == lease.id, Observation.instance_type.is_not(None))
        .order_by(Observation.seen_at.desc())
        .limit(1)
        .scalar_subquery()
    )
    return session.scalars(
        select(Offer.id)
        .join(CatalogueVersion, CatalogueVersion.id == Offer.catalogue_version_id)
        .where(Offer.site_id == lease.site_id, Offer.remote_id == kind)
        .order_by(CatalogueVersion.made_at.desc())
        .limit(1)
    ).one_or_none()


def runs_of(
    session: Session, order: Order, leases: Iterable[Lease], so_far: SoFar, *, until: datetime | None, now: datetime
) -> list[Use]:
    """What the live leases may still use, each until `until` (None: its own end); one that must go, from now on."""
    return [
        use
        for lease in leases
        for use in _uses(session, order, lease, so_far.seen.get(lease.id, lease.made_at), until=until, now=now)
    ]


def runs_elsewhere(session: Session, order: Order, lease: Lease, following: QuoteOffer, *, now: datetime) -> list[Use]:
    """What the lease's member may use where it is started anew at another offer: from now on, for all of its time."""
    assert following.offer_id is not None, "a machine has an instance type"
    volumes = Volumes(following.boot_volume_gib, Volumes.of(lease.spec).second_gib)
    end = max(now, paid_until(order, now + order.duration)) + margin_of(session, order, lease)
    uses: list[Use] = [Run(following.offer_id, bool(lease.spec.get("public_address")), Period(now, end), volumes)]
    if lease.keep is not None:
        uses.append(Kept(following.offer_id, Period(end, end + lease.keep + _assumed(session, order).settle_time)))
    return uses


def _uses(
    session: Session, order: Order, lease: Lease, seen: datetime, *, until: datetime | None, now: datetime
) -> list[Use]:
    """What one lease may use from when it was last seen on."""
    end = now if lease.desired in ENDING else until or paid_until(order, lease.ends_at)
    gone_at = max(seen, end + margin_of(session, order, lease))
    run = use_of(session, lease, Period(seen, gone_at))
    if isinstance(run, Present):
        return [run]
    uses: list[Use] = [] if lease.state is LeaseState.SNAPSHOT else [run]
    kept = _kept(session, lease, run.period, now=now)
    if kept is not None:
        uses.append(Kept(run.offer_id, Period(kept.start, kept.end + _assumed(session, order).settle_time)))
    return uses


def _present(session: Session, lease: Lease, period: Period) -> Present:
    """By its size as it was seen last; where it never was, as it was when it was adopted."""
    size = session.scalars(
        select(Observation.size_gib)
        .where(Observation.lease_id == lease.id, Observation.state == LeaseState.PRESENT)
        .order_by(Observation.seen_at.desc())
        .limit(1)
    ).one_or_none()
    if size is None and lease.spec["size_gib"] is not None:
        size = Decimal(lease.spec["size_gib"])
    return Present(lease.site_id, PartKind(lease.spec["kind"]), size, period)


def _kept(session: Session, lease: Lease, run: Period, *, now: datetime) -> Period | None:
    """When a snapshot of it may be kept, `run` being when its machine may run; None: there is to be none.

    One that is to be taken yet is kept for all of its time after the machine; where that goes sooner, for as long.
    """
    there = lease.lapsed_at is not None or lease.state is LeaseState.SNAPSHOT
    if lease.desired is Desired.GONE or lease.keep is None:
        return Period(run.start, max(run.start, now)) if there else None
    ready = select(Part.ready_at).where(Part.lease_id == lease.id, Part.kind == PartKind.SNAPSHOT)
    ready_at = session.scalars(ready).one_or_none() if there else None
    if ready_at is None:
        return Period(run.end, run.end + lease.keep)
    return Period(run.start, max(run.start, now, ready_at + lease.keep))


def whole_hold(rates: Rates, so_far: SoFar, runs: Iterable[Use]) -> list[Amount]:
    """The order's hold in all, per commodity.

    Raises:
        PriceUnknown: where a price is not known now.
    """
    sums: dict[Commodity, Amount] = {}
    for amount in (*so_far.amounts, *(rates.cost(run) for run in runs)):
        sums[amount.commodity] = sums.get(amount.commodity, Amount.zero(amount.commodity)) + amount
    return [sums[commodity] for commodity in sorted(sums)]
