"""Workers that die or freeze, sites that say nothing, queues that are emptied, ticks that fail: the rest goes on."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import func, select, text, update
from sqlalchemy.orm import Session, sessionmaker

from broker.database import Database, database_now
from broker.models.audit import ClockSlot
from broker.models.federation import Site
from broker.models.leases import Lease, LeaseState
from broker.models.workloads import Order
from broker.orders import RECONCILE
from broker.sites import CHECK, request_check, wants_check
from tests.world import QUICK, World, aurora_prices, connect, make_world
from web import clock as clocks
from web.bulkheads import Bulkheads
from web.clock import Clock, Ticking, clean_queue, sweep
from web.compose import Services, services
from web.queue import QueuedJobs, queue_state
from web.settings import load_settings
from web.worker import Worker, listing_in_place, register

ROOT = Path(__file__).parents[3]
CALL_SECONDS = 2
CLAIM_SECONDS = 8


def times() -> dict[str, Any]:
    """Settings with short times."""
    return {
        "workers": 8,
        "sweep_interval": timedelta(seconds=1),
        "first_look": QUICK.first_look,
        "last_look": timedelta(seconds=1),
        "settle_time": QUICK.settle,
        "call_timeout": timedelta(seconds=CALL_SECONDS),
        "claim_time": timedelta(seconds=CLAIM_SECONDS),
        "listing_interval": timedelta(seconds=2),
        "full_listing_interval": timedelta(0),
        "listing_timeout": timedelta(seconds=2 * CALL_SECONDS),
    }


@pytest.fixture
def made(database: Database, sessions: sessionmaker[Session], tmp_path: Path) -> Iterator[Services]:
    """The real composition, with short times."""
    assert sessions is not None  # cleans up afterwards
    with services(load_settings(data_dir=tmp_path, **times()), replace(database, is_embedded=False)) as found:
        yield found


@pytest.fixture
def world(sessions: sessionmaker[Session], made: Services) -> Iterator[World]:
    """A federation of this installation's, whose orders wake workers."""
    with make_world(sessions, doors=made.doors) as found:
        found.jobs = QueuedJobs()  # type: ignore[assignment] # the real ones
        yield found


@pytest.fixture
def silence() -> Iterator[str]:
    """An address that takes connections, and never says a word."""
    with socket.create_server(("127.0.0.1", 0), backlog=1000) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/identity/v3"


def wait_for(met: Callable[[], bool], *, seconds: float = 40) -> None:
    deadline = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def is_running(world: World, order: Order) -> bool:
    return all(world.view(lease).lease.state is LeaseState.RUNNING for lease in world.leases(order))


def sites(world: World) -> dict[str, UUID]:
    with world.sessions() as session:
        return {site.name: site.id for site in session.scalars(select(Site))}


def move(world: World, site_id: UUID, endpoint: str) -> str:
    """Have a site answer elsewhere; returns where it was."""
    with world.sessions.begin() as session:
        before = session.scalars(select(Site.endpoint).where(Site.id == site_id)).one()
        session.execute(update(Site).where(Site.id == site_id).values(endpoint=endpoint))
    return before


def jobs(world: World) -> list[tuple[str, str]]:
    with world.sessions() as session:
        rows = session.execute(text("SELECT status::text, queueing_lock FROM procrastinate_jobs ORDER BY id"))
        return [(status, lock) for status, lock in rows]


# --- sites that say nothing ------------------------------------------------------------------------------------------


def test_twenty_silent_sites_do_not_hold_up_a_good_one(made: Services, world: World, silence: str) -> None:
    names = [f"silent-{number:02}" for number in range(20)]
    for name in names:
        site_id = connect(
            world.sessions,
            world.doors,
            world.jobs,
            endpoint=world.cloud.auth_url,
            name=name,
            region=world.cloud.config.region,
            project=world.cloud.config.projects[0].name,
            prices=aurora_prices(),
        )
        world.observe(site_id)
    for name in names:
        world.order(name=name, requirements={"sites": [name]})
        move(world, sites(world)[name], silence)
    good = sites(world)["aurora"]
    places = register(made.queue, made)
    with Worker(made.queue, size=made.settings.workers, poll_seconds=1), Clock(made):
        time.sleep(4 * CALL_SECONDS)  # until all of them are known
        order = world.order(name="warm", requirements={"sites": ["aurora"]})
        with world.sessions.begin() as session:
            request_check(session, session.get_one(Site, good), jobs=world.jobs)
            session.execute(update(Site).values(next_listing_at=func.clock_timestamp()))
        asked_at = world.now()
        held = set()

        def is_well() -> bool:
            held.add(sum(site != good for _, site, _ in places.running()))
            seen = select(Site.id).where(Site.id == good, Site.listed_at > asked_at, ~wants_check())
            with world.sessions() as session:
                is_seen = session.scalars(seen).one_or_none() is not None
            return is_seen and is_running(world, order)

        wait_for(is_well, seconds=120)
    assert 0 < max(held) <= made.settings.workers - 1, "threads that silent sites held"


