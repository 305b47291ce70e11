"""What was adopted, from listing to listing: it is there, it is missing, or its project no longer pays for it.

Machines are seen with all other machines (`broker.inventory`); this module sees the rest, by the same rule: what two
complete listings lack, begun at least one settle time apart, is asked for by its id, and gone only where the site says
so. A site may be observed in several projects, and in fewer of them later: a listing lacks only what is of a project
that it read. Nothing here changes anything at a site.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import Row, func, select, update
from sqlalchemy.orm import Session

from broker import claims
from broker.claims import wake
from broker.database import database_now
from broker.launching import Pass
from broker.models.federation import Site
from broker.models.leases import Lease, LeaseState, Part
from broker.models.workloads import QuoteOffer
from broker.observations import last_observations, see_gone, see_missing, see_present
from broker.orders import RECONCILE
from broker.remote import Listing, PartKind, RemoteThing
from broker.strays import locked
from broker.timeline import Concern, tell
from broker.tools import Tools
from broker.turns import list_soon
from broker.units import counted
from broker.values import Amount

Writing = Callable[[], AbstractContextManager[Session]]
# Things that a project pays for, and that no listing shows, as their own project is not read.
UNSEEN: Final = "adopted_unseen"
# Leases of one transaction.
_CHUNK = 200


def record_adopted(
    tools: Tools, listing: Listing, *, site_id: UUID, started_at: datetime, settle: timedelta, writing: Writing
) -> None:
    """Write down which adopted things that are no machines a complete listing shows, in transactions of `writing`."""
    with writing() as session:
        parts = _parts(session, site_id, started_at)
    unread = {PartKind(kind.value) for kind in listing.unread}
    found = {(PartKind(thing.kind.value), thing.remote_id): thing for thing in listing.things}
    wanted = [part for part in parts if part.kind not in unread]
    for start in range(0, len(wanted), _CHUNK):
        some = wanted[start : start + _CHUNK]
        shown = {lease_id: found.get((kind, remote_id or "")) for lease_id, kind, remote_id in some}
        with writing() as session:
            for lease_id in sorted(_record(session, listing, shown, started_at=started_at, settle=settle)):
                wake(session, lease_id)
                tools.jobs.defer(session, RECONCILE, str(lease_id))


def _parts(session: Session, site_id: UUID, started_at: datetime) -> Sequence[Row[UUID, PartKind, str | None]]:
    return session.execute(
        select(Part.lease_id, Part.kind, Part.remote_id)
        .join(Lease, Lease.id == Part.lease_id)
        .where(
            Lease.site_id == site_id,
            Lease.adopted_at.is_not(None),
            Lease.gone_at.is_(None),
            Part.kind != PartKind.SERVER,
            Part.gone_at.is_(None),
            Part.made_at < started_at,
        )
        .order_by(Part.lease_id)
    ).all()


def _record(
    session: Session,
    listing: Listing,
    shown: dict[UUID, RemoteThing | None],
    *,
    started_at: datetime,
    settle: timedelta,
) -> set[UUID]:
    """The leases to wake."""
    woken = set()
    leases = locked(session, shown)
    last = last_observations(session, shown)
    for lease in leases:
        thing = shown[lease.id]
        former = last.get(lease.id)
        is_over = former is not None and former.state is LeaseState.GONE  # given up meanwhile
        if is_over or lease.gone_at is not None or (thing is None and not listing.speaks_of(lease.site_project)):
            continue
        if thing is not None and thing.project is not None:
            lease.site_project = thing.project  # a volume may be handed to another one
        if thing is None:
            is_new = see_missing(session, lease, seen_at=started_at, settle=settle)
        else:
            is_new = see_present(session, lease, thing, seen_at=started_at, last=former)
        if is_new:
            woken.add(lease.id)
    return woken


def unseen(session: Session, site: Site, listing: Listing) -> list[Concern]:
    """One for each project of the site's that was adopted from and is not read: all of it is held for, not charged."""
    if not listing.projects:
        return []
    rows = session.execute(
        select(Lease.site_project, QuoteOffer.commodity, func.count(), func.sum(QuoteOffer.hourly))
        .join(QuoteOffer, QuoteOffer.id == Lease.quote_offer_id)
        .where(
            Lease.site_id == site.id,
            Lease.adopted_at.is_not(None),
            Lease.gone_at.is_(None),
            Lease.site_project.is_not(None),
            Lease.site_project.not_in(listing.projects),
        )
        .group_by(Lease.site_project, QuoteOffer.commodity)
    )
    return [
        Concern(
            kind=UNSEEN,
            key=f"{site.id}:{project}:{commodity}",
            text=f"{counted(count, 'thing')} of project {project} at {site.name}, adopted before, cannot be seen any "
            "more: money is held for them, and nothing is charged",
            hint="Give the site a credential that reads that project too (its setting projects), or end their charging "
            "(`leeway stop`).",
            site_id=site.id,
            per_day=Amount.of(hourly, commodity).times(24).stored(),
        )
        for project, commodity, count, hourly in rows
    ]


def give_up(run: Pass, lease: Lease, part: Part) -> None:
    """A person said that its project no longer pays: charged until now, or until it was seen last if it is missed.

    It stays where it is.
    """
    with claims.writing(run.sessions, run.mine) as (session, row):
        now = session.scalars(select(func.clock_timestamp())).one()
        session.execute(update(Part).where(Part.id == part.id).values(gone_at=now))
        name, is_missed = lease.spec["name"], row.missing_since is not None
        what = "charged no longer, and still there"
        if is_missed:
            what = "charged until it was seen last: the last listing did not show it"
        end = row.seen_at or now if is_missed else now
        see_gone(session, row, seen_at=now, ended_at=end, is_estimated=is_missed, what=what)
        tell(session, row, "released", f"{name} is no longer {row.project}'s; nothing was asked of the site")
    with run.sessions.begin() as session:  # apart, as the site comes before its leases; it is nobody's from now on
        list_soon(session, Site.id == lease.site_id, now=database_now(session))
