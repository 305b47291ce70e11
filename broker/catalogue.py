"""What can be bought: offers, images and rate cards as versions in rows, and one snapshot of them for placement."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session, selectinload

from broker.errors import Conflict, NotFound
from broker.health import HALF_LIFE, Health, caution_of, trouble_of, unwell_sites
from broker.models.catalogue import CatalogueVersion, Offer, RateCardPrice, RateCardVersion, SiteImage
from broker.models.federation import Provider, Site
from broker.models.holds import QuotaPool
from broker.placement import Catalogue, CatalogueOffer, CatalogueSite
from broker.pricing import Price, RateCard, Tier
from broker.quota import free_quota
from broker.ratecards import RateCardDocument
from broker.remote import RemoteImage, RemoteOffer
from broker.turns import list_soon
from broker.values import Commodity, Unit, plain


def digest(value: object) -> str:
    """SHA-256 of a value's canonical JSON: equal values, equal digests."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=_plain_json)
    return hashlib.sha256(text.encode()).hexdigest()


def _plain_json(value: object) -> object:
    if isinstance(value, Decimal):
        return plain(value)
    if isinstance(value, UUID | datetime):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no canonical JSON")


# --- offers and images -------------------------------------------------------------------------------------------


def record_catalogue(
    session: Session, site_id: UUID, offers: Iterable[RemoteOffer], images: Iterable[RemoteImage], *, now: datetime
) -> None:
    """Supersede a site's catalogue version where the site sells something else than before."""
    offers = sorted(offers, key=lambda offer: offer.remote_id)
    images = sorted(images, key=lambda image: image.remote_id)
    fresh = digest([[_offer_columns(offer) for offer in offers], [_image_columns(image) for image in images]])
    # Two who record at once take turns on the site's row.
    session.execute(select(Site.id).where(Site.id == site_id).with_for_update(key_share=True))
    current = session.scalars(
        select(CatalogueVersion).where(CatalogueVersion.site_id == site_id, CatalogueVersion.superseded_at.is_(None))
    ).one_or_none()
    if current is not None and current.digest == fresh:
        return
    if current is not None:
        current.superseded_at = now
        session.flush()
    session.add(
        CatalogueVersion(
            site_id=site_id,
            digest=fresh,
            made_at=now,
            offers=[Offer(site_id=site_id, **_offer_columns(offer)) for offer in offers],
            images=[SiteImage(site_id=site_id, **_image_columns(image)) for image in images],
        )
    )


def _offer_columns(offer: RemoteOffer) -> dict[str, Any]:
    return {
        "remote_id": offer.remote_id,
        "name": offer.name,
        "cores": offer.cores,
        "memory_mib": offer.memory_mib,
        "disk_gib": offer.disk_gib,
        "gpus": offer.gpus,
        "gpu_model": offer.gpu_model,
        "arch": offer.arch,
        "traits": list(offer.traits),
    }


def _image_columns(image: RemoteImage) -> dict[str, Any]:
    return {
        "remote_id": image.remote_id,
        "name": image.name,
        "logical": image.logical,
        "min_disk_gib": image.min_disk_gib,
        "min_memory_mib": image.min_memory_mib,
    }


# --- rate cards --------------------------------------------------------------------------------------------------


def import_rate_card(session: Session, document: RateCardDocument, *, now: datetime) -> RateCardVersion:
    """Make a rate card the provider's prices from its `valid_from` on; the same document twice changes nothing.

    No price that was in force ever changes. A gap may be filled, because what has no price was never charged: with the
    `valid_from` of the last version and all its prices, a document may add SKUs and states; and one with a `valid_from`
    before the first version counts until that begins.

    Raises:
        NotFound: the provider is unknown.
        Conflict: it would change a price that is or was in force.
    """
    provider = session.scalars(
        select(Provider).where(Provider.name == document.provider).with_for_update(key_share=True)
    ).one_or_none()
    if provider is None:
        raise NotFound(f"there is no provider {document.provider!r}", hint="Add a site of that provider first.")
    versions = rate_card_versions(session, provider.id)
    known = next((version for version in versions if version.digest == document.digest()), None)
    if known is not None:
        return known
    # What lies at its sites is judged by its prices: findings take the new ones from a complete listing.
    list_soon(session, Site.provider_id == provider.id, now=now)
    last = max(versions, key=lambda version: version.valid_from, default=None)
    if last is not None and document.valid_from == last.valid_from:
        return _add_to(session, last, document)
    first = min(versions, key=lambda version: version.valid_from, default=None)
    valid_to = None
    if first is not None and document.valid_from < first.valid_from:
        valid_to = first.valid_from
    elif last is not None and document.valid_from < last.valid_from:
        raise Conflict(
            f"{last.name} (version {last.number}) is in force from {last.valid_from:%Y-%m-%d %H:%M} UTC",
            hint="Give the new prices a later valid_from: past charges do not change.",
        )
    elif last is not None:
        last.valid_to = document.valid_from
        session.flush()
    version = RateCardVersion(
        provider_id=provider.id,
        number=len(versions) + 1,
        name=document.name,
        currency=document.currency.code,
        valid_from=document.valid_from,
        valid_to=valid_to,
        bills={state: plain(share) for state, share in document.bills.items()},
        digest=document.digest(),
        made_at=now,
        prices=[row for price in document.prices.values() for row in _price_rows(price)],
    )
    session.add(version)
    session.flush()
    return version


