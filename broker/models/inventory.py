"""What exists at sites, whoever made it: knowledge from listings, on which nothing is ever done by itself."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from uuid import UUID

from sqlalchemy import ForeignKey, Index, String, text
from sqlalchemy.orm import Mapped, mapped_column

from broker.models.base import Base, Id, Time, choice
from broker.remote import MachineState, ThingKind


class Thing(Base):
    """One thing at a site, from the first listing that showed it until a complete one that did not.

    A row is written when something about it changes, never because it was seen again: while `last_seen_at` is None it
    is there, and the site's `listed_at` says when it was seen last.
    """

    __tablename__ = "things"
    __table_args__ = (
        # One living row for each; listings walk along it. Ids are compared byte by byte (collation C), as Python does.
        Index(
            "uq_things_living", "site_id", "kind", "remote_id", unique=True, postgresql_where=text("gone_at IS NULL")
        ),
    )

    id: Mapped[Id]
    site_id: Mapped[UUID] = mapped_column(ForeignKey("sites.id", ondelete="CASCADE"))
    kind: Mapped[ThingKind] = mapped_column(choice(ThingKind, "kind"))
    remote_id: Mapped[str] = mapped_column(String(collation="C"))
    name: Mapped[str]
    owner: Mapped[str | None]  # the site's id of a user
    project: Mapped[str | None]  # the site's id of a project
    size_gib: Mapped[Decimal | None]
    instance_type: Mapped[str | None]  # of a server, the site's id of it
    state: Mapped[MachineState | None] = mapped_column(choice(MachineState, "state"))  # of a server
    raw_status: Mapped[str]
    attached_to: Mapped[str | None]
    created_at: Mapped[datetime | None]  # by the site's word
    first_seen_at: Mapped[Time]
    changed_at: Mapped[datetime | None]  # when status or attachment was seen to change; None: it never was
    last_seen_at: Mapped[datetime | None]
    # Start of the first complete listing that did not show it, or of one of changes that said it was deleted.
    gone_at: Mapped[datetime | None]
    lease_id: Mapped[UUID | None] = mapped_column(ForeignKey("leases.id"))  # of ours, what it is a part of
    installation: Mapped[UUID | None]  # of its tags, ours or another one
    until: Mapped[datetime | None]  # of its tags
