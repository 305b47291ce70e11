"""One lease's money: what was seen -> segments -> charges -> postings -> the hold given back.

Level-triggered and idempotent: whatever was left undone is done by the next call, and a call with nothing to do writes
nothing. What closed and was charged is never altered; only what comes after it may be. So calls at any moments come to
the same as one call at the end, unless a site says later that a state began before a listing saw another one.

The hold of the order pays, grant by grant in their order; it is sized by the quote to last for the whole window and the
stop after it (rate x time, see `policies`), so a charge beyond it is an exception: it has happened all the same, goes
to the project's overdraft account, and a person is told. While a machine runs nothing is posted until a cut.

Each charge is rounded to nine decimals by itself: against one unrounded total, a lease's charges may differ by at most
half a billionth per charge. Meters with a minimum, an increment or tiers see each segment as a use of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import Enum, auto
from uuid import UUID

from sqlalchemy import and_, exists, func, select, update
from sqlalchemy.orm import Session

from accounting.charging import Accounts, Prices, post_charge, resolve_unknown
from accounting.corrections import post_correction
from accounting.histories import History, histories, use_of
from accounting.holds import GrantLedger
from accounting.ledger import account, lock_balances
from accounting.metering import Use
from accounting.models.charges import Segment
from accounting.models.grants import Grant, MoneyHold
from accounting.models.ledger import AccountKind, Balance
from broker.errors import NotFound
from broker.extensions import HOLD_REFUSED
from broker.models.catalogue import RateCardVersion
from broker.models.holds import QuotaHold
from broker.models.leases import OPEN, LaunchAttempt, Lease, LeaseState, Observation, Outcome
from broker.models.workloads import Order, OrderState
from broker.timeline import close_finding, tell_order
from broker.values import Amount, utc

_UNRESOLVED = (*OPEN, Outcome.DISCARD)


@dataclass(frozen=True, slots=True)
class Settlement:
    """What a call did: segments it charged, whether the lease has nothing left to do, whether its order is over."""

    charged: int
    is_settled: bool
    order_is_over: bool


def settle(session: Session, lease_id: UUID, *, now: datetime) -> Settlement:
    """Bring a lease's segments, charges and postings up to what is known, and close its books when it is over.

    Call it in a transaction that holds no lock on the order or the lease yet: it locks the project's grant balances,
    then the order, then the lease.

    Raises:
        NotFound: for an unknown lease.
    """
    moment = utc(now, field="now")
    idle = _glance(session, lease_id)
    if idle is not None:
        return idle
    history = histories(session, [lease_id])[0]
    todo = _todo(session, history)
    if todo is _Todo.NOTHING:
        return _settlement(history, 0)
    if todo is _Todo.SEGMENTS:
        _lock_lease(session, lease_id)
        history = histories(session, [lease_id])[0]
        # What closed in this very moment is charged by the call that follows its sighting.
        _write_segments(session, history)
        return _settlement(history, 0)
    accounts = _lock(session, history)
    history = histories(session, [lease_id])[0]
    return _settlement(history, _settle(session, history, accounts, now=moment))


def _settle(session: Session, history: History, accounts: Accounts, *, now: datetime) -> int:
    """All of it, under all locks; returns how many segments were charged."""
    closed = _write_segments(session, history)
    prices = Prices(session)
    charged = sum(post_charge(prices, history, segment, accounts=accounts, now=now) for segment in closed)
    for segment, until in history.corrections():
        post_correction(prices, history, segment, until, accounts=accounts, now=now)
    if charged < len(closed):
        _reopen(history.lease, now=now)
    else:
        resolve_unknown(session, history.lease, now=now)
        if history.lease.settled_at is None and _is_over(session, history.lease):
            _finish_lease(session, history.lease, now=now)
    if _order_is_done(session, history.order):
        _finish_order(session, history.order, now=now)
    session.flush()
    return charged


def _settlement(history: History, charged: int) -> Settlement:
    is_over = history.order.state is OrderState.OVER
    return Settlement(charged, is_settled=history.lease.settled_at is not None, order_is_over=is_over)


# --- what is to do: read without locks first, so that a call with nothing to do costs no one anything -----------------


class _Todo(Enum):
    """What a call has to do, and so what it must lock: nothing, the lease, or balances, order and lease."""

    NOTHING = auto()
    SEGMENTS = auto()
    MONEY = auto()


def _glance(session: Session, lease_id: UUID) -> Settlement | None:
    """One query for the two commonest cases of nothing to do: not seen yet, and over."""
    is_seen = exists().where(Observation.lease_id == lease_id)
    ends = (LeaseState.SNAPSHOT, LeaseState.GONE)
    has_word = exists().where(Observation.lease_id == lease_id, Observation.state.in_(ends), ~Observation.is_estimated)
    # An end that was charged as an estimate may be corrected at any time.
    was_estimated = and_(has_word, exists().where(Segment.lease_id == lease_id, Segment.is_estimated))
    row = session.execute(
        select(Lease.gone_at, Lease.settled_at, Order.state, is_seen, was_estimated)
        .join(Order, Order.id == Lease.order_id)
        .where(Lease.id == lease_id)
    ).one_or_none()
    if row is None:
        raise NotFound(f"There is no lease {lease_id}.", lease=str(lease_id))
    gone_at, settled_at, state, was_seen, may_be_corrected = row
    if gone_at is None and not was_seen:
        return Settlement(0, is_settled=False, order_is_over=False)
    if settled_at is not None and state is OrderState.OVER and not may_be_corrected:
        return Settlement(0, is_settled=True, order_is_over=True)
    return None


def _todo(session: Session, history: History) -> _Todo:
    uses = history.uses()
    if any(use.ends_at is not None for use in uses) or history.corrections():
        return _Todo.MONEY
    if history.lease.settled_at is None and _is_over(session, history.lease):
        return _Todo.MONEY
    if _order_is_done(session, history.order):
        return _Todo.MONEY
    return _Todo.NOTHING if uses == [use_of(segment) for segment in history.uncharged] else _Todo.SEGMENTS


def _is_over(session: Session, lease: Lease) -> bool:
    """Gone, and no attempt may still turn out to have made something."""
    if lease.gone_at is None:
        return False
    unresolved = exists().where(LaunchAttempt.lease_id == lease.id, LaunchAttempt.outcome.in_(_UNRESOLVED))
    return not session.scalars(select(unresolved)).one()


def _order_is_done(session: Session, order: Order) -> bool:
    """All its leases are settled, and that has not been acted upon yet.

    A lease for the next offer is made in the transaction that ends the former one, so that none is missed here.
    """
    open_leases = exists().where(Lease.order_id == order.id, Lease.settled_at.is_(None))
    if session.scalars(select(open_leases)).one():
        return False
    open_holds = exists().where(MoneyHold.order_id == order.id, MoneyHold.released_at.is_(None))
    has_holds = session.scalars(select(open_holds)).one()
    return has_holds or order.state not in (OrderState.OVER, OrderState.RETURNED)


# --- locks: grant balances by id, order, lease --------------------------------------------------------------------


def _lock(session: Session, history: History) -> Accounts:
    order, provider = history.order, history.provider
    accounts = Accounts(
        account(session, AccountKind.PROVIDER, key=f"provider:{provider.id}", title=provider.title),
        account(
            session,
            AccountKind.OVERDRAFT,
            key=f"overdraft:{order.project_id}",
            title=history.lease.project[:100] + ": beyond what was set aside",
        ),
    )
    grants = session.execute(select(Grant.account_id, Grant.commodity).where(Grant.project_id == order.project_id))
    currencies = session.scalars(
        select(RateCardVersion.currency).where(RateCardVersion.provider_id == provider.id).distinct()
    )
    both = (accounts.provider_id, accounts.overdraft_id)
    lock_balances(session, {*grants, *((account_id, code) for code in currencies for account_id in both)})
    session.execute(select(Order.id).where(Order.id == order.id).with_for_update(key_share=True))
    _lock_lease(session, history.lease.id)
    return accounts


def _lock_lease(session: Session, lease_id: UUID) -> None:
    """NO KEY: whoever adds a row that points here (an observation, say) need not wait."""
    session.execute(select(Lease.id).where(Lease.id == lease_id).with_for_update(key_share=True))


# --- segments -----------------------------------------------------------------------------------------------------


def _write_segments(session: Session, history: History) -> list[Segment]:
    """Make the uncharged segments what they should be; returns those of them that are closed."""
    rows = {segment.starts_at: segment for segment in history.uncharged}
    uses = {use.starts_at: use for use in history.uses()}
    # In this order, each flushed, no two segments overlap at any moment.
    for starts_at in rows.keys() - uses.keys():
        session.delete(rows.pop(starts_at))
    session.flush()
    for starts_at, row in rows.items():
        use = uses[starts_at]
        row.ends_at, row.state, row.sku = use.ends_at, use.state, use.sku
        row.rate_card_version_id, row.is_estimated, row.size_gib = use.version_id, use.is_estimated, use.size_gib
    session.flush()
    for starts_at in sorted(uses.keys() - rows.keys()):
        rows[starts_at] = _row(history.lease, uses[starts_at])
        session.add(rows[starts_at])
    session.flush()
    return [row for _, row in sorted(rows.items()) if row.ends_at is not None]


def _row(lease: Lease, use: Use) -> Segment:
    return Segment(
        lease_id=lease.id,
        starts_at=use.starts_at,
        ends_at=use.ends_at,
        state=use.state,
        sku=use.sku,
        rate_card_version_id=use.version_id,
        is_estimated=use.is_estimated,
        size_gib=use.size_gib,
    )


# --- endings ------------------------------------------------------------------------------------------------------


def _reopen(lease: Lease, *, now: datetime) -> None:
    """It was settled, and use that came to light cannot be charged yet: it is offered to accounting again."""
    if lease.settled_at is not None:
        lease.settled_at, lease.next_look_at = None, now


def _finish_lease(session: Session, lease: Lease, *, now: datetime) -> None:
    lease.settled_at, lease.next_look_at = now, None  # nothing is left to look at
    session.execute(
        update(QuotaHold).where(QuotaHold.lease_id == lease.id, QuotaHold.released_at.is_(None)).values(released_at=now)
    )
    session.flush()


def _finish_order(session: Session, order: Order, *, now: datetime) -> None:
    """Give back what is left. An order that was returned to its person stays so: what comes next is theirs to say."""
    back = _left(session, order)
    GrantLedger().release(session, order.id, now=now)
    if order.state not in (OrderState.OVER, OrderState.RETURNED):
        order.state, order.ended_at = OrderState.OVER, now
    tell_order(session, order, "settled", f"all is charged; given back: {back}")
    close_finding(session, HOLD_REFUSED, str(order.id))


def _left(session: Session, order: Order) -> str:
    rows = session.execute(
        select(Balance.commodity, func.sum(MoneyHold.remaining))
        .join(Balance, Balance.id == MoneyHold.balance_id)
        .where(MoneyHold.order_id == order.id, MoneyHold.released_at.is_(None))
        .group_by(Balance.commodity)
        .order_by(Balance.commodity)
    )
    return ", ".join(str(Amount.of(value, code)) for code, value in rows) or "nothing"
