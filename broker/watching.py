"""Looking at a machine that is made: write down what it does, and bring its power state to what is desired."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import exists, func, select
from sqlalchemy.orm import Session

from broker.claims import claimed_at, writing
from broker.errors import SiteConflict
from broker.launching import STUCK, Pass, close_stuck, tell_stuck
from broker.lease_view import paid_until
from broker.models.audit import Event
from broker.models.leases import Desired, Lease, LeaseState, Part
from broker.models.workloads import Order
from broker.observations import last_observations, see
from broker.ports import Powers, Shelves
from broker.remote import MachineState, PartKind, RemoteMachine
from broker.removing import end_of, note_machine_gone
from broker.timeline import Concern, close_finding, raise_finding, tell

FAILED_FINDING = "machine_failed"

# States that a machine passes through on its own: look again soon, and change nothing meanwhile.
PASSING = frozenset({MachineState.BUILDING, MachineState.DELETING})


def look(run: Pass, lease: Lease, server: Part, *, power: Desired, asked_at: datetime) -> None:
    """One look at the machine; its 404 counts as gone only where two listings missed it before.

    `power` is what it should be now, `asked_at` a moment before the look, by the database's clock.
    """
    if server.remote_id is None:
        raise ValueError(f"part {server.id} was never made")
    machine = run.adapter.look(server.kind, server.remote_id, deadline=run.deadline())
    if machine is None:
        _absent(run, lease, server, now=asked_at)
        return
    if not isinstance(machine, RemoteMachine):
        raise TypeError(f"{type(run.adapter).__name__}.look answered a server with {type(machine).__name__}")
    with writing(run.sessions, run.mine) as (session, row):
        last = last_observations(session, [row.id]).get(row.id)
        see(session, row, machine, seen_at=asked_at, last=last)
        if machine.state is MachineState.ERROR and row.started_at is None and row.desired is not Desired.GONE:
            # It never ran: delete it here, and only when it is seen gone may the next offer be tried.
            row.failure = machine.fault or f"the machine went to {machine.raw_status}"
            row.desired, row.stop_reason = Desired.GONE, f"the site could not start it: {row.failure}"
            tell(session, row, "refused", row.stop_reason)
            return
        _tell_of_failure(session, row, machine, now=asked_at)
        after = asked_at - (server.made_at or asked_at)
        if after > run.timing.patience:
            _tell_of_slow_build(session, row, machine, minutes=after // timedelta(minutes=1), now=asked_at)
    if machine.state in PASSING:
        run.look_ever_later(server.id, after=after)
        return
    _steer(run, lease, server, machine, power=power)


def ask(run: Pass, lease: Lease, part: Part, *, asked_at: datetime) -> None:
    """Whether what two listings missed is there, and nothing else: it is nothing that Leeway changes."""
    if part.remote_id is None:
        raise ValueError(f"part {part.id} was never made")
    if run.adapter.look(part.kind, part.remote_id, deadline=run.deadline()) is None:
        _absent(run, lease, part, now=asked_at)
        return
    run.done.add(part.id)
    with writing(run.sessions, run.mine) as (_, row):
        row.missing_since, row.is_missing = None, False


def _absent(run: Pass, lease: Lease, server: Part, *, now: datetime) -> None:
    """The site says 404. It may be too early for it to show, so listings must agree first (`broker.inventory`).

    It ended when the site says, else when it was last seen, which is an estimate.
    """
    if not lease.is_missing:
        run.later(server.id, run.timing.backoff(lease.failures + 3))
        return
    end = end_of(run, lease, server, now=now)
    with writing(run.sessions, run.mine) as (session, row):
        gone_at = session.scalars(select(func.clock_timestamp())).one()
        note_machine_gone(session, row, server, end, gone_at=gone_at)
        row.stop_reason = f"{'the machine' if server.kind is PartKind.SERVER else 'it'} vanished at the site"
        if row.state is not LeaseState.SNAPSHOT:
            row.desired = Desired.GONE
        elif row.desired is not Desired.SNAPSHOT:
            row.desired, row.lapsed_at = Desired.SNAPSHOT, gone_at  # taken before a backup that these rows are of
        tell(session, row, "vanished", row.stop_reason)


def _tell_of_slow_build(session: Session, lease: Lease, machine: RemoteMachine, *, minutes: int, now: datetime) -> None:
    if machine.state is not MachineState.BUILDING:
        if lease.failures < STUCK:  # else it was told of those, and only a pass that gets through ends them
            close_stuck(session, lease.id)
    elif lease.started_at is None:
        why = f"the site took the machine {minutes} minutes ago and is still building it ({machine.raw_status})"
        tell_stuck(session, lease, why, hint="Look at the site, or stop it and take another offer.", now=now)


def _tell_of_failure(session: Session, lease: Lease, machine: RemoteMachine, *, now: datetime) -> None:
    """A machine that ran and is now in ERROR may hold work: it is left alone, and a person gets to know."""
    if machine.state is not MachineState.ERROR:
        close_finding(session, FAILED_FINDING, str(lease.id))
        return
    concern = Concern(
        kind=FAILED_FINDING,
        key=str(lease.id),
        text=f"{lease.project}/{lease.spec['name']} ran, and its site says ERROR now: {machine.fault or 'no reason'}",
        hint="Ask the site's operator, or stop it (`leeway stop`): it is charged as its rate card says until then.",
        site_id=lease.site_id,
        lease_id=lease.id,
    )
    raise_finding(session, concern, now=now)


def _steer(run: Pass, lease: Lease, server: Part, machine: RemoteMachine, *, power: Desired) -> None:
    """Ask for the power state where the machine is in another; each request may be repeated."""
    if power.value == machine.state.value:
        run.done.add(server.id)
        return
    try:
        asked = _ask(run, power, machine)
    except SiteConflict:
        asked = True  # it is between two states; look again
    if not asked:
        run.later(server.id, run.timing.last_look)
        return
    with writing(run.sessions, run.mine) as (session, row):
        order = session.get_one(Order, row.order_id)
        if power is not lease.desired and not _was_told(session, row, since=paid_until(row, order.held_until)):
            tell(session, row, "power", "its time is over: powering it off before it is deleted")
            session.flush()
        # Whatever asked for this state, or was seen since, is an event: a site may need long, or refuse for long.
        last: datetime | None = session.scalars(
            select(func.max(Event.at)).where(Event.workload_id == order.workload_id)
        ).one()
        now = claimed_at(row, run.mine)
        after = now - (last or now)
    run.look_ever_later(server.id, after=after)


def _was_told(session: Session, lease: Lease, *, since: datetime) -> bool:
    told = exists().where(Event.lease_id == lease.id, Event.kind == "power", Event.at >= since)
    return session.scalars(select(told)).one()


def _ask(run: Pass, desired: Desired, machine: RemoteMachine) -> bool:
    """Send the one request that leads towards `desired`; False where this adapter or this state allows none."""
    adapter, deadline, remote_id = run.adapter, run.deadline(), machine.remote_id
    match desired, machine.state:
        case Desired.STOPPED, MachineState.RUNNING if isinstance(adapter, Powers):
            adapter.stop(remote_id, deadline=deadline)
        case Desired.RUNNING, MachineState.STOPPED if isinstance(adapter, Powers):
            adapter.start(remote_id, deadline=deadline)
        case Desired.SHELVED, MachineState.RUNNING | MachineState.STOPPED if isinstance(adapter, Shelves):
            adapter.shelve(remote_id, deadline=deadline)
        case Desired.SHELVED, MachineState.RUNNING if isinstance(adapter, Powers):
            adapter.stop(remote_id, deadline=deadline)
        case Desired.RUNNING | Desired.STOPPED, MachineState.SHELVED if isinstance(adapter, Shelves):
            adapter.unshelve(remote_id, deadline=deadline)
        case _:
            return False
    return True
