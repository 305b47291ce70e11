"""What happened, what needs a person, and which clock ticks were taken."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ForeignKey, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from broker.models.base import Base, Id, Money, Time


class Event(Base):
    """One line of a timeline. Append-only."""

    __tablename__ = "events"
    __table_args__ = (
        Index("ix_events_workload_id_at", "workload_id", "at"),
        Index("ix_events_lease_id_at", "lease_id", "at"),
    )

    id: Mapped[Id]
    at: Mapped[Time]
    kind: Mapped[str]
    text: Mapped[str]
    actor: Mapped[str]
    workload_id: Mapped[UUID | None] = mapped_column(ForeignKey("workloads.id"))
    order_id: Mapped[UUID | None] = mapped_column(ForeignKey("orders.id"))
    lease_id: Mapped[UUID | None] = mapped_column(ForeignKey("leases.id"))
    site_id: Mapped[UUID | None] = mapped_column(ForeignKey("sites.id", ondelete="SET NULL"))
    data: Mapped[dict[str, Any]] = mapped_column(default=dict)


class Finding(Base):
    """Something a person should look at. One open row per (kind, key)."""

    __tablename__ = "findings"
    __table_args__ = (
        Index("uq_findings_open", "kind", "key", unique=True, postgresql_where=text("resolved_at IS NULL")),
    )

    id: Mapped[Id]
    kind: Mapped[str]
    key: Mapped[str]
    text: Mapped[str]
    hint: Mapped[str]
    site_id: Mapped[UUID | None] = mapped_column(ForeignKey("sites.id", ondelete="CASCADE"))
    lease_id: Mapped[UUID | None] = mapped_column(ForeignKey("leases.id"))
    per_day: Mapped[Money | None]  # None: not known
    commodity: Mapped[str | None]
    first_seen_at: Mapped[Time]
    last_seen_at: Mapped[Time]
    resolved_at: Mapped[datetime | None]


class ClockSlot(Base):
    """A tick of the clock, taken by the replica that inserted it."""

    __tablename__ = "clock_slots"

    name: Mapped[str] = mapped_column(primary_key=True)
    slot: Mapped[Time] = mapped_column(primary_key=True)