# --- workers that die, or freeze -------------------------------------------------------------------------------------


@contextmanager
def worker_process(database: Database, data_dir: Path) -> Iterator[subprocess.Popen[str]]:
    """`leeway worker` with the same times."""
    seconds = {
        f"LEEWAY_{name.upper()}": str(value.total_seconds() if isinstance(value, timedelta) else value)
        for name, value in times().items()
    }
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "LEEWAY_DATA_DIR": str(data_dir),
        "LEEWAY_DATABASE_URL": database.application_url,
    } | seconds
    command = [sys.executable, "-m", "web.cli.main", "worker"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert "ready" in process.stdout.readline()
            yield process
        finally:
            process.kill()


def claimed(world: World, lease_id: UUID) -> bool:
    lease = world.view(lease_id).lease
    return lease.claim_until is not None and lease.claim_until > world.now()


def forget_heartbeats(world: World) -> None:
    """As if two minutes had passed since."""
    with world.sessions.begin() as session:
        session.execute(text("UPDATE procrastinate_workers SET last_heartbeat = last_heartbeat - interval '2 minutes'"))


def tick(made: Services, tick_it: clocks.Tick) -> None:
    with made.sessions.begin() as session:
        tick_it(session, made, database_now(session))


def test_what_a_killed_worker_had_goes_to_another_and_its_rows_go(
    made: Services, world: World, silence: str, database: Database
) -> None:
    site_id = sites(world)["aurora"]
    endpoint = move(world, site_id, silence)
    order = world.order()
    (lease_id,) = world.leases(order)
    with worker_process(database, made.settings.data_dir) as process:
        wait_for(lambda: claimed(world, lease_id))
        process.send_signal(signal.SIGKILL)
        process.wait(10)
    until = world.view(lease_id).lease.claim_until
    assert until is not None
    assert ("doing", f"{RECONCILE}:{lease_id}") in jobs(world)
    with world.sessions() as session:
        assert queue_state(session).workers == 1, "nobody knows yet"
    move(world, site_id, endpoint)
    register(made.queue, made)
    with Worker(made.queue, size=2, poll_seconds=1), Clock(made):
        wait_for(lambda: is_running(world, order))
        assert world.now() > until, "its claim stood until its end"
    forget_heartbeats(world)
    tick(made, clean_queue)
    assert [lock for status, lock in jobs(world) if status == "doing"] == []
    with world.sessions() as session:
        assert queue_state(session).workers == 0
    assert len(world.cloud.log.entries(kind="server", event="created")) == 1


def test_a_frozen_worker_that_was_given_up_works_again_when_it_wakes(
    made: Services, world: World, database: Database, tmp_path: Path
) -> None:
    with worker_process(database, tmp_path) as process:
        first = world.order(name="first")
        wait_for(lambda: is_running(world, first))
        process.send_signal(signal.SIGSTOP)
        forget_heartbeats(world)
        tick(made, clean_queue)
        with world.sessions() as session:
            assert session.scalars(text("SELECT count(*) FROM procrastinate_workers")).one() == 0
        second = world.order(name="second")
        process.send_signal(signal.SIGCONT)
        wait_for(lambda: is_running(world, second))
        assert process.poll() is None


def test_a_wake_up_in_dead_hands_keeps_no_new_one_out(made: Services) -> None:
    with made.sessions.begin() as session:
        made.jobs.defer(session, RECONCILE, "a")
        session.execute(text("UPDATE procrastinate_jobs SET status = 'doing'"))
        made.jobs.defer(session, RECONCILE, "a")
    with made.sessions() as session:
        assert session.scalars(text("SELECT status::text FROM procrastinate_jobs ORDER BY id")).all() == [
            "doing",
            "todo",
        ]


def test_wake_ups_that_lie_for_longer_than_any_work_takes_are_thrown_away(made: Services) -> None:
    with made.sessions.begin() as session:
        session.execute(text("INSERT INTO procrastinate_workers DEFAULT VALUES"))
        for key in ("old", "taken"):
            made.jobs.defer(session, RECONCILE, key)
        alive = (
            "UPDATE procrastinate_jobs SET status = 'doing', worker_id = (SELECT max(id) FROM procrastinate_workers)"
        )
        session.execute(text(f"{alive} WHERE queueing_lock = 'reconcile:taken'"))
        session.execute(text("UPDATE procrastinate_events SET at = at - interval '1 hour'"))
        made.jobs.defer(session, RECONCILE, "new")
    tick(made, clean_queue)
    with made.sessions() as session:
        left = session.scalars(text("SELECT queueing_lock FROM procrastinate_jobs")).all()
    assert left == ["reconcile:new"]


def test_after_the_queue_was_emptied_a_sweep_wakes_everything_that_is_due(made: Services, world: World) -> None:
    order = world.order()
    site_id = sites(world)["aurora"]
    with world.sessions.begin() as session:
        session.execute(update(Site).values(next_listing_at=func.clock_timestamp()))
        request_check(session, session.get_one(Site, site_id), jobs=world.jobs)
        session.execute(text("DELETE FROM procrastinate_jobs"))
    tick(made, sweep)
    (lease_id,) = world.leases(order)
    assert {lock for _, lock in jobs(world)} == {f"reconcile:{lease_id}", f"observe:{site_id}", f"{CHECK}:{site_id}"}
    register(made.queue, made)
    with Worker(made.queue, size=2, poll_seconds=1):
        wait_for(lambda: jobs(world) == [])
    with world.sessions() as session:
        assert session.scalars(select(Site.id).where(wants_check())).all() == []


# --- jobs and ticks that fail ----------------------------------------------------------------------------------------


def test_an_error_of_our_own_in_a_job_is_logged_once_with_its_traceback(
    made: Services, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    (lease_id,) = world.leases(world.order())
    with world.sessions.begin() as session:
        session.execute(update(Lease).values(spec={"name": None}))
    register(made.queue, made)
    with caplog.at_level(logging.WARNING), Worker(made.queue, size=2, poll_seconds=1) as worker:
        wait_for(lambda: world.view(lease_id).lease.failures == 1)
        wait_for(lambda: jobs(world) == [])
        assert worker.is_alive
    told = [record for record in caplog.records if record.exc_info and str(lease_id) in record.getMessage()]
    assert len(told) == 1


def test_a_tick_that_fails_stops_no_other_and_is_tried_again(
    made: Services, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tries: list[int] = []

    def fail(session: Session, _services: Services, _now: object) -> None:
        tries.append(len(tries))
        session.execute(text("SELECT 1 / (SELECT 0)"))

    second = timedelta(seconds=1)
    table = (Ticking("broken", fail, second), Ticking("sweep", sweep, second))
    monkeypatch.setattr(clocks, "ticks", lambda _settings: table)
    with caplog.at_level(logging.ERROR), Clock(made) as clock:
        wait_for(lambda: len(tries) >= 2)
        assert clock.is_alive
    with made.sessions() as session:
        names = set(session.scalars(select(ClockSlot.name)))
    assert "sweep" in names
    assert "broken" not in names, "its slot was given back"
    assert any(record.exc_info for record in caplog.records)


def test_a_clock_whose_thread_died_is_noticed(made: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    with Clock(made) as clock:
        wait_for(lambda: clock.is_alive)
        clock._scheduler.shutdown(wait=True)
        monkeypatch.setattr(clock, "_patience", 0.5)
        wait_for(lambda: not clock.is_alive)
        clock._scheduler.start()


# --- the queue's connections -----------------------------------------------------------------------------------------


def test_the_queues_connections_carry_the_limits(made: Services) -> None:
    names = ("lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout", "TimeZone")
    asked = ", ".join(f"current_setting('{name}') AS \"{name}\"" for name in names)

    async def ask() -> dict[str, Any]:
        async with made.queue.open_async():
            return await made.queue.connector.execute_query_one_async(f"SELECT {asked}")

    assert list(asyncio.run(ask()).values()) == ["3s", "30s", "10s", "UTC"]
    with made.sessions() as session:
        raw: Any = session.connection().connection.driver_connection  # what `QueuedJobs` writes through
        assert raw.execute(f"SELECT {asked}").fetchone() == ("3s", "30s", "10s", "UTC")


def test_a_lock_that_a_wake_up_waits_for_does_not_lose_it(made: Services, world: World) -> None:
    """Somebody holds the lease's row while its pass is to begin: the claim fails, and the row is still due."""
    order = world.order()
    register(made.queue, made)
    with contextlib.ExitStack() as stack:
        holder = stack.enter_context(world.sessions())
        holder.execute(text("SELECT FROM leases FOR UPDATE"))
        stack.enter_context(Worker(made.queue, size=2, poll_seconds=1))
        stack.enter_context(Clock(made))
        time.sleep(4)
        holder.rollback()
        wait_for(lambda: is_running(world, order))


def test_one_place_lists_every_site_that_is_due_the_longest_waiting_first(world: World, made: Services) -> None:
    """A job that finds no place ends; else the same sites, woken first by each sweep, would be listed for ever."""
    with world.sessions.begin() as session:
        site = session.scalars(select(Site)).one()
        due = func.clock_timestamp() - timedelta(hours=1)
        for number in range(6):
            twin = Site(
                name=f"twin-{number}",
                provider_id=site.provider_id,
                adapter=site.adapter,
                endpoint=site.endpoint,
                region=site.region,
                next_listing_at=due + timedelta(minutes=number),
            )
            session.add(twin)
            session.flush()
            made.doors.vault.store(session, twin.id, made.doors.vault.secret(session, site.id))
        first = session.scalars(select(Site.id).where(Site.name == "twin-5")).one()
    places = Bulkheads(made.settings.workers, slow_seconds=60)
    listing_in_place(made, places, first)
    with world.sessions() as session:
        listed = list(session.scalars(select(Site.name).where(Site.name != "aurora").order_by(Site.listed_at)))
    assert listed == ["twin-5", "twin-0", "twin-1", "twin-2", "twin-3", "twin-4"]
