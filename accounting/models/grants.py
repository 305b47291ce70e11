"""Grants, and the money that orders have set aside on them."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from broker.models.base import Base, Id, Money, Name, Time


class Grant(Base):
    """Money (or allocation units) of a project over [starts_at, ends_at); `position` is the order of use.

    Its amount is the ceiling of its account's balance.
    """

    __tablename__ = "grants"
    __table_args__ = (
        UniqueConstraint("project_id", "position"),
        UniqueConstraint("project_id", "name"),
        CheckConstraint("ends_at > starts_at", name="ends_after_start"),
    )

    id: Mapped[Id]
    project_id: Mapped[UUID] = mapped_column(ForeignKey("projects.id"))
    name: Mapped[Name]
    account_id: Mapped[UUID] = mapped_column(ForeignKey("accounts.id"), unique=True)
    commodity: Mapped[str]
    position: Mapped[int]
    starts_at: Mapped[Time]
    ends_at: Mapped[Time]


class MoneyHold(Base):
    """Money set aside on one balance for one order. `remaining` falls as charges are posted."""

    __tablename__ = "money_holds"
    __table_args__ = (
        Index(
            "uq_money_holds_open", "order_id", "balance_id", unique=True, postgresql_where=text("released_at IS NULL")
        ),
        CheckConstraint("remaining >= 0 AND remaining <= amount", name="remaining_within"),
    )

    id: Mapped[Id]
    order_id: Mapped[UUID] = mapped_column(ForeignKey("orders.id"), index=True)
    balance_id: Mapped[UUID] = mapped_column(ForeignKey("balances.id"), index=True)
    amount: Mapped[Money]
    remaining: Mapped[Money]
    made_at: Mapped[Time]
    until: Mapped[Time]
    released_at: Mapped[datetime | None]
