"""The remote half of a step towards nothing: delete a part, or what an attempt lost, and look until it is gone."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import exists, func, select, update
from sqlalchemy.orm import Session

from broker.claims import writing
from broker.errors import SiteError
from broker.launching import Pass, close_stuck, tell_stuck
from broker.models.audit import Event
from broker.models.holds import QuotaHold
from broker.models.leases import ENDING, Desired, LaunchAttempt, Lease, LeaseState, Outcome, Part
from broker.observations import last_observations, see, see_gone, see_kept
from broker.ports import Endings
from broker.remote import Fence, PartKind, RemoteMachine
from broker.timeline import Concern, raise_finding, tell

NETWORK_FINDING = "network_in_doubt"

# Who looks again within so many first looks has seen an end as it happened; later, the site is asked when it was.
PROMPT = 10
# After so many failures in a row the end is taken from what was seen, whatever the site would say of it.
ASKED_ENOUGH = 3


def discard(run: Pass, attempt: LaunchAttempt, part: Part) -> None:
    """Delete what an attempt made beside the part."""
    if attempt.remote_id is None:
        raise ValueError(f"attempt {attempt.id} is to be discarded and has no remote id")
    try:
        is_gone = _delete(run, part.kind, attempt.remote_id, made_at=attempt.resolved_at)
    except SiteError as error:
        # A leftover that cannot be deleted must not keep the lease from its end: the rest of the pass goes on.
        run.done.add(attempt.id)
        run.trouble = run.trouble or error
        return
    if not is_gone:
        _wait_until_gone(run, attempt.id, part, since=attempt.resolved_at, finding=attempt.id)
        return
    with run.sessions.begin() as session:
        close_stuck(session, attempt.id)
        session.execute(update(LaunchAttempt).where(LaunchAttempt.id == attempt.id).values(outcome=Outcome.GONE))
        if part.kind is PartKind.SERVER and part.fence is Fence.PART and part.remote_id is not None:
            _tell_of_lost_network(session, session.get_one(Lease, part.lease_id))


def _tell_of_lost_network(session: Session, lease: Lease) -> None:
    """Nova, clearing away the machine that lost the port, takes it from the one that has it (measured: 10 of 10)."""
    if lease.gone_at is not None or lease.desired in ENDING:
        return
    concern = Concern(
        kind=NETWORK_FINDING,
        key=str(lease.id),
        text=f"{lease.project}/{lease.spec['name']} shared its port with a second machine, which is deleted now; "
        "its own network may be cut off",
        hint="Try to reach it. If it does not answer, stop it (`leeway stop`) and order again, or have the site's "
        "operator attach its port anew.",
        site_id=lease.site_id,
        lease_id=lease.id,
    )
    raise_finding(session, concern, now=session.scalars(select(func.clock_timestamp())).one())


def remove(run: Pass, lease: Lease, part: Part, *, now: datetime) -> None:
    """Delete a part of the lease; it is gone when the site says so. `now`: a moment before, by the database's clock."""
    if part.remote_id is None:
        raise ValueError(f"part {part.id} was never made")
    is_machine = part.kind is PartKind.SERVER
    if is_machine and lease.state is not LeaseState.DELETING:
        _begin_to_delete(run, part.remote_id, asked_at=now)
    # A machine that was ever seen does show: its 404 needs no settle time.
    made_at = None if is_machine and lease.seen_at is not None else part.made_at
    is_kept = part.kind is PartKind.SNAPSHOT and lease.state is LeaseState.SNAPSHOT
    try:
        was_there = not is_kept or _see_once_more(run, part.kind, part.remote_id, asked_at=now)
        is_gone = _delete(run, part.kind, part.remote_id, made_at=made_at)
    except SiteError as error:
        if not part.is_harmless:
            raise
        run.done.add(part.id)
        run.trouble = run.trouble or error
        return
    if not is_gone:
        with run.sessions() as session:
            asked_at: datetime | None = session.scalars(
                select(func.max(Event.at)).where(Event.lease_id == lease.id, Event.kind == "stop")
            ).one()
        _wait_until_gone(run, part.id, part, since=asked_at or part.made_at)
        return
    end = _seen_end(run, lease, part, was_there=was_there, now=now)
    with writing(run.sessions, run.mine) as (session, row):
        gone_at = session.scalars(select(func.clock_timestamp())).one()
        if is_machine:
            note_machine_gone(session, row, part, end, gone_at=gone_at)
            return
        session.execute(update(Part).where(Part.id == part.id).values(gone_at=gone_at))
        if part.kind is PartKind.SNAPSHOT and row.state is LeaseState.SNAPSHOT:
            see_gone(session, row, seen_at=gone_at, ended_at=end.at, is_estimated=end.is_estimated)


