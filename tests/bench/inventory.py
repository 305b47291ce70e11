"""A site with 20,000 machines that is only observed: the first pass of a worker over it, and one that finds no change.

A pass is all of it: the listing, quota, observations, things, findings. The cloud is a process of its own; PostgreSQL's
CPU is printed in the note.
"""

from __future__ import annotations

import gc
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from sqlalchemy import func, select, text, update

from broker.models.federation import Site
from broker.models.inventory import Thing
from broker.schema import upgrade
from tests.bench.clouds import cloud_process, roomy
from tests.bench.figures import Figure, Figures, cpu_of, pss_mb_of
from tests.world import aurora_prices, connect
from web.compose import Services, database, services
from web.settings import load_settings
from web.worker import observe_site

SERVERS = 20_000
ROUNDS = 3


@dataclass
class Pass:
    """What one pass took: seconds of this process and of PostgreSQL, and how far memory rose (MB)."""

    wall: float
    cpu: float
    database: float
    rise: float


def inventory() -> Figures:
    """The first pass, then the best of three that change nothing."""
    with (
        tempfile.TemporaryDirectory() as folder,
        cloud_process(roomy(foreign_servers=SERVERS), Path(folder)) as cloud,
    ):
        settings = load_settings(data_dir=Path(folder) / "leeway", listing_timeout=300)
        with database(settings) as found:
            upgrade(found)
            with services(settings, found) as made:
                site_id = _observed(made, str(cloud["auth_url"]))
                passes = [_pass(made, site_id) for _ in range(ROUNDS + 1)]
    first, again = passes[0], min(passes[1:], key=lambda one: one.cpu)
    yield _per_machine("inventory_first_pass", first)
    yield _per_machine("inventory_unchanged_pass", again)
    rises = ", ".join(f"{one.rise:.0f}" for one in passes)
    yield Figure("inventory_memory", max(one.rise for one in passes), "MB", "printed", f"peak PSS over rest: {rises}")


def _per_machine(name: str, one: Pass) -> Figure:
    note = f"{SERVERS} machines: {one.wall:.1f} s wall, {one.cpu:.2f} s CPU, PostgreSQL {one.database:.2f} s CPU"
    return Figure(name, one.cpu / SERVERS * 1000, "ms CPU per machine", "printed", note)


def _observed(made: Services, endpoint: str) -> UUID:
    site_id = connect(
        made.sessions,
        made.doors,
        made.jobs,
        endpoint=endpoint,
        name="aurora",
        region="aurora-1",
        project="leeway",
        prices=aurora_prices(),
    )
    with made.sessions.begin() as session:
        session.execute(update(Site).values(observe_only=True))
    return site_id


def _pass(made: Services, site_id: UUID) -> Pass:
    with made.sessions.begin() as session:
        session.execute(update(Site).values(next_listing_at=func.clock_timestamp()))
    gc.collect()
    rest, peak = pss_mb_of(os.getpid()), [0.0]
    before = _database_cpu(made)
    with _watched(peak):
        wall, cpu = time.perf_counter(), time.process_time()
        observe_site(made, site_id)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    with made.sessions() as session:
        found = session.scalars(select(func.count()).select_from(Thing).where(Thing.gone_at.is_(None))).one()
    if found < SERVERS:
        raise RuntimeError(f"{found} things of {SERVERS}")
    return Pass(wall, cpu, _database_cpu(made) - before, peak[0] - rest)


@contextmanager
def _watched(peak: list[float]) -> Iterator[None]:
    """Keep the highest PSS, looked at ten times a second: a look costs a millisecond."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.1):
            peak[0] = max(peak[0], pss_mb_of(os.getpid()))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def _database_cpu(made: Services) -> float:
    """Of this process's connections: their servers live as long as the pool."""
    with made.sessions() as session:
        pids = session.scalars(text("SELECT pid FROM pg_stat_activity WHERE datname = current_database()")).all()
        return sum(cpu_of(pid) for pid in pids if Path(f"/proc/{pid}").exists())
