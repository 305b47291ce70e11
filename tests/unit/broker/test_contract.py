"""The launch contract's harder cases, one by one. Counted from the cloud's own log."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session, sessionmaker

from accounting.models.charges import Charge
from adapters.sandbox.faults import FaultKind
from adapters.sandbox.profiles import aurora, borealis
from broker import launching
from broker.claims import claim
from broker.launching import Pass
from broker.models.audit import Finding
from broker.models.federation import Site
from broker.models.leases import LaunchAttempt, Lease, LeaseState, Observation, Outcome, Part
from broker.models.workloads import Order, OrderState
from broker.orders import stop_order
from broker.reconcile import STUCK
from broker.remote import Deadline, MachineSpec, PartKind, Tags
from broker.tools import Timing
from broker.values import new_id
from tests.world import World, aurora_prices, make_world, quick

CREATES = {"service": "compute", "method": "POST", "path": r"/servers$"}


def ordered(world: World, **changes: Any) -> tuple[Order, UUID]:
    order = world.order(**changes)
    (lease_id,) = world.leases(order)
    return order, lease_id


def tries(world: World, lease_id: UUID) -> list[Outcome]:
    lease = world.view(lease_id).lease
    (server,) = [part for part in lease.parts if part.kind is PartKind.SERVER]
    return [attempt.outcome for attempt in lease.attempts if attempt.part_id == server.id]


def findings(world: World) -> set[str]:
    with world.sessions() as session:
        return set(session.scalars(select(Finding.kind).where(Finding.resolved_at.is_(None))))


def stop(world: World, order: Order) -> None:
    with world.sessions.begin() as session:
        stop_order(session, order.id, jobs=world.jobs, actor="tests", reason="enough")


def state(world: World, order: Order) -> OrderState:
    with world.sessions() as session:
        return session.get_one(Order, order.id).state


def make_server(world: World, lease_id: UUID, attempt_id: UUID) -> str:
    """As a worker does it that was frozen before its request and wakes up long after."""
    lease = world.view(lease_id).lease
    adapter = world.tools.open_site(lease.site_id)
    made = {part.kind: part.remote_id for part in lease.parts if part.remote_id and not part.gone_at}
    tags = Tags(world.tools.installation, lease_id, attempt_id, "climate", lease.ends_at)
    return adapter.make(PartKind.SERVER, MachineSpec(**lease.spec), tags=tags, made=made, deadline=Deadline.after(5))


# --- failover ----------------------------------------------------------------------------------------------------


@pytest.fixture
def two_sites(sessions: sessionmaker[Session]) -> Iterator[World]:
    with make_world(sessions, quick(aurora()), quick(borealis())) as world:
        first, second = world.clouds.values()
        world.connect(first, prices=aurora_prices())
        world.connect(second, prices={"std.2c4g": "0.05"})
        yield world


def test_an_order_whose_request_was_never_answered_clearly_does_not_go_elsewhere(two_sites: World) -> None:
    """No fence of this site would stop the late machine of an ABSENT attempt from running beside one at another."""
    world = two_sites
    first, second = world.clouds.values()
    first.faults.add(FaultKind.CUT, times=1, **CREATES)
    first.faults.add(FaultKind.QUOTA, skip=1, **CREATES)
    order, lease_id = ordered(world, max_price="1 EUR", requirements={"sites": ["aurora", "borealis"]})
    world.wake(lease_id)
    cut_short(world)
    world.until_gone(lease_id)
    assert tries(world, lease_id) == [Outcome.ABSENT, Outcome.REFUSED]
    assert world.leases(order) == [lease_id]
    assert second.log.alive("server") == set()
    assert state(world, order) is OrderState.RETURNED


def test_an_order_that_was_refused_clearly_goes_elsewhere(two_sites: World) -> None:
    world = two_sites
    first, second = world.clouds.values()
    first.faults.add(FaultKind.QUOTA, **CREATES)
    order, lease_id = ordered(world, max_price="1 EUR", requirements={"sites": ["aurora", "borealis"]})
    world.until_gone(lease_id)
    while len(world.leases(order)) and not second.log.alive("server"):
        world.until(world.leases(order)[-1], lambda lease: lease.gone_at is not None or lease.started_at is not None)
    assert len(second.log.alive("server")) == 1


def cut_short(world: World) -> None:
    """Attempts are given up after 0.3 s, so that absence is known soon."""
    timing = Timing(
        call=timedelta(milliseconds=300),
        claim=timedelta(seconds=20),
        first_look=timedelta(milliseconds=10),
        last_look=timedelta(milliseconds=100),
        settle=timedelta(milliseconds=200),
    )
    world.tools = replace(world.tools, timing=timing)


# --- what comes too late -----------------------------------------------------------------------------------------


def test_a_machine_that_came_after_its_absence_is_deleted_before_the_lease_ends(world: World) -> None:
    """Its request was sent long after `give_up_at`, by a process that was frozen meanwhile."""
    cut_short(world)
    world.cloud.faults.add(FaultKind.CUT, times=1, **CREATES)
    world.cloud.faults.add(FaultKind.TOO_MANY_REQUESTS, skip=1, **CREATES)
    order, lease_id = ordered(world)
    world.until(lease_id, lambda _: Outcome.ABSENT in tries(world, lease_id))
    world.cloud.faults.clear()
    absent = next(a for a in world.view(lease_id).lease.attempts if a.outcome is Outcome.ABSENT)
    late = make_server(world, lease_id, absent.id)
    stop(world, order)
    world.until_gone(lease_id)
    assert world.cloud.log.alive("server") == set()
    assert world.cloud.log.alive("port") == set()
    assert late not in world.cloud.log.alive("server")


def test_a_second_machine_on_the_port_is_deleted_and_the_person_is_told_of_the_network(world: World) -> None:
    order, lease_id = ordered(world)
    view = world.until_running(lease_id)
    (server,) = [part for part in view.lease.parts if part.kind is PartKind.SERVER]
    (kept,) = world.cloud.log.alive("server")
    adapter = world.tools.open_site(view.lease.site_id)
    tags = Tags(world.tools.installation, lease_id, new_id(), "climate", view.lease.ends_at)
    spec = MachineSpec(**view.lease.spec)
    port = adapter.make(PartKind.PORT, spec, tags=tags, made={}, deadline=Deadline.after(5))
    adapter.make(PartKind.SERVER, spec, tags=tags, made={PartKind.PORT: port}, deadline=Deadline.after(5))
    world.observe(view.lease.site_id)
    world.until(lease_id, lambda lease: all(a.outcome is not Outcome.DISCARD for a in lease.attempts))
    assert world.cloud.log.alive("server") == {kept} == {server.remote_id}
    assert "network_in_doubt" in findings(world)
    stop(world, order)
    world.until_gone(lease_id)
    assert "network_in_doubt" not in findings(world)


# --- scope -------------------------------------------------------------------------------------------------------


def test_a_credential_of_another_project_deletes_nothing_and_takes_nothing_for_gone(world: World) -> None:
    order, lease_id = ordered(world)
    world.until_running(lease_id)
    world.wake(lease_id, scope="aurora-1/another-project")
    stop(world, order)
    view = world.work(lease_id)
    assert view.lease.gone_at is None
    assert view.lease.trouble is not None
    assert "another project" in view.lease.trouble
    assert len(world.cloud.log.alive("server")) == 1
    with world.sessions() as session:
        scope = session.scalars(select(Lease.scope).where(Lease.id == lease_id)).one()
    assert scope == "aurora-1/another-project"


def test_the_scope_is_written_when_the_parts_are_planned(world: World) -> None:
    _, lease_id = ordered(world)
    view = world.until_running(lease_id)
    adapter = world.tools.open_site(view.lease.site_id)
    assert view.lease.scope == adapter.scope(deadline=Deadline.after(5))


# --- a site that is only observed --------------------------------------------------------------------------------


def test_at_a_site_that_is_only_observed_nothing_is_changed(world: World) -> None:
    order, lease_id = ordered(world)
    world.until_running(lease_id)
    before = len(world.cloud.log.entries())
    with world.sessions.begin() as session:
        session.execute(update(Site).values(observe_only=True))
    stop(world, order)
    view = world.work(lease_id)
    assert view.lease.gone_at is None
    assert len(world.cloud.log.entries()) == before
    with world.sessions.begin() as session:
        session.execute(update(Site).values(observe_only=False))
    world.until_gone(lease_id)


# --- after a restore ---------------------------------------------------------------------------------------------


def forget(world: World, lease_id: UUID) -> None:
    """The rows of a backup that was made before the launch."""
    with world.sessions.begin() as session:
        session.execute(delete(LaunchAttempt).where(LaunchAttempt.lease_id == lease_id))
        session.execute(delete(Part).where(Part.lease_id == lease_id))
        session.execute(
            update(Lease)
            .where(Lease.id == lease_id)
            .values(state=LeaseState.PENDING, started_at=None, seen_at=None, addresses=[], must_find=True)
        )


def test_after_a_restore_a_machine_is_found_and_not_made_again(world: World) -> None:
    _, lease_id = ordered(world)
    world.until_running(lease_id)
    (server,) = world.cloud.log.alive("server")
    forget(world, lease_id)
    view = world.until_running(lease_id)
    assert world.cloud.log.alive("server") == {server}
    assert len(world.cloud.log.entries(kind="server", event="created")) == 1
    assert len(world.cloud.log.entries(kind="port", event="created")) == 1
    assert not view.lease.must_find


def test_after_a_restore_a_stopped_lease_takes_its_machine_along(world: World) -> None:
    order, lease_id = ordered(world)
    world.until_running(lease_id)
    forget(world, lease_id)
    stop(world, order)
    world.until_gone(lease_id)
    assert world.cloud.log.alive("server") == set()
    assert world.cloud.log.alive("port") == set()


def test_a_listing_has_a_lease_search_whose_rows_know_nothing_of_what_it_shows(world: World) -> None:
    """Also where nobody said that the rows are from a backup."""
    _, lease_id = ordered(world)
    view = world.until_running(lease_id)
    forget(world, lease_id)
    world.wake(lease_id, must_find=False)
    world.observe(view.lease.site_id)
    assert world.view(lease_id).lease.must_find
    world.until_running(lease_id)
    assert len(world.cloud.log.entries(kind="server", event="created")) == 1


def test_what_is_left_of_a_lease_that_was_never_planned_is_deleted(world: World) -> None:
    order, lease_id = ordered(world)
    view = world.until_running(lease_id)
    forget(world, lease_id)
    world.wake(lease_id, must_find=False)
    stop(world, order)
    world.until_gone(lease_id)  # nothing is known, so nothing is deleted
    assert world.cloud.log.alive("server") != set()
    world.observe(view.lease.site_id)
    world.until(lease_id, lambda lease: all(a.outcome is Outcome.GONE for a in lease.attempts) and bool(lease.attempts))
    assert world.cloud.log.alive("server") == set()


# --- what ran unseen ---------------------------------------------------------------------------------------------


def test_a_machine_that_nobody_saw_run_is_seen_before_it_is_deleted(world: World) -> None:
    """Else its time would never be charged."""
    order, lease_id = ordered(world)
    world.wake(lease_id)
    mine = claim(world.sessions, lease_id, length=timedelta(milliseconds=1))
    assert mine is not None
    run = Pass(world.tools, world.tools.open_site(world.view(lease_id).lease.site_id), mine)
    launching.plan(run, world.view(lease_id).lease)
    for number in range(len(world.view(lease_id).lease.parts)):  # a pass that dies before its first look
        lease = world.view(lease_id).lease
        launching.make(run, lease, lease.parts[number])
    assert len(world.cloud.log.entries(kind="server", event="active")) == 1
    stop(world, order)
    world.until_gone(lease_id)
    with world.sessions() as session:
        seen = list(
            session.scalars(
                select(Observation.state).where(Observation.lease_id == lease_id).order_by(Observation.seen_at)
            )
        )
    assert seen == [LeaseState.RUNNING, LeaseState.GONE]


def test_an_end_that_nobody_saw_in_time_is_asked_of_the_site(world: World) -> None:
    """Who deletes, dies, and looks again an hour later has not seen it run for an hour."""
    order, lease_id = ordered(world)
    world.until_running(lease_id)
    world.cloud.faults.add("429", service="compute", method="GET", path=r"/servers/[0-9a-f-]+$", skip=1)
    stop(world, order)
    world.work(lease_id)  # deleted, and then the site is too busy to say so
    time.sleep(1.2)
    world.cloud.faults.clear()
    world.until_gone(lease_id)
    (deleted,) = world.cloud.log.entries(kind="server", event="deleted")
    end = last_sight(world, lease_id)
    assert end.since is not None
    assert abs(end.since - deleted.at) < timedelta(seconds=1)
    assert not end.is_estimated


def test_where_the_site_does_not_say_it_ended_when_it_was_last_seen(world: World) -> None:
    order, lease_id = ordered(world)
    world.until_running(lease_id)
    world.cloud.faults.add("429", service="compute", method="GET", path=r"/servers/[0-9a-f-]+$", skip=1, times=2)
    stop(world, order)
    world.work(lease_id)
    seen_at = world.view(lease_id).lease.seen_at
    time.sleep(0.3)
    world.cloud.faults.add("429", service="compute", method="GET", path=r"/servers/detail")
    world.until_gone(lease_id)
    end = last_sight(world, lease_id)
    assert end.since == seen_at
    assert end.is_estimated


def last_sight(world: World, lease_id: UUID) -> Observation:
    with world.sessions() as session:
        newest = select(Observation).where(Observation.lease_id == lease_id).order_by(Observation.seen_at.desc())
        found = session.scalars(newest.limit(1)).one()
        assert found.state is LeaseState.GONE
        return found


def test_a_lease_that_kills_its_workers_is_told(world: World) -> None:
    """They leave nothing behind but a claim that runs out."""
    _, lease_id = ordered(world)
    for _ in range(STUCK):
        world.wake(lease_id)
        assert claim(world.sessions, lease_id, length=timedelta(milliseconds=1)) is not None
        time.sleep(0.01)
    assert "lease_stuck" not in findings(world)
    world.cloud.faults.add("429", service="compute", method="POST")
    view = world.work(lease_id)
    assert view.lease.failures == STUCK + 1
    assert "lease_stuck" in findings(world)
    world.cloud.faults.clear()
    world.until_running(lease_id)
    assert world.work(lease_id).lease.failures == 0
    assert "lease_stuck" not in findings(world)


def test_an_estimated_end_is_corrected_once_the_site_has_said_it(world: World) -> None:
    order, lease_id = ordered(world)
    site_id = world.until_running(lease_id).lease.site_id
    time.sleep(0.3)
    seen_at = world.view(lease_id).lease.seen_at
    world.cloud.faults.add("429", service="compute", method="GET", path=r"/servers/[0-9a-f-]+$", skip=1, times=2)
    world.cloud.faults.add("429", service="compute", method="GET", path=r"/servers/detail")
    stop(world, order)
    world.work(lease_id)
    time.sleep(1.1)  # Nova names ends to the second
    world.until_gone(lease_id)
    world.settle(lease_id)
    assert last_sight(world, lease_id).is_estimated
    short = charged(world, lease_id)
    assert seen_at is not None
    assert world.view(lease_id).lease.settled_at is not None
    world.cloud.faults.clear()
    world.observe(site_id)
    end = last_sight(world, lease_id)
    assert not end.is_estimated
    assert world.view(lease_id).lease.settled_at is None
    world.settle(lease_id)
    assert world.view(lease_id).lease.settled_at is not None
    assert charged(world, lease_id) != short
    world.observe(site_id)  # once is enough
    assert last_sight(world, lease_id).id == end.id


def charged(world: World, lease_id: UUID) -> Decimal:
    with world.sessions() as session:
        return session.scalars(
            select(func.sum(Charge.billed_cost)).where(Charge.lease_id == lease_id)
        ).one() or Decimal(0)
