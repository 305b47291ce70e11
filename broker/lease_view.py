"""A lease as one transaction read it: what every decision about it is made from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.orm.attributes import set_committed_value

from broker.models.federation import Site
from broker.models.leases import Desired, LaunchAttempt, Lease, Outcome, Part
from broker.models.workloads import Order, OrderState

T = TypeVar("T")


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
        return lease.desired is not Desired.GONE and until is not None and until < lease.ends_at and until <= self.now

    @property
    def power(self) -> Desired:
        """What the machine should be now: off, in the grace."""
        return self.lease.desired if self.now < self.paid_until else Desired.SHELVED

    def last_attempt(self, part: Part) -> LaunchAttempt | None:
        """The newest try at making the part that was not thrown away."""
        tries = [
            a for a in self.lease.attempts if a.part_id == part.id and a.outcome not in (Outcome.DISCARD, Outcome.GONE)
        ]
        return tries[-1] if tries else None


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


def _each(found: Iterable[T | None]) -> list[T]:
    """Each once, in order, without the gaps of an outer join."""
    return list(dict.fromkeys(thing for thing in found if thing is not None))
