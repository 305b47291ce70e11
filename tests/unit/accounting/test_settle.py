"""One lease's money, from what was seen to the hold given back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from sqlalchemy import select, update
from sqlalchemy.exc import DBAPIError

from accounting.models.charges import Charge, ChargeState
from accounting.models.grants import Grant, MoneyHold
from accounting.models.ledger import Balance, Posting
from accounting.proof import prove
from accounting.settle import Settlement, settle
from broker.errors import InvalidInput, NotFound
from broker.models.audit import Event
from broker.models.leases import Desired, Lease, LeaseState, Outcome
from broker.models.workloads import Order, OrderState
from broker.remote import Fence, PartKind
from broker.values import Period, new_id
from tests.unit.accounting.world import BILLS, HOUR, LEDGER, T0, YEAR, World, eur

pytestmark = pytest.mark.postgres

RUNNING, STOPPED, GONE = LeaseState.RUNNING, LeaseState.STOPPED, LeaseState.GONE
DECEMBER = datetime(2026, 12, 1, tzinfo=UTC)


def at(hours: float) -> datetime:
    """So many hours after the order."""
    return T0 + hours * HOUR


@pytest.fixture
def grant(world: World) -> Grant:
    """100 EUR over the year; the machine costs 0.06 EUR an hour."""
    world.card()
    return world.grant("100")


@pytest.fixture
def order(world: World, grant: Grant) -> Order:
    """An order that holds 10 EUR."""
    assert world.of_grant(grant) == (0, 0)
    return world.order("10")


@pytest.fixture
def lease(world: World, order: Order) -> Lease:
    """Its lease."""
    return world.lease(order)


def run(world: World, lease: Lease, hours: float = 48) -> Settlement:
    """Settle at so many hours after the order."""
    return settle(world.session, lease.id, now=at(hours))


def test_a_life_is_charged_and_the_rest_given_back(world: World, grant: Grant, order: Order, lease: Lease) -> None:
    quota = world.quota(lease)
    for hours, state in ((1, LeaseState.BUILDING), (2, RUNNING), (12, STOPPED), (14, GONE)):
        world.see(lease, at(hours), state)
    assert run(world, lease) == Settlement(charged=3, is_settled=True, order_is_over=True)
    cost = 10 * Decimal("0.06") + 2 * Decimal("0.03")
    assert world.of_grant(grant) == (cost, 0)
    assert world.owed == cost
    assert world.overdraft == 0
    assert [charge.billed_cost for charge in world.charges(lease)] == [0, Decimal("0.6"), Decimal("0.06")]
    (hold,) = world.holds(order)
    assert (hold.remaining, hold.released_at) == (10 - cost, at(48))
    world.session.refresh(quota)
    assert (lease.settled_at, quota.released_at) == (at(48), at(48))
    assert (order.state, order.ended_at) == (OrderState.OVER, at(48))
    told = world.session.scalars(select(Event.text).where(Event.order_id == order.id)).all()
    assert told == ["all is charged; given back: 9.34 EUR"]
    assert prove(world.session) == []


def test_twice_is_once(world: World, grant: Grant, lease: Lease) -> None:
    world.see(lease, at(1), RUNNING)
    run(world, lease, 2)
    first = [segment.id for segment in world.segments(lease)]
    assert run(world, lease, 3) == Settlement(charged=0, is_settled=False, order_is_over=False)
    assert [segment.id for segment in world.segments(lease)] == first
    world.see(lease, at(5), GONE)
    run(world, lease, 6)
    before = (world.of_grant(grant), world.entries(), lease.settled_at)
    assert run(world, lease, 7) == Settlement(charged=0, is_settled=True, order_is_over=True)
    assert (world.of_grant(grant), world.entries(), lease.settled_at) == before
    assert [segment.id for segment in world.segments(lease)] == first


def test_while_it_runs_nothing_is_posted(world: World, grant: Grant, lease: Lease) -> None:
    world.see(lease, at(1), RUNNING)
    world.still(lease, at(40))
    run(world, lease, 40)
    (segment,) = world.segments(lease)
    assert (segment.starts_at, segment.ends_at, segment.state, segment.sku) == (at(1), None, RUNNING, "m1.small")
    assert world.of_grant(grant) == (0, 10)
    assert world.entries() == 0


def test_a_month_is_closed_once_the_machine_was_seen_after_it(world: World, grant: Grant) -> None:
    order = world.order("50", until=T0 + timedelta(days=30))
    lease = world.lease(order)
    world.see(lease, at(0.5), RUNNING)
    world.still(lease, DECEMBER - HOUR)
    settle(world.session, lease.id, now=DECEMBER + HOUR)
    assert world.of_grant(grant) == (0, 50), "it may have ended before the month did"
    world.still(lease, DECEMBER + HOUR)
    settle(world.session, lease.id, now=DECEMBER + HOUR)
    first, second = world.segments(lease)
    assert (first.ends_at, second.starts_at, second.ends_at) == (DECEMBER, DECEMBER, None)
    (charge,) = world.charges(lease)
    assert (charge.billing_period_start, charge.billing_period_end) == (datetime(2026, 11, 1, tzinfo=UTC), DECEMBER)
    assert charge.billed_cost == Decimal("0.06") * ((DECEMBER - at(0.5)) // timedelta(minutes=30)) / 2
    assert world.of_grant(grant) == (charge.billed_cost, 50 - charge.billed_cost)


def test_a_new_price_counts_from_its_moment(world: World, lease: Lease) -> None:
    world.card({"m1.small": "0.12"}, since=at(6))
    world.see(lease, at(1), RUNNING)
    world.see(lease, at(11), GONE)
    run(world, lease)
    assert [charge.billed_cost for charge in world.charges(lease)] == [Decimal("0.3"), Decimal("0.6")]
    assert [charge.list_unit_price for charge in world.charges(lease)] == [Decimal("0.06"), Decimal("0.12")]


def test_what_goes_beyond_the_hold_is_overdraft_and_a_finding(world: World, grant: Grant) -> None:
    order = world.order("1")
    lease = world.lease(order)
    world.see(lease, at(0), RUNNING)
    world.see(lease, at(20), STOPPED)
    run(world, lease, 20)
    assert (world.of_grant(grant), world.overdraft, world.owed) == ((1, 0), Decimal("0.2"), Decimal("1.2"))
    (finding,) = world.findings("overdraft", lease.id)
    assert finding.per_day == Decimal("0.72"), "of what goes on: it is stopped"
    assert "cost 0.2 EUR more than was set aside" in finding.text
    world.see(lease, at(30), GONE)
    run(world, lease, 31)
    (finding,) = world.findings("overdraft", lease.id)
    assert (finding.per_day, finding.commodity) == (0, "EUR")
    assert "cost 0.5 EUR more" in finding.text
    assert (order.state, world.overdraft) == (OrderState.OVER, Decimal("0.5"))
    assert prove(world.session) == []


def test_a_charge_is_split_as_its_hold_is(world: World) -> None:
    world.card()
    first, second = world.grant("1"), world.grant("5")
    order = world.order("3")
    lease = world.lease(order)
    world.see(lease, at(0), RUNNING)
    world.see(lease, at(30), GONE)
    run(world, lease)
    assert (world.of_grant(first), world.of_grant(second)) == ((1, 0), (Decimal("0.8"), 0))
    amounts = world.session.scalars(select(Posting.amount).order_by(Posting.amount)).all()
    assert amounts == [Decimal("-1.8"), Decimal("0.8"), 1]
    rows = {row.x_grant_id: row for row in world.charges(lease)}
    assert (rows[first.id].billed_cost, rows[second.id].billed_cost) == (1, Decimal("0.8"))
    assert sum(row.pricing_quantity for row in rows.values()) == 30
    assert sum(row.consumed_quantity for row in rows.values()) == 30


def test_a_split_changes_no_tier_and_no_minimum(world: World) -> None:
    card = world.card({"public-address": "0.01"})
    world.price(card, "m1.small", "0.10")
    world.price(card, "m1.small", "0.05", above="10")
    first, second = world.grant("0.5"), world.grant("0.7")
    lease = world.lease(world.order("1.2"))
    world.part(lease, PartKind.ADDRESS, made_at=at(0))
    world.see(lease, at(0), RUNNING)
    world.see(lease, at(20), GONE)
    run(world, lease)
    cost = [(row.sku_price_id.split("/", 1)[1], row.x_grant_id, row.billed_cost) for row in world.charges(lease)]
    assert sorted(cost, key=str) == sorted(
        [
            ("m1.small/0", first.id, Decimal("0.5")),
            ("m1.small/0", second.id, Decimal("0.5")),
            ("m1.small/1", second.id, Decimal("0.2")),
            ("m1.small/1", None, Decimal("0.3")),
            ("public-address/0", None, Decimal("0.2")),
        ],
        key=str,
    )
    assert world.overdraft == Decimal("0.5")


def test_a_grant_that_opened_later_pays_from_then_on(world: World) -> None:
    world.card()
    first, second = world.grant("0.6"), world.grant("50", period=Period(at(5), YEAR.end))
    order = world.order("0.6")
    lease = world.lease(order)
    world.see(lease, at(0), RUNNING)
    world.still(lease, at(8))
    LEDGER.extend(world.session, order.id, [eur(4)], at(48), now=at(8))
    world.see(lease, at(20), GONE)
    run(world, lease)
    assert [segment.ends_at for segment in world.segments(lease)] == [at(5), at(20)]
    assert (world.of_grant(first)[0], world.of_grant(second)[0]) == (Decimal("0.6"), Decimal("0.6"))
    assert world.overdraft == 0


def test_a_grant_pays_for_nothing_after_its_end(world: World) -> None:
    world.card()
    grant = world.grant("100", period=Period(YEAR.start, at(48)))
    lease = world.lease(world.order("50", until=at(48)))
    world.see(lease, at(0), RUNNING)
    world.see(lease, at(50), GONE)
    run(world, lease, 51)
    assert [segment.ends_at for segment in world.segments(lease)] == [at(48), at(50)]
    assert world.of_grant(grant) == (48 * Decimal("0.06"), 0)
    assert world.overdraft == Decimal("0.12")


def test_another_currency_is_not_paid_by_this_hold(world: World, grant: Grant, lease: Lease) -> None:
    world.card({"m1.small": "0.12"}, since=at(6), currency="USD")
    world.see(lease, at(5), RUNNING)
    world.see(lease, at(7), GONE)
    run(world, lease)
    assert world.of_grant(grant) == (Decimal("0.06"), 0)
    assert world.posted(f"overdraft:{world.project.id}", "USD") == Decimal("0.12")


def test_no_rate_card_in_force_is_no_price(world: World) -> None:
    grant = world.grant("100")
    card = world.card(since=at(10))
    order = world.order("10")
    lease = world.lease(order)
    world.see(lease, at(5), RUNNING)
    world.see(lease, at(15), GONE)
    assert run(world, lease, 20) == Settlement(charged=1, is_settled=False, order_is_over=False)
    assert [segment.rate_card_version_id is None for segment in world.segments(lease)] == [True, False]
    (finding,) = world.findings("price_unknown", lease.id)
    assert "no rate card in force on 2026-11-21 17:00 UTC" in finding.text
    assert finding.per_day is None
    assert world.of_grant(grant) == (Decimal("0.3"), Decimal("9.7")), "the hold is kept, and nothing taken as free"
    # Nothing new is posted, and the finding stays one.
    assert run(world, lease, 21).charged == 0
    assert len(world.findings("price_unknown", lease.id)) == 1
    assert (order.state, lease.settled_at) == (OrderState.PLACED, None)
    card.valid_from = at(0)
    world.session.flush()
    assert run(world, lease, 22) == Settlement(charged=1, is_settled=True, order_is_over=True)
    assert [finding.resolved_at for finding in world.findings("price_unknown", lease.id)] == [at(22)]
    assert world.of_grant(grant) == (Decimal("0.6"), 0)
    assert prove(world.session) == []


def test_a_state_without_a_price_waits_for_one(world: World) -> None:
    grant = world.grant("100")
    card = world.card(bills={"running": "1"})
    lease = world.lease(world.order("10"))
    for hours, state in ((0, RUNNING), (10, LeaseState.SHELVED), (20, RUNNING), (30, GONE)):
        world.see(lease, at(hours), state)
    assert run(world, lease) == Settlement(charged=2, is_settled=False, order_is_over=False)
    (finding,) = world.findings("price_unknown", lease.id)
    assert "does not say what a shelved machine costs" in finding.text
    assert world.of_grant(grant) == (Decimal("1.2"), Decimal("8.8"))
    card.bills = BILLS
    world.session.flush()
    assert run(world, lease).is_settled
    assert world.of_grant(grant) == (Decimal("1.2"), 0)
    assert [charge.x_share for charge in world.charges(lease)] == [1, 0, 1]


def test_a_public_address_is_a_charge_of_its_own(world: World, grant: Grant) -> None:
    world.card({"m1.small": "0.06", "public-address": "0.004"}, since=T0 - HOUR)
    lease = world.lease(world.order("10"))
    world.part(lease, PartKind.ADDRESS, made_at=at(2), gone_at=at(12))
    world.see(lease, at(1), RUNNING)
    world.see(lease, at(7), STOPPED)
    world.see(lease, at(13), GONE)
    run(world, lease)
    machine = [charge for charge in world.charges(lease) if charge.sku_id == "m1.small"]
    address = [charge for charge in world.charges(lease) if charge.sku_id == "public-address"]
    assert [charge.consumed_quantity for charge in machine] == [1, 5, 5, 1]
    assert [charge.billed_cost for charge in address] == [Decimal("0.02")] * 2, "the same while it is stopped"
    assert {charge.service_category for charge in address} == {"Networking"}
    assert world.of_grant(grant)[0] == 6 * Decimal("0.06") + 6 * Decimal("0.03") + Decimal("0.04")


def test_an_address_that_was_never_made_costs_nothing(world: World, lease: Lease) -> None:
    world.part(lease, PartKind.ADDRESS, made_at=None)
    world.see(lease, at(1), RUNNING)
    world.see(lease, at(2), GONE)
    run(world, lease)
    assert [charge.sku_id for charge in world.charges(lease)] == ["m1.small"]


def test_tiers_are_entered_by_the_providers_month(world: World) -> None:
    world.grant("100")
    card = world.card({"m1.small": "0.10"})
    world.price(card, "m1.small", "0.05", above="10")
    first, second = world.lease(world.order("5")), world.lease(world.order("5"))
    for lease in (first, second):
        world.see(lease, at(0), RUNNING)
        world.see(lease, at(8), GONE)
        run(world, lease)
    assert [charge.billed_cost for charge in world.charges(first)] == [Decimal("0.8")]
    cheap = world.charges(second)
    assert [(charge.pricing_quantity, charge.billed_cost) for charge in cheap] == [
        (2, Decimal("0.2")),
        (6, Decimal("0.3")),
    ]
    assert [charge.consumed_quantity for charge in cheap] == [2, 6]
    assert [charge.sku_price_id.rsplit("/", 1)[1] for charge in cheap] == ["0", "1"]


def test_a_charge_has_the_columns_of_focus(world: World, grant: Grant, lease: Lease) -> None:
    world.see(lease, at(1), STOPPED)
    world.see(lease, at(3), GONE, is_estimated=True, since=at(2))
    run(world, lease)
    (charge,) = world.charges(lease)
    (segment,) = world.segments(lease)
    found = {column.key: getattr(charge, column.key) for column in Charge.__table__.columns}
    assert found == {
        "id": charge.id,
        "segment_id": segment.id,
        "entry_id": charge.entry_id,
        "lease_id": lease.id,
        "project_id": world.project.id,
        "state": ChargeState.PROVISIONAL,
        "charge_category": "Usage",
        "charge_class": None,
        "charge_description": "m1.small, stopped",
        "charge_period_start": at(1),
        "charge_period_end": at(2),
        "billing_period_start": datetime(2026, 11, 1, tzinfo=UTC),
        "billing_period_end": DECEMBER,
        "billing_currency": "EUR",
        "service_category": "Compute",
        "service_name": "Virtual machines",
        "service_provider_name": world.provider.name,
        "region_id": "north",
        "resource_id": f"r-{lease.id}",
        "resource_name": "era5-1",
        "resource_type": "Virtual Machine",
        "sku_id": "m1.small",
        "sku_price_id": f"{segment.rate_card_version_id}/m1.small/0",
        "pricing_category": "Standard",
        "pricing_quantity": 1,
        "pricing_unit": "Hours",
        "consumed_quantity": 1,
        "consumed_unit": "Hours",
        "list_unit_price": Decimal("0.03"),
        "contracted_unit_price": Decimal("0.03"),
        "list_cost": Decimal("0.03"),
        "contracted_cost": Decimal("0.03"),
        "billed_cost": Decimal("0.03"),
        "effective_cost": Decimal("0.03"),
        "x_machine_state": "stopped",
        "x_share": Decimal("0.5"),
        "x_estimated": True,
        "x_grant_id": grant.id,
        "x_correction": 0,
    }


@pytest.mark.parametrize("outcome", [Outcome.PREPARED, Outcome.UNKNOWN, Outcome.DISCARD])
def test_an_attempt_that_may_have_made_something_keeps_the_hold(world: World, grant: Grant, outcome: Outcome) -> None:
    order = world.order("10")
    lease = world.lease(order)
    attempt = world.attempt(lease, outcome)
    world.see(lease, at(1), RUNNING)
    world.see(lease, at(2), GONE)
    assert run(world, lease) == Settlement(charged=1, is_settled=False, order_is_over=False)
    assert world.of_grant(grant) == (Decimal("0.06"), Decimal("9.94"))
    attempt.outcome = Outcome.GONE
    world.session.flush()
    assert run(world, lease) == Settlement(charged=0, is_settled=True, order_is_over=True)
    assert world.of_grant(grant) == (Decimal("0.06"), 0)
    assert order.state is OrderState.OVER


def test_an_order_is_over_with_its_last_lease(world: World, grant: Grant, order: Order, lease: Lease) -> None:
    other = world.lease(order, member=2)
    world.see(lease, at(1), RUNNING)
    world.see(lease, at(2), GONE)
    assert run(world, lease) == Settlement(charged=1, is_settled=True, order_is_over=False)
    assert world.of_grant(grant) == (Decimal("0.06"), Decimal("9.94"))
    other.gone_at = at(2)
    world.session.flush()
    assert run(world, other) == Settlement(charged=0, is_settled=True, order_is_over=True)
    assert world.of_grant(grant) == (Decimal("0.06"), 0)
    assert world.segments(other) == []


def test_a_returned_order_stays_with_its_person_until_it_is_stopped(
    world: World, grant: Grant, order: Order, lease: Lease
) -> None:
    order.state, lease.gone_at, lease.desired = OrderState.RETURNED, at(1), Desired.GONE
    world.session.flush()
    assert run(world, lease) == Settlement(charged=0, is_settled=True, order_is_over=False)
    assert (order.state, order.ended_at, world.of_grant(grant)) == (OrderState.RETURNED, None, (0, 0))
    order.state = OrderState.STOPPING
    world.session.flush()
    assert run(world, lease, 50).order_is_over
    assert (order.state, order.ended_at) == (OrderState.OVER, at(50))


def test_a_lease_that_is_over_ends_even_if_nobody_saw_it_go(world: World, lease: Lease) -> None:
    world.see(lease, at(1), RUNNING)
    world.still(lease, at(5))
    lease.gone_at = at(9)
    world.session.flush()
    assert run(world, lease).is_settled
    (segment,) = world.segments(lease)
    assert (segment.ends_at, segment.is_estimated) == (at(5), True)
    assert [charge.x_estimated for charge in world.charges(lease)] == [True]


def test_an_open_segment_becomes_what_is_known_later(world: World, lease: Lease) -> None:
    world.see(lease, at(3), RUNNING)
    run(world, lease, 3)
    # An older listing comes in late: the machine was there, stopped, before.
    world.see(lease, at(1), STOPPED)
    world.see(lease, at(4), LeaseState.UNKNOWN)
    run(world, lease, 4)
    assert [(row.starts_at, row.ends_at, row.state.value, row.is_estimated) for row in world.segments(lease)] == [
        (at(1), at(3), "stopped", False),
        (at(3), at(4), "running", False),
        (at(4), None, "running", True),
    ]


def test_segments_that_turn_out_otherwise_go_until_they_are_charged(world: World) -> None:
    world.grant("100")
    card = world.card(bills={"building": "0", "stopped": "0.5"})
    lease = world.lease(world.order("10"))
    world.see(lease, at(2), RUNNING)
    world.see(lease, at(4), STOPPED)
    assert run(world, lease, 5).charged == 0, "running has no price"
    world.see(lease, at(3), LeaseState.BUILDING)
    world.see(lease, at(1), RUNNING)
    card.bills = BILLS
    world.session.flush()
    assert run(world, lease, 6).charged == 2
    assert [(row.starts_at, row.ends_at, row.state.value) for row in world.segments(lease)] == [
        (at(1), at(3), "running"),
        (at(3), at(4), "building"),
        (at(4), None, "stopped"),
    ]


def test_what_is_charged_is_never_altered(world: World, grant: Grant, lease: Lease) -> None:
    world.see(lease, at(1), RUNNING)
    world.see(lease, at(5), STOPPED)
    run(world, lease, 5)
    before = [(row.id, row.starts_at, row.ends_at) for row in world.segments(lease)][:1]
    world.see(lease, at(3), STOPPED)
    world.see(lease, at(6), RUNNING, since=at(5.5))
    world.see(lease, at(7), GONE)
    run(world, lease, 8)
    assert [(row.id, row.starts_at, row.ends_at) for row in world.segments(lease)][:1] == before
    assert [(row.starts_at, row.ends_at) for row in world.segments(lease)] == [
        (at(1), at(5)),
        (at(5), at(5.5)),
        (at(5.5), at(7)),
    ]
    assert world.of_grant(grant)[0] == Decimal("0.06") * (4 + Decimal("1.5")) + Decimal("0.015")


def test_another_type_is_another_sku(world: World, lease: Lease) -> None:
    world.sell("f-2", "m1.big")
    world.card({"m1.small": "0.06", "m1.big": "0.20"}, since=T0 - HOUR)
    world.see(lease, at(1), RUNNING)
    world.see(lease, at(2), RUNNING, kind="f-2")
    world.see(lease, at(3), RUNNING, kind="f-unknown")
    world.see(lease, at(4), GONE, kind=None)
    assert run(world, lease) == Settlement(charged=2, is_settled=False, order_is_over=False)
    assert [charge.billed_cost for charge in world.charges(lease)] == [Decimal("0.06"), Decimal("0.20")]
    (finding,) = world.findings("price_unknown", lease.id)
    assert "no price for f-unknown" in finding.text


def test_unknown_leases_and_naive_times(world: World, lease: Lease) -> None:
    with pytest.raises(NotFound):
        settle(world.session, new_id(), now=T0)
    with pytest.raises(InvalidInput, match="now"):
        settle(world.session, lease.id, now=datetime(2026, 12, 1))  # noqa: DTZ001 - the point


def test_one_open_attempt_keeps_the_money_of_the_whole_order(world: World, grant: Grant) -> None:
    """Cancelled while a launch is unknown, at a site where nothing would stop a second machine."""
    order = world.order("10")
    done, doubtful = world.lease(order), world.lease(order, member=2)
    world.see(done, at(1), RUNNING)
    world.see(done, at(2), GONE)
    attempt = world.attempt(doubtful, Outcome.UNKNOWN, fence=Fence.NONE)
    order.state, doubtful.desired = OrderState.STOPPING, Desired.GONE
    assert run(world, done).is_settled
    for _ in range(2):
        assert run(world, doubtful) == Settlement(charged=0, is_settled=False, order_is_over=False)
    assert (world.of_grant(grant), order.state) == ((Decimal("0.06"), Decimal("9.94")), OrderState.STOPPING)
    # It had made a machine, which is deleted now; it was ours, and is over. Nobody saw it run.
    attempt.outcome = Outcome.DISCARD
    doubtful.gone_at = at(3)
    assert not run(world, doubtful).is_settled
    assert world.of_grant(grant)[1] == Decimal("9.94")
    attempt.outcome = Outcome.GONE
    assert run(world, doubtful) == Settlement(charged=0, is_settled=True, order_is_over=True)
    assert world.of_grant(grant) == (Decimal("0.06"), 0)


def test_a_settle_that_fails_changes_nothing(world: World, grant: Grant, lease: Lease) -> None:
    world.see(lease, at(1), RUNNING)
    world.see(lease, at(2), GONE)
    held = world.of_grant(grant)
    # A balance that does not have what the hold says it has: our own fault, and not to be booked over.
    world.session.execute(update(MoneyHold).values(remaining=Decimal("0.01")))
    world.session.execute(update(Balance).where(Balance.ceiling.is_not(None)).values(held=Decimal("0.001")))

    def try_it() -> None:
        with world.session.begin_nested():
            world.session.connection()  # sets the savepoint
            run(world, lease)

    with pytest.raises(DBAPIError, match="held_not_negative"):
        try_it()
    assert (world.entries(), world.segments(lease), world.charges(lease)) == (0, [], [])
    assert held[0] == world.of_grant(grant)[0]
