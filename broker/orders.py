"""Orders: placed from a stored quote, ended by a person or a date, moved to the next offer where a site gives none.

Money and quota are set aside in the transaction that places the order. Lock order everywhere: pools by id, grant
balances by id, order, lease.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from sqlalchemy import Select, exists, func, or_, select, update
from sqlalchemy.orm import Session, sessionmaker

from broker import meters
from broker.claims import Claim, set_fenced
from broker.database import database_now
from broker.errors import (
    Conflict,
    GrantExhausted,
    InvalidInput,
    NoOffer,
    NotFound,
    PriceUnknown,
    QuotaExhausted,
    QuoteExpired,
    RateMissing,
)
from broker.kept import no_machine_left
from broker.launching import close_stuck
from broker.models.catalogue import Offer
from broker.models.federation import Site
from broker.models.holds import QuotaHold
from broker.models.leases import ENDING, OPEN, Desired, LaunchAttempt, Lease, LeaseState, Outcome, Part
from broker.models.workloads import Order, OrderState, Quote, QuoteOffer, WorkloadRow
from broker.placement import Workload
from broker.ports import Jobs, Ledger
from broker.quota import hold_quota, take_quota
from broker.quotes import assumptions_of
from broker.reckoning import Rates, runs_elsewhere, runs_of, whole_hold
from broker.remote import MachineSpec
from broker.removing import NETWORK_FINDING
from broker.restored import refuse_while_observing
from broker.timeline import close_finding, tell, tell_order
from broker.tools import Tools
from broker.units import counted, show_memory
from broker.values import Amount
from broker.watching import FAILED_FINDING
from broker.workloads import parse

GOING_ON = (OrderState.PLACED, OrderState.ACTIVE)
# FOR NO KEY UPDATE: rows that point at an order (events, holds) may be added while another transaction changes it.
ROW = {"key_share": True}
# Task that wakes a worker for one lease.
RECONCILE = "reconcile"


@dataclass(frozen=True, slots=True)
class Choice:
    """What the person picked: a quote, one of its offers by rank, and a key that makes a repeated request harmless."""

    quote_id: UUID
    rank: int = 1
    idempotency_key: str | None = None


def place_order(session: Session, choice: Choice, *, ledger: Ledger, jobs: Jobs, actor: str, now: datetime) -> Order:
    """Place an order: money and quota are held, leases exist, a worker is woken; or nothing happened.

    Raises:
        NotFound: no such quote.
        NoOffer: the quote has no offer of this rank.
        QuoteExpired: its prices are too old to promise.
        QuotaExhausted, GrantExhausted: other orders were faster.
        Conflict: the idempotency key was used for another quote or offer, the site takes no orders now, or Leeway only
            observes.
    """
    quote = session.get(Quote, choice.quote_id)
    if quote is None:
        raise NotFound(f"there is no quote {choice.quote_id}", hint="Ask for a new quote.")
    row = session.get_one(WorkloadRow, quote.workload_id)
    before = _placed_before(session, row.project_id, choice)
    if before is not None:
        return before
    refuse_while_observing(session)
    if now >= quote.expires_at:
        raise QuoteExpired(f"the quote expired at {quote.expires_at:%Y-%m-%d %H:%M} UTC", hint="Ask for a new quote.")
    picked = session.scalars(
        select(QuoteOffer).where(QuoteOffer.quote_id == quote.id, QuoteOffer.rank == choice.rank)
    ).one_or_none()
    if picked is None:
        raise NoOffer(f"the quote has no offer {choice.rank}", hint="See `leeway explain` for what each site lacks.")
    workload = parse(row.document)
    order = Order(
        workload_id=row.id,
        quote_id=quote.id,
        quote_offer_id=picked.id,
        project_id=row.project_id,
        state=OrderState.PLACED,
        members=workload.count,
        duration=workload.duration,
        placed_at=now,
        idempotency_key=choice.idempotency_key,
    )
    assumed = assumptions_of(quote)
    if workload.duration > assumed.hold_window:
        order.held_until = now + assumed.hold_window
    session.add(order)
    session.flush()
    held = Amount.of(picked.hold, picked.commodity)
    site = session.get_one(Site, picked.site_id)
    tell_order(session, order, "order", f"ordered {_words(session, picked)} at {site.name}", actor=actor)
    until = meters.held(workload, assumed, now=now).until
    tell_order(session, order, "hold", f"{held} set aside until {until:%Y-%m-%d %H:%M} UTC")
    leases = []
    for member in range(1, workload.count + 1):
        leases.append(_new_lease(session, order, picked, workload, member=member, now=now))
        jobs.defer(session, RECONCILE, str(leases[-1].id))
    session.flush()
    # Last, as everybody wants these locks: pools first, then balances.
    shares = take_quota(session, picked, workload, members=workload.count)
    for lease in leases:
        hold_quota(session, shares, lease)
    ledger.hold(session, order.id, [held], until, now=now)
    return order


def _placed_before(session: Session, project_id: UUID, choice: Choice) -> Order | None:
    """The order that an earlier request with the same key placed."""
    if choice.idempotency_key is None:
        return None
    # Two requests with one key at once: the second waits for the first, then finds its order.
    session.execute(select(func.pg_advisory_xact_lock(func.hashtext(f"{project_id}:{choice.idempotency_key}"))))
    before = session.scalars(
        select(Order).where(Order.project_id == project_id, Order.idempotency_key == choice.idempotency_key)
    ).one_or_none()
    if before is None:
        return None
    picked = session.get_one(QuoteOffer, before.quote_offer_id)
    if (picked.quote_id, picked.rank) != (choice.quote_id, choice.rank):
        raise Conflict(
            f"the idempotency key {choice.idempotency_key!r} was used for another quote or offer",
            hint="Choose a new key.",
        )
    return before


def _words(session: Session, picked: QuoteOffer) -> str:
    offer = session.get_one(Offer, picked.offer_id)
    total = Amount.of(picked.total, picked.commodity)
    return f"{offer.name} ({counted(offer.cores, 'core')}, {show_memory(offer.memory_mib)}) for {total}"


def _new_lease(
    session: Session, order: Order, picked: QuoteOffer, workload: Workload, *, member: int, now: datetime
) -> Lease:
    offer = session.get_one(Offer, picked.offer_id)
    name = workload.name if workload.count == 1 else f"{workload.name}-{member}"
    spec = MachineSpec(
        name=name,
        instance_type=offer.remote_id,
        image=picked.image_remote_id,
        disk_gib=workload.disk_gib,
        boot_volume_gib=picked.boot_volume_gib,
        volume_gib=workload.volume_gib,
        public_address=workload.public_address,
        ssh_key=workload.ssh_key,
        user_data=workload.user_data,
    )
    assumed = assumptions_of(session.get_one(Quote, order.quote_id))
    lease = Lease(
        order_id=order.id,
        member=member,
        site_id=picked.site_id,
        quote_offer_id=picked.id,
        project=workload.project,
        spec=asdict(spec),
        desired=Desired.RUNNING,
        state=LeaseState.PENDING,
        made_at=now,
        ends_at=now + order.duration,
        grace=assumed.stop_delay,
        keep=workload.keep_snapshot,
        snapshot_time=assumed.snapshot_time if workload.keep_snapshot else None,
        next_look_at=func.clock_timestamp(),
    )
    session.add(lease)
    session.flush()
    return lease


# --- ending ------------------------------------------------------------------------------------------------------


def stop_order(session: Session, order_id: UUID, *, jobs: Jobs, actor: str, reason: str) -> Order:
    """End an order: every machine is deleted, part by part. Twice is fine."""
    order = session.get(Order, order_id, with_for_update=ROW, populate_existing=True)
    if order is None:
        raise NotFound(f"there is no order {order_id}")
    if order.state is OrderState.OVER:
        return order
    leases = list(session.scalars(live_leases(order.id)))
    if order.state is OrderState.RETURNED and not leases:
        # Nothing exists and nothing is held: its person lets it go.
        order.state, order.ended_at = OrderState.OVER, func.clock_timestamp()
        tell_order(session, order, "stop", reason, actor=actor)
        return order
    if order.state is not OrderState.STOPPING:
        order.state, order.reason = OrderState.STOPPING, reason
        tell_order(session, order, "stop", reason, actor=actor)
    for lease in leases:
        if lease.desired is not Desired.GONE:
            lease.desired, lease.stop_reason = Desired.GONE, reason
        lease.next_look_at = func.clock_timestamp()
        jobs.defer(session, RECONCILE, str(lease.id))
    return order


def set_power(session: Session, order_id: UUID, desired: Desired, *, jobs: Jobs, actor: str) -> Order:
    """Stop, shelve or start the machines of an order, which goes on.

    Raises:
        Conflict: the order is ending or over, or Leeway only observes.
        InvalidInput: for what ends a machine, which is `stop_order`'s and the stop ladder's.
    """
    if desired in ENDING:
        raise InvalidInput("desired", "ending an order is another request")
    refuse_while_observing(session)
    order = session.get(Order, order_id, with_for_update=ROW, populate_existing=True)
    if order is None:
        raise NotFound(f"there is no order {order_id}")
    if order.state not in GOING_ON:
        raise Conflict(f"the order is {order.state}", hint="Order the workload again.")
    leases = [lease for lease in session.scalars(live_leases(order.id)) if lease.desired not in ENDING]
    if not leases:
        raise no_machine_left(session, order.id, otherwise="its machines are ending")
    if any(lease.adopted_at is not None for lease in leases):
        raise Conflict("it was adopted, and Leeway changes nothing that it did not make", hint="Do it at the site.")
    tell_order(session, order, "power", f"asked to be {desired}", actor=actor)
    for lease in leases:
        lease.desired = desired
        lease.next_look_at = func.clock_timestamp()
        jobs.defer(session, RECONCILE, str(lease.id))
    return order


def live_leases(order_id: UUID) -> Select[Lease]:
    """The order's leases that are not gone, locked in the order of their ids."""
    return (
        select(Lease)
        .where(Lease.order_id == order_id, Lease.gone_at.is_(None))
        .order_by(Lease.id)
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    )


