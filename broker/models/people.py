"""Persons and the projects they work in."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import ForeignKey, text
from sqlalchemy.orm import Mapped, mapped_column

from broker.models.base import Base, Id, Name


class Person(Base):
    """One human being, with one or more identities (issuer and subject; they come with login)."""

    __tablename__ = "persons"

    id: Mapped[Id]
    name: Mapped[Name]
    email: Mapped[str | None]


class Project(Base):
    """People working under a PI."""

    __tablename__ = "projects"

    id: Mapped[Id]
    name: Mapped[Name] = mapped_column(unique=True)
    title: Mapped[Name]
    institution_id: Mapped[UUID] = mapped_column(ForeignKey("institutions.id"))
    pi_id: Mapped[UUID | None] = mapped_column(ForeignKey("persons.id"))
    contacts: Mapped[list[Any]] = mapped_column(default=list, server_default=text("'[]'"))  # e-mail addresses
