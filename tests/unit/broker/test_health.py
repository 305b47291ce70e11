"""The health of sites: the score by hand, every contact with a faulty sandbox noted, what quotes make of it."""

from __future__ import annotations

import inspect
import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session, sessionmaker

from adapters.openstack.adapter import OpenStack
from adapters.sandbox.profiles import aurora
from broker import ports
from broker.contacts import KINDS, Contacts, record
from broker.errors import NotFound, SiteDenied, SiteError
from broker.health import (
    DOUBT,
    KEPT,
    Health,
    HealthState,
    Slot,
    forget_contacts,
    history,
    judge,
    site_health,
    slot_of,
    unwell_sites,
)
from broker.inventory import observe, take_turn
from broker.models.federation import Site
from broker.models.health import ContactTotal, ProbeKind, SiteProbe
from broker.ports import Endings, Powers
from broker.reconcile import reconcile
from broker.remote import Deadline
from broker.sites import check_site
from tests.world import World, aurora_prices, make_world, quick

NOW = datetime(2026, 11, 21, 14, 30, tzinfo=UTC)
UNKNOWN = "site_unknown"


def ago(minutes: float) -> datetime:
    return NOW - timedelta(minutes=minutes)


def good(minutes: float, *, kind: ProbeKind = ProbeKind.LIST, contacts: int = 2) -> Slot:
    return Slot(kind, contacts, 0, ago(minutes), None)


def bad(minutes: float, *, kind: ProbeKind = ProbeKind.LIST, contacts: int = 1, error: str = UNKNOWN) -> Slot:
    return Slot(kind, contacts, contacts, None, ago(minutes), error)


WELL = [good(minutes) for minutes in range(0, 60, 5)]


