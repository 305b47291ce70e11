"""Every conversation with a site is timed and counted, wherever it is held, and written down a few seconds later.

Adapters are watched where they are opened, so that no caller has to think of it. An answer that says no (`SiteRefused`)
is an answer. What counts as a failure is an answer that cannot be used: none, a foreign one, "come back later", or a
credential that is not accepted.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import wraps
from typing import Any, Final, cast
from uuid import UUID

from sqlalchemy import case, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from broker.database import database_now
from broker.errors import LeewayError, SiteError, SiteRefused
from broker.health import slot_of
from broker.models.federation import Site
from broker.models.health import ContactTotal, ProbeKind, SiteProbe
from broker.ports import CloudAdapter
from broker.remote import Diagnosis, PartKind
from broker.tools import OpenSite

# What each question to a site is about.
KINDS: Final = {
    "check": ProbeKind.AUTH,
    "listing": ProbeKind.LIST,
    "changes": ProbeKind.LIST,
    "offers": ProbeKind.LIST,
    "images": ProbeKind.LIST,
    "networks": ProbeKind.LIST,
    "usage": ProbeKind.LIST,
    "quotas": ProbeKind.QUOTA,
    "make": ProbeKind.LAUNCH,
} | dict.fromkeys(
    (
        "scope",
        *("find", "look", "delete", "ended_at"),
        *("stop", "start", "shelve", "unshelve", "suspend", "resume"),
        *("resize", "confirm_resize", "revert_resize", "rebuild", "attach", "detach"),
    ),
    ProbeKind.MACHINE,
)
# These wait for their machine, which may take its time and is not the site's fault.
_LATER_PARTS: Final = (PartKind.ADDRESS, PartKind.SNAPSHOT)
# Answered without asking the site while there is a token, so that only its failure says something.
_FROM_MEMORY: Final = "scope"


@dataclass(slots=True)
class _Tally:
    """Contacts since the last writing; moments are of this process's monotonic clock."""

    contacts: int = 0
    failures: int = 0
    latency_sum: float = 0.0
    latency_max: float = 0.0
    last_ok: float | None = None
    last_failed: float | None = None
    error: str | None = None

    @property
    def last(self) -> float:
        return max(moment for moment in (self.last_ok, self.last_failed) if moment is not None)


class Contacts:
    """What this process learned of the sites by asking them. Safe for many threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock`: seconds, monotonic."""
        self._clock = clock
        self._tallies: dict[tuple[UUID, ProbeKind], _Tally] = {}
        self._lock = threading.Lock()

    def watching(self, open_site: OpenSite) -> OpenSite:
        """The same way to the sites, with every conversation noted; so is a site that cannot be opened at all."""

        def opened(site_id: UUID) -> CloudAdapter:
            try:
                adapter = open_site(site_id)
            except LeewayError as error:  # no credential, or one that our key does not open
                self.note(site_id, ProbeKind.AUTH, error=error.code)
                raise
            return cast("CloudAdapter", _Watched(adapter, self, site_id))

        return opened

    def note(self, site_id: UUID, kind: ProbeKind, *, seconds: float = 0.0, error: str | None = None) -> None:
        """One contact that has just ended; `error` is a code, None where all is well."""
        now = self._clock()
        with self._lock:
            tally = self._tallies.setdefault((site_id, kind), _Tally())
            tally.contacts += 1
            tally.latency_sum += seconds
            tally.latency_max = max(tally.latency_max, seconds)
            if error is None:
                tally.last_ok = now
            else:
                tally.failures += 1
                tally.last_failed, tally.error = now, error

    def call(self, site_id: UUID, name: str, ask: Callable[..., Any], *args: Any, **named: Any) -> Any:
        """Ask, and note how that went."""
        kind, began = KINDS[name], self._clock()
        try:
            answer = ask(*args, **named)
        except SiteError as error:
            code = None if isinstance(error, SiteRefused) else error.code
            self.note(site_id, kind, seconds=self._clock() - began, error=code)
            raise
        if name != _FROM_MEMORY:
            code = _failed_step(answer) if name == "check" else None
            self.note(site_id, kind, seconds=self._clock() - began, error=code)
        return answer

    def write(self, session: Session) -> None:
        """Add what was noted since the last time to the rows. If that fails it is lost: it is a few seconds' worth."""
        with self._lock:
            taken, self._tallies = self._tallies, {}
        if not taken:
            return
        now, read_at = database_now(session), self._clock()
        there = set(session.scalars(select(Site.id).where(Site.id.in_({site_id for site_id, _ in taken}))))
        rows = [
            _row(site_id, kind, tally, at=lambda moment: now - timedelta(seconds=read_at - moment))
            for (site_id, kind), tally in sorted(taken.items())  # in one order, as several processes write
            if site_id in there
        ]
        if rows:
            _add(session, rows)


