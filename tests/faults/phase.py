"""One phase: a federation of its own, from the first order to the counting. Whatever it needs it starts and ends.

1. Sites are connected and listed, and some orders are made by workers that nobody harms, so that the points are known.
2. Kills and freezes, until there were enough; meanwhile the queue is emptied, prices change, PostgreSQL is killed.
3. A dump is taken, orders go on, everything is killed, the dump is restored: Leeway must only observe until a person
   resumes. Then kills go on for a while.
4. No more orders; when all is quiet, what is left is counted.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from broker.embedded import EmbeddedServer
from broker.embedded_watch import kept_running
from broker.errors import SetupError
from broker.models.federation import Site
from tests.faults import disasters
from tests.faults.client import Client
from tests.faults.clouds import SITES, Clouds, Logs, clouds
from tests.faults.counting import Fault, count
from tests.faults.federation import LISTING, Federation, federation
from tests.faults.load import Load
from tests.faults.oracle import Blind, Sight, charges
from tests.faults.processes import Herd
from tests.faults.rows import Rows, read_rows, story
from tests.faults.run import Crew, Run, Tally
from tests.faults.sabotage import SABOTAGE

_START_SECONDS = 120.0
# So long nothing may have happened at any cloud: a sweep, a listing, and what they lead to.
_QUIET_SECONDS = 1 + 2 * LISTING + 1
_OBSERVE_SECONDS = 6.0
# Of what is told about faults.
_MOST_LINES = 400


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a phase is to do.

    `seconds`: the longest time for the kills, without start and restore; `drain_seconds`: for the end. `armed`: so many
    workers at once wait for their point to die at.
    """

    seed: int
    kills: int
    freezes: int
    seconds: float
    armed: int = 3
    drain_seconds: float = 150.0
    with_disasters: bool = True
    sabotage: Sequence[str] = ()


@dataclass
class Outcome:
    """What came of it."""

    tally: Tally
    faults: list[Fault] = field(default_factory=list)
    acted: list[str] = field(default_factory=list)
    orders: int = 0
    leases: int = 0
    charges: int = 0
    done: dict[str, int] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)
    stories: list[str] = field(default_factory=list)
    findings: dict[str, int] = field(default_factory=dict)
    laps: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0


def phase(wanted: Wanted, tally: Tally, seen: set[str], *, keep: Path | None = None) -> Outcome:
    """Run one. `tally` and `seen`: of earlier phases, so that the points that were hit least come first."""
    began = time.monotonic()
    outcome = Outcome(Tally(tally.kills.copy(), tally.freezes.copy()), seen=seen)
    with _started(wanted, outcome, keep=keep) as (run, blinds):
        _rehearse(run, wanted)
        outcome.laps["rehearsed"] = time.monotonic() - began
        _kill(run, wanted, blinds)
        outcome.laps["killed"] = time.monotonic() - began
        if wanted.with_disasters:
            _restore(run, outcome, blinds)
            outcome.laps["restored"] = time.monotonic() - began
        _drain(run, wanted)
        outcome.laps["drained"] = time.monotonic() - began
        _count(run, outcome, [*blinds, *run.crew.blinds])
    outcome.seconds = time.monotonic() - began
    return outcome


@contextmanager
def _started(wanted: Wanted, outcome: Outcome, *, keep: Path | None) -> Iterator[tuple[Run, list[Blind]]]:
    """All processes, in the one order that works: what forks comes before what starts threads."""
    with (
        _folder(keep) as folder,
        clouds(SITES, log=folder / "clouds.log") as made,
        Herd.start(log=folder / "workers.log") as herd,
        _postgres(folder) as server,
        federation(server, folder, made) as found,
    ):
        herd.known, herd.sabotage, herd.settings = outcome.seen, wanted.sabotage, found.settings
        chance = random.Random(wanted.seed)  # noqa: S311 - choices that can be repeated
        crew = Crew(herd, chance, outcome.tally, notes=outcome.notes)
        own = random.Random(chance.random())  # noqa: S311 - as above
        sites = tuple({site for name in wanted.sabotage for site in SABOTAGE[name].sites}) or tuple(made.specs)
        load = Load(found, Client(found.services.settings, own), own, sites=sorted(sites), is_placing=False)
        if any(SABOTAGE[name].has_keepers for name in wanted.sabotage):
            load.keepers = 1.0
        yield Run(found, crew, load), []
        crew.end_all()


