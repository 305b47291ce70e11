"""What sites sell, version by version: offers, images, rate cards. Versions are never changed, only superseded."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import ForeignKey, Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from broker.models.base import Base, Count, Id, Name, Time, UnitPrice


class CatalogueVersion(Base):
    """A site's offers and images as they were from `made_at` until `superseded_at`."""

    __tablename__ = "catalogue_versions"
    __table_args__ = (
        Index("uq_catalogue_versions_current", "site_id", unique=True, postgresql_where=text("superseded_at IS NULL")),
    )

    id: Mapped[Id]
    site_id: Mapped[UUID] = mapped_column(ForeignKey("sites.id", ondelete="CASCADE"))
    digest: Mapped[str]
    made_at: Mapped[Time]
    superseded_at: Mapped[datetime | None]
    offers: Mapped[list[Offer]] = relationship(lazy="raise", cascade="all, delete-orphan", passive_deletes=True)
    images: Mapped[list[SiteImage]] = relationship(lazy="raise", cascade="all, delete-orphan", passive_deletes=True)


class Offer(Base):
    """An instance type in one catalogue version."""

    __tablename__ = "offers"
    __table_args__ = (UniqueConstraint("catalogue_version_id", "remote_id"),)

    id: Mapped[Id]
    catalogue_version_id: Mapped[UUID] = mapped_column(ForeignKey("catalogue_versions.id", ondelete="CASCADE"))
    site_id: Mapped[UUID] = mapped_column(ForeignKey("sites.id", ondelete="CASCADE"))
    remote_id: Mapped[str]
    name: Mapped[str]  # as long as the site likes
    cores: Mapped[int]
    memory_mib: Mapped[int]
    disk_gib: Mapped[int]
    gpus: Mapped[int]
    gpu_model: Mapped[str | None]
    arch: Mapped[str | None]
    traits: Mapped[list[Any]] = mapped_column(default=list)


class SiteImage(Base):
    """An image in one catalogue version; `logical` is its name across sites."""

    __tablename__ = "site_images"
    __table_args__ = (UniqueConstraint("catalogue_version_id", "remote_id"),)

    id: Mapped[Id]
    catalogue_version_id: Mapped[UUID] = mapped_column(ForeignKey("catalogue_versions.id", ondelete="CASCADE"))
    site_id: Mapped[UUID] = mapped_column(ForeignKey("sites.id", ondelete="CASCADE"))
    remote_id: Mapped[str]
    name: Mapped[str]  # as long as the site likes
    logical: Mapped[str | None]
    min_disk_gib: Mapped[int]
    min_memory_mib: Mapped[int]


class RateCardVersion(Base):
    """One version of a provider's prices, in force over [valid_from, valid_to)."""

    __tablename__ = "rate_card_versions"
    __table_args__ = (
        UniqueConstraint("provider_id", "number"),
        UniqueConstraint("provider_id", "valid_from"),
        Index("uq_rate_card_versions_open", "provider_id", unique=True, postgresql_where=text("valid_to IS NULL")),
    )

    id: Mapped[Id]
    provider_id: Mapped[UUID] = mapped_column(ForeignKey("providers.id"))
    number: Mapped[int]
    name: Mapped[Name]
    currency: Mapped[str]
    valid_from: Mapped[Time]
    valid_to: Mapped[datetime | None]
    bills: Mapped[dict[str, Any]]  # machine state -> share of the instance price, as text
    digest: Mapped[str]
    made_at: Mapped[Time]
    prices: Mapped[list[RateCardPrice]] = relationship(lazy="raise", cascade="all, delete-orphan")


class RateCardPrice(Base):
    """One tier of one SKU's price; times in whole seconds."""

    __tablename__ = "rate_card_prices"

    version_id: Mapped[UUID] = mapped_column(ForeignKey("rate_card_versions.id", ondelete="CASCADE"), primary_key=True)
    sku: Mapped[str] = mapped_column(primary_key=True)
    above: Mapped[Count] = mapped_column(primary_key=True, default=Decimal(0))
    unit: Mapped[str]
    unit_price: Mapped[UnitPrice]
    minimum_seconds: Mapped[int] = mapped_column(default=0)
    increment_seconds: Mapped[int] = mapped_column(default=0)