def _add_to(session: Session, version: RateCardVersion, document: RateCardDocument) -> RateCardVersion:
    """Add SKUs and states to a version; all that it says already must be said again."""
    said = _card(version)
    same = document.currency == said.currency and all(
        document.prices.get(sku) == price for sku, price in said.prices.items()
    )
    if not same or any(document.bills.get(state) != share for state, share in said.bills.items()):
        raise Conflict(
            f"{version.name} (version {version.number}) is in force from that moment, and says something else",
            hint="Give changed prices a later valid_from; with the same one, SKUs and states may only be added.",
        )
    fresh = [price for sku, price in document.prices.items() if sku not in said.prices]
    version.prices.extend(row for price in fresh for row in _price_rows(price))
    version.bills = {state: plain(share) for state, share in document.bills.items()}
    version.digest = document.digest()
    session.flush()
    return version


def _price_rows(price: Price) -> list[RateCardPrice]:
    return [
        RateCardPrice(
            sku=price.sku,
            above=tier.above,
            unit=price.unit.value,
            unit_price=tier.unit_price,
            minimum_seconds=int(price.minimum.total_seconds()),
            increment_seconds=int(price.increment.total_seconds()),
        )
        for tier in price.tiers
    ]


def rate_card_versions(session: Session, provider_id: UUID) -> list[RateCardVersion]:
    """Every version of a provider's prices, oldest first."""
    return list(
        session.scalars(
            select(RateCardVersion)
            .where(RateCardVersion.provider_id == provider_id)
            .options(selectinload(RateCardVersion.prices))
            .order_by(RateCardVersion.number)
        )
    )


def rate_card(session: Session, version_id: UUID, skus: Collection[str]) -> RateCard:
    """One version, as the value that `broker.pricing` works on, with the prices of these SKUs alone.

    A provider's whole list may have thousands. A SKU that is not priced is absent, so that using it raises
    `PriceUnknown`.
    """
    row = session.scalars(
        select(RateCardVersion)
        .where(RateCardVersion.id == version_id)
        .options(selectinload(RateCardVersion.prices.and_(RateCardPrice.sku.in_(skus))))
        .execution_options(populate_existing=True)
    ).one()
    return _card(row)


def _card(row: RateCardVersion) -> RateCard:
    tiers: dict[str, list[RateCardPrice]] = {}
    for price in sorted(row.prices, key=lambda price: (price.sku, price.above)):
        tiers.setdefault(price.sku, []).append(price)
    return RateCard(
        version_id=row.id,
        name=row.name,
        number=row.number,
        currency=Commodity(row.currency),
        prices={sku: _price(sku, rows) for sku, rows in tiers.items()},
        bills={state: Decimal(share) for state, share in row.bills.items()},
    )


def _price(sku: str, rows: list[RateCardPrice]) -> Price:
    first = rows[0]
    return Price(
        sku=sku,
        unit=Unit(first.unit),
        tiers=tuple(Tier(row.above, row.unit_price) for row in rows),
        minimum=timedelta(seconds=first.minimum_seconds),
        increment=timedelta(seconds=first.increment_seconds),
    )


@dataclass(frozen=True, slots=True)
class _Wares:
    """What one catalogue version sells. `images`: name -> (remote id, minimum disk GiB, minimum memory MiB)."""

    offers: tuple[CatalogueOffer, ...]
    images: Mapping[str, tuple[str, int, int]]


