"""One lease: from what is desired to what is observed. Idempotent; may be stopped between any two lines.

A pass claims the lease and repeats: read the rows, decide on one step (pure), take it, write down what came of it. The
rows alone say what happens next, so it does not matter which process takes the next step, nor why the last one died.

Why nothing is made twice. Before a request goes out, its attempt is committed (PREPARED), at most one open attempt per
part. If the process dies, or the site answers unclearly, the attempt stays open, and an open attempt has one way
forward: look for what it may have made. The request is never sent after `give_up_at`, and what was accepted by then
shows within the settle time; so from `give_up_at + settle` on, what does not show is ABSENT and may be tried again.
Where a late thing shows up all the same, the part's `remote_id` decides: it is set once, by compare-and-set, and what
lost is marked DISCARD and deleted until seen gone. On fence NONE nothing would stop a second machine at the site, so
there the unknown is never retried: it becomes a finding.

Why nothing is lost. An id is written into the attempt by whoever learns it, even by a worker that lost its claim;
everything else is written only under the claim's generation (`broker.claims`).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.orm.attributes import set_committed_value

from broker import launching, watching
from broker.claims import Claim, claim, release, writing
from broker.errors import Fenced, SiteBusy, SiteDenied, SiteError
from broker.launching import Pass
from broker.models.leases import OPEN, Desired, LaunchAttempt, Lease, LeaseState, Outcome, Part
from broker.models.workloads import Order, OrderState
from broker.orders import activate_order, finish_lease
from broker.remote import PartKind
from broker.timeline import tell
from broker.tools import Tools

T = TypeVar("T")
log = logging.getLogger(__name__)

# A pass takes at most this many steps, then lets others have their turn; a launch takes fewer than ten.
STEPS = 30
# After this many failures in a row a person is told.
STUCK = 8
# A lease that is over is offered to accounting again this often, until it is settled.
UNSETTLED = timedelta(minutes=1)
# Refusals that are about us or the moment, not about the offer: the same request may be sent again.
TRY_AGAIN = frozenset({SiteBusy.code, SiteDenied.code})


# --- what to do next: pure ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Plan:
    """Write down the parts that the machine needs."""


@dataclass(frozen=True, slots=True)
class Discard:
    """Delete what an attempt made and the part does not want; look until it is gone."""

    attempt: LaunchAttempt
    part: Part


@dataclass(frozen=True, slots=True)
class Resolve:
    """Find out what an open attempt made."""

    attempt: LaunchAttempt
    part: Part


@dataclass(frozen=True, slots=True)
class Make:
    """Open an attempt and send its request."""

    part: Part


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The site cannot give this machine: end the lease, so that the next offer can be tried."""

    reason: str


@dataclass(frozen=True, slots=True)
class Remove:
    """Delete a part; look until it is gone."""

    part: Part


@dataclass(frozen=True, slots=True)
class Finish:
    """Nothing of the lease exists any more."""


@dataclass(frozen=True, slots=True)
class End:
    """The end date has come."""


@dataclass(frozen=True, slots=True)
class Activate:
    """The first machine of the order runs: the order is active."""


@dataclass(frozen=True, slots=True)
class Look:
    """Look at the machine, and bring its power state to what is desired."""

    server: Part


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do for `time`; None: until something wakes the lease."""

    time: timedelta | None


Step = Plan | Discard | Resolve | Make | GiveUp | Remove | Finish | End | Activate | Look | Wait


@dataclass(frozen=True, slots=True)
class View:
    """The lease as one transaction read it. `now` is the database's clock."""

    lease: Lease
    order: OrderState
    now: datetime

    def last_attempt(self, part: Part) -> LaunchAttempt | None:
        """The newest try at making the part that was not thrown away."""
        tries = [
            a for a in self.lease.attempts if a.part_id == part.id and a.outcome not in (Outcome.DISCARD, Outcome.GONE)
        ]
        return tries[-1] if tries else None


def decide(view: View, done: frozenset[UUID]) -> Step:
    """The next step. `done` holds what this pass already looked at, so that it does not look twice.

    The order is the argument: first what should not exist, then what may exist, and only then something new.
    """
    lease = view.lease
    parts = {part.id: part for part in lease.parts}
    for attempt in lease.attempts:
        if attempt.outcome is Outcome.DISCARD and attempt.id not in done:
            return Discard(attempt, parts[attempt.part_id])
    if lease.gone_at is not None:
        return Wait(None if lease.settled_at is not None else UNSETTLED)
    if lease.desired is not Desired.GONE and view.now >= lease.ends_at:
        return End()
    for attempt in lease.attempts:
        if attempt.outcome in OPEN:
            return Wait(None) if attempt.id in done else Resolve(attempt, parts[attempt.part_id])
    if lease.desired is Desired.GONE:
        return _towards_gone(lease, done)
    return _towards_running(view, done)