@contextmanager
def _postgres(folder: Path) -> Iterator[EmbeddedServer]:
    """As the product has it: durable, and started again when it ended."""
    with EmbeddedServer(folder / "postgres") as server:
        disasters.make_roomy(server)
        with kept_running(server):
            yield server


@contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        yield keep
        return
    with tempfile.TemporaryDirectory(prefix="leeway-crash-") as name:
        yield Path(name)


# --- the parts ---------------------------------------------------------------------------------------------------


def _rehearse(run: Run, wanted: Wanted) -> None:
    """Unharmed workers list every site and make a few orders: now most points are known."""
    run.crew.armed = run.crew.freezing = 0
    if not run.until(run.federation.listed, seconds=_START_SECONDS):
        raise RuntimeError("the sites were not listed; see workers.log")
    run.federation.clouds.trouble()
    for name in wanted.sabotage:
        run.federation.clouds.lose(SABOTAGE[name].sites, SABOTAGE[name].lost)
    run.load.is_placing = True
    run.until(lambda: run.load.done["order"] >= run.load.alive, seconds=_START_SECONDS)


def _kill(run: Run, wanted: Wanted, blinds: list[Blind]) -> None:
    """Kills and freezes; three times the queue is lost, twice prices change, once PostgreSQL is killed."""
    kills, freezes = run.crew.tally.kills.total() + wanted.kills, run.crew.tally.freezes.total() + wanted.freezes
    deadline = time.monotonic() + wanted.seconds
    events = ["queue", "price", "postgres", "queue", "price", "queue"] if wanted.with_disasters else []
    for number, event in enumerate([*events, ""], start=1):
        share = number / (len(events) + 1)
        goal = kills - round(wanted.kills * (1 - share)), freezes - round(wanted.freezes * (1 - share))

        def met(goal: tuple[int, int] = goal) -> bool:
            tally = run.crew.tally
            run.crew.armed = wanted.armed if tally.kills.total() < goal[0] else 1
            run.crew.freezing = 1 if tally.freezes.total() < goal[1] else 0
            return tally.kills.total() >= goal[0] and tally.freezes.total() >= goal[1]

        run.until(met, seconds=deadline - (1 - share) * wanted.seconds - time.monotonic())
        _befall(run, event, blinds)


def _befall(run: Run, event: str, blinds: list[Blind]) -> None:
    if not event:
        return
    run.crew.notes.append(f"{datetime.now(UTC):%H:%M:%S.%f} disaster: {event}")
    if event == "queue":
        with suppress(DBAPIError):  # somebody holds it: next time
            disasters.truncate_queue(run.federation)
    elif event == "price":
        with suppress(DBAPIError, SetupError):
            run.federation.write(lambda _session, now: run.load.change_price(now + timedelta(seconds=0.5)))
    else:
        began = disasters.kill_postgres(run.federation)
        blinds.append(Blind(began, disasters.wait_for_postgres(run.federation)))


def _restore(run: Run, outcome: Outcome, blinds: list[Blind]) -> None:
    """A dump is brought back some seconds late."""
    crew, load, found = run.crew, run.load, run.federation
    file = found.server.data_dir.parent / "dump"
    run.crew.disarm()
    began = disasters.dump(found, file)
    run.until(lambda: False, seconds=8)
    load.is_placing = False
    crew.end_all()
    time.sleep(0.5)  # what the clouds do by themselves comes to its end
    disasters.restore(found, file)
    before = found.clouds.read()
    run.heeds = False  # who looks at the clouds now shall not take a person's deed for Leeway's
    run.until(lambda: False, seconds=_OBSERVE_SECONDS)
    outcome.acted = disasters.acts_between(before, found.clouds.read())
    if not run.until(lambda: disasters.try_to_resume(found), seconds=_START_SECONDS):
        outcome.acted.append("`leeway resume` refused to the end")
    blinds.append(Blind(began, datetime.now(UTC)))
    run.heeds = load.is_placing = True
    crew.armed = 2
    run.until(lambda: False, seconds=8)


