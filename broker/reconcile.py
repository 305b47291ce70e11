"""One lease: from what is desired to what is observed. Idempotent; may be stopped between any two lines.

A pass claims the lease and repeats: read the rows, decide on one step (pure), take it, write down what came of it. What
a step writes at once is one transaction, and no transaction is open while a site is asked. The rows alone say what
happens next, so it does not matter which process takes the next step, nor why the last one died.

Why nothing is made twice. Before a request goes out, its attempt is committed (PREPARED). Until its outcome is known it
is open (PREPARED or UNKNOWN); a part has at most one that is, and an open attempt has one way forward: look for what it
may have made. By this process's clock, read before the commit, the request is never sent after `give_up_at`; and what
was accepted by then shows within the settle time. So from `give_up_at + settle` on, what does not show is ABSENT, and
the part may be asked for again here.

Should that reckoning fail (a process frozen between its last look at the clock and the sending; a site slower to show
than it says), the fence holds at the site: NAME and TOKEN give no second machine, of two machines on one PART only one
runs at a time. On fence NONE nothing would hold, so there the unknown is never retried: it becomes a finding, and after
a person's stop it counts as ABSENT. A second part that is harmless (a port, a snapshot) is found and deleted.

In our own rows, on every fence, the part's `remote_id` decides which one stays. It is set by compare-and-set; a worker
whose id is there already has won too, and an attempt whose id lost, or that comes when its lease is over, is marked
DISCARD: that wakes the lease, and what the attempt made is deleted until the site itself says 404 for it. Only a
snapshot is ever taken anew: its attempt is marked DISCARD and the part's id emptied in one transaction.

The order moves to another site only if nothing can exist here: every request for the machine was refused with an answer
that means "nothing was made", or its machine was seen gone. Where one was merely ABSENT, the lease that ends without a
machine sends its order back to its person (`broker.orders.finish_lease`): a second site has no fence against the first.

Why nothing is left that nobody knows of. An id is written into the attempt by whoever learns it, even by a worker that
lost its claim; all else of the lease is written only under the claim's generation (`broker.claims`), and the order's
and a finding's rows under conditions of their own. And what no row knows of (an answer that died with its process, rows
that a restored backup lacks) carries the lease's name and tags, by which it is found: by Resolve, by Find, and by the
site's next listing (`broker.inventory`).

What is left alone (its site is only observed, or it was adopted: it was there before Leeway knew of it) is decided on
first and apart: nothing of it is made, powered or deleted. It is asked for by its id when two listings missed it, and
what was adopted can be given up, which ends its charging and asks the site for nothing.

If the process dies
    before an attempt is committed          nothing was asked for; the next pass does it
    after that, the request sent or not     the attempt is open: Resolve
    after the answer                        the same: what was made is found by name, tag or part, and adopted
    while deleting, or before it is noted   the part has its id and is not gone: Remove or Discard ask again, and look
    while a snapshot is being saved         the machine is there until `ready_at` is written: Check looks again
    in Activate, End, Release, Finish, ...     they are one transaction each, done or to be done
    between any two other lines             the claim runs out, and the next sweep's pass reads the same rows
If it freezes and wakes up late, its writes meet another generation and stop (Fenced); what it sent meets the fence.
"""

from __future__ import annotations

import logging
from datetime import timedelta
from uuid import UUID

from sqlalchemy import func, select

from broker import adopted, ending, launching, removing, snapshots, watching
from broker.claims import Claim, claim, release
from broker.errors import Fenced, SiteBusy, SiteError
from broker.launching import Pass
from broker.lease_view import TRY_AGAIN, View, read
from broker.models.leases import OPEN, Desired, Lease, LeaseState, Outcome, Part
from broker.models.workloads import OrderState
from broker.orders import activate_order, finish_lease
from broker.remote import PartKind
from broker.steps import (
    WITHOUT_SITE,
    Activate,
    Ask,
    Check,
    Discard,
    End,
    EndKeeping,
    Find,
    Finish,
    Found,
    Fund,
    GiveUp,
    Look,
    Make,
    Plan,
    Release,
    Remove,
    Renew,
    Resolve,
    Step,
    Wait,
)
from broker.tools import Tools

log = logging.getLogger(__name__)

# A pass takes at most this many steps, then lets others have their turn; a launch takes fewer than ten.
STEPS = 30
STUCK = launching.STUCK
# A lease that is over is offered to accounting again this often, until it is settled.
UNSETTLED = timedelta(minutes=1)
# A lease at a site that is only observed is offered again this often: it may be brokered again.
OBSERVING = timedelta(minutes=1)