def _towards_gone(lease: Lease, done: frozenset[UUID]) -> Step:
    """Parts go in the reverse order of their making, each seen gone before the next."""
    for part in reversed(lease.parts):
        if part.remote_id is not None and part.gone_at is None:
            return Wait(None) if part.id in done else Remove(part)
    if any(attempt.outcome is Outcome.DISCARD for attempt in lease.attempts):
        return Wait(None)
    return Finish()


def _towards_running(view: View, done: frozenset[UUID]) -> Step:
    """Parts are made in their order; a machine that is whole is looked at."""
    if not view.lease.parts:
        return Plan()
    for part in view.lease.parts:
        if part.remote_id is not None:
            continue
        last = view.last_attempt(part)
        if last is not None and last.outcome is Outcome.REFUSED and last.error_code not in TRY_AGAIN:
            return GiveUp(last.error or "the site refused")
        return Wait(None) if part.id in done else Make(part)
    if view.lease.state is LeaseState.RUNNING and view.order is OrderState.PLACED:
        return Activate()
    server = next(part for part in view.lease.parts if part.kind is PartKind.SERVER)
    return Wait(None) if server.id in done else Look(server)


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
        site_id, failures = lease.site_id, lease.failures + 1
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
        hint = "Mend the site or its credential (`leeway site check`); Leeway goes on by itself."
        now = session.scalars(select(func.clock_timestamp())).one()
        launching.tell_stuck(session, session.get_one(Lease, lease_id), str(trouble), hint=hint, now=now)


def _steps(run: Pass) -> timedelta | None:
    """Step until there is nothing to do now; returns when to look again (None: when woken)."""
    for _ in range(STEPS):
        view = read(run.sessions, run.mine.lease_id)
        step = decide(view, frozenset(run.done))
        if isinstance(step, Wait):
            if run.trouble is not None:
                raise run.trouble
            return _wait(run, view, step)
        _take(run, view, step)
    return timedelta(0)


def _wait(run: Pass, view: View, step: Wait) -> timedelta | None:
    """The shortest of what the step and the pass ask for; else the end date, where the lease still runs."""
    asked = [time for time in (step.time, run.look_in) if time is not None]
    if view.lease.desired is not Desired.GONE:
        asked.append(max(view.lease.ends_at - view.now, timedelta(0)))
    return min(asked, default=None)


def read(sessions: sessionmaker[Session], lease_id: UUID) -> View:
    """The lease with its parts and attempts, detached, and the database's clock."""
    with sessions() as session:
        rows = session.execute(
            select(Lease, Order.state, func.clock_timestamp(), Part, LaunchAttempt)
            .join(Order, Order.id == Lease.order_id)
            .outerjoin(Part, Part.lease_id == Lease.id)
            .outerjoin(LaunchAttempt, LaunchAttempt.part_id == Part.id)
            .where(Lease.id == lease_id)
            .order_by(Part.position, LaunchAttempt.number)
        ).all()
        lease, order, now = rows[0][:3]
        # In one query, as this is read before every step.
        set_committed_value(lease, "parts", _each(part for _, _, _, part, _ in rows))
        set_committed_value(lease, "attempts", _each(attempt for _, _, _, _, attempt in rows))
        return View(lease, order, now)


def _each(found: Iterable[T | None]) -> list[T]:
    """Each once, in order, without the gaps of an outer join."""
    return list(dict.fromkeys(thing for thing in found if thing is not None))


def _take(run: Pass, view: View, step: Step) -> None:  # noqa: C901 - a table of steps, one line each
    """Take one step, and leave its outcome in the rows."""
    lease = view.lease
    match step:
        case Plan():
            launching.plan(run, lease)
        case Discard(attempt, part):
            launching.discard(run, attempt, part)
        case Resolve(attempt, part):
            launching.resolve(run, lease, attempt, part, now=view.now)
        case Make(part):
            launching.make(run, lease, part)
        case GiveUp(reason):
            _want_gone(run, f"the site cannot give it: {reason}", failure=reason)
        case End():
            _want_gone(run, "its end date has come")
        case Remove(part):
            launching.remove(run, lease, part)
        case Activate():
            activate_order(run.sessions, lease.order_id)
        case Look(server):
            watching.look(run, lease, server, asked_at=view.now)
        case Finish():
            finish_lease(run.tools, run.mine)


def _want_gone(run: Pass, reason: str, *, failure: str | None = None) -> None:
    with writing(run.sessions, run.mine) as (session, row):
        row.desired, row.stop_reason, row.failure = Desired.GONE, reason, failure
        tell(session, row, "refused" if failure else "end", reason)
