"""Grants: money of a project over a period."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import AwareDatetime, ConfigDict

from accounting.grant_views import grant_view, list_grants
from accounting.grants import create_grant
from broker.database import database_now
from broker.errors import InvalidInput
from broker.projects import project_named
from broker.values import Amount, Period
from web.api.schemas import Items, Money, PageQuery, Shown, Strict
from web.endpoint import Transaction

router = APIRouter(prefix="/grants", tags=["grants"])


class GrantWanted(Strict):
    """A grant over [starts_at, ends_at); it starts now where nothing else is said."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"project": "climate", "name": "era5", "amount": "1000 EUR", "ends_at": "2027-01-01T00:00:00Z"}
            ]
        }
    )

    project: str
    name: str
    amount: str
    starts_at: AwareDatetime | None = None
    ends_at: AwareDatetime


class GrantQuery(PageQuery):
    project: str | None = None


class Grant(Shown):
    """amount = spent + held + free. `position`: its place in the order in which a project's grants pay."""

    id: UUID
    project: str
    name: str
    position: int
    starts_at: datetime
    ends_at: datetime
    amount: Money
    spent: Money
    held: Money
    free: Money


@router.get("", operation_id="list_grants")
def get_grants(session: Transaction, query: Annotated[GrantQuery, Query()]) -> Items[Grant]:
    """The grants, or those of one project."""
    found = list_grants(session, query.page(), project=query.project)
    return Items[Grant].of([Grant.model_validate(grant) for grant in found.items], found.next)


@router.post("", status_code=201, operation_id="create_grant")
def post_grant(wanted: GrantWanted, session: Transaction) -> Grant:
    """Give a project money."""
    amount = Amount.parse(wanted.amount)
    starts_at = wanted.starts_at or database_now(session)
    if wanted.ends_at <= starts_at:
        raise InvalidInput("ends_at", "is not after the start", hint="Give the grant a later end.")
    project = project_named(session, wanted.project)
    period = Period(starts_at, wanted.ends_at)
    grant = create_grant(session, project.id, name=wanted.name, amount=amount, period=period)
    return Grant.model_validate(grant_view(session, grant))
