"""Requests, quotes and orders."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from broker.models.base import Base, Id, Money, Name, Time, choice


class WorkloadRow(Base):
    """A request as it was written; `document` is its canonical form."""

    __tablename__ = "workloads"

    id: Mapped[Id]
    project_id: Mapped[UUID] = mapped_column(ForeignKey("projects.id"), index=True)
    name: Mapped[Name]
    document: Mapped[dict[str, Any]]
    digest: Mapped[str]
    made_at: Mapped[Time]


class Quote(Base):
    """The priced, ranked, explained answer, with the digests of all that it rests on."""

    __tablename__ = "quotes"

    id: Mapped[Id]
    workload_id: Mapped[UUID] = mapped_column(ForeignKey("workloads.id"), index=True)
    made_at: Mapped[Time]
    expires_at: Mapped[Time]
    catalogue_digest: Mapped[str]
    facts_digest: Mapped[str]
    assumptions: Mapped[dict[str, Any]]
    verdicts: Mapped[list[Any]]  # one per site: rank or reasons
    eliminated: Mapped[dict[str, Any]]  # clause -> offers it removed
    relaxations: Mapped[list[Any]]
    offers: Mapped[list[QuoteOffer]] = relationship(lazy="raise", order_by="QuoteOffer.rank")


class QuoteOffer(Base):
    """One of a quote's best offers, priced for all members together."""

    __tablename__ = "quote_offers"
    __table_args__ = (UniqueConstraint("quote_id", "rank"),)

    id: Mapped[Id]
    quote_id: Mapped[UUID] = mapped_column(ForeignKey("quotes.id", ondelete="CASCADE"))
    rank: Mapped[int]
    site_id: Mapped[UUID] = mapped_column(ForeignKey("sites.id"))
    # None: no instance type, as what was adopted is no machine.
    offer_id: Mapped[UUID | None] = mapped_column(ForeignKey("offers.id"))
    rate_card_version_id: Mapped[UUID] = mapped_column(ForeignKey("rate_card_versions.id"))
    image_remote_id: Mapped[str]
    # The root disk of each machine, where it is a volume; 0: it is the offer's own.
    boot_volume_gib: Mapped[int] = mapped_column(default=0, server_default="0")
    commodity: Mapped[str]
    total: Mapped[Money]
    hold: Mapped[Money]
    hourly: Mapped[Money]
    lines: Mapped[list[Any]]


class OrderState(StrEnum):
    """Where an order stands. RETURNED: no offer inside what was approved works; the person decides."""

    PLACED = "placed"
    ACTIVE = "active"
    RETURNED = "returned"
    STOPPING = "stopping"
    OVER = "over"


class Order(Base):
    """A workload plus the chosen quote."""

    __tablename__ = "orders"
    __table_args__ = (
        Index(
            "uq_orders_idempotency_key",
            "project_id",
            "idempotency_key",
            unique=True,
            postgresql_where=text("idempotency_key IS NOT NULL"),
        ),
        Index(
            "ix_orders_rolling",
            "held_until",
            postgresql_where=text("held_until IS NOT NULL AND state IN ('placed', 'active')"),
        ),
        Index("ix_orders_going", "state", postgresql_where=text("state <> 'over'")),
        CheckConstraint("members > 0", name="members_positive"),
    )

    id: Mapped[Id]
    workload_id: Mapped[UUID] = mapped_column(ForeignKey("workloads.id"), index=True)
    quote_id: Mapped[UUID] = mapped_column(ForeignKey("quotes.id"))
    quote_offer_id: Mapped[UUID] = mapped_column(ForeignKey("quote_offers.id"))
    project_id: Mapped[UUID] = mapped_column(ForeignKey("projects.id"), index=True)
    state: Mapped[OrderState] = mapped_column(choice(OrderState, "state"))
    members: Mapped[int]
    duration: Mapped[timedelta]
    placed_at: Mapped[Time]
    held_until: Mapped[datetime | None]  # the money lasts until then, and for stopping after it; None: to the end
    ended_at: Mapped[datetime | None]
    reason: Mapped[str | None]  # why it was returned or stopped
    idempotency_key: Mapped[str | None]
    version: Mapped[int] = mapped_column()

    __mapper_args__ = {"version_id_col": version}  # noqa: RUF012 - SQLAlchemy's way
