"""What a thing at a site costs per hour by the rate card in force, whoever made it. Pure.

An estimate for people, by the first tier and without minimum and increment; charges are made by `broker.pricing`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from broker.errors import PriceUnknown
from broker.meters import ADDRESS_SKU, SNAPSHOT_SKU, VOLUME_SKU
from broker.pricing import RateCard
from broker.remote import MachineState, ThingKind
from broker.values import Amount, Unit, exact

_BY_SIZE = {
    ThingKind.VOLUME: VOLUME_SKU,
    ThingKind.SNAPSHOT: SNAPSHOT_SKU,
    ThingKind.VOLUME_SNAPSHOT: SNAPSHOT_SKU,
}
# What a card prices without naming an instance type.
FLAT_SKUS = (ADDRESS_SKU, *dict.fromkeys(_BY_SIZE.values()))
# Per hour; a SKU that is sold per anything else has no price here.
_BY_TIME = {Unit.HOUR: Decimal(1), Unit.SECOND: Decimal(3600)}


@dataclass(frozen=True, slots=True)
class PriceList:
    """The card of a site's provider (None: there is none), and the names of the instance types it is sold by."""

    card: RateCard | None
    names: Mapping[str, str] = field(default_factory=dict)

    def sku(self, instance_type: str | None) -> str | None:
        """The name of an instance type; None where the site does not say, or sells it no longer."""
        return None if instance_type is None else self.names.get(instance_type)

    def hourly(
        self,
        kind: ThingKind,
        *,
        state: MachineState | None = None,
        instance_type: str | None = None,
        size_gib: Decimal | None = None,
    ) -> Amount | None:
        """What one thing costs per hour; None where anything of it is not known: never a zero that nobody stated."""
        if self.card is None:
            return None
        try:
            with exact():
                value = self._server(self.card, instance_type, state) if kind is ThingKind.SERVER else None
                if kind is ThingKind.ADDRESS:
                    value = _first(self.card, ADDRESS_SKU, _BY_TIME)
                elif kind in _BY_SIZE and size_gib is not None:
                    price = _first(self.card, _BY_SIZE[kind], {Unit.GIB_HOUR: Decimal(1)})
                    value = None if price is None else price * size_gib
        except PriceUnknown:
            return None
        return None if value is None else Amount(value, self.card.currency)

    def _server(self, card: RateCard, instance_type: str | None, state: MachineState | None) -> Decimal | None:
        sku = self.sku(instance_type)
        price = None if sku is None or state is None else _first(card, sku, _BY_TIME)
        return None if price is None or state is None else price * card.share(state)


def _first(card: RateCard, sku: str, units: Mapping[Unit, Decimal]) -> Decimal | None:
    """The price per hour in the first tier; None where it is sold by another unit. Raises `PriceUnknown`."""
    price = card.price(sku)
    return price.tiers[0].unit_price * units[price.unit] if price.unit in units else None
