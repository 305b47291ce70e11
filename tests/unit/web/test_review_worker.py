"""Found in a review: what a worker and a sweep owe to leases and to each other. Each was seen to fail first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import func, text
from sqlalchemy.orm import Session, sessionmaker

from adapters.registry import Registry
from broker.database import Database, database_now
from broker.errors import SetupError
from broker.models.leases import Desired, LeaseState
from broker.models.workloads import Order, OrderState
from broker.orders import RECONCILE, stop_order
from broker.sites import Doors
from tests.world import NotedJobs, make_world
from web.clock import clean_queue, sweep
from web.compose import Services, services
from web.identity.vault import SealedVault
from web.settings import load_settings
from web.worker import reconcile_lease


@pytest.fixture
def made(database: Database, sessions: sessionmaker[Session], tmp_path: Path) -> Iterator[Services]:
    """The real composition."""
    assert sessions is not None  # cleans up afterwards
    with services(load_settings(data_dir=tmp_path), replace(database, is_embedded=False)) as found:
        yield found


def test_a_sweep_wakes_in_the_order_of_ids_so_that_it_cannot_deadlock_with_others_that_wake(
    made: Services, sessions: sessionmaker[Session]
) -> None:
    with make_world(sessions) as world:
        leases = world.leases(world.order(count=3))
        for late, lease_id in enumerate(leases):
            world.wake(lease_id, next_look_at=func.clock_timestamp() - timedelta(minutes=late))
        jobs = NotedJobs()
        with sessions.begin() as session:
            sweep(session, replace(made, jobs=jobs), database_now(session))
        woken = [key for task, key in jobs.woken if task == RECONCILE]
        assert woken == [str(lease_id) for lease_id in leases]


def test_jobs_of_workers_that_died_do_not_stay_in_the_queue_for_ever(made: Services) -> None:
    with made.sessions.begin() as session:
        for key in ("dead", "alive"):
            made.jobs.defer(session, RECONCILE, key)
        session.execute(text("INSERT INTO procrastinate_workers DEFAULT VALUES"))
        session.execute(text("UPDATE procrastinate_jobs SET status = 'doing'"))
        session.execute(
            text(
                "UPDATE procrastinate_jobs SET worker_id = (SELECT max(id) FROM procrastinate_workers)"
                " WHERE queueing_lock = 'reconcile:alive'"
            )
        )
        made.jobs.defer(session, RECONCILE, "waiting")
    with made.sessions.begin() as session:
        clean_queue(session, made, database_now(session))
    with made.sessions() as session:
        locks = session.scalars(text("SELECT queueing_lock FROM procrastinate_jobs ORDER BY id")).all()
    assert locks == ["reconcile:alive", "reconcile:waiting"]


def test_money_comes_back_also_where_the_site_cannot_be_opened_any_more(
    made: Services, sessions: sessionmaker[Session]
) -> None:
    with make_world(sessions) as world:
        order = world.order()
        (lease_id,) = world.leases(order)
        with sessions.begin() as session:
            stop_order(session, order.id, jobs=world.jobs, actor="tests", reason="done")
        world.wake(  # the process died between the end of the lease and its money
            lease_id, desired=Desired.GONE, state=LeaseState.GONE, gone_at=func.clock_timestamp()
        )
        no_key = Doors(sessions, Registry(), SealedVault(b"x" * 32), world.doors.installation)
        with pytest.raises(SetupError):
            reconcile_lease(replace(made, tools=replace(world.tools, open_site=no_key.open)), lease_id)
        with sessions() as session:
            assert session.get_one(Order, order.id).state is OrderState.OVER
