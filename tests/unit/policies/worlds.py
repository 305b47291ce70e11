"""Small federations for the tests of placement: by hand, and drawn by hypothesis."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from random import Random
from typing import TypeVar
from uuid import UUID

from hypothesis import strategies as st

from broker.meters import SNAPSHOT_SKU, VOLUME_SKU
from broker.placement import (
    Assumptions,
    Catalogue,
    CatalogueOffer,
    CatalogueSite,
    PlacementFacts,
    Ranking,
    Workload,
)
from broker.pricing import Price, RateCard, Tier
from broker.values import Amount, Commodity, Unit
from policies.place import CheapestPlacer

T = TypeVar("T")

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
ASSUMPTIONS = Assumptions(stop_delay=timedelta(minutes=10), settle_time=timedelta(minutes=5))
EUR, USD = Commodity("EUR"), Commodity("USD")
FACTS = PlacementFacts("climate", {EUR: Amount.of(100, EUR)}, "facts")
WORKLOAD = Workload(
    name="trial",
    project="climate",
    image="ubuntu-24.04",
    cores=2,
    memory_mib=4096,
    duration=timedelta(days=3),
)
IMAGES = {"ubuntu-24.04": ("image-1", 8, 512), "debian-12": ("image-2", 4, 256)}
UNLIMITED: Mapping[str, Decimal | None] = {"instances": None, "cores": None, "memory_mib": None, "floating_ips": None}
# Of a site that has block storage.
STORAGE: Mapping[str, Decimal | None] = {**UNLIMITED, "volumes": None, "volume_gib": None}
BY_SIZE = (SNAPSHOT_SKU, VOLUME_SKU)


def price(sku: str, unit_price: str | Decimal, unit: Unit = Unit.HOUR) -> Price:
    return Price(sku, unit, (Tier(Decimal(0), Decimal(unit_price)),))


def card(number: int, prices: Mapping[str, str | Decimal], currency: Commodity = EUR) -> RateCard:
    return RateCard(
        UUID(int=1000 + number),
        f"card-{number}",
        1,
        currency,
        {
            sku: price(sku, unit_price, Unit.GIB_HOUR if sku in BY_SIZE else Unit.HOUR)
            for sku, unit_price in prices.items()
        },
        {"running": Decimal(1)},
    )


def site(number: int, name: str, rates: RateCard | None, **changes: object) -> CatalogueSite:
    made = CatalogueSite(
        site_id=UUID(int=number),
        name=name,
        provider=name,
        jurisdiction="EE",
        region=None,
        images=IMAGES,
        free=UNLIMITED,
        card=rates,
    )
    return replace(made, **changes)  # type: ignore[arg-type]  # a test names real fields


def offer(number: int, where: CatalogueSite, name: str, size: tuple[int, int], **changes: object) -> CatalogueOffer:
    """`size` is cores and GiB of memory."""
    made = CatalogueOffer(
        offer_id=UUID(int=10_000 + number),
        site_id=where.site_id,
        remote_id=f"flavor-{number}",
        name=name,
        cores=size[0],
        memory_mib=size[1] * 1024,
        disk_gib=20,
        gpus=0,
        gpu_model=None,
        arch=None,
    )
    return replace(made, **changes)  # type: ignore[arg-type]  # a test names real fields


AURORA = site(
    1,
    "aurora",
    card(1, {"a1.small": "0.10", "a1.large": "0.40", "public-address": "0.005", SNAPSHOT_SKU: "0.0001"}),
)
BOREALIS = site(2, "borealis", card(2, {"std.2c4g": "0.12", "gpu.8c64g": "2.00"}), jurisdiction="FI")
OFFERS = (
    offer(1, AURORA, "a1.small", (2, 4)),
    offer(2, AURORA, "a1.large", (8, 32), disk_gib=80),
    offer(3, BOREALIS, "std.2c4g", (2, 4)),
    offer(4, BOREALIS, "gpu.8c64g", (8, 64), disk_gib=120, gpus=2, gpu_model="NVIDIA A100 80GB", arch="x86_64"),
)


def catalogue(*sites: CatalogueSite, offers: tuple[CatalogueOffer, ...] = OFFERS) -> Catalogue:
    there = sites or (AURORA, BOREALIS)
    return Catalogue(there, tuple(one for one in offers if one.site_id in {s.site_id for s in there}), "catalogue")


def rank(workload: Workload = WORKLOAD, world: Catalogue | None = None, facts: PlacementFacts = FACTS) -> Ranking:
    return CheapestPlacer().rank(workload, world or catalogue(), facts, ASSUMPTIONS, now=NOW)


# A question is drawn whole from one seed: most of it fits, and what does not is near the edge. Drawn piece by piece,
# hypothesis met an offer that fits in none of 400 questions.
_MODELS = ("NVIDIA A100 80GB", "A100", "L4", None)
_NAMES = ("aurora", "borealis", "cygnus")
_SKUS = ("s1", "s2", "s3", "s4", "public-address", *BY_SIZE)


_BY_TIME = (Unit.HOUR, Unit.HOUR, Unit.SECOND)


@dataclass(frozen=True, slots=True)
class Question:
    """What a placer is asked."""

    seed: int
    workload: Workload
    world: Catalogue
    facts: PlacementFacts


class Dice(Random):
    """Chances of one seed."""

    def rarely(self, rare: T, usual: T) -> T:
        return rare if self.random() < 0.05 else usual


def _card(dice: Dice, number: int) -> RateCard | None:
    prices = {
        sku: price(
            sku,
            Decimal(dice.randrange(200)) / 100,
            dice.rarely(Unit.GIB, Unit.GIB_HOUR if sku in BY_SIZE else dice.choice(_BY_TIME)),
        )
        for sku in _SKUS
        if not dice.rarely(True, False)
    }
    bills = dice.rarely({}, {"running": dice.choice([Decimal(1), Decimal("0.5")])})
    made = RateCard(UUID(int=1000 + number), f"card-{number}", 1, dice.rarely(USD, EUR), prices, bills)
    return dice.rarely(None, made)


def _site(dice: Dice, number: int) -> CatalogueSite:
    name = _NAMES[number]
    free = {
        resource: Decimal(dice.randint(-1, most)) if dice.random() < 0.15 else None
        for resource, most in (("instances", 6), ("cores", 40), ("memory_mib", 40_000), ("floating_ips", 2))
    }
    if dice.random() < 0.7:
        free |= {
            resource: Decimal(dice.randint(-1, most)) if dice.random() < 0.3 else None
            for resource, most in (("volumes", 6), ("volume_gib", 200))
        }
    return CatalogueSite(
        site_id=UUID(int=number),
        name=name,
        provider=dice.choice(["p1", "p2"]),
        jurisdiction=dice.choice(["EE", "FI", None]),
        region=None,
        images={
            image: (f"{name}-{image}", dice.rarely(30, 8), dice.rarely(8192, 512))
            for image in ("ubuntu-24.04", "debian-12")
            if not dice.rarely(True, False)
        },
        free={resource: left for resource, left in free.items() if not dice.rarely(True, False)},
        card=_card(dice, number),
        trouble=dice.rarely("does not answer", None),
    )


def _offer(dice: Dice, where: CatalogueSite, index: int) -> CatalogueOffer:
    gpus = dice.choice([0, 0, 1, 4])
    return CatalogueOffer(
        offer_id=UUID(int=10_000 + 100 * where.site_id.int + index),
        site_id=where.site_id,
        remote_id=f"{index}",
        name=dice.choice(_SKUS[:4]),
        cores=dice.choice([2, 4, 8, 16]),
        memory_mib=1024 * dice.choice([2, 4, 8, 16]),
        disk_gib=dice.rarely(0, dice.choice([10, 20, 40])),
        gpus=gpus,
        gpu_model=dice.choice(_MODELS) if gpus else None,
        arch=dice.choice(["x86_64", "aarch64", None]),
    )


def _workload(dice: Dice) -> Workload:
    def some(*values: str) -> tuple[str, ...]:
        return dice.rarely(tuple(sorted(dice.sample(values, dice.randint(1, len(values))))), ())

    gpus = dice.choice([0, 0, 0, 0, 1, 2])
    limit = Amount(Decimal(dice.randrange(5000)) / 100, dice.rarely(USD, EUR))
    return Workload(
        name="trial",
        project="climate",
        image=dice.rarely("ubuntu-2404", dice.choice(["ubuntu-24.04", "debian-12"])),
        cores=dice.choice([1, 2, 2, 4, 8]),
        memory_mib=1024 * dice.choice([1, 2, 2, 4, 8]),
        duration=dice.choice([timedelta(hours=1), timedelta(minutes=20), timedelta(days=40)]),
        count=dice.choice([1, 1, 2, 5]),
        disk_gib=dice.choice([0, 10, 20, 30]),
        volume_gib=dice.choice([1, 50]) if dice.random() < 0.2 else 0,
        gpus=gpus,
        gpu_model=dice.choice(["A100", None]) if gpus else None,
        arch=dice.rarely("x86_64", None),
        public_address=dice.random() < 0.3,
        sites=some("aurora", "borealis", "elsewhere"),
        providers=some("p1", "p2"),
        jurisdictions=some("EE", "FI"),
        max_price=limit if dice.random() < 0.2 else None,
        keep_snapshot=dice.choice([timedelta(hours=1), timedelta(days=30)]) if dice.random() < 0.2 else None,
    )


def question(seed: int) -> Question:
    """The same seed, the same question."""
    dice = Dice(seed)
    there = [_site(dice, number) for number in range(dice.rarely(0, dice.randint(1, 3)))]
    offers = [_offer(dice, where, index) for where in there for index in range(dice.randint(0, 6))]
    dice.shuffle(offers)
    payable = dice.choice([(EUR,)] * 4 + [(EUR, USD)] * 4 + [dice.rarely((), (USD,))])
    facts = PlacementFacts("climate", {unit: Amount.of(1, unit) for unit in payable}, "facts")
    return Question(seed, _workload(dice), Catalogue(tuple(there), tuple(offers), "catalogue"), facts)


questions = st.integers(0, 2**32).map(question)
