"""Institutions, providers, sites and their credentials."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from broker.models.base import Base, Id, Name, Time


class Installation(Base):
    """The one row that says which Leeway this database belongs to; the same id lies outside the database.

    `imprint` says which copy of the database this is: where it is not the living database's own, the rows come out of a
    backup (`broker.restored`). While `observing_since` is set nothing is started, changed or deleted at any site.
    """

    __tablename__ = "installations"
    __table_args__ = (CheckConstraint("only_one", name="only_one"),)

    only_one: Mapped[bool] = mapped_column(primary_key=True, default=True)
    installation_id: Mapped[UUID]
    made_at: Mapped[Time]
    imprint: Mapped[str | None]  # None: of a time before imprints; the next start writes it
    observing_since: Mapped[datetime | None]
    observing_reason: Mapped[str | None]


class Institution(Base):
    """A member organisation."""

    __tablename__ = "institutions"

    id: Mapped[Id]
    name: Mapped[Name] = mapped_column(unique=True)
    title: Mapped[Name]
    jurisdiction: Mapped[str | None]


class Provider(Base):
    """The company or organisation that bills."""

    __tablename__ = "providers"

    id: Mapped[Id]
    name: Mapped[Name] = mapped_column(unique=True)
    title: Mapped[Name]


class Site(Base):
    """One place at a provider where things can be started: adapter kind, endpoint, region."""

    __tablename__ = "sites"

    id: Mapped[Id]
    name: Mapped[Name] = mapped_column(unique=True)
    provider_id: Mapped[UUID] = mapped_column(ForeignKey("providers.id"))
    adapter: Mapped[str]
    endpoint: Mapped[str]
    region: Mapped[str | None]
    jurisdiction: Mapped[str | None]
    settings: Mapped[dict[str, Any]] = mapped_column(default=dict)
    observe_only: Mapped[bool] = mapped_column(default=False)
    is_enabled: Mapped[bool] = mapped_column(default=True)
    # The schedule of listings; `listing_generation` fences a slow lister as a lease's generation fences a slow worker.
    next_listing_at: Mapped[Time]
    listing_generation: Mapped[int] = mapped_column(default=0)
    listing_claim_until: Mapped[datetime | None]
    listed_at: Mapped[datetime | None]  # start of the last complete listing
    changes_at: Mapped[datetime | None]  # start of the last listing of what changed, where one followed that
    full_listing_wanted_at: Mapped[datetime | None]  # no listing of changes before a complete one that began later
    listing_since: Mapped[datetime | None]  # start of the listing under way; None: none is
    listing_read: Mapped[int | None]  # things that it has read so far
    refreshed_at: Mapped[datetime | None]  # of offers and images
    failures: Mapped[int] = mapped_column(default=0)
    trouble: Mapped[str | None]  # why the last contact failed, None after a good one
    # What the last check of the credential found (`Diagnosis` rows), and which request it answers.
    check_wanted_at: Mapped[datetime | None]
    checked_at: Mapped[datetime | None]
    diagnosis: Mapped[list[Any]] = mapped_column(default=list)
    version: Mapped[int] = mapped_column()

    __mapper_args__ = {"version_id_col": version}  # noqa: RUF012 - SQLAlchemy's way


class SiteCredential(Base):
    """A credential, encrypted: `ciphertext` opens only with the key and only for this row's site and person."""

    __tablename__ = "site_credentials"
    __table_args__ = (
        Index(
            "uq_site_credentials_site_id_person_id",
            "site_id",
            "person_id",
            unique=True,
            postgresql_nulls_not_distinct=True,
        ),
    )

    id: Mapped[Id]
    site_id: Mapped[UUID] = mapped_column(ForeignKey("sites.id", ondelete="CASCADE"))
    person_id: Mapped[UUID | None] = mapped_column(ForeignKey("persons.id"))
    key_id: Mapped[str]
    ciphertext: Mapped[bytes]
    stored_at: Mapped[Time]
