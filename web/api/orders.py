"""Orders: a quote's offer, bought."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Header
from pydantic import AwareDatetime, ConfigDict, Field

from broker.database import database_now
from broker.extensions import extend_order
from broker.orders import Choice, place_order
from web.api.schemas import Strict
from web.api.workloads import Workload, in_detail
from web.endpoint import ACTOR, ServicesOf

router = APIRouter(prefix="/orders", tags=["orders"])


class OrderWanted(Strict):
    """Which quote, and which of its offers."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"quote_id": "01938e5a-7f3e-7c4a-9d2b-5a1c3e7f9b2d", "rank": 1}]}
    )

    quote_id: UUID
    rank: int = Field(1, ge=1, description="1 is the quote's first offer.")


class Extension(Strict):
    """Until when an order is to last."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"until": "2026-12-24T12:00:00Z"}]})

    until: AwareDatetime = Field(description="The new end, for all machines; later than the present one.")


@router.post("", status_code=201, operation_id="place_order")
def post_order(
    wanted: OrderWanted,
    services: ServicesOf,
    idempotency_key: Annotated[
        str | None, Header(min_length=1, max_length=200, description="Sent again with the same key: the same order.")
    ] = None,
) -> Workload:
    """Place an order: money and quota are set aside and a worker is woken, or nothing happens."""
    with services.sessions.begin() as session:
        order = place_order(
            session,
            Choice(wanted.quote_id, wanted.rank, idempotency_key),
            ledger=services.ledger,
            jobs=services.jobs,
            actor=ACTOR,
            now=database_now(session),
        )
    with services.sessions() as session:  # quota and grant are free for the next order while the answer is put together
        return in_detail(session, order.id)


@router.post("/{order_id}/extend", operation_id="extend_order")
def post_extension(order_id: UUID, wanted: Extension, services: ServicesOf) -> Workload:
    """Give an order a later end: the money is set aside at today's prices, or nothing happens. Twice is once."""
    with services.sessions.begin() as session:
        now = database_now(session)
        extend_order(session, order_id, wanted.until, services.funding, actor=ACTOR, now=now)
    with services.sessions() as session:
        return in_detail(session, order_id)
