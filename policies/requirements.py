"""The hard requirements of a workload, clause by clause, and the judgement of one offer under them.

Unknown never satisfies: an offer whose GPU model, processor or jurisdiction the site does not state fails the clause
that asks for one. A quota that a site does not report is no limit that we know of; the site may still refuse.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from functools import lru_cache

from broker.errors import PriceUnknown
from broker.placement import Assumptions, Candidate, CatalogueOffer, CatalogueSite, Workload
from broker.values import Commodity
from policies.costs import price
from policies.disks import has_block_storage, image_disk, volumes, wanted_disk


class Clause(StrEnum):
    """One requirement. The order is the order of the funnel: an offer counts where it fails first."""

    SITES = "sites"
    PROVIDERS = "providers"
    JURISDICTIONS = "jurisdictions"
    SITE = "site"
    IMAGE = "image"
    ARCH = "arch"
    GPUS = "gpus"
    GPU_MODEL = "gpu_model"
    CORES = "cores"
    MEMORY = "memory"
    DISK = "disk"
    IMAGE_MEMORY = "image_memory"
    IMAGE_DISK = "image_disk"
    VOLUME = "volume"
    QUOTA_INSTANCES = "quota_instances"
    QUOTA_CORES = "quota_cores"
    QUOTA_MEMORY = "quota_memory"
    QUOTA_ADDRESSES = "quota_addresses"
    QUOTA_VOLUMES = "quota_volumes"
    QUOTA_STORAGE = "quota_storage"
    EXCHANGE_RATE = "exchange_rate"
    PRICE = "price"
    MAX_PRICE = "max_price"


# Quota resource behind each quota clause.
QUOTA = {
    Clause.QUOTA_INSTANCES: "instances",
    Clause.QUOTA_CORES: "cores",
    Clause.QUOTA_MEMORY: "memory_mib",
    Clause.QUOTA_ADDRESSES: "floating_ips",
    Clause.QUOTA_VOLUMES: "volumes",
    Clause.QUOTA_STORAGE: "volume_gib",
}


@dataclass(frozen=True, slots=True)
class Case:
    """One offer of one site, for one workload of a project that can pay in `payable`."""

    workload: Workload
    site: CatalogueSite
    offer: CatalogueOffer
    payable: frozenset[Commodity]


@dataclass(frozen=True, slots=True)
class Judgement:
    """A case decided. `misses` maps each failed clause to how far off it is: 0 (excluded) to 1 and above, relative.

    `priced` is there wherever a price could be made, also when it is above the limit. `why` says why there is none.
    """

    case: Case
    misses: Mapping[Clause, float]
    priced: Candidate | None = None
    why: PriceUnknown | None = None

    @property
    def fits(self) -> bool:
        """True where no clause failed."""
        return not self.misses

    @property
    def distance(self) -> tuple[int, float, str, str]:
        """Sorts the nearest miss first, always the same way."""
        offer = self.case.offer
        return len(self.misses), sum(self.misses.values()), offer.name, offer.remote_id


def judge(case: Case, assumptions: Assumptions, *, now: datetime) -> Judgement:
    """Try every clause; price the offer only where nothing else failed."""
    misses = dict(_misses(case))
    if misses:
        return Judgement(case, misses)
    try:
        priced = price(case.workload, case.site, case.offer, assumptions, now=now)
    except PriceUnknown as error:
        return Judgement(case, {Clause.PRICE: 1.0}, why=error)
    limit = case.workload.max_price
    if limit is not None and limit < priced.total:
        return Judgement(case, {Clause.MAX_PRICE: _short(priced.total.value, limit.value)}, priced)
    return Judgement(case, {}, priced)


def needs(case: Case) -> Mapping[Clause, Decimal]:
    """What one machine takes from each quota."""
    taken = {
        Clause.QUOTA_INSTANCES: Decimal(1),
        Clause.QUOTA_CORES: Decimal(case.offer.cores),
        Clause.QUOTA_MEMORY: Decimal(case.offer.memory_mib),
    }
    if case.workload.public_address:
        taken[Clause.QUOTA_ADDRESSES] = Decimal(1)
    disks = volumes(case.workload, case.site, case.offer)
    if disks.number:
        taken[Clause.QUOTA_VOLUMES] = Decimal(disks.number)
        taken[Clause.QUOTA_STORAGE] = Decimal(disks.total_gib)
    return taken


def _misses(case: Case) -> Iterator[tuple[Clause, float]]:
    """Every failed clause but the price's own, in the funnel's order."""
    for clause, shortfall in _SHORTFALLS:
        off = shortfall(case)
        if off:
            yield clause, off
    yield from _quota_misses(case)
    off = _currency_shortfall(case)
    if off:
        yield Clause.EXCHANGE_RATE, off


def _quota_misses(case: Case) -> Iterator[tuple[Clause, float]]:
    for clause, each in needs(case).items():
        free = case.site.free.get(QUOTA[clause])
        wanted = each * case.workload.count
        if free is not None and free < wanted:
            yield clause, _short(wanted, max(free, Decimal(0)))


def _currency_shortfall(case: Case) -> float:
    """1 where the card's currency cannot be paid, or compared with the price limit: there is no exchange rate yet."""
    card, limit = case.site.card, case.workload.max_price
    if card is None:
        return 0.0
    is_payable = card.currency in case.payable
    return 0.0 if is_payable and (limit is None or limit.commodity == card.currency) else 1.0


