"""All that has not moved for longer than it should: rows, money, queue, clock, database. For `leeway doctor`."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import String, cast, func, select
from sqlalchemy.orm import Session

from accounting.overdue import overdue_holds
from broker.models.audit import ClockSlot
from broker.models.federation import Site
from broker.models.leases import Lease
from broker.orders import RECONCILE
from broker.overdue import Overdue, Patience, Waiting, machine_name, overdue_rows, waiting_leases
from broker.overdue_database import overdue_in_database
from broker.restored import look
from broker.sites import CHECK, OBSERVE
from web.clock import ticks
from web.queue import QueueState, Running, queue_state
from web.settings import Settings
from web.worker import SETTLE

# Adapters know their settle time; the rows do not. None of them asks for more.
_SETTLE: Final = timedelta(minutes=2)
_START: Final = "Start one: `leeway serve`, or `leeway worker` beside it."


def patience_of(settings: Settings) -> Patience:
    """How long what may take, by these settings."""
    return Patience(
        due=3 * settings.sweep_interval + timedelta(seconds=30),
        listing=3 * settings.listing_interval + settings.listing_timeout,
        settle=3 * (settings.settle_time or _SETTLE) + timedelta(minutes=2),
    )


def find_overdue(session: Session, settings: Settings, now: datetime) -> list[Overdue]:
    """Everything, the causes before what they cause."""
    patience = patience_of(settings)
    queue = queue_state(session)
    standing = look(session)
    is_observing = standing is not None and standing.observing_since is not None
    found = [*_clock(session, settings, now), *_queue(session, settings, queue, patience=patience, now=now)]
    waiting = None if is_observing else waiting_leases(session, patience, now)
    if waiting is not None:
        found.append(_waiting(session, waiting, queue, now=now))
    found += overdue_in_database(session)
    found += overdue_rows(session, patience, now)
    found += overdue_holds(session, patience, now)
    if is_observing and standing is not None:
        why = standing.reason or "nobody said why"
        hint = "Nothing is started, changed or ended. Once every site was listed, run `leeway resume`."
        found.insert(0, Overdue("observing", "Leeway itself", standing.observing_since, f"only observes: {why}", hint))
    return found


def _waiting(session: Session, waiting: Waiting, queue: QueueState, *, now: datetime) -> Overdue:
    """Leases that nobody claims: because nobody is there, because all are busy, or for a reason that is not known."""
    thing = waiting.first if waiting.count == 1 else f"{waiting.count} machines, the first of them {waiting.first}"
    if queue.workers == 0:
        return Overdue("machine", thing, waiting.since, "no worker is alive", _START)
    if not queue.running:
        why = f"{_number(queue.workers)} alive, and not one works"
        return Overdue("machine", thing, waiting.since, why, "Restart it; its log may say why.")
    oldest = ", ".join(_doing(session, running, now) for running in queue.running[:3])
    why = f"{_number(queue.workers)} alive, busy with {len(queue.running)} things, the longest: {oldest}"
    hint = "Run one more `leeway worker`, or raise LEEWAY_WORKERS."
    return Overdue("machine", thing, waiting.since, why, hint)


def _number(workers: int) -> str:
    return "1 worker is" if workers == 1 else f"{workers} workers are"


def _doing(session: Session, running: Running, now: datetime) -> str:
    thing = running.key
    if running.task in (RECONCILE, SETTLE):
        found = session.scalars(select(machine_name()).where(cast(Lease.id, String) == running.key))
        thing = found.one_or_none() or thing
    elif running.task in (OBSERVE, CHECK):
        named = session.scalars(select(Site.name).where(cast(Site.id, String) == running.key)).one_or_none()
        thing = f"site {named}" if named else thing
    age = "" if running.since is None else f" for {int((now - running.since).total_seconds())} s"
    return f"{running.task} of {thing}{age}"


def _queue(
    session: Session, settings: Settings, queue: QueueState, *, patience: Patience, now: datetime
) -> Iterator[Overdue]:
    if queue.oldest is not None and queue.oldest < now - patience.due:
        why = "no worker is alive" if queue.workers == 0 else f"{_number(queue.workers)} alive, and behind"
        hint = _START if queue.workers == 0 else "Run one more: `leeway worker`."
        yield Overdue("queue", f"{queue.waiting} wake-ups in the queue", queue.oldest, why, hint)
    longest = 2 * max(settings.listing_timeout, settings.call_timeout, settings.claim_time)
    for running in queue.running:
        if running.since is not None and running.since < now - longest:
            doing = _doing(session, running, now)
            why = "a worker's thread hangs in it: no deadline lets work take this long"
            yield Overdue("thread", doing, running.since, why, "Please report it, and restart that worker.")


def _clock(session: Session, settings: Settings, now: datetime) -> Iterator[Overdue]:
    """Ticks that no replica has taken: three in a row and a little more."""
    taken = dict(session.execute(select(ClockSlot.name, func.max(ClockSlot.slot)).group_by(ClockSlot.name)).all())
    for ticking in ticks(settings):
        last = taken.get(ticking.name)
        if last is not None and last < now - 3 * ticking.every - timedelta(seconds=30):
            why = "no clock has ticked: none runs, or its tick fails (its log says why)"
            yield Overdue("clock", f"the clock's {ticking.name}", last, why, _START)
