"""The task queue: Procrastinate carries wake-ups and nothing else. Emptying it costs at most one sweep."""

from __future__ import annotations

import contextlib

from procrastinate import App, PsycopgConnector, SyncPsycopgConnector
from procrastinate.exceptions import AlreadyEnqueued
from sqlalchemy import text
from sqlalchemy.orm import Session

from broker.database import libpq_url

_ALL_WAITING = text(
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


def forget_abandoned(session: Session) -> None:
    """Delete jobs in the hands of workers that the queue has given up; it keeps them for somebody to retry."""
    session.execute(_ABANDONED)


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
