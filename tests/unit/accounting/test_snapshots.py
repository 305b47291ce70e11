"""The money of kept snapshots: charged from the machine's end until they are gone, and set aside before that."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from accounting.models.charges import Charge
from accounting.models.grants import Grant
from accounting.order_money import order_money
from accounting.proof import prove
from accounting.settle import Settlement, settle
from accounting.spending import spend
from broker.errors import PriceUnknown
from broker.meters import SNAPSHOT_SKU
from broker.models.leases import Desired, Lease, LeaseState
from broker.models.workloads import Order, OrderState, QuoteOffer
from broker.reckoning import Kept, Rates, Run, Use, margin_of, runs_elsewhere, runs_of, whole_hold
from broker.remote import PartKind
from broker.values import Period
from tests.unit.accounting.world import HOUR, LEDGER, T0, World, eur

pytestmark = pytest.mark.postgres

RUNNING, STOPPED, SNAPSHOT, GONE = LeaseState.RUNNING, LeaseState.STOPPED, LeaseState.SNAPSHOT, LeaseState.GONE
PRICES = {"m1.small": "0.06", "public-address": "0.004", SNAPSHOT_SKU: "0.0005"}
MACHINE = Decimal("0.06")
STORAGE = Decimal("0.01")  # 20 GiB for an hour
DECEMBER = datetime(2026, 12, 1, tzinfo=UTC)
DAYS_OF_NOVEMBER = (DECEMBER - T0) / HOUR
SETTLE = timedelta(minutes=2)
MARGIN = timedelta(minutes=17)
SNAPSHOT_TIME = timedelta(hours=2)


def at(hours: float) -> datetime:
    """So many hours after the order."""
    return T0 + hours * HOUR


@pytest.fixture
def grant(world: World) -> Grant:
    """100 EUR over the year."""
    world.card(PRICES)
    return world.grant("100")


@pytest.fixture
def order(world: World, grant: Grant) -> Order:
    """An order over 48 hours that holds 20 EUR."""
    assert world.of_grant(grant) == (0, 0)
    return world.order("20")


@pytest.fixture
def lease(world: World, order: Order) -> Lease:
    """Its lease keeps a snapshot for ten hours."""
    made = world.lease(order)
    made.keep, made.snapshot_time = 10 * HOUR, SNAPSHOT_TIME
    world.session.flush()
    return made


def run(world: World, lease: Lease, hours: float) -> Settlement:
    """Settle at so many hours after the order."""
    return settle(world.session, lease.id, now=at(hours))


def spans(world: World, lease: Lease) -> list[tuple[float, float | None, str]]:
    """The lease's segments, in hours after the order."""
    return [
        (
            (row.starts_at - T0) / HOUR,
            None if row.ends_at is None else (row.ends_at - T0) / HOUR,
            row.state.value + ("?" if row.is_estimated else ""),
        )
        for row in world.segments(lease)
    ]


def paid(world: World, lease: Lease) -> dict[str, Decimal]:
    """What was charged per SKU, corrections included."""
    sums: dict[str, Decimal] = {}
    for row in world.charges(lease):
        sums[row.sku_id] = sums.get(row.sku_id, Decimal(0)) + row.billed_cost
    return sums


# --- charges ---------------------------------------------------------------------------------------------------------


def test_the_machine_and_then_its_snapshot(world: World, grant: Grant, order: Order, lease: Lease) -> None:
    world.part(lease, PartKind.ADDRESS, made_at=at(0), gone_at=at(12))
    world.part(lease, PartKind.SNAPSHOT, made_at=at(9)).remote_id = "image-7"
    world.see(lease, at(0), RUNNING)
    world.see(lease, at(11), SNAPSHOT, since=at(10))
    assert run(world, lease, 11) == Settlement(charged=1, is_settled=False, order_is_over=False)
    assert world.of_grant(grant) == (10 * (MACHINE + Decimal("0.004")), 20 - 10 * (MACHINE + Decimal("0.004")))
    world.see(lease, at(21), GONE, since=at(20))
    assert run(world, lease, 21) == Settlement(charged=1, is_settled=True, order_is_over=True)
    assert spans(world, lease) == [(0, 10, "running"), (10, 20, "snapshot")]
    assert paid(world, lease) == {
        "m1.small": 10 * MACHINE,
        "public-address": Decimal("0.04"),
        SNAPSHOT_SKU: 10 * STORAGE,
    }
    assert world.of_grant(grant) == (10 * MACHINE + Decimal("0.04") + 10 * STORAGE, 0)
    assert (order.state, world.overdraft, prove(world.session)) == (OrderState.OVER, 0, [])
    entries = world.entries()
    assert run(world, lease, 22).charged == 0
    assert world.entries() == entries


