"""Errors of our own: told in the row and to a person, tried again ever later, never hot, never dropped."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import LiteralString
from uuid import UUID

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy import func, select, update
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError
from sqlalchemy.orm import Session, sessionmaker

from accounting.models.charges import Charge, Segment
from accounting.unsettled import SETTLE_STUCK, TELL_AFTER
from broker.claims import claim
from broker.database import Database, database_now
from broker.embedded import SUPERUSER
from broker.models.audit import Finding
from broker.models.federation import Site
from broker.models.leases import Lease
from broker.orders import stop_order
from broker.reconcile import STUCK, reconcile
from broker.sites import check_site, request_check, wants_check
from broker.tools import Timing
from broker.unreachable import SITE_UNREACHABLE, TELL_AFTER_TIME, tell_unreachable
from broker.unreachable import TELL_AFTER as LISTINGS
from tests.conftest import PostgresForTests
from tests.world import NotedJobs, World, make_world
from web.clock import cut_months
from web.compose import Services, services
from web.settings import load_settings
from web.worker import SETTLE, reconcile_lease, settle_lease

# The table that accounting, or a launch, cannot write to while it is broken.
CHARGES, ATTEMPTS = "charges", "launch_attempts"


@pytest.fixture
def world(sessions: sessionmaker[Session]) -> Iterator[World]:
    """A federation with one quick site."""
    with make_world(sessions) as made:
        yield made


@pytest.fixture
def made(database: Database, world: World, tmp_path: Path) -> Iterator[Services]:
    """The real composition, with the world's sites and the real waits."""
    real = Timing()
    timing = replace(world.tools.timing, first_look=real.first_look, last_look=real.last_look)
    with services(load_settings(data_dir=tmp_path), replace(database, is_embedded=False)) as found:
        yield replace(found, tools=replace(world.tools, timing=timing))


@pytest.fixture
def admin(postgres: PostgresForTests, database: Database) -> Iterator[psycopg.Connection]:
    """A superuser in the tests' database, in autocommit."""
    url = sa.make_url(postgres.server.url(SUPERUSER, database=sa.make_url(database.application_url).database or ""))
    plain = url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(plain, autocommit=True) as connection:
        yield connection


@contextmanager
def broken(admin: psycopg.Connection, table: LiteralString) -> Iterator[None]:
    """Nothing can be written to a table: as good a fault of our own as any."""
    name = psycopg.sql.Identifier(table)
    admin.execute(psycopg.sql.SQL("ALTER TABLE {} ADD CONSTRAINT nothing CHECK (false) NOT VALID").format(name))
    try:
        yield
    finally:
        admin.execute(psycopg.sql.SQL("ALTER TABLE {} DROP CONSTRAINT nothing").format(name))


def findings(world: World, kind: str) -> list[Finding]:
    with world.sessions() as session:
        return list(session.scalars(select(Finding).where(Finding.kind == kind, Finding.resolved_at.is_(None))))


def row(world: World, lease_id: UUID) -> Lease:
    return world.view(lease_id).lease


def ordered(world: World) -> UUID:
    (lease_id,) = world.leases(world.order())
    return lease_id


def over(world: World) -> UUID:
    """A lease that ran and is gone; its money is not settled yet."""
    lease_id = ordered(world)
    world.until_running(lease_id)
    with world.sessions.begin() as session:
        stop_order(session, row(world, lease_id).order_id, jobs=world.jobs, actor="tests", reason="done")
    deadline = time.monotonic() + 10
    while row(world, lease_id).gone_at is None:
        assert time.monotonic() < deadline
        world.wake(lease_id)
        reconcile(world.tools, lease_id)
    return lease_id


# --- a pass ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["a row that makes no sense", "a database that refuses"])
def test_a_pass_that_breaks_is_backed_off_and_told(
    made: Services, world: World, admin: psycopg.Connection, fault: str
) -> None:
    lease_id = ordered(world)
    with broken(admin, ATTEMPTS):
        for failures in range(1, STUCK + 1):
            spoilt = {"spec": {"name": None}} if fault.startswith("a row") else {}
            world.wake(lease_id, **spoilt)
            with pytest.raises((KeyError, TypeError, IntegrityError)):
                reconcile_lease(made, lease_id)
            lease = row(world, lease_id)
            assert (lease.failures, lease.claim_until) == (failures, None)
            assert lease.trouble
            assert lease.next_look_at is not None
            assert lease.next_look_at > world.now()
            assert bool(findings(world, "lease_stuck")) == (failures == STUCK)


