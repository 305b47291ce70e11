"""Who works on a lease: a claim raises its generation, and every write of the claimant names that generation.

Nothing here relies on the queue, on wall clocks of machines, or on a worker being alive. A worker that was frozen and
wakes up late finds another generation in the row, its write meets no row, and it stops (`Fenced`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import case, func, or_, update
from sqlalchemy.orm import Session, sessionmaker

from broker.errors import Fenced
from broker.models.leases import Lease
from broker.restored import acts


@dataclass(frozen=True, slots=True)
class Claim:
    """A worker's hold on a lease until `claim_until`, by the database's clock, or until another claims it later."""

    lease_id: UUID
    generation: int
    claimed_at: datetime
    length: timedelta


def claim(sessions: sessionmaker[Session], lease_id: UUID, *, length: timedelta) -> Claim | None:
    """Claim a due lease; None where it is not due, somebody else's claim still runs, or Leeway only observes."""
    now = func.clock_timestamp()
    with sessions.begin() as session:
        row = session.execute(
            update(Lease)
            .where(
                Lease.id == lease_id,
                Lease.next_look_at <= now,
                or_(Lease.claim_until.is_(None), Lease.claim_until < now),
                acts(),
            )
            # A claim that ran out: whoever had it died or froze. A lease that kills its workers must not do so unseen.
            .values(
                generation=Lease.generation + 1,
                claim_until=now + length,
                failures=Lease.failures + case((Lease.claim_until.is_(None), 0), else_=1),
            )
            .returning(Lease.generation, now)
        ).one_or_none()
    return None if row is None else Claim(lease_id, row[0], row[1], length)


@contextmanager
def writing(sessions: sessionmaker[Session], mine: Claim) -> Iterator[tuple[Session, Lease]]:
    """A transaction that holds the lease's row and goes on with the claim.

    Raises:
        Fenced: another worker has claimed the lease since.
    """
    with sessions.begin() as session:
        yield session, set_fenced(session, mine, claim_until=func.clock_timestamp() + mine.length)


def claimed_at(lease: Lease, mine: Claim) -> datetime:
    """The database's clock at the start of `writing`, which set the claim's end by it."""
    if lease.claim_until is None:
        raise ValueError(f"lease {lease.id} is not claimed")
    return lease.claim_until - mine.length


def set_fenced(session: Session, mine: Claim, **values: Any) -> Lease:
    """Write to the lease's row as the claimant and return it, or raise `Fenced`.

    A backup that was made while this claim ran holds its generation too, so a restore fences it as well.
    """
    lease = session.scalars(
        update(Lease)
        .where(Lease.id == mine.lease_id, Lease.generation == mine.generation, acts())
        .values(**values)
        .returning(Lease)
        .execution_options(populate_existing=True)
    ).one_or_none()
    if lease is None:
        raise Fenced(f"lease {mine.lease_id} has another worker since generation {mine.generation}, or was restored")
    return lease


def wake(session: Session, lease_id: UUID) -> None:
    """Make a lease due now, whoever works on it: `release` keeps a wake-up that came after its claim."""
    session.execute(update(Lease).where(Lease.id == lease_id).values(next_look_at=func.clock_timestamp()))


def put_off(session: Session, lease_id: UUID, wait: timedelta) -> None:
    """Look at a lease that is due later instead; nothing where somebody works on it."""
    now = func.clock_timestamp()
    session.execute(
        update(Lease)
        .where(
            Lease.id == lease_id, Lease.next_look_at <= now, or_(Lease.claim_until.is_(None), Lease.claim_until < now)
        )
        .values(next_look_at=now + wait)
    )


def release(
    sessions: sessionmaker[Session], mine: Claim, *, look_in: timedelta | None, failures: int, trouble: str | None
) -> None:
    """End the claim; look again after `look_in`, or when something wakes the lease (None)."""
    later = None if look_in is None else func.clock_timestamp() + look_in
    with sessions.begin() as session:
        set_fenced(
            session,
            mine,
            claim_until=None,
            failures=failures,
            trouble=trouble,
            next_look_at=case((Lease.next_look_at > mine.claimed_at, Lease.next_look_at), else_=later),
        )
