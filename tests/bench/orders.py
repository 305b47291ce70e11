"""Orders from quote to running, end to end on a sandbox cloud: how many per second, and what one costs the broker.

As on a machine with two cores: one process quotes and orders, as `leeway serve` does, and a `leeway worker` launches.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import func, select

from broker.database import database_now
from broker.models.leases import Lease, LeaseState
from broker.orders import Choice, place_order
from broker.quotes import make_quote
from broker.schema import upgrade
from tests.bench.clouds import cloud_process, roomy
from tests.bench.figures import Figure, Figures, cpu_of
from tests.world import DOCUMENT, aurora_prices, connect, people
from web.compose import Services, database, services
from web.settings import load_settings
from web.worker import observe_site

ORDERS = 100
ROUNDS = 5


def orders() -> Figures:
    """Five rounds; the best counts."""
    with (
        tempfile.TemporaryDirectory() as folder,
        cloud_process(roomy(), Path(folder)) as cloud,
        composed(Path(folder), cloud) as made,
        worker_process(made) as worker,
    ):
        found = [_round(made, worker, number) for number in range(ROUNDS)]
    rate = max(ORDERS / wall for wall, _ in found)
    cpu = min(cpu / ORDERS for _, cpu in found)
    note = f"{ORDERS} orders, best of {ROUNDS}; broker, worker, cloud and PostgreSQL share the machine"
    yield Figure("orders_per_second", rate, "1/s", "20 on 2 idle cores", note)
    yield Figure(
        "broker_cpu_per_order", cpu * 1000, "ms", "printed", "quote, order, launch, observe; without PostgreSQL"
    )


@contextmanager
def worker_process(made: Services) -> Iterator[int]:
    """The process id of a `leeway worker` on the same database, with the same times; stopped by Ctrl-C."""
    settings = made.settings
    environment = {
        **os.environ,
        "LEEWAY_DATA_DIR": str(settings.data_dir),
        "LEEWAY_FIRST_LOOK": str(settings.first_look.total_seconds()),
        "LEEWAY_SWEEP_INTERVAL": str(settings.sweep_interval.total_seconds()),
        "LEEWAY_WORKERS": str(settings.workers),
        "LEEWAY_LOG_LEVEL": "ERROR",
    }
    command = [sys.executable, "-m", "web.cli.main", "worker"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    try:
        yield process.pid
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)


@contextmanager
def composed(folder: Path, cloud: dict[str, Any]) -> Iterator[Services]:
    """The real composition over an embedded database, with the cloud connected and a large grant."""
    settings = load_settings(
        data_dir=folder / "leeway",
        first_look=timedelta(milliseconds=50),
        sweep_interval=timedelta(seconds=1),
        workers=8,
    )
    with database(settings) as found:
        upgrade(found)
        with services(settings, found) as made:
            people(made.sessions, grant="1000000 EUR")
            site = connect(
                made.sessions,
                made.doors,
                made.jobs,
                endpoint=cloud["auth_url"],
                name="aurora",
                region="aurora-1",
                project="leeway",
                prices=aurora_prices(),
            )
            observe_site(made, site)
            yield made


def _round(made: Services, worker: int, number: int) -> tuple[float, float]:
    """Wall and CPU seconds from the first quote until every machine runs."""

    def order(index: int) -> None:
        with made.sessions.begin() as session:
            document = DOCUMENT | {"name": f"bench-{number}-{index}"}
            quote = make_quote(session, document, made.quoting, now=database_now(session))
        with made.sessions.begin() as session:
            place_order(
                session,
                Choice(quote.id),
                ledger=made.ledger,
                jobs=made.jobs,
                actor="bench",
                now=database_now(session),
            )

    def cpu() -> float:
        return time.process_time() + cpu_of(worker)

    started, used = time.perf_counter(), cpu()
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(order, range(ORDERS)))
    while _running(made) < ORDERS * (number + 1):
        if time.perf_counter() - started > 300:
            raise RuntimeError(f"only {_running(made)} machines run after 300 s")
        time.sleep(0.1)
    return time.perf_counter() - started, cpu() - used


def _running(made: Services) -> int:
    with made.sessions() as session:
        return session.scalars(select(func.count()).select_from(Lease).where(Lease.state == LeaseState.RUNNING)).one()
