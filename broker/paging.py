"""One page of rows, newest first: a keyset on the id, whose UUIDv7 sorts by the time it was made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Self, TypeVar, TypeVarTuple
from uuid import UUID

from sqlalchemy import Row, Select
from sqlalchemy.orm import InstrumentedAttribute, Session

T = TypeVar("T")
Columns = TypeVarTuple("Columns")


@dataclass(frozen=True, slots=True)
class Page:
    """At most `limit` items, those whose id lies before `before` (None: from the newest on)."""

    limit: int = 50
    before: UUID | None = None


@dataclass(frozen=True, slots=True)
class Listed(Generic[T]):
    """The items of a page, and the `before` of the next one (None: this is the last)."""

    items: Sequence[T]
    next: UUID | None

    @classmethod
    def cut(cls, items: Sequence[T], page: Page, key: Callable[[T], UUID]) -> Self:
        """What was made of the rows of `rows_of`, which may be one too many."""
        if len(items) <= page.limit:
            return cls(items, None)
        return cls(items[: page.limit], key(items[page.limit - 1]))


def rows_of(
    session: Session, statement: Select[*Columns], key: InstrumentedAttribute[UUID], page: Page
) -> Sequence[Row[*Columns]]:
    """The statement's rows of this page, and one more where there is one: then there is a next page, without a count.

    `key` is the id that orders them.
    """
    if page.before is not None:
        statement = statement.where(key < page.before)
    return session.execute(statement.order_by(key.desc()).limit(page.limit + 1)).all()
