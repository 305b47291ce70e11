"""Findings: what a person should look at."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import Field

from broker.site_views import list_findings, sum_findings
from web.api.schemas import Items, Money, PageQuery, Shown, Strict
from web.endpoint import Transaction

router = APIRouter(prefix="/findings", tags=["findings"])


class Finding(Shown):
    """What is wrong, what to do, and what it costs per day (null: not known)."""

    id: UUID
    kind: str
    text: str
    hint: str
    site: str | None
    lease_id: UUID | None
    per_day: Money | None
    first_seen_at: datetime
    last_seen_at: datetime


class FindingSum(Shown):
    """The findings of a kind at a site. `per_day`: of those whose price is known; `unknown` counts the others."""

    kind: str
    site: str | None
    count: int
    per_day: list[Money]
    unknown: int


class FindingSums(Shown):
    """All open findings. `first`: what went wrong, then what is dear, the dearest first."""

    count: int
    per_day: list[Money]
    unknown: int
    sums: list[FindingSum]
    first: list[Finding]


class MostQuery(Strict):
    most: int = Field(20, ge=0, le=200, description="At most so many in `first`.")


@router.get("/summary", operation_id="sum_findings")
def get_sums(session: Transaction, query: Annotated[MostQuery, Query()]) -> FindingSums:
    """The open findings added up by kind and site, with what they cost per day, and the first ones to look at."""
    return FindingSums.model_validate(sum_findings(session, most=query.most))


@router.get("", operation_id="list_findings")
def get_findings(session: Transaction, query: Annotated[PageQuery, Query()]) -> Items[Finding]:
    """The open findings, newest first."""
    found = list_findings(session, query.page())
    return Items[Finding].of([Finding.model_validate(finding) for finding in found.items], found.next)
