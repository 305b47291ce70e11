"""How often sites were asked, how often that failed, and how long it took."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from sqlalchemy import BigInteger, ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from broker.models.base import Base, Time, choice


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
