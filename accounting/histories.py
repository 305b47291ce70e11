"""What accounting knows of leases, read in a fixed number of queries for any number of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import Row, exists, select
from sqlalchemy.orm import Session

from accounting.metering import CardSpan, Meter, Sighting, Use, ends_by_word, meter, outside
from accounting.models.charges import Charge, Segment
from accounting.models.grants import Grant, MoneyHold
from accounting.models.ledger import Balance
from broker.meters import ADDRESS_SKU, SKU_OF, VOLUME_SKU
from broker.models.catalogue import CatalogueVersion, Offer, RateCardVersion
from broker.models.federation import Provider, Site
from broker.models.leases import Lease, LeaseState, Observation, Part
from broker.models.workloads import Order, QuoteOffer
from broker.placement import Volumes
from broker.remote import PartKind
from broker.values import Period


@dataclass(frozen=True, slots=True)
class Address:
    """The public address of a lease: had over [made_at, gone_at)."""

    made_at: datetime
    gone_at: datetime | None

    def covers(self, moment: datetime) -> bool:
        """True where the lease has it at the moment."""
        return self.made_at <= moment and (self.gone_at is None or moment < self.gone_at)


@dataclass(frozen=True, slots=True)
class History:
    """One lease, all that was seen of it, and what was made of that so far.

    `offer`: the SKU of what was ordered, or of what was adopted that is no machine. `disk_gib`: of that offer, 0 where
    it is not known. `charged`: ids of charged segments. `things`: what each kind of part is called at the site.
    """

    lease: Lease
    order: Order
    site: Site
    provider: Provider
    offer: str
    disk_gib: int
    sightings: tuple[Sighting, ...]
    skus: dict[str, str]
    cards: tuple[CardSpan, ...]
    grant_bounds: tuple[datetime, ...]
    address: Address | None
    things: Mapping[PartKind, str]
    segments: tuple[Segment, ...]
    charged: frozenset[UUID]

    @property
    def known_until(self) -> datetime:
        """When it was last seen (the machine, then its snapshot); where it never was, when its lease was made."""
        return max([*(sighting.seen_at for sighting in self.sightings), self.lease.seen_at or self.lease.made_at])

    def uses(self, *, known_until: datetime | None = None) -> list[Use]:
        """What its segments should be, without what is charged already.

        `known_until` is when it was last seen, unless told otherwise (for a forecast up to now).
        """
        address = () if self.address is None else (self.address.made_at, self.address.gone_at)
        by = Meter(
            made_at=self.lease.made_at,
            sku=self.offer,
            skus=self.skus,
            cards=self.cards,
            cuts=self.grant_bounds,
            known_until=known_until or self.known_until,
            machine_cuts=[moment for moment in address if moment is not None],
        )
        periods = [
            Period(segment.starts_at, segment.ends_at)
            for segment in self.segments
            if segment.id in self.charged and segment.ends_at is not None
        ]
        return outside(meter(self.sightings, by), periods)

    def corrections(self) -> list[tuple[Segment, datetime]]:
        """Charged segments of which another part counts than what was posted, and until when each counts.

        An end by the site's word may come after segments were charged beyond it.
        """
        ends = ends_by_word(self.sightings, self.lease.made_at)
        found = []
        for segment in self.segments:
            if segment.id not in self.charged or segment.ends_at is None:
                continue
            end = ends.of(segment.state)
            until = segment.ends_at if end is None else min(max(end, segment.starts_at), segment.ends_at)
            if until != (segment.counted_until or segment.ends_at):
                found.append((segment, until))
        return found

    @property
    def kind(self) -> PartKind | None:
        """Of what was adopted that is no machine; else None."""
        return PartKind(self.lease.spec["kind"]) if "kind" in self.lease.spec else None

    @property
    def uncharged(self) -> list[Segment]:
        """The segments that may still change."""
        return [segment for segment in self.segments if segment.id not in self.charged]

    def skus_at(self, use: Use) -> tuple[str, ...]:
        """What is paid for during a use: a thing by itself; or the machine, and the address and volumes it has."""
        if use.state in (LeaseState.SNAPSHOT, LeaseState.PRESENT):
            return (use.sku,)
        skus = [use.sku]
        if self.address is not None and self.address.covers(use.starts_at):
            skus.append(ADDRESS_SKU)
        if self.volumes.number:
            skus.append(VOLUME_SKU)
        return tuple(skus)

    @property
    def volumes(self) -> Volumes:
        """Those that its machine has, by what was ordered. They are there as long as it is."""
        return Volumes.of(self.lease.spec)

    def thing(self, state: LeaseState, sku: str) -> str:
        """What is charged in a state, as the site calls it: the snapshot, the machine, or what is there instead.

        Of a machine's volumes, the second disk; what it boots from has no name but the machine's.
        """
        if state is LeaseState.PRESENT:
            return next(iter(self.things.values()))
        if sku == VOLUME_SKU and PartKind.VOLUME in self.things:
            return self.things[PartKind.VOLUME]
        kind = PartKind.SNAPSHOT if state is LeaseState.SNAPSHOT else PartKind.SERVER
        return self.things.get(kind, str(self.lease.id))


def use_of(segment: Segment) -> Use:
    """What a segment says."""
    return Use(
        starts_at=segment.starts_at,
        ends_at=segment.ends_at,
        state=segment.state,
        sku=segment.sku,
        version_id=segment.rate_card_version_id,
        is_estimated=segment.is_estimated,
        size_gib=segment.size_gib,
    )


def histories(session: Session, lease_ids: Collection[UUID]) -> list[History]:
    """The leases' histories, in the order of their ids; unknown ids are left out. Rows are read afresh."""
    rows = session.execute(
        select(Lease, Order, Site, Provider, Offer)
        .join(Order, Order.id == Lease.order_id)
        .join(Site, Site.id == Lease.site_id)
        .join(Provider, Provider.id == Site.provider_id)
        .join(QuoteOffer, QuoteOffer.id == Lease.quote_offer_id)
        .outerjoin(Offer, Offer.id == QuoteOffer.offer_id)
        .where(Lease.id.in_(lease_ids))
        .order_by(Lease.id)
        .execution_options(populate_existing=True)
    ).all()
    sightings = _sightings(session, lease_ids)
    cards = _cards(session, {row.Provider.id for row in rows})
    bounds = _grant_bounds(session, {row.Order.id for row in rows})
    addresses, things = _parts(session, lease_ids)
    segments, charged = _segments(session, lease_ids)
    types = _types(session, rows, sightings)
    found = []
    for lease, order, site, provider, joined in rows:
        offer = _or_none(joined)
        skus = types.get(site.id, {}) | ({} if offer is None else {offer.remote_id: offer.name, offer.name: offer.name})
        found.append(
            History(
                lease=lease,
                order=order,
                site=site,
                provider=provider,
                offer=offer.name if offer is not None else SKU_OF[PartKind(lease.spec["kind"])],
                disk_gib=0 if offer is None else offer.disk_gib,
                sightings=_with_end(lease, sightings.get(lease.id, [])),
                skus=skus,
                cards=tuple(cards.get(provider.id, ())),
                grant_bounds=tuple(bounds.get(order.id, ())),
                address=addresses.get(lease.id),
                things=things.get(lease.id, {}),
                segments=tuple(segments.get(lease.id, ())),
                charged=frozenset(charged),
            )
        )
    return found


