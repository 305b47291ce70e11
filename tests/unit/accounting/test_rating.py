"""What a use costs, where the rate card is unusual."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accounting.rating import Thing, billing_month, rate
from broker.errors import PriceUnknown
from broker.meters import SNAPSHOT_SKU, VOLUME_SKU, cost_lines, running
from broker.models.leases import LeaseState
from broker.placement import Volumes
from broker.pricing import Price, RateCard, Tier
from broker.values import Commodity, Period, Quantity, Unit, new_id
from tests.unit.accounting.world import HOUR, T0

LENGTH = Period(T0, T0 + 2 * HOUR)


def card(price: Price) -> RateCard:
    """A rate card with one price."""
    return RateCard(new_id(), "list", 1, Commodity("EUR"), {price.sku: price}, {"running": Decimal(1)})


def of(unit: Unit, value: str, **more: timedelta) -> Price:
    """A price of one tier."""
    return Price("m1.small", unit, (Tier(Decimal(0), Decimal(value)),), **more)


def test_by_the_second_is_by_time() -> None:
    (rated,) = rate(card(of(Unit.SECOND, "0.0001")), LENGTH, Thing(LeaseState.RUNNING), skus=("m1.small",), used={})
    assert (rated.cost.value, rated.part.quantity.value, rated.hours) == (Decimal("0.72"), 7200, 2)


def test_the_least_that_is_billed_is_not_what_was_used() -> None:
    price = of(Unit.HOUR, "0.10", minimum=3 * HOUR)
    (rated,) = rate(card(price), LENGTH, Thing(LeaseState.RUNNING), skus=("m1.small",), used={})
    assert (rated.cost.value, rated.part.quantity.value, rated.hours) == (Decimal("0.3"), 3, 2)


def test_a_snapshot_is_rated_by_its_size_whatever_the_states_cost() -> None:
    price = Price(SNAPSHOT_SKU, Unit.GIB_HOUR, (Tier(Decimal(0), Decimal("0.001")),), minimum=3 * HOUR)
    sold = replace(card(price), bills={})
    (rated,) = rate(sold, LENGTH, Thing(LeaseState.SNAPSHOT, disk_gib=20), skus=(SNAPSHOT_SKU,), used={})
    assert (rated.cost.value, rated.part.quantity) == (Decimal("0.06"), Quantity(Decimal(60), Unit.GIB_HOUR))
    assert (rated.hours, rated.share) == (40, 1)
    with pytest.raises(PriceUnknown, match="how large"):
        rate(sold, LENGTH, Thing(LeaseState.SNAPSHOT), skus=(SNAPSHOT_SKU,), used={})


prices = st.decimals(0, 3, places=6)
times = st.integers(0, 7200).map(lambda seconds: timedelta(seconds=seconds))


@given(
    price=prices,
    tiers=st.lists(st.tuples(st.integers(1, 5000), prices), max_size=2, unique_by=lambda tier: tier[0]),
    billed=st.tuples(times, times),
    volumes=st.builds(Volumes, st.integers(0, 50), st.integers(1, 900)),
    length=st.integers(1, 10**9).map(lambda number: timedelta(milliseconds=number)),
)
def test_what_is_charged_is_what_was_quoted_for_as_long_to_the_last_digit(
    *,
    price: Decimal,
    tiers: list[tuple[int, Decimal]],
    billed: tuple[timedelta, timedelta],
    volumes: Volumes,
    length: timedelta,
) -> None:
    steps = (Tier(Decimal(0), price), *(Tier(Decimal(above), each) for above, each in sorted(tiers)))
    disks = Price(VOLUME_SKU, Unit.GIB_HOUR, steps, *billed)
    sold = RateCard(
        new_id(), "list", 1, Commodity("EUR"), {"m1.small": of(Unit.HOUR, "0.07"), VOLUME_SKU: disks}, {"running": 1}
    )
    period = Period(T0, T0 + length)
    quoted = list(cost_lines(running(sold, "m1.small", count=1, has_address=False, volumes=volumes), sold, period))
    thing = Thing(LeaseState.RUNNING, volumes=volumes)
    rated = rate(sold, period, thing, skus=("m1.small", VOLUME_SKU), used={})
    assert [row.cost for row in rated] == [line.amount.stored() for line in quoted]
    assert [row.part.quantity for row in rated] == [line.quantity for line in quoted]
    assert sum(row.hours for row in rated if row.sku == VOLUME_SKU) == volumes.total_gib * period.hours.value


@pytest.mark.parametrize("state", [LeaseState.BUILDING, LeaseState.STOPPED, LeaseState.SHELVED, LeaseState.ERROR])
def test_volumes_cost_the_same_in_every_state(state: LeaseState) -> None:
    price = Price(VOLUME_SKU, Unit.GIB_HOUR, (Tier(Decimal(0), Decimal("0.001")),))
    (rated,) = rate(card(price), LENGTH, Thing(state, volumes=Volumes(10, 20)), skus=(VOLUME_SKU,), used={})
    assert (rated.cost.value, rated.hours, rated.share) == (Decimal("0.06"), 60, 1)


@pytest.mark.parametrize("unit", [Unit.COUNT, Unit.GIB, Unit.CORE_HOUR])
def test_what_is_not_sold_by_time_has_no_price_for_a_machine(unit: Unit) -> None:
    with pytest.raises(PriceUnknown, match="not by time"):
        rate(card(of(unit, "1")), LENGTH, Thing(LeaseState.RUNNING), skus=("m1.small",), used={})


def test_a_month_is_billed_from_its_first_instant_in_utc() -> None:
    assert billing_month(datetime(2026, 12, 31, 23, 59, tzinfo=UTC)) == (
        datetime(2026, 12, 1, tzinfo=UTC),
        datetime(2027, 1, 1, tzinfo=UTC),
    )
    assert billing_month(datetime(2026, 11, 1, tzinfo=UTC))[0] == datetime(2026, 11, 1, tzinfo=UTC)