def activate_order(sessions: sessionmaker[Session], order_id: UUID) -> None:
    """The order's first machine runs. A transaction of its own: no lease is locked before its order."""
    with sessions.begin() as session:
        session.execute(
            update(Order)
            .where(Order.id == order_id, Order.state == OrderState.PLACED)
            .values(state=OrderState.ACTIVE, version=Order.version + 1)
        )


def finish_lease(tools: Tools, mine: Claim) -> None:
    """Nothing of the lease exists any more: give its quota back, and try the next offer where the site gave none.

    Does nothing where something came to light since the caller read the rows.
    """
    with tools.sessions.begin() as session:
        lease = session.get_one(Lease, mine.lease_id)
        order = session.get_one(Order, lease.order_id)
        following = None
        if lease.failure is not None and order.state in GOING_ON and _nothing_was_made(session, lease.id):
            following = _fail_over(session, tools, lease, _workload(session, order))
        session.refresh(order, with_for_update=ROW)
        set_fenced(session, mine, gone_at=func.clock_timestamp(), state=LeaseState.GONE)
        session.refresh(lease)
        if _has_left(session, lease.id):  # asked under the lease's lock, which whoever finds a thing takes too
            session.rollback()
            return
        session.execute(
            update(QuotaHold)
            .where(QuotaHold.lease_id == lease.id, QuotaHold.released_at.is_(None))
            .values(released_at=func.clock_timestamp())
        )
        if lease.adopted_at is None:
            tell(session, lease, "gone", "nothing of it is left at the site")
        close_stuck(session, lease.id)
        for kind in (FAILED_FINDING, NETWORK_FINDING):
            close_finding(session, kind, str(lease.id))
        if lease.failure is None or order.state not in GOING_ON:
            return
        if following is None:
            _return(session, order, lease)
            return
        picked, shares = following
        workload, now = _workload(session, order), database_now(session)
        again = _new_lease(session, order, picked, workload, member=lease.member, now=now)
        hold_quota(session, shares, again)
        tools.jobs.defer(session, RECONCILE, str(again.id))
        site = session.get_one(Site, picked.site_id)
        tell(session, again, "next", f"trying the next offer: {_words(session, picked)} at {site.name}")


