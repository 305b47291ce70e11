"""A lease as one transaction read it: what every decision about it is made from."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.orm.attributes import set_committed_value

from broker.errors import SiteBusy, SiteDenied
from broker.models.federation import Site
from broker.models.leases import ENDING, Desired, LaunchAttempt, Lease, LeaseState, Outcome, Part
from broker.models.workloads import Order, OrderState
from broker.remote import PartKind

T = TypeVar("T")

# Refusals that are about us or the moment, not about the offer: the same request may be sent again.
TRY_AGAIN = frozenset({SiteBusy.code, SiteDenied.code})
# So many tries at a snapshot must have failed before a machine is deleted without one. What the site never answered is
# none of them (ABSENT): that says nothing about the machine.
TRIES = 3
_FAILED = (Outcome.REFUSED, Outcome.DISCARD, Outcome.GONE)


def paid_until(lease: Lease, held_until: datetime | None) -> datetime:
    """When the stop ladder begins: at the end date, or when the money is used up that could not be extended."""
    return lease.ends_at if held_until is None else min(lease.ends_at, held_until)


def deleted_at(lease: Lease, held_until: datetime | None) -> datetime:
    """When the ladder ends: what has run is kept for the grace, powered off, and can be had back until then."""
    grace = lease.grace if lease.started_at is not None else None
    return paid_until(lease, held_until) + (grace or timedelta(0))


@dataclass(frozen=True, slots=True)
class View:
    """The lease as one transaction read it. `now` is the database's clock.

    `held_until`: the order's money lasts so long; None: to the end. `observes`: nothing may be changed at the site.
    """

    lease: Lease
    order: OrderState
    now: datetime
    held_until: datetime | None = None
    observes: bool = False

    @property
    def is_left_alone(self) -> bool:
        """Nothing of it is changed: its site is only observed, or it was there before Leeway knew of it."""
        return self.observes or self.lease.adopted_at is not None

    @property
    def paid_until(self) -> datetime:
        """When the stop ladder begins."""
        return paid_until(self.lease, self.held_until)

    @property
    def deleted_at(self) -> datetime:
        """When the stop ladder ends."""
        return deleted_at(self.lease, self.held_until)

    @property
    def is_unpaid(self) -> bool:
        """Its money is used up before its end; whether more was asked for, and refused, is another question."""
        lease, until = self.lease, self.held_until
        return lease.desired not in ENDING and until is not None and until < lease.ends_at and until <= self.now

    @property
    def power(self) -> Desired:
        """What the machine should be now: off, in the grace. Of a shelved one Nova takes no snapshot."""
        if self.now < self.paid_until:
            return self.lease.desired
        return Desired.SHELVED if self.lease.keep is None else Desired.STOPPED

    @property
    def has_slept(self) -> bool:
        """The pass that reads this has lost its claim: what it saw at the site before may be long ago."""
        return self.lease.claim_until is None or self.lease.claim_until < self.now

    @property
    def saved_by(self) -> datetime:
        """Until when the snapshot of an ending machine is to be whole: the hold has the money for so long."""
        return self._lapsed_at + (self.lease.snapshot_time or timedelta(0))

    @property
    def _lapsed_at(self) -> datetime:
        return self.lease.lapsed_at or self.now

    @property
    def is_still(self) -> bool:
        """A snapshot of the machine can be taken now, and nothing is written to its disk after that.

        One that runs on though it was to be powered off is saved as it runs, when half the time for that is over. Nova
        takes no snapshot of one that is shelved.
        """
        half = (self.lease.snapshot_time or timedelta(0)) / 2
        is_late = self.now >= (self.lease.lapsed_at or self.now) + half
        return self.lease.state is not LeaseState.SHELVED and (self.lease.state is not LeaseState.RUNNING or is_late)

    @property
    def is_unsaved(self) -> bool:
        """The time for the snapshot of an ending machine is over, and the machine still waits for it."""
        if self.lease.desired is not Desired.SNAPSHOT or self.now < self.saved_by:
            return False
        return self.part(PartKind.SERVER).gone_at is None and self.part(PartKind.SNAPSHOT).ready_at is None

    @property
    def kept_until(self) -> datetime | None:
        """Until when the snapshot is kept; None where there is none yet."""
        ready_at = self.part(PartKind.SNAPSHOT).ready_at
        return None if ready_at is None or self.lease.keep is None else ready_at + self.lease.keep

    def kept_no_longer(self, done: frozenset[UUID]) -> str | None:
        """Why the snapshot of an ending machine, or the wait for it, is over; None while it is not.

        A machine is not given up for the time alone: Leeway, or its site, may have been away all that time. Nor does a
        kept snapshot go before the machine was seen gone: from that moment on it is charged.
        """
        server, snapshot = self.part(PartKind.SERVER), self.part(PartKind.SNAPSHOT)
        if server.gone_at is not None:
            if self.kept_until is not None and self.now >= self.kept_until:
                return "its snapshot was kept for as long as was ordered"
            if snapshot.remote_id is None or snapshot.gone_at is not None:
                return "the machine is gone, and there is no snapshot of its disk"
        if snapshot.ready_at is not None:
            return None
        if snapshot.made_at is not None:
            # Once the machine is gone nothing else is left of its disk: it is waited for as long as it would be kept.
            longer = timedelta(0) if server.gone_at is None else self.lease.keep or timedelta(0)
            is_late = self.now >= snapshot.made_at + (self.lease.snapshot_time or timedelta(0)) + longer
            is_seen = snapshot.id in done and not self.has_slept
            return "the site did not finish the snapshot of its disk" if is_late and is_seen else None
        failed = sum(
            attempt.part_id == snapshot.id and attempt.started_at >= self._lapsed_at and _has_failed(attempt)
            for attempt in self.lease.attempts
        )
        is_late = failed >= TRIES and self.now >= self.saved_by
        return f"the site refused {failed} times to take a snapshot of its disk" if is_late else None

    @property
    def next_change(self) -> datetime | None:
        """The next moment at which the clock alone asks for another step."""
        if self.lease.desired is Desired.GONE:
            return None
        ladder: tuple[datetime | None, ...] = (self.paid_until, self.deleted_at)
        if self.lease.desired is Desired.SNAPSHOT:
            ladder = (self.saved_by, self.kept_until)
        return min((moment for moment in ladder if moment is not None and self.now < moment), default=None)

    def part(self, kind: PartKind) -> Part:
        """The lease's part of a kind that it has."""
        return next(part for part in self.lease.parts if part.kind is kind)

    def last_attempt(self, part: Part) -> LaunchAttempt | None:
        """The newest try at making the part that was not thrown away."""
        tries = [
            a for a in self.lease.attempts if a.part_id == part.id and a.outcome not in (Outcome.DISCARD, Outcome.GONE)
        ]
        return tries[-1] if tries else None


