"""What was there before Leeway knew of it is adopted into a project: from then on it is metered and charged.

Each thing becomes an order of its own with one lease and one part, made in the transaction that sets its money aside,
and charged from then on as the last listing showed it; the listings that follow see it like all that Leeway made
(`broker.adopted`). But Leeway did not make it, so Leeway never changes it: at its end a person is told, `leeway stop`
only ends the charging, and that holds at a brokered site as it does at one that is only observed (ADR 0029).

The price is today's rate card, the size what the site says. What has no known price is not adopted: a charge that
nobody can reckon helps nobody.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from broker import meters
from broker.documents import digest
from broker.errors import InvalidInput, NotFound, PriceUnknown
from broker.extensions import Funding
from broker.models.catalogue import CatalogueVersion, Offer
from broker.models.federation import Site
from broker.models.inventory import Thing
from broker.models.leases import Desired, Lease, LeaseState, Observation, Part, lease_state
from broker.models.people import Project
from broker.models.workloads import Order, OrderState, Quote, QuoteOffer, WorkloadRow
from broker.payers import Payers, payers, what_is
from broker.placement import Assumptions
from broker.quotes import assumptions_document, line_document
from broker.reckoning import Present, Rates, Run
from broker.remote import Fence, MachineSpec, MachineState, PartKind, ThingKind
from broker.restored import refuse_while_observing
from broker.sites import site_named
from broker.timeline import tell_order
from broker.turns import list_soon
from broker.values import Amount, Period, new_id, plain, utc
from broker.workloads import MAX_DURATION

# Of one request: each is priced, held and written in one transaction.
MOST: Final = 500
# Stands where a row wants the image, which no site tells of a machine.
_UNKNOWN_IMAGE: Final = "unknown"
_WORDS: Final = re.compile(r"[^a-z0-9]+")
_LONGEST_NAME: Final = 63
_POWER: Final = {MachineState.STOPPED: Desired.STOPPED, MachineState.SHELVED: Desired.SHELVED}


@dataclass(frozen=True, slots=True)
class Wish:
    """Which things of a site, by the ids of their rows, are to be paid by which project, and until when.

    `until` None: as long as an order may last, which is `MAX_DURATION`.
    """

    site: str
    project: str
    things: Sequence[UUID]
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class _Frame:
    """What all things of one wish have in common."""

    session: Session
    site: Site
    project: Project
    funding: Funding
    assumed: Assumptions
    rates: Rates
    actor: str
    now: datetime
    until: datetime
    payers: Payers
    offers: dict[str, Offer] = field(default_factory=dict)


def adopt(
    session: Session, wish: Wish, funding: Funding, *, assumed: Assumptions, actor: str, now: datetime
) -> list[Order]:
    """Adopt all that is wished, or nothing; what the project has adopted already is fine. Orders as in the wish.

    Raises:
        NotFound: no such site, project or thing.
        InvalidInput: too many things, none, or an end that is over or too late.
        Conflict: a thing is Leeway's already (any Leeway's), is paid for with another one, is being deleted, or Leeway
            only observes.
        PriceUnknown: the site's rate card does not price a thing.
        GrantExhausted, RateMissing: the money cannot be set aside.
    """
    refuse_while_observing(session)
    ids = list(dict.fromkeys(wish.things))
    if not 1 <= len(ids) <= MOST:
        hint = f"Give 1 to {MOST} things at a time, as `leeway inventory SITE --kind ...` lists them."
        raise InvalidInput("things", f"{len(ids)} things are wished", hint=hint)
    until = now + MAX_DURATION if wish.until is None else utc(wish.until, field="until")
    if not now < until <= now + MAX_DURATION:
        reason = f"{_moment(until)} is not within the next {MAX_DURATION.days} days"
        raise InvalidInput("until", reason, hint="Say when somebody is to look at them again; it can be moved later.")
    project = session.scalars(select(Project).where(Project.name == wish.project)).one_or_none()
    if project is None:
        raise NotFound(f"there is no project {wish.project!r}", hint="`leeway project list` shows those there are.")
    site = site_named(session, wish.site)
    # Before all other locks: one cloud may be two sites. Then the site's row, which listers hold shared while they
    # write of things: nothing of these changes meanwhile.
    session.execute(select(func.pg_advisory_xact_lock(func.hashtext(f"adopt:{site.provider_id}"))))
    session.refresh(site, with_for_update={"key_share": True})
    found = {
        thing.id: thing
        for thing in session.scalars(
            select(Thing)
            .where(Thing.id.in_(ids), Thing.site_id == site.id, Thing.gone_at.is_(None))
            .execution_options(populate_existing=True)
        )
    }
    for thing_id in ids:
        if thing_id not in found:
            hint = f"`leeway inventory {site.name}` shows what was there at the last listing."
            raise NotFound(f"there is no thing {thing_id} at {site.name}", hint=hint)
    frame = _Frame(
        session=session,
        site=site,
        project=project,
        funding=funding,
        assumed=assumed,
        rates=Rates(session, now),
        actor=actor,
        now=now,
        until=until,
        payers=payers(session, site, found.values(), now=now),
    )
    orders: dict[UUID, Order] = {}
    drafts: list[_Draft] = []
    for thing in (found[thing_id] for thing_id in ids):
        before = frame.payers.refuse_or_find(thing, project)
        if before is None:
            drafts.append(_draft(frame, thing))
            before = drafts[-1].order
        orders[thing.id] = before
    _write(session, drafts)
    if drafts:  # what was a finding is somebody's now: a complete listing tells, soon
        list_soon(session, Site.id == site.id, now=now)
    _hold(frame, drafts)
    return [orders[thing_id] for thing_id in ids]


@dataclass(frozen=True, slots=True)
class _Draft:
    """The rows of one thing, not written yet; they know each other by their ids."""

    thing: Thing
    workload: WorkloadRow
    quote: Quote
    order: Order
    lease: Lease
    part: Part
    sighting: Observation

    @property
    def picked(self) -> QuoteOffer:
        """Its price."""
        return self.quote.offers[0]


def _draft(frame: _Frame, thing: Thing) -> _Draft:
    offer = _offer(frame, thing) if thing.kind is ThingKind.SERVER else None
    workload = _workload(frame, thing)
    quote = _quote(frame, thing, workload, offer)
    rolls = frame.until - frame.now > frame.funding.window
    order = Order(
        id=new_id(),
        workload_id=workload.id,
        quote_id=quote.id,
        quote_offer_id=quote.offers[0].id,
        project_id=frame.project.id,
        state=OrderState.ACTIVE,
        members=1,
        duration=frame.until - frame.now,
        placed_at=frame.now,
        held_until=frame.now + frame.funding.window if rolls else None,
    )
    lease = _lease(frame, thing, order, offer)
    part = Part(
        lease_id=lease.id,
        kind=PartKind(thing.kind.value),
        position=0,
        fence=Fence.NONE,
        is_harmless=thing.kind is not ThingKind.SERVER,
        remote_id=thing.remote_id,
        made_at=frame.now,
    )
    sighting = Observation(
        lease_id=lease.id,
        seen_at=frame.now,
        state=lease.state,
        raw_status=thing.raw_status,
        instance_type=thing.instance_type,
        size_gib=thing.size_gib,
    )
    return _Draft(thing, workload, quote, order, lease, part, sighting)


def _write(session: Session, drafts: Sequence[_Draft]) -> None:
    """All rows of a kind at once: others wait for the site's row meanwhile, be they listers or who adopts, too."""
    for rows in (
        [draft.workload for draft in drafts],
        [draft.quote for draft in drafts],
        [draft.order for draft in drafts],
        [draft.lease for draft in drafts],
        [row for draft in drafts for row in (draft.part, draft.sighting)],
    ):
        session.add_all(rows)
        session.flush()
    for draft in drafts:
        draft.thing.lease_id = draft.lease.id
    session.flush()