# --- what to do next: pure ---------------------------------------------------------------------------------------


def decide(view: View, done: frozenset[UUID]) -> Step:
    """The next step. `done` holds what this pass already looked at, so that it does not look twice.

    The order is the argument: first what should not exist, then what may exist, and only then something new.
    """
    first = _before_anything_new(view, done)
    if first is not None:
        return first
    if view.lease.desired is Desired.SNAPSHOT:
        return Activate() if view.order is OrderState.PLACED else _towards_snapshot(view, done)
    return _towards_gone(view.lease, done) if view.lease.desired is Desired.GONE else _towards_running(view, done)


def _before_anything_new(view: View, done: frozenset[UUID]) -> Step | None:  # noqa: PLR0911 - line by line
    lease = view.lease
    if view.is_left_alone:
        return _left_alone(view, done)
    if lease.must_find and lease.gone_at is None:
        return _towards_found(lease, done)
    parts = {part.id: part for part in lease.parts}
    for attempt in lease.attempts:
        if attempt.outcome is Outcome.DISCARD and attempt.id not in done:
            return Discard(attempt, parts[attempt.part_id])
    if lease.gone_at is not None:
        return Wait(None if lease.settled_at is not None else UNSETTLED)
    if view.is_unpaid and lease.order_id not in done:
        return Wait(None) if lease.id in done else Fund()
    over = _over(view, done)
    if over is not None:
        return over
    for attempt in lease.attempts:
        if attempt.outcome in OPEN:
            return Wait(None) if attempt.id in done else Resolve(attempt, parts[attempt.part_id])
    return None


def _left_alone(view: View, done: frozenset[UUID]) -> Step:
    """What is looked at and never changed: its end is seen, and what was adopted can be given up."""
    lease = view.lease
    seen = next((part for part in lease.parts if lease.adopted_at is not None or part.kind is PartKind.SERVER), None)
    if lease.gone_at is not None:
        return Wait(UNSETTLED if lease.settled_at is None else None)
    if seen is not None:
        if lease.adopted_at is not None and seen.gone_at is not None:
            return Finish()
        if lease.adopted_at is not None and lease.desired is Desired.GONE:
            return Release(seen)
        if lease.is_missing and seen.gone_at is None and seen.id not in done:
            return Ask(seen)
    # Whatever happens to what was adopted wakes it, and so does its end.
    return Wait(OBSERVING if lease.adopted_at is None else None)


def _over(view: View, done: frozenset[UUID]) -> Step | None:
    """What the clock ends: the machine, or the keeping of its snapshot."""
    lease = view.lease
    if lease.desired is Desired.SNAPSHOT:
        reason = view.kept_no_longer(done)
        return None if reason is None else EndKeeping(reason)
    if lease.desired is Desired.GONE or view.now < view.deleted_at:
        return None
    return _to_be_seen(view, done) or End()


def _to_be_seen(view: View, done: frozenset[UUID]) -> Step | None:
    """A machine that was made, or may have been, and nobody saw run: once it is seen to, its time counts anew.

    What was seen before its time was over does not count, also where this pass saw it: a freeze may lie between.
    """
    lease = view.lease
    server = next((part for part in lease.parts if part.kind is PartKind.SERVER), None)
    if server is None or lease.started_at is not None:
        return None
    if server.remote_id is not None:
        if server.id not in done:
            return Look(server, lease.desired)
        return Wait(None) if lease.seen_at is not None and lease.seen_at < view.deleted_at else None
    tries = (attempt for attempt in lease.attempts if attempt.part_id == server.id and attempt.outcome in OPEN)
    return next((Resolve(attempt, server) for attempt in tries if attempt.id not in done), None)


def _towards_found(lease: Lease, done: frozenset[UUID]) -> Step:
    """Parts in their order, as some are found by the ids of those before them."""
    if not lease.parts:
        return Plan()
    return next((Find(part) for part in lease.parts if part.id not in done), Found())


def _towards_gone(lease: Lease, done: frozenset[UUID]) -> Step:
    """All parts go."""
    return _away(lease, done, but=None) or Finish()