def _or_none(offer: Offer | None) -> Offer | None:
    """As an outer join brings it, which its type does not say."""
    return offer


def _with_end(lease: Lease, sightings: Sequence[Sighting]) -> tuple[Sighting, ...]:
    """The sightings; a lease that is over has an end even where nobody saw its machine go."""
    if lease.gone_at is None or not sightings or sightings[-1].state is LeaseState.GONE:
        return tuple(sightings)
    last_seen = max(sightings[-1].seen_at, lease.seen_at or sightings[-1].seen_at)
    end = Sighting(max(lease.gone_at, last_seen), LeaseState.GONE, since=last_seen, is_estimated=True)
    return (*sightings, end)


def _sightings(session: Session, lease_ids: Collection[UUID]) -> dict[UUID, list[Sighting]]:
    found: dict[UUID, list[Sighting]] = defaultdict(list)
    for row in session.scalars(
        select(Observation).where(Observation.lease_id.in_(lease_ids)).order_by(Observation.seen_at)
    ):
        found[row.lease_id].append(
            Sighting(row.seen_at, row.state, row.instance_type, row.since, row.is_estimated, row.size_gib)
        )
    return found


def _cards(session: Session, provider_ids: Collection[UUID]) -> dict[UUID, list[CardSpan]]:
    found: dict[UUID, list[CardSpan]] = defaultdict(list)
    rows: Sequence[Row[UUID, UUID, datetime, datetime | None]] = session.execute(
        select(RateCardVersion.provider_id, RateCardVersion.id, RateCardVersion.valid_from, RateCardVersion.valid_to)
        .where(RateCardVersion.provider_id.in_(provider_ids))
        .order_by(RateCardVersion.valid_from)
    ).all()
    for provider_id, version_id, valid_from, valid_to in rows:
        found[provider_id].append(CardSpan(version_id, valid_from, valid_to))
    return found