def _hold(frame: _Frame, drafts: Sequence[_Draft]) -> None:
    """Last, as everybody wants the lock of the grants' balances."""
    held_until, holds = _held(frame).end, {}
    for draft in drafts:
        picked, thing = draft.picked, draft.thing
        hourly, hold = (Amount.of(value, picked.commodity) for value in (picked.hourly, picked.hold))
        text = f"adopted {what_is(thing)} at {frame.site.name}: {hourly} an hour until {_moment(frame.until)}"
        text += f"; {hold} set aside until {_moment(held_until)}"
        tell_order(frame.session, draft.order, "adopt", text, actor=frame.actor, remote_id=thing.remote_id)
        holds[draft.order.id] = [hold]
    frame.session.flush()
    frame.funding.ledger.hold_each(frame.session, holds, held_until, now=frame.now)


def _offer(frame: _Frame, thing: Thing) -> Offer:
    """The newest offer of a machine's type."""
    kind = thing.instance_type or ""
    if kind not in frame.offers:
        offer = frame.session.scalars(
            select(Offer)
            .join(CatalogueVersion, CatalogueVersion.id == Offer.catalogue_version_id)
            .where(Offer.site_id == frame.site.id, Offer.remote_id == kind)
            .order_by(CatalogueVersion.made_at.desc())
            .limit(1)
        ).first()
        if offer is None:
            raise PriceUnknown(
                f"{what_is(thing)}: {frame.site.name} sells no machine type {kind!r}, so its price is not known",
                hint="Once the site lists the type, and the rate card has it, it can be adopted.",
            )
        frame.offers[kind] = offer
    return frame.offers[kind]


