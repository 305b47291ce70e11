"""What every worker works with, and how long things may take. Passed as one argument; never looked up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from sqlalchemy.orm import Session, sessionmaker

from broker.ports import CloudAdapter, Jobs, Ledger

OpenSite = Callable[[UUID], CloudAdapter]


@dataclass(frozen=True, slots=True)
class Timing:
    """How long work on one lease may take. Settings; the defaults suit real clouds.

    Attributes:
        call: total time of one conversation with a site, and so from an attempt's start to its `give_up_at`.
        claim: how long a claim stands without a write; longer than `call`.
        first_look, last_look: the shortest and the longest wait before an unfinished lease is looked at again.
        settle: overrides the adapter's settle time where set.
        patience: a machine that is built or deleted for longer becomes a finding.
    """

    call: timedelta = timedelta(seconds=60)
    claim: timedelta = timedelta(seconds=150)
    first_look: timedelta = timedelta(seconds=1)
    last_look: timedelta = timedelta(minutes=5)
    settle: timedelta | None = None
    patience: timedelta = timedelta(hours=1)

    def backoff(self, failures: int) -> timedelta:
        """Doubles with every failure in a row, from `first_look` to `last_look`."""
        return min(self.first_look * int(2 ** min(failures, 20)), self.last_look)

    def settle_of(self, adapter: CloudAdapter) -> timedelta:
        """From the last moment a request may be sent until what it made must show."""
        return self.settle if self.settle is not None else adapter.settle_time


@dataclass(frozen=True, slots=True)
class Pace:
    """How often a site is asked: `listing` for machines and quota, `catalogue` for offers and images.

    `full` is the longest time between two complete listings; between them only what changed is asked for, of a site
    that can tell (zero: every listing is complete). `call` is the total time of one visit.
    """

    listing: timedelta = timedelta(minutes=2)
    full: timedelta = timedelta(minutes=30)
    catalogue: timedelta = timedelta(hours=6)
    call: timedelta = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How long a thing that nobody uses may lie at a site before a person is told. Settings.

    Attributes:
        machine: a machine that is stopped, and costs.
        volume: a volume that is attached to nothing.
        snapshot: the age of a snapshot.
    """

    machine: timedelta = timedelta(days=7)
    volume: timedelta = timedelta(days=7)
    snapshot: timedelta = timedelta(days=90)


@dataclass(frozen=True, slots=True)
class Tools:
    """The same for every lease and every site.

    `open_site` gives the adapter of a site id; it raises `SiteError` or `NotFound`.
    """

    sessions: sessionmaker[Session]
    open_site: OpenSite
    installation: UUID
    ledger: Ledger
    jobs: Jobs
    timing: Timing = Timing()
    pace: Pace = Pace()
    tolerance: Tolerance = Tolerance()
