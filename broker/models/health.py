"""How often sites were asked, how often that failed, and how long it took; and tests that start a machine."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

from sqlalchemy import BigInteger, ForeignKey, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from broker.models.base import Base, Id, Time, choice


class ProbeKind(StrEnum):
    """What a site was asked for."""

    AUTH = "auth"  # a check of the credential, step by step
    LIST = "list"  # all machines, machine types or images
    QUOTA = "quota"
    LAUNCH = "launch"  # a part of a new machine
    MACHINE = "machine"  # one machine that is there: looked at, stopped, deleted
    BOOT = "boot"  # a machine that was made to see whether one comes up


class SiteProbe(Base):
    """All contacts of one kind with one site in five minutes. Milliseconds are from question to answer, or giving up.

    An answer that says no is an answer: `failures` counts those that could not be used (`broker.contacts`).
    """

    __tablename__ = "site_probes"
    __table_args__ = (Index("ix_site_probes_slot", "slot"),)

    site_id: Mapped[UUID] = mapped_column(ForeignKey("sites.id", ondelete="CASCADE"), primary_key=True)
    kind: Mapped[ProbeKind] = mapped_column(choice(ProbeKind, "kind"), primary_key=True)
    slot: Mapped[Time] = mapped_column(primary_key=True)  # when its five minutes begin
    contacts: Mapped[int]
    failures: Mapped[int]
    latency_sum_ms: Mapped[int] = mapped_column(BigInteger)
    latency_max_ms: Mapped[int]
    last_ok_at: Mapped[datetime | None]
    last_failed_at: Mapped[datetime | None]
    error_code: Mapped[str | None]  # of the last failure


class ContactTotal(Base):
    """All contacts of one kind with one site, ever: what metrics count from, as `SiteProbe` rows are forgotten."""

    __tablename__ = "contact_totals"

    site_id: Mapped[UUID] = mapped_column(ForeignKey("sites.id", ondelete="CASCADE"), primary_key=True)
    kind: Mapped[ProbeKind] = mapped_column(choice(ProbeKind, "kind"), primary_key=True)
    contacts: Mapped[int] = mapped_column(BigInteger)
    failures: Mapped[int] = mapped_column(BigInteger)
    latency_sum_ms: Mapped[int] = mapped_column(BigInteger)


class BootTest(Base):
    """An order that was placed to see whether a machine comes up; it is stopped when that is known.

    `took_ms`: from the order until the machine ran, None where it did not. Ended with neither that nor an error: it was
    stopped before anything could be said.
    """

    __tablename__ = "boot_tests"
    __table_args__ = (
        Index("ix_boot_tests_site_id_began_at", "site_id", "began_at"),
        Index("uq_boot_tests_running", "site_id", unique=True, postgresql_where=text("ended_at IS NULL")),
    )

    id: Mapped[Id]
    site_id: Mapped[UUID] = mapped_column(ForeignKey("sites.id", ondelete="CASCADE"))
    order_id: Mapped[UUID] = mapped_column(ForeignKey("orders.id"), unique=True)
    began_at: Mapped[Time]
    give_up_at: Mapped[Time]
    ended_at: Mapped[datetime | None]
    took_ms: Mapped[int | None]
    error_code: Mapped[str | None]
    error: Mapped[str | None]


class BootPlan(Base):
    """Boot tests of one site at intervals, paid by a project."""

    __tablename__ = "boot_plans"

    site_id: Mapped[UUID] = mapped_column(ForeignKey("sites.id", ondelete="CASCADE"), primary_key=True)
    project_id: Mapped[UUID] = mapped_column(ForeignKey("projects.id"))
    image: Mapped[str | None]  # None: the smallest that the site has
    every: Mapped[timedelta]
    next_at: Mapped[Time]
    trouble: Mapped[str | None]  # why the last one could not be ordered
