"""From a use to what it costs, in FOCUS columns. The arithmetic is `broker.pricing`'s alone."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal
from uuid import UUID

from accounting.models.charges import Charge, ChargeState, Segment
from broker.errors import PriceUnknown
from broker.meters import ADDRESS_SKU, SNAPSHOT_SKU, VOLUME_SKU, Meter, attached, kept, present
from broker.models.leases import LeaseState
from broker.placement import NO_VOLUMES, Volumes
from broker.pricing import PricePart, RateCard, amount
from broker.remote import PartKind
from broker.values import STORED, Amount, Period, Unit, exact, utc

# Machines and addresses are metered by time and by nothing else; all else by size, too. As FOCUS writes units.
_FOCUS_UNITS = {Unit.HOUR: "Hours", Unit.SECOND: "Seconds", Unit.GIB_HOUR: "GiB-Hours"}


@dataclass(frozen=True, slots=True)
class Rated:
    """One tier of one SKU's price for one use.

    Attributes:
        tier: counted from 0.
        hours: what was really used (GiB-hours of what has a size); `part` has the billed quantity (after minimum
            and increment).
        share: the state's share of the unit price.
        cost: as it is stored: nine decimals.
    """

    sku: str
    tier: int
    part: PricePart
    hours: Decimal
    share: Decimal
    cost: Amount


@dataclass(frozen=True, slots=True)
class Resource:
    """What a charge is about, in the words of FOCUS."""

    project_id: UUID
    provider: str
    region: str | None
    remote_id: str
    name: str


@dataclass(frozen=True, slots=True)
class _Kind:
    """What FOCUS calls it."""

    category: str
    service: str
    resource: str
    consumed_unit: Unit = Unit.HOUR


_MACHINE = _Kind("Compute", "Virtual machines", "Virtual Machine")
_KINDS = {
    ADDRESS_SKU: _Kind("Networking", "Public addresses", "Public IP Address"),
    SNAPSHOT_SKU: _Kind("Storage", "Snapshots", "Snapshot", Unit.GIB_HOUR),
    VOLUME_SKU: _Kind("Storage", "Volumes", "Volume", Unit.GIB_HOUR),
}


@dataclass(frozen=True, slots=True)
class Thing:
    """What is rated.

    Attributes:
        state: of the machine; SNAPSHOT: a snapshot of it is what is left; PRESENT: it is no machine.
        disk_gib: the size that its snapshot is paid for; 0 is unknown.
        kind: of what is PRESENT.
        size_gib: of that, None where the site does not say.
        volumes: of the machine, paid in full in every state.
    """

    state: LeaseState
    disk_gib: int = 0
    kind: PartKind | None = None
    size_gib: Decimal | None = None
    volumes: Volumes = NO_VOLUMES

    def meter(self, card: RateCard, sku: str) -> Meter:
        """What it uses of a SKU; raises `PriceUnknown`."""
        if self.kind is not None:
            return present(card, self.kind, self.size_gib)
        if sku == VOLUME_SKU:
            return attached(card, self.volumes)
        return kept(card, self.disk_gib) if sku == SNAPSHOT_SKU else _by_time(card, sku, self.state)


def rate(
    card: RateCard, period: Period, thing: Thing, *, skus: Collection[str], used: Mapping[str, Decimal]
) -> tuple[Rated, ...]:
    """What a lease costs over `period`, per SKU and tier. An address and volumes cost the same in every state.

    Args:
        card: the rate card version in force.
        period: when.
        thing: what it is.
        skus: what is paid for.
        used: what the billing account used of each SKU before in the billing period; absent is nothing.

    Raises:
        PriceUnknown: where the card does not say what the SKU or the state costs, or the size is not known.
    """
    rated: list[Rated] = []
    for sku in skus:
        rated += _rate(card, period, thing.meter(card, sku), used.get(sku, Decimal(0)))
    return tuple(rated)


def _by_time(card: RateCard, sku: str, state: LeaseState) -> Meter:
    """One machine or address."""
    unit = card.price(sku).unit
    if unit not in (Unit.HOUR, Unit.SECOND):
        raise PriceUnknown(
            f"rate card {card.name} (version {card.number}) sells {sku} per {unit}, not by time",
            hint="Price it per hour or per second.",
            sku=sku,
        )
    return Meter("", sku, Decimal(1), Decimal(1) if sku == ADDRESS_SKU else card.share(state.value))


def _rate(card: RateCard, period: Period, meter: Meter, already: Decimal) -> Iterator[Rated]:
    tiers = card.price(meter.sku).tiers
    priced = amount(card, meter.sku, meter.count, period, share=meter.share, already_used=already)
    for part in priced.parts:
        number = max(number for number, tier in enumerate(tiers) if tier.above <= already)
        with exact():
            already += part.quantity.value
            hours = meter.count * period.hours.value * part.quantity.value / priced.billed.value
        yield Rated(meter.sku, number, part, hours, meter.share, part.amount.stored())


def charge(
    segment: Segment, rated: Rated, *, entry_id: UUID, resource: Resource, grant_id: UUID | None = None
) -> Charge:
    """The row for one rated tier of a segment that is closed, or for the part of it that a grant pays."""
    assert segment.ends_at is not None, "only closed segments are charged"
    kind = _KINDS.get(rated.sku, _MACHINE)
    start, end = billing_month(segment.starts_at)
    # The price that the state's share leaves, so that cost = unit price x quantity up to the ninth decimal.
    with exact():
        unit_price = rated.part.unit_price.quantize(STORED, rounding=ROUND_HALF_UP)
    quantity = rated.part.quantity
    return Charge(
        segment_id=segment.id,
        entry_id=entry_id,
        lease_id=segment.lease_id,
        project_id=resource.project_id,
        state=ChargeState.PROVISIONAL,
        charge_description=f"{rated.sku}, {segment.state.value}",
        charge_period_start=segment.starts_at,
        charge_period_end=segment.ends_at,
        billing_period_start=start,
        billing_period_end=end,
        billing_currency=rated.cost.commodity.code,
        service_category=kind.category,
        service_name=kind.service,
        service_provider_name=resource.provider,
        region_id=resource.region,
        resource_id=resource.remote_id,
        resource_name=resource.name,
        resource_type=kind.resource,
        sku_id=rated.sku,
        sku_price_id=f"{segment.rate_card_version_id}/{rated.sku}/{rated.tier}",
        pricing_quantity=quantity.value,
        pricing_unit=_FOCUS_UNITS[quantity.unit],
        consumed_quantity=rated.hours,
        consumed_unit=_FOCUS_UNITS[kind.consumed_unit],
        list_unit_price=unit_price,
        contracted_unit_price=unit_price,
        list_cost=rated.cost.value,
        contracted_cost=rated.cost.value,
        billed_cost=rated.cost.value,
        effective_cost=rated.cost.value,
        x_machine_state=segment.state.value,
        x_share=rated.share,
        x_estimated=segment.is_estimated,
        x_grant_id=grant_id,
        x_correction=0,
    )


def billing_month(moment: datetime) -> tuple[datetime, datetime]:
    """The UTC month that a moment is billed in (FOCUS BillingPeriodStart and -End)."""
    day = utc(moment)
    year, month = (day.year + 1, 1) if day.month == 12 else (day.year, day.month + 1)
    return datetime(day.year, day.month, 1, tzinfo=UTC), datetime(year, month, 1, tzinfo=UTC)
