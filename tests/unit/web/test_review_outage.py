"""The database is killed under a working worker and clock, and started again: orders go on by themselves."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy.exc import SQLAlchemyError

from broker.database import Database
from broker.embedded import APPLICATION_ROLE, OWNER_ROLE, EmbeddedServer
from broker.errors import SetupError
from broker.models.leases import LeaseState
from broker.models.workloads import Order
from tests.world import QUICK, make_world
from web.clock import Clock
from web.compose import Services, services
from web.queue import QueuedJobs
from web.settings import load_settings
from web.worker import Worker, register

ORDERS = 4


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedServer]:
    """A server of this test's own, to be killed."""
    made = EmbeddedServer(tmp_path / "postgresql")
    with made:
        yield made


@pytest.fixture
def made(server: EmbeddedServer, tmp_path: Path) -> Iterator[Services]:
    """The real composition on it."""
    settings = load_settings(
        data_dir=tmp_path / "data",
        sweep_interval=timedelta(seconds=1),
        first_look=QUICK.first_look,
        last_look=QUICK.last_look,
        settle_time=QUICK.settle,
        call_timeout=timedelta(seconds=4),
        claim_time=timedelta(seconds=5),
    )
    settings.data_dir.mkdir(mode=0o700)
    with services(settings, Database(server.url(APPLICATION_ROLE), server.url(OWNER_ROLE), is_embedded=True)) as found:
        yield found


def wait_for(met: Callable[[], bool], *, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)


def test_orders_go_on_after_the_server_was_killed_in_the_middle(made: Services, server: EmbeddedServer) -> None:
    with make_world(made.sessions, doors=made.doors) as world:
        world.jobs = QueuedJobs()  # type: ignore[assignment] # the real ones
        register(made.queue, made)

        def running() -> int:
            try:
                return sum(
                    world.view(lease_id).lease.state is LeaseState.RUNNING
                    for order in orders
                    for lease_id in world.leases(order)
                )
            except (SetupError, SQLAlchemyError):
                return 0

        with Worker(made.queue, size=3, poll_seconds=2) as worker, Clock(made):
            for kill_after in (0.3, 1.0):
                orders: list[Order] = [world.order(name=f"trial-{number}") for number in range(ORDERS)]
                time.sleep(kill_after)
                os.kill(server.pid, signal.SIGKILL)
                time.sleep(3)
                server.start()
                wait_for(lambda: running() == ORDERS)
            assert worker.is_alive
        assert len(world.cloud.log.entries(kind="server", event="created")) == 2 * ORDERS