def _grant_bounds(session: Session, order_ids: Collection[UUID]) -> dict[UUID, list[datetime]]:
    """When the grants start and end that the orders' money is set aside on: none pays for use across these."""
    found: dict[UUID, list[datetime]] = defaultdict(list)
    for order_id, starts_at, ends_at in session.execute(
        select(MoneyHold.order_id, Grant.starts_at, Grant.ends_at)
        .join(Balance, Balance.id == MoneyHold.balance_id)
        .join(Grant, Grant.account_id == Balance.account_id)
        .where(MoneyHold.order_id.in_(order_ids))
    ):
        found[order_id] += (starts_at, ends_at)
    return found


def _parts(
    session: Session, lease_ids: Collection[UUID]
) -> tuple[dict[UUID, Address], dict[UUID, dict[PartKind, str]]]:
    """Per lease, its address, and what its parts are called at the site."""
    addresses: dict[UUID, Address] = {}
    things: dict[UUID, dict[PartKind, str]] = defaultdict(dict)
    for part in session.scalars(
        select(Part).where(Part.lease_id.in_(lease_ids)).execution_options(populate_existing=True)
    ):
        if part.remote_id is not None:
            things[part.lease_id][part.kind] = part.remote_id
        if part.kind is PartKind.ADDRESS and part.made_at is not None:
            addresses[part.lease_id] = Address(part.made_at, part.gone_at)
    return addresses, things


def _segments(session: Session, lease_ids: Collection[UUID]) -> tuple[dict[UUID, list[Segment]], set[UUID]]:
    """Per lease its segments, and the ids of those that are charged."""
    found: dict[UUID, list[Segment]] = defaultdict(list)
    charged: set[UUID] = set()
    for segment, is_charged in session.execute(
        select(Segment, exists().where(Charge.segment_id == Segment.id))
        .where(Segment.lease_id.in_(lease_ids))
        .order_by(Segment.starts_at)
        .execution_options(populate_existing=True)
    ):
        found[segment.lease_id].append(segment)
        if is_charged:
            charged.add(segment.id)
    return found, charged


def _types(
    session: Session, rows: Sequence[Row[Lease, Order, Site, Provider, Offer]], sightings: dict[UUID, list[Sighting]]
) -> dict[UUID, dict[str, str]]:
    """Per site, what a type that was seen but not ordered is called in the newest catalogue that has it: its SKU."""
    seen = {
        sighting.instance_type
        for row in rows
        for sighting in sightings.get(row.Lease.id, ())
        if (offer := _or_none(row.Offer)) is not None and sighting.instance_type not in (None, offer.remote_id)
    }
    names: dict[UUID, dict[str, str]] = defaultdict(dict)
    if not seen:
        return names
    for site_id, remote_id, name in session.execute(
        select(Offer.site_id, Offer.remote_id, Offer.name)
        .join(CatalogueVersion, CatalogueVersion.id == Offer.catalogue_version_id)
        .where(Offer.site_id.in_({row.Site.id for row in rows}), Offer.remote_id.in_(seen))
        .order_by(CatalogueVersion.made_at)
    ):
        names[site_id][remote_id] = name
    return names
