"""What really existed, out of the clouds' own logs: machines over time, snapshots of them, and parts beside them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from uuid import UUID

from adapters.sandbox.truth import Entry
from broker.models.leases import LeaseState
from tests.faults.clouds import Logs

_ENDS = frozenset({"deleted", "vanished"})
# What the log calls a change -> what Leeway's meters call the state from then on.
_STATES = {
    "created": LeaseState.BUILDING,
    "active": LeaseState.RUNNING,
    "error": LeaseState.ERROR,
    "stopped": LeaseState.STOPPED,
    "shelved": LeaseState.STOPPED,  # shut down, and its place still kept
    "offloaded": LeaseState.SHELVED,
    "deleting": LeaseState.DELETING,
}
_OURS = re.compile(r"leeway-([0-9a-f]{32})\Z")
_ADDRESS = "floating_ip"
_SNAPSHOT = "snapshot"
_PARTS = ("port", _ADDRESS, "key_pair", _SNAPSHOT)


@dataclass(frozen=True, slots=True)
class Span:
    """A state over [start, end); end None: still."""

    state: LeaseState
    start: datetime
    end: datetime | None

    def overlaps(self, other: Span) -> bool:
        """Whether both were at one moment."""
        return (other.end is None or self.start < other.end) and (self.end is None or other.start < self.end)


@dataclass(slots=True)
class Machine:
    """One server that was ever made. `lease`: whose tags or name it carries; None: somebody else's."""

    site: str
    id: str
    lease: UUID | None
    born: datetime
    gone: datetime | None = None
    changes: list[tuple[datetime, LeaseState]] = field(default_factory=list)

    @property
    def spans(self) -> list[Span]:
        """Its states, from birth to end."""
        starts = [*self.changes]
        ends = [at for at, _ in self.changes[1:]] + [self.gone]
        return [Span(state, at, end) for (at, state), end in zip(starts, ends, strict=True) if at != end]

    @property
    def ending(self) -> datetime | None:
        """When its deletion was asked for, or where that is not in the log, when it was gone."""
        return next((at for at, state in self.changes if state is LeaseState.DELETING), self.gone)

    @property
    def active(self) -> Iterator[Span]:
        """When it ran: until it was off, or gone. A machine that is being deleted runs until it is gone."""
        begun: datetime | None = None
        for span in self.spans:
            if span.state is LeaseState.RUNNING:
                begun = begun or span.start
            elif begun is not None and span.state is not LeaseState.DELETING:
                yield Span(LeaseState.RUNNING, begun, span.start)
                begun = None
        if begun is not None:
            yield Span(LeaseState.RUNNING, begun, self.gone)


@dataclass(slots=True)
class Snapshot:
    """An image that was made of a machine's disk. `whole`: since when all of it was saved."""

    site: str
    id: str
    machine: str
    born: datetime
    whole: datetime | None = None
    gone: datetime | None = None
    has_vanished: bool = False


@dataclass(frozen=True, slots=True)
class Thing:
    """A port, key pair, address or snapshot that was made."""

    site: str
    kind: str
    id: str
    name: str
    born: datetime
    gone: datetime | None = None


def machines(logs: Logs) -> list[Machine]:
    """Every server of every log."""
    found: dict[str, Machine] = {}
    for site, entries in logs.items():
        for entry in entries:
            if entry.kind != "server":
                continue
            machine = found.get(entry.id)
            if machine is None:
                machine = found[entry.id] = Machine(site, entry.id, _lease(entry), entry.at)
            if entry.event in _ENDS:
                machine.gone = entry.at
            elif entry.event in _STATES:
                machine.changes.append((entry.at, _STATES[entry.event]))
    return list(found.values())


def snapshots(logs: Logs) -> list[Snapshot]:
    """Every image of every log that somebody had made of a server."""
    found: dict[str, Snapshot] = {}
    for site, entries in logs.items():
        for entry in entries:
            if entry.kind != _SNAPSHOT:
                continue
            if entry.event == "created":
                found[entry.id] = Snapshot(site, entry.id, entry.detail["server_id"], entry.at)
            elif entry.event == "active":
                found[entry.id].whole = entry.at
            elif entry.event in _ENDS:
                found[entry.id].gone = entry.at
                found[entry.id].has_vanished = entry.event == "vanished"
    return list(found.values())


def _lease(entry: Entry) -> UUID | None:
    tag = entry.metadata.get("leeway:lease")
    if tag is not None:
        return UUID(tag)
    name = _OURS.search(entry.name)
    return UUID(name.group(1)) if name else None


def _things(logs: Logs) -> list[Thing]:
    """Everything of our names, and every address. A key pair of the same name may be made again."""
    made: list[Thing] = []
    alive: dict[tuple[str, str, str], Thing] = {}
    for site, entries in logs.items():
        for entry in entries:
            key = (site, entry.kind, entry.id)
            if entry.kind not in _PARTS:
                continue
            if entry.event == "created" and (entry.kind == _ADDRESS or _OURS.search(entry.name)):
                alive[key] = Thing(site, entry.kind, entry.id, entry.name, entry.at)
            elif entry.event in _ENDS and key in alive:
                made.append(replace(alive.pop(key), gone=entry.at))
    return [*made, *alive.values()]


def parts_alive(logs: Logs) -> list[Thing]:
    """Those that exist at the end of the logs."""
    return [thing for thing in _things(logs) if thing.gone is None]


def addresses(logs: Logs) -> list[Thing]:
    """Every public address that was ever had."""
    return [thing for thing in _things(logs) if thing.kind == _ADDRESS]


def together(some: Iterable[Machine]) -> Iterator[tuple[Machine, Machine, Span]]:
    """Every two machines that ran at one moment, and when the later one began to."""
    spans: Sequence[tuple[Machine, Span]] = sorted(
        ((machine, span) for machine in some for span in machine.active), key=lambda pair: pair[1].start
    )
    for index, (machine, span) in enumerate(spans):
        for other, later in spans[index + 1 :]:
            if other is not machine and span.overlaps(later):
                yield machine, other, later