class TestTheScore:
    def test_nobody_asked(self) -> None:
        assert judge([], now=NOW) == Health()
        assert judge([bad(61)], now=NOW).state is HealthState.UNKNOWN

    def test_a_site_that_answers_is_healthy(self) -> None:
        found = judge(WELL, now=NOW)
        assert (found.state, found.reason) == (HealthState.HEALTHY, None)
        assert found.kinds[0].share == 0

    def test_the_formula(self) -> None:
        slots = [good(30, contacts=1), Slot(ProbeKind.LIST, 4, 1, ago(10), ago(11), UNKNOWN), bad(0)]
        expected = (0.5 * 1 / 4 + 1) / (0.125 + 0.5 + 1 + DOUBT)
        assert judge(slots, now=NOW, half_life=timedelta(minutes=10)).kinds[0].share == pytest.approx(expected)

    def test_a_longer_half_life_remembers_longer(self) -> None:
        slots = [bad(20), good(0)]
        shares = [judge(slots, now=NOW, half_life=timedelta(minutes=minutes)).kinds[0].share for minutes in (5, 10, 60)]
        assert shares == sorted(shares)
        assert shares[0] < shares[-1]

    def test_one_hiccup_is_not_failing_not_even_of_a_new_site(self) -> None:
        assert judge([*WELL[1:], bad(0)], now=NOW).state is HealthState.SHAKY
        assert judge([bad(0)], now=NOW).state is HealthState.SHAKY

    def test_failing_says_since_when_and_how_much_of_what(self) -> None:
        found = judge([good(28, contacts=2), bad(20, contacts=3), bad(12), bad(0, contacts=3)], now=NOW)
        assert found.state is HealthState.FAILING
        assert found.reason == "failing since 14:02 UTC: 7 of the last 9 contacts failed (list: site_unknown)"

    def test_failing_without_a_good_contact_claims_no_time(self) -> None:
        """It may have failed for days, or be asked for the first time."""
        reason = judge([bad(40), bad(20), bad(0)], now=NOW).reason
        assert reason == "failing, not once well within the hour: 3 of the last 3 contacts failed (list: site_unknown)"

    def test_one_success_makes_it_shaky_and_time_makes_it_healthy(self) -> None:
        failing = [bad(25), bad(15), bad(6)]
        assert judge(failing, now=NOW).state is HealthState.FAILING
        answered = [*failing, good(0, contacts=1)]
        assert judge(answered, now=NOW).state is HealthState.SHAKY
        later = NOW + timedelta(minutes=40)
        assert judge(answered, now=later).state is HealthState.HEALTHY

    def test_what_is_not_asked_any_more_is_forgiven_in_the_end(self) -> None:
        """Or a site that quotes avoid would never be asked for a machine again."""
        launches = [bad(0, kind=ProbeKind.LAUNCH, contacts=5, error="site_busy")]
        states = [judge(launches, now=NOW + timedelta(minutes=minutes)).state for minutes in (0, 10, 30, 55)]
        assert states == [HealthState.FAILING, HealthState.FAILING, HealthState.SHAKY, HealthState.HEALTHY]

    def test_a_busy_hour_before_does_not_hide_an_outage(self) -> None:
        busy = [good(minutes, contacts=5000) for minutes in range(20, 60, 5)]
        assert judge([*busy, bad(14), bad(6), bad(0)], now=NOW).state is HealthState.FAILING

    def test_a_site_that_lists_well_and_cannot_start_anything_is_failing(self) -> None:
        found = judge([*WELL, bad(1, kind=ProbeKind.LAUNCH, contacts=4)], now=NOW)
        assert found.state is HealthState.FAILING
        assert [one.kind for one in found.kinds] == [ProbeKind.LAUNCH, ProbeKind.LIST]

    def test_one_machine_that_cannot_be_looked_at_does_not_take_its_site_away(self) -> None:
        stuck = [bad(minutes, kind=ProbeKind.MACHINE, contacts=2) for minutes in range(0, 60, 5)]
        assert judge([*WELL, *stuck], now=NOW).state is HealthState.SHAKY

    def test_whatever_goes_well_has_logged_in(self) -> None:
        checks = [bad(5, kind=ProbeKind.AUTH, contacts=4, error="check: credential")]
        assert judge(checks, now=NOW).state is HealthState.FAILING
        assert judge([*checks, good(0, contacts=1)], now=NOW).state is HealthState.SHAKY

    @given(
        st.lists(
            st.builds(
                lambda minutes, contacts, failures, kind: Slot(
                    kind,
                    contacts,
                    min(failures, contacts),
                    ago(minutes) if failures < contacts else None,
                    ago(minutes + 1) if failures else None,
                    UNKNOWN if failures else None,
                ),
                st.floats(-1, 70),
                st.integers(1, 9),
                st.integers(0, 9),
                st.sampled_from(ProbeKind),
            )
        ),
        st.floats(0.1, 600),
    )
    def test_a_share_is_a_share_and_a_success_never_makes_it_worse(self, slots: list[Slot], minutes: float) -> None:
        half_life = timedelta(minutes=minutes)
        found = judge(slots, now=NOW, half_life=half_life)
        assert all(0 <= one.share < 1 and math.isfinite(one.share) for one in found.kinds)
        assert (found.reason is None) == (found.state < HealthState.SHAKY)
        shares = {one.kind: one.share for one in found.kinds}
        better = judge([*slots, *(good(-2, kind=kind) for kind in ProbeKind)], now=NOW, half_life=half_life)
        assert better.state < HealthState.FAILING
        assert all(one.share <= shares.get(one.kind, 0) + 1e-9 for one in better.kinds)


def test_slots_begin_every_five_minutes() -> None:
    assert slot_of(datetime(2026, 11, 21, 14, 4, 59, 999999, tzinfo=UTC)) == datetime(2026, 11, 21, 14, 0, tzinfo=UTC)
    assert slot_of(datetime(2026, 11, 21, 14, 5, tzinfo=UTC)) == datetime(2026, 11, 21, 14, 5, tzinfo=UTC)


# --- contacts ----------------------------------------------------------------------------------------------------


@pytest.fixture
def contacts(world: World) -> Contacts:
    """What notes the contacts of `world.tools` from now on."""
    made = Contacts()
    world.tools = replace(world.tools, open_site=made.watching(world.doors.open))
    return made


def site_of(world: World) -> UUID:
    with world.sessions() as session:
        return session.scalars(select(Site.id)).one()


def written(world: World, contacts: Contacts) -> dict[ProbeKind, SiteProbe]:
    """What is in the rows after a writing; a slot may end in between, so counts are of the newest one of each kind."""
    with world.sessions.begin() as session:
        contacts.write(session)
    with world.sessions() as session:
        return {row.kind: row for row in session.scalars(select(SiteProbe).order_by(SiteProbe.slot))}


def visit(world: World, site_id: UUID) -> None:
    """A listing, due or not, whatever comes of it."""
    with world.sessions.begin() as session:
        session.execute(update(Site).values(next_listing_at=func.clock_timestamp(), listing_claim_until=None))
    turn = take_turn(world.tools, site_id)
    assert turn is not None
    try:
        observe(world.tools, turn)
    except SiteError:
        return