def test_its_charge_in_the_columns_of_focus(world: World, lease: Lease) -> None:
    world.part(lease, PartKind.SNAPSHOT, made_at=at(9)).remote_id = "image-7"
    world.see(lease, at(0), RUNNING)
    world.see(lease, at(10), SNAPSHOT, since=at(10), kind=None)
    world.see(lease, at(20), GONE, since=at(20), kind=None)
    run(world, lease, 21)
    machine, snapshot = world.charges(lease)
    assert snapshot.resource_id == "image-7"
    assert machine.resource_id == f"r-{lease.id}"
    assert {row.resource_name for row in (machine, snapshot)} == {"era5-1"}
    assert columns(snapshot) == ("Storage", "Snapshots", "Snapshot", "GiB-Hours", "GiB-Hours", "snapshot")
    assert columns(machine) == ("Compute", "Virtual machines", "Virtual Machine", "Hours", "Hours", "running")
    assert (snapshot.pricing_quantity, snapshot.consumed_quantity, snapshot.x_share) == (200, 200, 1)
    assert snapshot.list_unit_price == Decimal("0.0005")
    assert snapshot.sku_id == SNAPSHOT_SKU
    assert (snapshot.charge_period_start, snapshot.charge_period_end) == (at(10), at(20))


def columns(row: Charge) -> tuple[str, ...]:
    """What kind of a charge it is."""
    return (
        row.service_category,
        row.service_name,
        row.resource_type,
        row.pricing_unit,
        row.consumed_unit,
        row.x_machine_state,
    )


def test_months_and_prices_cut_what_is_seen_to_be_kept(world: World, lease: Lease) -> None:
    world.card(PRICES | {SNAPSHOT_SKU: "0.001"}, since=at(15))
    world.see(lease, at(0), RUNNING)
    world.see(lease, at(10), SNAPSHOT)
    world.still(lease, at(300))
    assert run(world, lease, 300).charged == 3
    assert [row.ends_at for row in world.segments(lease)] == [at(10), at(15), DECEMBER, None]
    assert paid(world, lease)[SNAPSHOT_SKU] == 5 * STORAGE + (Decimal(DAYS_OF_NOVEMBER) - 15) * 2 * STORAGE
    assert prove(world.session) == []


def test_no_state_of_a_machine_needs_to_have_a_price_for_it(world: World) -> None:
    world.card(PRICES, bills={"running": "1"})
    world.grant("100")
    lease = world.lease(world.order("10"))
    world.see(lease, at(0), RUNNING)
    world.see(lease, at(10), SNAPSHOT)
    world.see(lease, at(20), GONE)
    assert run(world, lease, 21).is_settled
    assert paid(world, lease)[SNAPSHOT_SKU] == 10 * STORAGE


def test_without_a_price_it_waits_and_its_hold_stays(world: World) -> None:
    version = world.card({"m1.small": "0.06"})
    grant = world.grant("100")
    lease = world.lease(world.order("10"))
    world.see(lease, at(0), RUNNING)
    world.see(lease, at(10), SNAPSHOT)
    world.see(lease, at(20), GONE)
    assert run(world, lease, 21) == Settlement(charged=1, is_settled=False, order_is_over=False)
    (finding,) = world.findings("price_unknown", lease.id)
    assert "no price for snapshot-storage" in finding.text
    assert world.of_grant(grant) == (10 * MACHINE, 10 - 10 * MACHINE)
    world.price(version, SNAPSHOT_SKU, "0.0005", unit="GiB-hour")
    assert run(world, lease, 22).order_is_over
    assert world.of_grant(grant) == (10 * MACHINE + 10 * STORAGE, 0)


def test_a_disk_of_unknown_size_is_not_free(world: World, lease: Lease) -> None:
    world.offer.disk_gib = 0
    world.see(lease, at(0), RUNNING)
    world.see(lease, at(10), SNAPSHOT)
    world.see(lease, at(20), GONE)
    assert not run(world, lease, 21).is_settled
    (finding,) = world.findings("price_unknown", lease.id)
    assert "how large the machine's disk is" in finding.text


