"""Sites, providers' prices and findings, as people are shown them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from broker.models.audit import Finding
from broker.models.catalogue import CatalogueVersion, Offer, RateCardPrice, RateCardVersion, SiteImage
from broker.models.federation import Provider, Site
from broker.models.holds import QuotaPool
from broker.paging import Listed, Page, rows_of
from broker.quota import free_quota
from broker.values import Amount, Commodity
from broker.waste import WASTE


@dataclass(frozen=True, slots=True)
class QuotaView:
    """One limit of a site. `free` counts what orders have set aside; `limit` and `free` None: unlimited."""

    resource: str
    limit: Decimal | None
    used: Decimal
    free: Decimal | None


@dataclass(frozen=True, slots=True)
class SiteView:
    """A site. `check_pending`: a check was asked for, and `diagnosis` is not its answer yet.

    Attributes:
        listed_at: start of the last complete listing.
        changes_at: start of the last listing of what changed since then, where there was one.
        listing_since: start of the listing under way, None where none is.
        listing_read: how many things that one has read so far.
    """

    id: UUID
    name: str
    provider: str
    adapter: str
    endpoint: str
    region: str | None
    jurisdiction: str | None
    observe_only: bool
    enabled: bool
    listed_at: datetime | None
    changes_at: datetime | None
    listing_since: datetime | None
    listing_read: int | None
    trouble: str | None
    offers: int
    images: Sequence[str]
    quota: Sequence[QuotaView]
    checked_at: datetime | None
    check_wanted_at: datetime | None
    check_pending: bool
    diagnosis: Sequence[Mapping[str, Any]]


def list_sites(session: Session, page: Page) -> Listed[SiteView]:
    """The sites that are connected."""
    statement = select(Site, Provider.name).join(Provider, Provider.id == Site.provider_id)
    return Listed.cut(_sites(session, rows_of(session, statement, Site.id, page)), page, lambda site: site.id)


def site_view(session: Session, site: Site) -> SiteView:
    """One site."""
    # What the request wrote by SQL expressions (the database's clock) is read back.
    session.refresh(site)
    provider = session.get_one(Provider, site.provider_id)
    return _sites(session, [(site, provider.name)])[0]


def _sites(session: Session, sites: Sequence[tuple[Site, str]]) -> list[SiteView]:
    ids = [site.id for site, _ in sites]
    current = select(CatalogueVersion.id).where(
        CatalogueVersion.site_id.in_(ids), CatalogueVersion.superseded_at.is_(None)
    )
    offers = dict(
        session.execute(
            select(Offer.site_id, func.count()).where(Offer.catalogue_version_id.in_(current)).group_by(Offer.site_id)
        ).all()
    )
    images: dict[UUID, set[str]] = defaultdict(set)
    for site_id, name, logical in session.execute(
        select(SiteImage.site_id, SiteImage.name, SiteImage.logical).where(SiteImage.catalogue_version_id.in_(current))
    ):
        images[site_id].add(logical or name)
    pools = list(session.scalars(select(QuotaPool).where(QuotaPool.site_id.in_(ids)).order_by(QuotaPool.resource)))
    free = free_quota(session, pools)
    return [
        SiteView(
            id=site.id,
            name=site.name,
            provider=provider,
            adapter=site.adapter,
            endpoint=site.endpoint,
            region=site.region,
            jurisdiction=site.jurisdiction,
            observe_only=site.observe_only,
            enabled=site.is_enabled,
            listed_at=site.listed_at,
            changes_at=site.changes_at,
            listing_since=site.listing_since,
            listing_read=site.listing_read,
            trouble=site.trouble,
            offers=offers.get(site.id, 0),
            images=sorted(images[site.id]),
            quota=[
                QuotaView(pool.resource, pool.quota, pool.used, free[pool.id])
                for pool in pools
                if pool.site_id == site.id
            ],
            checked_at=site.checked_at,
            check_wanted_at=site.check_wanted_at,
            check_pending=_is_pending(site),
            diagnosis=site.diagnosis,
        )
        for site, provider in sites
    ]


def _is_pending(site: Site) -> bool:
    wanted, checked = site.check_wanted_at, site.checked_at
    return wanted is not None and (checked is None or checked < wanted)


@dataclass(frozen=True, slots=True)
class RateCardView:
    """One version of a provider's prices. `skus`: how many things it has a price for."""

    id: UUID
    provider: str
    number: int
    name: str
    currency: str
    valid_from: datetime
    valid_to: datetime | None
    skus: int


def list_rate_cards(session: Session, page: Page) -> Listed[RateCardView]:
    """Every version of every provider's prices."""
    statement = select(RateCardVersion, Provider.name).join(Provider, Provider.id == RateCardVersion.provider_id)
    return Listed.cut(
        _cards(session, rows_of(session, statement, RateCardVersion.id, page)), page, lambda card: card.id
    )


