"""Reminders: 14, 3 and 1 days before a workload ends, and when its money cannot be set aside any further.

Level-triggered: each look asks what is due by the rows, and a message's key says for which end it is, so that a look
may be repeated or missed, and an extension brings reminders of its own.

A rolling hold ends within days all the time and is extended again and again: that is nobody's concern. Only where an
extension was refused (the finding `hold_refused`) does the money end the workload.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Literal
from uuid import UUID

from sqlalchemy import String, cast, func, or_, select
from sqlalchemy.orm import Session

from broker.errors import Rejected
from broker.extensions import EXTENDED, HOLD_REFUSED
from broker.messages import Draft, post_message
from broker.models.audit import Event, Finding
from broker.models.catalogue import Offer
from broker.models.federation import Site
from broker.models.leases import ENDING, Lease
from broker.models.messages import Message
from broker.models.people import Project
from broker.models.workloads import Order, QuoteOffer, WorkloadRow
from broker.orders import GOING_ON
from broker.projects import addresses
from broker.reminder_texts import Ending, left_until, refusal, reminder
from broker.restored import acts
from broker.timeline import tell_order
from broker.units import counted
from broker.values import Amount, exact
from broker.workload_views import find_order

STEPS = (timedelta(days=14), timedelta(days=3), timedelta(days=1))
# After the message that tells of a refusal, which comes some days before the money ends.
STEPS_AFTER_REFUSAL = (timedelta(days=1),)

# Occasions of one question.
_PART = 1000

# What orders have cost so far, by `accounting`; None where a price is not known.
Spent = Callable[[Collection[UUID]], Mapping[UUID, Amount | None]]


@dataclass(frozen=True, slots=True)
class GoingOn:
    """An order that goes on.

    Attributes:
        ends_at: of the machine that ends last. Counted from its start, so it moves until it has one.
        has_started: at least one machine has run.
        refused: the open finding that no more money could be set aside.
    """

    order: Order
    workload: str
    project: Project
    ends_at: datetime
    has_started: bool
    refused: Finding | None


@dataclass(frozen=True, slots=True)
class Occasion:
    """Something to write about: that it ends (`off_at`) soon, or that its money does.

    `since`: the moment from which that is worth a message. Nobody is reminded of what they did after it.
    """

    going: GoingOn
    kind: Literal["reminder", "hold_refused"]
    off_at: datetime
    since: datetime
    step: timedelta = timedelta(0)

    @property
    def key(self) -> str:
        """The same for the same end, whenever it is asked."""
        return f"{self.kind}:{self.going.order.id}:{self.step.days}:{self.off_at.astimezone(UTC).isoformat()}"


def remind(session: Session, *, now: datetime, spent: Spent, most: int = 500) -> int:
    """Write what is due and was not written, the nearest ends first, at most `most`; returns how many.

    Nothing while Leeway only observes: the rows may be a copy.
    """
    if not session.scalars(select(acts())).one():
        return 0
    due = sorted(
        (occasion for going in _going_on(session, now) for occasion in occasions(going, now=now)),
        key=lambda occasion: (occasion.off_at, occasion.key),
    )
    fresh = _fresh(session, due, most)
    order_ids = {occasion.going.order.id for occasion in fresh}
    leases, costs = _leases(session, order_ids), spent(order_ids)
    written = 0
    for occasion in fresh:
        order_id = occasion.going.order.id
        written += _write(session, occasion, leases[order_id], costs.get(order_id), now=now)
    return written


def occasions(going: GoingOn, *, now: datetime) -> Iterator[Occasion]:
    """What is worth a message at `now`: of the steps only the nearest that has come, and none as long as the order.

    So an order of two hours gets none, and one of two days gets the last.
    """
    money_ends = going.order.held_until
    if going.refused is None or money_ends is None or money_ends >= going.ends_at:
        begun = going.ends_at - going.order.duration
        if going.has_started:
            yield from _steps(going, going.ends_at, STEPS, after=begun, now=now)
    elif now < money_ends:
        yield Occasion(going, "hold_refused", money_ends, since=going.refused.first_seen_at)
        yield from _steps(going, money_ends, STEPS_AFTER_REFUSAL, after=going.refused.first_seen_at, now=now)


def _steps(
    going: GoingOn, off_at: datetime, steps: Sequence[timedelta], *, after: datetime, now: datetime
) -> Iterator[Occasion]:
    come = [step for step in steps if off_at - step <= now < off_at]
    if come and off_at - min(come) > after:
        yield Occasion(going, "reminder", off_at, since=off_at - min(come), step=min(come))


# --- what the rows say -----------------------------------------------------------------------------------------------


def _going_on(session: Session, now: datetime) -> list[GoingOn]:
    """Orders with machines that end within the longest step, or whose money does."""
    ends = (
        select(
            Lease.order_id,
            func.max(Lease.ends_at).label("ends_at"),
            (func.count(Lease.started_at) > 0).label("has_started"),
        )
        # What was adopted is not ended by us: a finding tells when its time is over.
        .where(Lease.gone_at.is_(None), Lease.desired.not_in(ENDING), Lease.adopted_at.is_(None))
        .group_by(Lease.order_id)
        .subquery()
    )
    is_refused = (
        (Finding.kind == HOLD_REFUSED) & (Finding.key == cast(Order.id, String)) & Finding.resolved_at.is_(None)
    )
    rows = session.execute(
        select(Order, WorkloadRow.name, Project, ends.c.ends_at, ends.c.has_started, Finding)
        .join(ends, ends.c.order_id == Order.id)
        .join(WorkloadRow, WorkloadRow.id == Order.workload_id)
        .join(Project, Project.id == Order.project_id)
        .outerjoin(Finding, is_refused)
        .where(
            Order.state.in_(GOING_ON),
            ends.c.ends_at > now,
            or_(ends.c.ends_at <= now + max(STEPS), Finding.id.is_not(None)),
        )
    )
    return [GoingOn(*row) for row in rows]


def _fresh(session: Session, due: Sequence[Occasion], most: int) -> list[Occasion]:
    """The first `most` that were not written; asked for in parts, as many may be due and written already."""
    found: list[Occasion] = []
    for start in range(0, len(due), _PART):
        found += _not_extended_since(session, _not_written(session, due[start : start + _PART]))
        if len(found) >= most:
            break
    return found[:most]


def _not_written(session: Session, due: Sequence[Occasion]) -> list[Occasion]:
    keys = [occasion.key for occasion in due]
    written = set(session.scalars(select(Message.key).where(Message.key.in_(keys))))
    return [occasion for occasion in due if occasion.key not in written]


def _not_extended_since(session: Session, due: Sequence[Occasion]) -> list[Occasion]:
    """Whoever extended a workload to ten days from now need not be told at once that it ends in ten days."""
    workloads = {occasion.going.order.workload_id for occasion in due}
    last = dict(
        session.execute(
            select(Event.order_id, func.max(Event.at))
            .where(Event.workload_id.in_(workloads), Event.kind == EXTENDED)
            .group_by(Event.order_id)
        ).all()
    )
    return [
        occasion
        for occasion in due
        if occasion.kind != "reminder" or last.get(occasion.going.order.id, occasion.since) <= occasion.since
    ]


@dataclass(frozen=True, slots=True)
class _Machine:
    lease: Lease
    site: str
    offer: str
    hourly: Amount


def _leases(session: Session, order_ids: Collection[UUID]) -> dict[UUID, list[_Machine]]:
    """The machines of each order that are there or will be; the offer was priced for all members together."""
    found: dict[UUID, list[_Machine]] = {order_id: [] for order_id in order_ids}
    for lease, site, offer, picked, members in session.execute(
        select(Lease, Site.name, Offer.name, QuoteOffer, Order.members)
        .join(Site, Site.id == Lease.site_id)
        .join(QuoteOffer, QuoteOffer.id == Lease.quote_offer_id)
        .join(Offer, Offer.id == QuoteOffer.offer_id)
        .join(Order, Order.id == Lease.order_id)
        .where(Lease.order_id.in_(order_ids), Lease.gone_at.is_(None), Lease.desired.not_in(ENDING))
        .order_by(Lease.member, Lease.id)
    ):
        with exact():
            hourly = Amount.of(picked.hourly / Decimal(members), picked.commodity)
        found[lease.order_id].append(_Machine(lease, site, offer, hourly))
    return found


# --- the message -----------------------------------------------------------------------------------------------------


def _write(
    session: Session, occasion: Occasion, machines: Sequence[_Machine], spent: Amount | None, *, now: datetime
) -> bool:
    """The message, and a line in the order's timeline; False where somebody else wrote it at this moment."""
    going = occasion.going
    recipients = addresses(session, going.project)
    ending = Ending(
        workload=going.workload,
        ref=_ref(session, going),
        project=going.project.name,
        machines=_in_words(machines),
        off_at=occasion.off_at,
        deleted_at=max((_deleted_at(one.lease, occasion.off_at) for one in machines), default=occasion.off_at),
        keeps=max((one.lease.keep for one in machines if one.lease.keep is not None), default=None),
        per_day=_per_day(machines),
        spent=spent,
        has_contacts=bool(recipients),
    )
    if occasion.kind == "hold_refused" and going.refused is not None:
        subject, body = refusal(ending, why=going.refused.text, wanted_until=going.ends_at)
        told = f"that its money ends on {occasion.off_at:%Y-%m-%d %H:%M} UTC"
    else:
        subject, body = reminder(ending, now=now)
        told = f"that it ends in {left_until(occasion.off_at, now=now)}"
    draft = Draft(
        key=occasion.key,
        kind=occasion.kind,
        subject=subject,
        body=body,
        recipients=recipients,
        project_id=going.project.id,
        order_id=going.order.id,
    )
    if not post_message(session, draft):
        return False
    whom = counted(len(recipients), "contact") if recipients else "the operator"
    tell_order(session, going.order, "reminder", f"told {whom} {told}")
    return True


def _ref(session: Session, going: GoingOn) -> str:
    """What commands call the order: its name, where that means no other."""
    try:
        is_named = find_order(session, going.workload) == going.order.id
    except Rejected:
        is_named = False
    return going.workload if is_named else str(going.order.id)


def _deleted_at(lease: Lease, off_at: datetime) -> datetime:
    """What never ran has nothing to keep."""
    return min(lease.ends_at, off_at) + (lease.grace or timedelta(0) if lease.started_at else timedelta(0))


def _in_words(machines: Sequence[_Machine]) -> str:
    kinds = Counter((one.offer, one.site) for one in machines)
    return " and ".join(f"{counted(n, 'machine')} ({offer}) at {site}" for (offer, site), n in kinds.items())


def _per_day(machines: Sequence[_Machine]) -> list[Amount]:
    """One amount per currency."""
    sums: dict[str, Amount] = {}
    for one in machines:
        daily = one.hourly.times(24)
        code = daily.commodity.code
        sums[code] = sums[code] + daily if code in sums else daily
    return [sums[code] for code in sorted(sums)]
