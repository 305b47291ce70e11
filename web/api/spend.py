"""What projects spent, hold and use right now."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query
from sqlalchemy.orm import Session

from accounting.spending import spend
from broker.database import database_now
from broker.models.leases import LeaseState
from broker.projects import list_projects, project_named
from web.api.schemas import Items, Money, PageQuery, Shown
from web.endpoint import Transaction

router = APIRouter(prefix="/spend", tags=["spend"])


class SpendQuery(PageQuery):
    project: str | None = None


class GrantLine(Shown):
    """ceiling = spent + held + free. `accrued`: the part of `held` that is used up; null where a price is missing."""

    name: str
    starts_at: datetime
    ends_at: datetime
    ceiling: Money
    spent: Money
    held: Money
    accrued: Money | None
    free: Money


class WorkloadLine(Shown):
    """One machine. `accrued`: used and not charged yet; null where a price is missing."""

    workload: str
    machine: str
    lease_id: UUID
    site: str
    state: LeaseState
    charged: list[Money]
    accrued: list[Money] | None


class ProjectSpend(Shown):
    """A project's money at one moment. `overdraft`: charged beyond what was set aside."""

    project: str
    at: datetime
    grants: list[GrantLine]
    workloads: list[WorkloadLine]
    overdraft: list[Money]


@router.get("", operation_id="show_spend")
def get_spend(session: Transaction, query: Annotated[SpendQuery, Query()]) -> Items[ProjectSpend]:
    """Every project, or one."""
    now = database_now(session)
    if query.project is not None:
        return Items[ProjectSpend].of([_project(session, project_named(session, query.project).id, now)], None)
    found = list_projects(session, query.page())
    return Items[ProjectSpend].of([_project(session, project.id, now) for project in found.items], found.next)


def _project(session: Session, project_id: UUID, now: datetime) -> ProjectSpend:
    found = spend(session, project_id, now=now)
    return ProjectSpend(
        project=found.project,
        at=found.at,
        grants=[
            GrantLine(
                name=grant.name,
                starts_at=grant.period.start,
                ends_at=grant.period.end,
                ceiling=grant.ceiling,
                spent=grant.spent,
                held=grant.held,
                accrued=grant.accrued,
                free=grant.free,
            )
            for grant in found.grants
        ],
        workloads=[WorkloadLine.model_validate(line) for line in found.leases],
        overdraft=list(found.overdraft),
    )
