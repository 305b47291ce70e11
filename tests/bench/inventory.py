"""Sites of 5,000 and 20,000 machines that are only observed: what one pass of a worker over them takes.

A pass is all of it: listing, quota, observations, things, findings. The first pass over a site writes everything; one
that finds no change writes next to nothing; one of changes asks for nothing else. Each size has a process of its own,
so that one does not find memory that another has left; the cloud is another process, and PostgreSQL's CPU is apart.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from sqlalchemy import func, select, text, update

from adapters.sandbox.faults import Fault, FaultKind
from broker.database import database_now
from broker.models.audit import Finding
from broker.models.federation import Site
from broker.models.inventory import Thing
from broker.models.leases import SiteListing
from broker.remote import Deadline, Listing
from broker.schema import upgrade
from tests.bench.clouds import cloud_process, opened, roomy
from tests.bench.figures import Figure, Figures, cpu_of, pss_mb_of
from tests.bench.raw import RawApi
from tests.world import aurora_prices, connect
from web.compose import Services, database, services
from web.settings import load_settings
from web.worker import observe_site

SIZES: Final = (5_000, 20_000)
ROUNDS: Final = 5
CHANGES: Final = 100
# What an adapter asks earlier because clocks differ, and the longest settle time; and a little.
_MARGIN: Final = timedelta(minutes=5, seconds=31)


@dataclass
class Pass:
    """What one pass took: seconds of this process and of PostgreSQL, and how far memory rose (MB)."""

    wall: float
    cpu: float
    database: float
    rise: float
    progress: list[int] = field(default_factory=list)

    def __str__(self) -> str:
        """For a note."""
        return f"{self.wall:.1f} s wall, {self.cpu:.2f} s CPU, PostgreSQL {self.database:.2f} s CPU"


@dataclass
class Found:
    """What was measured at a site of one size. `listing_mb` is what a listing takes that is held as a whole."""

    size: int
    things: int
    findings: int
    listing_mb: float
    raw: float
    first: list[Pass]
    again: list[Pass]
    changes: list[Pass]


def inventory() -> Figures:
    """Both sizes, and the first findings of the smaller one at a cloud that takes its time."""
    small, large = (_apart(_measure, size) for size in SIZES)
    for found in (small, large):
        yield from _figures(found)
    grown = large.first[0].rise - large.listing_mb, small.first[0].rise - small.listing_mb
    note = "; ".join(
        f"{found.size} machines: pass {found.first[0].rise:.0f} MB, its listing alone {found.listing_mb:.0f} MB"
        for found in (small, large)
    )
    yield Figure(
        "inventory_memory_beyond_listing", max(grown[0], 0.0), "MB at 20,000", f"{grown[1]:.1f} at 5,000", note
    )
    slow = _apart(_first_findings, SIZES[0])
    note = f"{slow}; told {', '.join(f'{read:,}' for read in slow.progress)} things read"
    yield Figure("first_findings_of_5000", slow.cpu + slow.database, "s CPU", "< 60", note)


def _figures(found: Found) -> Figures:
    size = found.size
    first, again, changes = (min(some, key=lambda one: one.cpu) for some in (found.first, found.again, found.changes))
    what = f"{size} machines, {found.things} things, {found.findings} findings"
    for name, one in (("first", first), ("unchanged", again)):
        cpu = one.cpu / size * 1000
        yield Figure(f"inventory_{name}_pass_{size}", cpu, "ms CPU per machine", "printed", f"{what}: {one}")
    note = f"raw API {found.raw:.2f} s CPU, pass {again.cpu:.2f} s, best of {ROUNDS} each"
    yield Figure(f"inventory_to_raw_{size}", again.cpu / found.raw, "x raw paged API, CPU", "printed", note)
    note = (
        f"{CHANGES} changes among {size}: {changes}; {again.cpu / changes.cpu:.0f} times less than a complete listing"
    )
    yield Figure(f"inventory_changes_{size}", changes.cpu, "s CPU", "<= 2", note)


# --- each in a process of its own ------------------------------------------------------------------------------------


def _apart(work: Callable[[Any], Any], about: int | str) -> Any:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, about).result()


def _measure(size: int) -> Found:
    with _observing(size) as (made, auth_url):
        api = RawApi(auth_url)
        sites = [_observed(made, auth_url, f"aurora-{number}") for number in range(ROUNDS)]
        first = [_pass(made, site_id) for site_id in sites]
        raw, again = [], []
        for _ in range(ROUNDS):
            raw.append(_cpu(api.servers) + _cpu(api.others))
            again.append(_pass(made, sites[0]))
        changes = [_pass_of_changes(made, sites[0], api) for _ in range(ROUNDS)]
        with made.sessions() as session:
            here = (Thing.site_id == sites[0], Thing.gone_at.is_(None))
            things = session.scalars(select(func.count()).select_from(Thing).where(*here)).one()
            open_ones = (Finding.site_id == sites[0], Finding.resolved_at.is_(None))
            findings = session.scalars(select(func.count()).select_from(Finding).where(*open_ones)).one()
        if things < size:
            raise RuntimeError(f"{things} things of {size}")
        listing_mb = _apart(_listing_mb, auth_url)
    return Found(size, things, findings, listing_mb, min(raw), first, again, changes)


def _first_findings(size: int) -> Pass:
    """Of a cloud that takes a second for each page, as real ones do; the progress is read as the API shows it."""
    slow = Fault(kind=FaultKind.SLOW, service="compute", method="GET", path="/servers/detail$", seconds=1.0)
    with _observing(size, faults=(slow,)) as (made, auth_url):
        site_id = _observed(made, auth_url, "aurora")
        told: list[int] = []

        def look() -> None:
            with made.sessions() as session:
                read = session.scalars(select(Site.listing_read).where(Site.id == site_id)).one()
            if read and read not in told[-1:]:
                told.append(read)

        with _meanwhile(look, every=0.5):
            found = _pass(made, site_id)
        found.progress = told
        with made.sessions() as session:
            if not session.scalars(select(func.count()).select_from(Finding)).one():
                raise RuntimeError("nothing was found")
        return found


@contextmanager
def _observing(size: int, **more: Any) -> Iterator[tuple[Services, str]]:
    """The real composition over an embedded database, and a cloud of this size where people have more than machines."""
    beside = {
        "foreign_volumes": size // 2,
        "foreign_volume_snapshots": size // 10,
        "foreign_addresses": 200,
        "foreign_images": size // 100,
    }
    with (
        tempfile.TemporaryDirectory() as folder,
        cloud_process(roomy(foreign_servers=size, **beside, **more), Path(folder)) as cloud,
    ):
        settings = load_settings(data_dir=Path(folder) / "leeway", listing_timeout=300)
        with database(settings) as found:
            upgrade(found)
            with services(settings, found) as made:
                yield made, str(cloud["auth_url"])


def _observed(made: Services, endpoint: str, name: str) -> UUID:
    site_id = connect(
        made.sessions,
        made.doors,
        made.jobs,
        endpoint=endpoint,
        name=name,
        region="aurora-1",
        project="leeway",
        prices=aurora_prices(),
    )
    with made.sessions.begin() as session:
        session.execute(update(Site).where(Site.id == site_id).values(observe_only=True))
    return site_id


# --- one pass --------------------------------------------------------------------------------------------------------


def _pass(made: Services, site_id: UUID, *, is_full: bool = True) -> Pass:
    now = func.clock_timestamp()
    due = {"next_listing_at": now, **({"full_listing_wanted_at": now} if is_full else {})}
    with made.sessions.begin() as session:
        session.execute(update(Site).where(Site.id == site_id).values(due))
        complete = session.scalars(select(func.count()).select_from(SiteListing)).one()
    gc.collect()
    rest, peak = pss_mb_of(os.getpid()), [0.0]
    before = _database_cpu(made)

    def watch() -> None:
        peak[0] = max(peak[0], pss_mb_of(os.getpid()))

    with _meanwhile(watch, every=0.1):
        wall, cpu = time.perf_counter(), time.process_time()
        observe_site(made, site_id)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    used = _database_cpu(made) - before
    with made.sessions() as session:
        was_full = session.scalars(select(func.count()).select_from(SiteListing)).one() > complete
    if was_full != is_full:
        raise RuntimeError("another kind of listing than was wanted")
    return Pass(wall, cpu, used, peak[0] - rest)


def _pass_of_changes(made: Services, site_id: UUID, api: RawApi) -> Pass:
    """Stop 40, delete 30, add 30. All that was there before counts as older than what an adapter asks for."""
    with made.sessions() as session:
        before = database_now(session)
    time.sleep(1.1)  # Nova's times are whole seconds
    some = api.first_servers(70)
    api.stop(some[:40])
    api.delete(some[40:])
    api.add(CHANGES - 70)
    with made.sessions.begin() as session:
        session.execute(update(Site).where(Site.id == site_id).values(changes_at=before + _MARGIN))
    found = _pass(made, site_id, is_full=False)
    with made.sessions() as session:
        seen_at = session.scalars(select(Site.changes_at).where(Site.id == site_id)).one()
        about = (Thing.changed_at == seen_at) | (Thing.gone_at == seen_at) | (Thing.first_seen_at == seen_at)
        seen = session.scalars(select(func.count()).select_from(Thing).where(Thing.site_id == site_id, about)).one()
    if seen != CHANGES:
        raise RuntimeError(f"{seen} changes of {CHANGES}")
    return found


def _listing_mb(auth_url: str) -> float:
    """What one listing takes while it is held, in a process that has done nothing else."""
    adapter = opened(auth_url)
    adapter.offers(deadline=Deadline.after(60))
    gc.collect()
    rest = pss_mb_of(os.getpid())
    held: Listing = adapter.listing(deadline=Deadline.after(300))
    gc.collect()
    return pss_mb_of(os.getpid()) - rest if held.machines else 0.0


def _cpu(work: Callable[[], object]) -> float:
    used = time.process_time()
    work()
    return time.process_time() - used


@contextmanager
def _meanwhile(look: Callable[[], object], *, every: float) -> Iterator[None]:
    """Look again and again in a thread. Memory and progress cost a millisecond a look."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(every):
            look()

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