# --- accounting ------------------------------------------------------------------------------------------------------


def test_accounting_that_fails_is_noted_backed_off_told_and_made_good(
    made: Services, world: World, admin: psycopg.Connection
) -> None:
    lease_id = over(world)
    waits = []
    with broken(admin, CHARGES):
        for failures in range(1, TELL_AFTER + 1):
            world.wake(lease_id, next_look_at=None)
            with pytest.raises(IntegrityError):
                settle_lease(made, lease_id)
            lease = row(world, lease_id)
            assert lease.settle_failures == failures
            assert lease.settle_trouble is not None
            assert 'violates check constraint "nothing"' in lease.settle_trouble
            assert "INSERT" not in lease.settle_trouble, "neither the statement nor its values"
            assert lease.next_look_at is not None
            waits.append(lease.next_look_at - world.now())
            assert bool(findings(world, SETTLE_STUCK)) == (failures == TELL_AFTER)
    assert timedelta(0) < waits[2] < waits[3] < waits[4] < made.tools.timing.last_look
    (finding,) = findings(world, SETTLE_STUCK)
    assert (finding.key, finding.lease_id) == (str(lease_id), lease_id)
    assert 'violates check constraint "nothing"' in finding.text
    settle_lease(made, lease_id)
    lease = row(world, lease_id)
    assert (lease.settle_failures, lease.settle_trouble) == (0, None)
    assert lease.settled_at is not None
    assert findings(world, SETTLE_STUCK) == []
    with world.sessions() as session:
        assert session.scalars(select(func.count()).select_from(Charge)).one() > 0


def test_a_machine_that_runs_for_days_is_not_left_to_its_end_date_when_accounting_failed(
    made: Services, world: World, admin: psycopg.Connection
) -> None:
    lease_id = ordered(world)
    world.until(lease_id, lambda lease: lease.started_at is not None)
    with world.sessions.begin() as session:
        session.execute(sa.delete(Segment).where(Segment.lease_id == lease_id))
    world.wake(lease_id, next_look_at=func.clock_timestamp() + timedelta(days=3))
    with broken(admin, "segments"), pytest.raises(IntegrityError):
        settle_lease(made, lease_id)
    assert row(world, lease_id).next_look_at < world.now() + timedelta(seconds=30)  # type: ignore[operator] # it is due


def test_who_works_on_the_lease_keeps_his_own_schedule(made: Services, world: World, admin: psycopg.Connection) -> None:
    lease_id = over(world)
    world.wake(lease_id)
    assert claim(world.sessions, lease_id, length=timedelta(seconds=30)) is not None
    before = row(world, lease_id).next_look_at
    with broken(admin, CHARGES), pytest.raises(IntegrityError):
        settle_lease(made, lease_id)
    assert row(world, lease_id).settle_failures == 1
    assert row(world, lease_id).next_look_at == before


def test_a_lock_held_for_too_long_is_tried_again_by_the_row(
    made: Services, world: World, admin: psycopg.Connection
) -> None:
    lease_id = over(world)
    with admin.transaction():
        admin.execute("SELECT FROM balances FOR UPDATE")
        with pytest.raises(OperationalError) as caught:
            settle_lease(made, lease_id)
    assert isinstance(caught.value.orig, psycopg.errors.LockNotAvailable)
    lease = row(world, lease_id)
    assert (lease.settle_trouble or "").startswith("canceling statement due to lock timeout")
    assert lease.next_look_at is not None
    settle_lease(made, lease_id)
    assert row(world, lease_id).settled_at is not None


def test_the_note_outwaits_whoever_holds_the_row_itself(
    made: Services, world: World, admin: psycopg.Connection
) -> None:
    lease_id = over(world)
    world.wake(lease_id, next_look_at=func.clock_timestamp() + timedelta(days=3))
    raised: list[DBAPIError] = []

    def settle_it() -> None:
        with pytest.raises(OperationalError) as caught:
            settle_lease(made, lease_id)
        raised.append(caught.value)

    thread = threading.Thread(target=settle_it)
    with admin.transaction():
        admin.execute("SELECT FROM leases FOR UPDATE")
        thread.start()
        time.sleep(4)  # longer than a lock is waited for
    thread.join(20)
    assert isinstance(raised[0].orig, psycopg.errors.LockNotAvailable)
    assert row(world, lease_id).settle_failures == 1
    assert row(world, lease_id).next_look_at < world.now() + timedelta(minutes=1)  # type: ignore[operator] # it is due


