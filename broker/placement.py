"""What placement works on and answers with: frozen values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any, Final, Self
from uuid import UUID

from broker.pricing import RateCard
from broker.values import Amount, Commodity, Quantity


@dataclass(frozen=True, slots=True)
class Workload:
    """A validated workload document of kind `machine`. Sizes are minima; empty tuples mean "any".

    `volume_gib` is a second disk, of exactly that size; 0: none.
    """

    name: str
    project: str
    image: str
    cores: int
    memory_mib: int
    duration: timedelta
    count: int = 1
    disk_gib: int = 0
    volume_gib: int = 0
    gpus: int = 0
    gpu_model: str | None = None
    arch: str | None = None
    public_address: bool = False
    ssh_key: str | None = None
    user_data: str | None = None
    sites: tuple[str, ...] = ()
    providers: tuple[str, ...] = ()
    jurisdictions: tuple[str, ...] = ()
    max_price: Amount | None = None
    keep_snapshot: timedelta | None = None


@dataclass(frozen=True, slots=True)
class Volumes:
    """The volumes of one machine, in whole GiB: in the place of its root disk, and its second disk. 0: it has none."""

    boot_gib: int = 0
    second_gib: int = 0

    @classmethod
    def of(cls, spec: Mapping[str, Any]) -> Self:
        """As a lease's stored spec has them. What is no machine, or older than volumes, has none."""
        return cls(spec.get("boot_volume_gib", 0), spec.get("volume_gib", 0))

    @property
    def number(self) -> int:
        """How many there are."""
        return bool(self.boot_gib) + bool(self.second_gib)

    @property
    def total_gib(self) -> int:
        """All of them together."""
        return self.boot_gib + self.second_gib


NO_VOLUMES: Final = Volumes()


@dataclass(frozen=True, slots=True)
class CatalogueSite:
    """A site as placement sees it. `free` maps a quota resource to what is left, None for unlimited.

    It has block storage where it reports a quota of it (`volume_gib`), however small.
    `images` maps every name a workload may use to (remote id, minimum disk GiB, minimum memory MiB). `card` None means
    that no price is known. `trouble` says why nothing can be started there now, None where it can; `caution` what
    to know before.
    """

    site_id: UUID
    name: str
    provider: str
    jurisdiction: str | None
    region: str | None
    images: Mapping[str, tuple[str, int, int]]
    free: Mapping[str, Decimal | None]
    card: RateCard | None
    trouble: str | None = None
    caution: str | None = None


@dataclass(frozen=True, slots=True)
class CatalogueOffer:
    """One instance type at one site."""

    offer_id: UUID
    site_id: UUID
    remote_id: str
    name: str
    cores: int
    memory_mib: int
    disk_gib: int
    gpus: int
    gpu_model: str | None
    arch: str | None


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Everything that can be bought, at one moment. Equal digests mean equal contents."""

    sites: tuple[CatalogueSite, ...]
    offers: tuple[CatalogueOffer, ...]
    digest: str


@dataclass(frozen=True, slots=True)
class PlacementFacts:
    """What accounting knows about the project: what it pays in, and what is free, per commodity."""

    project: str
    free: Mapping[Commodity, Amount]
    digest: str


@dataclass(frozen=True, slots=True)
class Assumptions:
    """Settings that a price rests on; shown in every quote.

    Attributes:
        stop_delay: all delays of the stop ladder. After its end a machine is powered off and kept for so long, then
            deleted. Held at the running price, though it is off: a site may be unable to power off, and then it runs.
        settle_time: as in the launch contract, added to the hold.
        snapshot_time: so long a site may take for the snapshot of a disk; added where the workload keeps one.
        hold_window: a longer workload is paid for by a hold of this length, which is extended as time goes by.
    """

    stop_delay: timedelta = timedelta(minutes=15)
    settle_time: timedelta = timedelta(minutes=2)
    hold_window: timedelta = timedelta(days=7)
    snapshot_time: timedelta = timedelta(hours=2)

    @property
    def margin(self) -> timedelta:
        """What a hold covers beyond the time that a machine may run."""
        return self.stop_delay + self.settle_time

    def held_for(self, duration: timedelta) -> timedelta:
        """The time that the first hold of a workload of this duration covers."""
        return min(duration, self.hold_window) + self.margin


@dataclass(frozen=True, slots=True)
class CostLine:
    """One component of a total, with the quantity and unit price it was made of."""

    component: str
    quantity: Quantity
    unit_price: Decimal
    amount: Amount


@dataclass(frozen=True, slots=True)
class Reason:
    """Why an offer or a whole site was not chosen: the clause, what was wanted, what there is, what to change."""

    clause: str
    wanted: str
    offered: str
    hint: str

    def __str__(self) -> str:
        """`cores: wanted 16, offered at most 8`."""
        return f"{self.clause}: wanted {self.wanted}, offered {self.offered}"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A surviving offer, priced for the whole workload (all members).

    `hold` is what must be free: more than `total`, as it covers the stop ladder too, save where a workload is longer
    than the window of one hold. `boot_volume_gib` is the size of each machine's root disk where that is a volume; 0: it
    is the offer's own.
    """

    offer: CatalogueOffer
    site: CatalogueSite
    total: Amount
    hold: Amount
    hourly: Amount
    lines: tuple[CostLine, ...]
    boot_volume_gib: int = 0


@dataclass(frozen=True, slots=True)
class SiteVerdict:
    """What became of one site: its best rank (from 1), or the reasons that emptied it, nearest miss first."""

    site_id: UUID
    site: str
    rank: int | None
    summary: str
    offers: int
    reasons: tuple[Reason, ...]


@dataclass(frozen=True, slots=True)
class Ranking:
    """Candidates, cheapest first; one verdict per site; offers eliminated per clause; nearest relaxations."""

    candidates: tuple[Candidate, ...]
    verdicts: tuple[SiteVerdict, ...]
    eliminated: Mapping[str, int]
    relaxations: tuple[str, ...]
