"""What the rows of one project and its sites say, summed up: to be compared with plain arithmetic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from accounting.ledger import Difference, verify
from accounting.models.grants import Grant
from accounting.models.ledger import Account, Balance
from broker.models.holds import QuotaHold, QuotaPool
from broker.models.leases import Lease
from broker.models.workloads import Order, OrderState

RESOURCES = ("instances", "cores", "memory_mib")
STATES = {
    OrderState.PLACED: "going on",
    OrderState.ACTIVE: "going on",
    OrderState.RETURNED: "returned",
    OrderState.STOPPING: "stopping",
    OrderState.OVER: "over",
}

Pools = dict[tuple[str, str], Decimal]


@dataclass(frozen=True)
class Counted:
    """The sums. Pools go by site and resource; a machine is (gone, settled)."""

    posted: Decimal
    held: Decimal
    ceiling: Decimal
    overdraft: Decimal
    over_committed: Sequence[UUID]
    differences: Sequence[Difference]
    used: Pools
    free: Pools
    taken: Pools
    orders: dict[UUID, str]
    machines: dict[UUID, tuple[bool, bool]]


def count_up(session: Session, project_id: UUID, sites: Mapping[UUID, str]) -> Counted:
    """All of a project, and of the quota of these sites."""
    balances = session.scalars(
        select(Balance).join(Grant, Grant.account_id == Balance.account_id).where(Grant.project_id == project_id)
    ).all()
    overdraft = session.scalar(
        select(Balance.posted)
        .join(Account, Account.id == Balance.account_id)
        .where(Account.key == f"overdraft:{project_id}")
    )
    ceilings = {balance.id: balance.ceiling or Decimal(0) for balance in balances}
    used, free, taken = _pools(session, sites)
    orders = session.scalars(select(Order).where(Order.project_id == project_id))
    leases = session.execute(
        select(Lease.id, Lease.gone_at, Lease.settled_at)
        .join(Order, Order.id == Lease.order_id)
        .where(Order.project_id == project_id)
    )
    return Counted(
        posted=sum((balance.posted for balance in balances), Decimal(0)),
        held=sum((balance.held for balance in balances), Decimal(0)),
        ceiling=sum(ceilings.values(), Decimal(0)),
        overdraft=overdraft or Decimal(0),
        over_committed=[one.id for one in balances if one.posted + one.held > ceilings[one.id]],
        differences=verify(session),
        used=used,
        free=free,
        taken=taken,
        orders={order.id: STATES[order.state] for order in orders},
        machines={lease: (gone is not None, settled is not None) for lease, gone, settled in leases},
    )


def _pools(session: Session, sites: Mapping[UUID, str]) -> tuple[Pools, Pools, Pools]:
    """What the listings say is used, what is free, and what all open holds take."""
    holds = session.scalars(
        select(QuotaHold).join(QuotaPool).where(QuotaHold.released_at.is_(None), QuotaPool.site_id.in_(sites))
    ).all()
    used, free, taken = {}, {}, {}
    for pool in session.scalars(
        select(QuotaPool).where(QuotaPool.site_id.in_(sites), QuotaPool.resource.in_(RESOURCES))
    ):
        assert pool.quota is not None
        key = sites[pool.site_id], pool.resource
        mine = [hold for hold in holds if hold.pool_id == pool.id]
        unseen = sum((hold.amount for hold in mine if hold.counted_at is None), Decimal(0))
        used[key], free[key] = pool.used, pool.quota - pool.used - unseen
        taken[key] = sum((hold.amount for hold in mine), Decimal(0))
    return used, free, taken