def _towards_snapshot(view: View, done: frozenset[UUID]) -> Step:
    """Nothing of the machine goes before a snapshot of its disk, taken after its end, is whole; then all but that."""
    lease, server, snapshot = view.lease, view.part(PartKind.SERVER), view.part(PartKind.SNAPSHOT)
    if server.gone_at is None and snapshot.ready_at is None:
        if lease.is_missing or (snapshot.remote_id is None and not view.is_still):  # it may be gone; it is to be off
            return Wait(None) if server.id in done else Look(server, Desired.STOPPED)
        if snapshot.id in done:
            return Wait(None)
        if snapshot.remote_id is None:
            return Make(snapshot)
        is_old = snapshot.made_at is not None and snapshot.made_at < (lease.lapsed_at or view.now)
        return Renew(server, snapshot) if is_old else Check(server, snapshot)
    following = _away(lease, done, but=snapshot)
    if server.gone_at is None or isinstance(following, Resolve | Remove):
        return following or Wait(None)
    return Wait(None) if snapshot.id in done else Check(server, snapshot)  # also while leftovers do not go


def _away(lease: Lease, done: frozenset[UUID], *, but: Part | None) -> Step | None:
    """Parts go in the reverse order of their making; the machine is seen gone before what it was made on.

    A harmless part that is not gone yet is not waited for, else the machine would run on meanwhile. Before all that,
    attempts that were given up as ABSENT are looked for once more: what they made may use the parts that are left.
    """
    for attempt in lease.attempts:
        is_kept = but is not None and attempt.part_id == but.id
        if attempt.outcome is Outcome.ABSENT and attempt.id not in done and not is_kept:
            return Resolve(attempt, next(part for part in lease.parts if part.id == attempt.part_id))
    is_left = any(attempt.outcome is Outcome.DISCARD for attempt in lease.attempts)
    for part in reversed(lease.parts):
        if part is but or part.remote_id is None or part.gone_at is not None:
            continue
        if part.id not in done:
            return Remove(part)
        if not part.is_harmless:
            return Wait(None)
        is_left = True
    return Wait(None) if is_left else None


def _towards_running(view: View, done: frozenset[UUID]) -> Step:
    """Parts are made in their order; a machine that is whole is looked at."""
    if not view.lease.parts:
        return Plan()
    server = view.part(PartKind.SERVER)
    if view.lease.keep is not None and server.remote_id is None and not _has(view.lease, PartKind.SNAPSHOT):
        return GiveUp("the site can take no snapshot")
    for part in view.lease.parts:
        if part.remote_id is not None or part.gone_at is not None or part.kind is PartKind.SNAPSHOT:
            continue
        last = view.last_attempt(part)
        is_refused = last is not None and last.outcome is Outcome.REFUSED and last.error_code not in TRY_AGAIN
        if last is not None and is_refused and view.lease.started_at is None:  # what ran may hold work
            return GiveUp(last.error or "the site refused")
        return Wait(None) if part.id in done else Make(part)
    if view.lease.state is LeaseState.RUNNING and view.order is OrderState.PLACED:
        return Activate()
    return Wait(None) if server.id in done else Look(server, view.power)


def _has(lease: Lease, kind: PartKind) -> bool:
    return any(part.kind is kind for part in lease.parts)


# --- the pass ----------------------------------------------------------------------------------------------------


def reconcile(tools: Tools, lease_id: UUID) -> bool:
    """Bring one lease nearer to what is desired; True where it was due and ours to work on.

    A site's errors are kept in the row with a backoff (`failures`, `trouble`), never raised. Errors of our own leave
    the same mark before they are raised, so that nothing is retried hot.
    """
    mine = claim(tools.sessions, lease_id, length=tools.timing.claim)
    if mine is None:
        return False
    with tools.sessions() as session:
        lease = session.get_one(Lease, lease_id)
        site_id, failures = lease.site_id, lease.failures + 1  # if this pass fails too
    if failures > STUCK:  # told before the pass, as this one may not come to its end either
        _tell_a_person(tools, lease_id, lease.trouble or "its worker died, again and again, while it was at it")
    # What stands unless the pass gets through.
    look_in: timedelta | None = tools.timing.backoff(failures)
    trouble: str | None = "the last pass did not finish"
    try:
        adapter = tools.open_site(site_id)
        look_in = _steps(Pass(tools, adapter, mine))
        if failures > STUCK:
            with tools.sessions.begin() as session:
                launching.close_stuck(session, lease_id)
        failures, trouble = 0, None
    except Fenced as fenced:
        log.info("lease taken over", extra={"lease": str(lease_id), "detail": fenced.detail})
    except SiteBusy as busy:
        look_in = max(tools.timing.backoff(failures), timedelta(seconds=min(busy.retry_after or 0, 3600)))
        trouble = str(busy)
    except SiteError as error:
        trouble = str(error)
    finally:
        _give_back(tools, mine, look_in=look_in, failures=failures, trouble=trouble)
    return True