def test_a_listing_leaves_its_list_and_its_quota(world: World, contacts: Contacts) -> None:
    visit(world, site_of(world))
    rows = written(world, contacts)
    assert set(rows) == {ProbeKind.LIST, ProbeKind.QUOTA}
    row = rows[ProbeKind.QUOTA]
    assert (row.contacts, row.failures, row.last_failed_at, row.error_code) == (1, 0, None, None)
    assert 0 <= row.latency_max_ms <= row.latency_sum_ms
    assert row.last_ok_at is not None
    assert abs(row.last_ok_at - world.now()) < timedelta(minutes=1)
    assert row.slot <= row.last_ok_at < row.slot + timedelta(minutes=5)


def test_nothing_noted_writes_nothing(world: World, contacts: Contacts) -> None:
    visit(world, site_of(world))
    first = written(world, contacts)[ProbeKind.LIST].contacts
    assert written(world, contacts)[ProbeKind.LIST].contacts == first


def test_several_writers_add_up_and_the_last_failure_is_kept(world: World) -> None:
    site_id, clock = site_of(world), 1000.0
    made = [Contacts(clock=lambda: clock) for _ in range(2)]
    made[0].note(site_id, ProbeKind.LIST, seconds=2, error="site_busy")
    made[1].note(site_id, ProbeKind.LIST, seconds=1)
    written(world, made[0])
    found = written(world, made[1])[ProbeKind.LIST]
    if found.contacts == 2:  # else five minutes ended in between
        assert (found.failures, found.latency_sum_ms, found.latency_max_ms) == (1, 3000, 2000)
        assert (found.error_code, found.last_ok_at is not None) == ("site_busy", True)
    made[0].note(site_id, ProbeKind.LIST, error="site_denied")
    assert written(world, made[0])[ProbeKind.LIST].error_code == "site_denied"


def test_totals_go_on_when_what_they_are_made_of_is_forgotten(world: World) -> None:
    site_id, contacts = site_of(world), Contacts()
    contacts.note(site_id, ProbeKind.LIST, seconds=2, error="site_busy")
    contacts.note(site_id, ProbeKind.LIST, seconds=1)
    written(world, contacts)
    with world.sessions.begin() as session:
        forget_contacts(session, now=world.now() + KEPT + timedelta(hours=1))
        record(session, site_id, ProbeKind.LIST, seconds=0.5, error="site_unknown")
        record(session, site_id, ProbeKind.BOOT, seconds=41, error=None)
    with world.sessions() as session:
        totals = {
            row.kind: (row.contacts, row.failures, row.latency_sum_ms) for row in session.scalars(select(ContactTotal))
        }
        boot = session.scalars(select(SiteProbe).where(SiteProbe.kind == ProbeKind.BOOT)).one()
    assert totals == {ProbeKind.LIST: (3, 2, 3500), ProbeKind.BOOT: (1, 0, 41000)}
    assert (boot.last_failed_at, boot.error_code, boot.last_ok_at is not None) == (None, None, True)


def test_contacts_with_a_site_that_is_no_more_are_dropped(world: World, contacts: Contacts) -> None:
    contacts.note(uuid4(), ProbeKind.LIST)
    contacts.note(site_of(world), ProbeKind.LIST)
    assert written(world, contacts)[ProbeKind.LIST].contacts == 1


def test_a_watched_adapter_is_what_it_was(world: World, contacts: Contacts) -> None:
    adapter = world.tools.open_site(site_of(world))
    own = world.doors.open(site_of(world))
    assert isinstance(adapter, OpenStack)
    assert isinstance(adapter, Powers)
    assert isinstance(adapter, Endings)
    assert (adapter.capabilities, adapter.settle_time) == (own.capabilities, own.settle_time)
    adapter.scope(deadline=Deadline.after(5))
    assert written(world, contacts) == {}, "a token that is known asks nobody"


def test_no_question_to_a_site_goes_unnoted() -> None:
    asked = {
        name
        for port in vars(ports).values()
        if isinstance(port, type)
        for name, method in vars(port).items()
        if inspect.isfunction(method) and "deadline" in inspect.signature(method).parameters
    }
    assert {"listing", "make", "shelve", "ended_at"} <= asked
    assert asked - set(KINDS) == set()


