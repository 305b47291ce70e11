"""One site: a complete listing becomes observations, presence, quota and findings.

A listing begins at `started_at`, by the database's clock read before the first request: what it shows was so at that
moment or later. A machine counts as missing when two complete listings, begun at least one settle time apart, lack it;
only then may a look's 404 say that it is gone (`broker.watching`). An error of any page is an error of the listing.

What was seen is written in many short transactions, so that a site with thousands of machines keeps nobody waiting for
its quota or its leases. Each of them sees to it that the turn is still ours; what one of them did not get to, the next
listing does.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import delete, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from broker.catalogue import record_catalogue
from broker.endings import correct_ends
from broker.errors import Fenced, LeewayError, SiteDenied
from broker.models.federation import Site
from broker.models.holds import QuotaHold, QuotaPool
from broker.models.leases import Lease, Part, SiteListing
from broker.observations import last_observations, see
from broker.orders import RECONCILE
from broker.ports import CloudAdapter
from broker.remote import Deadline, Listing, PartKind, RemoteImage, RemoteMachine, RemoteOffer, RemotePart, RemoteQuota
from broker.strays import locked, record_strays
from broker.taking_back import Left, take_back
from broker.things import record_things
from broker.timeline import Concern, raise_findings, resolve_findings, tell
from broker.tools import Pace, Tools
from broker.values import new_id
from broker.waste import Look, tell_waste

UNKNOWN_MACHINE = "unknown_machine"
OURS_UNKNOWN = "ours_unknown"
UNREAD = "unread_things"
_NOT_OURS = "Leave it to its owner; if it has none, delete it at the site."
# Leases and things written in one transaction.
CHUNK = 200
# How long listings are remembered.
KEPT = timedelta(days=1)

T = TypeVar("T")
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Turn:
    """One lister's right to a site until it is claimed again: `generation` fences a slow one."""

    site_id: UUID
    generation: int
    started_at: datetime
    refresh: bool


@dataclass(frozen=True, slots=True)
class Seen:
    """What one visit to a site brought. `offers` and `images` are None where they were not due."""

    listing: Listing
    quotas: tuple[RemoteQuota, ...]
    offers: tuple[RemoteOffer, ...] | None
    images: tuple[RemoteImage, ...] | None


def observe(tools: Tools, turn: Turn) -> bool:
    """List a site and write down what was seen; False where another lister took over meanwhile.

    Whatever it raises, the site's row says why, and the next try is backed off.

    Raises:
        SiteError: of the site, or because the listing is of another credential scope than our machines there.
        LeewayError: the site cannot be opened.
    """
    trouble: str | None = "the last listing did not finish"
    try:
        adapter = tools.open_site(turn.site_id)
        seen = _visit(adapter, turn, tools.pace)
        _record(tools, turn, seen, settle=tools.timing.settle_of(adapter))
        trouble = None
        correct_ends(tools, turn.site_id, adapter)
    except Fenced as fenced:
        trouble = None
        log.info("listing taken over", extra={"site": str(turn.site_id), "detail": fenced.detail})
        return False
    except LeewayError as error:
        trouble = str(error)
        raise
    finally:
        if trouble is not None:
            _give_up(tools, turn, trouble)
    return True


def take_turn(tools: Tools, site_id: UUID) -> Turn | None:
    """Claim a site whose listing is due; None where it is not, or another lister is at it."""
    now = func.clock_timestamp()
    pace = tools.pace
    with tools.sessions.begin() as session:
        row = session.execute(
            update(Site)
            .where(
                Site.id == site_id,
                Site.is_enabled,
                Site.next_listing_at <= now,
                or_(Site.listing_claim_until.is_(None), Site.listing_claim_until < now),
            )
            # A lister that died keeps the site unlisted until then: not much longer than its visit could last.
            .values(listing_generation=Site.listing_generation + 1, listing_claim_until=now + pace.call * 1.25)
            .returning(
                Site.listing_generation,
                now,
                or_(Site.refreshed_at.is_(None), Site.refreshed_at < now - pace.catalogue),
            )
        ).one_or_none()
    return None if row is None else Turn(site_id, row[0], row[1], row[2])


def _visit(adapter: CloudAdapter, turn: Turn, pace: Pace) -> Seen:
    """Ask the site. Quota after the listing: what the listing shows is then surely in `used`."""
    deadline = Deadline.after(pace.call.total_seconds())
    listing = adapter.listing(deadline=deadline)
    quotas = tuple(adapter.quotas(deadline=deadline))
    if not turn.refresh:
        return Seen(listing, quotas, None, None)
    return Seen(listing, quotas, tuple(adapter.offers(deadline=deadline)), tuple(adapter.images(deadline=deadline)))


@contextmanager
def _writing(tools: Tools, turn: Turn) -> Iterator[Session]:
    """A transaction during which nobody else can take the site's turn; raises `Fenced` where somebody has."""
    with tools.sessions.begin() as session:
        mine = select(Site.id).where(Site.id == turn.site_id, Site.listing_generation == turn.generation)
        if session.scalars(mine.with_for_update(read=True)).one_or_none() is None:
            raise Fenced(f"site {turn.site_id} has another lister since generation {turn.generation}")
        yield session


