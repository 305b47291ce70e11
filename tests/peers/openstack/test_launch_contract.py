"""The launch contract against the real Nova and Neutron: Leeway's core, PostgreSQL, and the cloud's own word.

What Nova does with two requests for one port (Zed, in every round seen): both get their 202, one runs, the other ends
in ERROR, because the pair of port and MAC address is unique in Nova's database. If the one that runs is deleted while
the other is still being built, the other runs after it. The port itself is no witness: whoever loses takes it away from
the winner while it cleans up.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from threading import Thread
from uuid import UUID

import pytest
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session, sessionmaker

from accounting.ledger import verify
from accounting.models.charges import Charge
from accounting.models.grants import MoneyHold
from broker.meters import VOLUME_SKU
from broker.models.audit import Finding
from broker.models.holds import QuotaHold
from broker.models.leases import OPEN, LaunchAttempt, Lease, LeaseState, Observation, Outcome, Part
from broker.models.workloads import Order, OrderState
from broker.orders import stop_order
from broker.reconcile import reconcile
from broker.remote import PartKind
from tests.peers.openstack.federation import (
    PAUSE,
    PEER,
    SECONDS,
    Cloud,
    Life,
    connect,
    federation,
    ordered,
    until,
)
from tests.peers.openstack.wire import Fate, Wire, wire
from tests.world import World

A_SECOND = 1.1  # Nova's times are whole seconds, so what runs for less may have run for none
MILLIONTH = Decimal("0.000001")
PRICES = {"m1.tiny": "3.60", "public-address": "0.36"}

pytestmark = PEER


@pytest.fixture(scope="module")
def cloud() -> Iterator[Cloud]:
    made = Cloud()
    yield made
    made.close()


@pytest.fixture
def line(monkeypatch: pytest.MonkeyPatch) -> Iterator[Wire]:
    """Every request of the test goes through it."""
    for name in ("no_proxy", "NO_PROXY", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with wire() as made:
        monkeypatch.setenv("http_proxy", made.url)
        yield made


@pytest.fixture
def world(sessions: sessionmaker[Session], cloud: Cloud) -> Iterator[World]:
    with federation(sessions) as made:
        yield made
        with made.sessions() as session:
            leases = session.scalars(select(Lease.id)).all()
    for lease_id in leases:
        cloud.clear(lease_id)


# --- what is asked of rows and cloud -----------------------------------------------------------------------------


def part(lease: Lease, kind: PartKind) -> Part:
    (found,) = [part for part in lease.parts if part.kind is kind]
    return found


def tries(lease: Lease) -> list[LaunchAttempt]:
    server = part(lease, PartKind.SERVER)
    return [attempt for attempt in lease.attempts if attempt.part_id == server.id]


def time_is_over(world: World, lease_id: UUID) -> None:
    """The last moment at which the open attempt's request might be sent, and the settle time after it, have passed."""
    with world.sessions.begin() as session:
        session.execute(
            update(LaunchAttempt)
            .where(LaunchAttempt.lease_id == lease_id, LaunchAttempt.outcome.in_(OPEN))
            .values(give_up_at=func.clock_timestamp() - timedelta(minutes=5))
        )


def wait_for_lives(cloud: Cloud, lease_id: UUID, *statuses: str) -> list[Life]:
    limit = time.monotonic() + SECONDS
    while True:
        lives = cloud.lives(lease_id)
        if sorted(life.status for life in lives) == sorted(statuses):
            return lives
        assert time.monotonic() < limit, lives
        time.sleep(PAUSE)


def at_rest(lease: Lease) -> bool:
    """Running or over, and every attempt's outcome is known and dealt with."""
    is_open = any(attempt.outcome in (*OPEN, Outcome.DISCARD) for attempt in lease.attempts)
    return not is_open and (lease.state is LeaseState.RUNNING or lease.gone_at is not None)


def state_of(world: World, order: Order) -> OrderState:
    with world.sessions() as session:
        return session.get_one(Order, order.id).state


def stop(world: World, order: Order, lease_id: UUID) -> None:
    time.sleep(A_SECOND)
    with world.sessions.begin() as session:
        stop_order(session, order.id, jobs=world.jobs, actor="tests", reason="done")
    until(world, lease_id, lambda lease: lease.settled_at is not None)


