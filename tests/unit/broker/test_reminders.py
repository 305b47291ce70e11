"""What people are told before a workload ends: once for each step, and nothing that they know already."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session, sessionmaker

from accounting.holds import GrantLedger
from accounting.order_money import spent_so_far
from broker.extensions import HOLD_REFUSED, Funding, extend_order, roll_hold
from broker.models.audit import Event, Finding
from broker.models.leases import Desired, Lease
from broker.models.messages import Message
from broker.models.people import Project
from broker.models.workloads import Order, OrderState
from broker.orders import stop_order
from broker.reminder_texts import Ending, left_until, refusal, reminder
from broker.reminders import STEPS, GoingOn, occasions, remind
from broker.restored import begin_observing
from broker.timeline import Concern, close_finding, raise_finding
from broker.values import Amount
from tests.world import World, make_world

DAY = timedelta(days=1)
WINDOW = timedelta(days=365)
MARCH = datetime(2026, 3, 1, 12, tzinfo=UTC)


def run(world: World, *, name: str = "trial", duration: str = "30 days") -> Order:
    """An order whose machine runs, and whose money was set aside to its end."""
    order = world.order(name=name, duration=duration)
    world.until_running(world.leases(order)[0])
    with world.sessions.begin() as session:
        session.execute(update(Order).where(Order.id == order.id).values(held_until=None))
    return order


def end_of(world: World, order: Order) -> datetime:
    with world.sessions() as session:
        return session.scalars(select(func.max(Lease.ends_at)).where(Lease.order_id == order.id)).one()


def look(world: World, now: datetime) -> int:
    """One tick of the clock."""
    with world.sessions.begin() as session:
        return remind(session, now=now, spent=lambda order_ids: spent_so_far(session, order_ids, now=now))


def messages(world: World) -> list[Message]:
    """Oldest first."""
    with world.sessions() as session:
        return list(session.scalars(select(Message).order_by(Message.id)))


def subjects(world: World) -> list[str]:
    return [message.subject for message in messages(world)]


# --- which step is due -----------------------------------------------------------------------------------------------


def going(*, duration: timedelta, ends_at: datetime, has_started: bool = True) -> GoingOn:
    order = Order(id=UUID(int=1), duration=duration, held_until=None)
    return GoingOn(order, "trial", Project(), ends_at, has_started, None)


@given(
    duration=st.timedeltas(timedelta(minutes=1), timedelta(days=60)),
    ticks=st.lists(st.timedeltas(timedelta(0), timedelta(days=60)), max_size=40),
)
def test_each_step_comes_at_most_once_and_none_that_lay_before_the_start(
    duration: timedelta, ticks: list[timedelta]
) -> None:
    """Whenever it is looked, hourly or after an outage."""
    end = MARCH + duration
    told: dict[str, timedelta] = {}
    for tick in sorted(ticks):
        for occasion in occasions(going(duration=duration, ends_at=end), now=MARCH + tick):
            told.setdefault(occasion.key, end - (MARCH + tick))
            assert occasion.step < duration
            assert timedelta(0) < end - (MARCH + tick) <= occasion.step
    lefts = list(told.values())
    assert len(lefts) <= sum(step < duration for step in STEPS)
    assert lefts == sorted(lefts, reverse=True)


def test_an_hourly_look_gives_14_3_and_1() -> None:
    end = MARCH + timedelta(days=30)
    found = [
        (occasion.step.days, hour)
        for hour in range(24 * 31)
        for occasion in occasions(going(duration=timedelta(days=30), ends_at=end), now=MARCH + timedelta(hours=hour))
    ]
    first = {step: min(hour for other, hour in found if other == step) for step, _ in found}
    assert first == {14: 16 * 24, 3: 27 * 24, 1: 29 * 24}


@pytest.mark.parametrize(
    ("duration", "steps"),
    [
        (timedelta(hours=2), set()),
        (DAY, set()),
        (2 * DAY, {1}),
        (3 * DAY, {1}),
        (4 * DAY, {3, 1}),
        (15 * DAY, {14, 3, 1}),
    ],
)
def test_a_short_workload_gets_only_what_it_is_longer_than(duration: timedelta, steps: set[int]) -> None:
    one = going(duration=duration, ends_at=MARCH + duration)
    minutes = range(int(duration / timedelta(minutes=10)) + 2)
    found = {o.step.days for n in minutes for o in occasions(one, now=MARCH + n * timedelta(minutes=10))}
    assert found == steps


def test_what_never_ran_has_no_end_to_be_reminded_of() -> None:
    one = going(duration=30 * DAY, ends_at=MARCH + DAY, has_started=False)
    assert list(occasions(one, now=MARCH + timedelta(hours=1))) == []


@pytest.mark.parametrize(
    ("left", "words"),
    [
        (timedelta(days=14), "14 days"),
        (timedelta(days=2, hours=23, minutes=20), "3 days"),
        (timedelta(hours=23, minutes=40), "1 day"),
        (timedelta(hours=22), "22 hours"),
        (timedelta(minutes=50), "1 hour"),
        (timedelta(minutes=10), "less than an hour"),
    ],
)
def test_time_left_is_said_as_one_would(left: timedelta, words: str) -> None:
    assert left_until(MARCH + left, now=MARCH) == words


# --- by the rows -----------------------------------------------------------------------------------------------------


def test_three_reminders_each_once_with_a_line_in_the_timeline(world: World) -> None:
    order = run(world)
    end = end_of(world, order)
    assert look(world, end - 15 * DAY) == 0
    for left in (14, 3, 1):
        assert look(world, end - left * DAY) == 1
        assert look(world, end - left * DAY + timedelta(hours=1)) == 0, "repeated, and nothing comes of it"
    assert look(world, end + timedelta(minutes=1)) == 0
    when = f"{end:%a %d %b %Y %H:%M} UTC"
    assert subjects(world) == [
        f"trial (project climate) ends in {left}: {when}" for left in ("14 days", "3 days", "1 day")
    ]
    with world.sessions() as session:
        told = session.scalars(select(Event.text).where(Event.kind == "reminder").order_by(Event.at)).all()
    assert told == [f"told the operator that it ends in {left}" for left in ("14 days", "3 days", "1 day")]


def test_after_an_outage_only_the_nearest_is_sent(world: World) -> None:
    order = run(world)
    assert look(world, end_of(world, order) - timedelta(hours=20)) == 1
    assert subjects(world)[0].startswith("trial (project climate) ends in 20 hours")


def test_two_lookers_at_once_write_one(world: World) -> None:
    order = run(world)
    now = end_of(world, order) - DAY
    with world.sessions() as first, world.sessions() as second:
        assert remind(first, now=now, spent=lambda _: {}) == 1
        first.commit()
        assert remind(second, now=now, spent=lambda _: {}) == 0
    assert len(messages(world)) == 1


def test_a_workload_of_two_hours_gets_no_mail(world: World) -> None:
    order = run(world, duration="2 hours")
    end = end_of(world, order)
    assert [look(world, end - timedelta(minutes=minutes)) for minutes in (119, 60, 1)] == [0, 0, 0]


def test_an_extension_brings_reminders_of_its_own_but_not_at_once(world: World) -> None:
    order = run(world)
    end = end_of(world, order)
    assert look(world, end - DAY) == 1
    later = end + 10 * DAY
    with world.sessions.begin() as session:
        funding = Funding(GrantLedger(), world.jobs, WINDOW)
        extend_order(session, order.id, later, funding, actor="tests", now=end - DAY)
    assert look(world, later - 3 * DAY) == 1
    assert look(world, later - DAY) == 1
    assert [re.findall(r"ends in (\S+ \S+):", subject) for subject in subjects(world)] == [
        ["1 day"],
        ["3 days"],
        ["1 day"],
    ]


def test_who_extends_to_ten_days_is_not_told_at_once_that_it_ends_in_ten(world: World) -> None:
    order = run(world)
    now = world.now()
    with world.sessions.begin() as session:
        funding = Funding(GrantLedger(), world.jobs, WINDOW)
        extend_order(session, order.id, end_of(world, order) + DAY, funding, actor="tests", now=now)
        # As if it had been ordered three weeks ago and now ended in ten days.
        session.execute(update(Lease).values(ends_at=now + 10 * DAY))
    assert look(world, now) == 0
    assert look(world, now + 7 * DAY) == 1


def test_several_machines_that_end_apart_are_one_workload_that_ends_with_the_last(world: World) -> None:
    order = world.order(duration="30 days", count=2)
    for lease_id in world.leases(order):
        world.until_running(lease_id)
    first, second = world.leases(order)
    with world.sessions.begin() as session:
        session.execute(update(Order).values(held_until=None))
        session.execute(update(Lease).where(Lease.id == first).values(ends_at=world.now() + DAY))
    assert look(world, world.now()) == 0
    assert look(world, end_of(world, order) - DAY) == 1
    assert "2 machines (a1.small) at aurora" in flat(messages(world)[0].body)
    with world.sessions.begin() as session:
        session.execute(delete(Message))
        session.execute(update(Lease).where(Lease.id == second).values(desired=Desired.GONE))
    assert look(world, world.now() + timedelta(minutes=1)) == 1, "the other one goes: the first is the last"


def flat(body: str) -> str:
    return " ".join(body.split())


def test_what_is_ending_already_is_not_reminded_of(world: World) -> None:
    order = run(world)
    with world.sessions.begin() as session:
        stop_order(session, order.id, jobs=world.jobs, actor="tests", reason="done")
    assert look(world, end_of(world, order) - DAY) == 0
    with world.sessions.begin() as session:
        session.execute(update(Order).values(state=OrderState.ACTIVE))
    assert look(world, end_of(world, order) - DAY) == 0, "its machine is on its way out"


def test_nothing_is_written_while_leeway_only_observes(world: World) -> None:
    order = run(world)
    with world.sessions.begin() as session:
        begin_observing(session, "tests")
    assert look(world, end_of(world, order) - DAY) == 0


def test_at_most_so_many_at_once_the_nearest_first(world: World) -> None:
    orders = [run(world, name=name, duration=duration) for name, duration in (("b", "29 days"), ("a", "30 days"))]
    now = end_of(world, orders[0]) - timedelta(hours=12)
    with world.sessions.begin() as session:
        assert remind(session, now=now, spent=lambda _: {}, most=1) == 1
    assert [subject[0] for subject in subjects(world)] == ["b"]
    assert look(world, now) == 1
    assert [subject[0] for subject in subjects(world)] == ["b", "a"]


def test_it_goes_to_the_contacts_and_says_what_it_costs(world: World) -> None:
    with world.sessions.begin() as session:
        session.execute(update(Project).values(contacts=["pi@example.org", "second@example.org"]))
    order = run(world)
    end = end_of(world, order)
    with world.sessions.begin() as session:
        session.execute(update(Lease).values(grace=timedelta(hours=2)))
    spent = Amount.of("12.40", "EUR")
    with world.sessions.begin() as session:
        assert remind(session, now=end - 3 * DAY, spent=lambda order_ids: dict.fromkeys(order_ids, spent)) == 1
    [message] = messages(world)
    assert message.recipients == ["pi@example.org", "second@example.org"]
    body = flat(message.body)
    assert f"{end:%A, %d %B %Y, %H:%M} UTC" in body
    assert "1 machine (a1.small) at aurora, and costs about 0.96 EUR per day while it runs" in body
    assert "It has cost 12.40 EUR so far" in body
    assert "leeway extend trial 7 days" in body
    assert "That week costs about 6.72 EUR" in body
    assert "leeway stop trial" in body
    assert f"{end:%a %d %b %Y %H:%M} UTC powered off" in body
    assert f"{end + timedelta(hours=2):%a %d %b %Y %H:%M} UTC deleted" in body
    assert "All times are in UTC" in body
    with world.sessions() as session:
        told = session.scalars(select(Event.text).where(Event.kind == "reminder")).one()
    assert told == "told 2 contacts that it ends in 3 days"
    assert max(map(len, message.body.splitlines())) <= 78


def test_an_order_of_a_name_that_another_took_is_called_by_its_id(world: World) -> None:
    order = run(world)
    run(world, duration="60 days")
    assert look(world, end_of(world, order) - DAY) == 1
    assert f"leeway stop {order.id}" in messages(world)[0].body


# --- no more money ---------------------------------------------------------------------------------------------------


def refuse(world: World, order: Order, *, held_until: datetime, at: datetime) -> None:
    """As `broker.extensions` leaves it where a grant has no room."""
    with world.sessions.begin() as session:
        session.execute(update(Order).where(Order.id == order.id).values(held_until=held_until))
        concern = Concern(
            kind=HOLD_REFUSED, key=str(order.id), text="no more can be set aside: 1.20 EUR free", hint="Add a grant."
        )
        raise_finding(session, concern, now=at)


def test_a_rolling_hold_is_nobodys_concern(world: World) -> None:
    order = run(world)
    now = world.now()
    with world.sessions.begin() as session:
        session.execute(update(Order).values(held_until=now + 2 * DAY))
    assert look(world, now) == 0
    assert look(world, end_of(world, order) - 14 * DAY) == 1


def test_a_refusal_is_told_once_and_once_more_a_day_before_the_money_ends(world: World) -> None:
    order = run(world)
    now = world.now()
    until = now + timedelta(days=3, hours=12)
    refuse(world, order, held_until=until, at=now)
    assert look(world, now) == 1
    refuse(world, order, held_until=until, at=now + timedelta(hours=1))
    assert look(world, now + timedelta(hours=1)) == 0
    assert look(world, until - 3 * DAY) == 0
    assert look(world, until - DAY) == 1
    assert look(world, until + timedelta(minutes=1)) == 0
    first, second = messages(world)
    assert first.subject == f"trial (project climate) runs out of money: it stops on {until:%a %d %b %Y %H:%M} UTC"
    assert second.subject.startswith("trial (project climate) ends in 1 day")
    body = flat(first.body)
    for words in (
        f"lasts until {until:%A, %d %B %Y, %H:%M} UTC",
        f"It was to run until {end_of(world, order):%a %d %b %Y %H:%M} UTC",
        "no more can be set aside: 1.20 EUR free",
        "costs about 0.96 EUR per day",
        f"{until:%a %d %b %Y %H:%M} UTC powered off",
        f"{until + timedelta(minutes=15):%a %d %b %Y %H:%M} UTC deleted",
        "leeway extend trial 7 days",
        "`leeway spend climate`",
    ):
        assert words in body, words


def test_money_that_has_ended_is_no_longer_announced(world: World) -> None:
    order = run(world)
    now = world.now()
    refuse(world, order, held_until=now + DAY, at=now)
    assert look(world, now + DAY) == 0


def test_money_that_came_back_ends_the_matter_and_another_refusal_is_told_anew(world: World) -> None:
    order = run(world)
    now = world.now()
    refuse(world, order, held_until=now + 3 * DAY, at=now)
    assert look(world, now) == 1
    with world.sessions.begin() as session:
        close_finding(session, HOLD_REFUSED, str(order.id))
        session.execute(update(Order).values(held_until=now + 7 * DAY))
    assert look(world, now + 2 * DAY) == 0
    refuse(world, order, held_until=now + 7 * DAY, at=now + 4 * DAY)
    assert look(world, now + 4 * DAY) == 1
    with world.sessions() as session:
        assert session.scalars(select(func.count()).select_from(Finding)).one() == 2


def test_a_grant_without_room_for_the_next_window_is_told_of(sessions: sessionmaker[Session]) -> None:
    """The real refusal, not one that a test wrote."""
    with make_world(sessions, grant="8 EUR") as world:
        order = world.order(duration="30 days")
        world.until_running(world.leases(order)[0])
        with sessions() as session:
            until = session.get_one(Order, order.id).held_until
        assert until is not None
        now = until - 3 * DAY
        assert look(world, now) == 0
        with sessions.begin() as session:
            funding = Funding(GrantLedger(), world.jobs, timedelta(days=7))
            assert not roll_hold(session, order.id, funding, now=now)
        assert look(world, now) == 1
        [message] = messages(world)
        assert message.kind == HOLD_REFUSED
        assert "EUR" in flat(message.body).partition("What was found:")[2].partition("It is 1 machine")[0]


def test_money_that_lasts_to_the_end_needs_no_more(world: World) -> None:
    order = run(world)
    now = world.now()
    refuse(world, order, held_until=end_of(world, order), at=now)
    assert look(world, now) == 0


# --- the words -------------------------------------------------------------------------------------------------------

EVIL = "x\r\nBcc: thief@example.org\r\n\r\nDear user,\n\n    rm -rf / #\u202e"


def ending(**changes: object) -> Ending:
    values: dict[str, object] = {
        "workload": EVIL,
        "ref": EVIL,
        "project": EVIL,
        "machines": EVIL,
        "off_at": MARCH,
        "deleted_at": MARCH,
        "keeps": None,
        "per_day": (),
        "spent": None,
        "has_contacts": False,
    }
    return Ending(**(values | changes))  # type: ignore[arg-type] # as the fields are


def test_names_stay_in_their_lines_and_are_quoted_for_the_shell() -> None:
    for subject, body in (
        reminder(ending(), now=MARCH - DAY),
        refusal(ending(), why=EVIL, wanted_until=MARCH + DAY),
    ):
        assert "\n" not in subject
        assert "\r" not in body
        assert "\u202e" not in body
        commands = [line for line in body.splitlines() if line.startswith("    ")]
        assert [line for line in commands if re.match(r" +(Bcc|Dear|rm)", line)] == []
        quoted = "'x Bcc: thief@example.org Dear user, rm -rf / #'"
        assert f"    leeway stop {quoted}" in commands
        assert f"    leeway extend {quoted} 7 days" in commands
        assert f"    leeway project contact {quoted} --add ADDRESS" in commands


def test_an_unknown_price_is_said_and_not_taken_as_nothing() -> None:
    _, body = reminder(ending(workload="trial"), now=MARCH - DAY)
    assert "an amount per day that is not known now" in flat(body)
    assert "0.00" not in body
    assert "so far" not in body


def test_what_is_deleted_at_once_is_not_said_to_be_kept() -> None:
    _, body = reminder(ending(), now=MARCH - DAY)
    assert "powered off" not in body
    assert "deleted, with all that is on its disk" in flat(body)


def test_who_keeps_a_snapshot_is_told_for_how_long() -> None:
    _, body = reminder(ending(deleted_at=MARCH + DAY, keeps=30 * DAY), now=MARCH - DAY)
    words = " ".join(body.split())
    assert "deleted; a snapshot of its disk is kept for 30 days after that, and then deleted too" in words
    assert "nobody can bring that back" not in words
