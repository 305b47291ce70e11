"""The cloud's own account of what really existed when.

Tests count from it, never from what a client believes: a create whose answer was lost is in it, a listing cut short is
not. Entries are only added, in the order of their times.
"""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

_BEGIN = frozenset({"created"})
_END = frozenset({"deleted", "vanished"})


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
        self._catch_up()
        with self._lock:
            entries = list(self._entries)
        return [
            entry
            for entry in entries
            if kind in (None, entry.kind) and event in (None, entry.event) and id in (None, entry.id)
        ]

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
        living: set[str] = set()
        most = 0
        for entry in self.entries(kind=kind):
            if entry.event in _END:
                living.discard(entry.id)
            elif entry.event in _BEGIN and all(entry.metadata.get(key) == value for key, value in metadata.items()):
                living.add(entry.id)
                most = max(most, len(living))
        return most
