"""The nearest changes to a workload that would make something fit. Each one is tried before it is told."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import ROUND_CEILING, Decimal
from difflib import get_close_matches

from broker.meters import ADDRESS_SKU, SNAPSHOT_SKU, VOLUME_SKU
from broker.placement import Assumptions, Workload
from broker.units import counted, show_memory
from broker.values import Amount, exact, plain
from policies.disks import Obstacle, obstacle, volumes
from policies.requirements import QUOTA, Clause, Judgement, judge, needs

# How many offers are looked at, and how many changes are told.
_LOOKED_AT = 40
_TOLD = 5
# After a first round of changes an offer is priced, and the price may ask for one more.
_ROUNDS = 3

Change = tuple[Workload, str]


@dataclass(frozen=True, slots=True)
class Relaxation:
    """A changed workload that fits, what it then costs, and the change in words."""

    workload: Workload
    total: Amount
    words: str


def relaxations(judgements: Iterable[Judgement], assumptions: Assumptions, *, now: datetime) -> tuple[Relaxation, ...]:
    """The nearest changes: fewest first, then the smallest, then the cheapest result.

    None where only somebody else could help (a price, a quota, a site down).
    """
    missed = (judgement for judgement in judgements if not judgement.fits)
    nearest = heapq.nsmallest(_LOOKED_AT, missed, key=lambda one: (one.distance, one.case.site.name))
    found: list[tuple[tuple[object, ...], Relaxation]] = []
    for judgement in nearest:
        relaxed = _relax(judgement, assumptions, now=now)
        if relaxed is not None:
            total = relaxed.total
            found.append(((*judgement.distance[:2], total.commodity.code, total.value, judgement.distance), relaxed))
    told: dict[Workload, Relaxation] = {}
    for _, relaxed in sorted(found, key=lambda pair: pair[0]):
        told.setdefault(relaxed.workload, relaxed)
    return tuple(told.values())[:_TOLD]


def _relax(judgement: Judgement, assumptions: Assumptions, *, now: datetime) -> Relaxation | None:
    """Change the workload, clause by clause, until this offer fits."""
    words: list[str] = []
    for _ in range(_ROUNDS):
        workload = judgement.case.workload
        for clause in judgement.misses:
            change = _change(judgement, clause, workload)
            if change is None:
                return None
            workload, said = change
            words.append(said)
        judgement = judge(replace(judgement.case, workload=workload), assumptions, now=now)
        if judgement.priced is not None and judgement.fits:
            case = judgement.case
            where = f"fits at {case.site.name} ({case.offer.name}, {judgement.priced.total})"
            return Relaxation(workload, judgement.priced.total, f"{', '.join(dict.fromkeys(words))}: {where}")
    return None


def _change(judgement: Judgement, clause: Clause, workload: Workload) -> Change | None:
    if clause in QUOTA:
        return _fewer(judgement, clause, workload)
    change = _CHANGES.get(clause)
    return None if change is None else change(judgement, workload)


def _fewer(judgement: Judgement, clause: Clause, workload: Workload) -> Change | None:
    """As many machines as every short quota takes; without what not even one of them can have, where that can be."""
    case = judgement.case
    rooms = {
        short: int((case.site.free[QUOTA[short]] or Decimal(0)) // each)
        for short, each in needs(case).items()
        if short in judgement.misses
    }
    spared = {
        short: change for short, room in rooms.items() if room < 1 and (change := _without(judgement, short, workload))
    }
    if clause in spared:
        return spared[clause]
    count = min(room for short, room in rooms.items() if short not in spared)
    if count < 1:
        return None
    return replace(workload, count=count), f"ask for {counted(count, 'machine')} instead of {case.workload.count}"


def _without(judgement: Judgement, clause: Clause, workload: Workload) -> Change | None:
    """Without the address or the second disk, or with a smaller one; None for what no machine does without."""
    case = judgement.case
    if clause is Clause.QUOTA_ADDRESSES:
        return replace(workload, public_address=False), "leave the public address out"
    if clause not in (Clause.QUOTA_VOLUMES, Clause.QUOTA_STORAGE) or not case.workload.volume_gib:
        return None
    free = case.site.free[QUOTA[clause]] or Decimal(0)
    left = int(free // workload.count) - volumes(case.workload, case.site, case.offer).boot_gib
    if clause is Clause.QUOTA_VOLUMES or left < 1:
        return _volume(judgement, workload)
    return replace(
        workload, volume_gib=left
    ), f"ask for a volume of {left} GiB instead of {case.workload.volume_gib} GiB"


def _volume(_: Judgement, workload: Workload) -> Change:
    return replace(workload, volume_gib=0), "leave the volume out"


def _sites(judgement: Judgement, workload: Workload) -> Change:
    name = judgement.case.site.name
    return replace(workload, sites=(*workload.sites, name)), f"allow site {name}"


def _providers(judgement: Judgement, workload: Workload) -> Change:
    name = judgement.case.site.provider
    return replace(workload, providers=(*workload.providers, name)), f"allow provider {name}"


def _jurisdictions(judgement: Judgement, workload: Workload) -> Change:
    name = judgement.case.site.jurisdiction
    if name is None:
        return replace(workload, jurisdictions=()), "leave requirements.jurisdictions out"
    return replace(workload, jurisdictions=(*workload.jurisdictions, name)), f"allow jurisdiction {name}"


def _image(judgement: Judgement, workload: Workload) -> Change | None:
    close = get_close_matches(workload.image, sorted(judgement.case.site.images), n=1)
    return (replace(workload, image=close[0]), f"use image {close[0]} instead of {workload.image}") if close else None


def _arch(judgement: Judgement, workload: Workload) -> Change:
    arch = judgement.case.offer.arch
    words = "leave resources.arch out" if arch is None else f"ask for arch {arch} instead of {workload.arch}"
    return replace(workload, arch=arch), words


def _gpus(judgement: Judgement, workload: Workload) -> Change:
    gpus = judgement.case.offer.gpus
    if not gpus:
        return replace(workload, gpus=0, gpu_model=None), "ask for no GPUs"
    return replace(workload, gpus=gpus), f"ask for {counted(gpus, 'GPU')} instead of {workload.gpus}"


def _gpu_model(judgement: Judgement, workload: Workload) -> Change | None:
    model = judgement.case.offer.gpu_model
    if workload.gpu_model is None:  # gone with the GPUs
        return workload, "ask for no GPUs"
    words = "leave resources.gpu_model out" if model is None else f"ask for {model} instead of {workload.gpu_model}"
    return replace(workload, gpu_model=model), words


def _cores(judgement: Judgement, workload: Workload) -> Change:
    cores = judgement.case.offer.cores
    return replace(workload, cores=cores), f"ask for {counted(cores, 'core')} instead of {workload.cores}"


def _memory(judgement: Judgement, workload: Workload) -> Change:
    mib = judgement.case.offer.memory_mib
    return replace(
        workload, memory_mib=mib
    ), f"ask for {show_memory(mib)} of memory instead of {show_memory(workload.memory_mib)}"


def _disk(judgement: Judgement, workload: Workload) -> Change | None:
    """A snapshot less, where a volume then takes the disk's place; else a smaller disk."""
    gib = judgement.case.offer.disk_gib
    if obstacle(judgement.case.workload, judgement.case.site) is Obstacle.SNAPSHOT:
        return replace(workload, keep_snapshot=None), "leave the snapshot out"
    if not gib:
        return None
    return replace(workload, disk_gib=gib), f"ask for {gib} GiB of disk instead of {workload.disk_gib} GiB"


