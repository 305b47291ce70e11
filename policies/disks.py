"""The disks of a machine at an offer: the root disk, which is the offer's own or a volume instead, and a second one."""

from __future__ import annotations

from enum import Enum, auto
from typing import Final

from broker.meters import sells_volumes
from broker.placement import CatalogueOffer, CatalogueSite, Volumes, Workload

# Of a root disk that is a volume: what an image needs that states no minimum.
LEAST_BOOT_GIB: Final = 10


class Obstacle(Enum):
    """Why no volume can take the place of a root disk that is too small."""

    NO_STORAGE = auto()
    NO_PRICE = auto()
    SNAPSHOT = auto()  # of a machine that boots from a volume no image is made


def volumes(workload: Workload, site: CatalogueSite, offer: CatalogueOffer) -> Volumes:
    """What each machine would have there.

    It boots from a volume where the offer's own disk is too small for the workload or the image, or there is none, and
    nothing stands in the way (`obstacle`).
    """
    wanted = max(wanted_disk(workload), image_disk(workload, site))
    if offer.disk_gib >= wanted or obstacle(workload, site) is not None:
        return Volumes(0, workload.volume_gib)
    return Volumes(max(wanted, LEAST_BOOT_GIB), workload.volume_gib)


def obstacle(workload: Workload, site: CatalogueSite) -> Obstacle | None:
    """What keeps the workload's machines from booting from a volume there; first what only the site can change."""
    if not has_block_storage(site):
        return Obstacle.NO_STORAGE
    if site.card is None or not sells_volumes(site.card):
        return Obstacle.NO_PRICE
    return Obstacle.SNAPSHOT if workload.keep_snapshot is not None else None


def has_block_storage(site: CatalogueSite) -> bool:
    """Whether volumes can be made there."""
    return "volume_gib" in site.free


def wanted_disk(workload: Workload) -> int:
    """GiB of root disk that the workload asks for, at least 1: nothing starts without one."""
    return max(workload.disk_gib, 1)


def image_disk(workload: Workload, site: CatalogueSite) -> int:
    """GiB of root disk that the workload's image needs at the site; 0 where it says nothing, or is not there."""
    image = site.images.get(workload.image)
    return 0 if image is None else image[1]