def _give_back(tools: Tools, mine: Claim, *, look_in: timedelta | None, failures: int, trouble: str | None) -> None:
    try:
        release(tools.sessions, mine, look_in=look_in, failures=failures, trouble=trouble)
    except Fenced:
        log.info("lease taken over before its release", extra={"lease": str(mine.lease_id)})
        return
    if failures >= STUCK:  # every time: whoever should have told at first may have died
        _tell_a_person(tools, mine.lease_id, trouble)


def _tell_a_person(tools: Tools, lease_id: UUID, trouble: str | None) -> None:
    with tools.sessions.begin() as session:
        lease = session.get_one(Lease, lease_id)
        hint = "Mend the site or its credential (`leeway site check`); Leeway goes on by itself."
        if lease.desired is Desired.SNAPSHOT and lease.state is not LeaseState.SNAPSHOT:
            hint += f" {snapshots.WITHOUT}"
        now = session.scalars(select(func.clock_timestamp())).one()
        launching.tell_stuck(session, lease, str(trouble), hint=hint, now=now)


def _steps(run: Pass) -> timedelta | None:
    """Step until there is nothing to do now; returns when to look again (None: when woken)."""
    for _ in range(STEPS):
        view = read(run.sessions, run.mine.lease_id)
        step = decide(view, frozenset(run.done))
        if isinstance(step, Wait):
            if run.trouble is not None:
                raise run.trouble
            if view.is_left_alone and view.lease.gone_at is None:
                ending.tell_if_over(run, view)
            elif view.is_unsaved:
                snapshots.tell_of_delay(run, view)
            return _wait(run, view, step)
        _take(run, view, step)
    return timedelta(0)


def _wait(run: Pass, view: View, step: Wait) -> timedelta | None:
    """The shortest of what the step asks for, what the pass asked for, and the next moment on the stop ladder."""
    asked = [time for time in (step.time, run.look_in) if time is not None]
    if view.next_change is not None:
        asked.append(view.next_change - view.now)
    return min(asked, default=None)


def _take(run: Pass, view: View, step: Step) -> None:  # noqa: C901, PLR0912 - a table of steps, one line each
    """Take one step, and leave its outcome in the rows."""
    lease = view.lease
    if not isinstance(step, WITHOUT_SITE):
        launching.require_scope(run, lease)
    match step:
        case Find(part):
            launching.find(run, lease, part)
        case Found():
            snapshots.keep_what_is_left(run, lease)
            launching.found(run)
        case Plan():
            launching.plan(run, lease)
        case Discard(attempt, part):
            removing.discard(run, attempt, part)
        case Resolve(attempt, part):
            launching.resolve(run, lease, attempt, part, now=view.now)
        case Make(part):
            launching.make(run, lease, part)
        case GiveUp(reason):
            ending.want_gone(run, f"the site cannot give it: {reason}", failure=reason)
        case Fund():
            ending.fund(run, lease)
        case End():
            ending.end(run)
        case Check(server, snapshot):
            snapshots.check(run, server, snapshot, asked_at=view.now)
        case Renew(server, snapshot):
            snapshots.renew(run, lease, server, snapshot, asked_at=view.now)
        case EndKeeping(reason):
            ending.end_keeping(run, lease, reason)
        case Remove(part):
            if part.kind is not PartKind.SERVER or _may_go(run, view, part):
                removing.remove(run, lease, part, now=view.now)
        case Activate():
            activate_order(run.sessions, lease.order_id)
        case Ask(part):
            watching.ask(run, lease, part, asked_at=view.now)
        case Release(part):
            adopted.give_up(run, lease, part)
        case Look(server, power):
            watching.look(run, lease, server, power=power, asked_at=view.now)
        case Finish():
            finish_lease(run.tools, run.mine)


def _may_go(run: Pass, view: View, server: Part) -> bool:
    """A machine of which a snapshot is to be kept may, while that is whole."""
    if view.lease.desired is not Desired.SNAPSHOT:
        return True
    return snapshots.still_whole(run, server, view.part(PartKind.SNAPSHOT))
