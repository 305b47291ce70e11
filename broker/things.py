"""A listing becomes rows of `things`: what is new, what changed, what is gone; the rest is not written.

Each kind of a complete listing is walked in the order of its remote ids, a stretch of the rows beside a stretch of the
listing: a site of any size takes one pass and as much memory as one stretch. What it does not show is gone at once: it
is knowledge, not an act. Whether a machine of ours is gone is another question, which `broker.watching` answers.

What a listing of changes does not name stays as it is: it tells of machines only, and of those only what changed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import Row, Select, insert, select, update
from sqlalchemy.orm import Session

from broker.models.federation import Site
from broker.models.inventory import Thing
from broker.models.leases import Lease, Part
from broker.remote import Listing, PartKind, RemoteMachine, RemoteThing, ThingKind
from broker.values import STORED, new_id

Writing = Callable[[], AbstractContextManager[Session]]
Seen = RemoteMachine | RemoteThing

# Things of one transaction.
STRETCH = 500
# What a listing says of a thing and may say differently the next time, in the order of `_said`.
_SAID = (
    "name",
    "owner",
    "project",
    "size_gib",
    "instance_type",
    "created_at",
    "lease_id",
    "installation",
    "until",
    "state",
    "raw_status",
    "attached_to",
)
# From here on they say what it does: what changes one of these has changed its state.
_STATE = _SAID.index("state")
_COLUMNS = [getattr(Thing, name) for name in ("remote_id", "id", "first_seen_at", *_SAID)]
_LEADING = len(_COLUMNS) - len(_SAID)


@dataclass(frozen=True, slots=True)
class Visit:
    """One listing: of which site, begun when, and when the last complete one before it had begun (None: the first)."""

    site_id: UUID
    started_at: datetime
    former_at: datetime | None


def record_things(listing: Listing, *, site_id: UUID, started_at: datetime, writing: Writing) -> None:
    """Write down everything that a complete listing shows, in transactions that `writing` opens."""
    with writing() as session:
        visit = _visit(session, site_id, started_at)
    for kind in ThingKind:
        if kind in listing.unread:
            continue
        found: Sequence[Seen] = (
            listing.machines if kind is ThingKind.SERVER else [thing for thing in listing.things if thing.kind is kind]
        )
        # One that moved from page to page while they were read is there once.
        shown = {thing.remote_id: thing for thing in found}
        for above, ids, upto in _stretches(sorted(shown)):
            rows = _rows(visit, kind, above=above, upto=upto)
            with writing() as session:
                _record(session, visit, kind, [shown[remote_id] for remote_id in ids], rows=rows)


def record_changed_servers(
    machines: Mapping[str, RemoteMachine],
    ended: Collection[str],
    *,
    site_id: UUID,
    started_at: datetime,
    writing: Writing,
) -> None:
    """Write down machines that changed, and that the `ended` ones are gone, by remote ids; of the others nothing."""
    ids = sorted({*machines, *ended})
    for start in range(0, len(ids), STRETCH):
        some = ids[start : start + STRETCH]
        with writing() as session:
            visit = _visit(session, site_id, started_at)
            rows = _living(visit, ThingKind.SERVER).where(Thing.remote_id.in_(some))
            shown = [machines[remote_id] for remote_id in some if remote_id not in ended]
            _record(session, visit, ThingKind.SERVER, shown, rows=rows)


def _visit(session: Session, site_id: UUID, started_at: datetime) -> Visit:
    former_at = session.scalars(select(Site.listed_at).where(Site.id == site_id)).one()
    return Visit(site_id, started_at, former_at)


def _stretches(ids: Sequence[str]) -> Iterator[tuple[str | None, Sequence[str], str | None]]:
    """The ids in parts, each with the bounds (above, up to) within which the rows are that it is compared with.

    The first and the last have no bound on their side: what is gone may lie anywhere.
    """
    above: str | None = None
    for start in range(0, max(len(ids), 1), STRETCH):
        part = ids[start : start + STRETCH]
        upto = part[-1] if start + STRETCH < len(ids) else None
        yield above, part, upto
        above = upto


def _living(visit: Visit, kind: ThingKind) -> Select[Any]:
    return select(*_COLUMNS).where(Thing.site_id == visit.site_id, Thing.kind == kind, Thing.gone_at.is_(None))


def _rows(visit: Visit, kind: ThingKind, *, above: str | None, upto: str | None) -> Select[Any]:
    rows = _living(visit, kind)
    if above is not None:
        rows = rows.where(Thing.remote_id > above)
    return rows if upto is None else rows.where(Thing.remote_id <= upto)


def _record(session: Session, visit: Visit, kind: ThingKind, shown: Sequence[Seen], *, rows: Select[Any]) -> None:
    """Compare what is `shown` with the rows; what has a row and is not shown is gone."""
    known: dict[str, Row[Any]] = {row[0]: row for row in session.execute(rows)}
    leases = _leases(session, visit.site_id, kind, among=[thing.remote_id for thing in shown])
    fresh: list[dict[str, Any]] = []
    changed: list[dict[str, Any]] = []
    for thing in shown:
        said = _said(thing, leases.get(thing.remote_id))
        row = known.pop(thing.remote_id, None)
        if row is None:
            fresh.append(
                {
                    "id": new_id(),
                    "site_id": visit.site_id,
                    "kind": kind,
                    "remote_id": thing.remote_id,
                    "first_seen_at": visit.started_at,
                    **dict(zip(_SAID, said, strict=True)),
                }
            )
        elif (before := row[_LEADING:]) != said:
            values = {"id": row.id, **dict(zip(_SAID, said, strict=True))}
            # All rows of one UPDATE name the same columns.
            is_still = before[_STATE:] == said[_STATE:]
            changed.append(values | ({} if is_still else {"changed_at": visit.started_at}))
    if fresh:
        session.execute(insert(Thing), fresh)
    for has_moved in (False, True):
        some = [values for values in changed if ("changed_at" in values) is has_moved]
        if some:
            session.execute(update(Thing), some)
    if known:
        gone = [
            {
                "id": row.id,
                "gone_at": visit.started_at,
                "last_seen_at": max(row.first_seen_at, visit.former_at or row.first_seen_at),
            }
            for row in known.values()
        ]
        session.execute(update(Thing), gone)


def _said(thing: Seen, lease_id: UUID | None) -> tuple[Any, ...]:
    """What a listing says of it, as the columns `_SAID` keep it."""
    if isinstance(thing, RemoteMachine):
        size, instance_type, state, attached_to = None, thing.instance_type, thing.state, None
    else:
        size, instance_type, state, attached_to = _stored(thing.size_gib), None, None, thing.attached_to
    tags = thing.tags
    return (
        thing.name.replace("\x00", ""),  # the one character that no text column takes
        thing.owner,
        thing.project,
        size,
        instance_type,
        thing.created_at,
        lease_id,
        tags.installation if tags else None,
        tags.until if tags else None,
        state,
        thing.raw_status,
        attached_to,
    )


def _stored(size: Decimal | None) -> Decimal | None:
    """As the column keeps it: else one that has more digits would seem to change with every listing."""
    return None if size is None else size.quantize(STORED)


def _leases(session: Session, site_id: UUID, kind: ThingKind, *, among: Collection[str]) -> dict[str, UUID]:
    """Of which lease a thing is a part, whatever became of its tags.

    Read in the transaction that writes it down: what was adopted since the listing began is its project's.
    """
    parts = (
        select(Part.remote_id, Part.lease_id)
        .join(Lease, Lease.id == Part.lease_id)
        .where(
            Lease.site_id == site_id,
            Part.kind == PartKind(kind.value),
            Part.remote_id.in_(among),
            Part.gone_at.is_(None),
        )
    )
    return {remote_id: lease_id for remote_id, lease_id in session.execute(parts) if remote_id is not None}
