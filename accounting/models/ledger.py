"""Double entry: accounts, entries, postings that sum to zero, and the balances kept beside them."""

from __future__ import annotations

from decimal import Decimal
from enum import StrEnum
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from broker.models.base import Base, Id, Money, Name, Time, choice


class AccountKind(StrEnum):
    """What an account is for.

    GRANT: the spent money of a grant, which rises with charges. PROVIDER: what is owed for use, which falls with them.
    OVERDRAFT: what a project was charged beyond its holds.
    """

    GRANT = "grant"
    PROVIDER = "provider"
    OVERDRAFT = "overdraft"


class Account(Base):
    """Something that money is posted to. `key` is its stable name (`grant:<id>`)."""

    __tablename__ = "accounts"

    id: Mapped[Id]
    kind: Mapped[AccountKind] = mapped_column(choice(AccountKind, "kind"))
    key: Mapped[Name] = mapped_column(unique=True)
    title: Mapped[Name]


class Balance(Base):
    """What an account holds of one commodity. `posted` is the sum of its postings; `ceiling` None is no limit."""

    __tablename__ = "balances"
    __table_args__ = (
        UniqueConstraint("account_id", "commodity"),
        CheckConstraint("ceiling IS NULL OR ceiling - posted - held >= 0", name="never_over_committed"),
        CheckConstraint("held >= 0", name="held_not_negative"),
    )

    id: Mapped[Id]
    account_id: Mapped[UUID] = mapped_column(ForeignKey("accounts.id"))
    commodity: Mapped[str]
    posted: Mapped[Money] = mapped_column(default=Decimal(0))
    held: Mapped[Money] = mapped_column(default=Decimal(0))
    ceiling: Mapped[Money | None]


class Entry(Base):
    """One event of the books. `key` comes from its source, so that a replay posts nothing twice."""

    __tablename__ = "entries"

    id: Mapped[Id]
    key: Mapped[Name] = mapped_column(unique=True)
    kind: Mapped[str]
    text: Mapped[str]
    posted_at: Mapped[Time]


class Posting(Base):
    """One line of an entry. Append-only, by permission and by trigger; an entry's lines sum to zero per commodity."""

    __tablename__ = "postings"

    id: Mapped[Id]
    entry_id: Mapped[UUID] = mapped_column(ForeignKey("entries.id"), index=True)
    account_id: Mapped[UUID] = mapped_column(ForeignKey("accounts.id"), index=True)
    commodity: Mapped[str]
    amount: Mapped[Money]
