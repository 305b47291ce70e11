"""Why this one, and why not that one: the words of a ranking."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from uuid import UUID

from broker.meters import VOLUME_SKU
from broker.placement import Candidate, CatalogueSite, Reason, SiteVerdict
from broker.units import counted, show_duration, show_memory
from broker.values import plain
from policies.disks import Obstacle, image_disk, obstacle, wanted_disk
from policies.requirements import QUOTA, Case, Clause, Judgement, needs

# A site's reasons come from at most so many of its offers: the nearest ones.
_NEAREST = 3
_QUOTA_WORDS = {
    Clause.QUOTA_INSTANCES: "machines",
    Clause.QUOTA_CORES: "cores",
    Clause.QUOTA_MEMORY: "of memory",
    Clause.QUOTA_ADDRESSES: "public addresses",
    Clause.QUOTA_VOLUMES: "volumes",
    Clause.QUOTA_STORAGE: "of block storage",
}
# Quotas of sizes, and how many MiB their units have.
_MIB = {Clause.QUOTA_MEMORY: 1, Clause.QUOTA_STORAGE: 1024}
# Why no volume stands in for a disk that is too small: what there is, and what to do besides asking for less.
_INSTEAD = {
    Obstacle.NO_STORAGE: ("no block storage", None),
    Obstacle.NO_PRICE: (f"no price for {VOLUME_SKU}", f"have its operator price {VOLUME_SKU}"),
    Obstacle.SNAPSHOT: ("no snapshot is made of a volume", "leave keep_snapshot out"),
}


def reason(judgement: Judgement, clause: Clause) -> Reason:
    """What one clause wanted of an offer, what there is, and what to change."""
    if clause in QUOTA:
        return _quota_reason(judgement.case, clause)
    if clause in (Clause.PRICE, Clause.MAX_PRICE):
        return _price_reason(judgement, clause)
    wanted, offered, hint = _WORDS[clause](judgement.case)
    return Reason(clause.value, wanted, offered, hint)


def reasons(judgements: Iterable[Judgement]) -> tuple[Reason, ...]:
    """A site's reasons, nearest miss first.

    An offer that fails all that a nearer one fails, and more, adds nothing and is left out.
    """
    told: dict[Clause, Reason] = {}
    kept: list[frozenset[Clause]] = []
    for judgement in sorted(judgements, key=lambda one: one.distance):
        failed = frozenset(judgement.misses)
        if any(nearer <= failed for nearer in kept):
            continue
        kept.append(failed)
        for clause in judgement.misses:
            told.setdefault(clause, reason(judgement, clause))
        if len(kept) == _NEAREST:
            break
    return tuple(told.values())


def verdict(
    site: CatalogueSite, judgements: Sequence[Judgement], ranks: Mapping[UUID, int], best: Candidate | None
) -> SiteVerdict:
    """What became of a site. `ranks` numbers the surviving offers from 1; `best` is the first of them."""
    fitting = [(ranks[one.case.offer.offer_id], one) for one in judgements if one.fits]
    if fitting:
        rank, first = min(fitting, key=lambda pair: pair[0])
        summary = _ranked(rank, first, best) + (f"; {site.caution}" if site.caution is not None else "")
        return SiteVerdict(site.site_id, site.name, rank, summary, len(judgements), ())
    found = reasons(judgements) if judgements else (_no_offers(site),)
    summary = "nothing fits: " + "; ".join(str(one) for one in found)
    return SiteVerdict(site.site_id, site.name, None, summary, len(judgements), found)


def _ranked(rank: int, judgement: Judgement, best: Candidate | None) -> str:
    """`2nd by price` in words that can be checked: the offer, its total, and what it costs more than the first."""
    mine = judgement.priced
    if mine is None:
        raise ValueError("an offer that fits has a price")
    workload = judgement.case.workload
    time = show_duration(workload.duration)
    if workload.keep_snapshot is not None:
        time += f" and a snapshot for {show_duration(workload.keep_snapshot)}"
    said = f"rank {rank}: {mine.offer.name}, {mine.total} for {time}"
    if best is None or rank == 1:
        return said
    if best.total.commodity != mine.total.commodity:
        return f"{said}; not compared with {best.total.commodity}, no exchange rate is known"
    more = mine.total - best.total
    if not more.value:
        return f"{said}, as much as {best.offer.name} at {best.site.name}"
    shown = str(more) if more.rounded().value else f"{plain(more.stored().value)} {more.commodity}"
    return f"{said}, {shown} more than {best.offer.name} at {best.site.name}"


def _no_offers(site: CatalogueSite) -> Reason:
    if site.trouble is not None:
        return Reason("site", "a site that starts machines", site.trouble, "Ask the site's operator.")
    return Reason("offers", "an instance type", "none", "Refresh the site's catalogue, or ask its operator.")


def _quota_reason(case: Case, clause: Clause) -> Reason:
    each = needs(case)[clause]
    free = max(case.site.free.get(QUOTA[clause]) or Decimal(0), Decimal(0))
    noun = _QUOTA_WORDS[clause]
    room = int(free // each)
    if room:
        hint = f"Ask for {counted(room, 'machine')}, or stop something at {case.site.name}."
    else:
        hint = f"Stop something at {case.site.name}, or ask its operator for more quota."
    return Reason(
        clause.value,
        f"{_amount(each * case.workload.count, clause)} {noun} of quota",
        f"{_amount(free, clause)} free ({case.offer.name})",
        hint,
    )


def _amount(amount: Decimal, clause: Clause) -> str:
    return show_memory(amount * _MIB[clause]) if clause in _MIB else plain(amount)


def _price_reason(judgement: Judgement, clause: Clause) -> Reason:
    if judgement.priced is not None and judgement.case.workload.max_price is not None:
        total, limit = judgement.priced.total, judgement.case.workload.max_price
        offered = f"{total} ({judgement.case.offer.name})"
        return Reason(
            clause.value, f"at most {limit}", offered, "Raise max_price, or ask for less or for a shorter time."
        )
    why = judgement.why
    if why is None:
        raise ValueError(f"{clause} failed without saying why")
    return Reason(clause.value, "a known price", why.detail, why.hint or "Ask the site's operator.")


def _excluded(wanted: tuple[str, ...], offered: str | None, key: str) -> tuple[str, str, str]:
    """Words for a site that the workload's own list leaves out."""
    if offered is None:
        return " or ".join(wanted), "not stated by the site", f"Ask its operator, or leave requirements.{key} out."
    return " or ".join(wanted), offered, f"Add {offered} to requirements.{key}."


