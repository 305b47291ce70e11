"""The clock: APScheduler in every replica. A tick belongs to the replica that inserts its slot; no leader is needed.

A tick never means one piece of work: it means "do all that is due at the database's now()", so a missed one costs
nothing but time.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from types import TracebackType
from typing import Final, Self
from uuid import UUID

from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.cron import CronTrigger
from procrastinate.exceptions import ConnectorException
from sqlalchemy import delete, exists, func, or_, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from accounting.models.charges import Segment
from accounting.order_money import spent_so_far
from broker.boot_tests import end_boot_tests, start_planned
from broker.database import database_now
from broker.errors import SetupError
from broker.extensions import ROLL, orders_to_roll
from broker.health import forget_contacts
from broker.messages import is_mail_due
from broker.models.audit import ClockSlot
from broker.models.federation import Site
from broker.models.leases import Lease, Observation
from broker.orders import RECONCILE
from broker.reminders import remind
from broker.restored import look
from broker.sites import CHECK, OBSERVE, listing_is_due, wants_check
from broker.unreachable import tell_unreachable
from broker.values import Period, month_starts
from web.compose import Services
from web.queue import clean, keys_waiting
from web.settings import Settings
from web.worker import MAIL, SETTLE

log = logging.getLogger(__name__)

# A sweep wakes at most this many leases; the next one goes on.
SWEEP = 500


# --- the ticks: each does all that is due -------------------------------------------------------------------------


def sweep(session: Session, services: Services, now: datetime) -> None:
    """Wake workers for every lease and site that is due and that nobody is at.

    In the order of their ids, as everybody wakes them: two who wake the same wait for each other, and do not deadlock.
    While Leeway only observes (`broker.restored`), no lease is claimed, so none is woken.
    """
    _wake_sites(session, services)
    standing = look(session)
    if standing is None or standing.observing_since is not None:
        return
    free = or_(Lease.claim_until.is_(None), Lease.claim_until < now)
    due = select(Lease.id).where(Lease.next_look_at <= now, free).order_by(Lease.next_look_at).limit(SWEEP)
    _wake(session, services, RECONCILE, session.scalars(due).all())


def _wake_sites(session: Session, services: Services) -> None:
    _wake(session, services, OBSERVE, session.scalars(select(Site.id).where(listing_is_due())).all())
    _wake(session, services, CHECK, session.scalars(select(Site.id).where(wants_check())).all())


def _wake(session: Session, services: Services, task: str, ids: Sequence[UUID]) -> None:
    """Those that no wake-up waits for: one question for all, as a busy queue holds most of them already."""
    waiting = keys_waiting(session, task) if ids else set()
    for key in sorted(ids):
        if str(key) not in waiting:
            services.jobs.defer(session, task, str(key))


def cut_months(session: Session, services: Services, now: datetime) -> None:
    """Wake accounting for leases whose open segment began in an earlier month, and those it has not been told of.

    The latter: a process died between what it saw of a machine and the machine's money.
    """
    opened = select(Segment.lease_id, Segment.starts_at).where(Segment.ends_at.is_(None))
    due = {
        lease_id
        for lease_id, starts_at in session.execute(opened)
        if month_starts(Period(starts_at, max(now, starts_at)))
    }
    was_seen = exists().where(Observation.lease_id == Lease.id)
    has_segment = exists().where(Segment.lease_id == Lease.id)
    due |= set(session.scalars(select(Lease.id).where(Lease.settled_at.is_(None), was_seen, ~has_segment)))
    _wake(session, services, SETTLE, list(due))


def roll_holds(session: Session, services: Services, now: datetime) -> None:
    """Orders whose money lasts for less than half a window."""
    _wake(session, services, ROLL, orders_to_roll(session, now=now, window=services.funding.window))


def clean_queue(session: Session, services: Services, now: datetime) -> None:  # noqa: ARG001 - a tick's signature
    """Jobs of dead workers are nobody's: the rows say it all."""
    timing, pace = services.tools.timing, services.tools.pace
    clean(session, longest=2 * max(timing.call, timing.claim, pace.call))


def write_reminders(session: Session, services: Services, now: datetime) -> None:  # noqa: ARG001 - a tick's signature
    """Messages about what will end soon, or cannot be paid any longer."""
    remind(session, now=now, spent=lambda order_ids: spent_so_far(session, order_ids, now=now))


def post(session: Session, services: Services, now: datetime) -> None:  # noqa: ARG001 - a tick's signature
    """Wake a worker for messages that are due: it sends them, as that takes its time."""
    if is_mail_due(session):
        services.jobs.defer(session, MAIL, str(services.doors.installation))


def tell_sites(session: Session, services: Services, now: datetime) -> None:  # noqa: ARG001 - a tick's signature
    """Findings for sites that cannot be listed."""
    tell_unreachable(session, now)


def start_boot_tests(session: Session, services: Services, now: datetime) -> None:
    """One of the boot tests that are due: two would take the locks of two orders in one transaction."""
    start_planned(session, services.ordering, now=now)


def judge_boot_tests(session: Session, services: Services, now: datetime) -> None:  # noqa: ARG001 - a tick's signature
    """Stop the machines of boot tests of which it is known what came of them."""
    end_boot_tests(session, jobs=services.jobs)


