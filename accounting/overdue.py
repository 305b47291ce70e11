"""Money and quota that are set aside for what is over."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from accounting.models.grants import MoneyHold
from accounting.models.ledger import Balance
from broker.models.holds import QuotaHold
from broker.models.leases import Lease
from broker.models.workloads import Order, OrderState, WorkloadRow
from broker.overdue import MOST, Overdue, Patience, machine_name
from broker.values import Amount


def overdue_holds(session: Session, patience: Patience, now: datetime) -> Iterator[Overdue]:
    """Holds that nothing is left for. Each keeps others from what is free."""
    holds = session.execute(
        select(WorkloadRow.name, Order.id, Order.ended_at, Balance.commodity, func.sum(MoneyHold.remaining))
        .join(Order, Order.id == MoneyHold.order_id)
        .join(Balance, Balance.id == MoneyHold.balance_id)
        .join(WorkloadRow, WorkloadRow.id == Order.workload_id)
        .where(MoneyHold.released_at.is_(None), Order.state == OrderState.OVER, Order.ended_at < now - patience.settle)
        .group_by(WorkloadRow.name, Order.id, Balance.commodity)
        .order_by(Order.ended_at)
        .limit(MOST)
    )
    for name, order_id, since, commodity, remaining in holds:
        yield Overdue(
            "hold",
            f"{Amount.of(remaining, commodity)} set aside for order {name}",
            since,
            "the order is over",
            f"This should not happen: please report it, with `leeway show {order_id}`.",
        )
    leases = session.execute(
        select(machine_name(), Lease.settled_at)
        .join(QuotaHold, QuotaHold.lease_id == Lease.id)
        .where(QuotaHold.released_at.is_(None), Lease.settled_at < now - patience.settle)
        .group_by(Lease.id)
        .order_by(Lease.settled_at)
        .limit(MOST)
    )
    for thing, since in leases:
        yield Overdue("hold", f"quota set aside for {thing}", since, "it is over", "This should not happen: report it.")