def _sized(noun: str, wanted: int, offered: int, name: str) -> tuple[str, str, str]:
    if not offered:
        return str(wanted), f"none ({name})", f"Ask for no {noun}s, or look elsewhere."
    return str(wanted), f"{offered} ({name})", f"Ask for {counted(offered, noun)}."


def _image(case: Case) -> tuple[str, str, str]:
    there = sorted(case.site.images)
    shown = ", ".join(there[:8]) + (f" and {len(there) - 8} more" if len(there) > 8 else "")
    return case.workload.image, shown or "no images", "Choose an image that the site has."


def _image_memory(case: Case) -> tuple[str, str, str]:
    _, _, wanted = case.site.images[case.workload.image]
    return (
        f"{show_memory(wanted)} for image {case.workload.image}",
        f"{show_memory(case.offer.memory_mib)} ({case.offer.name})",
        f"Ask for resources.memory of {show_memory(wanted)}, or choose a smaller image.",
    )


def _image_disk(case: Case) -> tuple[str, str, str]:
    wanted = image_disk(case.workload, case.site)
    less = f"ask for resources.disk of {wanted} GiB, or choose a smaller image"
    return f"{wanted} GiB for image {case.workload.image}", *_small_disk(case, less)


def _disk(case: Case) -> tuple[str, str, str]:
    offered = case.offer.disk_gib
    return f"{wanted_disk(case.workload)} GiB", *_small_disk(case, f"ask for {offered} GiB" if offered else None)


def _small_disk(case: Case, less: str | None) -> tuple[str, str]:
    """Words for a root disk that is too small, and why no volume takes its place. `less`: a way out without one."""
    found = obstacle(case.workload, case.site)
    if found is None:
        raise ValueError("a disk that is too small failed, though a volume could take its place")
    why, other = _INSTEAD[found]
    there = f"{case.offer.disk_gib} GiB" if case.offer.disk_gib else "none"
    hints = [hint for hint in (less, other) if hint is not None] or ["look elsewhere: it starts only from a volume"]
    told = ", or ".join(hints)
    return f"{there} ({case.offer.name}), and {why}", f"{told[0].upper()}{told[1:]}."


def _stated(wanted: str | None, offered: str | None, case: Case, key: str) -> tuple[str, str, str]:
    """Words for a property that a site may leave unsaid."""
    if offered is None:
        return str(wanted), f"not stated ({case.offer.name})", f"Leave resources.{key} out, or ask the site's operator."
    return str(wanted), f"{offered} ({case.offer.name})", f"Ask for {offered}."


def _exchange_rate(case: Case) -> tuple[str, str, str]:
    card, limit = case.site.card, case.workload.max_price
    currency = str(card.currency) if card else "no currency"
    if limit is not None and card and card.currency in case.payable:
        return f"a price in {limit.commodity}", currency, f"Write max_price in {currency}; no exchange rate is known."
    if not case.payable:
        return "a grant that pays", f"a price in {currency}", f"The project has no grant: add one in {currency}."
    paid = " or ".join(sorted(unit.code for unit in case.payable))
    return f"a price in {paid}", currency, f"A grant in {currency} is needed; no exchange rate is known."


_WORDS: Mapping[Clause, Callable[[Case], tuple[str, str, str]]] = {
    Clause.SITES: lambda case: _excluded(case.workload.sites, case.site.name, "sites"),
    Clause.PROVIDERS: lambda case: _excluded(case.workload.providers, case.site.provider, "providers"),
    Clause.JURISDICTIONS: lambda case: _excluded(case.workload.jurisdictions, case.site.jurisdiction, "jurisdictions"),
    Clause.SITE: lambda case: ("a site that starts machines", str(case.site.trouble), "Ask the site's operator."),
    Clause.IMAGE: _image,
    Clause.ARCH: lambda case: _stated(case.workload.arch, case.offer.arch, case, "arch"),
    Clause.GPUS: lambda case: _sized("GPU", case.workload.gpus, case.offer.gpus, case.offer.name),
    Clause.GPU_MODEL: lambda case: _stated(case.workload.gpu_model, case.offer.gpu_model, case, "gpu_model"),
    Clause.CORES: lambda case: _sized("core", case.workload.cores, case.offer.cores, case.offer.name),
    Clause.MEMORY: lambda case: (
        show_memory(case.workload.memory_mib),
        f"{show_memory(case.offer.memory_mib)} ({case.offer.name})",
        f"Ask for {show_memory(case.offer.memory_mib)}.",
    ),
    Clause.DISK: _disk,
    Clause.IMAGE_MEMORY: _image_memory,
    Clause.IMAGE_DISK: _image_disk,
    Clause.VOLUME: lambda case: (
        f"a volume of {case.workload.volume_gib} GiB",
        "no block storage",
        "Leave resources.volume out, or look elsewhere.",
    ),
    Clause.EXCHANGE_RATE: _exchange_rate,
}
