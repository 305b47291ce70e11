"""Grants with their balances, as people are shown them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from accounting.models.grants import Grant
from accounting.models.ledger import Balance
from broker.models.people import Project
from broker.paging import Listed, Page, rows_of
from broker.values import Amount


@dataclass(frozen=True, slots=True)
class GrantView:
    """A grant over [starts_at, ends_at): amount = spent + held + free. `position`: its place in the order of use."""

    id: UUID
    project: str
    name: str
    position: int
    starts_at: datetime
    ends_at: datetime
    amount: Amount
    spent: Amount
    held: Amount
    free: Amount


def list_grants(session: Session, page: Page, *, project: str | None = None) -> Listed[GrantView]:
    """Every grant, or those of one project."""
    statement = (
        select(Grant, Balance, Project.name)
        .join(Project, Project.id == Grant.project_id)
        .join(Balance, (Balance.account_id == Grant.account_id) & (Balance.commodity == Grant.commodity))
    )
    if project is not None:
        statement = statement.where(Project.name == project)
    views = [_view(*row) for row in rows_of(session, statement, Grant.id, page)]
    return Listed.cut(views, page, lambda view: view.id)


def grant_view(session: Session, grant: Grant) -> GrantView:
    """One grant."""
    balance = session.scalars(
        select(Balance).where(Balance.account_id == grant.account_id, Balance.commodity == grant.commodity)
    ).one()
    project = session.get_one(Project, grant.project_id)
    return _view(grant, balance, project.name)


def _view(grant: Grant, balance: Balance, project: str) -> GrantView:
    assert balance.ceiling is not None, "a grant's balance has a ceiling"
    amount = Amount.of(balance.ceiling, grant.commodity)
    spent, held = Amount.of(balance.posted, grant.commodity), Amount.of(balance.held, grant.commodity)
    return GrantView(
        id=grant.id,
        project=project,
        name=grant.name,
        position=grant.position,
        starts_at=grant.starts_at,
        ends_at=grant.ends_at,
        amount=amount,
        spent=spent,
        held=held,
        free=amount - spent - held,
    )
