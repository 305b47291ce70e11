"""Messages to people: written in the transaction that gives rise to them, sent afterwards."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ForeignKey, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from broker.models.base import Base, Id, Name, Time


class Message(Base):
    """One e-mail. `key` says what it is about and when: the same occasion never makes a second one.

    It is sent at least once, under one Message-ID (made from `id`), so that a mail program shows a repeated one once.
    `recipients` are addresses; an empty list goes to the operator.
    """

    __tablename__ = "messages"
    __table_args__ = (Index("ix_messages_due", "next_try_at", postgresql_where=text("sent_at IS NULL")),)

    id: Mapped[Id]
    key: Mapped[Name] = mapped_column(unique=True)
    kind: Mapped[str]
    project_id: Mapped[UUID | None] = mapped_column(ForeignKey("projects.id"))
    order_id: Mapped[UUID | None] = mapped_column(ForeignKey("orders.id"))
    recipients: Mapped[list[Any]]
    subject: Mapped[str]
    body: Mapped[str]
    made_at: Mapped[Time]
    next_try_at: Mapped[Time]
    sent_at: Mapped[datetime | None]
    failures: Mapped[int] = mapped_column(default=0)
    trouble: Mapped[str | None]  # why it was not sent yet