def books(world: World, order: Order) -> dict[str, Decimal]:
    """What each machine cost that cost anything; the books are in order, and nothing is set aside any more."""
    with world.sessions() as session:
        assert verify(session) == []
        holds = session.scalars(select(MoneyHold).where(MoneyHold.order_id == order.id)).all()
        assert all(hold.released_at is not None for hold in holds)
        assert all(hold.released_at is not None for hold in session.scalars(select(QuotaHold)))
        rows = session.execute(
            select(Charge.resource_id, func.sum(Charge.billed_cost))
            .where(Charge.lease_id.in_(select(Lease.id).where(Lease.order_id == order.id)))
            .where(Charge.sku_id == "m1.tiny")
            .group_by(Charge.resource_id)
        ).all()
        return {machine: cost.quantize(MILLIONTH) for machine, cost in rows if cost}


def findings(world: World, lease_id: UUID) -> list[str]:
    """What a person is told of a lease."""
    with world.sessions() as session:
        told = select(Finding.kind).where(Finding.lease_id == lease_id, Finding.resolved_at.is_(None))
        return list(session.scalars(told))


def ran_for(world: World, lease_id: UUID) -> timedelta:
    """From when it began to run to its end, as both were written down; Nova cuts off what is less than a second."""
    with world.sessions() as session:
        seen = session.scalars(
            select(Observation).where(Observation.lease_id == lease_id).order_by(Observation.seen_at)
        ).all()
        (gone,) = [one for one in seen if one.state is LeaseState.GONE]
        started_at = session.get_one(Lease, lease_id).started_at
    assert started_at is not None
    assert gone.since is not None
    still_built = [one.seen_at for one in seen if one.state is LeaseState.BUILDING]
    return gone.since - max([started_at, *still_built])


def runs_alone(lives: list[Life]) -> bool:
    """Whether no two ever ran at one time. A second is allowed: the port is free a little before the end is written."""
    never = datetime.max.replace(tzinfo=UTC)
    ran = sorted((life.launched_at, life.ended_at or never) for life in lives if life.launched_at)
    return all(ended <= launched + timedelta(seconds=1) for (_, ended), (launched, _) in pairwise(ran))


# --- the port race -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order_of_two", [Fate.BEFORE, Fate.AFTER], ids=["first", "second"])
def test_a_frozen_worker_that_wakes_up_beside_its_successor_never_makes_two_machines(
    world: World, cloud: Cloud, line: Wire, order_of_two: Fate
) -> None:
    """Both requests reach Nova together, and both workers get their answer."""
    site_id = connect(world, prices=PRICES)
    world.observe(site_id)
    line.servers_meet(frozenset({Fate.HELD}), frozenset({order_of_two}))
    order, lease_id = ordered(world)
    frozen = Thread(target=reconcile, args=(world.tools, lease_id))
    frozen.start()
    assert line.holds.wait(SECONDS)
    world.wake(lease_id, claim_until=None)
    time_is_over(world, lease_id)

    until(world, lease_id, lambda lease: len(tries(lease)) == 2)
    frozen.join(SECONDS)

    assert line.said == [202, 202]
    assert_one_or_none(world, cloud, order, lease_id)


@pytest.mark.parametrize("is_answered", [True, False], ids=["answered", "not answered"])
def test_a_request_that_arrives_after_its_worker_died_never_makes_two_machines(
    world: World, cloud: Cloud, line: Wire, *, is_answered: bool
) -> None:
    """Both requests reach Nova together; nobody hears of the first, and Nova has decided before Leeway looks."""
    site_id = connect(world, prices=PRICES)
    world.observe(site_id)
    second = {Fate.BEFORE} if is_answered else {Fate.BEFORE, Fate.LOST}
    line.servers_meet(frozenset({Fate.HELD, Fate.LOST}), frozenset(second))
    order, lease_id = ordered(world)
    until(world, lease_id, lambda lease: bool(lease.parts) and bool(tries(lease)))
    assert cloud.lives(lease_id) == []
    time_is_over(world, lease_id)

    lease = until(world, lease_id, lambda lease: len(tries(lease)) == 2)
    assert line.said == [202, 202]
    lives = wait_for_lives(cloud, lease_id, "ACTIVE", "ERROR")

    (winner,) = [life.remote_id for life in lives if life.status == "ACTIVE"]
    is_kept = part(lease, PartKind.SERVER).remote_id in (None, winner)
    assert assert_one_or_none(world, cloud, order, lease_id) is is_kept


