"""Money set aside for orders: the ledger as the core sees it (`broker.ports.Ledger`).

An order is paid by its project's grants in the order of their positions; a hold may be split over several. Only a grant
that is open over the whole window takes part, so that no charge of the window falls outside its eligible time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import ROUND_CEILING, Decimal
from types import MappingProxyType
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from accounting.charging import Prices
from accounting.histories import History, histories
from accounting.models.grants import Grant, MoneyHold
from accounting.models.ledger import Balance
from broker.errors import Conflict, GrantExhausted, NotFound, RateMissing
from broker.models.leases import Lease
from broker.models.people import Project
from broker.models.workloads import Order
from broker.ports import SoFar
from broker.values import STORED, Amount, Commodity, Period, exact, plain, utc


@dataclass(frozen=True, slots=True)
class Booking:
    """Whose money is set aside, from when until when."""

    order_id: UUID
    project_id: UUID
    project: str
    now: datetime
    until: datetime

    def closes(self, grant: Grant) -> str | None:
        """Why the grant cannot pay for the whole window; None where it can."""
        if grant.starts_at > self.now:
            return f"opens on {_moment(grant.starts_at)}"
        if grant.ends_at <= self.now:
            return f"ended on {_moment(grant.ends_at)}"
        if grant.ends_at < self.until:
            return f"ends on {_moment(grant.ends_at)}, before this would on {_moment(self.until)}"
        return None


@dataclass(frozen=True, slots=True)
class Purse:
    """A grant, its locked balance, and what the order has open on it. `closed` says why it cannot take more."""

    grant: Grant
    balance: Balance
    hold: MoneyHold | None
    closed: str | None

    @property
    def free(self) -> Decimal:
        """What can be set aside besides what already is."""
        assert self.balance.ceiling is not None, "a grant's balance has a ceiling"
        return self.balance.ceiling - self.balance.posted - self.balance.held

    @property
    def remaining(self) -> Decimal:
        """What the order has left here."""
        return self.hold.remaining if self.hold else Decimal(0)

    @property
    def used(self) -> Decimal:
        """What was charged to the order's hold here."""
        return self.hold.amount - self.hold.remaining if self.hold else Decimal(0)


class GrantLedger:
    """Sets money aside on grants. Implements `broker.ports.Ledger`; keeps nothing between calls.

    The caller's transaction locks the project's grant balances first, in the order of their ids, then order and lease.
    """

    def lock(self, session: Session, order_id: UUID) -> None:
        """Lock the balances of the grants of the order's project, in the order of their ids."""
        _lock_balances(session, _project(session, order_id)[0])

    def so_far(self, session: Session, order_id: UUID) -> SoFar:
        """What was charged to the order's open hold, and what was used and is not charged yet.

        Where nothing is locked, what is charged meanwhile is counted twice and never left out.

        Raises:
            PriceUnknown: where a part of what was used has no price.
        """
        prices = Prices(session)
        amounts: list[Amount] = []
        seen: dict[UUID, datetime] = {}
        for history in _unsettled(session, order_id):
            seen[history.lease.id] = history.known_until
            amounts.extend(rated.cost for rated in prices.unposted(history, now=history.known_until))
        used = (
            select(Balance.commodity, func.sum(MoneyHold.amount - MoneyHold.remaining))
            .join(Balance, Balance.id == MoneyHold.balance_id)
            .where(MoneyHold.order_id == order_id, MoneyHold.released_at.is_(None))
            .group_by(Balance.commodity)
        )
        amounts.extend(Amount.of(value, code) for code, value in session.execute(used))
        return SoFar(amounts, seen)

    def hold(
        self, session: Session, order_id: UUID, amounts: Sequence[Amount], until: datetime, *, now: datetime
    ) -> None:
        """Set `amounts` aside until `until` (rounded up to nine decimals), or raise and hold nothing.

        Raises:
            GrantExhausted: where the grants open over [now, until) have not enough free; says how much each has.
            RateMissing: where no grant of the project pays in the amount's commodity, and no rate is known.
            Conflict: where the order has a hold already.
            NotFound: for an unknown order.
        """
        self.hold_each(session, {order_id: amounts}, until, now=now)

    def hold_each(
        self, session: Session, amounts: Mapping[UUID, Sequence[Amount]], until: datetime, *, now: datetime
    ) -> None:
        """`hold` for several orders of one project, all or none; balances are locked and written once."""
        if not amounts:
            return
        booking = _booking(session, next(iter(amounts)), until, now=now)
        purses = _purses(session, booking)
        has_hold = select(MoneyHold.order_id).where(MoneyHold.order_id.in_(amounts), MoneyHold.released_at.is_(None))
        for order_id in session.scalars(has_hold.limit(1)):
            raise Conflict(f"Order {order_id} has money set aside already.", hint="Extend its hold instead.")
        for order_id, wanted in amounts.items():
            _set(session, replace(booking, order_id=order_id), purses, wanted)
        session.flush()

    def extend(
        self, session: Session, order_id: UUID, amounts: Sequence[Amount], until: datetime, *, now: datetime
    ) -> None:
        """Change the order's hold to `amounts` in all until `until`; raises as `hold`, and changes nothing then.

        "In all" counts what was already charged to the hold: a hold of 10 of which 4 are charged, extended to 12, has
        8 left. Less than what was charged leaves nothing. What a grant holds that is not open until the new end moves
        to the others, save what was used before these opened. An order whose hold was released gets a new one.
        """
        booking = _booking(session, order_id, until, now=now)
        purses = _purses(session, booking)
        _set(session, booking, purses, amounts, past=_past(session, booking, purses))
        session.flush()

    def release(self, session: Session, order_id: UUID, *, now: datetime) -> None:
        """Give back what is left of the order's hold. Twice is fine; an order without one too."""
        booking = _booking(session, order_id, now, now=now)
        with exact():
            for purse in _purses(session, booking):
                if purse.hold is not None:
                    purse.balance.held -= purse.hold.remaining
                    purse.hold.released_at = booking.now
        session.flush()


