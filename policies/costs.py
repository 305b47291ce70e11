"""What a workload costs on one offer: the priced components, and the hold that must cover them."""

from __future__ import annotations

from datetime import datetime

from broker.errors import PriceUnknown
from broker.meters import cost, cost_lines, held, hourly, kept, running
from broker.placement import Assumptions, Candidate, CatalogueOffer, CatalogueSite, Workload
from broker.values import Amount, Period
from policies.disks import volumes


def price(
    workload: Workload, site: CatalogueSite, offer: CatalogueOffer, assumptions: Assumptions, *, now: datetime
) -> Candidate:
    """All members of the workload on this offer, from `now` on; then their snapshots, where it keeps any.

    The hold covers the duration, or the first window of a longer one, and what stopping may take on top: all at the
    running price, because not every site can power a machine off. And the snapshots for all of their time.

    Raises:
        PriceUnknown: the site has no rate card, or the card lacks a SKU, a unit of time or the price of running; or
            a snapshot is to be kept of a disk whose size is not known.
    """
    card = site.card
    if card is None:
        raise PriceUnknown(
            f"site {site.name} has no rate card", hint="Its operator must import one first.", site=site.name
        )
    disks = volumes(workload, site, offer)
    meters = running(card, offer.name, count=workload.count, has_address=workload.public_address, volumes=disks)
    covered = held(workload, assumptions, now=now)
    end = now + workload.duration
    lines = list(cost_lines(meters, card, Period(now, end)))
    hold = cost(meters, card, covered.run)
    if workload.keep_snapshot is not None and covered.kept is not None:
        snapshots = (kept(card, offer.disk_gib, count=workload.count),)
        lines += cost_lines(snapshots, card, Period(end, end + workload.keep_snapshot))
        hold += cost(snapshots, card, covered.kept)
    return Candidate(
        offer=offer,
        site=site,
        total=Amount.total((line.amount for line in lines), card.currency),
        hold=hold,
        hourly=hourly(meters, card),
        lines=tuple(lines),
        boot_volume_gib=disks.boot_gib,
    )
