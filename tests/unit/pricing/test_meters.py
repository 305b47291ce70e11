"""What a workload uses: snapshots by size and time, and what the first hold covers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from broker.errors import PriceUnknown
from broker.meters import SNAPSHOT_SKU, VOLUME_SKU, attached, cost, cost_lines, held, kept, running
from broker.placement import NO_VOLUMES, Assumptions, Volumes, Workload
from broker.pricing import Price, RateCard, Tier
from broker.values import Amount, Commodity, Period, Quantity, Unit, new_id

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
WORKLOAD = Workload("trial", "climate", "ubuntu-24.04", 2, 4096, 3 * DAY)
ASSUMED = Assumptions(stop_delay=10 * HOUR / 60, settle_time=5 * HOUR / 60, hold_window=7 * DAY, snapshot_time=HOUR)


def card(unit: Unit = Unit.GIB_HOUR, sku: str = SNAPSHOT_SKU) -> RateCard:
    price = Price(sku, unit, (Tier(Decimal(0), Decimal("0.0001")),))
    return RateCard(new_id(), "list", 1, Commodity("EUR"), {sku: price}, {"running": Decimal(1)})


def test_a_snapshot_is_paid_by_the_gib_and_hour_in_full() -> None:
    meter = kept(card(), 20, count=3)
    (line,) = cost_lines([meter], card(), Period(NOW, NOW + 10 * HOUR))
    assert (line.component, line.quantity) == ("snapshot", Quantity(Decimal(600), Unit.GIB_HOUR))
    assert cost([meter], card(), Period(NOW, NOW + 10 * HOUR)) == Amount.of("0.06", "EUR")


@pytest.mark.parametrize(
    ("volumes", "component", "gib"),
    [(Volumes(10, 0), "boot volume", 20), (Volumes(0, 5), "volume", 10), (Volumes(10, 5), "volumes", 30)],
)
def test_volumes_are_one_meter_of_all_their_gib(volumes: Volumes, component: str, gib: int) -> None:
    meter = attached(card(sku=VOLUME_SKU), volumes, count=2)
    assert (meter.component, meter.sku, meter.count, meter.share) == (component, VOLUME_SKU, gib, 1)


def test_a_machine_without_volumes_needs_no_price_for_them() -> None:
    sold = card(Unit.HOUR, "m1.small")
    assert len(running(sold, "m1.small", count=1, has_address=False, volumes=NO_VOLUMES)) == 1
    with pytest.raises(PriceUnknown, match="no price for volume-storage"):
        running(sold, "m1.small", count=1, has_address=False, volumes=Volumes(10, 0))


def test_a_size_that_is_not_known_is_never_zero() -> None:
    with pytest.raises(PriceUnknown, match="does not say how large the machine's disk is"):
        kept(card(), 0)


def test_a_card_without_the_sku_or_with_another_unit_has_no_price() -> None:
    with pytest.raises(PriceUnknown, match="no price for snapshot-storage"):
        kept(card(sku="m1.small"), 20)
    with pytest.raises(PriceUnknown, match="per hour, not per GiB-hour") as caught:
        kept(card(Unit.HOUR), 20)
    assert caught.value.context["sku"] == SNAPSHOT_SKU


def test_the_first_hold_covers_the_window_the_end_and_then_the_snapshot() -> None:
    plain = held(WORKLOAD, ASSUMED, now=NOW)
    assert (plain.run, plain.kept, plain.until) == (Period(NOW, NOW + 3 * DAY + HOUR / 4), None, plain.run.end)
    for days, window in ((3, 3), (30, 7)):
        work = Workload("trial", "climate", "ubuntu-24.04", 2, 4096, days * DAY, keep_snapshot=30 * DAY)
        found = held(work, ASSUMED, now=NOW)
        gone_at = NOW + window * DAY + HOUR / 4 + HOUR
        assert found.run == Period(NOW, gone_at)
        assert found.kept == Period(gone_at, gone_at + 30 * DAY + HOUR / 12)
        assert found.until == found.kept.end