def _unsettled(session: Session, order_id: UUID) -> list[History]:
    wanted = select(Lease.id).where(Lease.order_id == order_id, Lease.settled_at.is_(None))
    return histories(session, session.scalars(wanted).all())


def _project(session: Session, order_id: UUID) -> tuple[UUID, str]:
    """Id and name of the project that the order is of."""
    found = session.execute(
        select(Project.id, Project.name).join(Order, Order.project_id == Project.id).where(Order.id == order_id)
    ).one_or_none()
    if found is None:
        raise NotFound(f"There is no order {order_id}.", order=str(order_id))
    return found.id, found.name


def _booking(session: Session, order_id: UUID, until: datetime, *, now: datetime) -> Booking:
    return Booking(order_id, *_project(session, order_id), utc(now, field="now"), utc(until, field="until"))


def _lock_balances(session: Session, project_id: UUID) -> dict[Grant, Balance]:
    """The project's grants with their balances, locked in the order of their ids and read afresh."""
    rows = session.execute(
        select(Grant, Balance)
        .join(Balance, (Balance.account_id == Grant.account_id) & (Balance.commodity == Grant.commodity))
        .where(Grant.project_id == project_id)
        .order_by(Balance.id)
        .with_for_update(of=Balance, key_share=True)
        .execution_options(populate_existing=True)
    )
    return dict(rows.all())


def _purses(session: Session, booking: Booking) -> list[Purse]:
    """The project's grants in the order of their positions, their balances locked."""
    balances = _lock_balances(session, booking.project_id)
    # Read after the lock: holds change only under it.
    holds = {
        hold.balance_id: hold
        for hold in session.scalars(
            select(MoneyHold)
            .where(MoneyHold.order_id == booking.order_id, MoneyHold.released_at.is_(None))
            .execution_options(populate_existing=True)
        )
    }
    return [
        Purse(grant, balance, holds.get(balance.id), booking.closes(grant))
        for grant, balance in sorted(balances.items(), key=lambda pair: pair[0].position)
    ]


def _past(session: Session, booking: Booking, purses: Sequence[Purse]) -> dict[UUID, Decimal]:
    """Per grant that is closed to the order, what it must keep: for use that none of the open grants may pay."""
    closed = [purse for purse in purses if purse.closed and purse.remaining]
    if not closed:
        return {}
    prices = Prices(session)
    opened = [purse.grant for purse in purses if not purse.closed]
    left = {purse.grant.id: purse.remaining for purse in closed}
    kept: dict[UUID, Decimal] = dict.fromkeys(left, Decimal(0))
    for history in _unsettled(session, booking.order_id):
        for use, cost in prices.unposted_uses(history, now=history.known_until):
            eligible = [grant for grant in opened if _may_pay(grant, use, cost)]
            missing = Decimal(0) if eligible else cost.value
            for purse in closed:
                if missing and _may_pay(purse.grant, use, cost):
                    part = min(missing, left[purse.grant.id])
                    missing, left[purse.grant.id] = missing - part, left[purse.grant.id] - part
                    kept[purse.grant.id] += part
    return kept


def _may_pay(grant: Grant, use: Period, cost: Amount) -> bool:
    return grant.commodity == cost.commodity.code and grant.starts_at <= use.start and use.end <= grant.ends_at


