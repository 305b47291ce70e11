"""The worker, the queue and the clock over the real PostgreSQL: wake-ups may be lost or doubled, work is not."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.orm import Session, sessionmaker

from broker.database import Database
from broker.models.audit import ClockSlot
from broker.models.leases import Lease, LeaseState
from broker.models.workloads import Order, OrderState
from broker.orders import RECONCILE, stop_order
from tests.world import QUICK, World, make_world
from web.clock import Clock
from web.compose import Services, services
from web.queue import QueuedJobs
from web.settings import load_settings
from web.worker import Worker, register


@pytest.fixture
def made(database: Database, sessions: sessionmaker[Session], tmp_path: Path) -> Iterator[Services]:
    """The real composition, with short times."""
    assert sessions  # cleans up afterwards
    settings = load_settings(
        data_dir=tmp_path,
        sweep_interval=timedelta(seconds=1),
        first_look=QUICK.first_look,
        last_look=QUICK.last_look,
        settle_time=QUICK.settle,
        call_timeout=timedelta(seconds=4),
        claim_time=timedelta(seconds=5),
    )
    with services(settings, replace(database, is_embedded=False)) as found:
        yield found


def jobs_waiting(session: Session) -> int:
    return session.scalars(text("SELECT count(*) FROM procrastinate_jobs WHERE status = 'todo'")).one()  # type: ignore[no-any-return] # count


def wait_for(met: Callable[[], bool], *, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def test_a_wake_up_is_part_of_the_transaction_and_waits_once(made: Services) -> None:
    with made.sessions() as session:
        made.jobs.defer(session, RECONCILE, "a")
        session.rollback()
    with made.sessions.begin() as session:
        assert jobs_waiting(session) == 0
        made.jobs.defer(session, RECONCILE, "a")
        made.jobs.defer(session, RECONCILE, "a")
        made.jobs.defer(session, RECONCILE, "b")
    with made.sessions() as session:
        assert jobs_waiting(session) == 2


def test_the_same_wake_up_from_many_at_once_leaves_every_transaction_alive(made: Services) -> None:
    def defer(number: int) -> None:
        with made.sessions.begin() as session:
            made.jobs.defer(session, RECONCILE, "same")
            session.add(ClockSlot(name=f"proof-{number}", slot=func.now()))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(defer, range(24)))
    with made.sessions() as session:
        assert jobs_waiting(session) == 1
        assert session.scalars(select(func.count()).select_from(ClockSlot)).one() == 24


@pytest.fixture
def world(sessions: sessionmaker[Session], made: Services) -> Iterator[World]:
    """A federation whose sites the real composition can open."""
    with make_world(sessions, doors=made.doors) as found:
        yield found


def run_order(world: World, made: Services) -> Order:
    world.jobs = QueuedJobs()  # type: ignore[assignment] # the real ones
    order = world.order()

    def state() -> LeaseState:
        return world.view(world.leases(order)[0]).lease.state

    wait_for(lambda: state() is LeaseState.RUNNING)
    with made.sessions.begin() as session:
        stop_order(session, order.id, jobs=made.jobs, actor="tests", reason="done")

    def over() -> bool:
        with made.sessions() as session:
            return session.get_one(Order, order.id).state is OrderState.OVER

    wait_for(over)
    return order


def test_worker_and_clock_carry_an_order_from_placed_to_over(world: World, made: Services) -> None:
    register(made.queue, made)
    with Worker(made.queue, size=4), Clock(made):
        run_order(world, made)
    with made.sessions() as session:
        assert session.scalars(select(Lease.next_look_at)).one() is None, "a settled lease is not looked at again"
    assert len(world.cloud.log.entries(kind="server", event="created")) == 1


def test_an_emptied_queue_costs_at_most_a_sweep(world: World, made: Services) -> None:
    world.jobs = QueuedJobs()  # type: ignore[assignment] # the real ones
    order = world.order()
    with made.sessions.begin() as session:
        session.execute(text("DELETE FROM procrastinate_jobs"))
    register(made.queue, made)
    with Worker(made.queue, size=2), Clock(made):
        wait_for(lambda: world.view(world.leases(order)[0]).lease.state is LeaseState.RUNNING)


def test_three_clocks_take_each_slot_once(made: Services) -> None:
    with Clock(made), Clock(made), Clock(made):
        time.sleep(2.5)
    with made.sessions() as session:
        slots = session.scalars(select(ClockSlot.slot).where(ClockSlot.name == "sweep")).all()
    assert len(slots) == len(set(slots))
    assert len(slots) >= 2
