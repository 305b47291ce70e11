"""What has not moved for longer than it should: each thing with since when, why, and what a person can do.

Questions to the rows only, so that they can be asked whether or not anything else works. A thing that moves by itself
after a short while is not overdue: an answer here means that somebody should look, or at least wants to know.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import ColumnElement, String, Text, cast, func, or_, select
from sqlalchemy.orm import Session

from broker.models.audit import Event
from broker.models.federation import Site
from broker.models.leases import OPEN, LaunchAttempt, Lease, Outcome, Part
from broker.models.messages import Message
from broker.models.workloads import Order, OrderState, WorkloadRow
from broker.sites import wants_check

# Of one kind at most so many are told; the first are the oldest.
MOST: Final = 20
# From so many failures in a row on, trouble is not a hiccup.
FAILURES: Final = 5


@dataclass(frozen=True, slots=True)
class Overdue:
    """One thing that does not move. `since` None: nobody wrote that down."""

    kind: str
    thing: str
    since: datetime | None
    why: str
    hint: str


@dataclass(frozen=True, slots=True)
class Patience:
    """How long what may take, by the settings.

    Attributes:
        due: from the moment a lease or site is due until a worker has it.
        listing: between two listings of a site, complete or of what changed.
        settle: from the last moment a request may be sent until its outcome is known, and from the end of a lease
            until it is charged.
        order: for an order to start, or to end.
    """

    due: timedelta
    listing: timedelta
    settle: timedelta
    order: timedelta = timedelta(hours=1)


Finder = Callable[[Session, Patience, datetime], Iterator[Overdue]]


def overdue_rows(session: Session, patience: Patience, now: datetime) -> Iterator[Overdue]:
    """All that the core's own rows tell."""
    for find in _FINDERS:
        yield from find(session, patience, now)


@dataclass(frozen=True, slots=True)
class Waiting:
    """Leases that are due, and that nobody has claimed for too long; the first of them, and since when it is due."""

    count: int
    first: str
    since: datetime


def waiting_leases(session: Session, patience: Patience, now: datetime) -> Waiting | None:
    """None where there are none. Who should have claimed them, the queue may tell."""
    late = now - patience.due
    free = or_(Lease.claim_until.is_(None), Lease.claim_until < late)
    found = session.execute(
        select(machine_name(), Lease.next_look_at, func.count().over())
        .where(Lease.next_look_at < late, free)
        .order_by(Lease.next_look_at)
        .limit(1)
    ).one_or_none()
    return None if found is None or found[1] is None else Waiting(found[2], found[0], found[1])


def machine_name() -> ColumnElement[str]:
    """How a person knows a lease: its machine's name, and the beginning of its id, which `leeway show` takes."""
    name = func.coalesce(Lease.spec["name"].astext, "without a name")
    return func.concat("machine ", name, " (lease ", func.left(cast(Lease.id, String), 18), ")", type_=Text)


# --- leases ----------------------------------------------------------------------------------------------------------


def _lost_claims(session: Session, patience: Patience, now: datetime) -> Iterator[Overdue]:
    rows = session.execute(
        select(machine_name(), Lease.claim_until)
        .where(Lease.claim_until < now - patience.due)
        .order_by(Lease.claim_until)
        .limit(MOST)
    )
    for thing, since in rows:
        why = "the worker that had it died or froze, and no other has taken it"
        yield Overdue("claim", thing, since, why, "Nothing is lost: any live worker takes it. Is one running?")


def _failing(session: Session, patience: Patience, now: datetime) -> Iterator[Overdue]:  # noqa: ARG001 - a finder's signature
    rows = session.execute(
        select(
            Site.name, Lease.trouble, func.count(), func.max(Lease.failures), func.min(machine_name()), _soonest(now)
        )
        .join(Site, Site.id == Lease.site_id)
        .where(Lease.failures >= FAILURES)
        .group_by(Site.name, Lease.trouble)
        .order_by(func.count().desc(), Site.name)
        .limit(MOST)
    )
    for site, trouble, count, failures, one, soonest in rows:
        thing = one if count == 1 else f"{count} machines at {site}, such as {one}"
        why = f"failed {failures} times in a row at {site}: {trouble}"
        hint = f"Try `leeway site check {site}`. Next try: {soonest:%H:%M:%S} UTC, by itself."
        yield Overdue("backoff", thing, None, why, hint)


def _soonest(now: datetime) -> ColumnElement[datetime]:
    return func.greatest(func.min(Lease.next_look_at), now)


def _attempts(session: Session, patience: Patience, now: datetime) -> Iterator[Overdue]:
    rows = session.execute(
        select(machine_name(), Site.name, Part.kind, LaunchAttempt.started_at, LaunchAttempt.error)
        .join(Lease, Lease.id == LaunchAttempt.lease_id)
        .join(Part, Part.id == LaunchAttempt.part_id)
        .join(Site, Site.id == Lease.site_id)
        .where(LaunchAttempt.outcome.in_(OPEN), LaunchAttempt.give_up_at < now - patience.settle)
        .order_by(LaunchAttempt.started_at)
        .limit(MOST)
    )
    for thing, site, part, since, error in rows:
        why = f"{site} never said whether it made the {part}" + (f" ({error})" if error else "")
        hint = "See `leeway findings`: where nothing would stop a second one, a person has to look at the site."
        yield Overdue("attempt", thing, since, why, hint)


