"""When a lease's time is over, and when it only seems so. Rows only: what ends is then deleted by `broker.removing`."""

from __future__ import annotations

from sqlalchemy import exists, func, select

from broker.claims import writing
from broker.extensions import HOLD_REFUSED, ROLL
from broker.launching import Pass, close_stuck, tell_stuck
from broker.lease_view import View
from broker.models.audit import Finding
from broker.models.leases import ENDING, Desired, Lease, LeaseState, Part
from broker.models.workloads import Order
from broker.remote import PartKind
from broker.snapshots import post_loss
from broker.timeline import tell


def want_gone(run: Pass, reason: str, *, failure: str) -> None:
    """The site cannot give the machine: what there is of it goes, and the next offer may be tried."""
    with writing(run.sessions, run.mine) as (session, row):
        row.desired, row.stop_reason, row.failure = Desired.GONE, reason, failure
        tell(session, row, "refused", reason)


def tell_if_over(run: Pass, view: View) -> None:
    """Leeway ends nothing that it does not change: a person is told while something of that should end."""
    lease = view.lease
    with run.sessions.begin() as session:
        if not _should_end(view):
            close_stuck(session, lease.id)
            return
        if lease.adopted_at is not None:
            why = "its agreed time is over, and Leeway deletes nothing that it did not make"
            hint = "Have its owner delete it, give it more time (`leeway extend`), or end its charging (`leeway stop`)."
            tell_stuck(session, session.get_one(Lease, lease.id), why, hint=hint, now=view.now)
            return
        why = "its time is over, and Leeway only observes its site"
        hint = "Delete it at the site, or have Leeway act there again: it runs on, and is charged."
        if lease.keep is not None and lease.desired is not Desired.GONE and lease.state is not LeaseState.SNAPSHOT:
            hint = "Have Leeway act there again, or make a snapshot of its disk, which was to be kept, and then delete "
            hint += "it: it runs on, and is charged."
        tell_stuck(session, session.get_one(Lease, lease.id), why, hint=hint, now=view.now)


def _should_end(view: View) -> bool:
    if view.lease.adopted_at is not None:  # not where its money ends: it is charged on, and another finding tells
        return view.now >= view.lease.ends_at
    if view.lease.desired is Desired.SNAPSHOT:
        return view.part(PartKind.SERVER).gone_at is None or view.kept_no_longer(frozenset()) is not None
    return view.lease.desired is Desired.GONE or view.now >= view.deleted_at


def fund(run: Pass, lease: Lease) -> None:
    """Go on with the lease's end where more money was refused; else have it asked for, and leave all as it is."""
    refused = exists().where(
        Finding.kind == HOLD_REFUSED, Finding.key == str(lease.order_id), Finding.resolved_at.is_(None)
    )
    with run.sessions.begin() as session:
        if session.scalars(select(refused)).one():
            run.done.add(lease.order_id)
            return
        run.tools.jobs.defer(session, ROLL, str(lease.order_id))
    run.later(lease.id, run.timing.last_look)  # where money is found, the lease is woken sooner


def end(run: Pass) -> None:
    """Unless it was extended since the rows were read: whoever extends it waits for its row, or finds it ending.

    What ran, and keeps a snapshot, goes by way of that.
    """
    with writing(run.sessions, run.mine) as (session, row):
        if row.desired in ENDING:
            return
        order = session.get_one(Order, row.order_id)
        now = session.scalars(select(func.clock_timestamp())).one()
        if now < View(row, order.state, now, order.held_until).deleted_at:
            return
        unpaid = order.held_until is not None and order.held_until < row.ends_at
        row.stop_reason = "the money that could be set aside is used up" if unpaid else "its end date has come"
        row.desired = Desired.GONE
        if row.keep is not None and row.started_at is not None:
            has_part = exists().where(Part.lease_id == row.id, Part.kind == PartKind.SNAPSHOT)
            if session.scalars(select(has_part)).one():
                row.desired, row.lapsed_at = Desired.SNAPSHOT, now
            else:
                post_loss(session, row, why="The site can take no snapshot.")
        tell(session, row, "end", row.stop_reason)


def end_keeping(run: Pass, lease: Lease, reason: str) -> None:
    """No snapshot is kept any longer, or there is none to keep. Rows may have changed since: all of it goes."""
    with writing(run.sessions, run.mine) as (session, row):
        if row.desired is not Desired.SNAPSHOT:
            return
        row.desired, row.stop_reason = Desired.GONE, reason
        tell(session, row, "end", reason)
        was_kept = exists().where(Part.lease_id == lease.id, Part.kind == PartKind.SNAPSHOT, Part.ready_at.is_not(None))
        if not session.scalars(select(was_kept)).one():
            post_loss(session, row, why=f"{reason}. {row.trouble or ''}".strip())
