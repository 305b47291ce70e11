"""Which copy of the database this is: rows out of a backup start and delete nothing."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
from sqlalchemy import func, select, text, update
from sqlalchemy.orm import Session, sessionmaker

from broker.claims import claim, set_fenced
from broker.errors import Conflict, Fenced
from broker.extensions import Funding, extend_order
from broker.models.audit import Event, Finding
from broker.models.federation import Installation
from broker.models.leases import Desired, Lease, LeaseState
from broker.orders import Choice, set_power, stop_order
from broker.restored import act_again, acts, begin_observing, first_imprint, log_position, look, notice, only_observes
from tests.world import World, make_world

LENGTH = timedelta(seconds=20)


@pytest.fixture
def world(sessions: sessionmaker[Session]) -> Iterator[World]:
    with make_world(sessions) as made:
        yield made


def reload_row(sessions: sessionmaker[Session]) -> None:
    """What every way of loading a dump does to the row: the same values, written by another transaction."""
    with sessions.begin() as session:
        session.execute(text("CREATE TEMPORARY TABLE dump ON COMMIT DROP AS TABLE installations"))
        session.execute(text("DELETE FROM installations"))
        session.execute(text("INSERT INTO installations TABLE dump"))


def may_act(sessions: sessionmaker[Session]) -> bool:
    with sessions() as session:
        assert session.scalars(select(only_observes())).one() is not session.scalars(select(acts())).one()
        return session.scalars(select(acts())).one()


def test_the_living_database_acts(world: World) -> None:
    lease_id = world.leases(world.order())[0]
    assert may_act(world.sessions)
    assert claim(world.sessions, lease_id, length=LENGTH) is not None


def test_a_row_out_of_a_dump_claims_nothing_before_anybody_has_noticed(world: World) -> None:
    lease_id = world.leases(world.order())[0]
    reload_row(world.sessions)
    assert claim(world.sessions, lease_id, length=LENGTH) is None
    assert not may_act(world.sessions)


def test_an_empty_table_claims_nothing(world: World) -> None:
    """A restore loads one table after another."""
    lease_id = world.leases(world.order())[0]
    with world.sessions.begin() as session:
        session.execute(text("DELETE FROM installations"))
    assert claim(world.sessions, lease_id, length=LENGTH) is None


def test_a_worker_that_lived_through_the_restore_writes_nothing(world: World) -> None:
    """The dump was made while its claim ran, so it holds the same generation."""
    lease_id = world.leases(world.order())[0]
    mine = claim(world.sessions, lease_id, length=LENGTH)
    assert mine is not None
    reload_row(world.sessions)
    with world.sessions.begin() as session, pytest.raises(Fenced, match="was restored"):
        set_fenced(session, mine, state=LeaseState.BUILDING)


def test_a_restore_is_noticed_once_with_a_finding(world: World) -> None:
    reload_row(world.sessions)
    with world.sessions.begin() as session:
        assert notice(session)
    with world.sessions.begin() as session:
        assert not notice(session)
        standing = look(session)
        assert standing is not None
        assert standing.observing_since is not None
        assert "restored or copied" in str(standing.reason)
    with world.sessions() as session:
        finding = session.scalars(select(Finding).where(Finding.kind == "only_observing")).one()
        assert finding.resolved_at is None
        assert "leeway resume" in finding.hint
        assert session.scalars(select(func.count()).where(Event.kind == "observe")).one() == 1


def test_a_dump_made_while_observing_is_noticed_again(world: World) -> None:
    """What its row says of the time before it says nothing of this restore."""
    with world.sessions.begin() as session:
        begin_observing(session, "a test")
        before = look(session)
    reload_row(world.sessions)
    with world.sessions.begin() as session:
        after = look(session)
    assert before is not None
    assert after is not None
    assert before.observing_since is not None
    assert after.observing_since is not None
    assert after.observing_since > before.observing_since
    assert "restored" in str(after.reason)


def test_acting_again_closes_the_finding(world: World) -> None:
    lease_id = world.leases(world.order())[0]
    reload_row(world.sessions)
    with world.sessions.begin() as session:
        notice(session)
    assert claim(world.sessions, lease_id, length=LENGTH) is None
    with world.sessions.begin() as session:
        act_again(session, actor="tests")
    assert may_act(world.sessions)
    assert claim(world.sessions, lease_id, length=LENGTH) is not None
    with world.sessions() as session:
        assert session.scalars(select(Finding.resolved_at).where(Finding.kind == "only_observing")).one() is not None


def test_a_row_of_a_time_before_imprints_gets_one_at_the_first_start(world: World) -> None:
    with world.sessions.begin() as session:
        session.execute(update(Installation).values(imprint=None))
    assert not may_act(world.sessions)
    with world.sessions.begin() as session:
        first_imprint(session)
    assert may_act(world.sessions)


def test_the_imprint_is_right_inside_a_savepoint_too(world: World) -> None:
    with world.sessions.begin() as session:
        with session.begin_nested():
            session.connection()
            begin_observing(session, "a test")
        with session.begin_nested():
            session.connection()
            act_again(session, actor="tests")
    assert may_act(world.sessions)


def test_orders_are_refused_and_stopping_is_noted(world: World) -> None:
    order = world.order()
    lease_id = world.leases(order)[0]
    with world.sessions.begin() as session:
        begin_observing(session, "a test")
    with pytest.raises(Conflict, match="only observes for now: a test") as refused:
        world.order()
    assert "leeway resume" in str(refused.value.hint)
    with world.sessions.begin() as session, pytest.raises(Conflict, match="only observes"):
        set_power(session, order.id, Desired.STOPPED, jobs=world.jobs, actor="tests")
    funding = Funding(world.tools.ledger, world.jobs, timedelta(days=7))
    with world.sessions.begin() as session, pytest.raises(Conflict, match="only observes"):
        extend_order(session, order.id, world.now() + timedelta(days=1), funding, actor="tests", now=world.now())
    with world.sessions.begin() as session:
        stop_order(session, order.id, jobs=world.jobs, actor="tests", reason="enough")
    assert world.view(lease_id).lease.desired is Desired.GONE


def test_an_order_placed_before_is_still_found_by_its_key(world: World) -> None:
    quote = world.quote()
    placed = world.order_quote(Choice(quote.id, 1, "key"))
    with world.sessions.begin() as session:
        begin_observing(session, "a test")
    assert world.order_quote(Choice(quote.id, 1, "key")).id == placed.id


def test_while_observing_sites_are_listed_and_nothing_is_touched(world: World) -> None:
    lease_id = world.leases(world.order())[0]
    with world.sessions.begin() as session:
        begin_observing(session, "a test")
        site_id = session.get_one(Lease, lease_id).site_id
    before = world.cloud.log.entries()
    world.work(lease_id)
    world.observe(site_id)
    world.work(lease_id)
    assert world.cloud.log.entries() == before
    assert world.view(lease_id).lease.state is LeaseState.PENDING


def test_the_log_only_grows(world: World) -> None:
    with world.sessions() as session:
        first = log_position(session)
    with world.sessions.begin() as session:
        session.execute(text("SET LOCAL synchronous_commit = on"))
        begin_observing(session, "a test")
    with world.sessions() as session:
        second = log_position(session)
    assert second.cluster == first.cluster
    assert second.position > first.position
