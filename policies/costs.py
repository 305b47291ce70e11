"""What a workload costs on one offer: the priced components, and the hold that must cover them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from broker.errors import PriceUnknown
from broker.placement import Assumptions, Candidate, CatalogueOffer, CatalogueSite, CostLine, Workload
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


def price(
    workload: Workload, site: CatalogueSite, offer: CatalogueOffer, assumptions: Assumptions, *, now: datetime
) -> Candidate:
    """All members of the workload on this offer, from `now` on.

    The hold covers the duration and what stopping may take on top, at the running price.

    Raises:
        PriceUnknown: the site has no rate card, or the card lacks a SKU, a unit of time or the price of running.
    """
    if site.card is None:
        raise PriceUnknown(
            f"site {site.name} has no rate card", hint="Its operator must import one first.", site=site.name
        )
    card = site.card
    meters = _meters(workload, offer, card)
    margin = assumptions.stop_delay + assumptions.settle_time
    lines = tuple(_lines(meters, card, Period(now, now + workload.duration)))
    held = _lines(meters, card, Period(now, now + workload.duration + margin))
    return Candidate(
        offer=offer,
        site=site,
        total=Amount.total((line.amount for line in lines), card.currency),
        hold=Amount.total((line.amount for line in held), card.currency),
        hourly=_hourly(meters, card),
        lines=lines,
    )


def _meters(workload: Workload, offer: CatalogueOffer, card: RateCard) -> Sequence[Meter]:
    """What runs. An address is paid in full, whatever its machine does."""
    members = Decimal(workload.count)
    meters = [Meter("machine", offer.name, members, card.share(MachineState.RUNNING))]
    if workload.public_address:
        meters.append(Meter("public address", ADDRESS_SKU, members, Decimal(1)))
    for meter in meters:
        unit = card.price(meter.sku).unit
        if unit not in _PER_HOUR:
            raise PriceUnknown(
                f"rate card {card.name} (version {card.number}) sells {meter.sku} per {unit}, not by time",
                hint=f"Give {meter.sku} a price per hour or per second.",
                sku=meter.sku,
            )
    return meters


def _lines(meters: Sequence[Meter], card: RateCard, period: Period) -> Iterator[CostLine]:
    """One line per component and price tier."""
    for meter in meters:
        for part in amount(card, meter.sku, meter.count, period, share=meter.share).parts:
            yield CostLine(meter.component, part.quantity, part.unit_price, part.amount)


def _hourly(meters: Sequence[Meter], card: RateCard) -> Amount:
    """What one more hour costs in the first tier, leaving minimum and increment aside."""
    total = Decimal(0)
    with exact():
        for meter in meters:
            found = card.price(meter.sku)
            total += meter.count * meter.share * found.tiers[0].unit_price * _PER_HOUR[found.unit]
    return Amount(total, card.currency)
