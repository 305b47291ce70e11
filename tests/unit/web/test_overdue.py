"""What does not move is told with since when, why, and what to do; what moves is not mentioned. Real rows."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from click.testing import CliRunner
from sqlalchemy import func, select, text, update
from sqlalchemy.orm import Session, sessionmaker

from accounting.models.grants import MoneyHold
from broker.database import Database, database_now
from broker.models.audit import ClockSlot
from broker.models.federation import Site
from broker.models.holds import QuotaHold
from broker.models.leases import LaunchAttempt, Lease, LeaseState, Outcome
from broker.models.messages import Message
from broker.models.workloads import Order, OrderState
from broker.orders import RECONCILE, stop_order
from broker.overdue import Overdue
from broker.restored import begin_observing
from broker.values import new_id
from tests.world import World, make_world
from web.cli.main import cli
from web.compose import Services, services
from web.overdue import find_overdue
from web.queue import QueuedJobs
from web.settings import load_settings


@pytest.fixture
def made(database: Database, sessions: sessionmaker[Session], tmp_path: Path) -> Iterator[Services]:
    """The real composition."""
    assert sessions is not None  # cleans up afterwards
    with services(load_settings(data_dir=tmp_path), replace(database, is_embedded=False)) as found:
        yield found


@pytest.fixture
def world(sessions: sessionmaker[Session], made: Services) -> Iterator[World]:
    """A federation of this installation's with one quick site."""
    with make_world(sessions, doors=made.doors) as found:
        found.observe(site_id(found))
        yield found


def site_id(world: World) -> UUID:
    with world.sessions() as session:
        return session.scalars(select(Site.id)).one()


def found(world: World, made: Services) -> list[Overdue]:
    with world.sessions() as session:
        return find_overdue(session, made.settings, database_now(session))


def only(world: World, made: Services, kind: str) -> Overdue:
    """The one thing that is overdue."""
    (thing,) = found(world, made)
    assert thing.kind == kind
    return thing


def ago(**time: float) -> Any:
    return func.clock_timestamp() - timedelta(**time)


def running(world: World) -> UUID:
    (lease_id,) = world.leases(world.order())
    world.until_running(lease_id)
    return lease_id


def change(world: World, table: type[Any], **values: Any) -> None:
    with world.sessions.begin() as session:
        session.execute(update(table).values(**values))


def name(world: World, lease_id: UUID) -> str:
    return f"machine {world.view(lease_id).lease.spec['name']} (lease {str(lease_id)[:18]})"


def worker(world: World, *, busy_with: str | None = None, since: timedelta = timedelta(0)) -> None:
    """A worker whose heart beats, and perhaps what it works on."""
    with world.sessions.begin() as session:
        worker_id = session.scalars(text("INSERT INTO procrastinate_workers DEFAULT VALUES RETURNING id")).one()
        if busy_with is not None:
            QueuedJobs().defer(session, RECONCILE, busy_with)
            session.execute(
                text("UPDATE procrastinate_jobs SET status = 'doing', worker_id = :id WHERE status = 'todo'"),
                {"id": worker_id},
            )
            session.execute(
                text("UPDATE procrastinate_events SET at = at - CAST(:since AS interval)"), {"since": since}
            )


def test_where_all_is_well_nothing_is_told(world: World, made: Services) -> None:
    lease_id = running(world)
    assert found(world, made) == []
    with world.sessions.begin() as session:
        stop_order(session, world.view(lease_id).lease.order_id, jobs=world.jobs, actor="tests", reason="done")
    world.until(lease_id, lambda lease: lease.settled_at is not None)
    assert found(world, made) == []


def test_a_machine_that_nobody_takes_for_want_of_a_worker(world: World, made: Services) -> None:
    lease_id = running(world)
    world.wake(lease_id, next_look_at=ago(minutes=5))
    thing = only(world, made, "machine")
    assert thing.thing == name(world, lease_id)
    assert thing.why == "no worker is alive"
    assert thing.hint == "Start one: `leeway serve`, or `leeway worker` beside it."
    assert thing.since is not None
    assert timedelta(minutes=5) <= world.now() - thing.since < timedelta(minutes=6)


def test_a_machine_that_nobody_takes_as_all_are_busy_says_with_what(world: World, made: Services) -> None:
    one, other = running(world), running(world)
    world.wake(one, next_look_at=ago(minutes=5))
    world.wake(other, next_look_at=ago(minutes=4), claim_until=ago(minutes=-1))
    worker(world, busy_with=str(other), since=timedelta(seconds=50))
    thing = only(world, made, "machine")
    assert thing.thing == name(world, one)
    assert thing.why.startswith(
        f"1 worker is alive, busy with 1 things, the longest: reconcile of {name(world, other)}"
    )
    assert "leeway worker" in thing.hint