def _give_up(tools: Tools, turn: Turn, trouble: str) -> None:
    """Keep the reason in the row, and come back later, the later the more often it failed (at most 16 intervals)."""
    wait = tools.pace.listing * func.power(2, func.least(Site.failures, 4))
    values: dict[str, Any] = {
        "listing_claim_until": None,
        "failures": Site.failures + 1,
        "trouble": trouble[:2000],
        "next_listing_at": func.clock_timestamp() + wait,
    }
    with tools.sessions.begin() as session:
        _write(session, turn, values)


def _write(session: Session, turn: Turn, values: dict[str, Any]) -> bool:
    """The site's row, only while the turn is ours. `version` is people's and is not raised."""
    written = session.execute(
        update(Site)
        .where(Site.id == turn.site_id, Site.listing_generation == turn.generation)
        .values(values)
        .returning(Site.id)
    ).one_or_none()
    return written is not None


# --- what was seen -----------------------------------------------------------------------------------------------


def _record(tools: Tools, turn: Turn, seen: Seen, *, settle: timedelta) -> None:
    listing = seen.listing
    with _writing(tools, turn) as session:
        _refuse_another_scope(session, turn, listing)
        # `used` before `counted_at` below: meanwhile a machine counts twice, never not at all.
        _record_quotas(session, turn, seen.quotas)
        if seen.offers is not None and seen.images is not None:
            record_catalogue(session, turn.site_id, seen.offers, seen.images, now=turn.started_at)
        servers = _servers(session, turn)
    machines = {machine.remote_id: machine for machine in listing.machines}
    for chunk in _chunks(sorted(servers)):
        with _writing(tools, turn) as session:
            found = {lease_id: machines.get(servers[lease_id]) for lease_id in chunk}
            _wake(session, tools, _record_presence(session, turn, found, settle=settle))
    ours = [thing for thing in (*listing.machines, *listing.parts) if _is_of(thing, tools.installation)]
    lost: list[RemotePart] = []
    for some in _chunks(ours):
        with _writing(tools, turn) as session:
            _wake(session, tools, record_strays(session, turn.site_id, some, lost=lost, started_at=turn.started_at))
    writing = partial(_writing, tools, turn)
    left = take_back(tools, listing, lost, site_id=turn.site_id, seen_at=turn.started_at, writing=writing)
    record_things(listing, site_id=turn.site_id, started_at=turn.started_at, writing=writing)
    tell_waste(turn.site_id, Look(tools.tolerance, turn.started_at, tools.installation), writing=writing)
    with writing() as session:
        _record_findings(session, turn, listing, left, known=frozenset(servers.values()))
        _finish(session, turn, listing, tools.pace)


def _finish(session: Session, turn: Turn, listing: Listing, pace: Pace) -> None:
    """The listing is complete, and written down."""
    now = func.clock_timestamp()
    session.add(
        SiteListing(
            site_id=turn.site_id,
            scope=listing.scope,
            started_at=turn.started_at,
            finished_at=now,
            machines=len(listing.machines),
        )
    )
    # The last ones tell the scope; absence is kept in the leases.
    old = SiteListing.started_at < turn.started_at - KEPT
    session.execute(delete(SiteListing).where(SiteListing.site_id == turn.site_id, old))
    values: dict[str, Any] = {
        "listing_claim_until": None,
        "listed_at": turn.started_at,
        "next_listing_at": now + pace.listing,
        "failures": 0,
        "trouble": None,
    }
    if turn.refresh:
        values["refreshed_at"] = turn.started_at
    _write(session, turn, values)


def _chunks(things: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(things), CHUNK):
        yield things[start : start + CHUNK]


def _wake(session: Session, tools: Tools, lease_ids: Iterable[UUID]) -> None:
    for lease_id in sorted(lease_ids):
        session.execute(update(Lease).where(Lease.id == lease_id).values(next_look_at=func.clock_timestamp()))
        tools.jobs.defer(session, RECONCILE, str(lease_id))


def _is_of(thing: RemotePart, installation: UUID) -> bool:
    return thing.tags is not None and thing.tags.installation == installation


def _refuse_another_scope(session: Session, turn: Turn, listing: Listing) -> None:
    """While machines of ours are there, a listing of another scope says nothing of them, least of all their absence."""
    last = session.scalars(
        select(SiteListing.scope)
        .where(SiteListing.site_id == turn.site_id)
        .order_by(SiteListing.started_at.desc())
        .limit(1)
    ).first()
    # Leases of before there were scopes are where the last listing was.
    scopes = session.scalars(
        select(func.coalesce(Lease.scope, last))
        .join(Part, Part.lease_id == Lease.id)
        .where(
            Lease.site_id == turn.site_id,
            Lease.gone_at.is_(None),
            Part.kind.in_((PartKind.SERVER, PartKind.SNAPSHOT)),
            Part.remote_id.is_not(None),
            Part.gone_at.is_(None),
        )
        .distinct()
    )
    others = set(scopes) - {None, listing.scope}
    if others:
        raise SiteDenied(
            f"the credential opens another project ({listing.scope}) than the one that our machines are in "
            f"({', '.join(sorted(filter(None, others)))})",
            hint="Give the site a credential of that project until they have ended.",
        )


