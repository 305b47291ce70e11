"""When a lease's time is over, and when it only seems so. Rows only: what ends is then deleted by `broker.removing`."""

from __future__ import annotations

from sqlalchemy import exists, func, select

from broker.claims import writing
from broker.extensions import HOLD_REFUSED, ROLL
from broker.launching import Pass, close_stuck, tell_stuck
from broker.lease_view import View
from broker.models.audit import Finding
from broker.models.leases import Desired, Lease
from broker.models.workloads import Order
from broker.timeline import tell


def want_gone(run: Pass, reason: str, *, failure: str) -> None:
    """The site cannot give the machine: what there is of it goes, and the next offer may be tried."""
    with writing(run.sessions, run.mine) as (session, row):
        row.desired, row.stop_reason, row.failure = Desired.GONE, reason, failure
        tell(session, row, "refused", reason)


def tell_if_over(run: Pass, view: View) -> None:
    """Leeway ends nothing at a site that it only observes: a person is told while something should end there."""
    lease = view.lease
    with run.sessions.begin() as session:
        if lease.desired is not Desired.GONE and view.now < view.deleted_at:
            close_stuck(session, lease.id)
            return
        why = "its time is over, and Leeway only observes its site"
        hint = "Delete it at the site, or have Leeway act there again: it runs on, and is charged."
        tell_stuck(session, session.get_one(Lease, lease.id), why, hint=hint, now=view.now)


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
    """Unless it was extended since the rows were read: whoever extends it waits for its row, or finds it GONE."""
    with writing(run.sessions, run.mine) as (session, row):
        order = session.get_one(Order, row.order_id)
        now = session.scalars(select(func.clock_timestamp())).one()
        if now < View(row, order.state, now, order.held_until).deleted_at:
            return
        unpaid = order.held_until is not None and order.held_until < row.ends_at
        row.desired = Desired.GONE
        row.stop_reason = "the money that could be set aside is used up" if unpaid else "its end date has come"
        tell(session, row, "end", row.stop_reason)
