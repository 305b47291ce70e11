"""How things stand, in numbers for metrics: read from rows, so that every replica says the same and a restart nothing.

One query each, none of which grows with the time that Leeway has run: what is over is not counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from broker.health import HALF_LIFE, Health, site_healths
from broker.models.audit import ClockSlot, Finding
from broker.models.federation import Site
from broker.models.health import ContactTotal, ProbeKind
from broker.models.leases import Lease, LeaseState, SiteListing
from broker.models.workloads import Order, OrderState


@dataclass(frozen=True, slots=True)
class SiteFigures:
    """A site that is switched on.

    Attributes:
        listing_age: since its last listing began; None where it was never listed.
        listing_time: what the last complete listing took.
        machines: that it showed, whoever made them.
        is_listed: its last listing succeeded.
    """

    id: UUID
    name: str
    is_listed: bool
    failed_listings: int
    listing_age: timedelta | None
    listing_time: timedelta | None
    machines: int | None


@dataclass(frozen=True, slots=True)
class ContactFigures:
    """Contacts of one kind with one site, ever. `seconds`: of all of them together."""

    contacts: int = 0
    failures: int = 0
    seconds: Decimal = Decimal(0)


@dataclass(frozen=True, slots=True)
class FindingFigures:
    """Open findings of a kind. `per_day`: by commodity, of those whose cost is known; `unknown` counts the others."""

    count: int
    unknown: int
    per_day: Mapping[str, Decimal]


@dataclass(frozen=True, slots=True)
class Figures:
    """All of it, at one moment. What there is none of is absent from the maps."""

    sites: tuple[SiteFigures, ...]
    contacts: Mapping[tuple[UUID, ProbeKind], ContactFigures]
    health: Mapping[UUID, Health]
    leases: Mapping[tuple[UUID, LeaseState], int]
    orders: Mapping[OrderState, int]
    findings: Mapping[str, FindingFigures]
    due: int
    sweep_age: timedelta | None


def figures(session: Session, *, now: datetime, half_life: timedelta = HALF_LIFE) -> Figures:
    """How things stand at `now`. `half_life`: as for `broker.health`."""
    slots = select(ClockSlot.slot).where(ClockSlot.name == "sweep").order_by(ClockSlot.slot.desc())
    swept = session.scalars(slots.limit(1)).one_or_none()
    return Figures(
        sites=_sites(session, now),
        contacts=_contacts(session),
        health=site_healths(session, now=now, half_life=half_life),
        leases=_leases(session),
        orders=_orders(session),
        findings=_findings(session),
        due=session.scalars(select(func.count()).where(Lease.next_look_at <= now)).one(),
        sweep_age=None if swept is None else max(now - swept, timedelta(0)),
    )


def _sites(session: Session, now: datetime) -> tuple[SiteFigures, ...]:
    last = select(SiteListing).where(SiteListing.site_id == Site.id).order_by(SiteListing.started_at.desc()).limit(1)
    listing = last.lateral()
    rows = session.execute(
        select(
            Site.id,
            Site.name,
            Site.trouble,
            Site.failures,
            Site.listed_at,
            Site.changes_at,
            listing.c.finished_at - listing.c.started_at,
            listing.c.machines,
        )
        .outerjoin(listing, Site.id == listing.c.site_id)
        .where(Site.is_enabled)
        .order_by(Site.name)
    )
    return tuple(
        SiteFigures(
            id=site_id,
            name=name,
            is_listed=listed_at is not None and trouble is None,
            failed_listings=failures,
            listing_age=None if listed_at is None else max(now - max(listed_at, changes_at or listed_at), timedelta(0)),
            listing_time=took,
            machines=machines,
        )
        for site_id, name, trouble, failures, listed_at, changes_at, took, machines in rows
    )


def _contacts(session: Session) -> dict[tuple[UUID, ProbeKind], ContactFigures]:
    return {
        (row.site_id, row.kind): ContactFigures(row.contacts, row.failures, Decimal(row.latency_sum_ms) / 1000)
        for row in session.scalars(select(ContactTotal))
    }


def _leases(session: Session) -> dict[tuple[UUID, LeaseState], int]:
    """Those of which something is there, or shall be."""
    rows = session.execute(
        select(Lease.site_id, Lease.state, func.count())
        .where(Lease.gone_at.is_(None))
        .group_by(Lease.site_id, Lease.state)
    )
    return {(site_id, state): count for site_id, state, count in rows}


def _orders(session: Session) -> dict[OrderState, int]:
    going = Order.state != OrderState.OVER
    return dict(session.execute(select(Order.state, func.count()).where(going).group_by(Order.state)).all())


def _findings(session: Session) -> dict[str, FindingFigures]:
    rows = session.execute(
        select(Finding.kind, Finding.commodity, func.count(), func.sum(Finding.per_day))
        .where(Finding.resolved_at.is_(None))
        .group_by(Finding.kind, Finding.commodity)
        .order_by(Finding.kind)
    ).all()
    kinds = dict.fromkeys(kind for kind, *_ in rows)
    return {
        kind: FindingFigures(
            count=sum(count for other, _, count, _ in rows if other == kind),
            unknown=sum(count for other, code, count, _ in rows if other == kind and code is None),
            per_day={code: total for other, code, _, total in rows if other == kind and code and total is not None},
        )
        for kind in kinds
    }
