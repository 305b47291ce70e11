"""Workloads that were ordered, as people are shown them: where they run, what was tried, what happened."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Row, Select, func, or_, select
from sqlalchemy.orm import InstrumentedAttribute, Session, selectinload

from broker.documents import suggestion
from broker.errors import Conflict, NotFound
from broker.lease_view import deleted_at, paid_until
from broker.models.audit import Event
from broker.models.catalogue import Offer
from broker.models.federation import Site
from broker.models.leases import Desired, LaunchAttempt, Lease, LeaseState, Outcome, Part
from broker.models.people import Project
from broker.models.workloads import Order, OrderState, QuoteOffer, WorkloadRow
from broker.paging import Listed, Page, rows_of
from broker.remote import PartKind
from broker.values import Amount

# A timeline shows at most so many lines, the newest; how many were left out is said.
MOST_EVENTS = 1000
# Lines of a timeline that say which site did not give what was asked of it.
REFUSALS = ("refused", "next", "returned", "vanished")

_PREFIX = re.compile(r"[0-9a-fA-F-]{8,36}")
_HEX_DIGITS = 32


@dataclass(frozen=True, slots=True)
class OrderView:
    """`members`: how many machines. `reason`: why it was stopped or returned. `held_until`: None is to the end."""

    id: UUID
    state: OrderState
    placed_at: datetime
    ended_at: datetime | None
    reason: str | None
    members: int
    duration_seconds: int
    held_until: datetime | None


@dataclass(frozen=True, slots=True)
class PickedView:
    """The offer that was ordered."""

    site: str
    name: str
    total: Amount
    hourly: Amount


@dataclass(frozen=True, slots=True)
class PartView:
    kind: PartKind
    remote_id: str | None
    made_at: datetime | None
    gone_at: datetime | None


@dataclass(frozen=True, slots=True)
class AttemptView:
    """One try to make a part. `error`: what the site said, None where it said nothing wrong."""

    part: PartKind
    number: int
    started_at: datetime
    outcome: Outcome
    error: str | None


@dataclass(frozen=True, slots=True)
class MachineView:
    """One lease. `parts` and `attempts` are None in lists.

    Unless it is extended, it is powered off at `paid_until` (which is before `ends_at` where the money is used up) and
    deleted at `deleted_at`. `kept_until`: a snapshot of its disk is there, and is kept until then. `adopted_at`: it was
    there before, and nothing of it is changed, then neither.
    """

    lease_id: UUID
    member: int
    name: str
    site: str
    state: LeaseState
    desired: Desired
    addresses: Sequence[str]
    started_at: datetime | None
    ends_at: datetime
    paid_until: datetime
    deleted_at: datetime
    kept_until: datetime | None
    gone_at: datetime | None
    adopted_at: datetime | None
    trouble: str | None
    parts: Sequence[PartView] | None
    attempts: Sequence[AttemptView] | None


@dataclass(frozen=True, slots=True)
class EventView:
    at: datetime
    kind: str
    text: str
    actor: str
    lease_id: UUID | None


@dataclass(frozen=True, slots=True)
class WorkloadView:
    """An order with its workload and its machines, by member, then in the order of their making."""

    id: UUID
    name: str
    project: str
    quote_id: UUID
    document: Mapping[str, Any]
    order: OrderView
    offer: PickedView
    machines: Sequence[MachineView]


@dataclass(frozen=True, slots=True)
class Timeline:
    """What happened, oldest first. `left_out`: how many older lines there are."""

    events: Sequence[EventView]
    left_out: int


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which workloads to list; None is any."""

    project: str | None = None
    name: str | None = None
    state: OrderState | None = None