def assert_one_or_none(world: World, cloud: Cloud, order: Order, lease_id: UUID) -> bool:
    """However the race went, never two ran at once, and either one is the lease's or nothing is left; whether it is."""
    lease = until(world, lease_id, at_rest)
    is_kept = lease.gone_at is None
    paid = {}
    if is_kept:
        # Where the loser's id is in no row, it takes a listing to find it.
        world.observe(lease.site_id)
        lease = until(world, lease_id, at_rest)
        server = part(lease, PartKind.SERVER).remote_id or ""
        assert {life.status for life in cloud.lives(lease_id) if life.remote_id != server} <= {"DELETED"}
        assert server in {life.remote_id for life in cloud.lives(lease_id) if life.launched_at}
        assert is_bound(cloud, lease) or findings(world, lease_id) == ["network_in_doubt"]
        stop(world, order, lease_id)
        cost = Decimal(PRICES["m1.tiny"]) * Decimal(ran_for(world, lease_id).total_seconds()) / 3600
        paid[server] = cost.quantize(MILLIONTH)
    else:
        # The one whose id was known first was Nova's loser; both were deleted before the lease ended.
        assert state_of(world, order) is OrderState.RETURNED
    assert cloud.left(lease_id) == set()
    assert runs_alone(cloud.lives(lease_id))
    assert books(world, order) == paid
    assert findings(world, lease_id) == []
    return is_kept


def is_bound(cloud: Cloud, lease: Lease) -> bool:
    """Whether the port is still the machine's: if not, it may run without a network."""
    port = cloud.alice.network.get_port(part(lease, PartKind.PORT).remote_id or "")
    return bool(port.device_id == part(lease, PartKind.SERVER).remote_id)


# --- accepted, and failed later ----------------------------------------------------------------------------------


def test_a_machine_that_fails_after_its_202_is_gone_before_the_next_offer_is_tried(world: World, cloud: Cloud) -> None:
    world.observe(connect(world, prices=PRICES | {"x1.nowhere": "1.80"}))
    order, failed_id = ordered(world, public_address=True, max_price="100 EUR")

    lease = until(world, failed_id, lambda lease: lease.gone_at is not None)

    assert "No valid host" in (lease.failure or "")
    assert cloud.left(failed_id) == set()
    (failed,) = cloud.lives(failed_id)
    assert failed.launched_at is None
    (other_id,) = [found for found in world.leases(order) if found != failed_id]
    until(world, other_id, lambda lease: lease.state is LeaseState.RUNNING and not lease.trouble and whole(lease))
    assert {kind for kind, _ in cloud.left(other_id)} == {"server", "port", "address", "key pair"}
    (second,) = cloud.lives(other_id)
    assert failed.ended_at is not None
    assert failed.ended_at <= second.created_at + timedelta(seconds=1)

    stop(world, order, other_id)
    assert cloud.left(other_id) == set()
    assert set(books(world, order)) == {second.remote_id}
    assert state_of(world, order) is OrderState.OVER


def whole(lease: Lease) -> bool:
    return all(part.remote_id is not None for part in lease.parts)


def test_where_no_offer_is_left_the_order_returns_and_nothing_stays(world: World, cloud: Cloud) -> None:
    world.observe(connect(world, prices={"x1.nowhere": "1.80", "public-address": "0.36"}))
    order, lease_id = ordered(world, public_address=True)

    until(world, lease_id, lambda lease: lease.settled_at is not None)

    assert world.leases(order) == [lease_id]
    assert state_of(world, order) is OrderState.RETURNED
    assert cloud.left(lease_id) == set()
    assert books(world, order) == {}


# --- an answer that is lost --------------------------------------------------------------------------------------


def test_after_a_lost_answer_the_server_is_found_and_none_is_made_beside_it(
    world: World, cloud: Cloud, line: Wire
) -> None:
    world.observe(connect(world, prices=PRICES))
    line.servers_meet(frozenset({Fate.LOST}))
    order, lease_id = ordered(world)

    lease = until(world, lease_id, lambda lease: bool(lease.parts) and bool(tries(lease)))
    assert line.said == [202]
    (attempt,) = tries(lease)
    assert attempt.error_code == "site_unknown"

    lease = until(world, lease_id, lambda lease: lease.state is LeaseState.RUNNING)
    (life,) = cloud.lives(lease_id)
    assert part(lease, PartKind.SERVER).remote_id == life.remote_id
    assert [(attempt.outcome, attempt.remote_id) for attempt in tries(lease)] == [(Outcome.CREATED, life.remote_id)]

    stop(world, order, lease_id)
    assert line.said == [202]
    assert cloud.left(lease_id) == set()
    assert set(books(world, order)) == {life.remote_id}