def _drain(run: Run, wanted: Wanted) -> None:
    """No more orders, no more kills; wait until nothing happens any more, or for as long as it may take."""
    run.crew.disarm()
    run.load.end()
    quiet = _Quiet(run.federation, run.federation.clouds)
    run.until(lambda: run.load.is_over and quiet.is_met(), seconds=wanted.drain_seconds)


@dataclass
class _Quiet:
    """Whether every lease is settled, and the clouds' logs have been still for a while."""

    federation: Federation
    clouds: Clouds
    since: float = field(default_factory=time.monotonic)
    size: int = -1
    asked_at: float = 0.0

    def is_met(self) -> bool:
        now = time.monotonic()
        if now < self.asked_at + 0.5:
            return False
        self.asked_at = now
        size = sum(len(entries) for entries in self.clouds.read().values())
        if size != self.size:
            self.size, self.since = size, now
        if now < self.since + _QUIET_SECONDS:
            return False
        with suppress(DBAPIError, SetupError), self.federation.services.sessions() as session:
            rows = read_rows(session)
            return all(lease.settled_at is not None for lease in rows.leases) and not rows.holds
        return False


# --- the counting ------------------------------------------------------------------------------------------------


def _count(run: Run, outcome: Outcome, blinds: Sequence[Blind]) -> None:
    found = run.federation
    with found.services.sessions() as session:
        rows = read_rows(session)
    logs = found.clouds.read()
    fences = {name: spec.fence for name, spec in found.clouds.specs.items()}
    with found.services.sessions() as session:
        ids = dict(session.execute(sa.select(Site.name, Site.id)).all())
    outcome.faults = [
        *count(logs, rows, fences, heeded=frozenset(run.load.heeded), stops=run.load.stops),
        *charges(logs, rows, Sight(found.prices, blinds, ids, run.load.stops)),
    ]
    outcome.orders, outcome.leases, outcome.charges = len(run.load.placed), len(rows.leases), len(rows.charges)
    outcome.done = dict(run.load.done)
    for finding in rows.findings:
        outcome.findings[finding.kind] = outcome.findings.get(finding.kind, 0) + 1
    outcome.stories = _stories(run, rows, logs, outcome.faults)
    outcome.stories += [f"blind {blind.start:%H:%M:%S.%f}-{blind.end:%H:%M:%S.%f} {blind.subject}" for blind in blinds]


def _stories(run: Run, rows: Rows, logs: Logs, faults: Sequence[Fault]) -> list[str]:
    """What a developer needs of each fault: the lease with its timeline, its charges, and what its cloud says."""
    told = [f"--- {fault.count}: {fault.text} (lease {fault.lease_id} at {fault.site})" for fault in faults]
    for fault in {fault.lease_id: fault for fault in faults if fault.lease_id is not None}.values():
        if len(told) > _MOST_LINES:
            break
        assert fault.lease_id is not None
        told.append(f"--- lease {fault.lease_id}")
        with run.federation.services.sessions() as session:
            told += story(session, fault.lease_id)
        told += [
            f"charge {row.sku} {row.state} {row.start:%H:%M:%S.%f}-{row.end:%H:%M:%S.%f} {row.cost}"
            for row in sorted(rows.charges, key=lambda row: row.start)
            if row.lease_id == fault.lease_id
        ]
        parts = {part.remote_id for lease in rows.leases if lease.id == fault.lease_id for part in lease.parts}
        for site, entries in logs.items():
            told += [
                f"{entry.at:%H:%M:%S.%f} {site}: {entry.kind} {entry.id} {entry.event}"
                for entry in entries
                if entry.id in parts or fault.lease_id.hex in entry.name
            ]
        told += [note for note in run.crew.notes if str(fault.lease_id) in note]
    return told
