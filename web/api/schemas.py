"""What the nouns' schemas are made of: strict input, exact amounts, pages of lists."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from typing import Annotated, Any, Generic, Self, TypeVar
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, SkipValidation, model_validator
from pydantic_core import PydanticCustomError

from broker.documents import suggestion
from broker.errors import InvalidInput
from broker.paging import Page
from broker.values import Amount, plain

T = TypeVar("T")


class Shown(BaseModel):
    """Output: filled from a read model with the same names."""

    model_config = ConfigDict(from_attributes=True, frozen=True)


class Strict(BaseModel):
    """Input: what it does not know is refused, and the nearest known key is named."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _no_unknown_keys(cls, value: Any) -> Any:
        """Before all else: a misspelt key would otherwise be told as a missing one."""
        unknown = [key for key in value if key not in cls.model_fields] if isinstance(value, dict) else []
        if unknown:
            near = suggestion(str(unknown[0]), cls.model_fields)
            hint = f"Did you mean {near}?" if near else f"Known keys: {', '.join(cls.model_fields)}."
            raise PydanticCustomError("unknown_key", "unknown key", {"key": str(unknown[0])[:70], "hint": hint})
        for text in _texts(value):
            if "\x00" in text or not (text.isascii() or _is_whole(text)):
                reason = {"reason": "holds a NUL or half a character", "hint": "Send text in UTF-8."}
                raise PydanticCustomError("leeway", "{reason}", reason)
        return value


def _texts(value: Any) -> Iterator[str]:
    """Every text in a JSON value."""
    todo = [value]
    while todo:
        match todo.pop():
            case str() as text:
                yield text
            case dict() as table:
                todo.extend(table)
                todo.extend(table.values())
            case list() as items:
                todo.extend(items)


def _is_whole(text: str) -> bool:
    """False where JSON's escapes left half of a surrogate pair, which no column and no file takes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class AmountShown(BaseModel):
    """An exact amount: plain digits as text, and a currency (ISO 4217) or allocation unit."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"value": "12.34", "commodity": "EUR"}]})

    value: str
    commodity: str


def _amount(amount: Amount) -> AmountShown:
    return AmountShown(value=plain(amount.value), commodity=amount.commodity.code)


Money = Annotated[SkipValidation[Amount], PlainSerializer(_amount, return_type=AmountShown)]


class PageQuery(Strict):
    """Which part of a list is wanted."""

    limit: int = Field(50, ge=1, le=200, description="At most so many items.")
    cursor: str | None = Field(None, description="`next` of the page before.")

    def page(self) -> Page:
        """As the queries take it; raises `InvalidInput` for a cursor that is none of ours."""
        return Page(self.limit, None if self.cursor is None else _from_cursor(self.cursor))


class Items(Shown, Generic[T]):
    """A page of a list, newest first. `next` is null on the last one."""

    items: list[T]
    next: str | None

    @classmethod
    def of(cls, items: list[T], following: UUID | None) -> Self:
        """With the cursor of the page that follows."""
        return cls(items=items, next=None if following is None else to_cursor(following))


def to_cursor(before: UUID) -> str:
    """What `PageQuery` takes to begin before this id."""
    return base64.urlsafe_b64encode(before.bytes).decode().rstrip("=")


def _from_cursor(cursor: str) -> UUID:
    try:
        return UUID(bytes=base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (ValueError, binascii.Error):
        raise InvalidInput("cursor", "is none of this server's", hint="Take `next` of the page before.") from None
