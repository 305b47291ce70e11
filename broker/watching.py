"""Looking at a machine that is made: write down what it does, and bring its power state to what is desired."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from broker.claims import writing
from broker.errors import SiteConflict
from broker.launching import Pass, close_stuck, tell_stuck
from broker.models.leases import Desired, Lease, Part
from broker.observations import last_observations, see, see_gone
from broker.ports import Powers, Shelves
from broker.remote import MachineState, RemoteMachine
from broker.timeline import tell

# States that a machine passes through on its own: look again soon, and change nothing meanwhile.
PASSING = frozenset({MachineState.BUILDING, MachineState.DELETING})


def look(run: Pass, lease: Lease, server: Part, *, asked_at: datetime) -> None:
    """One look at the machine; its 404 counts as gone only where two listings missed it before.

    `asked_at`: a moment before the look, by the database's clock.
    """
    if server.remote_id is None:
        raise ValueError(f"part {server.id} was never made")
    machine = run.adapter.look(server.kind, server.remote_id, deadline=run.deadline())
    if machine is None:
        _absent(run, lease, server)
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
        after = asked_at - (server.made_at or asked_at)
        if after > run.timing.patience:
            _tell_of_slow_build(session, row, machine, minutes=after // timedelta(minutes=1), now=asked_at)
    if machine.state in PASSING:
        run.look_ever_later(server.id, after=after)
        return
    _steer(run, lease, server, machine)


def _absent(run: Pass, lease: Lease, server: Part) -> None:
    """The site says 404. It may be too early for it to show, so listings must agree first (`broker.inventory`)."""
    if not lease.is_missing:
        run.later(server.id, run.timing.backoff(lease.failures + 3))
        return
    with writing(run.sessions, run.mine) as (session, row):
        now = session.scalars(select(func.clock_timestamp())).one()
        last_seen = row.seen_at or now
        see_gone(session, row, seen_at=now, ended_at=last_seen, is_estimated=True)
        session.execute(update(Part).where(Part.id == server.id).values(gone_at=now))
        row.desired, row.stop_reason = Desired.GONE, "the machine vanished at the site"
        tell(session, row, "vanished", row.stop_reason)


def _tell_of_slow_build(session: Session, lease: Lease, machine: RemoteMachine, *, minutes: int, now: datetime) -> None:
    if machine.state is not MachineState.BUILDING:
        close_stuck(session, lease.id)
    elif lease.started_at is None:
        why = f"the site took the machine {minutes} minutes ago and is still building it ({machine.raw_status})"
        tell_stuck(session, lease, why, hint="Look at the site, or stop it and take another offer.", now=now)


def _steer(run: Pass, lease: Lease, server: Part, machine: RemoteMachine) -> None:
    """Ask for the desired power state where the machine is in another; each request may be repeated."""
    if lease.desired.value == machine.state.value:
        run.done.add(server.id)
        return
    try:
        asked = _ask(run, lease.desired, machine)
    except SiteConflict:
        asked = True  # it is between two states; look again
    run.later(server.id, run.timing.first_look if asked else run.timing.last_look)


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
        case Desired.RUNNING | Desired.STOPPED, MachineState.SHELVED if isinstance(adapter, Shelves):
            adapter.unshelve(remote_id, deadline=deadline)
        case _:
            return False
    return True