def _has_failed(attempt: LaunchAttempt) -> bool:
    return attempt.outcome in _FAILED and attempt.error_code not in TRY_AGAIN


def read(sessions: sessionmaker[Session], lease_id: UUID) -> View:
    """The lease with its parts and attempts, detached, and the database's clock."""
    with sessions() as session:
        rows = session.execute(
            select(Lease, Order.state, func.clock_timestamp(), Order.held_until, Site.observe_only, Part, LaunchAttempt)
            .join(Order, Order.id == Lease.order_id)
            .join(Site, Site.id == Lease.site_id)
            .outerjoin(Part, Part.lease_id == Lease.id)
            .outerjoin(LaunchAttempt, LaunchAttempt.part_id == Part.id)
            .where(Lease.id == lease_id)
            .order_by(Part.position, LaunchAttempt.number)
        ).all()
        lease, order, now, held_until, observes = rows[0][:5]
        # In one query, as this is read before every step.
        set_committed_value(lease, "parts", _each(row.Part for row in rows))
        set_committed_value(lease, "attempts", _each(row.LaunchAttempt for row in rows))
        return View(lease, order, now, held_until, observes)


def adopted_among(session: Session, remote_ids: Collection[str]) -> frozenset[str]:
    """Which of these a project has adopted: nobody made them for a lease of ours, whatever their tags say."""
    if not remote_ids:
        return frozenset()
    found = session.scalars(
        select(Part.remote_id)
        .join(Lease, Lease.id == Part.lease_id)
        .where(Lease.adopted_at.is_not(None), Part.gone_at.is_(None), Part.remote_id.in_(remote_ids))
    )
    return frozenset(remote_id for remote_id in found if remote_id is not None)


def _each(found: Iterable[T | None]) -> list[T]:
    """Each once, in order, without the gaps of an outer join."""
    return list(dict.fromkeys(thing for thing in found if thing is not None))
