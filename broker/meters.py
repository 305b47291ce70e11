"""What runs for a machine and costs by time: the one list that quotes, holds and extensions are priced by. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal

from broker.errors import PriceUnknown
from broker.placement import CostLine
from broker.pricing import RateCard, amount
from broker.remote import MachineState
from broker.values import Amount, Period, Unit, exact

# The SKU of one public address. An instance's SKU is the offer's name.
ADDRESS_SKU = "public-address"

# Units per hour of use: machines and addresses are metered by time and by nothing else.
_PER_HOUR = {Unit.HOUR: Decimal(1), Unit.SECOND: Decimal(3600)}


@dataclass(frozen=True, slots=True)
class Meter:
    """One thing that runs all through the workload and costs by time: `count` of them, at `share` of the price."""

    component: str
    sku: str
    count: Decimal
    share: Decimal


def running(card: RateCard, offer: str, *, count: int, has_address: bool) -> tuple[Meter, ...]:
    """What `count` running machines of an offer (by its name) use. An address is paid in full in every state.

    Raises:
        PriceUnknown: the card lacks a SKU, a unit of time or the price of running.
    """
    machines = Decimal(count)
    meters = [Meter("machine", offer, machines, card.share(MachineState.RUNNING))]
    if has_address:
        meters.append(Meter("public address", ADDRESS_SKU, machines, Decimal(1)))
    for meter in meters:
        unit = card.price(meter.sku).unit
        if unit not in _PER_HOUR:
            raise PriceUnknown(
                f"rate card {card.name} (version {card.number}) sells {meter.sku} per {unit}, not by time",
                hint=f"Give {meter.sku} a price per hour or per second.",
                sku=meter.sku,
            )
    return tuple(meters)


def cost_lines(meters: Sequence[Meter], card: RateCard, period: Period) -> Iterator[CostLine]:
    """One line per component and price tier."""
    for meter in meters:
        for part in amount(card, meter.sku, meter.count, period, share=meter.share).parts:
            yield CostLine(meter.component, part.quantity, part.unit_price, part.amount)


def cost(meters: Sequence[Meter], card: RateCard, period: Period) -> Amount:
    """The sum of the lines."""
    return Amount.total((line.amount for line in cost_lines(meters, card, period)), card.currency)


def hourly(meters: Sequence[Meter], card: RateCard) -> Amount:
    """What one more hour costs in the first tier, leaving minimum and increment aside."""
    total = Decimal(0)
    with exact():
        for meter in meters:
            found = card.price(meter.sku)
            total += meter.count * meter.share * found.tiers[0].unit_price * _PER_HOUR[found.unit]
    return Amount(total, card.currency)