def test_a_worker_that_is_alive_and_does_nothing(world: World, made: Services) -> None:
    world.wake(running(world), next_look_at=ago(minutes=5))
    worker(world)
    assert only(world, made, "machine").why == "1 worker is alive, and not one works"


def test_a_claim_that_ran_out(world: World, made: Services) -> None:
    lease_id = running(world)
    world.wake(lease_id, next_look_at=ago(days=-1), claim_until=ago(minutes=5))
    thing = only(world, made, "claim")
    assert (thing.thing, thing.why) == (
        name(world, lease_id),
        "the worker that had it died or froze, and no other has taken it",
    )


def test_machines_that_fail_again_and_again_are_one_line_for_each_trouble(world: World, made: Services) -> None:
    for _ in range(3):
        world.wake(running(world), next_look_at=ago(minutes=-2))
    change(world, Lease, failures=7, trouble="it does not answer")
    thing = only(world, made, "backoff")
    assert thing.thing.startswith("3 machines at aurora, such as machine ")
    assert thing.why == "failed 7 times in a row at aurora: it does not answer"
    assert thing.hint.startswith("Try `leeway site check aurora`. Next try: ")
    change(world, Lease, failures=2)
    assert found(world, made) == [], "a hiccup"


def test_a_launch_that_was_never_answered(world: World, made: Services) -> None:
    lease_id = running(world)
    change(world, LaunchAttempt, outcome=Outcome.UNKNOWN, give_up_at=ago(hours=1), error="no answer in time")
    things = found(world, made)
    assert {thing.kind for thing in things} == {"attempt"}
    assert things[-1].thing == name(world, lease_id)
    assert things[-1].why == "aurora never said whether it made the server (no answer in time)"
    assert "leeway findings" in things[-1].hint


def test_an_order_that_does_not_start_and_one_that_does_not_end(world: World, made: Services) -> None:
    world.order(name="early")
    change(world, Lease, next_look_at=ago(minutes=-5))
    change(world, Order, placed_at=ago(hours=2))
    thing = only(world, made, "order")
    assert (thing.thing, thing.why) == ("order early, which is to start", "its machines are pending")
    change(world, Order, state=OrderState.STOPPING)
    assert only(world, made, "order").thing == "order early, which is to end"


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"settle_trouble": "no rate", "settle_failures": 3}, "its accounting fails: no rate"),
        ({}, "it is over, and its money is not settled"),
    ],
)
def test_a_machine_that_is_over_and_not_charged(world: World, made: Services, values: dict[str, Any], why: str) -> None:
    lease_id = running(world)
    world.wake(lease_id, state=LeaseState.GONE, gone_at=ago(hours=1), next_look_at=ago(minutes=-1), **values)
    thing = only(world, made, "unsettled")
    assert (thing.thing, thing.why) == (name(world, lease_id), why)


def test_holds_of_what_is_over(world: World, made: Services) -> None:
    lease_id = running(world)
    world.wake(lease_id, gone_at=ago(hours=2), settled_at=ago(hours=2), next_look_at=None)
    change(world, Order, state=OrderState.OVER, ended_at=ago(hours=1))
    with world.sessions() as session:
        assert session.scalars(select(func.count()).select_from(MoneyHold)).one() == 1
    money, quota = found(world, made)
    assert (money.kind, money.why) == ("hold", "the order is over")
    assert money.thing.endswith("EUR set aside for order trial")
    assert quota.thing == f"quota set aside for {name(world, lease_id)}"
    change(world, MoneyHold, released_at=func.now())
    change(world, QuotaHold, released_at=func.now())
    assert found(world, made) == []


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"trouble": "the door is shut", "failures": 3}, "it could not be listed, 3 times in a row: the door is shut"),
        ({"listing_claim_until": ago(minutes=1)}, "whoever listed it died or froze, and no other has taken it"),
        ({"listing_claim_until": ago(minutes=-1)}, "its listing takes this long"),
        ({}, "no worker lists it"),
    ],
)
def test_a_site_that_is_not_listed(world: World, made: Services, values: dict[str, Any], why: str) -> None:
    change(world, Site, listed_at=ago(hours=1), checked_at=func.clock_timestamp(), **values)
    thing = only(world, made, "site")
    assert (thing.thing, thing.why) == ("site aurora", why)
    change(world, Site, is_enabled=False)
    assert found(world, made) == []


