"""Quota of sites: what is left, and taking it under lock, so that exactly as many of our orders win as fit.

Others use the same quota at the site, so a site may still refuse what was free here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from uuid import UUID

from sqlalchemy import func, select, true
from sqlalchemy.orm import Session

from broker.errors import Conflict, QuotaExhausted
from broker.models.catalogue import Offer
from broker.models.federation import Site
from broker.models.holds import QuotaHold, QuotaPool
from broker.models.leases import Lease
from broker.models.workloads import QuoteOffer
from broker.placement import Volumes, Workload
from broker.values import plain

MEMORY, CORES, INSTANCES, ADDRESSES = "memory_mib", "cores", "instances", "floating_ips"
VOLUMES, VOLUME_GIB = "volumes", "volume_gib"


def needs(offer: Offer, workload: Workload, *, boot_volume_gib: int) -> Mapping[str, Decimal]:
    """What one machine takes from the site's quota, per resource."""
    wanted = {INSTANCES: Decimal(1), CORES: Decimal(offer.cores), MEMORY: Decimal(offer.memory_mib)}
    if workload.public_address:
        wanted[ADDRESSES] = Decimal(1)
    volumes = Volumes(boot_volume_gib, workload.volume_gib)
    if volumes.number:
        wanted |= {VOLUMES: Decimal(volumes.number), VOLUME_GIB: Decimal(volumes.total_gib)}
    return wanted


def free_quota(
    session: Session, pools: Iterable[QuotaPool], *, without: Lease | None = None
) -> dict[UUID, Decimal | None]:
    """What is left in each pool: quota - used(listing L) - holds whose machine is not in L. None is unlimited.

    The holds of the lease `without` do not count.
    """
    pools = list(pools)
    others = QuotaHold.lease_id != without.id if without is not None else true()
    held = dict(
        session.execute(
            select(QuotaHold.pool_id, func.sum(QuotaHold.amount))
            .where(
                QuotaHold.pool_id.in_([pool.id for pool in pools]),
                QuotaHold.released_at.is_(None),
                QuotaHold.counted_at.is_(None),
                others,
            )
            .group_by(QuotaHold.pool_id)
        ).all()
    )
    return {
        pool.id: None if pool.quota is None else pool.quota - pool.used - held.get(pool.id, Decimal(0))
        for pool in pools
    }


def hold_quota(session: Session, shares: Mapping[UUID, Decimal], lease: Lease) -> None:
    """Write down what one lease takes of each pool."""
    session.add_all(QuotaHold(pool_id=pool_id, lease_id=lease.id, amount=amount) for pool_id, amount in shares.items())


def take_quota(
    session: Session, picked: QuoteOffer, workload: Workload, *, members: int, instead_of: Lease | None = None
) -> Mapping[UUID, Decimal]:
    """Lock the site's pools in the order of their ids and see that all members fit; returns one lease's shares.

    `instead_of` is a lease that gives back what it holds in the same transaction.
    """
    offer = session.get_one(Offer, picked.offer_id)
    site = session.get_one(Site, picked.site_id)
    if site.observe_only or not site.is_enabled:
        raise Conflict(f"site {site.name} takes no orders now", hint="Choose another offer of the quote.")
    wanted = needs(offer, workload, boot_volume_gib=picked.boot_volume_gib)
    pools = list(
        session.scalars(
            select(QuotaPool)
            .where(QuotaPool.site_id == site.id, QuotaPool.resource.in_(list(wanted)))
            .order_by(QuotaPool.id)
            .with_for_update(key_share=True)
            .execution_options(populate_existing=True)
        )
    )
    free = free_quota(session, pools, without=instead_of)
    for pool in pools:
        left, need = free[pool.id], wanted[pool.resource] * members
        if left is not None and need > left:
            raise QuotaExhausted(
                f"{site.name} has {plain(max(left, Decimal(0)))} {pool.resource} left, the order needs {plain(need)}",
                hint="Ask for less, choose another offer, or wait until machines end.",
                site=site.name,
                resource=pool.resource,
            )
    return {pool.id: wanted[pool.resource] for pool in pools}