def test_what_goes_beyond_the_hold_costs_per_day_what_is_left(world: World, grant: Grant) -> None:
    lease = world.lease(world.order("0.5"))
    world.see(lease, at(0), RUNNING)
    world.see(lease, at(10), SNAPSHOT)
    run(world, lease, 10)
    assert world.of_grant(grant) == (Decimal("0.5"), 0)
    (finding,) = world.findings("overdraft", lease.id)
    assert finding.per_day == 24 * STORAGE, "the machine is gone, only its snapshot costs"
    world.see(lease, at(20), GONE)
    run(world, lease, 20)
    (finding,) = world.findings("overdraft", lease.id)
    assert finding.per_day == 0
    assert world.overdraft == 10 * MACHINE + 10 * STORAGE - Decimal("0.5")


def test_what_is_kept_now_shows_before_it_is_charged(world: World, order: Order, lease: Lease) -> None:
    world.see(lease, at(0), RUNNING)
    world.see(lease, at(10), SNAPSHOT)
    run(world, lease, 10)
    money = order_money(world.session, [order.id], now=at(16))[order.id]
    assert (money.spent, money.accrued) == (eur(10 * MACHINE), eur(6 * STORAGE))
    (one,) = spend(world.session, world.project.id, now=at(16)).leases
    assert (one.state, one.charged, one.accrued) == (SNAPSHOT, (eur(10 * MACHINE),), (eur(6 * STORAGE),))


# --- estimates, and what the site says later -------------------------------------------------------------------------


def test_a_machine_that_vanished_and_the_word_that_comes_later(world: World, lease: Lease) -> None:
    world.see(lease, at(0), RUNNING)
    world.still(lease, at(8))
    world.see(lease, at(11), SNAPSHOT, since=at(8), is_estimated=True)
    run(world, lease, 11)
    assert spans(world, lease) == [(0, 8, "running?"), (8, None, "snapshot")]
    world.see(lease, at(12), SNAPSHOT, since=at(9))
    run(world, lease, 12)
    assert spans(world, lease) == [(0, 8, "running?"), (8, 9, "running"), (9, None, "snapshot")]
    world.see(lease, at(20), GONE, since=at(20))
    assert run(world, lease, 20).order_is_over
    assert paid(world, lease) == {"m1.small": 9 * MACHINE, SNAPSHOT_SKU: 11 * STORAGE}
    assert prove(world.session) == []


def test_a_snapshot_that_vanished_is_charged_until_it_was_last_seen(world: World, grant: Grant, lease: Lease) -> None:
    world.see(lease, at(0), RUNNING)
    world.see(lease, at(10), SNAPSHOT)
    world.still(lease, at(14))
    world.see(lease, at(20), GONE, since=at(14), is_estimated=True)
    assert run(world, lease, 20).order_is_over
    assert spans(world, lease) == [(0, 10, "running"), (10, 14, "snapshot?")]
    assert world.of_grant(grant) == (10 * MACHINE + 4 * STORAGE, 0)
    for word, hours in ((12, 2), (17, 7)):
        world.see(lease, at(20 + word), GONE, since=at(word))
        run(world, lease, 20 + word)
        assert paid(world, lease) == {"m1.small": 10 * MACHINE, SNAPSHOT_SKU: hours * STORAGE}
        assert prove(world.session) == []


def test_a_lease_that_ends_unseen_is_charged_until_its_snapshot_was_last_seen(world: World, lease: Lease) -> None:
    world.see(lease, at(0), RUNNING)
    world.see(lease, at(10), SNAPSHOT)
    world.still(lease, at(14))
    lease.gone_at, lease.desired = at(20), Desired.GONE
    world.session.flush()
    assert run(world, lease, 20).order_is_over
    assert spans(world, lease) == [(0, 10, "running"), (10, 14, "snapshot?")]


def test_a_machine_that_ended_before_time_that_is_charged(world: World, lease: Lease) -> None:
    """The time over the month's end was charged as the machine's; it goes back, and the snapshot loses that time."""
    month = DAYS_OF_NOVEMBER
    world.see(lease, at(0), RUNNING)
    world.still(lease, at(month + 1))
    assert run(world, lease, month + 1).charged == 1
    world.see(lease, at(month + 2), SNAPSHOT, since=at(month - 5))
    run(world, lease, month + 2)
    world.see(lease, at(month + 10), GONE, since=at(month + 9))
    assert run(world, lease, month + 10).order_is_over
    assert paid(world, lease) == {"m1.small": (Decimal(month) - 5) * MACHINE, SNAPSHOT_SKU: 9 * STORAGE}
    assert prove(world.session) == []