def list_workloads(session: Session, wanted: Wanted, page: Page) -> Listed[WorkloadView]:
    """Ordered workloads, the newest order first."""
    statement = _orders()
    if wanted.project is not None:
        statement = statement.where(Project.name == wanted.project)
    if wanted.name is not None:
        statement = statement.where(WorkloadRow.name == wanted.name)
    if wanted.state is not None:
        statement = statement.where(Order.state == wanted.state)
    views = _views(session, rows_of(session, statement, Order.id, page), in_detail=False)
    return Listed.cut(views, page, lambda view: view.order.id)


def workload_view(session: Session, order_id: UUID) -> WorkloadView:
    """One order in detail; rows are read afresh."""
    found = session.execute(_orders().where(Order.id == order_id).execution_options(populate_existing=True))
    rows = found.all()
    if not rows:
        raise NotFound(f"there is no order {order_id}")
    return _views(session, rows, in_detail=True)[0]


def timeline(session: Session, workload_id: UUID, *, kinds: Sequence[str] | None = None) -> Timeline:
    """The newest lines of a workload's timeline, oldest first; only of these kinds where given."""
    wanted = [Event.workload_id == workload_id]
    if kinds is not None:
        wanted.append(Event.kind.in_(kinds))
    newest = session.scalars(
        select(Event).where(*wanted).order_by(Event.at.desc(), Event.id.desc()).limit(MOST_EVENTS)
    ).all()
    count = len(newest)
    if count == MOST_EVENTS:
        count = session.scalars(select(func.count()).select_from(Event).where(*wanted)).one()
    events = [EventView(event.at, event.kind, event.text, event.actor, event.lease_id) for event in reversed(newest)]
    return Timeline(events, count - len(events))


# --- which workload is meant -----------------------------------------------------------------------------------------


def find_order(session: Session, ref: str) -> UUID:
    """The order that a person means: by workload id, order id, a unique beginning of either, or the workload's name.

    Of a workload or name with several orders, the newest is meant.

    Raises:
        NotFound: nothing answers to it; says what is near.
        Conflict: several workloads begin like this.
    """
    ref = ref.strip()
    found = _by_id(session, ref) if _PREFIX.fullmatch(ref) else None
    if found is None:
        newest = select(Order.id).join(WorkloadRow, WorkloadRow.id == Order.workload_id).order_by(Order.id.desc())
        found = session.scalars(newest.where(WorkloadRow.name == ref).limit(1)).one_or_none()
    if found is None:
        raise NotFound(f"there is no ordered workload {ref[:70]!r}", hint=_nearest(session, ref))
    return found


def _by_id(session: Session, ref: str) -> UUID | None:
    digits = ref.replace("-", "")
    if not 8 <= len(digits) <= _HEX_DIGITS:
        return None
    low, high = UUID(digits.ljust(_HEX_DIGITS, "0")), UUID(digits.ljust(_HEX_DIGITS, "f"))

    def begins(column: InstrumentedAttribute[UUID]) -> Any:
        return column.between(low, high)

    rows = session.execute(
        select(Order.id, Order.workload_id)
        .where(or_(begins(Order.id), begins(Order.workload_id)))
        .order_by(Order.id.desc())
    )
    orders = dict(rows.all())
    if len(set(orders.values())) > 1:
        some = ", ".join(str(workload_id) for workload_id in list(dict.fromkeys(orders.values()))[:5])
        raise Conflict(f"several workloads begin with {ref}", hint=f"Give more of the id: {some}.")
    return next(iter(orders), None)


def _nearest(session: Session, ref: str) -> str:
    recent = (
        select(WorkloadRow.name).join(Order, Order.workload_id == WorkloadRow.id).order_by(Order.id.desc()).limit(1000)
    )
    near = suggestion(ref, session.scalars(recent).all())
    return f"Did you mean {near}?" if near else "Use a name or an id that `leeway ps` shows."


# --- rows into views -------------------------------------------------------------------------------------------------


OrderRow = Row[Order, WorkloadRow, str, QuoteOffer, str, str]