class Catalogues:
    """Takes snapshots. Versions never change once they are made, so each is read once per process and kept.

    Rate cards may gain SKUs (`import_rate_card`), so they are kept by their digest. Thread-safe: what two threads read
    at once is equal.
    """

    def __init__(self, half_life: timedelta = HALF_LIFE) -> None:
        """Nothing is read before it is asked for. `half_life`: how long a site's failures count (`broker.health`)."""
        self._half_life = half_life
        self._wares: dict[UUID, _Wares] = {}
        self._cards: dict[tuple[UUID, str], RateCard] = {}

    def snapshot(self, session: Session, *, now: datetime) -> Catalogue:
        """Everything that can be bought at `now`, with quota and prices; equal digests mean equal contents."""
        cards = self._cards_in_force(session, now)
        versions = session.execute(
            select(CatalogueVersion.site_id, CatalogueVersion.id, CatalogueVersion.digest).where(
                CatalogueVersion.superseded_at.is_(None)
            )
        ).all()
        wares = self._wares_of(session, {version_id for _, version_id, _ in versions})
        wares_of = {site_id: wares[version_id] for site_id, version_id, _ in versions}
        free = _free_of(session)
        unwell = unwell_sites(session, now=now, half_life=self._half_life)
        rows = session.execute(select(Site, Provider).join(Provider).where(Site.is_enabled).order_by(Site.name)).all()
        sites = tuple(
            _site(
                site,
                provider,
                wares=wares_of.get(site.id),
                card=cards.get(provider.id),
                free=free.get(site.id, {}),
                health=unwell.get(site.id, Health()),
            )
            for site, provider in rows
        )
        offers = tuple(offer for site in sites if site.site_id in wares_of for offer in wares_of[site.site_id].offers)
        contents = [
            [site.name, site.trouble, site.caution, dict(site.free), site.card.version_id if site.card else None]
            for site in sites
        ]
        contents += sorted([str(site_id), made] for site_id, _, made in versions)
        return Catalogue(sites=sites, offers=offers, digest=digest(contents))

    def _cards_in_force(self, session: Session, now: datetime) -> dict[UUID, RateCard]:
        """Provider id -> the version in force at `now`."""
        in_force = session.execute(
            select(RateCardVersion.provider_id, RateCardVersion.id, RateCardVersion.digest).where(
                RateCardVersion.valid_from <= now,
                (RateCardVersion.valid_to.is_(None)) | (RateCardVersion.valid_to > now),
            )
        ).all()
        wanted = {(version_id, text) for _, version_id, text in in_force}
        kept = {key: card for key, card in self._cards.items() if key in wanted}
        for key in wanted - kept.keys():
            row = session.scalars(
                select(RateCardVersion)
                .where(RateCardVersion.id == key[0])
                .options(selectinload(RateCardVersion.prices))
            ).one()
            kept[key] = _card(row)
        self._cards = kept
        return {provider_id: kept[version_id, text] for provider_id, version_id, text in in_force}

    def _wares_of(self, session: Session, wanted: set[UUID]) -> dict[UUID, _Wares]:
        kept = {version_id: wares for version_id, wares in self._wares.items() if version_id in wanted}
        for version_id in wanted - kept.keys():
            row = session.scalars(
                select(CatalogueVersion)
                .where(CatalogueVersion.id == version_id)
                .options(selectinload(CatalogueVersion.offers), selectinload(CatalogueVersion.images))
            ).one()
            kept[version_id] = _wares(row)
        self._wares = kept
        return kept


def _wares(version: CatalogueVersion) -> _Wares:
    images: dict[str, tuple[str, int, int]] = {}
    # A logical name that several images share means the last of them by name; an image's own name always works.
    for image in sorted(version.images, key=lambda image: image.name):
        found = (image.remote_id, image.min_disk_gib, image.min_memory_mib)
        images[image.name] = found
        if image.logical is not None:
            images[image.logical] = found
    offers = tuple(
        CatalogueOffer(
            offer_id=offer.id,
            site_id=offer.site_id,
            remote_id=offer.remote_id,
            name=offer.name,
            cores=offer.cores,
            memory_mib=offer.memory_mib,
            disk_gib=offer.disk_gib,
            gpus=offer.gpus,
            gpu_model=offer.gpu_model,
            arch=offer.arch,
        )
        for offer in sorted(version.offers, key=lambda offer: offer.name)
    )
    return _Wares(offers, images)


def _free_of(session: Session) -> dict[UUID, dict[str, Decimal | None]]:
    """Site id -> resource -> what is left."""
    pools = list(session.scalars(select(QuotaPool)))
    left = free_quota(session, pools)
    free: dict[UUID, dict[str, Decimal | None]] = {}
    for pool in pools:
        free.setdefault(pool.site_id, {})[pool.resource] = left[pool.id]
    return free


def _site(
    site: Site,
    provider: Provider,
    *,
    wares: _Wares | None,
    card: RateCard | None,
    free: Mapping[str, Decimal | None],
    health: Health,
) -> CatalogueSite:
    return CatalogueSite(
        site_id=site.id,
        name=site.name,
        provider=provider.name,
        jurisdiction=site.jurisdiction,
        region=site.region,
        images=wares.images if wares else {},
        free=dict(free),
        card=card,
        trouble=trouble_of(site, health, is_known=wares is not None),
        caution=caution_of(site, health),
    )
