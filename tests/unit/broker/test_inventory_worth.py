"""What things cost per hour: by the card, and never a zero that the card does not state."""

from __future__ import annotations

from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest

from broker.pricing import Price, RateCard, Tier
from broker.remote import MachineState, ThingKind
from broker.values import Amount, Commodity, Unit
from broker.worth import PriceList

NAMES = {"f1": "m1.small", "f2": "m1.by-second", "f3": "m1.unpriced", "f4": "m1.per-gib", "f5": "m1.tiered"}


def price(sku: str, unit: Unit, *prices: str) -> Price:
    tiers = tuple(Tier(Decimal(100 * number), Decimal(text)) for number, text in enumerate(prices))
    return Price(sku, unit, tiers)


def card(*prices: Price, **bills: str) -> RateCard:
    shares = {"running": "1", "stopped": "0.5", "shelved": "0"} | bills
    return RateCard(
        version_id=uuid4(),
        name="test",
        number=1,
        currency=Commodity("EUR"),
        prices={one.sku: one for one in prices},
        bills={state: Decimal(share) for state, share in shares.items()},
    )


FULL = card(
    price("m1.small", Unit.HOUR, "0.04"),
    price("m1.by-second", Unit.SECOND, "0.00001"),
    price("m1.per-gib", Unit.GIB, "0.1"),
    price("m1.tiered", Unit.HOUR, "1.90", "1.60"),
    price("public-address", Unit.HOUR, "0.004"),
    price("volume-storage", Unit.GIB_HOUR, "0.0001"),
    price("snapshot-storage", Unit.GIB_HOUR, "0.00005"),
)


@pytest.mark.parametrize(
    ("kind", "facts", "hourly"),
    [
        ("server", {"state": MachineState.RUNNING, "instance_type": "f1"}, "0.04"),
        ("server", {"state": MachineState.STOPPED, "instance_type": "f1"}, "0.02"),
        ("server", {"state": MachineState.SHELVED, "instance_type": "f1"}, "0"),
        ("server", {"state": MachineState.RUNNING, "instance_type": "f2"}, "0.036"),
        ("server", {"state": MachineState.RUNNING, "instance_type": "f5"}, "1.90"),
        ("server", {"state": MachineState.RUNNING, "instance_type": "f3"}, None),
        ("server", {"state": MachineState.SHELVED, "instance_type": "f3"}, None),
        ("server", {"state": MachineState.RUNNING, "instance_type": "f4"}, None),
        ("server", {"state": MachineState.RUNNING, "instance_type": "gone-from-the-catalogue"}, None),
        ("server", {"state": MachineState.RUNNING, "instance_type": None}, None),
        ("server", {"state": MachineState.UNKNOWN, "instance_type": "f1"}, None),
        ("volume", {"size_gib": Decimal(20)}, "0.002"),
        ("volume", {"size_gib": None}, None),
        ("volume", {"size_gib": Decimal(0)}, "0"),
        ("address", {}, "0.004"),
        ("snapshot", {"size_gib": Decimal("0.5")}, "0.000025"),
        ("volume_snapshot", {"size_gib": Decimal(10)}, "0.0005"),
    ],
)
def test_a_thing_costs_what_the_card_says_or_nobody_knows(kind: str, facts: dict[str, Any], hourly: str | None) -> None:
    found = PriceList(FULL, NAMES).hourly(ThingKind(kind), **facts)
    assert found == (None if hourly is None else Amount.of(Decimal(hourly), "EUR"))


@pytest.mark.parametrize("kind", ThingKind)
def test_nothing_has_a_price_without_a_card_or_with_an_empty_one(kind: ThingKind) -> None:
    facts: dict[str, Any] = {"state": MachineState.RUNNING, "instance_type": "f1", "size_gib": Decimal(1)}
    assert PriceList(None, NAMES).hourly(kind, **facts) is None
    assert PriceList(card(), NAMES).hourly(kind, **facts) is None


def test_storage_that_is_not_sold_by_size_and_time_has_no_price() -> None:
    odd = card(price("volume-storage", Unit.HOUR, "1"), price("public-address", Unit.GIB_HOUR, "1"))
    prices = PriceList(odd, NAMES)
    assert prices.hourly(ThingKind.VOLUME, size_gib=Decimal(1)) is None
    assert prices.hourly(ThingKind.ADDRESS) is None
