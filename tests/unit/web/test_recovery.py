"""What a worker outlives, and what does not hold it up."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from procrastinate import App, PsycopgConnector
from sqlalchemy.orm import Session, sessionmaker

from broker.database import Database, libpq_url
from broker.errors import SetupError
from broker.models.audit import ClockSlot
from broker.orders import RECONCILE
from broker.values import new_id
from tests.conftest import PostgresForTests
from web.clock import Clock
from web.compose import Services, services
from web.settings import load_settings
from web.worker import Worker, register


@pytest.fixture
def made(database: Database, sessions: sessionmaker[Session], tmp_path: Path) -> Iterator[Services]:
    """The real composition."""
    assert sessions  # cleans up afterwards
    settings = load_settings(data_dir=tmp_path, sweep_interval=timedelta(seconds=1))
    with services(settings, replace(database, is_embedded=False)) as found:
        yield found


@contextmanager
def away(postgres: PostgresForTests, database: Database) -> Iterator[None]:
    """Nobody is connected, nobody gets in."""
    name = sa.make_url(database.application_url).database
    with postgres.admin.connect() as connection:
        connection.exec_driver_sql(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
        connection.execute(
            sa.text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name"), {"name": name}
        )
    try:
        yield
    finally:
        with postgres.admin.connect() as connection:
            connection.exec_driver_sql(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')


def wait_for(met: Callable[[], bool], *, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)


def test_worker_and_clock_outlive_the_database(made: Services, postgres: PostgresForTests, database: Database) -> None:
    def nothing_waits() -> bool:
        with made.sessions() as session:
            return session.scalar(sa.text("SELECT count(*) FROM procrastinate_jobs")) == 0

    def slots() -> int:
        with made.sessions() as session:
            return session.scalars(sa.select(sa.func.count()).select_from(ClockSlot)).one()

    # As the program's, but for its patience: an outage longer than that is what this is about.
    conninfo = libpq_url(database.application_url)
    queue = App(connector=PsycopgConnector(conninfo=conninfo, timeout=1))
    register(queue, made)
    with Worker(queue, size=2, poll_seconds=0.5) as worker, Clock(made):
        wait_for(lambda: slots() > 0)
        with away(postgres, database):
            with pytest.raises(SetupError):
                slots()
            time.sleep(4)  # ticks and polls that fail
        before = slots()
        assert worker.is_alive
        with made.sessions.begin() as session:
            made.jobs.defer(session, RECONCILE, str(new_id()))
        wait_for(nothing_waits)
        wait_for(lambda: slots() > before)
    assert not worker.is_alive


def test_a_job_that_waits_for_a_silent_site_does_not_hold_up_the_end(made: Services) -> None:
    started, release = threading.Event(), threading.Event()

    def wait(key: str) -> None:
        assert key
        started.set()
        release.wait(30)

    made.queue.task(name="wait")(wait)
    with Worker(made.queue, size=2, grace_seconds=0.5) as worker:
        with made.sessions.begin() as session:
            made.jobs.defer(session, "wait", "a")
        assert started.wait(20)
        before = time.monotonic()
    assert time.monotonic() - before < 5
    assert worker.is_alive, "it still waits for its job"
    release.set()
    wait_for(lambda: not worker.is_alive)
