"""`leeway resume`: from observing to acting on rows that came out of a backup.

Between the backup and now machines were made and ended of which the rows know nothing. Three things make it safe to act
all the same. Every site was listed once more, so late that whatever a worker of the time before could still ask for
shows: a request goes out at most one call time after its attempt, and what it makes shows one settle time later. Every
lease's generation jumps past whatever that time can have reached, so that its workers write nothing any more. And every
lease must find what it may have at its site before it makes anything (`Lease.must_find`).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import func, or_, select, update
from sqlalchemy.orm import Session

from broker.database import database_now
from broker.errors import Conflict, LeewayError
from broker.inventory import OURS_UNKNOWN
from broker.models.audit import Finding
from broker.models.federation import Installation, Site
from broker.models.leases import Lease
from broker.restored import LEAP, Standing, act_again, look
from broker.sites import site_named
from broker.tools import Tools
from broker.turns import list_soon


@dataclass(frozen=True, slots=True)
class SiteReadiness:
    """Whether a site was listed late enough; `why` not, None where it was."""

    site_id: UUID
    site: str
    wanted_after: datetime | None  # None: the site cannot be opened, so its settle time is not known
    why: str | None


@dataclass(frozen=True, slots=True)
class Resumed:
    """What came of it: how many leases go on. None do where Leeway acted already."""

    leases: int


def readiness(tools: Tools) -> tuple[Standing | None, list[SiteReadiness]]:
    """Where the installation stands and, while it only observes, what each enabled site still lacks."""
    with tools.sessions.begin() as session:
        standing = look(session)
        sites = list(session.scalars(select(Site).where(Site.is_enabled).order_by(Site.name)))
    if standing is None or standing.observing_since is None:
        return standing, []
    return standing, [_ready(tools, site, since=standing.observing_since) for site in sites]


def _ready(tools: Tools, site: Site, *, since: datetime) -> SiteReadiness:
    try:
        settle = tools.timing.settle_of(tools.open_site(site.id))
    except LeewayError as error:
        return SiteReadiness(site.id, site.name, None, f"it cannot be opened: {error}")
    wanted = since + tools.timing.call + settle
    if site.listed_at is not None and site.listed_at >= wanted:
        return SiteReadiness(site.id, site.name, wanted, None)
    last = (
        "it was not listed yet"
        if site.listed_at is None
        else f"its last complete listing began at {_time(site.listed_at)}"
    )
    why = f"{last}, and must begin at {_time(wanted)} or later"
    return SiteReadiness(site.id, site.name, wanted, f"{why} ({site.trouble})" if site.trouble else why)


def _time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def resume(tools: Tools, *, leave: Collection[str] = (), actor: str) -> Resumed:
    """Act again on what the rows say. Twice, by two at once, or after a kill half way is fine.

    The sites in `leave` are not waited for; Leeway only observes them from now on.

    Raises:
        NotFound: there is no such site.
        Conflict: a site was not listed late enough; says which, and why.
    """
    standing, sites = readiness(tools)
    with tools.sessions.begin() as session:
        left_out = {site_named(session, name).id for name in leave}
    if standing is None or standing.observing_since is None:
        return Resumed(leases=0)
    missing = [site for site in sites if site.why is not None and site.site_id not in left_out]
    if missing:
        _hasten(tools, missing)
        raise Conflict(
            f"{len(missing)} of {len(sites)} sites were not listed late enough: "
            + "; ".join(f"{site.site}: {site.why}" for site in missing),
            hint="Wait for the listings and repeat it; `--leave SITE` only observes that site from now on.",
            sites=[{"site": site.site, "why": site.why} for site in missing],
        )
    with tools.sessions.begin() as session:
        return Resumed(leases=_act(session, standing, left_out, actor=actor))


def _hasten(tools: Tools, missing: Sequence[SiteReadiness]) -> None:
    """Somebody waits: list these sites as soon as it counts, also those whose listing is backed off."""
    with tools.sessions.begin() as session:
        for site in sorted(missing, key=lambda site: site.site_id):
            soon = func.greatest(site.wanted_after or func.clock_timestamp(), func.clock_timestamp())
            session.execute(
                update(Site)
                .where(Site.id == site.site_id)
                .values(next_listing_at=func.least(Site.next_listing_at, soon))
            )


def _act(session: Session, standing: Standing, left_out: Collection[UUID], *, actor: str) -> int:
    """All of it, or nothing."""
    session.scalars(select(Installation).with_for_update(key_share=True)).one()
    found = look(session)
    if found is None or found.observing_since is None:
        return 0  # somebody else was faster
    if found != standing:
        raise Conflict("the database was replaced once more meanwhile", hint="Repeat it.")
    session.execute(update(Site).where(Site.id.in_(left_out)).values(observe_only=True, version=Site.version + 1))
    # The next listing takes back what no row knows of (`broker.taking_back`), and tells anew of what it cannot.
    waiting = update(Finding).where(Finding.kind == OURS_UNKNOWN, Finding.resolved_at.is_(None))
    session.execute(waiting.values(resolved_at=func.clock_timestamp()))
    list_soon(session, Site.is_enabled.is_(True), now=database_now(session))
    live = or_(Lease.gone_at.is_(None), Lease.next_look_at.is_not(None))
    # Locked in the order of their ids, as everybody does.
    session.scalars(select(Lease.id).where(live).order_by(Lease.id).with_for_update(key_share=True)).all()
    bumped = session.execute(
        update(Lease)
        .where(live)
        .values(
            generation=Lease.generation + LEAP,
            claim_until=None,
            failures=0,
            next_look_at=func.clock_timestamp(),
            must_find=Lease.gone_at.is_(None),
        )
        .returning(Lease.id)
    ).all()
    act_again(session, actor=actor)
    return len(bumped)