def test_a_launch_and_its_looks_are_noted(world: World, contacts: Contacts) -> None:
    (lease_id,) = world.leases(world.order())
    world.until_running(lease_id)
    rows = written(world, contacts)
    assert rows[ProbeKind.LAUNCH].failures == 0
    assert rows[ProbeKind.MACHINE].contacts >= 1


@pytest.mark.parametrize(
    ("fault", "code"),
    [("500", "site_unknown"), ("html", "site_unknown"), ("403", "site_denied"), ("429", "site_busy")],
)
def test_a_listing_that_fails_is_a_failure_with_its_code(
    world: World, contacts: Contacts, fault: str, code: str
) -> None:
    world.cloud.faults.add(fault, service="compute", path="/servers")
    visit(world, site_of(world))
    row = written(world, contacts)[ProbeKind.LIST]
    assert (row.contacts, row.failures, row.error_code, row.last_ok_at) == (1, 1, code, None)


def test_a_refusal_is_an_answer(world: World, contacts: Contacts) -> None:
    world.cloud.faults.add("quota", method="POST", path="/servers$")
    (lease_id,) = world.leases(world.order())
    world.work(lease_id)
    row = written(world, contacts)[ProbeKind.LAUNCH]
    assert (row.failures, row.error_code) == (0, None)


def test_a_launch_that_is_never_answered_is_a_failure(world: World, contacts: Contacts) -> None:
    world.cloud.faults.add("500", method="POST", path="/servers$", times=1)
    (lease_id,) = world.leases(world.order())
    world.work(lease_id)
    assert written(world, contacts)[ProbeKind.LAUNCH].failures == 1


def test_a_check_names_the_step_that_failed(world: World, contacts: Contacts) -> None:
    site_id = site_of(world)
    check_site(world.tools, site_id)
    assert written(world, contacts)[ProbeKind.AUTH].failures == 0
    world.cloud.faults.add("401", service="identity", method="POST")
    check_site(world.tools, site_id)
    row = written(world, contacts)[ProbeKind.AUTH]
    assert (row.failures, row.error_code) == (1, "check: credential")


def test_a_site_that_cannot_be_opened_is_a_failure_of_its_credential(world: World, contacts: Contacts) -> None:
    def nothing(site_id: UUID) -> OpenStack:
        raise NotFound(f"no credential for {site_id}")

    site_id = site_of(world)
    with pytest.raises(NotFound):
        contacts.watching(nothing)(site_id)
    assert written(world, contacts)[ProbeKind.AUTH].error_code == "not_found"


def test_a_pass_that_cannot_log_in_is_noted(world: World, contacts: Contacts) -> None:
    order = world.order()
    (lease_id,) = world.leases(order)

    class Denied:
        def scope(self, *, deadline: Deadline) -> str:
            raise SiteDenied(f"no, with {deadline.remaining:.0f} s left")

        def __getattr__(self, name: str) -> object:
            return getattr(world.doors.open(site_of(world)), name)

    watching = contacts.watching(lambda _: Denied())  # type: ignore[arg-type, return-value] # an adapter but for one answer
    world.wake(lease_id)
    reconcile(replace(world.tools, open_site=watching), lease_id)
    assert written(world, contacts)[ProbeKind.MACHINE].error_code == "site_denied"


# --- quotes ------------------------------------------------------------------------------------------------------


def verdict(world: World) -> dict[str, Any]:
    """What a quote says of the one site there is."""
    (found,) = world.quote().verdicts
    return dict(found)


def note_failures(world: World, *, kind: ProbeKind, minutes: list[int], contacts: int = 1) -> None:
    """As if that had failed so many minutes ago."""
    with world.sessions.begin() as session:
        now = session.scalars(select(func.clock_timestamp())).one()
        for age in minutes:
            at = now - timedelta(minutes=age)
            session.merge(
                SiteProbe(
                    site_id=site_of(world), kind=kind, slot=slot_of(at), contacts=contacts, failures=contacts,
                    latency_sum_ms=5000, latency_max_ms=5000, last_failed_at=at, error_code=UNKNOWN,
                )
            )  # fmt: skip


def test_one_listing_that_fails_does_not_take_a_site_out_of_quotes(world: World, contacts: Contacts) -> None:
    world.cloud.faults.add("500", path="/servers", times=1)
    visit(world, site_of(world))
    with world.sessions.begin() as session:
        contacts.write(session)
    found = verdict(world)
    assert found["rank"] == 1
    assert found["summary"].endswith("; shaky: 1 of the last 1 contacts failed (list: site_unknown)")