# --- what must be set aside ------------------------------------------------------------------------------------------


def uses(world: World, order: Order, lease: Lease, *, hours: float) -> list[Use]:
    """What the lease may still use."""
    so_far = LEDGER.so_far(world.session, order.id)
    return runs_of(world.session, order, [lease], so_far, until=None, now=at(hours))


def test_a_machine_to_run_is_held_with_its_snapshot(world: World, order: Order, lease: Lease) -> None:
    assert margin_of(world.session, order, lease) == MARGIN + SNAPSHOT_TIME
    world.see(lease, at(0), RUNNING)
    world.still(lease, at(5))
    gone_at = at(48) + MARGIN + SNAPSHOT_TIME
    run_, kept = uses(world, order, lease, hours=5)
    assert run_ == Run(world.offer.id, has_address=False, period=Period(at(5), gone_at))
    assert kept == Kept(world.offer.id, Period(gone_at, gone_at + 10 * HOUR + SETTLE))
    amounts = whole_hold(
        Rates(world.session, at(5)), LEDGER.so_far(world.session, order.id), uses(world, order, lease, hours=5)
    )
    (held,) = amounts
    exact = MACHINE * (48 + 2 + Decimal(17) / 60) + STORAGE * (10 + Decimal(2) / 60)
    assert held.stored() == eur(exact).stored()


def test_the_next_offer_is_held_for_all_of_it(world: World, order: Order, lease: Lease) -> None:
    other = world.sell("f-9", "m1.big")
    picked = QuoteOffer(offer_id=other.id, boot_volume_gib=0)
    gone_at = at(3) + 48 * HOUR + MARGIN + SNAPSHOT_TIME
    assert runs_elsewhere(world.session, order, lease, picked, now=at(3)) == [
        Run(other.id, has_address=False, period=Period(at(3), gone_at)),
        Kept(other.id, Period(gone_at, gone_at + 10 * HOUR + SETTLE)),
    ]
    lease.keep = None
    assert len(runs_elsewhere(world.session, order, lease, picked, now=at(3))) == 1


def test_from_the_grace_to_the_last_of_the_snapshot(world: World, order: Order, lease: Lease) -> None:
    """Machine and snapshot from when either was last seen: what remains to be used only ever becomes less."""
    world.see(lease, at(0), RUNNING)
    world.still(lease, at(48))
    lease.desired, lease.lapsed_at = Desired.SNAPSHOT, at(48.25)
    part = world.part(lease, PartKind.SNAPSHOT, made_at=at(48.25))
    gone_at = at(48.25) + MARGIN + SNAPSHOT_TIME
    run_, kept = uses(world, order, lease, hours=48.25)
    assert (run_.period, kept.period) == (Period(at(48), gone_at), Period(gone_at, gone_at + 10 * HOUR + SETTLE))
    part.ready_at = at(49)
    run_, kept = uses(world, order, lease, hours=49)
    assert run_.period == Period(at(48), at(49) + MARGIN + SNAPSHOT_TIME)
    assert kept.period == Period(at(48), at(59) + SETTLE)
    world.see(lease, at(49.5), SNAPSHOT, since=at(49.25))
    (kept,) = uses(world, order, lease, hours=50)
    assert kept == Kept(world.offer.id, Period(at(49.5), at(59) + SETTLE))
    world.still(lease, at(60))  # it should be gone
    (kept,) = uses(world, order, lease, hours=60)
    assert kept.period == Period(at(60), at(60) + SETTLE)
    lease.desired = Desired.GONE
    (kept,) = uses(world, order, lease, hours=61)
    assert kept.period == Period(at(60), at(61) + SETTLE)


def test_what_was_ended_before_its_time_leaves_no_snapshot(world: World, order: Order, lease: Lease) -> None:
    world.see(lease, at(0), RUNNING)
    lease.desired = Desired.GONE
    (run_,) = uses(world, order, lease, hours=5)
    assert isinstance(run_, Run)
    assert run_.period == Period(at(0), at(5) + MARGIN + SNAPSHOT_TIME)


def test_nothing_is_set_aside_for_a_snapshot_without_a_price(world: World, order: Order, lease: Lease) -> None:
    world.card({"m1.small": "0.06"}, since=at(1))
    rates, so_far = Rates(world.session, at(2)), LEDGER.so_far(world.session, order.id)
    with pytest.raises(PriceUnknown, match="no price for snapshot-storage"):
        whole_hold(rates, so_far, uses(world, order, lease, hours=2))
