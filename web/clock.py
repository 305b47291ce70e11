"""The clock: APScheduler in every replica. A tick belongs to the replica that inserts its slot; no leader is needed.

A tick never means one piece of work: it means "do all that is due at the database's now()", so a missed one costs
nothing but time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Self
from uuid import UUID

from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.cron import CronTrigger
from sqlalchemy import delete, func, or_, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from accounting.models.charges import Segment
from broker.database import database_now
from broker.errors import SetupError
from broker.models.audit import ClockSlot
from broker.models.federation import Site
from broker.models.leases import Lease
from broker.orders import RECONCILE
from broker.sites import OBSERVE
from broker.values import Period, month_starts
from web.compose import Services
from web.queue import forget_abandoned, keys_waiting
from web.worker import SETTLE

log = logging.getLogger(__name__)

# A sweep wakes at most this many; the next one goes on.
SWEEP = 500


def sweep(session: Session, services: Services, now: datetime) -> None:
    """Wake workers for every lease and site that is due and that nobody is at.

    In the order of their ids, as everybody wakes them: two who wake the same wait for each other, and do not deadlock.
    """
    free = or_(Lease.claim_until.is_(None), Lease.claim_until < now)
    due = select(Lease.id).where(Lease.next_look_at <= now, free).order_by(Lease.next_look_at).limit(SWEEP)
    for lease_id in sorted(_not_waiting(session, RECONCILE, session.scalars(due).all())):
        services.jobs.defer(session, RECONCILE, str(lease_id))
    sites = select(Site.id).where(
        Site.next_listing_at <= now,
        Site.is_enabled,
        or_(Site.listing_claim_until.is_(None), Site.listing_claim_until < now),
    )
    for site_id in sorted(session.scalars(sites).all()):
        services.jobs.defer(session, OBSERVE, str(site_id))


def _not_waiting(session: Session, task: str, ids: Sequence[UUID]) -> list[UUID]:
    """Those that no wake-up waits for: one question for all, as a busy queue holds most of them already."""
    waiting = keys_waiting(session, task)
    return [key for key in ids if str(key) not in waiting]


def cut_months(session: Session, services: Services, now: datetime) -> None:
    """Wake accounting for leases whose open segment began in an earlier month."""
    opened = select(Segment.lease_id, Segment.starts_at).where(Segment.ends_at.is_(None))
    for lease_id, starts_at in session.execute(opened).all():
        if month_starts(Period(starts_at, max(now, starts_at))):
            services.jobs.defer(session, SETTLE, str(lease_id))


def forget(session: Session, services: Services, now: datetime) -> None:  # noqa: ARG001 - a tick's signature
    """Slots cannot be taken again: no clock is an hour late. Jobs of dead workers are nobody's: the rows say it all."""
    session.execute(delete(ClockSlot).where(ClockSlot.slot < now - timedelta(hours=1)))
    forget_abandoned(session)


Tick = Callable[[Session, Services, datetime], None]


class Clock:
    """Ticks until it is closed; each tick also once at the start."""

    def __init__(self, services: Services) -> None:
        """Nothing runs before `__enter__`."""
        self._services = services
        self._scheduler = BackgroundScheduler(timezone=UTC)
        seconds = max(1, int(services.settings.sweep_interval.total_seconds()))
        self._add("sweep", sweep, timedelta(seconds=seconds), CronTrigger(second=f"*/{min(seconds, 59)}", timezone=UTC))
        self._add("cut-months", cut_months, timedelta(hours=1), CronTrigger(minute=0, second=5, timezone=UTC))
        self._add("forget", forget, timedelta(minutes=30), CronTrigger(minute="*/30", timezone=UTC))

    def _add(self, name: str, tick: Tick, every: timedelta, trigger: CronTrigger) -> None:
        self._scheduler.add_job(
            self._tick,
            trigger,
            args=(name, tick, every),
            id=name,
            next_run_time=datetime.now(UTC),
            misfire_grace_time=None,
            coalesce=True,
            max_instances=1,
        )

    def _tick(self, name: str, tick: Tick, every: timedelta) -> None:
        """Take the slot and do the work in one transaction; whoever comes second finds the slot taken."""
        try:
            with self._services.sessions.begin() as session:
                now = database_now(session)
                since = int(now.timestamp() // every.total_seconds() * every.total_seconds())
                slot = datetime.fromtimestamp(since, tz=UTC)
                row = insert(ClockSlot).values(name=name, slot=slot).on_conflict_do_nothing().returning(ClockSlot.slot)
                if session.scalars(row).one_or_none() is not None:
                    tick(session, self._services, now)
        except (OperationalError, SetupError) as error:
            # The database is busy, or away (which connecting says as SetupError): the next tick does all that this one
            # would have done.
            detail = error.detail if isinstance(error, SetupError) else str(error.orig)
            log.warning("clock tick failed", extra={"tick": name, "detail": detail})

    def __enter__(self) -> Self:
        """Start ticking."""
        # It warns when a tick is skipped because the last one still runs; that one does what is due.
        logging.getLogger("apscheduler.scheduler").setLevel(logging.ERROR)
        self._scheduler.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop, after the running tick."""
        self._scheduler.shutdown(wait=True)


def due_count(session: Session) -> int:
    """Leases that are due now: for health and metrics."""
    return session.scalars(select(func.count()).where(Lease.next_look_at <= func.clock_timestamp())).one()
