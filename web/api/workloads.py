"""Workloads that were ordered: where they run, what they cost, why they run there; stopped and started."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import Field
from sqlalchemy.orm import Session

from accounting.order_money import OrderMoney, order_money
from broker.database import database_now
from broker.models.leases import Desired, LeaseState, Outcome
from broker.models.workloads import OrderState
from broker.orders import set_power, stop_order
from broker.quote_views import quote_view
from broker.quotes import get_quote
from broker.remote import PartKind
from broker.workload_views import (
    REFUSALS,
    Timeline,
    Wanted,
    WorkloadView,
    find_order,
    list_workloads,
    timeline,
    workload_view,
)
from web.api.quotes import Quote
from web.api.schemas import Items, Money, PageQuery, Shown, Strict
from web.endpoint import ACTOR, ServicesOf, Transaction

router = APIRouter(prefix="/workloads", tags=["workloads"])


class Order(Shown):
    """`held_until`: how long the money lasts that is set aside; null: to the end."""

    id: UUID
    state: OrderState
    placed_at: datetime
    ended_at: datetime | None
    reason: str | None
    members: int
    duration_seconds: int
    held_until: datetime | None


class Picked(Shown):
    """The offer that was ordered; amounts for the whole workload."""

    site: str
    name: str
    total: Money
    hourly: Money


class OrderMoneyShown(Shown):
    """`accrued`: used and not charged yet, null where a price is not known. `other`: in other currencies."""

    held: Money
    spent: Money
    accrued: Money | None
    other: list[Money]


class Machine(Shown):
    """One lease: a machine that exists, or shall exist, or existed. `kept_until`: of a snapshot of its disk.

    `adopted_at`: it was there before (and may be no machine); it is charged, and never changed.
    """

    lease_id: UUID
    member: int
    name: str
    site: str
    state: LeaseState
    desired: Desired
    addresses: list[str]
    started_at: datetime | None
    ends_at: datetime
    paid_until: datetime
    deleted_at: datetime
    kept_until: datetime | None
    gone_at: datetime | None
    adopted_at: datetime | None
    trouble: str | None


class Part(Shown):
    """A remote object that was made for a machine."""

    kind: PartKind
    remote_id: str | None
    made_at: datetime | None
    gone_at: datetime | None


class Attempt(Shown):
    """One try to make a part."""

    part: PartKind
    number: int
    started_at: datetime
    outcome: Outcome
    error: str | None


class MachineInDetail(Machine):
    parts: list[Part]
    attempts: list[Attempt]


class Event(Shown):
    """One line of the timeline."""

    at: datetime
    kind: str
    text: str
    actor: str
    lease_id: UUID | None


class WorkloadInList(Shown):
    """An ordered workload. `id` is the workload's; an order of it has its own."""

    id: UUID
    name: str
    project: str
    quote_id: UUID
    order: Order
    offer: Picked
    machines: list[Machine]
    money: OrderMoneyShown


class Workload(Shown):
    """The same with all that is known. `events_left_out`: older lines of the timeline that are not shown."""

    id: UUID
    name: str
    project: str
    quote_id: UUID
    document: dict[str, Any]
    order: Order
    offer: Picked
    machines: list[MachineInDetail]
    money: OrderMoneyShown
    events: list[Event]
    events_left_out: int


class Explanation(Shown):
    """The quote, with the reasons for every site, and what sites refused afterwards."""

    id: UUID
    name: str
    order_state: OrderState
    offer: Picked
    quote: Quote
    refusals: list[Event]


class WorkloadQuery(PageQuery):
    """Which workloads."""

    project: str | None = None
    state: OrderState | None = None
    name: str | None = None


class How(StrEnum):
    """`end` deletes the machines; `stop` and `shelve` keep them, and the order goes on."""

    END = "end"
    STOP = "stop"
    SHELVE = "shelve"


class Stop(Strict):
    how: How = How.END
    reason: str | None = Field(None, max_length=500, description="Written into the timeline.")


