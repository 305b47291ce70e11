"""The stop ladder: off at the end, kept for the grace, then deleted; an extension at any time before that undoes it."""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import select, update

from broker.claims import claim
from broker.extensions import HOLD_REFUSED
from broker.launching import Pass
from broker.lease_view import View
from broker.models.audit import Event
from broker.models.leases import Desired, Lease, LeaseState
from broker.models.workloads import Order, OrderState
from broker.reconcile import End, Look, _take, decide
from broker.timeline import Concern, raise_finding
from tests.world import World

HOUR = timedelta(hours=1)


def running(world: World) -> tuple[Order, UUID]:
    order = world.order()
    (lease_id,) = world.leases(order)
    world.until_running(lease_id)
    world.work(lease_id)
    return order, lease_id


def states(world: World) -> list[str]:
    return [entry.event for entry in world.cloud.log.entries(kind="server")]


def told(world: World, lease_id: UUID, kind: str) -> list[str]:
    with world.sessions() as session:
        return list(session.scalars(select(Event.text).where(Event.lease_id == lease_id, Event.kind == kind)))


def set_money(world: World, order: Order, held_until: datetime | None) -> None:
    """The money lasts until then, and more was refused."""
    with world.sessions.begin() as session:
        raise_finding(session, Concern(HOLD_REFUSED, str(order.id), "no money", "Add a grant."), now=world.now())
        session.execute(update(Order).where(Order.id == order.id).values(held_until=held_until))


def test_at_its_end_a_machine_is_shelved_and_kept_for_the_grace(world: World) -> None:
    _, lease_id = running(world)
    world.wake(lease_id, ends_at=world.now(), grace=HOUR)
    view = world.until(lease_id, lambda lease: lease.state is LeaseState.SHELVED)
    assert view.lease.desired is Desired.RUNNING  # what is wanted of it has not changed: its time is over
    assert "deleting" not in states(world)
    assert told(world, lease_id, "power") == ["its time is over: powering it off before it is deleted"]
    assert view.lease.next_look_at is not None
    assert view.lease.next_look_at <= view.lease.ends_at + HOUR + timedelta(seconds=1)


def test_an_extension_within_the_grace_brings_it_back(world: World) -> None:
    order, lease_id = running(world)
    world.wake(lease_id, ends_at=world.now(), grace=HOUR)
    world.until(lease_id, lambda lease: lease.state is LeaseState.SHELVED)
    world.wake(lease_id, ends_at=world.now() + HOUR)
    world.until_running(lease_id)
    assert "deleting" not in states(world)
    with world.sessions() as session:
        assert session.get_one(Order, order.id).state is OrderState.ACTIVE


def test_after_the_grace_it_is_deleted(world: World) -> None:
    order, lease_id = running(world)
    world.wake(lease_id, ends_at=world.now() - 2 * HOUR, grace=HOUR)
    view = world.until_gone(lease_id)
    assert view.lease.stop_reason == "its end date has come"
    world.settle(lease_id)
    with world.sessions() as session:
        assert session.get_one(Order, order.id).state is OrderState.OVER


def test_money_that_is_used_up_begins_the_ladder_before_the_end_date(world: World) -> None:
    order, lease_id = running(world)
    world.wake(lease_id, grace=HOUR)
    set_money(world, order, world.now())
    world.until(lease_id, lambda lease: lease.state is LeaseState.SHELVED)
    set_money(world, order, world.now() + HOUR)  # it could be extended after all
    world.until_running(lease_id)
    set_money(world, order, world.now() - 2 * HOUR)
    assert world.until_gone(lease_id).lease.stop_reason == "the money that could be set aside is used up"


def test_what_never_ran_is_not_kept(world: World) -> None:
    """There is nothing on it yet that a person could want back."""
    world.cloud.faults.add("429", service="compute", method="POST", path=r"/servers$")
    (lease_id,) = world.leases(world.order())
    world.work(lease_id)
    world.wake(lease_id, ends_at=world.now(), grace=HOUR)
    assert isinstance(decide(world.view(lease_id), frozenset()), End)
    world.until_gone(lease_id)


def test_the_power_that_a_person_asked_for_counts_until_the_end(world: World) -> None:
    _, lease_id = running(world)
    world.wake(lease_id, desired=Desired.STOPPED, grace=HOUR)
    view = world.view(lease_id)
    server = view.lease.parts[-1]
    assert decide(view, frozenset()) == Look(server, Desired.STOPPED)
    world.wake(lease_id, ends_at=world.now())
    over = world.view(lease_id)
    assert decide(over, frozenset()) == Look(over.lease.parts[-1], Desired.SHELVED)


def test_an_extension_that_comes_while_the_end_is_being_written_wins(world: World) -> None:
    """The rows are read again under the lease's lock: what was decided from older ones is not done."""
    _, lease_id = running(world)
    world.wake(lease_id, ends_at=world.now() - HOUR, grace=timedelta(0))
    stale = world.view(lease_id)
    assert isinstance(decide(stale, frozenset()), End)
    with world.sessions.begin() as session:  # between the decision and the write
        session.execute(update(Lease).where(Lease.id == lease_id).values(ends_at=world.now() + HOUR))
    take_end(world, lease_id, stale)
    assert world.view(lease_id).lease.desired is Desired.RUNNING


def take_end(world: World, lease_id: UUID, view: View) -> None:
    """The step End as a pass takes it that decided on it before."""
    mine = claim(world.sessions, lease_id, length=HOUR)
    assert mine is not None
    _take(Pass(world.tools, world.tools.open_site(view.lease.site_id), mine), view, End())