def _held(frame: _Frame) -> Period:
    """What money is set aside for: the window or the whole time, and until its end is noticed."""
    end = min(frame.until, frame.now + frame.funding.window)
    return Period(frame.now, end + frame.assumed.settle_time)


def _workload(frame: _Frame, thing: Thing) -> WorkloadRow:
    name = _name(thing)
    document = _document(frame, thing, name)
    return WorkloadRow(
        id=new_id(),
        project_id=frame.project.id,
        name=name,
        document=document,
        digest=digest(document),
        made_at=frame.now,
    )


def _quote(frame: _Frame, thing: Thing, workload: WorkloadRow, offer: Offer | None) -> Quote:
    """What it costs until its end by today's card; it has expired, so that nothing can be ordered from it."""
    verdict = {
        "site_id": str(frame.site.id),
        "site": frame.site.name,
        "rank": 1,
        "summary": "adopted: it was there, and nothing was chosen",
        "offers": 1,
        "reasons": [],
    }
    return Quote(
        id=new_id(),
        workload_id=workload.id,
        made_at=frame.now,
        expires_at=frame.now,
        catalogue_digest="",
        facts_digest="",
        assumptions=assumptions_document(frame.assumed) | {"adopted": True},
        verdicts=[verdict],
        eliminated={},
        relaxations=[],
        offers=[_picked(frame, thing, offer)],
    )


def _picked(frame: _Frame, thing: Thing, offer: Offer | None) -> QuoteOffer:
    period = Period(frame.now, frame.until)
    use: Run | Present = Present(frame.site.id, PartKind(thing.kind.value), thing.size_gib, period)
    if offer is not None:
        use = Run(offer.id, has_address=False, period=period)
    try:
        card, used = frame.rates.meters_of(use)
        if thing.state not in (None, MachineState.UNKNOWN):
            card.share(thing.state.value)
    except PriceUnknown as unknown:
        raise PriceUnknown(f"{what_is(thing)} cannot be priced: {unknown.detail}", hint=unknown.hint) from None
    return QuoteOffer(
        id=new_id(),
        rank=1,
        site_id=frame.site.id,
        offer_id=None if offer is None else offer.id,
        rate_card_version_id=card.version_id,
        image_remote_id=_UNKNOWN_IMAGE,
        commodity=card.currency.code,
        total=meters.cost(used, card, period).stored().value,
        hold=meters.cost(used, card, _held(frame)).stored().value,
        hourly=meters.hourly(used, card).stored().value,
        lines=[line_document(line) for line in meters.cost_lines(used, card, period)],
    )


def _document(frame: _Frame, thing: Thing, name: str) -> dict[str, Any]:
    """What stands where a person's request does elsewhere."""
    said = {
        "kind": "adopted",
        "name": name,
        "project": frame.project.name,
        "site": frame.site.name,
        "thing": thing.kind.value,
        "remote_id": thing.remote_id,
        "owner": thing.owner,
        "size": None if thing.size_gib is None else f"{plain(thing.size_gib)} GiB",
    }
    return {key: value for key, value in said.items() if value is not None}


def _lease(frame: _Frame, thing: Thing, order: Order, offer: Offer | None) -> Lease:
    kind, name = PartKind(thing.kind.value), thing.name or thing.remote_id
    spec: dict[str, Any] = {"name": name, "kind": kind.value, "size_gib": None}
    if offer is not None:
        spec = asdict(MachineSpec(name=name, instance_type=offer.remote_id, image=_UNKNOWN_IMAGE))
    elif thing.size_gib is not None:
        spec["size_gib"] = plain(thing.size_gib)
    return Lease(
        id=new_id(),
        order_id=order.id,
        member=1,
        site_id=frame.site.id,
        quote_offer_id=order.quote_offer_id,
        project=frame.project.name,
        spec=spec,
        desired=_POWER.get(thing.state, Desired.RUNNING) if thing.state is not None else Desired.RUNNING,
        state=LeaseState.PRESENT if thing.state is None else lease_state(thing.state),
        made_at=frame.now,
        started_at=frame.now,
        ends_at=frame.until,
        grace=timedelta(0),
        seen_at=frame.now,
        adopted_at=frame.now,
        site_project=thing.project,
        next_look_at=frame.now,
    )


def _name(thing: Thing) -> str:
    """The workload's: as much of the thing's own as such a name allows."""
    words = _WORDS.sub("-", thing.name.lower()).strip("-")[:_LONGEST_NAME].strip("-")
    return words or f"{thing.kind.value.replace('_', '-')}-{_WORDS.sub('-', thing.remote_id.lower()).strip('-')[:40]}"


def _moment(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"
