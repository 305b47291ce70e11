"""What was seen becomes rows: one observation per change, and the lease's own columns beside it.

Every sighting carries the moment before which the site was asked (a listing's start). Later sightings win; older ones
are dropped, however late they arrive.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import Session

from broker.models.leases import Desired, Lease, LeaseState, Observation, lease_state
from broker.models.workloads import Order
from broker.remote import MachineState, RemoteMachine, RemoteThing
from broker.timeline import tell
from broker.values import STORED, plain

# States of ours that a sighting of the machine does not take back.
_GOING = (LeaseState.DELETING, LeaseState.SNAPSHOT)
_ESTIMATED = " (its end is estimated)"


def see(session: Session, lease: Lease, machine: RemoteMachine, *, seen_at: datetime, last: Observation | None) -> bool:
    """Write down a machine that was seen; True where its state or type changed.

    `lease` must be locked, and `last` is its newest observation, read under that lock.
    """
    if lease.gone_at is not None or (lease.seen_at is not None and seen_at <= lease.seen_at):
        return False
    lease.seen_at, lease.missing_since, lease.is_missing = seen_at, None, False
    if machine.addresses:
        lease.addresses = list(machine.addresses)
    state = lease_state(machine.state)
    # A site that does not name the type has not changed it.
    kind = machine.instance_type or (last.instance_type if last else None)
    changed = last is None or (last.state, last.instance_type) != (state, kind)
    if changed:
        first_run = state is LeaseState.RUNNING and lease.started_at is None
        since = machine.launched_at if first_run else None
        session.add(
            Observation(
                lease_id=lease.id,
                seen_at=seen_at,
                state=state,
                raw_status=machine.raw_status,
                instance_type=kind,
                since=since,
            )
        )
        if lease.started_at is None and (first_run or machine.launched_at is not None):
            # What was launched has run, though nobody saw it (or the rows come out of a backup). A site's clock may be
            # wrong, and the end is counted from here: not before the lease, not in the future.
            _start(session, lease, min(max(machine.launched_at or seen_at, lease.made_at), seen_at))
        tell(session, lease, "state", _words(machine))
    is_going = lease.desired is Desired.GONE or (lease.desired is Desired.SNAPSHOT and lease.state in _GOING)
    if not is_going or machine.state is MachineState.DELETING:
        lease.state = state
    return changed


def see_present(
    session: Session, lease: Lease, thing: RemoteThing, *, seen_at: datetime, last: Observation | None
) -> bool:
    """Write down a thing that was seen and is no machine; True where it is new or its size changed. Else as `see`."""
    if lease.seen_at is not None and seen_at <= lease.seen_at:
        return False
    lease.seen_at, lease.missing_since, lease.is_missing = seen_at, None, False
    size = None if thing.size_gib is None else thing.size_gib.quantize(STORED)
    if last is not None and last.state is LeaseState.PRESENT and size in (None, last.size_gib):
        return False
    session.add(
        Observation(
            lease_id=lease.id, seen_at=seen_at, state=LeaseState.PRESENT, raw_status=thing.raw_status, size_gib=size
        )
    )
    of_size = "" if size is None else f", {plain(size)} GiB"
    tell(session, lease, "state", f"it is there{of_size} ({thing.raw_status})")
    return True


def see_missing(session: Session, lease: Lease, *, seen_at: datetime, settle: timedelta) -> bool:
    """Write down that a complete listing, begun at `seen_at`, lacks it; True where that makes it missing."""
    if lease.seen_at is not None and lease.seen_at >= seen_at:
        return False  # a look has shown it since: this listing is older
    if lease.missing_since is None:
        lease.missing_since = seen_at
    elif seen_at - lease.missing_since >= settle and not lease.is_missing:
        lease.is_missing = True
        what = "it" if lease.state is LeaseState.PRESENT else "the machine"
        tell(session, lease, "missing", f"two complete listings did not show {what}")
        return True
    return False


def see_gone(
    session: Session,
    lease: Lease,
    *,
    seen_at: datetime,
    ended_at: datetime,
    is_estimated: bool,
    what: str | None = None,
) -> None:
    """Write down that the machine, or what it left, is gone; `is_estimated` where the end is when it was last seen.

    `what` is said of it instead, where something else has ended it.
    """
    last = last_observations(session, [lease.id]).get(lease.id)
    if last is None or last.state is LeaseState.GONE:
        return
    lease.seen_at, lease.missing_since, lease.is_missing = seen_at, None, False
    session.add(end_after(last, seen_at=seen_at, ended_at=ended_at, is_estimated=is_estimated))
    name = {LeaseState.SNAPSHOT: "the snapshot", LeaseState.PRESENT: "it"}.get(last.state, "the machine")
    tell(session, lease, "state", what or f"{name} is gone" + _ESTIMATED * is_estimated)


def see_kept(session: Session, lease: Lease, *, seen_at: datetime, ended_at: datetime, is_estimated: bool) -> None:
    """Write down that the machine is gone, and that a snapshot of its disk is what is left.

    `is_estimated`: the machine's end is only when it was last seen.
    """
    last = last_observations(session, [lease.id]).get(lease.id)
    lease.seen_at, lease.missing_since, lease.is_missing = seen_at, None, False
    lease.state = LeaseState.SNAPSHOT
    if last is not None and last.state in (LeaseState.SNAPSHOT, LeaseState.GONE):
        return
    session.add(
        Observation(
            lease_id=lease.id,
            seen_at=seen_at,
            state=LeaseState.SNAPSHOT,
            raw_status="",
            instance_type=None if last is None else last.instance_type,
            since=ended_at,
            is_estimated=is_estimated,
        )
    )
    tell(session, lease, "state", "the machine is gone, a snapshot of its disk is kept" + _ESTIMATED * is_estimated)


def end_after(last: Observation, *, seen_at: datetime, ended_at: datetime, is_estimated: bool) -> Observation:
    """The end of a machine that was last seen so."""
    return Observation(
        lease_id=last.lease_id,
        seen_at=seen_at,
        state=LeaseState.GONE,
        raw_status="",
        instance_type=last.instance_type,
        since=ended_at,
        is_estimated=is_estimated,
    )


def _start(session: Session, lease: Lease, started_at: datetime) -> None:
    """The first time it runs: the paid duration begins now."""
    order = session.get_one(Order, lease.order_id)
    lease.started_at = started_at
    lease.ends_at = started_at + order.duration


def last_observations(session: Session, lease_ids: Collection[UUID]) -> dict[UUID, Observation]:
    """The newest observation of each lease that has one."""
    rows = session.scalars(
        select(Observation)
        .where(Observation.lease_id.in_(lease_ids))
        .ext(distinct_on(Observation.lease_id))
        .order_by(Observation.lease_id, Observation.seen_at.desc())
    )
    return {row.lease_id: row for row in rows}


def _words(machine: RemoteMachine) -> str:
    text = f"the site says {machine.state.value} ({machine.raw_status})"
    if machine.state is MachineState.RUNNING and machine.addresses:
        text += f" at {', '.join(machine.addresses)}"
    return f"{text}: {machine.fault}" if machine.fault else text
