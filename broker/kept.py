"""What is left of an order whose machines are gone: snapshots of their disks, from which a new order can start."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from broker.errors import Conflict
from broker.models.audit import Event
from broker.models.leases import Lease, Part
from broker.remote import PartKind

# How many are named; an order may have hundreds of machines.
_NAMED = 3


@dataclass(frozen=True, slots=True)
class Kept:
    """A snapshot that is whole. `image`: its name at the site, None where that was not written down."""

    image: str | None
    until: datetime


def kept_snapshots(session: Session, order_id: UUID) -> list[Kept]:
    """The snapshots that an order keeps, by the number of their machine."""
    told = session.execute(
        select(Event.lease_id, Event.data["name"].astext)
        .join(Lease, Lease.id == Event.lease_id)
        .where(Lease.order_id == order_id, Event.kind == "snapshot", Event.data["name"].is_not(None))
        .order_by(Event.at)  # the newest name stays
    )
    names: dict[UUID | None, str] = dict(told.all())
    rows = session.execute(
        select(Lease.id, Part.ready_at + Lease.keep)
        .join(Part, Part.lease_id == Lease.id)
        .where(
            Lease.order_id == order_id,
            Lease.gone_at.is_(None),
            Part.kind == PartKind.SNAPSHOT,
            Part.remote_id.is_not(None),
            Part.ready_at.is_not(None),
            Part.gone_at.is_(None),
        )
        .order_by(Lease.member, Lease.id)
    )
    return [Kept(names.get(lease_id), until) for lease_id, until in rows if until is not None]


def no_machine_left(session: Session, order_id: UUID, *, otherwise: str) -> Conflict:
    """Why nothing can be done with an order's machines, and how to go on. `otherwise`: where no snapshot is kept."""
    kept = kept_snapshots(session, order_id)
    if not kept:
        return Conflict(otherwise, hint="Order the workload again.")
    image = next((one.image for one in kept if one.image), None)
    hint = "See `leeway site show` for its name" if image is None else f"Order the workload again with `image: {image}`"
    return Conflict(_words(kept), hint=f"{hint}: the new machine starts from it.")


def _words(kept: Sequence[Kept]) -> str:
    if len(kept) == 1:
        name = f", {kept[0].image}," if kept[0].image else ""
        return f"its machine is gone; a snapshot of its disk{name} is kept until {_moment(kept[0])}"
    named = ", ".join(f"{one.image or 'one'} until {_moment(one)}" for one in kept[:_NAMED])
    more = f" and {len(kept) - _NAMED} more" if len(kept) > _NAMED else ""
    return f"its machines are gone; snapshots of their disks are kept: {named}{more}"


def _moment(kept: Kept) -> str:
    return f"{kept.until:%Y-%m-%d %H:%M} UTC"
