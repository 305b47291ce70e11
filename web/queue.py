"""The task queue: Procrastinate carries wake-ups and nothing else. Emptying it costs at most one sweep."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from datetime import datetime, timedelta

from procrastinate import App, PsycopgConnector, SyncPsycopgConnector
from procrastinate.exceptions import AlreadyEnqueued
from sqlalchemy import text
from sqlalchemy.orm import Session

from broker.database import libpq_url

_ALL_WAITING = text(
    "SELECT queueing_lock FROM procrastinate_jobs"
    " WHERE task_name = :task AND status = 'todo' AND queueing_lock IS NOT NULL"
)
# A worker's row goes when its heart has not beaten for so long, and with it its hold on jobs.
_DEAD_WORKERS = text("DELETE FROM procrastinate_workers WHERE last_heartbeat < clock_timestamp() - :silence")
_ABANDONED = text("DELETE FROM procrastinate_jobs WHERE status = 'doing' AND worker_id IS NULL")
# The newest of a job's events tells since when it is in its state. Only what is old can have been left over.
_LEFT_OVER = text(
    "DELETE FROM procrastinate_jobs job WHERE status IN ('todo', 'doing')"
    " AND (SELECT max(at) FROM procrastinate_events event WHERE event.job_id = job.id) < clock_timestamp() - :age"
)
_STATE = text(
    "SELECT (SELECT count(*) FROM procrastinate_workers WHERE last_heartbeat >= clock_timestamp() - :silence),"
    " (SELECT count(*) FROM procrastinate_jobs WHERE status = 'todo'),"
    " (SELECT min(at) FROM procrastinate_events JOIN procrastinate_jobs job ON job.id = job_id"
    "  WHERE job.status = 'todo' AND type = 'deferred')"
)
_RUNNING = text(
    "SELECT queueing_lock, (SELECT max(at) FROM procrastinate_events event WHERE event.job_id = job.id) AS since"
    " FROM procrastinate_jobs job WHERE status = 'doing' AND worker_id IS NOT NULL AND queueing_lock IS NOT NULL"
    " ORDER BY since, id LIMIT 200"
)
_WAITING = text(
    "SELECT queueing_lock FROM procrastinate_jobs"
    " WHERE task_name = :task AND status = 'todo' AND queueing_lock IS NOT NULL"
)
_ABANDONED = text("DELETE FROM procrastinate_jobs WHERE status = 'doing' AND worker_id IS NULL")
_WAITING = text("SELECT FROM procrastinate_jobs WHERE queueing_lock = :lock AND status = 'todo'")


def make_app(application_url: str) -> App:
    """The worker's queue on the application's database; opens nothing until it is used."""
    return App(
        connector=PsycopgConnector(conninfo=libpq_url(application_url), kwargs={"application_name": "leeway-queue"})
    )


def keys_waiting(session: Session, task: str) -> set[str]:
    """The keys that a wake-up of this task waits for."""
    locks = session.scalars(_ALL_WAITING, {"task": task}).all()
    return {lock.removeprefix(f"{task}:") for lock in locks}


# How often a worker's heart beats, and after which silence it is taken for dead.
HEARTBEAT = timedelta(seconds=10)
SILENCE = timedelta(seconds=60)


def clean(session: Session, *, longest: timedelta) -> None:
    """Delete what dead workers left behind: the rows that wake-ups stand for say what is to be done.

    `longest`: no job takes or waits longer. What is older is a row that a broken connection left over, or waits for a
    worker that there is not; the next sweep wakes what is due.
    """
    session.execute(_DEAD_WORKERS, {"silence": SILENCE})
    session.execute(_ABANDONED)
    session.execute(_LEFT_OVER, {"age": longest})


@dataclass(frozen=True, slots=True)
class Running:
    """A wake-up that a live worker works on."""

    task: str
    key: str
    since: datetime | None


@dataclass(frozen=True, slots=True)
class QueueState:
    """How many workers live, how many wake-ups wait for one and since when, and what is worked on, oldest first."""

    workers: int
    waiting: int
    oldest: datetime | None
    running: tuple[Running, ...]


def queue_state(session: Session) -> QueueState:
    """How the queue stands."""
    workers, waiting, oldest = session.execute(_STATE, {"silence": SILENCE}).one()
    running = []
    for lock, since in session.execute(_RUNNING).all():
        task, _, key = lock.partition(":")
        running.append(Running(task, key, since))
    return QueueState(workers, waiting, oldest, tuple(running))


class QueuedJobs:
    """`broker.ports.Jobs`: a wake-up is a row of the caller's transaction, at most one waiting per task and key."""

    def __init__(self) -> None:
        """Opens nothing: every row goes through its caller's connection."""
        self._app = App(connector=SyncPsycopgConnector())

    def defer(self, session: Session, task: str, key: str) -> None:
        """Wake a worker when the caller's transaction commits."""
        lock = f"{task}:{key}"
        if session.execute(_WAITING, {"lock": lock}).first() is not None:
            return
        # Somebody may insert the same wake-up at this moment; the savepoint keeps our transaction alive then.
        with contextlib.suppress(AlreadyEnqueued), session.begin_nested():
            raw = session.connection().connection.driver_connection  # asked for here: it sets the savepoint
            self._app.configure_task(task, queueing_lock=lock, connection=raw).defer(key=key)
