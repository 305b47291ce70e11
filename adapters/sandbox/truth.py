"""The cloud's own account of what really existed when.

Tests count from it, never from what a client believes: a create whose answer was lost is in it, a listing cut short is
not. Entries are only added, in the order of their times.
"""

import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

_BEGIN = frozenset({"created"})
_END = frozenset({"deleted", "vanished"})
_RUNS = frozenset({"active"})
_RUNS_NO_MORE = _END | {"error"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One thing that happened: `event` to the `kind` of thing with this `id`, at `at` (UTC)."""

    at: datetime
    kind: str
    event: str
    id: str
    name: str = ""
    project_id: str = ""
    request_id: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    detail: Mapping[str, Any] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """The entry as plain JSON values; the time is ISO 8601 with microseconds and offset."""
        return {
            "at": self.at.isoformat(timespec="microseconds"),
            "kind": self.kind,
            "event": self.event,
            "id": self.id,
            "name": self.name,
            "project_id": self.project_id,
            "request_id": self.request_id,
            "metadata": dict(self.metadata),
            "detail": dict(self.detail),
        }


class TruthLog:
    """Append-only. Reading first lets what is due happen, so that the log is up to date without a clock of its own."""

    def __init__(self, catch_up: Callable[[], None]) -> None:
        self._catch_up = catch_up
        self._entries: list[Entry] = []
        self._lock = threading.Lock()

    def add(self, entry: Entry) -> None:
        with self._lock:
            self._entries.append(entry)

    def clear(self) -> None:
        """Only for a reset: what follows is another cloud."""
        with self._lock:
            self._entries.clear()

    def entries(self, *, kind: str | None = None, event: str | None = None, id: str | None = None) -> list[Entry]:  # noqa: A002 - the field's name
        """All that happened so far, oldest first, narrowed to what is given."""
        return [
            entry
            for entry in self.since(0)[0]
            if kind in (None, entry.kind) and event in (None, entry.event) and id in (None, entry.id)
        ]

    def since(self, index: int) -> tuple[list[Entry], int]:
        """What happened after the first `index` entries, oldest first, and the index for the next time."""
        self._catch_up()
        with self._lock:
            return self._entries[index:], len(self._entries)

    def alive(self, kind: str) -> set[str]:
        """The ids of the things of this kind that exist now."""
        living: set[str] = set()
        for entry in self.entries(kind=kind):
            if entry.event in _BEGIN:
                living.add(entry.id)
            elif entry.event in _END:
                living.discard(entry.id)
        return living

    def most_at_once(self, kind: str, **metadata: str) -> int:
        """How many things of this kind with this metadata ever existed at the same time."""
        with_it = (
            entry
            for entry in self.entries(kind=kind)
            if entry.event in _END or all(entry.metadata.get(key) == value for key, value in metadata.items())
        )
        return _most(with_it, begin=_BEGIN, end=_END, group=lambda _: "").get("", 0)

    def most_active(self, key: str) -> dict[str, int]:
        """By the value of this metadata key: how many servers were ever active at the same time.

        Once active a server counts until it is in error, deleted or vanished, also while it is stopped or shelved.
        Servers without the key, and values of which no server ever was active, are left out.
        """
        servers = self.entries(kind="server")
        return _most(servers, begin=_RUNS, end=_RUNS_NO_MORE, group=lambda entry: entry.metadata.get(key))


def _most(
    entries: Iterable[Entry], *, begin: frozenset[str], end: frozenset[str], group: Callable[[Entry], str | None]
) -> dict[str, int]:
    """The most things of each group between their `begin` and their `end` at one time. A thing keeps its group."""
    groups: dict[str, str] = {}
    living: defaultdict[str, set[str]] = defaultdict(set)
    most: defaultdict[str, int] = defaultdict(int)
    for entry in entries:
        if entry.event in end and entry.id in groups:
            living[groups[entry.id]].discard(entry.id)
        elif entry.event in begin:
            name = groups.get(entry.id) or group(entry)
            if name is not None:
                groups[entry.id] = name
                living[name].add(entry.id)
                most[name] = max(most[name], len(living[name]))
    return dict(most)
