"""Sites that cannot be listed: while that is so, nobody knows what runs there, and a person is to know that."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID

from sqlalchemy import func, or_, select, update
from sqlalchemy.orm import Session

from broker.models.audit import Finding
from broker.models.federation import Site
from broker.models.leases import Lease
from broker.models.workloads import Order, QuoteOffer
from broker.timeline import Concern, raise_findings
from broker.values import Amount

SITE_UNREACHABLE = "site_unreachable"
# A person is told after so many failed listings in a row (the waits between them double), or after this time.
TELL_AFTER = 4
TELL_AFTER_TIME = timedelta(hours=1)


def tell_unreachable(session: Session, now: datetime) -> None:
    """Open or refresh a finding for each site that has not been listed for long; close those of the others."""
    failing = session.scalars(
        select(Site)
        .where(
            Site.is_enabled,
            Site.failures > 0,
            or_(Site.failures >= TELL_AFTER, func.coalesce(Site.changes_at, Site.listed_at) < now - TELL_AFTER_TIME),
        )
        .order_by(Site.id)
    ).all()
    costs = _per_day(session, [site.id for site in failing])
    raise_findings(session, [_concern(site, costs.get(site.id)) for site in failing], now=now)
    session.execute(
        update(Finding)
        .where(
            Finding.kind == SITE_UNREACHABLE,
            Finding.resolved_at.is_(None),
            Finding.key.not_in([str(site.id) for site in failing]),
        )
        .values(resolved_at=now)
    )


def _concern(site: Site, per_day: Amount | None) -> Concern:
    listed_at = site.changes_at or site.listed_at
    since = "ever" if listed_at is None else f"since {listed_at:%Y-%m-%d %H:%M} UTC"
    return Concern(
        kind="site_unreachable",
        key=str(site.id),
        text=f"site {site.name} could not be listed {since}, {site.failures} times in a row: {site.trouble}",
        hint=f"Try `leeway site check {site.name}`. Until it answers, what runs there is neither seen nor ended.",
        site_id=site.id,
        per_day=per_day,
    )


def _per_day(session: Session, site_ids: list[UUID]) -> Mapping[UUID, Amount]:
    """What the machines there cost per day by their quotes, where that is one currency; their number may be zero."""
    rows = session.execute(
        select(Lease.site_id, QuoteOffer.commodity, func.sum(QuoteOffer.hourly / Order.members))
        .join(QuoteOffer, QuoteOffer.id == Lease.quote_offer_id)
        .join(Order, Order.id == Lease.order_id)
        .where(Lease.site_id.in_(site_ids), Lease.gone_at.is_(None))
        .group_by(Lease.site_id, QuoteOffer.commodity)
    ).all()
    found: dict[UUID, list[Amount]] = {}
    for site_id, commodity, hourly in rows:
        per_day = (hourly * 24).quantize(Decimal("1e-9"))
        found.setdefault(site_id, []).append(Amount.of(per_day, commodity))
    return {site_id: amounts[0] for site_id, amounts in found.items() if len(amounts) == 1}
