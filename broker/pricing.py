"""The only price code: what a quantity over a period costs under a rate card. Pure.

Quote, charge and bulk re-rating all call `amount`, so that a quote and the charge that follows cannot differ by rule.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from uuid import UUID

from broker.errors import InvalidInput, PriceUnknown
from broker.values import Amount, Commodity, Period, Quantity, Unit, exact

# Units that count time; for the others the count itself is the quantity.
_TIMED = frozenset({Unit.HOUR, Unit.SECOND, Unit.GIB_HOUR, Unit.CORE_HOUR})


@dataclass(frozen=True, slots=True)
class Tier:
    """Above `above` units (of what the billing account used in the billing period), each costs `unit_price`."""

    above: Decimal
    unit_price: Decimal


@dataclass(frozen=True, slots=True)
class Price:
    """The price of one SKU: graduated tiers per unit, and the least and the step that a use is billed by.

    `minimum` and `increment` are durations (some clouds bill at least a minute, then whole seconds); zero means exact,
    and then the meter is linear: splitting a period does not change the sum.
    """

    sku: str
    unit: Unit
    tiers: tuple[Tier, ...]
    minimum: timedelta = timedelta(0)
    increment: timedelta = timedelta(0)

    def __post_init__(self) -> None:
        """Tiers start at zero and rise; prices are never negative."""
        where = f"prices.{self.sku}"
        if not self.tiers or self.tiers[0].above != 0:
            raise InvalidInput(where, "the first tier must start at 0")
        above = [tier.above for tier in self.tiers]
        if above != sorted(set(above)):
            raise InvalidInput(where, "tiers must rise")
        if any(tier.unit_price < 0 for tier in self.tiers):
            raise InvalidInput(where, "a price cannot be negative", hint="Credits are postings of their own.")
        if self.minimum < timedelta(0) or self.increment < timedelta(0):
            raise InvalidInput(where, "minimum and increment cannot be negative")

    @property
    def is_linear(self) -> bool:
        """True where splitting a period keeps the charge: no minimum, no increment, one tier."""
        return not self.minimum and not self.increment and len(self.tiers) == 1


@dataclass(frozen=True, slots=True)
class RateCard:
    """One version of a provider's prices. `bills` says which share of the instance price each machine state costs."""

    version_id: UUID
    name: str
    number: int
    currency: Commodity
    prices: Mapping[str, Price]
    bills: Mapping[str, Decimal] = field(default_factory=dict)

    def price(self, sku: str) -> Price:
        """The SKU's price; raises `PriceUnknown`, because an unknown price is never zero."""
        found = self.prices.get(sku)
        if found is None:
            raise PriceUnknown(
                f"rate card {self.name} (version {self.number}) has no price for {sku}",
                hint="Add the SKU to the rate card, with 0 if it is truly free.",
                sku=sku,
            )
        return found

    def share(self, state: str) -> Decimal:
        """The share of the instance price that a state costs; raises `PriceUnknown` where the card does not say."""
        found = self.bills.get(state)
        if found is None:
            raise PriceUnknown(
                f"rate card {self.name} (version {self.number}) does not say what a {state} machine costs",
                hint=f"Add `{state}` to the card's `bills`.",
                state=state,
            )
        return found


@dataclass(frozen=True, slots=True)
class PricePart:
    """One tier's share of a price."""

    quantity: Quantity
    unit_price: Decimal
    amount: Amount


@dataclass(frozen=True, slots=True)
class PriceParts:
    """How a price came about: the billed quantity (after minimum and increment) and each tier's part."""

    sku: str
    billed: Quantity
    parts: tuple[PricePart, ...]
    total: Amount


def billed_time(price: Price, period: Period) -> timedelta:
    """The time that a use over `period` is billed for: at least the minimum, in whole increments."""
    length = period.length
    if not length:
        return length
    length = max(length, price.minimum)
    if price.increment:
        steps = -(-length // price.increment)
        length = steps * price.increment
    return length


def amount(
    card: RateCard,
    sku: str,
    count: Decimal,
    period: Period,
    *,
    share: Decimal = Decimal(1),
    already_used: Decimal = Decimal(0),
) -> PriceParts:
    """What `count` units of `sku`, used all through `period`, cost.

    Args:
        card: the rate card version in force for the whole period.
        sku: its key in the card.
        count: how many at once (machines, GiB); for units without time (`GiB`) the quantity itself.
        period: when.
        share: the part of the unit price that applies (the state's share), 0 to 1.
        already_used: units the billing account used before in this billing period, in the price's unit: where the
            tiers are entered.

    Raises:
        PriceUnknown: where the card has no such SKU.
        InvalidInput: for negative counts or shares outside 0..1.
    """
    if count < 0 or already_used < 0:
        raise InvalidInput("count", f"{min(count, already_used)} is negative")
    if not 0 <= share <= 1:
        raise InvalidInput("share", f"{share} is not between 0 and 1")
    price = card.price(sku)
    with exact():
        value = count
        if price.unit in _TIMED:
            billed = Period(period.start, period.start + billed_time(price, period))
            value = count * (billed.seconds if price.unit is Unit.SECOND else billed.hours).value
        parts = tuple(_through_tiers(price, value, already_used, share=share, currency=card.currency))
        total = Amount.total((part.amount for part in parts), card.currency)
    return PriceParts(sku=sku, billed=Quantity(value, price.unit), parts=parts, total=total)


def _through_tiers(
    price: Price, value: Decimal, already_used: Decimal, *, share: Decimal, currency: Commodity
) -> list[PricePart]:
    """Cut [already_used, already_used + value) at the tiers' starts (graduated, not "highest tier for all")."""
    parts = []
    end = already_used + value
    for tier, following in zip(price.tiers, (*price.tiers[1:], None), strict=True):
        low = max(already_used, tier.above)
        high = end if following is None else min(end, following.above)
        if high <= low:
            continue
        unit_price = tier.unit_price * share
        parts.append(
            PricePart(Quantity(high - low, price.unit), unit_price, Amount((high - low) * unit_price, currency))
        )
    return parts
