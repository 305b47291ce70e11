"""The one declarative base, and the column types that money, time and ids are kept in."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any, ClassVar
from uuid import UUID

from sqlalchemy import DateTime, Enum, MetaData, Numeric, String, Uuid
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, mapped_column

from broker.values import new_id

Id = Annotated[UUID, mapped_column(Uuid, primary_key=True, default=new_id)]
Time = Annotated[datetime, mapped_column(DateTime(timezone=True))]
# Sizes found exact on every engine that the rows may be exported to.
Money = Annotated[Decimal, mapped_column(Numeric(28, 9))]
UnitPrice = Annotated[Decimal, mapped_column(Numeric(19, 9))]
Count = Annotated[Decimal, mapped_column(Numeric(28, 9))]
Name = Annotated[str, mapped_column(String(200))]


class Base(DeclarativeBase):
    """Every row of Leeway, of whichever package."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        datetime: DateTime(timezone=True),
        Decimal: Numeric(28, 9),
        dict[str, Any]: JSONB,
        list[Any]: JSONB,
    }


def choice(kind: type[StrEnum], name: str) -> Enum:
    """A text column with a CHECK that holds the enum's values: a new value is a migration, not a type change."""
    return Enum(
        kind,
        name=name,
        native_enum=False,
        create_constraint=True,
        length=30,
        values_callable=lambda members: [member.value for member in members],
    )
