"""What a listing says of our leases and of a site's quota: whose machine was seen, whose is missing, what is used.

Both kinds of listings write it (`broker.inventory`, `broker.increments`). That a machine is missing only a complete
one can say, or the site in so many words.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import TypeVar
from uuid import UUID

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from broker.errors import SiteDenied
from broker.models.holds import QuotaHold, QuotaPool
from broker.models.leases import Lease, Part, SiteListing
from broker.observations import last_observations, see, see_missing
from broker.orders import RECONCILE
from broker.remote import Listing, PartKind, RemoteMachine, RemotePart, RemoteQuota
from broker.strays import locked, record_strays
from broker.tools import Tools
from broker.turns import Turn, writing
from broker.values import new_id

# Leases and things written in one transaction.
CHUNK = 200

T = TypeVar("T")


def chunks(things: Sequence[T]) -> Iterator[Sequence[T]]:
    """The things in parts, each small enough for one transaction."""
    for start in range(0, len(things), CHUNK):
        yield things[start : start + CHUNK]


def wake(session: Session, tools: Tools, lease_ids: Iterable[UUID]) -> None:
    """Make leases due, and tell the workers."""
    for lease_id in sorted(lease_ids):
        session.execute(update(Lease).where(Lease.id == lease_id).values(next_look_at=func.clock_timestamp()))
        tools.jobs.defer(session, RECONCILE, str(lease_id))


# --- whose listing it is, and the quota ----------------------------------------------------------------------------


def last_scope(session: Session, site_id: UUID) -> str | None:
    """The credential scope of the last complete listing; None where none is remembered."""
    return session.scalars(
        select(SiteListing.scope).where(SiteListing.site_id == site_id).order_by(SiteListing.started_at.desc()).limit(1)
    ).first()


def refuse_another_scope(session: Session, turn: Turn, scope: str) -> None:
    """While machines of ours are there, a listing of another scope says nothing of them, least of all their absence."""
    # Leases of before there were scopes are where the last listing was.
    scopes = session.scalars(
        select(func.coalesce(Lease.scope, last_scope(session, turn.site_id)))
        .join(Part, Part.lease_id == Lease.id)
        .where(
            Lease.site_id == turn.site_id,
            Lease.gone_at.is_(None),
            Lease.adopted_at.is_(None),  # of those the project counts (`Lease.site_project`)
            Part.kind.in_((PartKind.SERVER, PartKind.SNAPSHOT)),
            Part.remote_id.is_not(None),
            Part.gone_at.is_(None),
        )
        .distinct()
    )
    others = set(scopes) - {None, scope}
    if others:
        raise SiteDenied(
            f"the credential opens another project ({scope}) than the one that our machines are in "
            f"({', '.join(sorted(filter(None, others)))})",
            hint="Give the site a credential of that project until they have ended.",
        )


def record_quotas(session: Session, turn: Turn, quotas: Iterable[RemoteQuota]) -> None:
    """Limits and use, as of the listing's start. The pools are locked until the transaction ends."""
    rows = [
        {
            "id": new_id(),
            "site_id": turn.site_id,
            "resource": quota.resource,
            "quota": quota.limit,
            "used": quota.used,
            "as_of": turn.started_at,
        }
        for quota in quotas
    ]
    if not rows:
        return
    pools = session.scalars(
        select(QuotaPool.id)
        .where(QuotaPool.site_id == turn.site_id)
        .order_by(QuotaPool.id)
        .with_for_update(key_share=True)
    )
    pools.all()
    row = insert(QuotaPool).values(rows)
    session.execute(
        row.on_conflict_do_update(
            index_elements=["site_id", "resource"],
            set_={"quota": row.excluded.quota, "used": row.excluded.used, "as_of": row.excluded.as_of},
            where=QuotaPool.as_of < row.excluded.as_of,
        )
    )


# --- machines ------------------------------------------------------------------------------------------------------


def leased_servers(session: Session, turn: Turn, *, remote_ids: Collection[str] | None = None) -> dict[UUID, str]:
    """Live leases of the site whose machine was made before the listing began, with its id.

    `remote_ids`: only those whose machine is one of these.
    """
    leased = (
        select(Lease.id, Part.remote_id)
        .join(Part, Part.lease_id == Lease.id)
        .where(
            Lease.site_id == turn.site_id,
            Lease.gone_at.is_(None),
            Part.kind == PartKind.SERVER,
            Part.remote_id.is_not(None),
            Part.gone_at.is_(None),
            Part.made_at < turn.started_at,
        )
    )
    if remote_ids is not None:
        leased = leased.where(Part.remote_id.in_(remote_ids))
    return {lease_id: remote_id for lease_id, remote_id in session.execute(leased) if remote_id is not None}


def record_presence(
    session: Session,
    turn: Turn,
    found: Mapping[UUID, RemoteMachine | None],
    *,
    settle: timedelta,
    listing: Listing | None = None,
) -> set[UUID]:
    """Each lease's machine was in the listing, or is missing from this complete one (None); returns whom to wake."""
    woken = set()
    leases = [lease for lease in locked(session, found) if lease.gone_at is None]
    last = last_observations(session, found)
    present = [lease.id for lease in leases if found[lease.id] is not None]
    session.execute(
        update(QuotaHold)
        .where(QuotaHold.lease_id.in_(present), QuotaHold.counted_at.is_(None))
        .values(counted_at=turn.started_at)
    )
    for lease in leases:
        machine = found[lease.id]
        if machine is not None:
            if see(session, lease, machine, seen_at=turn.started_at, last=last.get(lease.id)):
                woken.add(lease.id)
        elif listing is not None and not listing.speaks_of(lease.site_project):
            continue
        elif see_missing(session, lease, seen_at=turn.started_at, settle=settle):
            woken.add(lease.id)
    return woken


def record_ours(tools: Tools, turn: Turn, things: Iterable[RemotePart]) -> list[RemotePart]:
    """Of what carries this installation's tags, have deleted or found what no live part accounts for.

    Returns those that no lease is known for.
    """
    ours = [thing for thing in things if thing.tags is not None and thing.tags.installation == tools.installation]
    lost: list[RemotePart] = []
    for some in chunks(ours):
        with writing(tools, turn) as session:
            wake(session, tools, record_strays(session, turn.site_id, some, lost=lost, started_at=turn.started_at))
    return lost
