"""The rows of a lease that no row knows any more, rebuilt from what its machine says of itself.

What is known, and from where: project, attempt and end from the tags; when the lease and each part were ordered from
their ids, which are UUIDv7; size and price from the machine's type, at today's rate card; when it began from the site.
What is lost stays lost, and the rows say so: the quote is marked `rebuilt` and has expired, the image is `unknown`, a
workload of three machines comes back as three of one, and an end that was extended is the former one again. That a
snapshot was to be kept is known only where one was taken: its tags say until when.

The second disk is known by its tags. A root disk that is a volume has none: the cloud made it with the machine, and it
is told by that, a volume in the machine that was made between its making and its first running. What a person put into
it at just that time is taken for it; and where the site names no times, a root disk that is a volume is lost, and not
charged, unless the machine's type has no disk of its own: then the machine is not taken back until it shows.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from decimal import ROUND_CEILING
from typing import Final
from uuid import UUID

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from broker import meters
from broker.catalogue import rate_card
from broker.errors import NotFound, PriceUnknown
from broker.lost import Find, moment_of
from broker.models.catalogue import CatalogueVersion, Offer, RateCardVersion
from broker.models.federation import Provider, Site
from broker.models.holds import QuotaHold, QuotaPool
from broker.models.leases import ENDING, Desired, LaunchAttempt, Lease, LeaseState, Outcome, Part, lease_state
from broker.models.people import Project
from broker.models.workloads import Order, OrderState, Quote, QuoteOffer, WorkloadRow
from broker.placement import Assumptions, Volumes, Workload
from broker.ports import CloudAdapter
from broker.pricing import RateCard
from broker.quota import VOLUME_GIB, needs
from broker.quotes import assumptions_document, line_document
from broker.remote import (
    Fence,
    MachineSpec,
    MachineState,
    PartKind,
    RemoteThing,
)
from broker.restored import LEAP
from broker.values import Period, new_id
from broker.workloads import MAX_DURATION, document, workload_digest

# Stands where a row wants the image, which no site tells of a machine.
UNKNOWN_IMAGE: Final = "unknown"

_OUR_ENDING: Final = re.compile(r"-?leeway-[0-9a-f]{32}\Z")
_WORKLOAD_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_SECOND: Final = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Ware:
    """What the machine is sold as: its offer, its volumes, and what runs for it by the rate card in force."""

    offer: Offer
    card: RateCard
    meters: tuple[meters.Meter, ...]
    volumes: Volumes


# --- what it is --------------------------------------------------------------------------------------------------


def ware_of(session: Session, find: Find, *, now: datetime) -> Ware:
    """The newest offer of the machine's type, and what it costs now."""
    kind = find.machine.instance_type
    offer = session.scalars(
        select(Offer)
        .join(CatalogueVersion, CatalogueVersion.id == Offer.catalogue_version_id)
        .where(Offer.site_id == find.site_id, Offer.remote_id == kind)
        .order_by(CatalogueVersion.made_at.desc())
        .limit(1)
    ).first()
    if offer is None:
        raise NotFound(
            f"the site sells no machine type {kind!r}",
            hint="Once the site lists the type, the next listing takes it back.",
        )
    version = session.scalars(
        select(RateCardVersion)
        .join(Site, Site.provider_id == RateCardVersion.provider_id)
        .where(
            Site.id == find.site_id,
            RateCardVersion.valid_from <= now,
            or_(RateCardVersion.valid_to.is_(None), RateCardVersion.valid_to > now),
        )
    ).one_or_none()
    if version is None:
        provider = session.scalars(
            select(Provider.name).join(Site, Site.provider_id == Provider.id).where(Site.id == find.site_id)
        ).one()
        raise PriceUnknown(
            f"provider {provider} has no rate card in force",
            hint="Import one (`leeway rate-card import`), and the next listing takes it back.",
        )
    _require_volumes(session, find)
    volumes = Volumes(_boot_gib(find, offer), _second_gib(find))
    card = rate_card(session, version.id, (offer.name, meters.ADDRESS_SKU, meters.VOLUME_SKU))
    used = meters.running(card, offer.name, count=1, has_address=find.has_address, volumes=volumes)
    return Ware(offer, card, used, volumes)


def _require_volumes(session: Session, find: Find) -> None:
    """Raises where the site has block storage and the listing could not read it.

    A second disk that came to light after its machine was taken back without it would pass for a leftover.
    """
    pool = select(QuotaPool.id).where(QuotaPool.site_id == find.site_id, QuotaPool.resource == VOLUME_GIB)
    if find.unread is not None and session.scalars(pool).first() is not None:
        raise PriceUnknown(
            f"which volumes {find.machine.name} has is not known, nor what it costs: {find.unread}",
            hint="The next listing that can read them takes it back.",
            sku=meters.VOLUME_SKU,
        )