def _set(
    session: Session,
    booking: Booking,
    purses: Sequence[Purse],
    amounts: Iterable[Amount],
    *,
    past: Mapping[UUID, Decimal] = MappingProxyType({}),
) -> None:
    """Bring the order's hold to `amounts` in all: decide for every commodity first, then write."""
    totals = {Commodity(purse.grant.commodity): Decimal(0) for purse in purses if purse.hold}
    with exact():
        for amount in amounts:
            if amount.value < 0:
                raise ValueError(f"a hold of {amount.value} {amount.commodity}")
            totals[amount.commodity] = totals.get(amount.commodity, Decimal(0)) + amount.value
        shares: dict[UUID, Decimal] = {}
        for commodity in sorted(totals):
            total = Amount(totals[commodity].quantize(STORED, rounding=ROUND_CEILING), commodity)
            shares |= _shares(booking, purses, total, past)
        for purse in purses:
            _write(session, booking, purse, shares.get(purse.grant.id, Decimal(0)))


def _shares(
    booking: Booking, purses: Sequence[Purse], total: Amount, past: Mapping[UUID, Decimal]
) -> dict[UUID, Decimal]:
    """What is to remain on each grant: where it is already as far as possible, then what is free, by position."""
    same = [purse for purse in purses if purse.grant.commodity == total.commodity.code]
    missing = max(total.value - sum((purse.used for purse in same), Decimal(0)), Decimal(0))
    if missing and purses and not same:
        raise _no_rate(booking, purses, total)
    usable = [purse for purse in same if purse.closed is None]
    shares = dict.fromkeys((purse.grant.id for purse in same), Decimal(0))
    for purse in same:
        shares[purse.grant.id] = min(past.get(purse.grant.id, Decimal(0)), missing)
        missing -= shares[purse.grant.id]
    for room in ("remaining", "free"):
        for purse in usable:
            part = min(getattr(purse, room), missing)
            shares[purse.grant.id] += part
            missing -= part
    if missing:
        raise _exhausted(booking, same, total)
    return shares


def _write(session: Session, booking: Booking, purse: Purse, remaining: Decimal) -> None:
    if purse.hold is None and not remaining:
        return
    hold = purse.hold
    purse.balance.held += remaining - purse.remaining
    if hold is None:
        session.add(
            MoneyHold(
                order_id=booking.order_id,
                balance_id=purse.balance.id,
                amount=remaining,
                remaining=remaining,
                made_at=booking.now,
                until=booking.until,
            )
        )
        return
    hold.amount, hold.remaining, hold.until = purse.used + remaining, remaining, booking.until


def _exhausted(booking: Booking, purses: Sequence[Purse], total: Amount) -> GrantExhausted:
    """The refusal, with what each grant has and what can be done."""
    commodity = total.commodity
    states = []
    for purse in purses:
        left = _show(Amount(purse.free + purse.remaining, commodity))
        states.append(f"{purse.grant.name}: {purse.closed}" if purse.closed else f"{purse.grant.name}: {left} free")
    free = sum((purse.free + purse.remaining for purse in purses if purse.closed is None), Decimal(0))
    needed = total.value - sum((purse.used for purse in purses), Decimal(0))
    grants = "; ".join(states) if states else "it has no grant"
    return GrantExhausted(
        f"Project {booking.project} needs {_show(Amount(needed, commodity))} set aside until {_moment(booking.until)}, "
        f"and {_show(Amount(free, commodity))} is free ({grants}).",
        hint="Ask for less time or a cheaper offer, stop something that runs, or have a grant raised or extended.",
        needed=plain(needed),
        free=plain(free),
        commodity=commodity.code,
        grants=states,
    )


def _no_rate(booking: Booking, purses: Sequence[Purse], total: Amount) -> RateMissing:
    pays = sorted({purse.grant.commodity for purse in purses})
    return RateMissing(
        f"{_show(total)} cannot be set aside: the grants of project {booking.project} pay in "
        f"{', '.join(pays)}, and no exchange rate from {total.commodity} is known.",
        hint=f"Choose an offer priced in {' or '.join(pays)}, or have a grant in {total.commodity} added.",
        commodity=total.commodity.code,
        grants=pays,
    )


def _show(amount: Amount) -> str:
    """As people read money, but never so rounded that "needs 10.00, and 10.00 is free"."""
    return str(amount) if amount.rounded().value == amount.value else f"{plain(amount.value)} {amount.commodity}"


def _moment(moment: datetime) -> str:
    return f"{utc(moment):%Y-%m-%d %H:%M} UTC"
