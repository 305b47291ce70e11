"""What has not moved for longer than it should, and why."""

from __future__ import annotations

from datetime import datetime

from fastapi import APIRouter

from broker.database import database_now
from web.api.schemas import Items, Shown
from web.endpoint import ServicesOf, Transaction
from web.overdue import find_overdue

router = APIRouter(prefix="/overdue", tags=["overdue"])


class OverdueThing(Shown):
    """One thing that does not move: what, since when (null: nobody wrote that down), why, and what to do."""

    kind: str
    thing: str
    since: datetime | None
    why: str
    hint: str


@router.get("", operation_id="list_overdue")
def get_overdue(session: Transaction, services: ServicesOf) -> Items[OverdueThing]:
    """All of it on one page, causes first: at most twenty of a kind. Empty where all is well."""
    found = find_overdue(session, services.settings, database_now(session))
    return Items[OverdueThing].of([OverdueThing.model_validate(thing) for thing in found], None)
