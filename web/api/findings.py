"""Findings: what a person should look at."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query

from broker.site_views import list_findings
from web.api.schemas import Items, Money, PageQuery, Shown
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


@router.get("", operation_id="list_findings")
def get_findings(session: Transaction, query: Annotated[PageQuery, Query()]) -> Items[Finding]:
    """The open findings, newest first."""
    found = list_findings(session, query.page())
    return Items[Finding].of([Finding.model_validate(finding) for finding in found.items], found.next)