def _orders() -> Select[Order, WorkloadRow, str, QuoteOffer, str, str]:
    return (
        select(Order, WorkloadRow, Project.name, QuoteOffer, _sold_as(), Site.name)
        .join(WorkloadRow, WorkloadRow.id == Order.workload_id)
        .join(Project, Project.id == Order.project_id)
        .join(QuoteOffer, QuoteOffer.id == Order.quote_offer_id)
        .outerjoin(Offer, Offer.id == QuoteOffer.offer_id)
        .join(Site, Site.id == QuoteOffer.site_id)
    )


def _sold_as() -> ColumnElement[str]:
    """The offer's name; of what was adopted that is no machine, its kind."""
    return func.coalesce(Offer.name, func.replace(WorkloadRow.document["thing"].astext, "_", " "))


def _views(session: Session, rows: Sequence[OrderRow], *, in_detail: bool) -> list[WorkloadView]:
    machines = _machines(session, [row[0].id for row in rows], in_detail=in_detail)
    return [
        WorkloadView(
            id=workload.id,
            name=workload.name,
            project=project,
            quote_id=order.quote_id,
            document=workload.document,
            order=OrderView(
                id=order.id,
                state=order.state,
                placed_at=order.placed_at,
                ended_at=order.ended_at,
                reason=order.reason,
                members=order.members,
                duration_seconds=int(order.duration.total_seconds()),
                held_until=order.held_until,
            ),
            offer=PickedView(
                site=site,
                name=offer,
                total=Amount.of(picked.total, picked.commodity),
                hourly=Amount.of(picked.hourly, picked.commodity),
            ),
            machines=machines[order.id],
        )
        for order, workload, project, picked, offer, site in rows
    ]


def _machines(session: Session, order_ids: Sequence[UUID], *, in_detail: bool) -> dict[UUID, list[MachineView]]:
    statement = (
        select(Lease, Site.name, Order.held_until, Part.ready_at + Lease.keep)
        .join(Site, Site.id == Lease.site_id)
        .join(Order, Order.id == Lease.order_id)
        .outerjoin(Part, (Part.lease_id == Lease.id) & (Part.kind == PartKind.SNAPSHOT))
        .where(Lease.order_id.in_(order_ids))
        .order_by(Lease.member, Lease.id)
        .execution_options(populate_existing=True)
    )
    if in_detail:
        statement = statement.options(selectinload(Lease.parts), selectinload(Lease.attempts))
    found: dict[UUID, list[MachineView]] = defaultdict(list)
    for lease, site, held_until, kept_until in session.execute(statement):
        found[lease.order_id].append(
            MachineView(
                lease_id=lease.id,
                member=lease.member,
                name=str(lease.spec["name"]),
                site=site,
                state=lease.state,
                desired=lease.desired,
                # Of a machine that is gone, and whose snapshot is kept, the address may be somebody else's.
                addresses=[] if lease.state is LeaseState.SNAPSHOT else lease.addresses,
                started_at=lease.started_at,
                ends_at=lease.ends_at,
                paid_until=paid_until(lease, held_until),
                deleted_at=deleted_at(lease, held_until),
                kept_until=kept_until,
                gone_at=lease.gone_at,
                adopted_at=lease.adopted_at,
                trouble=lease.failure or lease.trouble,
                parts=[_part(part) for part in lease.parts] if in_detail else None,
                attempts=_attempts(lease) if in_detail else None,
            )
        )
    return found


def _part(part: Part) -> PartView:
    return PartView(part.kind, part.remote_id, part.made_at, part.gone_at)


def _attempts(lease: Lease) -> list[AttemptView]:
    kinds = {part.id: part.kind for part in lease.parts}

    def view(attempt: LaunchAttempt) -> AttemptView:
        return AttemptView(kinds[attempt.part_id], attempt.number, attempt.started_at, attempt.outcome, attempt.error)

    return [view(attempt) for attempt in sorted(lease.attempts, key=lambda one: (one.started_at, one.number))]