def _boot_gib(find: Find, offer: Offer) -> int:
    """Of what it boots from, where that is a volume: the first that was made with it."""
    found = min(find.boot_disks, key=lambda disk: (disk.created_at, disk.remote_id), default=None)
    if found is None and offer.disk_gib:
        return 0
    return _whole_gib(find, found, "the volume that it boots from")


def _second_gib(find: Find) -> int:
    """Of its second disk; 0: it has none."""
    parts = [thing.remote_id for thing in find.things if thing.kind is PartKind.VOLUME]
    if not parts:
        return 0
    there = next((disk for disk in find.disks if disk.remote_id in parts), None)
    return _whole_gib(find, there, "its second disk")


def _whole_gib(find: Find, disk: RemoteThing | None, what: str) -> int:
    if disk is None or disk.size_gib is None:
        raise PriceUnknown(
            f"the site does not say how large {what} is, so what {find.machine.name} costs is not known",
            hint="The next listing that shows it takes the machine back.",
            sku=meters.VOLUME_SKU,
        )
    return int(disk.size_gib.to_integral_value(ROUND_CEILING))


def _name(find: Find) -> str:
    """The person's own, as far as the machine's name has it."""
    name = _OUR_ENDING.sub("", find.machine.name)
    return name if _WORKLOAD_NAME.fullmatch(name) else f"taken-back-{find.tags.lease.hex[-12:]}"


# --- its rows ----------------------------------------------------------------------------------------------------


def add_order(session: Session, find: Find, ware: Ware, *, project: Project, assumed: Assumptions) -> Order:
    """Workload, quote and order. The quote has expired: nothing can be ordered from it."""
    workload = _workload(find, ware)
    row = WorkloadRow(
        project_id=project.id,
        name=workload.name,
        document=document(workload),
        digest=workload_digest(workload),
        made_at=find.ordered_at,
    )
    session.add(row)
    session.flush()
    quote = _quote(session, find, ware, workload_id=row.id, assumed=assumed)
    order = Order(
        workload_id=row.id,
        quote_id=quote.id,
        quote_offer_id=quote.offers[0].id,
        project_id=project.id,
        state=_state(find),
        members=1,
        duration=find.duration,
        placed_at=find.ordered_at,
        reason="it was going when the rows were lost" if find.desired is Desired.GONE else None,
    )
    session.add(order)
    session.flush()
    return order


