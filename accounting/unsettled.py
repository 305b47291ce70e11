"""Leases whose accounting fails: counted and explained in their rows, tried again ever later, told to a person.

A failure of `settle` undoes all that it did, so nothing is half booked; what is missing is that somebody knows, and
that the lease is looked at again although nothing happens to it.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from types import TracebackType
from typing import Self
from uuid import UUID

from sqlalchemy import func, or_, select, text, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, sessionmaker

from broker.database import database_now
from broker.models.leases import Lease
from broker.timeline import Concern, close_finding, raise_finding

SETTLE_STUCK = "settle_stuck"
# After so many failures in a row a person is told. A busy database makes one or two.
TELL_AFTER = 5

# Whoever holds the row's lock is ended by the database within 30 s (statement) or 10 s (idle); the note must not be
# lost to him.
_PATIENT = text("SET LOCAL lock_timeout = '25s'")


class NotedFailures:
    """Around one call of `settle` and its transaction: an error that leaves it is noted in the lease, and goes on."""

    def __init__(self, sessions: sessionmaker[Session], lease_id: UUID, *, backoff: Callable[[int], timedelta]) -> None:
        """`backoff`: from failures in a row to the wait before the next try."""
        self._sessions = sessions
        self._lease_id = lease_id
        self._backoff = backoff

    def __enter__(self) -> Self:
        """Nothing is noted yet."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Note the error, where there is one."""
        if error is not None:
            with self._sessions.begin() as session:
                session.execute(_PATIENT)
                _note(session, self._lease_id, _words(error), backoff=self._backoff)


def forget_failures(session: Session, lease_id: UUID) -> None:
    """Accounting has got through: in the same transaction, so that a failing commit forgets nothing."""
    failed = (
        update(Lease)
        .where(Lease.id == lease_id, Lease.settle_failures > 0)
        .values(settle_failures=0, settle_trouble=None)
        .returning(Lease.id)
    )
    if session.scalars(failed).one_or_none() is not None:
        close_finding(session, SETTLE_STUCK, str(lease_id))


def _note(session: Session, lease_id: UUID, trouble: str, *, backoff: Callable[[int], timedelta]) -> None:
    lease = session.scalars(select(Lease).where(Lease.id == lease_id).with_for_update(key_share=True)).one_or_none()
    if lease is None:
        return
    lease.settle_failures += 1
    lease.settle_trouble = trouble
    session.flush()
    if lease.settled_at is None:
        # Where somebody works on the lease, he settles it afterwards; his own next look may have to be sooner.
        now = func.clock_timestamp()
        later = now + backoff(lease.settle_failures)
        session.execute(
            update(Lease)
            .where(Lease.id == lease_id, or_(Lease.claim_until.is_(None), Lease.claim_until < now))
            .values(
                next_look_at=func.least(Lease.next_look_at, later)
            )  # the one that there is, where the other is NULL
        )
    if lease.settle_failures >= TELL_AFTER:
        raise_finding(session, _concern(lease), now=database_now(session))


def _concern(lease: Lease) -> Concern:
    return Concern(
        kind="settle_stuck",
        key=str(lease.id),
        text=f"accounting for this machine failed {lease.settle_failures} times in a row: {lease.settle_trouble}",
        hint="Nothing is booked in part, its hold stays, and it is tried again by itself; the log has the traceback.",
        site_id=lease.site_id,
        lease_id=lease.id,
    )


def _words(error: BaseException) -> str:
    """What is wrong, without the statement and its values."""
    if isinstance(error, DBAPIError):
        return " ".join(str(error.orig).split())[:500]
    return f"{type(error).__name__}: {error}"[:500]
