"""Grants: made here, with the account and balance whose ceiling is their amount, and told to placement (`Facts`)."""

from __future__ import annotations

import hashlib
import json
from datetime import datetime
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from accounting.models.grants import Grant
from accounting.models.ledger import Account, AccountKind, Balance
from broker.errors import Conflict, InvalidInput, NotFound
from broker.models.people import Project
from broker.placement import PlacementFacts
from broker.values import Amount, Commodity, Period, new_id, plain, utc

# A money column keeps 28 digits, nine of them decimals.
_LARGEST = 10**19
_LONGEST_NAME = 200


def create_grant(
    session: Session, project_id: UUID, *, name: str, amount: Amount, period: Period, position: int | None = None
) -> Grant:
    """Give a project money over a period; `position` is its place in the order of use, by default the last.

    Raises:
        NotFound: for an unknown project.
        InvalidInput: for an empty name or period, an amount that is not positive or that no money column holds.
        Conflict: where the project has a grant of that name or position.
    """
    _check(name, amount, period)
    # The lock makes "the last position" and "no other of that name" hold until the commit.
    project = session.scalar(select(Project).where(Project.id == project_id).with_for_update(key_share=True))
    if project is None:
        raise NotFound(f"There is no project {project_id}.", project=str(project_id))
    taken = {grant.name: grant.position for grant in session.scalars(select(Grant).filter_by(project_id=project_id))}
    if name in taken:
        raise Conflict(f"Project {project.name} has a grant {name} already.", hint="Choose another name.")
    if position in taken.values():
        raise Conflict(
            f"Project {project.name} has a grant at position {position} already.",
            hint=f"Leave the position out for the last, {max(taken.values()) + 1}.",
        )
    if position is None:
        position = max(taken.values(), default=0) + 1
    grant_id = new_id()
    account = Account(kind=AccountKind.GRANT, key=f"grant:{grant_id}", title=f"{project.name}: {name}"[:_LONGEST_NAME])
    session.add(account)
    session.flush()
    grant = Grant(
        id=grant_id,
        project_id=project_id,
        name=name,
        account_id=account.id,
        commodity=amount.commodity.code,
        position=position,
        starts_at=utc(period.start),
        ends_at=utc(period.end),
    )
    session.add_all(
        (grant, Balance(account_id=account.id, commodity=amount.commodity.code, ceiling=amount.value)),
    )
    session.flush()
    return grant


def _check(name: str, amount: Amount, period: Period) -> None:
    if not name.strip() or len(name) > _LONGEST_NAME:
        raise InvalidInput("name", f"a grant's name has 1 to {_LONGEST_NAME} characters")
    if amount.value <= 0:
        raise InvalidInput(
            "amount",
            f"{plain(amount.value)} {amount.commodity} is not more than nothing",
            hint="Write it like 100 EUR.",
        )
    if amount.value >= _LARGEST:
        raise InvalidInput("amount", f"{plain(amount.value)} {amount.commodity} is more than can be kept")
    if amount.stored() != amount:
        raise InvalidInput("amount", f"{plain(amount.value)} {amount.commodity} has more than nine decimals")
    if period.is_empty:
        raise InvalidInput("period", "the grant ends when it starts", hint="Give it a later end.")


class GrantFacts:
    """What accounting tells placement. Implements `broker.ports.Facts`; keeps nothing between calls."""

    def for_project(self, session: Session, project_id: UUID, *, now: datetime) -> PlacementFacts:
        """What is free on the grants that are open at `now`, per commodity (zero included); the digest is of it all.

        A grant that ends before the workload would is counted here and refused by the hold, which knows the end.

        Raises:
            NotFound: for an unknown project.
        """
        moment = utc(now, field="now")
        name = session.scalar(select(Project.name).where(Project.id == project_id))
        if name is None:
            raise NotFound(f"There is no project {project_id}.", project=str(project_id))
        rows = session.execute(
            select(Grant.commodity, func.sum(Balance.ceiling - Balance.posted - Balance.held))
            .join(Balance, (Balance.account_id == Grant.account_id) & (Balance.commodity == Grant.commodity))
            .where(Grant.project_id == project_id, Grant.starts_at <= moment, moment < Grant.ends_at)
            .group_by(Grant.commodity)
            .order_by(Grant.commodity)
        )
        free = {Commodity(code): Amount.of(value, code) for code, value in rows if value is not None}
        content = {"project": name, "free": {code.code: plain(amount.value) for code, amount in free.items()}}
        digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
        return PlacementFacts(project=name, free=free, digest=digest)