def _workload(find: Find, ware: Ware) -> Workload:
    """What its machine shows of it."""
    whole = -(-find.duration // _SECOND) * _SECOND  # a document has whole seconds
    return Workload(
        name=_name(find),
        project=find.tags.project,
        image=UNKNOWN_IMAGE,
        cores=ware.offer.cores,
        memory_mib=ware.offer.memory_mib,
        duration=min(whole, MAX_DURATION),
        volume_gib=ware.volumes.second_gib,
        public_address=find.has_address,
        keep_snapshot=find.keep,
    )


def _state(find: Find) -> OrderState:
    if find.desired is Desired.GONE:
        return OrderState.STOPPING
    return OrderState.PLACED if find.machine.state is MachineState.BUILDING else OrderState.ACTIVE


def _quote(session: Session, find: Find, ware: Ware, *, workload_id: UUID, assumed: Assumptions) -> Quote:
    """What it costs from its order to its end by today's card; marked, as nobody was ever shown it."""
    site = session.get_one(Site, find.site_id)
    card = ware.card
    period = Period(find.ordered_at, find.ordered_at + find.duration)
    held = Period(find.ordered_at, find.ordered_at + assumed.held_for(find.duration))
    picked = QuoteOffer(
        rank=1,
        site_id=site.id,
        offer_id=ware.offer.id,
        rate_card_version_id=card.version_id,
        image_remote_id=UNKNOWN_IMAGE,
        boot_volume_gib=ware.volumes.boot_gib,
        commodity=card.currency.code,
        total=meters.cost(ware.meters, card, period).stored().value,
        hold=meters.cost(ware.meters, card, held).stored().value,
        hourly=meters.hourly(ware.meters, card).stored().value,
        lines=[line_document(line) for line in meters.cost_lines(ware.meters, card, period)],
    )
    verdict = {
        "site_id": str(site.id),
        "site": site.name,
        "rank": 1,
        "summary": "rebuilt from the machine's tags after a restore; what was quoted and ordered is lost",
        "offers": 1,
        "reasons": [],
    }
    quote = Quote(
        workload_id=workload_id,
        made_at=find.seen_at,
        expires_at=find.seen_at,
        catalogue_digest="",
        facts_digest="",
        assumptions=assumptions_document(assumed) | {"rebuilt": True},
        verdicts=[verdict],
        eliminated={},
        relaxations=[],
        offers=[picked],
    )
    session.add(quote)
    session.flush()
    return quote


def add_lease(session: Session, find: Find, ware: Ware, *, order: Order, assumed: Assumptions) -> Lease:
    """Its generation is one that no worker of the time before can have."""
    spec = MachineSpec(
        name=_name(find),
        instance_type=ware.offer.remote_id,
        image=UNKNOWN_IMAGE,
        public_address=find.has_address,
        boot_volume_gib=ware.volumes.boot_gib,
        volume_gib=ware.volumes.second_gib,
    )
    lease = Lease(
        id=find.tags.lease,
        order_id=order.id,
        member=1,
        site_id=find.site_id,
        quote_offer_id=order.quote_offer_id,
        project=find.tags.project,
        spec=asdict(spec),
        desired=find.desired,
        state=LeaseState.PENDING if find.desired is not Desired.GONE else lease_state(find.machine.state),
        made_at=find.ordered_at,
        ends_at=find.tags.until,
        grace=assumed.stop_delay,
        keep=find.keep,
        snapshot_time=None if find.keep is None else assumed.snapshot_time,
        lapsed_at=find.saved_at if find.desired is Desired.SNAPSHOT else None,
        stop_reason=order.reason,
        scope=find.scope,
        must_find=True,
        generation=LEAP,
        next_look_at=func.clock_timestamp(),
    )
    session.add(lease)
    session.flush()
    return lease


def add_parts(session: Session, adapter: CloudAdapter, find: Find, lease: Lease) -> None:
    """One of each kind, with the attempt that its tags name; a second one the next listing finds to be a leftover."""
    has_key = any(thing.kind is PartKind.KEY_PAIR for thing in find.things)
    machine = MachineSpec(**lease.spec | {"ssh_key": "lost"}) if has_key else MachineSpec(**lease.spec)
    plan = {spec.kind: spec for spec in adapter.plan(machine)}
    chosen = {thing.kind: thing for thing in reversed(find.things)} | {PartKind.SERVER: find.machine}
    if find.snapshot is not None:
        chosen[PartKind.SNAPSHOT] = find.snapshot
    for position, kind in enumerate(kind for kind in PartKind if kind in chosen):
        thing, spec = chosen[kind], plan.get(kind)
        assert thing.tags is not None, "it was grouped by them"
        made_at = min(moment_of(thing.tags.attempt) or find.ordered_at, find.seen_at)
        part = Part(
            lease_id=lease.id,
            kind=kind,
            position=position,
            fence=Fence.NONE if spec is None else spec.fence,
            is_harmless=kind is not PartKind.SERVER if spec is None else spec.is_harmless,
            remote_id=thing.remote_id,
            made_at=made_at,
        )
        session.add(part)
        session.flush()
        is_free = session.get(LaunchAttempt, thing.tags.attempt) is None
        session.add(
            LaunchAttempt(
                id=thing.tags.attempt if is_free else new_id(),
                lease_id=lease.id,
                part_id=part.id,
                number=1,
                fence=part.fence,
                started_at=made_at,
                give_up_at=made_at,
                remote_id=thing.remote_id,
                outcome=Outcome.CREATED,
                resolved_at=find.seen_at,
            )
        )
    session.flush()


def add_quota(session: Session, find: Find, ware: Ware) -> None:
    """The site counts it already, so nothing need be free."""
    wanted = needs(ware.offer, _workload(find, ware), boot_volume_gib=ware.volumes.boot_gib)
    pools = session.scalars(
        select(QuotaPool)
        .where(QuotaPool.site_id == find.site_id, QuotaPool.resource.in_(list(wanted)))
        .order_by(QuotaPool.id)
    )
    session.add_all(
        QuotaHold(pool_id=pool.id, lease_id=find.tags.lease, amount=wanted[pool.resource], counted_at=find.seen_at)
        for pool in pools
    )


def set_times(find: Find, order: Order, lease: Lease, *, now: datetime) -> None:
    """When it began and ends; after `see`. A machine that is off has run too; what is over is stopped from now on."""
    launched_at = find.machine.launched_at
    if lease.started_at is None and launched_at is not None:
        lease.started_at = min(max(launched_at, lease.made_at), find.seen_at)
        lease.ends_at = lease.started_at + order.duration
    if lease.ends_at < now and lease.desired not in ENDING:
        order.duration += now - lease.ends_at
        lease.ends_at = now
