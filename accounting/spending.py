"""What a project has spent, holds, and uses right now: per grant, and per machine."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from accounting.charging import Prices
from accounting.histories import histories
from accounting.models.charges import Charge
from accounting.models.grants import Grant, MoneyHold
from accounting.models.ledger import Account, Balance
from broker.errors import NotFound, PriceUnknown
from broker.models.federation import Site
from broker.models.leases import Lease, LeaseState
from broker.models.people import Project
from broker.models.workloads import Order, WorkloadRow
from broker.values import Amount, Period, exact, utc


@dataclass(frozen=True, slots=True)
class GrantSpend:
    """One grant: ceiling = spent + held + free.

    Attributes:
        spent: what was charged.
        held: what is set aside for orders.
        accrued: the part of `held` that running machines have used already and that is not charged yet; None: a
            machine that this grant pays for has no known price.
    """

    name: str
    period: Period
    ceiling: Amount
    spent: Amount
    held: Amount
    accrued: Amount | None
    free: Amount


@dataclass(frozen=True, slots=True)
class LeaseSpend:
    """One machine: what was charged for it, and what it used since (None: its price is not known)."""

    lease_id: UUID
    workload: str
    machine: str
    site: str
    state: LeaseState
    charged: tuple[Amount, ...]
    accrued: tuple[Amount, ...] | None


@dataclass(frozen=True, slots=True)
class Spend:
    """A project's money at one moment. `overdraft`: charged beyond what was set aside, per currency."""

    project: str
    at: datetime
    grants: tuple[GrantSpend, ...]
    leases: tuple[LeaseSpend, ...]
    overdraft: tuple[Amount, ...]


Accrued = dict[UUID, tuple[Amount, ...] | None]


def spend(session: Session, project_id: UUID, *, now: datetime) -> Spend:
    """What the project spent, holds and uses at `now`; writes and locks nothing.

    Raises:
        NotFound: for an unknown project.
    """
    moment = utc(now, field="now")
    name = session.scalar(select(Project.name).where(Project.id == project_id))
    if name is None:
        raise NotFound(f"There is no project {project_id}.", project=str(project_id))
    accrued = _accrued(session, project_id, now=moment)
    return Spend(
        project=name,
        at=moment,
        grants=tuple(_grants(session, project_id, accrued)),
        leases=tuple(_leases(session, project_id, accrued)),
        overdraft=tuple(_overdraft(session, project_id)),
    )


def _accrued(session: Session, project_id: UUID, *, now: datetime) -> Accrued:
    """Per lease that is not settled, what it used and no posting has yet."""
    wanted = (
        select(Lease.id)
        .join(Order, Order.id == Lease.order_id)
        .where(Order.project_id == project_id, Lease.settled_at.is_(None))
    )
    prices = Prices(session)
    found: Accrued = {}
    for history in histories(session, session.scalars(wanted).all()):
        try:
            found[history.lease.id] = _sums(rated.cost for rated in prices.unposted(history, now=now))
        except PriceUnknown:
            found[history.lease.id] = None
    return found


def _sums(amounts: Iterable[Amount]) -> tuple[Amount, ...]:
    """One amount per commodity."""
    sums: dict[str, Amount] = {}
    for amount in amounts:
        code = amount.commodity.code
        sums[code] = sums[code] + amount if code in sums else amount
    return tuple(sums[code] for code in sorted(sums))


def _grants(session: Session, project_id: UUID, accrued: Accrued) -> list[GrantSpend]:
    rows = session.execute(
        select(Grant, Balance)
        .join(Balance, (Balance.account_id == Grant.account_id) & (Balance.commodity == Grant.commodity))
        .where(Grant.project_id == project_id)
        .order_by(Grant.position)
        .execution_options(populate_existing=True)
    )
    shares = _shares(session, project_id, accrued)
    found = []
    for grant, balance in rows:
        assert balance.ceiling is not None, "a grant's balance has a ceiling"
        with exact():
            free = balance.ceiling - balance.posted - balance.held
        share = shares.get(balance.id, Decimal(0))
        found.append(
            GrantSpend(
                name=grant.name,
                period=Period(grant.starts_at, grant.ends_at),
                ceiling=Amount.of(balance.ceiling, grant.commodity),
                spent=Amount.of(balance.posted, grant.commodity),
                held=Amount.of(balance.held, grant.commodity),
                accrued=None if share is None else Amount.of(share, grant.commodity),
                free=Amount.of(free, grant.commodity),
            )
        )
    return found


def _shares(session: Session, project_id: UUID, accrued: Accrued) -> dict[UUID, Decimal | None]:
    """Per balance, what of its holds is used up but not posted: taken in the grants' order, as a charge would be.

    None where an order that it pays for has a machine without a known price.
    """
    orders: dict[UUID, list[tuple[Amount, ...] | None]] = defaultdict(list)
    for lease_id, order_id in session.execute(select(Lease.id, Lease.order_id).where(Lease.id.in_(accrued))):
        orders[order_id].append(accrued[lease_id])
    holds = session.execute(
        select(MoneyHold.order_id, MoneyHold.balance_id, MoneyHold.remaining, Balance.commodity)
        .join(Balance, Balance.id == MoneyHold.balance_id)
        .join(Grant, Grant.account_id == Balance.account_id)
        .where(Grant.project_id == project_id, MoneyHold.released_at.is_(None))
        .order_by(MoneyHold.order_id, Grant.position)
    )
    left = {
        (order_id, amount.commodity.code): amount.value
        for order_id, parts in orders.items()
        for amount in _sums(amount for part in parts if part is not None for amount in part)
    }
    shares: dict[UUID, Decimal | None] = {}
    for order_id, balance_id, remaining, commodity in holds:
        if None in orders.get(order_id, ()):
            shares[balance_id] = None
            continue
        part = min(remaining, left.get((order_id, commodity), Decimal(0)))
        with exact():
            left[order_id, commodity] = left.get((order_id, commodity), Decimal(0)) - part
            before = shares.get(balance_id, Decimal(0))
            shares[balance_id] = None if before is None else before + part
    return shares


def _leases(session: Session, project_id: UUID, accrued: Accrued) -> list[LeaseSpend]:
    charged: dict[UUID, list[Amount]] = defaultdict(list)
    for lease_id, currency, cost in session.execute(
        select(Charge.lease_id, Charge.billing_currency, func.sum(Charge.billed_cost))
        .where(Charge.project_id == project_id)
        .group_by(Charge.lease_id, Charge.billing_currency)
        .order_by(Charge.billing_currency)
    ):
        charged[lease_id].append(Amount.of(cost, currency))
    rows = session.execute(
        select(Lease, WorkloadRow.name, Site.name)
        .join(Order, Order.id == Lease.order_id)
        .join(WorkloadRow, WorkloadRow.id == Order.workload_id)
        .join(Site, Site.id == Lease.site_id)
        .where(Order.project_id == project_id)
        .order_by(Lease.made_at, Lease.id)
    )
    return [
        LeaseSpend(
            lease_id=lease.id,
            workload=workload,
            machine=str(lease.spec["name"]),
            site=site,
            state=lease.state,
            charged=tuple(charged[lease.id]),
            accrued=accrued.get(lease.id, ()),
        )
        for lease, workload, site in rows
    ]


def _overdraft(session: Session, project_id: UUID) -> Sequence[Amount]:
    rows = session.execute(
        select(Balance.commodity, Balance.posted)
        .join(Account, Account.id == Balance.account_id)
        .where(Account.key == f"overdraft:{project_id}", Balance.posted != 0)
        .order_by(Balance.commodity)
    )
    return [Amount.of(value, code) for code, value in rows]