class _Watched:
    """An adapter whose conversations are noted. All else is the adapter's own, also what it is an instance of."""

    def __init__(self, adapter: CloudAdapter, contacts: Contacts, site_id: UUID) -> None:
        self._adapter = adapter
        self._contacts = contacts
        self._site_id = site_id

    @property  # type: ignore[misc] # nobody sets it; isinstance(adapter, Powers) is how its abilities are asked for
    def __class__(self) -> Any:
        return self._adapter.__class__

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._adapter, name)
        if name not in KINDS:
            return found

        @wraps(found)
        def noted(*args: Any, **named: Any) -> Any:
            if name == "make" and args and args[0] in _LATER_PARTS:
                return found(*args, **named)
            return self._contacts.call(self._site_id, name, found, *args, **named)

        return noted


def record(session: Session, site_id: UUID, kind: ProbeKind, *, seconds: float, error: str | None) -> None:
    """Write one contact down now, in the caller's transaction: for what is known from rows, and seen by no process."""
    now = database_now(session)
    tally = _Tally(contacts=1, failures=int(error is not None), latency_sum=seconds, latency_max=seconds, error=error)
    if error is None:
        tally.last_ok = 0.0
    else:
        tally.last_failed = 0.0
    _add(session, [_row(site_id, kind, tally, at=lambda _: now)])


def _failed_step(diagnosis: Sequence[Diagnosis]) -> str | None:
    """`check: credential`, the first step that failed; None where none did."""
    return next((f"check: {step.step}" for step in diagnosis if not step.ok), None)


def _row(site_id: UUID, kind: ProbeKind, tally: _Tally, *, at: Callable[[float], datetime]) -> dict[str, Any]:
    return {
        "site_id": site_id,
        "kind": kind,
        "slot": slot_of(at(tally.last)),
        "contacts": tally.contacts,
        "failures": tally.failures,
        "latency_sum_ms": round(tally.latency_sum * 1000),
        "latency_max_ms": round(tally.latency_max * 1000),
        "last_ok_at": None if tally.last_ok is None else at(tally.last_ok),
        "last_failed_at": None if tally.last_failed is None else at(tally.last_failed),
        "error_code": tally.error,
    }


def _add(session: Session, rows: Sequence[dict[str, Any]]) -> None:
    _add_to_slots(session, rows)
    columns = ("site_id", "kind", "contacts", "failures", "latency_sum_ms")
    row = insert(ContactTotal).values([{name: values[name] for name in columns} for values in rows])
    counts = {name: getattr(ContactTotal, name) + getattr(row.excluded, name) for name in columns[2:]}
    session.execute(row.on_conflict_do_update(index_elements=["site_id", "kind"], set_=counts))


def _add_to_slots(session: Session, rows: Sequence[dict[str, Any]]) -> None:
    row = insert(SiteProbe).values(rows)
    new, old = row.excluded, SiteProbe
    is_later = new.last_failed_at >= func.coalesce(old.last_failed_at, new.last_failed_at)
    session.execute(
        row.on_conflict_do_update(
            index_elements=["site_id", "kind", "slot"],
            set_={
                "contacts": old.contacts + new.contacts,
                "failures": old.failures + new.failures,
                "latency_sum_ms": old.latency_sum_ms + new.latency_sum_ms,
                "latency_max_ms": func.greatest(old.latency_max_ms, new.latency_max_ms),
                # PostgreSQL's GREATEST leaves NULL out.
                "last_ok_at": func.greatest(old.last_ok_at, new.last_ok_at),
                "last_failed_at": func.greatest(old.last_failed_at, new.last_failed_at),
                "error_code": case((is_later, new.error_code), else_=old.error_code),
            },
        )
    )
