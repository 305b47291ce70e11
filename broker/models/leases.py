"""What exists at sites because of orders: leases, their parts, every attempt to make one, and what was seen."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, UniqueConstraint, false, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from broker.models.base import Base, Id, Time, choice
from broker.remote import Fence, MachineState, PartKind


class Desired(StrEnum):
    """What Leeway wants a lease to be. From SNAPSHOT (all but a snapshot of its disk goes) it only goes on to GONE."""

    RUNNING = "running"
    STOPPED = "stopped"
    SHELVED = "shelved"
    SNAPSHOT = "snapshot"
    GONE = "gone"


# The machine has no way back.
ENDING = (Desired.SNAPSHOT, Desired.GONE)


class LeaseState(StrEnum):
    """What is known of a lease: PENDING before its machine is made, then what the site says, GONE when all parts are.

    SNAPSHOT: the machine is gone, and a snapshot of its disk is kept.
    PRESENT: it is no machine (a volume, an address, a snapshot that somebody made), and it is there.
    UNKNOWN: the site's status cannot be read, or the machine does not show and is not yet known to be absent.
    """

    PENDING = "pending"
    BUILDING = "building"
    RUNNING = "running"
    STOPPED = "stopped"
    SHELVED = "shelved"
    ERROR = "error"
    DELETING = "deleting"
    UNKNOWN = "unknown"
    SNAPSHOT = "snapshot"
    PRESENT = "present"
    GONE = "gone"


class Lease(Base):
    """One machine at a site that exists, or shall exist, because of an order; or one thing that was adopted.

    `generation` is raised by every claim; a worker's writes say `WHERE generation = :mine`. `next_look_at` is the
    schedule: None means that nothing is left to do.
    """

    __tablename__ = "leases"
    __table_args__ = (
        Index("uq_leases_member", "order_id", "member", unique=True, postgresql_where=text("gone_at IS NULL")),
        Index("ix_leases_due", "next_look_at", postgresql_where=text("next_look_at IS NOT NULL")),
        Index("ix_leases_live", "site_id", postgresql_where=text("gone_at IS NULL")),
    )

    id: Mapped[Id]
    order_id: Mapped[UUID] = mapped_column(ForeignKey("orders.id"), index=True)
    member: Mapped[int]
    site_id: Mapped[UUID] = mapped_column(ForeignKey("sites.id"))
    quote_offer_id: Mapped[UUID] = mapped_column(ForeignKey("quote_offers.id"))
    project: Mapped[str]  # the name, for tags
    spec: Mapped[dict[str, Any]]  # MachineSpec
    desired: Mapped[Desired] = mapped_column(choice(Desired, "desired"))
    state: Mapped[LeaseState] = mapped_column(choice(LeaseState, "state"))
    addresses: Mapped[list[Any]] = mapped_column(default=list)
    made_at: Mapped[Time]
    started_at: Mapped[datetime | None]  # first seen running, by the site's word where it has one
    ends_at: Mapped[Time]
    grace: Mapped[timedelta | None]  # after its end it stays off so long before it is deleted, paid by the hold
    keep: Mapped[timedelta | None]  # a snapshot is taken before it is deleted, and kept so long; None: no snapshot
    snapshot_time: Mapped[timedelta | None]  # so long the site may take for that
    lapsed_at: Mapped[datetime | None]  # when the grace was over, and SNAPSHOT was desired
    gone_at: Mapped[datetime | None]
    adopted_at: Mapped[datetime | None]  # it was there before: charged from then on, and never changed by Leeway
    site_project: Mapped[str | None]  # of what was adopted, the site's id: who cannot see that cannot miss it
    stop_reason: Mapped[str | None]
    failure: Mapped[str | None]  # why the site could not give the machine; None once it ran
    # the schedule and its fence
    generation: Mapped[int] = mapped_column(default=0)
    claim_until: Mapped[datetime | None]
    next_look_at: Mapped[datetime | None]
    failures: Mapped[int] = mapped_column(default=0)
    trouble: Mapped[str | None]  # why it does not move
    # presence, by listings
    seen_at: Mapped[datetime | None]  # start of the last listing or look that showed the machine
    missing_since: Mapped[datetime | None]  # start of the first complete listing that did not
    is_missing: Mapped[bool] = mapped_column(default=False)  # two listings agree; a look decides
    scope: Mapped[str | None]  # the credential scope its parts are in; another scope's 404 proves nothing
    must_find: Mapped[bool] = mapped_column(
        server_default=false()
    )  # after a restore: parts may exist of which no row tells
    settled_at: Mapped[datetime | None]  # when accounting had nothing left to do for it
    settle_failures: Mapped[int] = mapped_column(default=0, server_default=text("0"))  # of accounting, in a row
    settle_trouble: Mapped[str | None]  # why accounting failed last

    parts: Mapped[list[Part]] = relationship(lazy="raise", order_by="Part.position")
    attempts: Mapped[list[LaunchAttempt]] = relationship(lazy="raise", order_by="LaunchAttempt.number", viewonly=True)


class Part(Base):
    """A remote object made for a lease. `remote_id` is set once, by compare-and-set."""

    __tablename__ = "parts"
    __table_args__ = (
        UniqueConstraint("lease_id", "kind"),
        Index("ix_parts_remote", "kind", "remote_id"),
        CheckConstraint("gone_at IS NULL OR made_at IS NULL OR remote_id IS NOT NULL", name="gone_after_made"),
    )

    id: Mapped[Id]
    lease_id: Mapped[UUID] = mapped_column(ForeignKey("leases.id"))
    kind: Mapped[PartKind] = mapped_column(choice(PartKind, "kind"))
    position: Mapped[int]
    fence: Mapped[Fence] = mapped_column(choice(Fence, "fence"))
    is_harmless: Mapped[bool]
    remote_id: Mapped[str | None]
    made_at: Mapped[datetime | None]
    ready_at: Mapped[datetime | None]  # of a snapshot: it is whole
    gone_at: Mapped[datetime | None]


class Outcome(StrEnum):
    """What came of an attempt.

    PREPARED  the row is committed, the request may or may not have been sent
    UNKNOWN   it was sent, and no clear answer came
    CREATED   the site answered with the part's id, and the part is this one
    REFUSED   the site said no with an answer that means "nothing was made"
    ABSENT    looked for after its deadline and settle time, and not there
    DISCARD   something was made, but the part is another one, or the lease is over: to be deleted until seen gone
    GONE      what was made is gone
    """

    PREPARED = "prepared"
    UNKNOWN = "unknown"
    CREATED = "created"
    REFUSED = "refused"
    ABSENT = "absent"
    DISCARD = "discard"
    GONE = "gone"


OPEN = (Outcome.PREPARED, Outcome.UNKNOWN)


class LaunchAttempt(Base):
    """One try to make a part, committed before its request. At most one per part is open."""

    __tablename__ = "launch_attempts"
    __table_args__ = (
        UniqueConstraint("part_id", "number"),
        Index(
            "uq_launch_attempts_open",
            "part_id",
            unique=True,
            postgresql_where=text("outcome IN ('prepared', 'unknown')"),
        ),
        Index("ix_launch_attempts_lease_id", "lease_id"),
    )

    id: Mapped[Id]
    lease_id: Mapped[UUID] = mapped_column(ForeignKey("leases.id"))
    part_id: Mapped[UUID] = mapped_column(ForeignKey("parts.id"))
    number: Mapped[int]
    fence: Mapped[Fence] = mapped_column(choice(Fence, "fence"))
    started_at: Mapped[Time]
    give_up_at: Mapped[Time]
    remote_id: Mapped[str | None]
    outcome: Mapped[Outcome] = mapped_column(choice(Outcome, "outcome"))
    error_code: Mapped[str | None]
    error: Mapped[str | None]
    resolved_at: Mapped[datetime | None]


class SiteListing(Base):
    """One complete listing of a site: what absence is measured by."""

    __tablename__ = "site_listings"
    __table_args__ = (Index("ix_site_listings_site_id_started_at", "site_id", "started_at"),)

    id: Mapped[Id]
    site_id: Mapped[UUID] = mapped_column(ForeignKey("sites.id", ondelete="CASCADE"))
    scope: Mapped[str]
    started_at: Mapped[Time]
    finished_at: Mapped[Time]
    machines: Mapped[int]


class Observation(Base):
    """What a lease's machine was seen doing. A row per change, never per look; `seen_at` is the listing's start.

    `since` is the site's own word for when the state began, None where it has none. State GONE ends the machine:
    `is_estimated` says that the end is only when it was last seen.
    """

    __tablename__ = "observations"
    __table_args__ = (UniqueConstraint("lease_id", "seen_at"),)

    id: Mapped[Id]
    lease_id: Mapped[UUID] = mapped_column(ForeignKey("leases.id"))
    seen_at: Mapped[Time]
    state: Mapped[LeaseState] = mapped_column(choice(LeaseState, "state"))
    raw_status: Mapped[str]
    instance_type: Mapped[str | None]
    size_gib: Mapped[Decimal | None]  # of what is billed by its size
    since: Mapped[datetime | None]
    is_estimated: Mapped[bool] = mapped_column(default=False)


def lease_state(machine: MachineState) -> LeaseState:
    """The lease state for what a site says its machine does."""
    return LeaseState(machine.value)
