"""Quotes: a workload document in, ranked offers and the reasons for every site out."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Response
from pydantic import ConfigDict, Field

from broker.database import database_now
from broker.quote_views import preview_view, quote_view
from broker.quotes import get_quote, make_quote, preview
from web.api.schemas import Money, Shown, Strict
from web.endpoint import ServicesOf, Transaction

router = APIRouter(prefix="/quotes", tags=["quotes"])


class QuoteWanted(Strict):
    """A workload document: YAML or JSON text, or the table itself."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "document": {
                        "kind": "machine",
                        "name": "era5-trial",
                        "project": "climate",
                        "resources": {"cores": 8, "memory": "32 GiB"},
                        "image": "ubuntu-24.04",
                        "duration": "3 days",
                    }
                }
            ]
        }
    )

    document: str | dict[str, Any]


class QuoteQuery(Strict):
    """Whether the answer is kept."""

    preview: bool = Field(default=False, description="Only show what the answer would be; keep nothing.")


class Offer(Shown):
    """One offer. `total`, `hold` and `hourly` are for the whole workload; `lines` is what the total is made of."""

    rank: int
    site: str
    offer: str
    cores: int
    memory_mib: int
    disk_gib: int
    gpus: int
    total: Money
    hold: Money
    hourly: Money
    lines: list[dict[str, str]]


class Reason(Shown):
    """Why not: what was wanted, what there is, and what to change."""

    clause: str
    wanted: str
    offered: str
    hint: str


class Verdict(Shown):
    """What became of a site: the rank of its best offer, or the reasons why it has none."""

    site: str
    rank: int | None
    summary: str
    offers: int
    reasons: list[Reason]


class Quote(Shown):
    """A quote. A preview has no id and no times: it was not stored, and promises nothing."""

    id: UUID | None
    workload_id: UUID | None
    name: str
    project: str
    workload: dict[str, Any]
    made_at: datetime | None
    expires_at: datetime | None
    offers: list[Offer]
    verdicts: list[Verdict]
    eliminated: dict[str, int]
    relaxations: list[str]
    assumptions: dict[str, Any]
    catalogue_digest: str
    facts_digest: str


@router.post("", status_code=201, operation_id="make_quote")
def post_quote(
    wanted: QuoteWanted,
    session: Transaction,
    services: ServicesOf,
    *,
    query: Annotated[QuoteQuery, Query()],
    response: Response,
) -> Quote:
    """Rank the workload on every site. A preview answers 200."""
    now = database_now(session)
    if query.preview:
        response.status_code = 200
        made = preview(session, wanted.document, services.quoting, now=now)
        return Quote.model_validate(preview_view(made, services.quoting.assumptions))
    return Quote.model_validate(quote_view(session, make_quote(session, wanted.document, services.quoting, now=now)))


@router.get("/{quote_id}", operation_id="show_quote")
def show_quote(quote_id: UUID, session: Transaction) -> Quote:
    """A stored quote."""
    return Quote.model_validate(quote_view(session, get_quote(session, quote_id)))