def _workload(session: Session, order: Order) -> Workload:
    return parse(session.get_one(WorkloadRow, order.workload_id).document)


def _has_left(session: Session, lease_id: UUID) -> bool:
    """True where a part is not gone, or an attempt has made or may have made something."""
    parts = exists().where(Part.lease_id == lease_id, Part.remote_id.is_not(None), Part.gone_at.is_(None))
    tries = exists().where(LaunchAttempt.lease_id == lease_id, LaunchAttempt.outcome.in_((*OPEN, Outcome.DISCARD)))
    return session.scalars(select(or_(parts, tries))).one()


def _nothing_was_made(session: Session, lease_id: UUID) -> bool:
    """Whether the site itself said of every request for the machine that it made nothing, or showed its end.

    A request whose outcome never became known (ABSENT) may still make a machine, however unlikely; no fence of this
    site would stop one at another.
    """
    unclear = exists().where(
        LaunchAttempt.lease_id == lease_id,
        LaunchAttempt.part_id == Part.id,
        ~Part.is_harmless,
        LaunchAttempt.outcome == Outcome.ABSENT,
    )
    return not session.scalars(select(unclear)).one()


def _return(session: Session, order: Order, lease: Lease) -> None:
    """The order goes back to its person, unless other machines of it are there."""
    order.reason = lease.failure
    others = session.scalars(
        select(func.count()).where(Lease.order_id == order.id, Lease.gone_at.is_(None), Lease.id != lease.id)
    ).one()
    if not others:
        order.state = OrderState.RETURNED
    text = f"machine {lease.member}: no other offer within what was approved: {lease.failure}"
    tell_order(session, order, "returned", text)