def _image_disk(judgement: Judgement, workload: Workload) -> Change | None:
    if obstacle(judgement.case.workload, judgement.case.site) is not Obstacle.SNAPSHOT:
        return None
    return replace(workload, keep_snapshot=None), "leave the snapshot out"


def _exchange_rate(judgement: Judgement, workload: Workload) -> Change | None:
    card = judgement.case.site.card
    if workload.max_price is None or card is None or card.currency not in judgement.case.payable:
        return None
    return replace(workload, max_price=None), "leave max_price out"


def _price(judgement: Judgement, workload: Workload) -> Change | None:
    """Leave out what has no price, where the workload can do without it."""
    sku = judgement.why.context.get("sku") if judgement.why is not None else None
    if sku == ADDRESS_SKU:
        return replace(workload, public_address=False), "leave the public address out"
    if sku == SNAPSHOT_SKU:
        return replace(workload, keep_snapshot=None), "leave the snapshot out"
    return _volume(judgement, workload) if sku == VOLUME_SKU else None


def _max_price(judgement: Judgement, workload: Workload) -> Change | None:
    if judgement.priced is None:
        return None
    total = judgement.priced.total
    with exact():
        limit = Amount(total.value.quantize(Decimal("0.01"), rounding=ROUND_CEILING), total.commodity)
    return replace(workload, max_price=limit), f"raise max_price to {plain(limit.value)} {limit.commodity}"


_CHANGES: Mapping[Clause, Callable[[Judgement, Workload], Change | None]] = {
    Clause.SITES: _sites,
    Clause.PROVIDERS: _providers,
    Clause.JURISDICTIONS: _jurisdictions,
    Clause.IMAGE: _image,
    Clause.ARCH: _arch,
    Clause.GPUS: _gpus,
    Clause.GPU_MODEL: _gpu_model,
    Clause.CORES: _cores,
    Clause.MEMORY: _memory,
    Clause.DISK: _disk,
    Clause.IMAGE_DISK: _image_disk,
    Clause.VOLUME: _volume,
    Clause.EXCHANGE_RATE: _exchange_rate,
    Clause.PRICE: _price,
    Clause.MAX_PRICE: _max_price,
}
