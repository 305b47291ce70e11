"""What a use costs, where the rate card is unusual."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from accounting.rating import Thing, billing_month, rate
from broker.errors import PriceUnknown
from broker.meters import SNAPSHOT_SKU
from broker.models.leases import LeaseState
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