def note_machine_gone(session: Session, lease: Lease, server: Part, end: End, *, gone_at: datetime) -> None:
    """The machine is gone; where there is a snapshot of it that is to be kept, the lease lives on as that."""
    session.execute(update(Part).where(Part.id == server.id).values(gone_at=gone_at))
    is_kept = exists().where(
        Part.lease_id == lease.id,
        Part.kind == PartKind.SNAPSHOT,
        Part.remote_id.is_not(None),
        Part.gone_at.is_(None),
    )
    if lease.desired is Desired.GONE or not session.scalars(select(is_kept)).one():
        see_gone(session, lease, seen_at=gone_at, ended_at=end.at, is_estimated=end.is_estimated)
        return
    see_kept(session, lease, seen_at=gone_at, ended_at=end.at, is_estimated=end.is_estimated)
    session.execute(
        update(QuotaHold)
        .where(QuotaHold.lease_id == lease.id, QuotaHold.released_at.is_(None))
        .values(released_at=gone_at)
    )


def _begin_to_delete(run: Pass, remote_id: str, *, asked_at: datetime) -> None:
    """A last look comes first: a machine that ran and that nobody saw yet is charged like any other."""
    machine = run.adapter.look(PartKind.SERVER, remote_id, deadline=run.deadline())
    with writing(run.sessions, run.mine) as (session, row):
        if isinstance(machine, RemoteMachine):
            see(session, row, machine, seen_at=asked_at, last=last_observations(session, [row.id]).get(row.id))
        row.state = LeaseState.DELETING
        tell(session, row, "stop", f"deleting the machine: {row.stop_reason or 'no longer wanted'}")


def _seen_end(run: Pass, lease: Lease, part: Part, *, was_there: bool, now: datetime) -> End:
    """The end of a part that has just been seen gone. `was_there`: in this pass, before its deletion was asked for."""
    with run.sessions() as session:
        looked_at = session.scalars(select(func.clock_timestamp())).one()
    if looked_at - (lease.seen_at or now) <= run.timing.first_look * PROMPT:
        return End(looked_at, is_estimated=False)
    # Nobody saw it happen.
    if part.kind is PartKind.SERVER:
        return end_of(run, lease, part, now=now)
    return End(looked_at, is_estimated=False) if was_there else End(lease.seen_at or now, is_estimated=True)


def _see_once_more(run: Pass, kind: PartKind, remote_id: str, *, asked_at: datetime) -> bool:
    """A last look at a kept snapshot: where it is there, it is charged until now; else no site says when it went."""
    if run.adapter.look(kind, remote_id, deadline=run.deadline()) is None:
        return False
    with writing(run.sessions, run.mine) as (_, row):
        row.seen_at, row.missing_since = max(asked_at, row.seen_at or asked_at), None
    return True


@dataclass(frozen=True, slots=True)
class End:
    """When a machine ended; `is_estimated` where neither we nor its site saw it end."""

    at: datetime
    is_estimated: bool


def end_of(run: Pass, lease: Lease, part: Part, *, now: datetime) -> End:
    """When what is gone ended: a machine by the site's word, else when it was last seen, which is an estimate."""
    last = lease.seen_at or part.made_at or now
    adapter = run.adapter
    if part.remote_id is None or part.kind is not PartKind.SERVER or not isinstance(adapter, Endings):
        return End(last, is_estimated=True)
    try:
        word = adapter.ended_at(part.remote_id, since=last, deadline=run.deadline())
    except SiteError:
        if lease.failures < ASKED_ENOUGH:
            raise
        word = None
    # A site's clock may be behind ours: what was seen there was there.
    return End(last, is_estimated=True) if word is None else End(max(word, last), is_estimated=False)


def _wait_until_gone(run: Pass, key: UUID, part: Part, *, since: datetime | None, finding: UUID | None = None) -> None:
    """The site was asked to delete it at `since`: look again, ever more rarely, and tell a person when it drags on."""
    with run.sessions.begin() as session:
        now = session.scalars(select(func.clock_timestamp())).one()
        after = now - (since or now)
        if after > run.timing.patience:
            why = f"the site was asked {after // timedelta(minutes=1)} minutes ago to delete its {part.kind}"
            hint = "Have the site's operator delete it; Leeway goes on looking."
            tell_stuck(session, session.get_one(Lease, part.lease_id), why, hint=hint, now=now, key=finding)
    run.look_ever_later(key, after=after)


def _delete(run: Pass, kind: PartKind, remote_id: str, *, made_at: datetime | None) -> bool:
    """Ask for deletion and look; True once the site itself says that it is gone.

    A 404 soon after the making may only mean that it does not show yet, so it counts after the settle time.
    """
    deadline = run.deadline()
    run.adapter.delete(kind, remote_id, deadline=deadline)
    if run.adapter.look(kind, remote_id, deadline=deadline) is not None:
        return False
    with run.sessions() as session:
        now = session.scalars(select(func.clock_timestamp())).one()
    return made_at is None or now >= made_at + run.settle