_POWER = {How.STOP: Desired.STOPPED, How.SHELVE: Desired.SHELVED}


def in_detail(session: Session, order_id: UUID) -> Workload:
    """One order as the API answers it."""
    view = workload_view(session, order_id)
    money = order_money(session, [order_id], now=database_now(session))[order_id]
    return _detail(view, money, timeline(session, view.id))


def _detail(view: WorkloadView, money: OrderMoney, lines: Timeline) -> Workload:
    return Workload(
        id=view.id,
        name=view.name,
        project=view.project,
        quote_id=view.quote_id,
        document=dict(view.document),
        order=Order.model_validate(view.order),
        offer=Picked.model_validate(view.offer),
        machines=[MachineInDetail.model_validate(machine) for machine in view.machines],
        money=OrderMoneyShown.model_validate(money),
        events=[Event.model_validate(event) for event in lines.events],
        events_left_out=lines.left_out,
    )


def _in_list(view: WorkloadView, money: OrderMoney) -> WorkloadInList:
    return WorkloadInList(
        id=view.id,
        name=view.name,
        project=view.project,
        quote_id=view.quote_id,
        order=Order.model_validate(view.order),
        offer=Picked.model_validate(view.offer),
        machines=[Machine.model_validate(machine) for machine in view.machines],
        money=OrderMoneyShown.model_validate(money),
    )


@router.get("", operation_id="list_workloads")
def get_workloads(session: Transaction, query: Annotated[WorkloadQuery, Query()]) -> Items[WorkloadInList]:
    """The workloads that were ordered, newest first."""
    found = list_workloads(session, Wanted(query.project, query.name, query.state), query.page())
    money = order_money(session, [view.order.id for view in found.items], now=database_now(session))
    items = [_in_list(view, money[view.order.id]) for view in found.items]
    return Items[WorkloadInList].of(items, found.next)


@router.get("/{ref}", operation_id="show_workload")
def get_workload(ref: str, session: Transaction) -> Workload:
    """One workload: by its id, its order's id, a unique beginning of either (8 digits or more), or its name."""
    return in_detail(session, find_order(session, ref))


@router.get("/{ref}/explanation", operation_id="explain_workload")
def explain_workload(ref: str, session: Transaction) -> Explanation:
    """Why it runs where it runs, why not elsewhere, and what sites refused since."""
    view = workload_view(session, find_order(session, ref))
    quote = quote_view(session, get_quote(session, view.quote_id))
    refusals = timeline(session, view.id, kinds=REFUSALS).events
    return Explanation(
        id=view.id,
        name=view.name,
        order_state=view.order.state,
        offer=Picked.model_validate(view.offer),
        quote=Quote.model_validate(quote),
        refusals=[Event.model_validate(event) for event in refusals],
    )


@router.post("/{ref}/stop", status_code=202, operation_id="stop_workload")
def post_stop(ref: str, session: Transaction, services: ServicesOf, stop: Stop | None = None) -> Workload:
    """End the order, or only stop or shelve its machines. Workers do it; ask for the workload to see it happen."""
    stop = stop or Stop()
    order_id = find_order(session, ref)
    if stop.how is How.END:
        reason = stop.reason or "stopped by a person"
        stop_order(session, order_id, jobs=services.jobs, actor=ACTOR, reason=reason)
    else:
        set_power(session, order_id, _POWER[stop.how], jobs=services.jobs, actor=ACTOR)
    session.flush()
    return in_detail(session, order_id)


@router.post("/{ref}/start", status_code=202, operation_id="start_workload")
def post_start(ref: str, session: Transaction, services: ServicesOf) -> Workload:
    """Start the machines of an order that were stopped or shelved."""
    order_id = find_order(session, ref)
    set_power(session, order_id, Desired.RUNNING, jobs=services.jobs, actor=ACTOR)
    session.flush()
    return in_detail(session, order_id)
