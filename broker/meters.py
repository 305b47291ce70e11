"""What a workload uses and pays by time: the one list that quotes, holds and extensions are priced by. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Final

from broker.errors import PriceUnknown
from broker.placement import NO_VOLUMES, Assumptions, CostLine, Volumes, Workload
from broker.pricing import RateCard, amount
from broker.remote import MachineState, PartKind
from broker.values import Amount, Period, Unit, exact

# The SKU of one public address, of a GiB of a snapshot, and of a GiB of a volume. An instance's is the offer's name.
ADDRESS_SKU = "public-address"
SNAPSHOT_SKU = "snapshot-storage"
VOLUME_SKU = "volume-storage"
# What is paid for each kind of thing that is there by itself.
SKU_OF: Final[Mapping[PartKind, str]] = {
    PartKind.ADDRESS: ADDRESS_SKU,
    PartKind.VOLUME: VOLUME_SKU,
    PartKind.SNAPSHOT: SNAPSHOT_SKU,
    PartKind.VOLUME_SNAPSHOT: SNAPSHOT_SKU,
}

# Units per hour of use: machines and addresses are metered by time and by nothing else.
_PER_HOUR = {Unit.HOUR: Decimal(1), Unit.SECOND: Decimal(3600)}
# With these, what is metered by its size, too.
_PER_HOUR_OF = _PER_HOUR | {Unit.GIB_HOUR: Decimal(1)}


@dataclass(frozen=True, slots=True)
class Meter:
    """One thing that is used all through a period and costs by time: `count` of them, at `share` of the price."""

    component: str
    sku: str
    count: Decimal
    share: Decimal


@dataclass(frozen=True, slots=True)
class Held:
    """What the first hold of a workload covers: its machines over `run`, and then their snapshots over `kept`."""

    run: Period
    kept: Period | None

    @property
    def until(self) -> datetime:
        """When it ends."""
        return self.run.end if self.kept is None else self.kept.end


def held(workload: Workload, assumed: Assumptions, *, now: datetime) -> Held:
    """What is held when a workload is ordered now: its duration or the first window of it, and all that ending takes.

    A snapshot is taken while the machine is still there; the settle time is for the end of each.
    """
    end = now + assumed.held_for(workload.duration)
    if workload.keep_snapshot is None:
        return Held(Period(now, end), None)
    end += assumed.snapshot_time
    return Held(Period(now, end), Period(end, end + workload.keep_snapshot + assumed.settle_time))


def running(
    card: RateCard, offer: str, *, count: int, has_address: bool, volumes: Volumes = NO_VOLUMES
) -> tuple[Meter, ...]:
    """What `count` running machines of an offer (by its name) use, each with these volumes.

    An address and volumes are paid in full in every state.

    Raises:
        PriceUnknown: the card lacks a SKU, a unit of time or the price of running.
    """
    machines = Decimal(count)
    meters = [Meter("machine", offer, machines, card.share(MachineState.RUNNING))]
    if has_address:
        meters.append(Meter("public address", ADDRESS_SKU, machines, Decimal(1)))
    for meter in meters:
        _require_time(card, meter.sku)
    if volumes.number:
        meters.append(attached(card, volumes, count=count))
    return tuple(meters)


def _require_time(card: RateCard, sku: str) -> None:
    unit = card.price(sku).unit
    if unit not in _PER_HOUR:
        raise PriceUnknown(
            f"rate card {card.name} (version {card.number}) sells {sku} per {unit}, not by time",
            hint=f"Give {sku} a price per hour or per second.",
            sku=sku,
        )


def attached(card: RateCard, volumes: Volumes, *, count: int = 1) -> Meter:
    """What the volumes of `count` machines use, by their size. One meter, as a provider's tiers see one SKU.

    Raises:
        PriceUnknown: the card does not sell volumes per GiB and hour.
    """
    component = "volume" if not volumes.boot_gib else "boot volume" if not volumes.second_gib else "volumes"
    return _stored(card, component, VOLUME_SKU, Decimal(volumes.total_gib) * count)


def sells_volumes(card: RateCard) -> bool:
    """Whether a volume has a price there: per GiB and hour."""
    found = card.prices.get(VOLUME_SKU)
    return found is not None and found.unit is Unit.GIB_HOUR


def kept(card: RateCard, disk_gib: int, *, count: int = 1) -> Meter:
    """What `count` kept snapshots of machines with such a disk use. A site may store less; it may not bill more.

    Raises:
        PriceUnknown: the size is not known (0), or the card does not sell snapshots per GiB and hour.
    """
    if disk_gib <= 0:
        raise PriceUnknown(
            "the site does not say how large the machine's disk is, so the price of keeping a snapshot is not known",
            hint="Choose an offer with a disk, or keep no snapshot.",
            sku=SNAPSHOT_SKU,
        )
    return _stored(card, "snapshot", SNAPSHOT_SKU, Decimal(disk_gib) * count)


def present(card: RateCard, kind: PartKind, size_gib: Decimal | None) -> Meter:
    """What one thing that is no machine uses by being there.

    Raises:
        PriceUnknown: the site does not say its size (None), or the card does not sell its kind so.
    """
    sku, component = SKU_OF[kind], kind.replace("_", " ")
    if kind is PartKind.ADDRESS:
        _require_time(card, sku)
        return Meter(component, sku, Decimal(1), Decimal(1))
    if size_gib is None:
        raise PriceUnknown(
            f"the site does not say how large the {component} is, so its price is not known",
            hint="Ask the site's operator; it can be adopted once the site says.",
            sku=sku,
        )
    return _stored(card, component, sku, size_gib)


def _stored(card: RateCard, component: str, sku: str, gib: Decimal) -> Meter:
    unit = card.price(sku).unit
    if unit is not Unit.GIB_HOUR:
        raise PriceUnknown(
            f"rate card {card.name} (version {card.number}) sells {sku} per {unit}, not per {Unit.GIB_HOUR}",
            hint=f"Give {sku} a price per {Unit.GIB_HOUR}.",
            sku=sku,
        )
    return Meter(component, sku, gib, Decimal(1))


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
            total += meter.count * meter.share * found.tiers[0].unit_price * _PER_HOUR_OF[found.unit]
    return Amount(total, card.currency)
