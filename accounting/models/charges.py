"""Segments of unchanged use, and the charges made of them in FOCUS columns."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from broker.models.base import Base, Count, Id, Money, Name, Time, UnitPrice, choice
from broker.models.leases import LeaseState


class Segment(Base):
    """A half-open interval [starts_at, ends_at) in which a lease's billable state did not change; open while None.

    Overlaps are prevented by the unique start, the one open segment and a trigger.
    """

    __tablename__ = "segments"
    __table_args__ = (
        UniqueConstraint("lease_id", "starts_at"),
        Index("uq_segments_open", "lease_id", unique=True, postgresql_where=text("ends_at IS NULL")),
        CheckConstraint("ends_at IS NULL OR ends_at > starts_at", name="ends_after_start"),
    )

    id: Mapped[Id]
    lease_id: Mapped[UUID] = mapped_column(ForeignKey("leases.id"))
    starts_at: Mapped[Time]
    ends_at: Mapped[datetime | None]
    state: Mapped[LeaseState] = mapped_column(choice(LeaseState, "state"))
    sku: Mapped[str]
    # None: no rate card was in force, so the price is unknown (never zero), and the segment waits for one.
    rate_card_version_id: Mapped[UUID | None] = mapped_column(ForeignKey("rate_card_versions.id"))
    is_estimated: Mapped[bool] = mapped_column(default=False)
    size_gib: Mapped[Decimal | None]  # of what is billed by its size, where it was seen
    # How much of it counts, after a correction; None: all. A charged segment is never altered otherwise.
    counted_until: Mapped[datetime | None]


class ChargeState(StrEnum):
    """PROVISIONAL until the provider's bill is matched, then MATCHED, then CLOSED with its month."""

    PROVISIONAL = "provisional"
    MATCHED = "matched"
    CLOSED = "closed"


class Charge(Base):
    """A rated segment: one row per SKU, tier and payer. Columns are FOCUS 1.2 Cost and Usage; `x_` are ours.

    `x_grant_id`: the grant that pays the row; None: nobody does, it is free or overdraft. `x_correction` counts the
    corrections of a segment from 1, each with rows that hold the differences; 0 is the charge itself.
    """

    __tablename__ = "charges"
    # One row per tier, because FOCUS wants list cost = list unit price x pricing quantity in every row.
    __table_args__ = (
        UniqueConstraint(
            "segment_id", "sku_price_id", "x_correction", "x_grant_id", postgresql_nulls_not_distinct=True
        ),
    )

    id: Mapped[Id]
    segment_id: Mapped[UUID] = mapped_column(ForeignKey("segments.id"))
    entry_id: Mapped[UUID] = mapped_column(ForeignKey("entries.id"))
    lease_id: Mapped[UUID] = mapped_column(ForeignKey("leases.id"), index=True)
    project_id: Mapped[UUID] = mapped_column(ForeignKey("projects.id"), index=True)
    state: Mapped[ChargeState] = mapped_column(choice(ChargeState, "state"))
    charge_category: Mapped[str] = mapped_column(default="Usage")
    charge_class: Mapped[str | None]
    charge_description: Mapped[str]
    charge_period_start: Mapped[Time]
    charge_period_end: Mapped[Time]
    billing_period_start: Mapped[Time]
    billing_period_end: Mapped[Time]
    billing_currency: Mapped[str]
    service_category: Mapped[str] = mapped_column(default="Compute")
    service_name: Mapped[str]
    service_provider_name: Mapped[Name]
    region_id: Mapped[str | None]
    resource_id: Mapped[str]
    resource_name: Mapped[str]  # a site's names are as long as it likes
    resource_type: Mapped[str] = mapped_column(default="Virtual Machine")
    sku_id: Mapped[str]
    sku_price_id: Mapped[str]
    pricing_category: Mapped[str] = mapped_column(default="Standard")
    pricing_quantity: Mapped[Count]
    pricing_unit: Mapped[str]
    consumed_quantity: Mapped[Count]
    consumed_unit: Mapped[str]
    list_unit_price: Mapped[UnitPrice]
    contracted_unit_price: Mapped[UnitPrice]
    list_cost: Mapped[Money]
    contracted_cost: Mapped[Money]
    billed_cost: Mapped[Money]
    effective_cost: Mapped[Money]
    x_machine_state: Mapped[str]
    x_share: Mapped[Decimal]
    x_estimated: Mapped[bool] = mapped_column(default=False)
    x_grant_id: Mapped[UUID | None] = mapped_column(ForeignKey("grants.id"))
    x_correction: Mapped[int] = mapped_column(server_default=text("0"))