def _short(wanted: int | Decimal, offered: int | Decimal) -> float:
    """How much of the wanted is missing, 0 to 1. A measure of nearness, never of money."""
    return float((wanted - offered) / wanted) if offered < wanted else 0.0


def _listed(value: str | None, allowed: tuple[str, ...]) -> float:
    return 1.0 if allowed and value not in allowed else 0.0


def _image_shortfall(case: Case) -> float:
    return 0.0 if case.workload.image in case.site.images else 1.0


def _image_memory_shortfall(case: Case) -> float:
    image = case.site.images.get(case.workload.image)
    return _short(image[2], case.offer.memory_mib) if image else 0.0


def _disk_shortfall(case: Case, wanted: int) -> float:
    """None where a volume takes the place of a disk that is too small."""
    return 0.0 if volumes(case.workload, case.site, case.offer).boot_gib else _short(wanted, case.offer.disk_gib)


def _volume_shortfall(case: Case) -> float:
    return 1.0 if case.workload.volume_gib and not has_block_storage(case.site) else 0.0


def _model_shortfall(case: Case) -> float:
    """`A100` is met by `NVIDIA A100 80GB`: every word of the wanted model is among the offered one's."""
    wanted, offered = case.workload.gpu_model, case.offer.gpu_model
    if wanted is None or (offered is not None and _words(wanted) <= _words(offered)):
        return 0.0
    return 1.0


@lru_cache(maxsize=1024)
def _words(model: str) -> frozenset[str]:
    return frozenset(re.findall(r"[a-z0-9]+", model.casefold()))


_SHORTFALLS: tuple[tuple[Clause, Callable[[Case], float]], ...] = (
    (Clause.SITES, lambda case: _listed(case.site.name, case.workload.sites)),
    (Clause.PROVIDERS, lambda case: _listed(case.site.provider, case.workload.providers)),
    (Clause.JURISDICTIONS, lambda case: _listed(case.site.jurisdiction, case.workload.jurisdictions)),
    (Clause.SITE, lambda case: 1.0 if case.site.trouble is not None else 0.0),
    (Clause.IMAGE, _image_shortfall),
    (Clause.ARCH, lambda case: 1.0 if case.workload.arch not in (None, case.offer.arch) else 0.0),
    (Clause.GPUS, lambda case: _short(case.workload.gpus, case.offer.gpus)),
    (Clause.GPU_MODEL, _model_shortfall),
    (Clause.CORES, lambda case: _short(case.workload.cores, case.offer.cores)),
    (Clause.MEMORY, lambda case: _short(case.workload.memory_mib, case.offer.memory_mib)),
    (Clause.DISK, lambda case: _disk_shortfall(case, wanted_disk(case.workload))),
    (Clause.IMAGE_MEMORY, _image_memory_shortfall),
    (Clause.IMAGE_DISK, lambda case: _disk_shortfall(case, image_disk(case.workload, case.site))),
    (Clause.VOLUME, _volume_shortfall),
)