def _unsettled(session: Session, patience: Patience, now: datetime) -> Iterator[Overdue]:
    unresolved = (
        select(func.count())
        .where(LaunchAttempt.lease_id == Lease.id, LaunchAttempt.outcome.in_((*OPEN, Outcome.DISCARD)))
        .scalar_subquery()
    )
    is_late = Lease.gone_at < now - patience.settle
    rows = session.execute(
        select(machine_name(), Lease.gone_at, Lease.settle_trouble, unresolved)
        .where(Lease.settled_at.is_(None), or_(is_late, Lease.settle_failures >= FAILURES))
        .order_by(Lease.gone_at)
        .limit(MOST)
    )
    for thing, since, trouble, count in rows:
        if trouble is not None:
            why, hint = f"its accounting fails: {trouble}", "The log has the traceback; it is tried again by itself."
        elif count:
            why = f"it is over, but {count} of its launches may have made something, or left something to delete"
            hint = "Its hold stays until the site has shown that nothing is left; see `leeway findings`."
        else:
            why = "it is over, and its money is not settled"
            hint = "See `leeway findings`: a price may be missing. Else a worker does it; is one running?"
        yield Overdue("unsettled", thing, since, why, hint)


# --- orders ----------------------------------------------------------------------------------------------------------


def _orders(session: Session, patience: Patience, now: datetime) -> Iterator[Overdue]:
    stopped_at = select(func.max(Event.at)).where(Event.order_id == Order.id, Event.kind == "stop").scalar_subquery()
    trouble = select(func.min(Lease.trouble)).where(Lease.order_id == Order.id, Lease.gone_at.is_(None))
    states = select(func.string_agg(cast(Lease.state, Text).distinct(), ", ")).where(
        Lease.order_id == Order.id, Lease.gone_at.is_(None)
    )
    for state, since, doing in (
        (OrderState.PLACED, Order.placed_at, "start"),
        (OrderState.STOPPING, func.coalesce(stopped_at, Order.placed_at), "end"),
    ):
        rows = session.execute(
            select(Order.id, WorkloadRow.name, since, trouble.scalar_subquery(), states.scalar_subquery())
            .join(WorkloadRow, WorkloadRow.id == Order.workload_id)
            .where(Order.state == state, since < now - patience.order)
            .order_by(since)
            .limit(MOST)
        )
        for order_id, name, at, said, seen in rows:
            why = said or (f"its machines are {seen}" if seen else "its machines are gone, its money is not settled")
            hint = f"`leeway show {order_id}` tells what happened so far."
            yield Overdue("order", f"order {name}, which is to {doing}", at, why, hint)


# --- sites -----------------------------------------------------------------------------------------------------------


def _sites(session: Session, patience: Patience, now: datetime) -> Iterator[Overdue]:
    since = func.coalesce(Site.changes_at, Site.listed_at, Site.check_wanted_at)
    rows = session.scalars(
        select(Site).where(Site.is_enabled, since < now - patience.listing).order_by(since).limit(MOST)
    )
    for site in rows:
        hint = f"Try `leeway site check {site.name}`. Until it is listed, nobody knows what runs there."
        if site.trouble is not None:
            why = f"it could not be listed, {site.failures} times in a row: {site.trouble}"
        elif site.listing_claim_until is not None and site.listing_claim_until < now:
            why = "whoever listed it died or froze, and no other has taken it"
            hint = "Any live worker takes it. Is one running?"
        elif site.listing_claim_until is not None:
            why = "its listing takes this long"
        else:
            why, hint = "no worker lists it", "Is one running, and do silent sites hold its threads?"
        at = site.changes_at or site.listed_at or site.check_wanted_at
        yield Overdue("site", f"site {site.name}", at, why, hint)
    late = Site.check_wanted_at < now - patience.due - timedelta(minutes=1)
    for name, wanted_at in session.execute(
        select(Site.name, Site.check_wanted_at).where(wants_check(), late).order_by(Site.check_wanted_at).limit(MOST)
    ):
        why = "nobody has answered the wish to check its credential"
        yield Overdue("check", f"site {name}", wanted_at, why, "A worker does it by itself. Is one running?")


# --- messages --------------------------------------------------------------------------------------------------------


def _messages(session: Session, patience: Patience, now: datetime) -> Iterator[Overdue]:
    is_late = Message.next_try_at < now - patience.due - timedelta(minutes=2)
    rows = session.execute(
        select(Message.trouble, func.count(), func.min(Message.made_at), func.min(Message.subject))
        .where(Message.sent_at.is_(None), or_(is_late, Message.failures >= FAILURES))
        .group_by(Message.trouble)
        .order_by(func.min(Message.made_at))
        .limit(MOST)
    )
    for trouble, count, since, subject in rows:
        thing = f"message {subject!r}" if count == 1 else f"{count} messages, such as {subject!r}"
        why = f"it could not be sent: {trouble}" if trouble else "nobody sends it"
        hint = "Check the mail server's settings; it is tried again by itself." if trouble else "Is a worker running?"
        yield Overdue("message", thing, since, why, hint)


_FINDERS: Final[tuple[Finder, ...]] = (_lost_claims, _failing, _attempts, _unsettled, _orders, _sites, _messages)
