"""Found in a review: waits without an end, money and quota of a failover. Each was seen to fail first."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from uuid import UUID

import pytest
from sqlalchemy import func, select, update
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session, sessionmaker

from accounting.models.grants import MoneyHold
from adapters.sandbox.config import CloudConfig, QuotaConfig
from adapters.sandbox.config import Timing as CloudTiming
from adapters.sandbox.faults import FaultKind
from adapters.sandbox.profiles import aurora
from broker.claims import claim
from broker.errors import Conflict
from broker.inventory import observe, take_turn
from broker.models.federation import Site
from broker.models.holds import QuotaPool
from broker.models.leases import Desired, Lease, LeaseState
from broker.models.workloads import QuoteOffer
from broker.orders import Choice, finish_lease, stop_order
from broker.remote import Deadline, PartKind
from broker.timeline import open_findings
from tests.world import World, aurora_prices, make_world, quick

ONLY_CREATES = {"service": "compute", "method": "POST", "path": r"/servers$"}


def findings(world: World) -> list[str]:
    with world.sessions() as session:
        return [finding.kind for finding in open_findings(session)]


def slow(*, build: float = 0, delete: float = 0) -> CloudConfig:
    return replace(quick(aurora()), timing=CloudTiming(build_seconds=build, delete_seconds=delete))


def impatient(world: World) -> World:
    timing = replace(world.tools.timing, patience=timedelta(milliseconds=100))
    return replace(world, tools=replace(world.tools, timing=timing))


def test_a_machine_that_is_built_for_ever_becomes_a_finding_until_it_runs(sessions: sessionmaker[Session]) -> None:
    with make_world(sessions, slow(build=2)) as made:
        world = impatient(made)
        world.connect(world.cloud, prices=aurora_prices())
        (lease_id,) = world.leases(world.order())
        world.until(lease_id, lambda lease: lease.state is LeaseState.BUILDING)
        time.sleep(0.2)
        world.work(lease_id)
        assert findings(world) == ["lease_stuck"]
        world.until_running(lease_id)
        assert findings(world) == []


def test_a_deletion_that_does_not_end_becomes_a_finding_until_it_does(sessions: sessionmaker[Session]) -> None:
    with make_world(sessions, slow(delete=2)) as made:
        world = impatient(made)
        world.connect(world.cloud, prices=aurora_prices())
        order = world.order()
        (lease_id,) = world.leases(order)
        world.until_running(lease_id)
        with world.sessions.begin() as session:
            stop_order(session, order.id, jobs=world.jobs, actor="tests", reason="done")
        world.work(lease_id)
        time.sleep(0.3)
        world.work(lease_id)
        assert findings(world) == ["lease_stuck"]
        world.until_gone(lease_id)
        assert findings(world) == []


def test_looks_at_a_slow_build_become_rarer(sessions: sessionmaker[Session]) -> None:
    with make_world(sessions, slow(build=600)) as made:
        world = replace(
            made, tools=replace(made.tools, timing=replace(made.tools.timing, last_look=timedelta(hours=1)))
        )
        world.connect(world.cloud, prices=aurora_prices())
        (lease_id,) = world.leases(world.order())
        lease = world.until(lease_id, lambda lease: lease.state is LeaseState.BUILDING).lease
        with world.sessions.begin() as session:
            for part in lease.parts:
                part.made_at = world.now() - timedelta(minutes=40)
                session.merge(part)
        view = world.work(lease_id)
        assert view.lease.next_look_at is not None
        assert view.lease.next_look_at - view.now > timedelta(minutes=9)


def test_the_next_offer_at_the_same_site_is_not_kept_out_by_the_lease_that_failed(
    sessions: sessionmaker[Session],
) -> None:
    config = quick(aurora())
    one = replace(config.projects[0], quota=replace(config.projects[0].quota, instances=1))
    assert isinstance(one.quota, QuotaConfig)
    with make_world(sessions, replace(config, projects=(one, *config.projects[1:]))) as world:
        world.connect(world.cloud, prices=aurora_prices())
        world.cloud.faults.add(FaultKind.NO_CAPACITY, times=1, **ONLY_CREATES)
        order = world.order(max_price="1 EUR")
        (first,) = world.leases(order)
        world.until_gone(first)
        _, second = world.leases(order)
        world.until_running(second)


def test_two_members_that_fail_over_at_once_both_count_in_the_hold(world: World) -> None:
    order = world.order(count=2, max_price="5 EUR")
    mine = []
    for lease_id in world.leases(order):
        world.wake(lease_id, desired=Desired.GONE, failure="no room")
        held = claim(world.sessions, lease_id, length=timedelta(seconds=30))
        assert held is not None
        mine.append(held)
    with ThreadPoolExecutor(2) as pool:
        with world.sessions.begin() as session:  # so that both come as far as they get
            session.execute(select(QuotaPool.id).with_for_update())
            ends = [pool.submit(finish_lease, world.tools, held) for held in mine]
            time.sleep(0.7)
        for end in ends:
            end.result()
    with world.sessions() as session:
        wanted = session.scalars(
            select(QuoteOffer.hold).where(QuoteOffer.quote_id == order.quote_id, QuoteOffer.rank == 2)
        ).one()
        held = session.scalars(select(func.sum(MoneyHold.remaining)).where(MoneyHold.order_id == order.id)).one()
        assert 0 <= held - wanted < Decimal("0.00000001"), "a hold is rounded up, a quote half up"


def test_an_idempotency_key_stands_for_one_choice_of_offer(world: World) -> None:
    first = world.order(key="once")
    with pytest.raises(Conflict, match="once"):
        world.order_quote(Choice(first.quote_id, 2, "once"))


def test_a_listing_that_began_before_the_machine_was_seen_does_not_say_that_it_is_missing(world: World) -> None:
    (lease_id,) = world.leases(world.order())
    site_id: UUID = world.until_running(lease_id).lease.site_id
    with world.sessions.begin() as session:
        session.execute(update(Site).values(next_listing_at=func.clock_timestamp()))
    turn = take_turn(world.tools, site_id)
    assert turn is not None
    world.work(lease_id)  # a look, which shows it
    (server,) = world.cloud.log.alive("server")
    world.tools.open_site(site_id).delete(PartKind.SERVER, server, deadline=Deadline.after(5))
    observe(world.tools, turn)
    assert world.view(lease_id).lease.missing_since is None


def test_a_listing_that_failed_in_our_own_database_is_tried_again_soon(world: World) -> None:
    (lease_id,) = world.leases(world.order())
    site_id: UUID = world.until_running(lease_id).lease.site_id
    with world.sessions.begin() as session:
        session.execute(update(Site).values(next_listing_at=func.clock_timestamp()))
    turn = take_turn(world.tools, site_id)
    assert turn is not None
    with world.sessions.begin() as session:
        session.execute(select(Lease.id).with_for_update())
        with pytest.raises(OperationalError, match="lock timeout"):
            observe(world.tools, turn)
    with world.sessions() as session:
        site = session.get_one(Site, site_id)
        assert site.listing_claim_until is None
        assert site.trouble == "the last listing did not finish"