def _record_quotas(session: Session, turn: Turn, quotas: Iterable[RemoteQuota]) -> None:
    rows = [
        {
            "id": new_id(),
            "site_id": turn.site_id,
            "resource": quota.resource,
            "quota": quota.limit,
            "used": quota.used,
            "as_of": turn.started_at,
        }
        for quota in quotas
    ]
    if not rows:
        return
    pools = session.scalars(
        select(QuotaPool.id)
        .where(QuotaPool.site_id == turn.site_id)
        .order_by(QuotaPool.id)
        .with_for_update(key_share=True)
    )
    pools.all()
    row = insert(QuotaPool).values(rows)
    session.execute(
        row.on_conflict_do_update(
            index_elements=["site_id", "resource"],
            set_={"quota": row.excluded.quota, "used": row.excluded.used, "as_of": row.excluded.as_of},
            where=QuotaPool.as_of < row.excluded.as_of,
        )
    )


def _servers(session: Session, turn: Turn) -> dict[UUID, str]:
    """Live leases of the site whose machine was made before the listing began, with its id."""
    found = session.execute(
        select(Lease.id, Part.remote_id)
        .join(Part, Part.lease_id == Lease.id)
        .where(
            Lease.site_id == turn.site_id,
            Lease.gone_at.is_(None),
            Part.kind == PartKind.SERVER,
            Part.remote_id.is_not(None),
            Part.gone_at.is_(None),
            Part.made_at < turn.started_at,
        )
    )
    return {lease_id: remote_id for lease_id, remote_id in found if remote_id is not None}


def _record_presence(
    session: Session, turn: Turn, found: Mapping[UUID, RemoteMachine | None], *, settle: timedelta
) -> set[UUID]:
    """Every live lease whose machine is made is either in the listing or missing from it; returns whom to wake."""
    woken = set()
    leases = [lease for lease in locked(session, found) if lease.gone_at is None]
    last = last_observations(session, found)
    present = [lease.id for lease in leases if found[lease.id] is not None]
    session.execute(
        update(QuotaHold)
        .where(QuotaHold.lease_id.in_(present), QuotaHold.counted_at.is_(None))
        .values(counted_at=turn.started_at)
    )
    for lease in leases:
        machine = found[lease.id]
        if machine is not None:
            if see(session, lease, machine, seen_at=turn.started_at, last=last.get(lease.id)):
                woken.add(lease.id)
        elif lease.seen_at is not None and lease.seen_at >= turn.started_at:
            continue  # a look has shown it since: this listing is older
        elif lease.missing_since is None:
            lease.missing_since = turn.started_at
        elif turn.started_at - lease.missing_since >= settle and not lease.is_missing:
            lease.is_missing = True
            tell(session, lease, "missing", "two complete listings did not show the machine")
            woken.add(lease.id)
    return woken


def _record_findings(
    session: Session, turn: Turn, listing: Listing, left: Sequence[Left], *, known: Collection[str]
) -> None:
    """A finding for each thing that needs a person; machines that no Leeway made are never touched.

    A machine that is `known` is ours, whatever became of its tags. Where Leeway only observes, nobody expects it to
    know any: `broker.waste` tells what lies idle there.
    """
    site = session.get_one(Site, turn.site_id)
    ours = "carries this installation's tags, no lease is known for it, and it cannot be taken back"
    concerns = [
        *(_concern(turn, OURS_UNKNOWN, one.thing, f"{ours}: {one.why}", hint=one.hint) for one in left),
        *(
            _concern(turn, UNKNOWN_MACHINE, machine, "was not made by Leeway", hint=_NOT_OURS)
            for machine in listing.machines
            if not site.observe_only and machine.tags is None and machine.remote_id not in known
        ),
    ]
    concerns += [
        Concern(
            kind=UNREAD,
            key=f"{turn.site_id}:{kind}",
            text=f"what {site.name} has of the kind {kind} could not be listed: {why}",
            hint="Machines go on as ever. Mend the credential or ask the site (`leeway site check`).",
            site_id=turn.site_id,
        )
        for kind, why in listing.unread.items()
    ]
    raise_findings(session, concerns, now=turn.started_at)
    for kind in (OURS_UNKNOWN, UNKNOWN_MACHINE, UNREAD):
        resolve_findings(session, kind, site_id=turn.site_id, now=turn.started_at)


def _concern(turn: Turn, kind: str, thing: RemotePart, what: str, *, hint: str) -> Concern:
    return Concern(
        kind=kind,
        key=f"{turn.site_id}:{thing.remote_id}",
        text=f"{thing.kind} {thing.name or thing.remote_id} {what}",
        hint=hint,
        site_id=turn.site_id,
    )
