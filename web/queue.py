"""The task queue: Procrastinate carries wake-ups and nothing else. Emptying it costs at most one sweep."""

from __future__ import annotations

from procrastinate import App, PsycopgConnector
from procrastinate.exceptions import AlreadyEnqueued
from sqlalchemy import text
from sqlalchemy.orm import Session

from broker.database import libpq_url

_WAITING = text("SELECT FROM procrastinate_jobs WHERE queueing_lock = :lock AND status = 'todo'")


def make_app(application_url: str) -> App:
    """A queue on the application's database; opens nothing until it is used."""
    return App(
        connector=PsycopgConnector(conninfo=libpq_url(application_url), kwargs={"application_name": "leeway-queue"})
    )


class QueuedJobs:
    """`broker.ports.Jobs`: a wake-up is a row of the caller's transaction, at most one waiting per task and key."""

    def __init__(self, app: App) -> None:
        """`app` is only used to write the row."""
        self._app = app

    def defer(self, session: Session, task: str, key: str) -> None:
        """Wake a worker when the caller's transaction commits."""
        lock = f"{task}:{key}"
        if session.execute(_WAITING, {"lock": lock}).first() is not None:
            return
        session.flush()
        raw = session.connection().connection.driver_connection
        # Somebody may insert the same wake-up at this moment; the savepoint keeps our transaction alive then.
        with session.begin_nested() as savepoint:
            try:
                self._app.configure_task(task, queueing_lock=lock, connection=raw).defer(key=key)
            except AlreadyEnqueued:
                savepoint.rollback()
