"""From a use to what it costs, in FOCUS columns. The arithmetic is `broker.pricing`'s alone."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal
from uuid import UUID

from accounting.models.charges import Charge, ChargeState, Segment
from broker.errors import PriceUnknown
from broker.meters import ADDRESS_SKU
from broker.models.leases import LeaseState
from broker.pricing import PricePart, RateCard, amount
from broker.values import STORED, Amount, Period, Unit, exact, utc

# Machines and addresses are metered by time and by nothing else. Names as FOCUS writes units.
_FOCUS_UNITS = {Unit.HOUR: "Hours", Unit.SECOND: "Seconds"}


@dataclass(frozen=True, slots=True)
class Rated:
    """One tier of one SKU's price for one use.

    Attributes:
        tier: counted from 0.
        hours: what was really used, of which `part` has the billed quantity (after minimum and increment).
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
    machine_id: str
    machine_name: str


def rate(
    card: RateCard, period: Period, *, state: LeaseState, skus: Collection[str], used: Mapping[str, Decimal]
) -> tuple[Rated, ...]:
    """What a machine in `state` costs over `period`, per SKU and tier. An address costs the same in every state.

    `used` is what the billing account used of each SKU before in the billing period; absent is nothing.

    Raises:
        PriceUnknown: where the card does not say what the SKU or the state costs.
    """
    return tuple(rated for sku in skus for rated in _rate(card, period, sku=sku, state=state, used=used))


def _rate(
    card: RateCard, period: Period, *, sku: str, state: LeaseState, used: Mapping[str, Decimal]
) -> Iterator[Rated]:
    price = card.price(sku)
    if price.unit not in _FOCUS_UNITS:
        raise PriceUnknown(
            f"rate card {card.name} (version {card.number}) sells {sku} per {price.unit}, not by time",
            hint="Price it per hour or per second.",
            sku=sku,
        )
    share = Decimal(1) if sku == ADDRESS_SKU else card.share(state.value)
    already = used.get(sku, Decimal(0))
    priced = amount(card, sku, Decimal(1), period, share=share, already_used=already)
    for part in priced.parts:
        tier = max(number for number, tier in enumerate(price.tiers) if tier.above <= already)
        with exact():
            already += part.quantity.value
            hours = period.hours.value * part.quantity.value / priced.billed.value
        yield Rated(sku, tier, part, hours, share, part.amount.stored())


def charge(
    segment: Segment, rated: Rated, *, entry_id: UUID, resource: Resource, grant_id: UUID | None = None
) -> Charge:
    """The row for one rated tier of a segment that is closed, or for the part of it that a grant pays."""
    assert segment.ends_at is not None, "only closed segments are charged"
    is_address = rated.sku == ADDRESS_SKU
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
        service_category="Networking" if is_address else "Compute",
        service_name="Public addresses" if is_address else "Virtual machines",
        service_provider_name=resource.provider,
        region_id=resource.region,
        resource_id=resource.machine_id,
        resource_name=resource.machine_name,
        resource_type="Public IP Address" if is_address else "Virtual Machine",
        sku_id=rated.sku,
        sku_price_id=f"{segment.rate_card_version_id}/{rated.sku}/{rated.tier}",
        pricing_quantity=quantity.value,
        pricing_unit=_FOCUS_UNITS[quantity.unit],
        consumed_quantity=rated.hours,
        consumed_unit=_FOCUS_UNITS[Unit.HOUR],
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
