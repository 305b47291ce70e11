"""Launching against a cloud that misbehaves: never two, never lost, never silent. Counted from the cloud's own log."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session, sessionmaker

from adapters.sandbox.config import QuotaConfig
from adapters.sandbox.faults import FaultKind
from adapters.sandbox.profiles import aurora, borealis
from broker.claims import Claim, claim
from broker.database import database_now
from broker.errors import Fenced, QuotaExhausted, SiteError
from broker.launching import Pass, _open_attempt, _win, plan, record_stray
from broker.models.audit import Event, Finding
from broker.models.leases import Desired, LaunchAttempt, Lease, LeaseState, Observation, Outcome, Part
from broker.models.workloads import Order, OrderState
from broker.observations import see
from broker.orders import Choice, set_power, stop_order
from broker.reconcile import STUCK, reconcile
from broker.remote import Deadline, MachineSpec, MachineState, PartKind, RemoteMachine, Tags
from broker.timeline import open_findings
from broker.values import new_id
from tests.world import World, aurora_prices, make_world, quick

ONLY_CREATES = {"service": "compute", "method": "POST", "path": r"/servers$"}


def servers_ever(world: World) -> int:
    return sum(len(cloud.log.entries(kind="server", event="created")) for cloud in world.clouds.values())


def servers_alive(world: World) -> int:
    return sum(len(cloud.log.alive("server")) for cloud in world.clouds.values())


def outcomes(world: World, lease_id: UUID, kind: PartKind = PartKind.SERVER) -> list[Outcome]:
    lease = world.view(lease_id).lease
    (part,) = [part for part in lease.parts if part.kind is kind]
    return [attempt.outcome for attempt in lease.attempts if attempt.part_id == part.id]


def state_of(world: World, order: Order) -> OrderState:
    with world.sessions() as session:
        return session.get_one(Order, order.id).state


def ordered(world: World, **changes: object) -> tuple[Order, UUID]:
    order = world.order(**changes)
    (lease_id,) = world.leases(order)
    return order, lease_id


def test_a_lost_answer_is_found_again_and_not_repeated(world: World) -> None:
    world.cloud.faults.add(FaultKind.ANSWER_LOST, times=1, **ONLY_CREATES)
    _, lease_id = ordered(world)

    world.until_running(lease_id)

    assert servers_ever(world) == 1
    assert outcomes(world, lease_id) == [Outcome.CREATED]


def test_a_request_that_never_arrived_is_repeated_only_after_the_settle_time(world: World) -> None:
    world.cloud.faults.add(FaultKind.CUT, times=1, **ONLY_CREATES)
    order, lease_id = ordered(world)

    view = world.work(lease_id)
    assert outcomes(world, lease_id) == [Outcome.UNKNOWN]
    (part,) = [part for part in view.lease.parts if part.kind is PartKind.SERVER]
    with world.sessions.begin() as session:  # the call's time is nearly over
        session.execute(
            update(LaunchAttempt)
            .where(LaunchAttempt.part_id == part.id)
            .values(give_up_at=func.clock_timestamp() + timedelta(milliseconds=200))
        )
    view = world.work(lease_id)
    assert outcomes(world, lease_id) == [Outcome.UNKNOWN], "tried again before give_up_at + settle"

    world.until_running(lease_id)
    assert outcomes(world, lease_id) == [Outcome.ABSENT, Outcome.CREATED]
    assert servers_ever(world) == 1
    assert state_of(world, order) is OrderState.ACTIVE


@pytest.mark.parametrize("kind", [FaultKind.SERVER_ERROR, FaultKind.FOREIGN_JSON, FaultKind.HTML])
def test_an_unclear_answer_is_unknown_and_not_refused(world: World, kind: FaultKind) -> None:
    world.cloud.faults.add(kind, times=1, **ONLY_CREATES)
    order, lease_id = ordered(world)

    world.work(lease_id)

    assert outcomes(world, lease_id)[0] in (Outcome.UNKNOWN, Outcome.CREATED)
    assert state_of(world, order) is not OrderState.RETURNED


def test_a_machine_that_shows_late_is_adopted(world: World) -> None:
    world.cloud.faults.add(FaultKind.HIDDEN, times=1, seconds=0.2, **ONLY_CREATES)
    world.cloud.faults.add(FaultKind.ANSWER_LOST, times=1, **ONLY_CREATES)
    _, lease_id = ordered(world)

    world.until_running(lease_id)

    assert servers_ever(world) == 1


def test_a_worker_that_died_before_its_request_costs_one_settle_time(world: World) -> None:
    _, lease_id = ordered(world)
    mine = claim(world.sessions, lease_id, length=timedelta(milliseconds=100))
    assert mine is not None
    view = world.view(lease_id)
    run = Pass(
        replace(world.tools, timing=replace(world.tools.timing, call=timedelta(milliseconds=300))),
        world.tools.open_site(view.lease.site_id),
        mine,
    )
    plan(run, view.lease)  # the first half of a pass, by hand
    view = world.view(lease_id)
    _open_attempt(run, view.lease, view.lease.parts[-1])  # and here it dies
    world.wake(lease_id, claim_until=None)

    world.until_running(lease_id)

    assert outcomes(world, lease_id) == [Outcome.ABSENT, Outcome.CREATED]
    assert servers_ever(world) == 1


def test_a_second_worker_cannot_claim_and_a_frozen_one_cannot_write(world: World) -> None:
    _, lease_id = ordered(world)
    first = claim(world.sessions, lease_id, length=timedelta(seconds=30))
    assert first is not None
    assert claim(world.sessions, lease_id, length=timedelta(seconds=30)) is None

    world.wake(lease_id, claim_until=None)  # the first one's time is over
    second = claim(world.sessions, lease_id, length=timedelta(seconds=30))
    assert second is not None
    assert second.generation == first.generation + 1

    run = Pass(world.tools, world.tools.open_site(world.view(lease_id).lease.site_id), first)
    with pytest.raises(Fenced):
        plan(run, world.view(lease_id).lease)
    assert world.view(lease_id).lease.parts == []


def test_no_capacity_deletes_the_broken_machine_and_takes_the_next_offer_within_the_limit(
    sessions: sessionmaker[Session],
) -> None:
    with make_world(sessions, quick(aurora()), quick(borealis())) as world:
        first, second = world.clouds.values()
        world.connect(first, prices=aurora_prices())
        world.connect(second, prices={"std.2c4g": "0.05"})
        first.faults.add(FaultKind.NO_CAPACITY, **ONLY_CREATES)
        order, lease_id = ordered(
            world,
            max_price="1 EUR",
            requirements={"sites": ["aurora", "borealis"]},
            resources={"cores": 2, "memory": "4 GiB"},
        )

        for _ in range(12):
            leases = world.leases(order)
            view = world.until(leases[-1], lambda lease: lease.gone_at is not None or lease.state is LeaseState.RUNNING)
            if view.lease.state is LeaseState.RUNNING:
                break
        assert view.lease.state is LeaseState.RUNNING
        assert servers_alive(world) == 1
        assert second.log.alive("server")
        assert all(world.view(lease).lease.failure for lease in world.leases(order)[:-1])
        assert lease_id != view.lease.id


def test_a_refusal_returns_the_order_and_gives_the_money_back(world: World) -> None:
    world.cloud.faults.add(FaultKind.QUOTA, **ONLY_CREATES)
    order, lease_id = ordered(world)

    world.until_gone(lease_id)
    world.settle(lease_id)

    assert servers_ever(world) == 0
    assert world.cloud.log.alive("port") == set()
    with world.sessions() as session:
        row = session.get_one(Order, order.id)
        assert row.state in (OrderState.RETURNED, OrderState.OVER)
        assert row.reason is not None
        assert "uota" in row.reason
        facts = world.quoting.facts.for_project(session, row.project_id, now=database_now(session))
        assert [str(free) for free in facts.free.values()] == ["100.00 EUR"]


def test_a_returned_order_can_be_let_go(world: World) -> None:
    world.cloud.faults.add(FaultKind.QUOTA, **ONLY_CREATES)
    order, lease_id = ordered(world)
    world.until_gone(lease_id)
    world.settle(lease_id)
    assert state_of(world, order) is OrderState.RETURNED

    with world.sessions.begin() as session:
        stop_order(session, order.id, jobs=world.jobs, actor="tests", reason="never mind")
    assert state_of(world, order) is OrderState.OVER


def test_one_machine_that_cannot_be_had_leaves_the_others_alone(world: World) -> None:
    world.cloud.faults.add(FaultKind.QUOTA, times=1, **ONLY_CREATES)
    order = world.order(count=2)
    first, second = world.leases(order)
    view = world.until_gone(first)
    assert view.lease.failure is not None
    world.until_running(second)
    assert state_of(world, order) is OrderState.ACTIVE

    with world.sessions.begin() as session:
        stop_order(session, order.id, jobs=world.jobs, actor="tests", reason="done")
    world.until_gone(second)
    for lease_id in (first, second):
        world.settle(lease_id)
    assert state_of(world, order) is OrderState.OVER


@pytest.mark.parametrize("kind", [FaultKind.UNAUTHORIZED, FaultKind.TOO_MANY_REQUESTS])
def test_denied_or_busy_is_tried_again_and_the_offer_is_kept(world: World, kind: FaultKind) -> None:
    world.cloud.faults.add(kind, times=2, seconds=0.05, **ONLY_CREATES)
    order, lease_id = ordered(world)

    world.until_running(lease_id)

    assert servers_ever(world) == 1
    assert world.leases(order) == [lease_id]


def test_a_duplicate_that_a_listing_shows_is_deleted_and_the_kept_one_stays(world: World) -> None:
    _, lease_id = ordered(world)
    view = world.until_running(lease_id)
    (kept,) = world.cloud.log.alive("server")
    adapter = world.tools.open_site(view.lease.site_id)
    tags = Tags(world.tools.installation, lease_id, view.lease.attempts[-1].id, "climate", view.lease.ends_at)
    spec = MachineSpec(**view.lease.spec)
    port = adapter.make(PartKind.PORT, spec, tags=tags, made={}, deadline=Deadline.after(5))
    extra = adapter.make(PartKind.SERVER, spec, tags=tags, made={PartKind.PORT: port}, deadline=Deadline.after(5))
    assert world.cloud.log.alive("server") == {kept, extra}

    world.observe(view.lease.site_id)
    world.until(lease_id, lambda lease: all(a.outcome is not Outcome.DISCARD for a in lease.attempts))

    assert world.cloud.log.alive("server") == {kept}
    assert len(world.cloud.log.alive("port")) == 1
    assert world.view(lease_id).lease.state is LeaseState.RUNNING


def test_a_vanished_machine_is_gone_only_after_two_listings_and_a_look(world: World) -> None:
    _, lease_id = ordered(world)
    view = world.until_running(lease_id)
    world.cloud.vanish(*world.cloud.log.alive("server"))

    view = world.work(lease_id)
    assert view.lease.desired is Desired.RUNNING, "a single 404 is no absence"
    world.observe(view.lease.site_id)
    view = world.work(lease_id)
    assert view.lease.desired is Desired.RUNNING, "one listing is no absence"
    time.sleep(0.35)
    world.observe(view.lease.site_id)
    view = world.until_gone(lease_id)

    with world.sessions() as session:
        last = session.scalars(
            select(Observation).where(Observation.lease_id == lease_id).order_by(Observation.seen_at.desc())
        ).first()
        assert last is not None
        assert last.state is LeaseState.GONE
        assert last.is_estimated


def test_a_machine_that_somebody_deleted_at_the_site_ended_when_the_site_says(world: World) -> None:
    _, lease_id = ordered(world)
    view = world.until_running(lease_id)
    (server,) = world.cloud.log.alive("server")
    world.tools.open_site(view.lease.site_id).delete(PartKind.SERVER, server, deadline=Deadline.after(5))
    world.observe(view.lease.site_id)
    time.sleep(0.35)
    world.observe(view.lease.site_id)
    world.until_gone(lease_id)

    (deleted,) = world.cloud.log.entries(kind="server", event="deleted")
    with world.sessions() as session:
        last = session.scalars(
            select(Observation).where(Observation.lease_id == lease_id).order_by(Observation.seen_at.desc())
        ).first()
        assert last is not None
        assert not last.is_estimated
        assert last.since is not None
        assert abs(last.since - deleted.at) < timedelta(seconds=1)  # Nova names it to the second


@pytest.mark.parametrize(
    "kind",
    [
        FaultKind.UNAUTHORIZED,
        FaultKind.FORBIDDEN,
        FaultKind.HTML,
        FaultKind.LOST_LINK,
        FaultKind.FOREIGN_JSON,
        FaultKind.SERVER_ERROR,
        FaultKind.CUT,
    ],
)
def test_a_listing_that_fails_is_never_absence(world: World, kind: FaultKind) -> None:
    _, lease_id = ordered(world)
    view = world.until_running(lease_id)
    world.cloud.faults.add(kind, service="compute", method="GET", path=r"/servers/detail")
    for _ in range(3):
        try:
            world.observe(view.lease.site_id)
        except SiteError:
            world.wake(lease_id)
    lease = world.view(lease_id).lease

    assert lease.missing_since is None
    assert not lease.is_missing
    assert lease.desired is Desired.RUNNING


def test_older_sightings_are_dropped(world: World) -> None:
    _, lease_id = ordered(world)
    view = world.until_running(lease_id)
    late = RemoteMachine(PartKind.SERVER, "x", "x", None, MachineState.STOPPED, "SHUTOFF", None, None, None)
    with world.sessions.begin() as session:
        lease = session.get_one(Lease, lease_id, with_for_update=True)
        assert lease.seen_at is not None
        assert not see(session, lease, late, seen_at=lease.seen_at - timedelta(seconds=1), last=None)
        assert lease.state is LeaseState.RUNNING
    assert view.lease.state is LeaseState.RUNNING


def test_stop_shelve_start_and_the_end_date(world: World) -> None:
    order, lease_id = ordered(world)
    world.until_running(lease_id)
    for desired, state in (
        (Desired.STOPPED, LeaseState.STOPPED),
        (Desired.SHELVED, LeaseState.SHELVED),
        (Desired.RUNNING, LeaseState.RUNNING),
    ):
        with world.sessions.begin() as session:
            set_power(session, order.id, desired, jobs=world.jobs, actor="tests")
        world.until(lease_id, lambda lease, state=state: lease.state is state)  # type: ignore[misc] # bound now

    world.wake(lease_id, ends_at=func.clock_timestamp(), grace=None)
    view = world.until_gone(lease_id)

    assert view.lease.stop_reason == "its end date has come"
    assert servers_alive(world) == 0


def test_a_cancel_before_the_launch_makes_nothing(world: World) -> None:
    order, lease_id = ordered(world)
    with world.sessions.begin() as session:
        stop_order(session, order.id, jobs=world.jobs, actor="tests", reason="changed my mind")

    world.until_gone(lease_id)
    world.settle(lease_id)

    assert servers_ever(world) == 0
    assert state_of(world, order) is OrderState.OVER


def test_quota_is_held_before_the_site_counts_it_and_not_twice_afterwards(
    sessions: sessionmaker[Session],
) -> None:
    config = quick(aurora())
    tight = replace(
        config,
        projects=(
            replace(config.projects[0], quota=QuotaConfig(instances=2, cores=4, ram_mib=9000)),
            *config.projects[1:],
        ),
    )
    with make_world(sessions, tight) as world:
        site = world.connect(world.cloud, prices=aurora_prices())
        first = world.quote()
        second = world.quote(name="second")
        third = world.quote(name="third")
        orders = [world.order_quote(Choice(first.id)), world.order_quote(Choice(second.id))]
        with pytest.raises(QuotaExhausted, match="aurora has 0"):
            world.order_quote(Choice(third.id))
        for order in orders:
            world.until_running(world.leases(order)[0])
        world.observe(site)  # now the site counts them itself
        with pytest.raises(QuotaExhausted):
            world.order_quote(Choice(third.id))
        with world.sessions.begin() as session:
            stop_order(session, orders[0].id, jobs=world.jobs, actor="tests", reason="room")
        world.until_gone(world.leases(orders[0])[0])
        world.observe(site)
        assert world.order_quote(Choice(third.id)).state is OrderState.PLACED


def test_machines_that_leeway_did_not_make_are_findings_and_stay(world: World) -> None:
    (foreign,) = world.cloud.add_foreign_servers(1, project="leeway")
    site_id = world.view(ordered(world)[1]).lease.site_id
    world.observe(site_id)
    with world.sessions() as session:
        findings = session.scalars(select(Finding).where(Finding.resolved_at.is_(None))).all()
        assert [finding.kind for finding in findings] == ["unknown_machine"]
    assert foreign in world.cloud.log.alive("server")


def test_an_idempotency_key_places_one_order(world: World) -> None:
    first = world.order(key="once")
    again = world.order_quote(Choice(first.quote_id, 1, "once"))
    assert again.id == first.id
    with world.sessions() as session:
        assert session.scalars(select(func.count()).select_from(Order)).one() == 1
        assert session.scalars(select(func.count()).select_from(Event).where(Event.kind == "hold")).one() == 1


def test_a_pass_over_a_lease_that_is_not_due_does_nothing(world: World) -> None:
    _, lease_id = ordered(world)
    world.wake(lease_id, next_look_at=None)
    assert not reconcile(world.tools, lease_id)
    assert servers_ever(world) == 0
    with world.sessions() as session:
        assert session.scalars(select(Part)).all() == []


def test_who_comes_second_to_a_part_is_discarded_and_the_first_is_kept(world: World) -> None:
    _, lease_id = ordered(world)
    view = world.until_running(lease_id)
    (port,) = [part for part in view.lease.parts if part.kind is PartKind.PORT]
    adapter = world.tools.open_site(view.lease.site_id)
    mine = claim_now(world, lease_id)
    run = Pass(world.tools, adapter, mine)
    tags = Tags(world.tools.installation, lease_id, new_id(), "climate", view.lease.ends_at)
    late = adapter.make(
        PartKind.PORT, MachineSpec(**view.lease.spec), tags=tags, made={}, deadline=Deadline.after(5)
    )  # the answer to a frozen worker

    with world.sessions.begin() as session:
        attempt = record_stray(session, port, "", outcome=Outcome.UNKNOWN)
    assert not _win(run, attempt, port, late)
    world.wake(lease_id, claim_until=None)
    world.until(lease_id, lambda lease: any(a.outcome is Outcome.GONE for a in lease.attempts))

    assert world.cloud.log.alive("port") == {port.remote_id}
    assert world.view(lease_id).lease.state is LeaseState.RUNNING


def claim_now(world: World, lease_id: UUID) -> Claim:
    world.wake(lease_id)
    mine = claim(world.sessions, lease_id, length=timedelta(seconds=30))
    assert mine is not None
    return mine


def test_many_workers_at_one_lease_make_one_machine(world: World) -> None:
    order = world.order(count=3, public_address=True)
    leases = world.leases(order)
    with ThreadPoolExecutor(8) as pool:
        for _ in range(6):
            for lease_id in leases:
                world.wake(lease_id)
            list(pool.map(lambda lease_id: reconcile(world.tools, lease_id), leases * 4))
    for lease_id in leases:
        world.until_running(lease_id)

    assert servers_ever(world) == 3
    assert len(world.cloud.log.alive("port")) == 3
    assert len(world.cloud.log.alive("floating_ip")) == 3

    with world.sessions.begin() as session:
        stop_order(session, order.id, jobs=world.jobs, actor="tests", reason="done")
    for lease_id in leases:
        world.until_gone(lease_id)
    for kind in ("server", "port", "floating_ip", "key_pair"):
        assert world.cloud.log.alive(kind) == set(), kind


def test_a_lease_that_keeps_failing_backs_off_and_becomes_a_finding_until_it_gets_on(world: World) -> None:
    fault = world.cloud.faults.add(FaultKind.SERVER_ERROR, service="network")
    _, lease_id = ordered(world)
    lease = world.until(lease_id, lambda lease: lease.failures == STUCK).lease
    assert lease.trouble is not None
    assert [finding.kind for finding in findings(world)] == ["lease_stuck"]

    world.cloud.faults.remove(fault)
    world.work(lease_id)
    world.until_running(lease_id)
    assert findings(world) == []


def findings(world: World) -> list[Finding]:
    with world.sessions() as session:
        return open_findings(session)
