"""The last rungs of the stop ladder: a snapshot of the disk is taken, and when it is whole the machine is deleted.

While the machine is there a snapshot that failed, vanished, or is older than the end (rows out of a backup may know of
one) is discarded and taken anew. From the moment the machine is gone the snapshot is all there is, and it is kept until
`ready_at + keep`, whatever the site says of it: an operator who deactivates an image may activate it again. Where the
site goes on refusing, the machine goes without: that is an event, and a message.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from broker.claims import writing
from broker.errors import SiteBusy
from broker.launching import Pass, close_stuck, tell_stuck
from broker.lease_view import View
from broker.messages import Draft, post_message
from broker.models.federation import Site
from broker.models.leases import ENDING, Desired, LaunchAttempt, Lease, Outcome, Part
from broker.models.people import Project
from broker.models.workloads import Order
from broker.observations import see_gone
from broker.projects import addresses
from broker.remote import PartKind, RemoteSnapshot, SnapshotState
from broker.removing import End, note_machine_gone
from broker.timeline import tell
from broker.watching import look

# A snapshot that is kept is looked at this often: nobody but a person would take it away.
EVERY = timedelta(hours=1)
# About as long as it takes until two listings miss a machine.
MISSING = 10
WITHOUT = "It is charged until it is saved; `leeway stop` deletes it without a snapshot."


def renew(run: Pass, lease: Lease, server: Part, snapshot: Part, *, asked_at: datetime) -> None:
    """Discard a snapshot that is older than the machine's end, if the machine is still there to take a new one of."""
    if server.remote_id is None or run.adapter.look(server.kind, server.remote_id, deadline=run.deadline()) is None:
        run.done.add(snapshot.id)
        look(run, lease, server, power=lease.desired, asked_at=asked_at)  # listings decide; then the old one is kept
        return
    with writing(run.sessions, run.mine) as (session, _):
        _discard(session, snapshot)


def check(run: Pass, server: Part, snapshot: Part, *, asked_at: datetime) -> None:
    """One look at the snapshot: whole, being saved, or lost. `asked_at`: a moment before, by the database's clock.

    Raises:
        SiteBusy: the site could not save it, and the machine is there: it is taken anew after a while.
    """
    if snapshot.remote_id is None or snapshot.made_at is None:
        raise ValueError(f"part {snapshot.id} was never made")
    found = run.adapter.look(snapshot.kind, snapshot.remote_id, deadline=run.deadline())
    if found is None and asked_at < snapshot.made_at + run.settle:
        run.later(snapshot.id, run.settle / 4)  # it may not show yet
    elif found is None and server.gone_at is not None:
        _missing(run, snapshot, asked_at=asked_at)
    elif server.gone_at is not None and snapshot.ready_at is not None:
        _still_there(run, snapshot, asked_at=asked_at)
    elif not isinstance(found, RemoteSnapshot) or found.state is SnapshotState.FAILED:
        _lost(run, server, snapshot, "it is gone" if found is None else f"the site says {_status(found)}")
    elif found.state is SnapshotState.SAVING:
        run.look_ever_later(snapshot.id, after=asked_at - snapshot.made_at)
    else:
        _whole(run, server, snapshot, found, asked_at=asked_at)


def _status(found: object) -> str:
    return found.raw_status if isinstance(found, RemoteSnapshot) else type(found).__name__


def still_whole(run: Pass, server: Part, snapshot: Part) -> bool:
    """One more look before the machine is deleted: it may be long since the snapshot was seen whole.

    Raises:
        SiteBusy: it is whole no more. It is taken anew after a while, and the machine stays until then.
    """
    if snapshot.remote_id is None:
        return False
    found = run.adapter.look(snapshot.kind, snapshot.remote_id, deadline=run.deadline())
    if isinstance(found, RemoteSnapshot) and found.state is SnapshotState.READY:
        return True
    _lost(run, server, snapshot, "it is gone" if found is None else f"the site says {_status(found)}")
    return False


def _whole(run: Pass, server: Part, snapshot: Part, found: RemoteSnapshot, *, asked_at: datetime) -> None:
    _read_images_soon(run, snapshot)
    with writing(run.sessions, run.mine) as (session, row):
        session.execute(
            update(Part).where(Part.id == snapshot.id).values(ready_at=func.clock_timestamp(), gone_at=None)
        )
        until = asked_at + (row.keep or timedelta(0))
        text = f"the machine's disk is saved as {found.name}, until {until:%Y-%m-%d %H:%M} UTC"
        tell(session, row, "snapshot", text, remote_id=found.remote_id, name=found.name)
        close_stuck(session, row.id)  # said of the wait for it
    if server.gone_at is not None:
        _still_there(run, snapshot, asked_at=asked_at)


