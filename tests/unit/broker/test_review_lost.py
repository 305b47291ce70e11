"""Found in a review: ways in which a machine could be lost, kept too long, or missed. Each was seen to fail first."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session, sessionmaker

from adapters.registry import Registry
from adapters.sandbox.faults import FaultKind
from adapters.sandbox.profiles import DEMO_PASSWORD
from broker.claims import Claim, claim
from broker.errors import SetupError, SiteError
from broker.inventory import observe, take_turn
from broker.launching import Pass, _open_attempt, _win, plan
from broker.models.federation import Site
from broker.models.leases import Desired, LaunchAttempt, Lease, LeaseState, Outcome, Part
from broker.models.workloads import Order
from broker.observations import see
from broker.orders import finish_lease, stop_order
from broker.reconcile import STUCK, reconcile
from broker.remote import Deadline, MachineSpec, MachineState, PartKind, RemoteMachine, Secret, Tags
from broker.sites import Doors, check_site, request_check
from broker.timeline import open_findings
from tests.world import World, aurora_prices, connect
from web.identity.vault import SealedVault

ONLY_CREATES = {"service": "compute", "method": "POST", "path": r"/servers$"}


def ordered(world: World) -> tuple[Order, UUID]:
    order = world.order()
    (lease_id,) = world.leases(order)
    return order, lease_id


def claim_now(world: World, lease_id: UUID) -> Claim:
    world.wake(lease_id)
    mine = claim(world.sessions, lease_id, length=timedelta(seconds=30))
    assert mine is not None
    return mine


def a_pass(world: World, lease_id: UUID) -> Pass:
    return Pass(world.tools, world.tools.open_site(world.view(lease_id).lease.site_id), claim_now(world, lease_id))


def part_of(lease: Lease, kind: PartKind) -> Part:
    (part,) = [part for part in lease.parts if part.kind is kind]
    return part


def make_at_site(world: World, lease_id: UUID, attempt_id: UUID) -> str:
    """A machine that the site made for an attempt whose answer nobody has read."""
    lease = world.view(lease_id).lease
    adapter = world.tools.open_site(lease.site_id)
    tags = Tags(world.tools.installation, lease_id, attempt_id, lease.project, lease.ends_at)
    spec, deadline = MachineSpec(**lease.spec), Deadline.after(5)
    spec = replace(spec, ssh_key=None)
    port = adapter.make(PartKind.PORT, spec, tags=tags, made={}, deadline=deadline)
    return adapter.make(PartKind.SERVER, spec, tags=tags, made={PartKind.PORT: port}, deadline=deadline)


def stop(world: World, order: Order) -> None:
    with world.sessions.begin() as session:
        stop_order(session, order.id, jobs=world.jobs, actor="tests", reason="done")


def findings(world: World) -> list[str]:
    with world.sessions() as session:
        return [finding.kind for finding in open_findings(session)]


def frozen_launch(world: World) -> tuple[Order, Pass, LaunchAttempt, Part]:
    """A worker that froze after its request was committed; the attempt was then looked for, and not found."""
    order, lease_id = ordered(world)
    run = a_pass(world, lease_id)
    plan(run, world.view(lease_id).lease)
    lease = world.view(lease_id).lease
    part = part_of(lease, PartKind.SERVER)
    attempt = _open_attempt(run, lease, part)
    with world.sessions.begin() as session:
        session.execute(update(LaunchAttempt).values(outcome=Outcome.ABSENT))
    return order, run, attempt, part


def test_an_answer_that_comes_after_the_lease_is_over_is_deleted(world: World) -> None:
    order, run, attempt, part = frozen_launch(world)
    stop(world, order)
    world.wake(part.lease_id, claim_until=None)
    world.until_gone(part.lease_id)
    world.settle(part.lease_id)

    assert not _win(run, attempt.id, part, make_at_site(world, part.lease_id, attempt.id))

    assert reconcile(world.tools, part.lease_id), "nobody woke the lease"
    assert world.cloud.log.alive("server") == set()
    assert part_of(world.view(part.lease_id).lease, PartKind.SERVER).remote_id is None


def test_a_lease_is_not_over_while_an_answer_came_in_since_it_was_read(world: World) -> None:
    order, run, attempt, part = frozen_launch(world)
    stop(world, order)
    world.wake(part.lease_id, claim_until=None)
    mine = claim_now(world, part.lease_id)  # it has read the rows, and decided that nothing is left
    assert _win(run, attempt.id, part, make_at_site(world, part.lease_id, attempt.id))

    finish_lease(world.tools, mine)

    assert world.view(part.lease_id).lease.gone_at is None
    world.wake(part.lease_id, claim_until=None)
    world.until_gone(part.lease_id)
    assert world.cloud.log.alive("server") == set()


def test_a_machine_that_shows_again_after_it_was_taken_for_gone_is_deleted(world: World) -> None:
    _, lease_id = ordered(world)
    view = world.until_running(lease_id)
    with world.sessions.begin() as session:  # the site said 404, and was wrong
        session.execute(update(Part).values(gone_at=func.clock_timestamp()))
        session.execute(
            update(Lease).values(desired=Desired.GONE, state=LeaseState.GONE, gone_at=func.clock_timestamp())
        )
    world.settle(lease_id)

    world.observe(view.lease.site_id)
    for _ in range(3):
        world.work(lease_id)

    assert world.cloud.log.alive("server") == set()


def test_a_leftover_that_cannot_be_deleted_does_not_keep_the_machine_running(world: World) -> None:
    order, lease_id = ordered(world)
    view = world.until_running(lease_id)
    (kept,) = world.cloud.log.alive("server")
    extra = make_at_site(world, lease_id, view.lease.attempts[-1].id)
    fault = world.cloud.faults.add(FaultKind.FORBIDDEN, method="DELETE", path=extra)
    world.observe(view.lease.site_id)
    stop(world, order)

    for _ in range(5):
        view = world.work(lease_id)
    assert kept not in world.cloud.log.alive("server")
    assert view.lease.trouble is not None
    assert view.lease.failures > 1
    assert view.lease.gone_at is None, "something of it is still there"

    world.cloud.faults.remove(fault)
    world.until_gone(lease_id)
    assert world.cloud.log.alive("server") == set()


def test_a_site_whose_clock_is_behind_does_not_end_the_machine_at_once(world: World) -> None:
    _, lease_id = ordered(world)
    seen_at = world.now()
    behind = RemoteMachine(
        PartKind.SERVER, "x", "x", None, MachineState.RUNNING, "ACTIVE", None, None, seen_at - timedelta(hours=9)
    )
    with world.sessions.begin() as session:
        lease = session.get_one(Lease, lease_id, with_for_update=True)
        see(session, lease, behind, seen_at=seen_at, last=None)
        assert lease.started_at == lease.made_at
        assert lease.ends_at == lease.made_at + timedelta(hours=2)


def test_a_person_is_told_also_when_the_telling_was_lost_once(world: World) -> None:
    world.cloud.faults.add(FaultKind.SERVER_ERROR, service="network")
    _, lease_id = ordered(world)
    world.work(lease_id)
    world.wake(lease_id, failures=STUCK)  # the process died before it could tell
    world.work(lease_id)
    assert findings(world) == ["lease_stuck"]


def test_a_launch_that_is_never_answered_clearly_becomes_a_finding(world: World) -> None:
    fault = world.cloud.faults.add(FaultKind.SERVER_ERROR, **ONLY_CREATES)
    world.tools = replace(world.tools, timing=replace(world.tools.timing, call=timedelta(milliseconds=300)))
    _, lease_id = ordered(world)

    def unclear(lease: Lease) -> bool:
        return sum(attempt.outcome is Outcome.ABSENT for attempt in lease.attempts) >= 3

    world.until(lease_id, unclear)
    assert findings(world) == ["lease_stuck"]

    world.cloud.faults.remove(fault)
    world.tools = replace(world.tools, timing=replace(world.tools.timing, call=timedelta(seconds=5)))
    world.until_running(lease_id)
    assert findings(world) == []


def test_two_sites_of_one_cloud_account_do_not_take_each_others_machines_for_lost(world: World) -> None:
    _, lease_id = ordered(world)
    world.until_running(lease_id)
    config = world.cloud.config
    second = connect(
        world.sessions,
        world.doors,
        world.jobs,
        endpoint=world.cloud.auth_url,
        name="aurora-again",
        region=config.region,
        project=config.projects[0].name,
        prices=aurora_prices(),
    )
    world.observe(second)
    assert findings(world) == []


def test_a_listing_of_another_project_is_never_absence(world: World) -> None:
    _, lease_id = ordered(world)
    site_id = world.until_running(lease_id).lease.site_id
    other = Secret(
        {
            "username": "alice",
            "password": DEMO_PASSWORD,
            "project_name": "physics",
            "user_domain_name": "Default",
            "project_domain_name": "Default",
        }
    )
    with world.sessions.begin() as session:
        world.doors.vault.store(session, site_id, other)

    with pytest.raises(SiteError, match="another project"):
        world.observe(site_id)

    assert world.view(lease_id).lease.missing_since is None
    with world.sessions() as session:
        assert "another project" in (session.get_one(Site, site_id).trouble or "")


def without_its_key(world: World) -> World:
    doors = Doors(world.sessions, Registry(), SealedVault(b"x" * 32), world.doors.installation)
    return replace(world, tools=replace(world.tools, open_site=doors.open))


def test_a_site_that_cannot_be_opened_says_so_and_is_tried_again(world: World) -> None:
    site_id = world.view(ordered(world)[1]).lease.site_id
    with pytest.raises(SetupError, match="another key"):
        without_its_key(world).observe(site_id)
    with world.sessions() as session:
        site = session.get_one(Site, site_id)
        assert "another key" in (site.trouble or "")
        assert site.listing_claim_until is None


def test_a_check_of_a_site_that_cannot_be_opened_is_answered(world: World) -> None:
    site_id = world.view(ordered(world)[1]).lease.site_id
    check_site(without_its_key(world).tools, site_id)
    with world.sessions() as session:
        site = session.get_one(Site, site_id)
        assert "another key" in site.diagnosis[-1]["detail"]


def test_an_older_check_does_not_replace_the_answer_of_a_newer_one(world: World) -> None:
    site_id = world.view(ordered(world)[1]).lease.site_id
    fault = world.cloud.faults.add(FaultKind.SLOW, times=1, seconds=1)
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(check_site, world.tools, site_id)
        while not world.cloud.faults.hits(fault):
            time.sleep(0.01)
        with world.sessions.begin() as session:
            request_check(session, session.get_one(Site, site_id), jobs=world.jobs)
        check_site(world.tools, site_id)
        slow.result()
    with world.sessions() as session:
        site = session.get_one(Site, site_id)
        assert site.checked_at is not None
        assert site.check_wanted_at is not None
        assert site.checked_at >= site.check_wanted_at


def test_a_listing_and_a_stop_lock_leases_in_one_order(world: World, sessions: sessionmaker[Session]) -> None:
    order = world.order(count=2)
    first, second = world.leases(order)
    world.until_running(second)
    run = a_pass(world, first)
    plan(run, world.view(first).lease)
    lease = world.view(first).lease
    attempt = _open_attempt(run, lease, part_of(lease, PartKind.SERVER))
    make_at_site(world, first, attempt.id)  # its answer is still on the way
    with world.sessions.begin() as session:
        session.execute(update(Site).values(next_listing_at=func.clock_timestamp()))
    turn = take_turn(world.tools, lease.site_id)
    assert turn is not None

    with ThreadPoolExecutor(1) as pool:
        with sessions.begin() as session:  # as `stop_order` locks
            session.execute(select(Lease.id).where(Lease.id == first).with_for_update(key_share=True))
            listing = pool.submit(observe, world.tools, turn)
            with pytest.raises(TimeoutError):
                listing.result(timeout=1.5)  # it waits
            session.execute(select(Lease.id).where(Lease.id == second).with_for_update(key_share=True))
        assert listing.result()
