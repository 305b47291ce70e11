"""Boot tests: an order that is placed, judged once, written down, and stopped, whatever comes of its machine."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy import select, update

from accounting.ledger import verify
from accounting.models.grants import MoneyHold
from broker.boot_tests import (
    FAILED,
    SLOW,
    BootView,
    Ordering,
    Wanted,
    boot_plan,
    boot_tests,
    end_boot_tests,
    forget_plan,
    plan_boot_tests,
    start_boot_test,
    start_planned,
)
from broker.database import database_now
from broker.errors import Conflict, InvalidInput, NoOffer, NotFound
from broker.models.federation import Site
from broker.models.health import BootPlan, BootTest, ProbeKind, SiteProbe
from broker.models.holds import QuotaPool
from broker.models.workloads import Order, OrderState, QuoteOffer
from broker.orders import stop_order
from broker.restored import act_again, begin_observing
from tests.world import World

PAID = Wanted("climate")
DAY = timedelta(days=1)


def ordering(world: World) -> Ordering:
    return Ordering(world.quoting, world.tools.ledger, world.jobs)


def site_id_of(world: World) -> UUID:
    with world.sessions() as session:
        return session.scalars(select(Site.id)).one()


def start(world: World, wanted: Wanted = PAID) -> tuple[UUID, UUID]:
    """Order id and lease id of a new boot test."""
    with world.sessions.begin() as session:
        site = session.scalars(select(Site)).one()
        test = start_boot_test(session, site, wanted, ordering(world), actor="tests", now=database_now(session))
        order = session.get_one(Order, test.order_id)
    (lease_id,) = world.leases(order)
    return order.id, lease_id


def judge(world: World) -> int:
    with world.sessions.begin() as session:
        return end_boot_tests(session, jobs=world.jobs)


def last(world: World) -> BootView:
    with world.sessions() as session:
        return boot_tests(session, site_id_of(world))[0]


def probes(world: World) -> list[tuple[int, int, str | None]]:
    with world.sessions() as session:
        rows = session.scalars(select(SiteProbe).where(SiteProbe.kind == ProbeKind.BOOT).order_by(SiteProbe.slot))
        return [(row.contacts, row.failures, row.error_code) for row in rows]


def tick(world: World) -> bool:
    with world.sessions.begin() as session:
        return start_planned(session, ordering(world), now=database_now(session))


def plan(world: World, wanted: Wanted = PAID, every: timedelta = DAY) -> None:
    with world.sessions.begin() as session:
        site = session.scalars(select(Site)).one()
        plan_boot_tests(session, site, wanted, every=every, now=database_now(session))


def test_a_machine_that_runs_is_written_down_and_goes(world: World) -> None:
    order_id, lease_id = start(world)
    assert judge(world) == 0
    assert last(world).outcome == "under way"
    world.until_running(lease_id)
    assert (judge(world), judge(world)) == (1, 0)
    found = last(world)
    assert (found.outcome, found.error, found.order_id) == ("ok", None, order_id)
    assert found.seconds is not None
    assert 0 <= found.seconds < 60
    assert probes(world) == [(1, 0, None)]
    world.until_gone(lease_id)
    assert not world.cloud.log.alive("server")
    with world.sessions() as session:
        assert session.get_one(Order, order_id).state is OrderState.OVER
        assert all(hold.released_at is not None for hold in session.scalars(select(MoneyHold)))
        assert verify(session) == []


def test_it_is_the_cheapest_machine_there_is(world: World) -> None:
    start(world)
    with world.sessions() as session:
        picked = session.scalars(select(QuoteOffer).join(Order, Order.quote_offer_id == QuoteOffer.id)).one()
        everything = session.scalars(select(QuoteOffer.hourly)).all()
    assert picked.hourly == min(everything)


@pytest.mark.parametrize(("fault", "code"), [("quota", "site_quota"), ("no_capacity", FAILED)])
def test_a_machine_that_fails_is_a_failure_also_where_the_next_would_do(world: World, fault: str, code: str) -> None:
    world.cloud.faults.add(fault, service="compute", method="POST", path="/servers$", times=1)
    order_id, lease_id = start(world)
    world.until(lease_id, lambda lease: lease.failure is not None)
    assert judge(world) == 1
    found = last(world)
    assert (found.outcome, found.seconds) == ("failed", None)
    assert found.error
    assert probes(world) == [(1, 1, code)]
    with world.sessions() as session:
        order = session.get_one(Order, order_id)
    for each in world.leases(order):
        world.until_gone(each)
    assert not world.cloud.log.alive("server")


def test_a_machine_that_takes_too_long_is_a_failure(world: World) -> None:
    order_id, lease_id = start(world)
    with world.sessions.begin() as session:
        session.execute(update(BootTest).values(give_up_at=database_now(session)))
    assert judge(world) == 1
    assert probes(world) == [(1, 1, SLOW)]
    assert "within 20 minutes" in str(last(world).error)
    with world.sessions() as session:
        assert session.get_one(Order, order_id).state is OrderState.STOPPING
    world.until_gone(lease_id)


def test_one_that_a_person_stops_says_nothing_of_the_site(world: World) -> None:
    order_id, lease_id = start(world)
    with world.sessions.begin() as session:
        stop_order(session, order_id, jobs=world.jobs, actor="tests", reason="changed my mind")
    assert judge(world) == 1
    assert (last(world).outcome, probes(world)) == ("stopped", [])
    world.until_gone(lease_id)


def test_one_at_a_time(world: World) -> None:
    order_id, _ = start(world)
    with pytest.raises(Conflict, match="under way") as caught:
        start(world)
    assert str(order_id) in str(caught.value)


def test_where_nothing_can_be_started_it_says_why(world: World) -> None:
    with pytest.raises(NotFound, match="no project"):
        start(world, Wanted("nobody"))
    with pytest.raises(NoOffer, match="no machine can be started at aurora now"):
        start(world, Wanted("climate", "windows-3.11"))
    with world.sessions.begin() as session:
        session.execute(update(QuotaPool).where(QuotaPool.resource == "instances").values(quota=0))
    with pytest.raises(NoOffer):
        start(world)
    with world.sessions.begin() as session:
        session.execute(update(Site).values(observe_only=True))
    with pytest.raises(Conflict, match="only observes"):
        start(world)
    with pytest.raises(Conflict, match="only observes"):
        plan(world)
    with world.sessions() as session:
        assert session.scalars(select(Order.id)).all() == []


def test_at_intervals(world: World) -> None:
    assert not tick(world)
    plan(world)
    assert tick(world)
    assert not tick(world), "the next one is a day later"
    with world.sessions() as session:
        found = boot_plan(session, site_id_of(world))
        assert found is not None
        assert (found.project, found.image, found.every_seconds, found.trouble) == ("climate", None, 86400, None)
        assert DAY - timedelta(minutes=1) < found.next_at - database_now(session) <= DAY
        assert len(boot_tests(session, site_id_of(world))) == 1


def test_one_that_cannot_be_ordered_says_why_and_is_tried_again(world: World) -> None:
    plan(world, Wanted("climate", "windows-3.11"))
    assert tick(world)
    with world.sessions() as session:
        found = boot_plan(session, site_id_of(world))
        assert found is not None
        assert "no machine can be started" in str(found.trouble)
        assert session.scalars(select(Order.id)).all() == []
    plan(world)
    assert tick(world)
    with world.sessions() as session:
        assert session.scalars(select(BootPlan.trouble)).one() is None
        assert len(session.scalars(select(Order.id)).all()) == 1


def test_no_more(world: World) -> None:
    plan(world)
    with world.sessions.begin() as session:
        forget_plan(session, session.scalars(select(Site)).one())
    assert not tick(world)


@pytest.mark.parametrize("every", [timedelta(minutes=59), timedelta(days=32)])
def test_intervals_have_bounds(world: World, every: timedelta) -> None:
    with pytest.raises(InvalidInput, match="every"):
        plan(world, every=every)


def test_rows_of_a_backup_say_nothing_of_the_site(world: World) -> None:
    """A machine that ran after the backup has not failed to come up within twenty minutes."""
    _, lease_id = start(world)
    plan(world)
    with world.sessions.begin() as session:
        session.execute(update(BootTest).values(give_up_at=database_now(session)))
        begin_observing(session, "restored")
    assert (judge(world), tick(world)) == (0, False)
    with world.sessions.begin() as session:
        act_again(session, actor="tests")
    world.wake(lease_id, must_find=True)
    assert judge(world) == 0, "its machine was not searched for yet"
    world.until_running(lease_id)
    assert judge(world) == 1
    assert last(world).outcome == "ok"
    assert tick(world)
