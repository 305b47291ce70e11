"""One site: a complete listing becomes observations, presence, quota and findings.

A listing begins at `started_at`, by the database's clock read before the first request: what it shows was so at that
moment or later. A machine counts as missing when two complete listings, begun at least one settle time apart, lack it;
only then may a look's 404 say that it is gone (`broker.watching`). An error of any page is an error of the listing.

Between complete listings an adapter that can is asked only for what changed (`broker.increments`). That says nothing of
what it does not name, so a machine's absence, things that are no machines, and all findings wait for the next complete
one: after `Pace.full` at the latest, after any failure, whenever it is wanted, and while Leeway only observes.

What was seen is written in many short transactions, so that a site with thousands of machines keeps nobody waiting for
its quota or its leases. Each of them sees to it that the turn is still ours; what one of them did not get to, the next
listing does.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy import and_, case, delete, func, null, or_, update
from sqlalchemy.orm import Session

from broker.adopted import UNSEEN, record_adopted, unseen
from broker.catalogue import record_catalogue
from broker.endings import correct_ends
from broker.errors import Fenced, LeewayError
from broker.increments import observe_changes
from broker.models.federation import Site
from broker.models.leases import SiteListing
from broker.ports import CloudAdapter, Increments
from broker.presence import (
    chunks,
    leased_servers,
    record_ours,
    record_presence,
    record_quotas,
    refuse_another_scope,
    wake,
)
from broker.price_lists import price_list
from broker.remote import Deadline, Listing, RemoteImage, RemoteMachine, RemoteOffer, RemotePart, RemoteQuota, ThingKind
from broker.restored import only_observes
from broker.taking_back import Left, take_back
from broker.things import record_things
from broker.timeline import Concern, raise_findings, resolve_findings
from broker.tools import Pace, Tools
from broker.turns import Progress, Turn, claim_length, end_turn, give_up, go_on, writing
from broker.values import Amount
from broker.waste import Look, idle_machines, tell_waste
from broker.worth import PriceList

UNKNOWN_MACHINE = "unknown_machine"
OURS_UNKNOWN = "ours_unknown"
UNREAD = "unread_things"
_NOT_OURS = "Leave it to its owner; if it has none, delete it at the site."
# How long listings are remembered.
KEPT = timedelta(days=1)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Seen:
    """What a visit for a complete listing brought. `offers` and `images` are None where they were not due."""

    listing: Listing
    quotas: tuple[RemoteQuota, ...]
    offers: tuple[RemoteOffer, ...] | None
    images: tuple[RemoteImage, ...] | None


def observe(tools: Tools, turn: Turn) -> bool:
    """List a site, or what changed there, and write down what was seen; False where another lister took over meanwhile.

    Whatever it raises, the site's row says why, and the next try is backed off.

    Raises:
        SiteError: of the site, or because the listing is of another credential scope than our machines there.
        LeewayError: the site cannot be opened.
    """
    trouble: str | None = "the last listing did not finish"
    try:
        adapter = tools.open_site(turn.site_id)
        settle = tools.timing.settle_of(adapter)
        if turn.changed_since is not None and isinstance(adapter, Increments):
            observe_changes(tools, turn, adapter, since=turn.changed_since - settle, settle=settle)
        else:
            _record(tools, turn, _visit(adapter, turn, tools), settle=settle)
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
            give_up(tools, turn, trouble)
    return True


def take_turn(tools: Tools, site_id: UUID) -> Turn | None:
    """Claim a site whose listing is due; None where it is not, or another lister is at it."""
    now = func.clock_timestamp()
    pace = tools.pace
    refresh = or_(Site.refreshed_at.is_(None), Site.refreshed_at < now - pace.catalogue)
    is_full = or_(
        Site.listed_at.is_(None),
        Site.listed_at < now - pace.full,
        Site.failures > 0,
        and_(Site.full_listing_wanted_at.is_not(None), Site.listed_at < Site.full_listing_wanted_at),
        only_observes(),
        refresh,
    )
    with tools.sessions.begin() as session:
        row = session.execute(
            update(Site)
            .where(
                Site.id == site_id,
                Site.is_enabled,
                Site.next_listing_at <= now,
                or_(Site.listing_claim_until.is_(None), Site.listing_claim_until < now),
            )
            .values(
                listing_generation=Site.listing_generation + 1,
                listing_claim_until=now + claim_length(tools),
                listing_since=now,
                listing_read=0,
            )
            .returning(
                Site.listing_generation,
                now,
                case((is_full, null()), else_=func.coalesce(Site.changes_at, Site.listed_at)),
                refresh,
            )
        ).one_or_none()
    return None if row is None else Turn(site_id, row[0], row[1], row[2], row[3])


def _visit(adapter: CloudAdapter, turn: Turn, tools: Tools) -> Seen:
    """Ask the site. Quota after the listing: what the listing shows is then surely in `used`."""
    deadline = Deadline.after(tools.pace.call.total_seconds())
    listing = adapter.listing(deadline=deadline, progress=Progress(tools.sessions, turn))
    quotas = tuple(adapter.quotas(deadline=deadline))
    if not turn.refresh:
        return Seen(listing, quotas, None, None)
    return Seen(listing, quotas, tuple(adapter.offers(deadline=deadline)), tuple(adapter.images(deadline=deadline)))


# --- what was seen -----------------------------------------------------------------------------------------------


def _record(tools: Tools, turn: Turn, seen: Seen, *, settle: timedelta) -> None:
    listing = seen.listing
    with writing(tools, turn) as session:
        go_on(session, tools, turn)
        refuse_another_scope(session, turn, listing.scope)
        # `used` before `counted_at` below: meanwhile a machine counts twice, never not at all.
        record_quotas(session, turn, seen.quotas)
        if seen.offers is not None and seen.images is not None:
            record_catalogue(session, turn.site_id, seen.offers, seen.images, now=turn.started_at)
        servers = leased_servers(session, turn)
    machines = {machine.remote_id: machine for machine in listing.machines}
    for chunk in chunks(sorted(servers)):
        with writing(tools, turn) as session:
            found = {lease_id: machines.get(servers[lease_id]) for lease_id in chunk}
            wake(session, tools, record_presence(session, turn, found, settle=settle, listing=listing))
    lost = record_ours(tools, turn, (*listing.machines, *listing.parts))
    ours = partial(writing, tools, turn)
    left = take_back(tools, listing, lost, site_id=turn.site_id, seen_at=turn.started_at, writing=ours)
    record_adopted(tools, listing, site_id=turn.site_id, started_at=turn.started_at, settle=settle, writing=ours)
    record_things(listing, site_id=turn.site_id, started_at=turn.started_at, writing=ours)
    tell_waste(turn.site_id, Look(tools.tolerance, turn.started_at, tools.installation), writing=ours)
    with ours() as session:
        _record_findings(session, turn, listing, left, known=frozenset(servers.values()))
        _finish(session, turn, listing, tools.pace, is_waited_for=bool(left))


def _finish(session: Session, turn: Turn, listing: Listing, pace: Pace, *, is_waited_for: bool) -> None:
    """The listing is complete, and written down.

    `is_waited_for`: what a person mends, the next complete listing puts right, so that is the next one.
    """
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
    more: dict[str, Any] = {"refreshed_at": turn.started_at} if turn.refresh else {}
    if is_waited_for:
        more["full_listing_wanted_at"] = now
    end_turn(
        session,
        turn,
        listed_at=turn.started_at,
        changes_at=None,
        next_listing_at=now + pace.listing,
        failures=0,
        trouble=None,
        **more,
    )


def _record_findings(
    session: Session, turn: Turn, listing: Listing, left: Sequence[Left], *, known: Collection[str]
) -> None:
    """A finding for each thing that needs a person; machines that no Leeway made are never touched.

    A machine that is `known` is ours, whatever became of its tags. Where Leeway only observes, nobody expects it to
    know any: `broker.waste` tells what lies idle there. Of what that has told, nothing is told twice: it costs once.
    """
    site = session.get_one(Site, turn.site_id)
    prices = price_list(session, site, now=turn.started_at)
    idle = idle_machines(session, turn.site_id)
    ours = "carries this installation's tags, no lease is known for it, and it cannot be taken back"
    concerns = [
        *(_concern(turn, OURS_UNKNOWN, one.thing, f"{ours}: {one.why}", hint=one.hint) for one in left),
        *(
            replace(
                _concern(turn, UNKNOWN_MACHINE, machine, "was not made by Leeway", hint=_NOT_OURS),
                per_day=_per_day(prices, machine),
            )
            for machine in listing.machines
            if not site.observe_only
            and machine.tags is None
            and machine.remote_id not in known
            and machine.remote_id not in idle
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
    raise_findings(session, [*concerns, *unseen(session, site, listing)], now=turn.started_at)
    for kind in (OURS_UNKNOWN, UNKNOWN_MACHINE, UNREAD, UNSEEN):
        resolve_findings(session, kind, site_id=turn.site_id, now=turn.started_at)


def _per_day(prices: PriceList, machine: RemoteMachine) -> Amount | None:
    cost = prices.hourly(ThingKind.SERVER, state=machine.state, instance_type=machine.instance_type)
    return None if cost is None else cost.times(24).stored()


def _concern(turn: Turn, kind: str, thing: RemotePart, what: str, *, hint: str) -> Concern:
    return Concern(
        kind=kind,
        key=f"{turn.site_id}:{thing.remote_id}",
        text=f"{thing.kind} {thing.name or thing.remote_id} {what}",
        hint=hint,
        site_id=turn.site_id,
    )
