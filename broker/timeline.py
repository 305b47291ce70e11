"""What happened (events, append-only) and what needs a person (findings, one open row per kind and key)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from broker.models.audit import Event, Finding
from broker.models.leases import Lease
from broker.models.workloads import Order
from broker.values import Amount, new_id

# Rows sent at once.
_CHUNK = 1000


def tell(session: Session, lease: Lease, kind: str, text: str, **data: object) -> None:
    """Add a line to the timeline of a lease, its order and its workload. Leeway itself is the actor."""
    order = session.get_one(Order, lease.order_id)
    session.add(
        Event(
            at=func.clock_timestamp(),
            kind=kind,
            text=text,
            actor="leeway",
            workload_id=order.workload_id,
            order_id=order.id,
            lease_id=lease.id,
            site_id=lease.site_id,
            data=data,
        )
    )


def tell_order(session: Session, order: Order, kind: str, text: str, *, actor: str = "leeway", **data: object) -> None:
    """Add a line to the timeline of an order and its workload."""
    session.add(
        Event(
            at=func.clock_timestamp(),
            kind=kind,
            text=text,
            actor=actor,
            workload_id=order.workload_id,
            order_id=order.id,
            data=data,
        )
    )


@dataclass(frozen=True, slots=True)
class Concern:
    """Something a person should look at: what is wrong, what to do, and what it costs per day (None: not known)."""

    kind: str
    key: str
    text: str
    hint: str
    site_id: UUID | None = None
    lease_id: UUID | None = None
    per_day: Amount | None = None


def raise_finding(session: Session, concern: Concern, *, now: datetime) -> None:
    """Open a finding, or refresh the open one of the same kind and key."""
    raise_findings(session, [concern], now=now)


def raise_findings(session: Session, concerns: Sequence[Concern], *, now: datetime) -> None:
    """Open or refresh many findings; their kinds and keys must differ.

    Sent as many short statements: building one that holds all the values took most of the time of a large listing.
    """
    if not concerns:
        return
    row = insert(Finding)
    refreshed = ("text", "hint", "per_day", "commodity", "last_seen_at")
    statement = row.on_conflict_do_update(
        index_elements=["kind", "key"],
        index_where=Finding.resolved_at.is_(None),
        set_={name: row.excluded[name] for name in refreshed},
    )
    for start in range(0, len(concerns), _CHUNK):
        rows = [
            {
                "id": new_id(),
                "kind": concern.kind,
                "key": concern.key,
                "text": concern.text,
                "hint": concern.hint,
                "site_id": concern.site_id,
                "lease_id": concern.lease_id,
                "per_day": None if concern.per_day is None else concern.per_day.value,
                "commodity": None if concern.per_day is None else concern.per_day.commodity.code,
                "first_seen_at": now,
                "last_seen_at": now,
            }
            for concern in concerns[start : start + _CHUNK]
        ]
        session.execute(statement, rows)


def resolve_findings(session: Session, kind: str, *, site_id: UUID, now: datetime) -> None:
    """Close a site's findings of a kind that were not raised again at `now`."""
    session.execute(
        update(Finding)
        .where(
            Finding.kind == kind,
            Finding.site_id == site_id,
            Finding.resolved_at.is_(None),
            Finding.last_seen_at < now,
        )
        .values(resolved_at=now)
    )


def close_finding(session: Session, kind: str, key: str) -> None:
    """Close one finding, if it is open."""
    session.execute(
        update(Finding)
        .where(Finding.kind == kind, Finding.key == key, Finding.resolved_at.is_(None))
        .values(resolved_at=func.clock_timestamp())
    )


def open_findings(session: Session) -> list[Finding]:
    """Every open finding, oldest first."""
    return list(session.scalars(select(Finding).where(Finding.resolved_at.is_(None)).order_by(Finding.first_seen_at)))