# --- disks -------------------------------------------------------------------------------------------------------


def test_a_machine_with_a_larger_root_disk_and_a_second_one_is_paid_for_and_leaves_nothing(
    world: World, cloud: Cloud
) -> None:
    """The flavor's own disk is 1 GiB: the machine boots from a volume, which Nova makes and takes away."""
    world.observe(connect(world, prices=PRICES | {VOLUME_SKU: "0.36"}))
    resources = {"cores": 1, "memory": "512 MiB", "disk": "12 GiB", "volume": "3 GiB"}
    order, lease_id = ordered(world, resources=resources)
    lease = until(world, lease_id, lambda lease: lease.state is LeaseState.RUNNING)
    server, second = (part(lease, kind).remote_id or "" for kind in (PartKind.SERVER, PartKind.VOLUME))
    disks = cloud.disks(server)
    assert sorted(disks.values()) == [3, 12]
    assert disks[second] == 3
    assert ("volume", second) in cloud.left(lease_id)

    stop(world, order, lease_id)

    assert cloud.left(lease_id) == set()
    limit = time.monotonic() + SECONDS
    while disks.keys() & cloud.volumes():  # Nova takes its own away a little after the server
        assert time.monotonic() < limit
        time.sleep(PAUSE)
    assert set(books(world, order)) == {server}
    with world.sessions() as session:
        rows = session.scalars(select(Charge).where(Charge.lease_id == lease_id)).all()
    hours = {row.segment_id: row.consumed_quantity for row in rows if row.sku_id == "m1.tiny"}
    paid = [row for row in rows if row.sku_id == VOLUME_SKU]
    assert {row.segment_id for row in paid} == hours.keys()
    assert {row.resource_id for row in paid} == {second}
    for row in paid:
        assert abs(row.consumed_quantity - 15 * hours[row.segment_id]) < MILLIONTH
        assert abs(row.billed_cost - row.consumed_quantity * Decimal("0.36")) < MILLIONTH
    assert sum(row.billed_cost for row in paid) > 0


# --- another project of the same cloud ---------------------------------------------------------------------------


def test_a_404_of_another_project_ends_nothing(world: World, cloud: Cloud) -> None:
    site_id = connect(world, prices=PRICES)
    world.observe(site_id)
    order, lease_id = ordered(world)
    lease = until(world, lease_id, lambda lease: lease.state is LeaseState.RUNNING)
    server = part(lease, PartKind.SERVER).remote_id

    connect(world, prices={}, fields={"project_name": "genomes"})
    with world.sessions.begin() as session:
        stop_order(session, order.id, jobs=world.jobs, actor="tests", reason="done")
    lease = world.work(lease_id).lease
    assert "another project" in (lease.trouble or "")
    assert lease.gone_at is None
    assert [part.gone_at for part in lease.parts] == [None] * len(lease.parts)
    (life,) = cloud.lives(lease_id)
    assert (life.remote_id, life.status) == (server, "ACTIVE")

    connect(world, prices={})
    until(world, lease_id, lambda lease: lease.settled_at is not None)
    assert cloud.left(lease_id) == set()
    assert set(books(world, order)) == {server}


# --- deleted behind Leeway's back --------------------------------------------------------------------------------


def test_a_machine_that_somebody_deleted_is_charged_until_nova_says_it_ended(world: World, cloud: Cloud) -> None:
    site_id = connect(world, prices=PRICES)
    world.observe(site_id)
    order, lease_id = ordered(world)
    lease = until(world, lease_id, lambda lease: lease.state is LeaseState.RUNNING)
    server = part(lease, PartKind.SERVER).remote_id
    time.sleep(A_SECOND)
    cloud.alice.compute.delete_server(server or "")
    (life,) = wait_for_lives(cloud, lease_id, "DELETED")

    world.observe(site_id)
    time.sleep(A_SECOND)  # the settle time, between two listings
    world.observe(site_id)
    until(world, lease_id, lambda lease: lease.settled_at is not None)

    with world.sessions() as session:
        seen = session.scalars(
            select(Observation).where(Observation.lease_id == lease_id, Observation.state == LeaseState.GONE)
        ).all()
    assert [(one.since, one.is_estimated) for one in seen] == [(life.ended_at, False)]
    assert set(books(world, order)) == {server}
    assert cloud.left(lease_id) == set()