def test_a_check_that_nobody_answers(world: World, made: Services) -> None:
    change(world, Site, check_wanted_at=ago(minutes=10), checked_at=None)
    assert only(world, made, "check").why == "nobody has answered the wish to check its credential"


def test_wake_ups_that_nobody_fetches_and_a_thread_that_hangs(world: World, made: Services) -> None:
    lease_id = running(world)
    with world.sessions.begin() as session:
        QueuedJobs().defer(session, RECONCILE, str(lease_id))
        session.execute(text("UPDATE procrastinate_events SET at = at - interval '5 minutes'"))
    thing = only(world, made, "queue")
    assert (thing.thing, thing.why) == ("1 wake-ups in the queue", "no worker is alive")
    with world.sessions.begin() as session:
        session.execute(text("DELETE FROM procrastinate_jobs"))
    worker(world, busy_with=str(lease_id), since=timedelta(hours=1))
    thing = only(world, made, "thread")
    assert thing.thing.startswith(f"reconcile of {name(world, lease_id)} for 36")
    assert "hangs" in thing.why


def test_a_clock_that_nobody_winds(world: World, made: Services) -> None:
    with world.sessions.begin() as session:
        session.add(ClockSlot(name="sweep", slot=ago(minutes=10)))
    thing = only(world, made, "clock")
    assert thing.thing == "the clock's sweep"
    assert "none runs" in thing.why


def test_messages_that_are_not_sent(world: World, made: Services) -> None:
    def post(**values: Any) -> None:
        with world.sessions.begin() as session:
            session.add(
                Message(
                    key=str(new_id()), kind="reminder", recipients=[], subject="Soon over", body="...",
                    made_at=ago(hours=1), **values,
                )
            )  # fmt: skip

    post(next_try_at=ago(minutes=-9), failures=9, trouble="connection refused")
    thing = only(world, made, "message")
    assert (thing.thing, thing.why) == ("message 'Soon over'", "it could not be sent: connection refused")
    change(world, Message, sent_at=func.now())
    post(next_try_at=ago(minutes=9))
    post(next_try_at=ago(minutes=9))
    thing = only(world, made, "message")
    assert (thing.thing, thing.why) == ("2 messages, such as 'Soon over'", "nobody sends it")


def test_who_waits_for_a_lock_and_for_whom(world: World, made: Services) -> None:
    running(world)
    waited = threading.Event()

    def wait() -> None:
        with world.sessions() as session:
            session.execute(text("SET LOCAL lock_timeout = '20s'"))
            waited.set()
            session.execute(text("SELECT FROM leases FOR UPDATE"))

    thread = threading.Thread(target=wait)
    with world.sessions.begin() as session:
        session.execute(text("SELECT FROM leases FOR UPDATE"))
        pid = session.scalars(text("SELECT pg_backend_pid()")).one()
        thread.start()
        waited.wait(5)
        session.execute(text("SELECT pg_sleep(2.5)"))
        thing = only(world, made, "lock")
        assert f"it waits for a lock that connection {pid} holds (leeway tests, role " in thing.why
        assert thing.hint == f"If that one is stuck: SELECT pg_terminate_backend({pid})."
    thread.join(20)


def test_that_leeway_only_observes_stands_before_all_else(world: World, made: Services) -> None:
    world.wake(running(world), next_look_at=ago(minutes=5))
    with world.sessions.begin() as session:
        begin_observing(session, "the database was restored")
    thing = only(world, made, "observing")
    assert thing.why == "only observes: the database was restored"
    assert "leeway resume" in thing.hint


def doctor(database: Database, tmp_path: Path) -> str:
    environment = {
        "LEEWAY_DATA_DIR": str(tmp_path),
        "LEEWAY_DATABASE_URL": database.application_url,
        "LEEWAY_URL": "http://127.0.0.1:9",
        "LEEWAY_TOKEN": "x" * 43,
        "NO_COLOR": "1",
        "COLUMNS": "400",
    }
    return CliRunner().invoke(cli, ["doctor"], env=environment, prog_name="leeway").output


def test_the_doctor_asks_the_database_itself_where_no_server_answers(
    world: World, made: Services, database: Database, tmp_path: Path
) -> None:
    lease_id = running(world)
    assert "nothing is overdue" in doctor(database, tmp_path)
    world.wake(lease_id, next_look_at=ago(minutes=5))
    output = doctor(database, tmp_path)
    (line,) = [line for line in output.splitlines() if "overdue: machine" in line and "already" in line]
    assert f"{name(world, lease_id)}, for 5 min already: no worker is alive" in line
    assert "Start one: `leeway serve`" in output
    assert made is not None