def _fail_over(
    session: Session, tools: Tools, lease: Lease, workload: Workload
) -> tuple[QuoteOffer, Mapping[UUID, Decimal]] | None:
    """The next offer that is within what was approved and has room, with its quota and the order's money taken.

    Each is tried in a savepoint: what an offer that does not fit has locked is given back before the next is tried.
    """
    order = session.get_one(Order, lease.order_id)
    # Members of one order take turns: each reckons the order's whole hold from the offers of the others. Before all
    # other locks; the order's own row comes after the balances.
    session.execute(select(func.pg_advisory_xact_lock(func.hashtext(f"next offer:{order.id}"))))
    for picked in _approved(session, order, lease, workload):
        unfit = (QuotaExhausted, GrantExhausted, PriceUnknown, RateMissing, Conflict)
        with contextlib.suppress(*unfit), session.begin_nested():
            shares = take_quota(session, picked, workload, members=1, instead_of=lease)
            _hold_with(session, order, lease, picked, ledger=tools.ledger)
            return picked, shares
    return None


def _approved(session: Session, order: Order, lease: Lease, workload: Workload) -> list[QuoteOffer]:
    """The later offers within what was approved: the workload's own limit, else the price that was ordered."""
    ordered = session.get_one(QuoteOffer, order.quote_offer_id)
    failed = session.get_one(QuoteOffer, lease.quote_offer_id)
    limit = workload.max_price or Amount.of(ordered.total, ordered.commodity)
    later = session.scalars(
        select(QuoteOffer)
        .where(QuoteOffer.quote_id == order.quote_id, QuoteOffer.rank > failed.rank)
        .order_by(QuoteOffer.rank)
    )
    return [offer for offer in later if offer.commodity == limit.commodity.code and offer.total <= limit.value]


def _hold_with(session: Session, order: Order, lease: Lease, following: QuoteOffer, *, ledger: Ledger) -> None:
    """Change the order's hold to what it needs when `lease`'s member moves to another offer."""
    ledger.lock(session, order.id)
    session.refresh(order)  # an extension may have come before our lock
    now = database_now(session)
    so_far = ledger.so_far(session, order.id)
    others = session.scalars(
        select(Lease)
        .where(Lease.order_id == order.id, Lease.gone_at.is_(None), Lease.id != lease.id)
        .execution_options(populate_existing=True)
    )
    runs = runs_of(session, order, others, so_far, until=None, now=now)
    runs += runs_elsewhere(session, order, lease, following, now=now)
    amounts = whole_hold(Rates(session, now), so_far, runs)
    ledger.extend(session, order.id, amounts, max(run.period.end for run in runs), now=now)
