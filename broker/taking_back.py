"""Machines whose orders no row knows any more: taken back from what they say of themselves.

A row is committed before anything is made, and rows are never deleted. So what carries this installation's tags and the
id of a lease that no row knows was ordered after the backup was made that the rows come out of. Once Leeway acts again
(`leeway resume`) each listing takes such machines back, one transaction each: workload, quote, order, lease, parts and
holds are rebuilt (`broker.rebuilt`). From then on the lease is like any other, and charged from when it began.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from broker import rebuilt
from broker.errors import Conflict, GrantExhausted, NotFound, RateMissing, Rejected
from broker.extensions import HOLD_REFUSED
from broker.lost import Find
from broker.models.leases import Lease
from broker.models.people import Project
from broker.models.workloads import Order, Quote, QuoteOffer
from broker.observations import see
from broker.orders import RECONCILE
from broker.placement import Assumptions
from broker.ports import CloudAdapter
from broker.quotes import assumptions_of
from broker.reckoning import Rates, runs_of, whole_hold
from broker.remote import Listing, MachineState, PartKind, RemoteMachine, RemotePart, ThingKind
from broker.restored import HINT, acts
from broker.timeline import Concern, raise_finding, tell_order
from broker.tools import Tools
from broker.values import Amount
from broker.workloads import MAX_DURATION

Writing = Callable[[], AbstractContextManager[Session]]


@dataclass(frozen=True, slots=True)
class Left:
    """Something of ours that could not be taken back: why, and what to do."""

    thing: RemotePart
    why: str
    hint: str


def take_back(
    tools: Tools, listing: Listing, lost: Sequence[RemotePart], *, site_id: UUID, seen_at: datetime, writing: Writing
) -> list[Left]:
    """Take back what can be; returns the rest with the reasons. While Leeway only observes, nothing is.

    Each lease in a transaction of its own that `writing` opens, so that a kill at any point leaves whole leases. Who
    comes second finds the lease known.
    """
    groups: dict[UUID, list[RemotePart]] = defaultdict(list)
    for thing in lost:
        if thing.tags is not None:
            groups[thing.tags.lease].append(thing)
    if not groups:
        return []
    adapter = tools.open_site(site_id)
    left: list[Left] = []
    for lease_id, things in sorted(groups.items()):
        try:
            with writing() as session:
                _require_lost(session, lease_id)
                find = _find(things, listing, site_id=site_id, seen_at=seen_at)
                _take_back(session, tools, adapter, find)
        except Rejected as refusal:
            left += [Left(thing, refusal.detail, refusal.hint or "Delete it at the site.") for thing in things]
    return left


def _require_lost(session: Session, lease_id: UUID) -> None:
    """Raises Conflict where somebody has taken it back meanwhile, or nobody may."""
    session.execute(select(func.pg_advisory_xact_lock(func.hashtext(f"take back:{lease_id}"))))
    if session.get(Lease, lease_id) is not None:
        raise Conflict("its lease is at another site", hint="Do two sites share an account? Then leave it alone.")
    if not session.scalars(select(acts())).one():
        raise Conflict("Leeway only observes", hint=HINT)


def _find(things: Sequence[RemotePart], listing: Listing, *, site_id: UUID, seen_at: datetime) -> Find:
    """Of several machines the one that runs is taken; the others are then leftovers of its lease."""
    machines = [(thing, thing.tags) for thing in things if isinstance(thing, RemoteMachine) and thing.tags is not None]
    if not machines:
        kept = [thing.tags.until for thing in things if thing.kind is PartKind.SNAPSHOT and thing.tags is not None]
        hint = "Nothing runs on it: delete it at the site."
        if kept:
            hint = f"It is all that is left of a machine's disk, and was to be kept until {_words(max(kept))}: start a "
            hint += "machine from it at the site, or delete it there."
        raise Conflict("it belongs to no machine", hint=hint)
    # Attempts' ids are in the order of the requests.
    machine, tags = min(
        machines, key=lambda one: (one[0].state is not MachineState.RUNNING, one[1].attempt, one[0].remote_id)
    )
    disks = tuple(
        thing
        for thing in listing.things
        if thing.kind is ThingKind.VOLUME
        and (thing.attached_to == machine.remote_id or (thing.tags is not None and thing.tags.lease == tags.lease))
    )
    unread = listing.unread.get(ThingKind.VOLUME)
    return Find(site_id, listing.scope, seen_at, machine, tags, tuple(things), disks, unread)


def _take_back(session: Session, tools: Tools, adapter: CloudAdapter, find: Find) -> None:
    """All rows of one lease.

    Raises:
        Rejected: why it cannot be.
    """
    project = session.scalars(select(Project).where(Project.name == find.tags.project)).one_or_none()
    if project is None:
        raise NotFound(
            f"there is no project {find.tags.project!r}",
            hint=f"Make it (`leeway project add {find.tags.project}`), and the next listing takes it back.",
        )
    now = session.scalars(select(func.clock_timestamp())).one()
    ware = rebuilt.ware_of(session, find, now=now)
    assumed = _assumptions(session)
    order = rebuilt.add_order(session, find, ware, project=project, assumed=assumed)
    lease = rebuilt.add_lease(session, find, ware, order=order, assumed=assumed)
    rebuilt.add_parts(session, adapter, find, lease)
    rebuilt.add_quota(session, find, ware)
    see(session, lease, find.machine, seen_at=find.seen_at, last=None)
    rebuilt.set_times(find, order, lease, now=now)
    session.flush()
    text = (
        f"taken back after a restore: {find.machine.name} is there, and no row knew of it; ends {_words(lease.ends_at)}"
    )
    tell_order(session, order, "taken_back", text)
    _hold(session, tools, order, lease, window=assumed.hold_window, now=now)
    tools.jobs.defer(session, RECONCILE, str(lease.id))


def _assumptions(session: Session) -> Assumptions:
    """As this installation quotes: the newest quote says."""
    newest = session.scalars(select(Quote).order_by(Quote.made_at.desc()).limit(1)).first()
    return Assumptions() if newest is None else assumptions_of(newest)


def _words(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"


# --- its money ---------------------------------------------------------------------------------------------------


def _hold(session: Session, tools: Tools, order: Order, lease: Lease, *, window: timedelta, now: datetime) -> None:
    """Set aside what it used and may use yet. Without money it is taken back all the same, and its ladder begins."""
    reach = now + window if window < MAX_DURATION else lease.ends_at
    order.held_until = None if lease.ends_at <= reach else reach
    so_far = tools.ledger.so_far(session, order.id)
    runs = runs_of(session, order, [lease], so_far, until=None, now=now)
    amounts = whole_hold(Rates(session, now), so_far, runs)
    until = max(run.period.end for run in runs)
    try:
        with session.begin_nested():
            session.connection()  # it sets the savepoint
            tools.ledger.hold(session, order.id, amounts, until, now=now)
    except (GrantExhausted, RateMissing) as refusal:
        order.held_until = now
        _tell_refusal(session, order, lease, refusal, now=now)
        return
    held = ", ".join(map(str, amounts))
    tell_order(session, order, "hold", f"{held} set aside until {_words(until)}")


def _tell_refusal(session: Session, order: Order, lease: Lease, refusal: Rejected, *, now: datetime) -> None:
    """As where the money for a next window cannot be set aside; that is tried again by itself."""
    text = f"{lease.spec['name']} was taken back after a restore, and no money can be set aside: {refusal.detail}"
    tell_order(session, order, "hold", text)
    concern = Concern(
        kind=HOLD_REFUSED,
        key=str(order.id),
        text=text,
        hint="Add a grant, or stop something else: Leeway tries again by itself. Without money the machine is powered "
        "off now, deleted after the stop delay, and until that comes back as soon as there is money.",
        site_id=lease.site_id,
        lease_id=lease.id,
        per_day=_per_day(session, order),
    )
    raise_finding(session, concern, now=now)


def _per_day(session: Session, order: Order) -> Amount:
    picked = session.get_one(QuoteOffer, order.quote_offer_id)
    return Amount.of(picked.hourly, picked.commodity).times(24)
