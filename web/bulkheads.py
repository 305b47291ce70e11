"""Bulkheads: how many threads of a worker may wait for sites, so that silent ones never take all of them.

A site is slow while work there has been running for `slow_seconds`, and after work that took so long, until some more
was quick there (one pass alone may have needed no answer). Each process learns this by itself, and forgets it when it
ends. Of `workers` threads

* work at slow sites, of all kinds together, takes at most a half; passes at one of them take at most a quarter,
* visits (listings and checks) take at most a half; those at quick sites at most a quarter, as do those at slow ones,
* one site has one listing and one check at a time,
* and, of two or more, one thread is left to the leases of quick sites by all of these together.

Slow sites take turns, so that one that answers late is not starved by those that never do. What finds no place is left
to its row, which stays due. Until they are known, passes at silent sites may hold every thread, each for one
conversation (`call_timeout`): twenty sites that fall silent in one moment keep eight threads for three of them. After
that the rules above hold for as long as the silence does.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum, auto
from uuid import UUID


class Kind(Enum):
    """What a thread does at a site."""

    PASS = auto()
    LISTING = auto()
    CHECK = auto()


# A site that was sent away keeps its turn for so long at least; whoever still wants to work there asks again.
_TURN_SECONDS = 10


@dataclass(eq=False, slots=True)
class Work:
    """One thread at one site. `has_asked` False: it found nothing to do, which says nothing of the site."""

    site_id: UUID
    kind: Kind
    began: float
    has_asked: bool = True


class Bulkheads:
    """The places of one process. Safe for many threads."""

    def __init__(self, workers: int, *, slow_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock`: seconds."""
        self._workers = workers
        self._quarter = max(1, workers // 4)
        self._half = max(1, workers // 2)
        self._slow_seconds = slow_seconds
        self._clock = clock
        self._running: list[Work] = []
        self._slow: dict[UUID, int] = {}  # site -> quick work that it still owes
        self._sent_away: Counter[UUID] = Counter()
        self._asked: dict[tuple[UUID, Kind], float] = {}  # who was sent away, and when last
        self._served: dict[tuple[UUID, Kind], float] = {}  # when a slow site last had a place
        self._lock = threading.Lock()

    @contextmanager
    def place(self, site_id: UUID, kind: Kind) -> Iterator[Work | None]:
        """A place for work at a site; None where it has to wait."""
        work = Work(site_id, kind, self._clock())
        with self._lock:
            has_place = self._has_place(work)
            if has_place:
                self._running.append(work)
                self._sent_away.pop(site_id, None)
                self._asked.pop((site_id, kind), None)
                self._served[site_id, kind] = work.began
            else:
                self._sent_away[site_id] += 1
                self._asked[site_id, kind] = work.began
        if not has_place:
            yield None
            return
        try:
            yield work
        finally:
            self._leave(work)

    def sent_away(self, site_id: UUID) -> int:
        """How often work at a site found no place since it last found one: how long its queue is, about."""
        with self._lock:
            return self._sent_away[site_id]

    def running(self) -> list[tuple[Kind, UUID, float]]:
        """What runs, the oldest first: the kind, the site, and for how many seconds already."""
        now = self._clock()
        with self._lock:
            return [(work.kind, work.site_id, now - work.began) for work in self._running]

    def _has_place(self, work: Work) -> bool:
        is_slow = self._is_slow(work.site_id)
        if work.kind is Kind.PASS and not is_slow:
            return True
        slow = [other for other in self._running if self._is_slow(other.site_id)]
        quick_visits = [
            other for other in self._running if other.kind is not Kind.PASS and not self._is_slow(other.site_id)
        ]
        slow_visits = [other for other in slow if other.kind is not Kind.PASS]
        if len(slow) + len(quick_visits) >= max(1, self._workers - 1) or (is_slow and len(slow) >= self._half):
            return False
        if is_slow and self._is_anothers_turn(work):
            return False
        same = [other for other in self._running if other.site_id == work.site_id and other.kind is work.kind]
        if work.kind is Kind.PASS:
            return len(same) < self._quarter
        if same or len(quick_visits) + len(slow_visits) >= self._half:
            return False
        return len(slow_visits if is_slow else quick_visits) < self._quarter

    def _is_anothers_turn(self, work: Work) -> bool:
        """Another slow site wants the same, still, and was served before this one was."""
        late = work.began - max(_TURN_SECONDS, self._slow_seconds)
        mine = self._served.get((work.site_id, work.kind), 0.0)
        for (site_id, kind), asked in list(self._asked.items()):
            if asked < late:
                del self._asked[site_id, kind]
            elif kind is work.kind and self._served.get((site_id, kind), 0.0) < mine and self._is_slow(site_id):
                return True
        return False

    def _leave(self, work: Work) -> None:
        with self._lock:
            self._running.remove(work)
            if self._clock() - work.began >= self._slow_seconds:
                self._slow[work.site_id] = self._quarter + 1
            elif work.has_asked and self._slow.get(work.site_id):
                self._slow[work.site_id] -= 1

    def _is_slow(self, site_id: UUID) -> bool:
        late = self._clock() - self._slow_seconds
        is_late = any(work.site_id == site_id and work.began <= late for work in self._running)
        return is_late or self._slow.get(site_id, 0) > 0
