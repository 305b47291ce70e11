"""Rate cards: a provider's prices, version by version."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, TypeVar
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import AwareDatetime, ConfigDict

from broker.catalogue import import_rate_card
from broker.database import database_now
from broker.errors import InvalidInput
from broker.ratecards import RateCardDocument, parse, parse_csv
from broker.site_views import list_rate_cards, rate_card_view
from web.api.schemas import Items, PageQuery, Shown, Strict
from web.endpoint import Transaction

router = APIRouter(prefix="/rate-cards", tags=["rate cards"])

T = TypeVar("T")

_YAML = """kind: rate-card
name: aurora-2026
provider: aurora
currency: EUR
valid_from: 2026-01-01T00:00:00Z
bills: openstack
prices:
  a1.small: {unit: hour, unit_price: 0.04}
"""


class Format(StrEnum):
    """YAML (or JSON) holds everything; CSV holds the prices, and the other fields stand beside it."""

    YAML = "yaml"
    CSV = "csv"


class RateCardWanted(Strict):
    """A rate card as it was written. `name` to `bills` are for CSV, and all wanted there."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"document": _YAML, "format": "yaml"}]})

    document: str
    format: Format
    name: str | None = None
    provider: str | None = None
    currency: str | None = None
    valid_from: AwareDatetime | None = None
    bills: str | dict[str, str | Decimal] | None = None

    def parsed(self) -> RateCardDocument:
        """Raises `InvalidInput` for the first fault of the document or the fields beside it."""
        if self.format is Format.CSV:
            name, provider = _given("name", self.name), _given("provider", self.provider)
            currency, valid_from = _given("currency", self.currency), _given("valid_from", self.valid_from)
            if self.bills is None:
                raise _missing("bills")
            return parse_csv(
                self.document,
                name=name,
                provider=provider,
                currency=currency,
                valid_from=valid_from,
                bills=self.bills,
            )
        for field in ("name", "provider", "currency", "valid_from", "bills"):
            if getattr(self, field) is not None:
                raise InvalidInput(field, "stands in the document itself", hint="Leave it out beside YAML.")
        return parse(self.document)


def _given(field: str, value: T | None) -> T:
    if value is None:
        raise _missing(field)
    return value


def _missing(field: str) -> InvalidInput:
    return InvalidInput(field, "is missing", hint=f"CSV holds prices only: send {field} beside it.")


class RateCard(Shown):
    """One version, in force over [valid_from, valid_to). `skus`: how many things it has a price for."""

    id: UUID
    provider: str
    number: int
    name: str
    currency: str
    valid_from: datetime
    valid_to: datetime | None
    skus: int


@router.get("", operation_id="list_rate_cards")
def get_rate_cards(session: Transaction, query: Annotated[PageQuery, Query()]) -> Items[RateCard]:
    """Every version of every provider's prices."""
    found = list_rate_cards(session, query.page())
    return Items[RateCard].of([RateCard.model_validate(card) for card in found.items], found.next)


@router.post("", status_code=201, operation_id="import_rate_card")
def post_rate_card(wanted: RateCardWanted, session: Transaction) -> RateCard:
    """Make the document the provider's prices from its `valid_from` on; the same document twice changes nothing."""
    version = import_rate_card(session, wanted.parsed(), now=database_now(session))
    return RateCard.model_validate(rate_card_view(session, version))