def test_a_site_that_fails_again_and_again_is_avoided_and_comes_back_at_its_first_answer(
    world: World, contacts: Contacts
) -> None:
    site_id = site_of(world)
    fault = world.cloud.faults.add("500", path="/servers")
    for _ in range(3):
        visit(world, site_id)
    written(world, contacts)
    found = verdict(world)
    assert found["rank"] is None
    assert (
        "failing, not once well within the hour: 3 of the last 3 contacts failed (list: site_unknown)"
        in found["summary"]
    )
    world.cloud.faults.remove(fault)
    visit(world, site_id)
    written(world, contacts)
    answered = verdict(world)
    assert answered["rank"] == 1
    assert "shaky" in answered["summary"]


def test_without_contacts_the_third_failed_listing_in_a_row_takes_a_site_out(world: World) -> None:
    site_id = site_of(world)
    world.cloud.faults.add("500", path="/servers", times=3)
    visit(world, site_id)
    visit(world, site_id)
    hiccup = verdict(world)
    assert hiccup["rank"] == 1
    assert hiccup["summary"].endswith("; its last listing failed")
    visit(world, site_id)
    assert "could not be listed 3 times in a row" in verdict(world)["summary"]


def test_a_site_that_starts_nothing_is_avoided_until_that_is_forgiven(world: World) -> None:
    note_failures(world, kind=ProbeKind.LAUNCH, minutes=[1], contacts=5)
    found = verdict(world)
    assert found["rank"] is None
    assert "5 of the last 5 contacts failed (launch: site_unknown)" in found["summary"]
    with world.sessions.begin() as session:
        session.execute(
            update(SiteProbe).values(
                slot=SiteProbe.slot - timedelta(minutes=40),
                last_failed_at=SiteProbe.last_failed_at - timedelta(minutes=40),
            )
        )
    assert verdict(world)["rank"] == 1


def test_a_healthy_site_says_nothing_of_it(world: World, contacts: Contacts) -> None:
    visit(world, site_of(world))
    written(world, contacts)
    found = verdict(world)
    assert found["rank"] == 1
    assert "shaky" not in found["summary"]


def test_a_site_never_listed_and_one_that_is_observed_stay_out(sessions: sessionmaker[Session]) -> None:
    with make_world(sessions, quick(aurora())) as world:
        site_id = world.connect(world.cloud, prices=aurora_prices())
        with sessions.begin() as session:
            session.execute(update(Site).where(Site.id == site_id).values(observe_only=True))
        assert "only observes" in verdict(world)["summary"]
        with sessions.begin() as session:
            session.execute(update(Site).where(Site.id == site_id).values(observe_only=False, listed_at=None))
        assert "has not been listed yet" in verdict(world)["summary"]


# --- history -------------------------------------------------------------------------------------------------------


def test_history_is_per_hour_and_kind_and_old_contacts_are_forgotten(world: World) -> None:
    note_failures(world, kind=ProbeKind.LIST, minutes=[1, 130, 60 * 24 * 31])
    note_failures(world, kind=ProbeKind.QUOTA, minutes=[1])
    now, site_id = world.now(), site_of(world)
    with world.sessions.begin() as session:
        day = history(session, site_id, since=now - timedelta(days=1))
        assert [one.at for one in day] == sorted((one.at for one in day), reverse=True)
        assert {one.kind for one in day} == {ProbeKind.LIST, ProbeKind.QUOTA}
        assert sum(one.contacts for one in day if one.kind is ProbeKind.LIST) == 2
        assert {(one.latency_mean_ms, one.latency_max_ms) for one in day} == {(5000, 5000)}
        assert all(one.at.minute == one.at.second == 0 for one in day)
        forget_contacts(session, now=now)
        left = session.scalars(select(SiteProbe.slot)).all()
        assert len(left) == 3
        assert min(left) > now - KEPT


def test_only_sites_where_something_failed_are_read_for_quotes(world: World, contacts: Contacts) -> None:
    site_id = site_of(world)
    visit(world, site_id)
    written(world, contacts)
    with world.sessions() as session:
        assert unwell_sites(session, now=world.now()) == {}
        assert site_health(session, site_id, now=world.now()).state is HealthState.HEALTHY
    note_failures(world, kind=ProbeKind.QUOTA, minutes=[6, 12, 18])
    with world.sessions() as session:
        found = unwell_sites(session, now=world.now())
    assert set(found) == {site_id}
