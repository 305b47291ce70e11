"""The run: keeps workers going, has them killed and frozen where that was done least, and counts at the end."""

from __future__ import annotations

import contextlib
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from sqlalchemy.exc import DBAPIError

from broker.errors import SetupError
from tests.faults.client import Away
from tests.faults.disasters import freeze_blind
from tests.faults.federation import Federation
from tests.faults.load import Load
from tests.faults.oracle import Blind
from tests.faults.points import Arm, Deed
from tests.faults.processes import Herd, Worker
from tests.faults.rows import FindingRow, open_findings

# How many points a worker is armed with: it meets its end at whichever comes first.
_ARMS = 12
# The share of workers that may die anywhere, once most points were hit.
_ANYWHERE = 0.5
# An armed worker that reached none of its points gives way to one that is armed anew.
_OLD_SECONDS = 6.0
_PATIENCE_SECONDS = 15.0
# Points at which nothing is launched, stopped, charged or extended: they come after the others.
_ASIDE = ("check", "clock.", "images", "installation.", "offers", "plan", "POST auth", "quotas", "scope", "sites.")
# With those that stand still or are about to end: the machine is small.
_MOST_WORKERS = 12
# How often a person looks at the findings.
_HEED_SECONDS = 3.0


@dataclass
class Tally:
    """Kills and freezes by point."""

    kills: Counter[str] = field(default_factory=Counter)
    freezes: Counter[str] = field(default_factory=Counter)

    def of(self, deed: Deed) -> Counter[str]:
        """By point."""
        return self.kills if deed is Deed.KILL else self.freezes


@dataclass
class Crew:
    """The workers: some that live, some armed to die, some to freeze. `step` is called often from one thread."""

    herd: Herd
    random: random.Random
    tally: Tally
    steady: int = 2
    armed: int = 2
    freezing: int = 1
    freeze_seconds: tuple[float, ...] = (4.0, 4.0, 4.0, 12.0)
    notes: list[str] = field(default_factory=list)
    blinds: list[Blind] = field(default_factory=list)
    _until: dict[int, float] = field(default_factory=dict)
    _hits: dict[int, tuple[datetime, str, str]] = field(default_factory=dict)
    _retired: dict[int, float] = field(default_factory=dict)

    def step(self) -> None:
        """Hear what happened, thaw what was frozen long enough, and keep the numbers up."""
        now = time.monotonic()
        for kind, worker, message in self.herd.news():
            if kind == "hit":
                self.tally.of(Deed(message["deed"]))[message["hit"]] += 1
                if worker is not None:
                    self._hits[worker.number] = (datetime.now(UTC), message["hit"], message["subject"])
                self.notes.append(
                    f"{datetime.now(UTC):%H:%M:%S.%f} {message['deed']} at {message['hit']} of {message['subject']}"
                )
            elif kind == "stopped" and worker is not None:
                self._until[worker.number] = now + self.random.choice(self.freeze_seconds)
            elif kind == "dead" and worker is not None and message["signal"] != signal.SIGKILL:
                self.notes.append(f"{datetime.now(UTC):%H:%M:%S.%f} worker {worker.pid} ended: {message}")
        for worker in list(self.herd.workers.values()):
            self._tend(worker, now)
        self._recruit()

    def _tend(self, worker: Worker, now: float) -> None:
        until = self._until.get(worker.number)
        if until is not None:
            if now >= until:
                del self._until[worker.number]
                self.herd.thaw(worker)
                start, point, subject = self._hits[worker.number]
                self.blinds.append(freeze_blind(start, datetime.now(UTC), point, subject))
                self._retired[worker.number] = now + 3  # what it does when it wakes is what matters
            return
        retired = self._retired.get(worker.number)
        if retired is not None:
            if now > retired + _PATIENCE_SECONDS:
                self.herd.signal(worker, signal.SIGKILL)
            elif now > retired:
                self.herd.signal(worker, signal.SIGTERM)
        elif worker.arms and now - worker.ordered_at > _OLD_SECONDS:
            self._retired[worker.number] = now

    def _recruit(self) -> None:
        there = [worker for worker in self.herd.workers.values() if worker.number not in self._retired]
        for wanted, deed in ((self.steady, None), (self.armed, Deed.KILL), (self.freezing, Deed.FREEZE)):
            alike = [worker for worker in there if _deed(worker) is deed]
            for _ in range(min(wanted - len(alike), _MOST_WORKERS - len(self.herd.workers))):
                # Those that live answer the API; of the others every second one does.
                serves = deed is None or self.random.random() < 0.5
                self.herd.fork({} if deed is None else self._arms(deed), serves=serves)

    def _arms(self, deed: Deed) -> dict[str, Arm]:
        """Points where this was never done, those that change something first.

        Once few are left, they are the rare ones, and who waits for them alone does not die: then also the points where
        it was done no more often than on average, and every second worker has any points, for the pace.
        """
        done = self.tally.of(deed)
        points = sorted(self.herd.known)
        self.random.shuffle(points)
        points.sort(key=lambda point: (done[point], point.startswith(_ASIDE)))
        never = [point for point in points if not done[point]]
        chosen = never[:_ARMS]
        if len(never) < len(points) / 3:
            if self.random.random() < _ANYWHERE:
                return {point: Arm(1, deed) for point in self.random.sample(points, min(_ARMS, len(points)))}
            seldom = [point for point in points if 0 < done[point] <= done.total() / len(done)]
            chosen += seldom[:_ARMS]
        return {point: Arm(self.random.choice((1, 1, 2, 3)), deed) for point in chosen}

    def disarm(self) -> None:
        """From now on only workers that live; those that are armed are ended."""
        self.armed = self.freezing = 0
        for worker in self.herd.workers.values():
            if worker.arms and worker.number not in self._until:
                self._retired.setdefault(worker.number, 0.0)

    def end_all(self) -> None:
        """Kill every worker there is, and wait until they are gone."""
        for worker in self.herd.workers.values():
            self.herd.signal(worker, signal.SIGKILL)
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while self.herd.workers and time.monotonic() < deadline:
            list(self.herd.news())
            time.sleep(0.02)
        self._until.clear()
        self._retired.clear()


def _deed(worker: Worker) -> Deed | None:
    return next((arm.deed for arm in worker.arms.values()), None)


@dataclass
class Run:
    """One phase's parts, and the loop over them. `heeds`: somebody does what findings ask for."""

    federation: Federation
    crew: Crew
    load: Load
    heeds: bool = True

    def until(self, met: Callable[[], bool], *, seconds: float) -> bool:
        """Keep everything going until a condition holds; False where it did not in time."""
        deadline = time.monotonic() + seconds
        stop = threading.Event()
        loading = threading.Thread(target=self._load, args=(stop,), name="load", daemon=True)
        loading.start()
        try:
            while not met():
                if time.monotonic() > deadline:
                    return False
                if not loading.is_alive():
                    raise RuntimeError("the load broke; its traceback is above")
                self.crew.step()
                self.load.client.urls = self.crew.herd.urls
                time.sleep(0.02)
            return True
        finally:
            stop.set()
            loading.join(30)

    def _findings(self) -> list[FindingRow]:
        with self.federation.services.sessions() as session:
            return open_findings(session)

    def _load(self, stop: threading.Event) -> None:
        heed_at = 0.0
        while not stop.wait(0.05):
            self.load.step()
            if self.heeds and time.monotonic() > heed_at:
                with contextlib.suppress(DBAPIError, SetupError, Away):
                    self.load.heed(self._findings())
                heed_at = time.monotonic() + _HEED_SECONDS
