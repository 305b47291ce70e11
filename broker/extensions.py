"""A longer end for an order, and money for its next window: what makes an order last.

Both reckon the order's whole hold anew and change it in the transaction that moves the dates; both wake the leases, so
that a stop ladder that has begun is undone. Lock order: grant balances by id, order, leases by id; all that counts is
read under these locks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import String, and_, cast, exists, func, select
from sqlalchemy.orm import Session

from broker.errors import GrantExhausted, InvalidInput, NotFound, PriceUnknown, RateMissing, Rejected
from broker.kept import no_machine_left
from broker.models.audit import Event, Finding
from broker.models.leases import ENDING, Lease
from broker.models.workloads import Order, WorkloadRow
from broker.orders import GOING_ON, RECONCILE, ROW, live_leases
from broker.ports import Jobs, Ledger
from broker.reckoning import Rates, runs_of, use_of, whole_hold
from broker.restored import refuse_while_observing
from broker.timeline import Concern, close_finding, raise_finding, tell_order
from broker.values import Period, utc
from broker.workloads import MAX_DURATION

# Task that gives an order the money for its next window, and for how many at once.
ROLL = "roll"
MOST = 500
# The money for the next window could not be set aside. Its key is the order's id.
HOLD_REFUSED = "hold_refused"
_OFF = (
    "Add a grant, or stop something else: Leeway tries again by itself. Else the machines are powered off at that time "
    "and deleted after the stop delay; until they are deleted, money brings them back."
)
_OVER = (
    "Add a grant, or stop something else: Leeway tries again by itself. It was adopted, so it stays where it is: from "
    "that time on it is charged to the project's overdraft account, until that ends (`leeway stop`)."
)
# An event that says which end an order was given.
EXTENDED = "extended"


@dataclass(frozen=True, slots=True)
class Funding:
    """What an order is given money with. `window`: the longest time that is set aside for at once."""

    ledger: Ledger
    jobs: Jobs
    window: timedelta


# --- a later end -------------------------------------------------------------------------------------------------


def extend_order(
    session: Session, order_id: UUID, until: datetime, funding: Funding, *, actor: str, now: datetime
) -> Order:
    """Give an order a later end: its machines run until `until`, and the money for that is held, at today's prices.

    Also where the order's end has come and its machines are off but not deleted: they come back. The same `until` twice
    is fine.

    Raises:
        NotFound: no such order.
        Conflict: it is over or ending, and nothing of it can be kept; or Leeway only observes.
        InvalidInput: `until` is not later, or too late.
        GrantExhausted, RateMissing, PriceUnknown: the money cannot be set aside; nothing has changed.
    """
    refuse_while_observing(session)
    end = utc(until, field="until")
    order, leases = _lock(session, order_id, funding.ledger)
    kept = _kept(leases)
    if order.state not in GOING_ON or not kept:
        why = f"the order is {order.state}, with no machine to keep"
        raise no_machine_left(session, order.id, otherwise=why)
    old = max(lease.ends_at for lease in kept)
    if end == old or _was_extended_to(session, order, end):
        return order
    _check(order, old, end, is_adopted=kept[0].adopted_at is not None, now=now)
    reach = max(now + funding.window, order.held_until or old)
    held_until = None if end <= reach else reach
    held = _hold(session, order, leases, held_until or end, ledger=funding.ledger, now=now)
    order.duration += end - old
    order.held_until = held_until
    for lease in kept:
        lease.ends_at = end
    tell_order(
        session,
        order,
        EXTENDED,
        f"extended from {_moment(old)} to {_moment(end)}; {held} set aside in all, until {_moment(held_until or end)}",
        actor=actor,
        until=end.isoformat(),
    )
    close_finding(session, HOLD_REFUSED, str(order.id))
    _wake(session, kept, funding.jobs)
    return order


def _check(order: Order, old: datetime, end: datetime, *, is_adopted: bool, now: datetime) -> None:
    if end <= old:
        raise InvalidInput(
            "until",
            f"{_moment(end)} is not after the present end, {_moment(old)}",
            hint="Give a later end. `leeway stop` ends it earlier.",
        )
    if end <= now:
        raise InvalidInput("until", f"{_moment(end)} is over", hint="Give an end that is to come.")
    if is_adopted:  # it was there before the order, and is when that is over: what counts is when somebody looks again
        if end > now + MAX_DURATION:
            hint = f"The latest end is {_moment(now + MAX_DURATION)}."
            raise InvalidInput("until", f"{_moment(end)} is not within the next {MAX_DURATION.days} days", hint=hint)
    elif order.duration + (end - old) > MAX_DURATION:
        latest = old + (MAX_DURATION - order.duration)
        raise InvalidInput(
            "until",
            f"an order lasts at most {MAX_DURATION.days} days in all, and {_moment(end)} would be more",
            hint=f"The latest end is {_moment(latest)}; order the workload again for more.",
        )


def _was_extended_to(session: Session, order: Order, end: datetime) -> bool:
    """Whether this very end was asked for before: the answer may have been lost. A late start may have moved it on."""
    told = exists().where(
        Event.workload_id == order.workload_id,
        Event.order_id == order.id,
        Event.kind == EXTENDED,
        Event.data["until"].astext == end.isoformat(),
    )
    return session.scalars(select(told)).one()


# --- money for the next window -----------------------------------------------------------------------------------


def due_to_roll(order: Order, *, now: datetime, window: timedelta) -> bool:
    """Whether the order goes on and its money lasts for less than half a window. Also where it has run out."""
    return order.state in GOING_ON and order.held_until is not None and order.held_until - now < window / 2


def orders_to_roll(session: Session, *, now: datetime, window: timedelta) -> list[UUID]:
    """Orders that are due to roll, and have a machine to keep: those that were not refused yet, then by their refusal.

    Not more than a tick can do: a grant that is used up may refuse thousands, and nobody else is to wait for them.
    """
    keeps = exists().where(Lease.order_id == Order.id, Lease.gone_at.is_(None), Lease.desired.not_in(ENDING))
    is_refused = and_(
        Finding.kind == HOLD_REFUSED, Finding.key == cast(Order.id, String), Finding.resolved_at.is_(None)
    )
    due = (
        select(Order.id)
        .outerjoin(Finding, is_refused)
        .where(Order.state.in_(GOING_ON), Order.held_until < now + window / 2, keeps)
        .order_by(Finding.last_seen_at.asc().nulls_first(), Order.held_until, Order.id)
        .limit(MOST)
    )
    return list(session.scalars(due))


def roll_hold(session: Session, order_id: UUID, funding: Funding, *, now: datetime) -> bool:
    """Set the money for an order's next window aside, or to its end where that is nearer; True where that was done.

    Where it cannot be, a person is told, nothing else changes, and the next call tries again: until the money that is
    there ends, and then the stop ladder begins, which the hold has the money for.

    Raises:
        NotFound: no such order.
    """
    order, leases = _lock(session, order_id, funding.ledger)
    kept = _kept(leases)
    if not kept or not due_to_roll(order, now=now, window=funding.window):
        return False
    end, reach = max(lease.ends_at for lease in kept), now + funding.window
    held_until = None if end <= reach else reach
    try:
        held = _hold(session, order, leases, held_until or end, ledger=funding.ledger, now=now)
    except (GrantExhausted, RateMissing, PriceUnknown) as refusal:
        _tell_refusal(session, order, kept, refusal, now=now)
        return False
    order.held_until = held_until
    tell_order(session, order, "hold", f"{held} set aside in all, until {_moment(held_until or end)}")
    close_finding(session, HOLD_REFUSED, str(order.id))
    _wake(session, kept, funding.jobs)
    return True


def _tell_refusal(session: Session, order: Order, kept: Sequence[Lease], refusal: Rejected, *, now: datetime) -> None:
    """A finding at each refusal; a line in the timeline at the first."""
    assert order.held_until is not None, "only what ends can be refused more"
    name = session.get_one(WorkloadRow, order.workload_id).name
    text = f"{name} has money until {_moment(order.held_until)}, and no more can be set aside: {refusal.detail}"
    is_known = exists().where(Finding.kind == HOLD_REFUSED, Finding.key == str(order.id), Finding.resolved_at.is_(None))
    if not session.scalars(select(is_known)).one():
        tell_order(session, order, "hold", text)
    uses = [use_of(session, lease, Period(now, now)) for lease in kept]
    raise_finding(
        session,
        Concern(
            kind=HOLD_REFUSED,
            key=str(order.id),
            text=text,
            hint=_OVER if kept[0].adopted_at is not None else _OFF,
            per_day=Rates(session, now).per_day(uses),
        ),
        now=now,
    )


# --- both --------------------------------------------------------------------------------------------------------


def _lock(session: Session, order_id: UUID, ledger: Ledger) -> tuple[Order, list[Lease]]:
    """Balances, order and live leases, locked in this order and read afresh."""
    ledger.lock(session, order_id)
    order = session.get(Order, order_id, with_for_update=ROW, populate_existing=True)
    if order is None:
        raise NotFound(f"there is no order {order_id}")
    return order, list(session.scalars(live_leases(order.id)))


def _kept(leases: Iterable[Lease]) -> list[Lease]:
    return [lease for lease in leases if lease.desired not in ENDING]


def _hold(
    session: Session, order: Order, leases: Sequence[Lease], until: datetime, *, ledger: Ledger, now: datetime
) -> str:
    """Bring the order's hold to what all its machines need until then and for stopping; returns it in words."""
    so_far = ledger.so_far(session, order.id)
    runs = runs_of(session, order, leases, so_far, until=until, now=now)
    amounts = whole_hold(Rates(session, now), so_far, runs)
    ledger.extend(session, order.id, amounts, max(run.period.end for run in runs), now=now)
    return ", ".join(map(str, amounts))


def _wake(session: Session, leases: Iterable[Lease], jobs: Jobs) -> None:
    for lease in leases:
        lease.next_look_at = func.clock_timestamp()
        jobs.defer(session, RECONCILE, str(lease.id))
    session.flush()


def _moment(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"
