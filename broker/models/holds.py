"""Quota: what a site allows, what it says is used, and what orders have set aside and the site does not count yet."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from broker.models.base import Base, Count, Id, Time


class QuotaPool(Base):
    """One limit at one site; `free = quota - used - holds whose machine is not in the listing that used is from`."""

    __tablename__ = "quota_pools"
    __table_args__ = (UniqueConstraint("site_id", "resource"),)

    id: Mapped[Id]
    site_id: Mapped[UUID] = mapped_column(ForeignKey("sites.id", ondelete="CASCADE"))
    resource: Mapped[str]
    quota: Mapped[Decimal | None]  # None is unlimited
    used: Mapped[Count]
    as_of: Mapped[Time]  # start of the listing before which `used` was read


class QuotaHold(Base):
    """What one lease takes from one pool. `counted_at`: start of the listing from which the site counts it itself."""

    __tablename__ = "quota_holds"
    __table_args__ = (
        UniqueConstraint("lease_id", "pool_id"),
        Index("ix_quota_holds_open", "pool_id", postgresql_where=text("released_at IS NULL AND counted_at IS NULL")),
        CheckConstraint("amount >= 0", name="amount_not_negative"),
    )

    id: Mapped[Id]
    pool_id: Mapped[UUID] = mapped_column(ForeignKey("quota_pools.id", ondelete="CASCADE"))
    lease_id: Mapped[UUID] = mapped_column(ForeignKey("leases.id"))
    amount: Mapped[Count]
    counted_at: Mapped[datetime | None]
    released_at: Mapped[datetime | None]
