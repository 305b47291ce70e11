"""What carries our tags and no live part accounts for: duplicates, leftovers, and what a restored backup does not know.

Ours and duplicate, or ours and over: to be deleted, by reconcile. Ours and wanted: to be found by it. Ours and of no
lease at all: a finding. What was adopted is none of these, though somebody copied our tags to it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import exists, func, select
from sqlalchemy.orm import Session

from broker.launching import record_stray
from broker.lease_view import adopted_among
from broker.models.leases import LaunchAttempt, Lease, Outcome, Part
from broker.remote import Fence, PartKind, RemotePart
from broker.timeline import tell


def locked(session: Session, lease_ids: Collection[UUID]) -> list[Lease]:
    """Leases in the order of their ids, as `stop_order` locks them: no deadlock."""
    return list(
        session.scalars(
            select(Lease)
            .where(Lease.id.in_(lease_ids))
            .order_by(Lease.id)
            .with_for_update(key_share=True)
            .execution_options(populate_existing=True)
        )
    )


def record_strays(
    session: Session, site_id: UUID, ours: Sequence[RemotePart], *, lost: list[RemotePart], started_at: datetime
) -> set[UUID]:
    """Write down what is to be deleted or found of `ours`; returns the leases to wake.

    Those that no lease is known for are added to `lost`. `started_at` is when the listing began.
    """
    adopted = adopted_among(session, [thing.remote_id for thing in ours])
    ours = [thing for thing in ours if thing.remote_id not in adopted]
    wanted = {thing.tags.lease for thing in ours if thing.tags is not None}
    known = {lease.id: lease for lease in locked(session, wanted)}
    parts: dict[tuple[UUID, PartKind], Part] = {}
    for part in session.scalars(
        select(Part).where(Part.lease_id.in_(wanted)).execution_options(populate_existing=True)
    ):
        parts[part.lease_id, part.kind] = part
    # Two sites may share an account, and see each other's things.
    elsewhere = {part.remote_id for part in parts.values() if known[part.lease_id].site_id != site_id}
    planned = {lease_id for lease_id, _ in parts}
    woken = set()
    for thing in ours:
        lease = known.get(thing.tags.lease) if thing.tags is not None else None
        if lease is None or lease.site_id != site_id:
            if thing.remote_id not in elsewhere:
                lost.append(thing)
            continue
        found = parts.get((lease.id, thing.kind))
        is_wanted = lease.id not in planned or (found is not None and found.remote_id is None and found.gone_at is None)
        if lease.gone_at is None and is_wanted:
            woken.add(lease.id)
            # An open attempt made it, and reconcile will find it; else a former life of this database did.
            lease.must_find = lease.must_find or found is None or not _was_tried(session, found)
            continue
        if found is None:
            found = parts[lease.id, thing.kind] = _part_for(session, lease, thing)
        if _is_leftover(session, found, thing, started_at=started_at):
            record_stray(session, found, thing.remote_id, outcome=Outcome.DISCARD)
            tell(session, lease, "discard", f"a leftover {thing.kind} will be deleted", remote_id=thing.remote_id)
            woken.add(lease.id)
        elif _is_discarded(session, found, thing.remote_id):
            woken.add(lease.id)
    return woken


def _is_leftover(session: Session, part: Part, thing: RemotePart, *, started_at: datetime) -> bool:
    if part.remote_id == thing.remote_id and part.gone_at is None:
        return False
    if part.gone_at is not None and part.gone_at >= started_at:
        return False  # it went after the listing began
    return not _is_discarded(session, part, thing.remote_id)


def _part_for(session: Session, lease: Lease, thing: RemotePart) -> Part:
    """A row by which a leftover of a lease can be deleted that no row of the lease speaks of.

    Nobody wants such a part, so from the first it counts as gone: a lease that goes on must not make it.
    """
    last: int | None = session.scalars(select(func.max(Part.position)).where(Part.lease_id == lease.id)).one()
    is_harmless = thing.kind is not PartKind.SERVER
    part = Part(
        lease_id=lease.id,
        kind=thing.kind,
        position=0 if last is None else last + 1,
        fence=Fence.NONE,
        is_harmless=is_harmless,
        gone_at=lease.made_at,
    )
    session.add(part)
    session.flush()
    return part


def _was_tried(session: Session, part: Part) -> bool:
    return session.scalars(select(exists().where(LaunchAttempt.part_id == part.id))).one()


def _is_discarded(session: Session, part: Part, remote_id: str) -> bool:
    """True where an earlier listing said so already, and the deletion is under way."""
    attempt = exists().where(
        LaunchAttempt.part_id == part.id,
        LaunchAttempt.remote_id == remote_id,
        LaunchAttempt.outcome == Outcome.DISCARD,
    )
    return session.scalars(select(attempt)).one()