def rate_card_view(session: Session, version: RateCardVersion) -> RateCardView:
    """One version."""
    provider = session.get_one(Provider, version.provider_id)
    return _cards(session, [(version, provider.name)])[0]


def _cards(session: Session, cards: Sequence[tuple[RateCardVersion, str]]) -> list[RateCardView]:
    skus = dict(
        session.execute(
            select(RateCardPrice.version_id, func.count(RateCardPrice.sku.distinct()))
            .where(RateCardPrice.version_id.in_([card.id for card, _ in cards]))
            .group_by(RateCardPrice.version_id)
        ).all()
    )
    return [
        RateCardView(
            id=card.id,
            provider=provider,
            number=card.number,
            name=card.name,
            currency=card.currency,
            valid_from=card.valid_from,
            valid_to=card.valid_to,
            skus=skus.get(card.id, 0),
        )
        for card, provider in cards
    ]


@dataclass(frozen=True, slots=True)
class FindingView:
    """Something a person should look at. `per_day` None: what it costs is not known."""

    id: UUID
    kind: str
    text: str
    hint: str
    site: str | None
    lease_id: UUID | None
    per_day: Amount | None
    first_seen_at: datetime
    last_seen_at: datetime


@dataclass(frozen=True, slots=True)
class FindingSum:
    """The open findings of a kind at a site. `per_day` sums those whose price is known, `unknown` counts the others."""

    kind: str
    site: str | None
    count: int
    per_day: Sequence[Amount]
    unknown: int


@dataclass(frozen=True, slots=True)
class FindingSums:
    """All open findings: what they cost per day in all, by kind and site, and the first ones to look at."""

    count: int
    per_day: Sequence[Amount]
    unknown: int
    sums: Sequence[FindingSum]
    first: Sequence[FindingView]


def list_findings(session: Session, page: Page) -> Listed[FindingView]:
    """The open findings."""
    views = [_finding(finding, site) for finding, site in rows_of(session, _open_findings(), Finding.id, page)]
    return Listed.cut(views, page, lambda finding: finding.id)


def sum_findings(session: Session, *, most: int) -> FindingSums:
    """The open findings added up, and at most `most` of them: what went wrong, then what is dear, the dearest first."""
    rows = session.execute(
        select(Finding.kind, Site.name, Finding.commodity, func.count(), func.sum(Finding.per_day))
        .outerjoin(Site, Site.id == Finding.site_id)
        .where(Finding.resolved_at.is_(None))
        .group_by(Finding.kind, Site.name, Finding.commodity)
        .order_by(Finding.kind, Site.name, Finding.commodity)
    ).all()
    groups: dict[tuple[str, str | None], list[tuple[int, Amount | None]]] = defaultdict(list)
    for kind, site, commodity, count, per_day in rows:
        amount = None if commodity is None or per_day is None else Amount.of(per_day, commodity)
        groups[kind, site].append((count, amount))
    sums = [
        FindingSum(
            kind=kind,
            site=site,
            count=sum(count for count, _ in parts),
            per_day=[amount for _, amount in parts if amount is not None],
            unknown=sum(count for count, amount in parts if amount is None),
        )
        for (kind, site), parts in groups.items()
    ]
    dear = Finding.per_day.desc().nulls_last()
    first = session.execute(
        _open_findings().order_by(Finding.kind.in_(WASTE), dear, Finding.id.desc()).limit(most)
    ).all()
    return FindingSums(
        count=sum(one.count for one in sums),
        per_day=_added(amount for one in sums for amount in one.per_day),
        unknown=sum(one.unknown for one in sums),
        sums=sums,
        first=[_finding(finding, site) for finding, site in first],
    )


def _added(amounts: Iterable[Amount]) -> list[Amount]:
    """One sum per commodity."""
    found: dict[Commodity, Amount] = {}
    for amount in amounts:
        former = found.get(amount.commodity)
        found[amount.commodity] = amount if former is None else former + amount
    return [found[commodity] for commodity in sorted(found)]


def _open_findings() -> Select[Finding, str | None]:
    return select(Finding, Site.name).outerjoin(Site, Site.id == Finding.site_id).where(Finding.resolved_at.is_(None))


def _finding(finding: Finding, site: str | None) -> FindingView:
    per_day, commodity = finding.per_day, finding.commodity
    return FindingView(
        id=finding.id,
        kind=finding.kind,
        text=finding.text,
        hint=finding.hint,
        site=site,
        lease_id=finding.lease_id,
        per_day=None if per_day is None or commodity is None else Amount.of(per_day, commodity),
        first_seen_at=finding.first_seen_at,
        last_seen_at=finding.last_seen_at,
    )