def _read_images_soon(run: Pass, snapshot: Part) -> None:
    """The site's next listing reads its images anew: orders can start from the snapshot, and not hours later.

    A transaction of its own: whoever has locked a lease does not wait for its site's row.
    """
    its_site = select(Lease.site_id).where(Lease.id == snapshot.lease_id).scalar_subquery()
    with run.sessions.begin() as session:
        session.execute(update(Site).where(Site.id == its_site).values(refreshed_at=None))


def _still_there(run: Pass, snapshot: Part, *, asked_at: datetime) -> None:
    with writing(run.sessions, run.mine) as (_, row):
        row.seen_at, row.missing_since = max(asked_at, row.seen_at or asked_at), None
    run.later(snapshot.id, EVERY)


def _lost(run: Pass, server: Part, snapshot: Part, why: str) -> None:
    with writing(run.sessions, run.mine) as (session, row):
        _discard(session, snapshot)
        tell(session, row, "snapshot", f"the snapshot of its disk is lost: {why}")
    if server.gone_at is None:
        raise SiteBusy(f"the snapshot of the machine's disk is lost ({why}); it is taken anew")


def _missing(run: Pass, snapshot: Part, *, asked_at: datetime) -> None:
    """Looks and searches over `MISSING` settle times must miss it: what shows again after that is a leftover.

    It ended when it was last seen, which is an estimate.
    """
    found = run.adapter.find(snapshot.kind, lease=snapshot.lease_id, made={}, deadline=run.deadline())
    if any(thing.remote_id == snapshot.remote_id for thing in found):
        _still_there(run, snapshot, asked_at=asked_at)
        return
    with writing(run.sessions, run.mine) as (session, row):
        if row.missing_since is None or asked_at - row.missing_since < run.settle * MISSING:
            row.missing_since = row.missing_since or asked_at
            run.later(snapshot.id, run.settle)
            return
        last = row.seen_at or asked_at
        gone_at = session.scalars(select(func.clock_timestamp())).one()
        session.execute(update(Part).where(Part.id == snapshot.id).values(gone_at=gone_at))
        see_gone(session, row, seen_at=gone_at, ended_at=last, is_estimated=True)


def _discard(session: Session, snapshot: Part) -> None:
    """The part has no snapshot any more; what there is of the former one is deleted until it is seen gone."""
    made_it = (LaunchAttempt.part_id == snapshot.id, LaunchAttempt.remote_id == snapshot.remote_id)
    session.execute(
        update(LaunchAttempt)
        .where(*made_it, LaunchAttempt.outcome == Outcome.CREATED)
        .values(outcome=Outcome.DISCARD, resolved_at=func.clock_timestamp())
    )
    session.execute(
        update(Part)
        .where(Part.id == snapshot.id, Part.remote_id == snapshot.remote_id)
        .values(remote_id=None, made_at=None, ready_at=None)
    )


def keep_what_is_left(run: Pass, lease: Lease) -> None:
    """A snapshot that was found without its machine: that came and went after the backup that the rows are from.

    It must neither be made anew, nor may the snapshot go because no machine of the lease was ever seen to run.
    """
    server = next(part for part in lease.parts if part.kind is PartKind.SERVER)
    has_snapshot = any(part.kind is PartKind.SNAPSHOT and part.remote_id is not None for part in lease.parts)
    if not has_snapshot or server.remote_id is not None or server.gone_at is not None or lease.keep is None:
        return
    with writing(run.sessions, run.mine) as (session, row):
        if row.desired in ENDING:
            return
        now = session.scalars(select(func.clock_timestamp())).one()
        note_machine_gone(session, row, server, End(now, is_estimated=True), gone_at=now)
        row.desired, row.lapsed_at = Desired.SNAPSHOT, now
        row.stop_reason = "its time was over before the rows were restored"
        tell(session, row, "end", row.stop_reason)


def tell_of_delay(run: Pass, view: View) -> None:
    """A machine that is not saved runs on, or would be deleted with all that is on it: a person may decide."""
    with run.sessions.begin() as session:
        why = "its time is over, and its site has not made the snapshot of its disk that was to be kept"
        hint = f"Look at the machine at its site. {WITHOUT}"
        tell_stuck(session, session.get_one(Lease, view.lease.id), why, hint=hint, now=view.now)


def post_loss(session: Session, lease: Lease, *, why: str) -> None:
    """Tell the project that a machine is deleted without the snapshot that was ordered."""
    order = session.get_one(Order, lease.order_id)
    project = session.get_one(Project, order.project_id)
    name = f"{lease.project}/{lease.spec['name']}"
    body = (
        f"The time of {name} is over. A snapshot of its disk was to be kept, and there is none:\n\n    {why}\n\n"
        f"The machine is deleted. What the site said is in the timeline:\n\n    leeway show {order.id}\n"
    )
    draft = Draft(
        key=f"snapshot_lost:{lease.id}",
        kind="snapshot_lost",
        subject=f"{name}: no snapshot of its disk is kept",
        body=body,
        recipients=addresses(session, project),
        project_id=project.id,
        order_id=order.id,
    )
    post_message(session, draft)
