"""A site falls silent with its connections open (SIGSTOP), and goes on: nothing doubles, nobody else is held up."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import requests
from sqlalchemy.orm import Session, sessionmaker

from adapters.sandbox.profiles import borealis
from broker.database import Database
from broker.models.leases import LeaseState
from broker.models.workloads import Order
from tests.world import QUICK, World, connect, make_world
from web.clock import Clock
from web.compose import Services, services
from web.queue import QueuedJobs
from web.settings import load_settings
from web.worker import Worker, register

ROOT = Path(__file__).parents[3]
CALL_SECONDS = 3


@pytest.fixture
def made(database: Database, sessions: sessionmaker[Session], tmp_path: Path) -> Iterator[Services]:
    """The real composition, with short times."""
    assert sessions is not None  # cleans up afterwards
    settings = load_settings(
        data_dir=tmp_path,
        workers=3,
        sweep_interval=timedelta(seconds=1),
        first_look=QUICK.first_look,
        last_look=timedelta(seconds=1),
        settle_time=timedelta(seconds=1),
        call_timeout=timedelta(seconds=CALL_SECONDS),
        claim_time=timedelta(seconds=10),
        listing_interval=timedelta(seconds=2),
    )
    with services(settings, replace(database, is_embedded=False)) as found:
        yield found


@pytest.fixture
def silent(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], dict[str, Any]]]:
    """The cloud `borealis` as a process that can be frozen, and where it listens."""
    port_file = tmp_path / "port.json"
    command = [sys.executable, "-m", "adapters.sandbox", "--profile", "borealis", "--port", "0"]
    with subprocess.Popen([*command, "--port-file", str(port_file)], cwd=ROOT) as process:
        try:
            wait_for(port_file.exists)
            yield process, json.loads(port_file.read_text())
        finally:
            process.kill()


def wait_for(met: Callable[[], bool], *, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def machines_of_ours(port: int) -> int:
    """Machines with our tags that the cloud has."""
    with requests.Session() as session:
        session.trust_env = False
        entries = session.get(f"http://127.0.0.1:{port}/_control/log?kind=server", timeout=10).json()["entries"]
    made = {entry["id"] for entry in entries if entry["event"] == "created" and entry["metadata"]}
    return len(made - {entry["id"] for entry in entries if entry["event"] in ("deleted", "vanished")})


def is_running(world: World, order: Order) -> bool:
    return all(world.view(lease).lease.state is LeaseState.RUNNING for lease in world.leases(order))


def test_a_frozen_site_doubles_nothing_and_holds_nobody_else_up(
    made: Services, sessions: sessionmaker[Session], silent: tuple[subprocess.Popen[bytes], dict[str, Any]]
) -> None:
    process, where = silent
    with make_world(sessions, doors=made.doors) as world:
        config = borealis()
        site_id = connect(
            sessions,
            world.doors,
            world.jobs,
            endpoint=where["auth_url"],
            name="borealis",
            region=config.region,
            project=config.projects[0].name,
            prices={"std.2c4g": "0.05"},
        )
        world.observe(site_id)
        world.jobs = QueuedJobs()  # type: ignore[assignment] # the real ones
        register(made.queue, made)
        with Worker(made.queue, size=3, poll_seconds=2) as worker, Clock(made):
            frozen = [world.order(name=f"cold-{n}", requirements={"sites": ["borealis"]}) for n in range(6)]
            time.sleep(0.4)
            os.kill(process.pid, signal.SIGSTOP)
            try:
                time.sleep(1.5 * CALL_SECONDS)  # once, calls to it may keep every thread waiting
                asked = time.monotonic()
                warm = world.order(requirements={"sites": ["aurora"]})
                wait_for(lambda: is_running(world, warm))
                assert time.monotonic() - asked < CALL_SECONDS, "it waited for calls to the frozen site"
                time.sleep(8)
            finally:
                os.kill(process.pid, signal.SIGCONT)
            wait_for(lambda: all(is_running(world, order) for order in frozen))
            wait_for(lambda: machines_of_ours(where["port"]) == len(frozen))
            assert worker.is_alive