def test_a_deadlock_is_tried_again_by_the_row(made: Services, world: World, admin: psycopg.Connection) -> None:
    lease_id = over(world)
    raised: list[DBAPIError] = []

    def settle_it() -> None:
        with pytest.raises(OperationalError) as caught:
            settle_lease(made, lease_id)
        raised.append(caught.value)

    thread = threading.Thread(target=settle_it)
    with admin.transaction():
        admin.execute("SET LOCAL deadlock_timeout = '60s'")  # so that it is the other who notices
        admin.execute("SELECT FROM leases FOR UPDATE")
        thread.start()
        time.sleep(0.4)  # it has the balances, and waits for the lease
        admin.execute("SELECT FROM balances FOR UPDATE")
    thread.join(20)
    assert isinstance(raised[0].orig, psycopg.errors.DeadlockDetected)
    assert row(world, lease_id).settle_failures == 1
    settle_lease(made, lease_id)
    assert row(world, lease_id).settled_at is not None


def test_money_that_a_dead_process_did_not_begin_to_count_is_found_within_the_hour(
    made: Services, world: World
) -> None:
    lease_id = ordered(world)
    deadline = time.monotonic() + 10
    while row(world, lease_id).started_at is None:
        assert time.monotonic() < deadline
        world.wake(lease_id)
        reconcile(world.tools, lease_id)  # and died before its money
    for expected in ([(SETTLE, str(lease_id))], []):
        jobs = NotedJobs()
        with world.sessions.begin() as session:
            cut_months(session, replace(made, jobs=jobs), database_now(session))
        assert jobs.woken == expected
        settle_lease(made, lease_id)


# --- sites -----------------------------------------------------------------------------------------------------------


def tell(world: World) -> list[Finding]:
    with world.sessions.begin() as session:
        tell_unreachable(session, database_now(session))
    return findings(world, SITE_UNREACHABLE)


def test_a_site_that_cannot_be_listed_is_told_with_what_is_at_risk_and_closed_by_a_good_listing(world: World) -> None:
    ordered(world)
    with world.sessions.begin() as session:
        site_id = session.scalars(select(Site.id)).one()
        session.execute(update(Site).values(failures=LISTINGS - 1, trouble="it does not answer"))
    assert tell(world) == []
    with world.sessions.begin() as session:
        session.execute(update(Site).values(failures=LISTINGS))
    (finding,) = tell(world)
    assert (finding.key, finding.site_id, finding.commodity) == (str(site_id), site_id, "EUR")
    assert finding.per_day is not None
    assert finding.per_day > 0
    assert "it does not answer" in finding.text
    assert "leeway site check aurora" in finding.hint
    assert [again.id for again in tell(world)] == [finding.id]
    world.observe(site_id)
    assert tell(world) == []


def test_a_site_that_is_off_is_nobodys_trouble_and_one_that_fails_for_an_hour_is(world: World) -> None:
    long_ago = func.clock_timestamp() - TELL_AFTER_TIME - timedelta(minutes=1)
    with world.sessions.begin() as session:
        session.execute(update(Site).values(failures=1, trouble="no", listed_at=long_ago))
    assert len(tell(world)) == 1
    with world.sessions.begin() as session:
        session.execute(update(Site).values(is_enabled=False))
    assert tell(world) == []


def test_a_check_that_breaks_is_answered_and_not_tried_for_ever(world: World) -> None:
    with world.sessions.begin() as session:
        site = session.scalars(select(Site)).one()
        request_check(session, site, jobs=world.jobs)
        session.execute(update(Site).values(settings=["no", "table"]))
    with pytest.raises(AttributeError):
        check_site(world.tools, site.id)
    with world.sessions() as session:
        assert session.scalars(select(Site.id).where(wants_check())).all() == []
        (step,) = session.scalars(select(Site.diagnosis)).one()
    assert (step["ok"], step["detail"]) == (False, "the check broke off by an error of Leeway's own")