def forget(session: Session, services: Services, now: datetime) -> None:  # noqa: ARG001 - a tick's signature
    """Slots cannot be taken again: no clock is hours late. And what sites answered long ago."""
    session.execute(delete(ClockSlot).where(ClockSlot.slot < now - timedelta(hours=6)))
    forget_contacts(session, now=now)


def keep_position(session: Session, services: Services) -> None:
    """How far the database's log has come, in this replica's own file."""
    services.marks.keep_position(session)


def write_contacts(session: Session, services: Services) -> None:
    """What this process's contacts with sites were like."""
    services.contacts.write(session)


Tick = Callable[[Session, Services, datetime], None]
OwnTick = Callable[[Session, Services], None]


@dataclass(frozen=True, slots=True)
class Ticking:
    """A tick that one replica does for all, in every slot of `every`: whole seconds, minutes or hours."""

    name: str
    tick: Tick
    every: timedelta


def ticks(settings: Settings) -> tuple[Ticking, ...]:
    """What the replicas take turns in."""
    minute, hour = timedelta(minutes=1), timedelta(hours=1)
    return (
        Ticking("sweep", sweep, max(timedelta(seconds=1), min(settings.sweep_interval, minute))),
        Ticking("clean-queue", clean_queue, minute),
        Ticking("tell-sites", tell_sites, minute),
        Ticking("roll-holds", roll_holds, minute if settings.hold_window > hour else timedelta(seconds=1)),
        Ticking("cut-months", cut_months, hour),
        Ticking("remind", write_reminders, hour),
        Ticking("mail", post, minute),
        Ticking("start-boot-tests", start_boot_tests, minute),
        Ticking("judge-boot-tests", judge_boot_tests, timedelta(seconds=5)),
        Ticking("forget", forget, hour),
    )


# What every replica does for itself, and how often.
OWN: Final[dict[str, tuple[OwnTick, timedelta]]] = {
    "keep-position": (keep_position, timedelta(minutes=1)),
    "write-contacts": (write_contacts, timedelta(seconds=5)),
}


# --- the clock -----------------------------------------------------------------------------------------------------


class Clock:
    """Ticks until it is closed; each tick also once at the start."""

    def __init__(self, services: Services) -> None:
        """Nothing runs before `__enter__`."""
        self._services = services
        self._scheduler = BackgroundScheduler(timezone=UTC)
        self._patience = (3 * services.settings.sweep_interval + timedelta(seconds=30)).total_seconds()
        self._swept = time.monotonic()
        for ticking in ticks(services.settings):
            self._add(ticking.name, partial(self._turn, ticking), ticking.every)
        for name, (tick, every) in OWN.items():
            self._add(name, partial(self._own, name, tick), every)

    def _add(self, name: str, run: Callable[[], None], every: timedelta) -> None:
        # `misfire_grace_time`: a late tick is a tick. One that still runs is not started twice.
        self._scheduler.add_job(
            run,
            _trigger(every),
            id=name,
            next_run_time=datetime.now(UTC),
            misfire_grace_time=None,
            coalesce=True,
            max_instances=1,
        )

    def _turn(self, ticking: Ticking) -> None:
        """Take the slot and do the work in one transaction; whoever comes second finds the slot taken."""

        def take(session: Session, services: Services) -> None:
            now = database_now(session)
            length = int(ticking.every.total_seconds())
            slot = datetime.fromtimestamp(now.timestamp() // length * length, tz=UTC)
            row = insert(ClockSlot).values(name=ticking.name, slot=slot).on_conflict_do_nothing()
            if session.scalars(row.returning(ClockSlot.slot)).one_or_none() is not None:
                ticking.tick(session, services, now)

        try:
            self._own(ticking.name, take)
        finally:
            if ticking.tick is sweep:
                self._swept = time.monotonic()

    def _own(self, name: str, tick: OwnTick) -> None:
        """One tick, one transaction. An error that is not the database's is logged by APScheduler, which goes on."""
        try:
            with self._services.sessions.begin() as session:
                tick(session, self._services)
        except (OperationalError, ConnectorException, SetupError) as error:
            # The database is busy, or away (which connecting says as SetupError, and the queue in its own way): the
            # next tick does all of it.
            detail = error.detail if isinstance(error, SetupError) else str(error.__cause__ or error)
            log.warning("clock tick failed", extra={"tick": name, "detail": detail})

    @property
    def is_alive(self) -> bool:
        """False where it has not even tried to sweep for three intervals and half a minute."""
        return time.monotonic() - self._swept < self._patience

    def __enter__(self) -> Self:
        """Start ticking."""
        # It warns when a tick is skipped because the last one still runs; that one does what is due.
        logging.getLogger("apscheduler.scheduler").setLevel(logging.ERROR)
        self._swept = time.monotonic()
        self._scheduler.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop, after the running tick."""
        self._scheduler.shutdown(wait=True)


def _trigger(every: timedelta) -> CronTrigger:
    """Five seconds into the minute or the hour, where the slots are that long: not all at once with the sweep."""
    seconds = int(every.total_seconds())
    if seconds < 60:
        return CronTrigger(second=f"*/{seconds}", timezone=UTC)
    if seconds < 3600:
        return CronTrigger(minute=f"*/{seconds // 60}", second=5, timezone=UTC)
    return CronTrigger(hour=f"*/{seconds // 3600}", minute=0, second=5, timezone=UTC)


def due_count(session: Session) -> int:
    """Leases that are due now: for health and metrics."""
    return session.scalars(select(func.count()).where(Lease.next_look_at <= func.clock_timestamp())).one()
