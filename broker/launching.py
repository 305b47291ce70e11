"""The remote half of a step towards a machine: make a part, find out what an open attempt made.

Each function is one remote conversation between two transactions: none is held open while a site answers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session, sessionmaker

from broker.claims import Claim, claimed_at, wake, writing
from broker.errors import SiteConflict, SiteDenied, SiteError, SiteRefused, SiteUnknown
from broker.lease_view import adopted_among, paid_until
from broker.models.leases import OPEN, Desired, LaunchAttempt, Lease, Outcome, Part
from broker.models.workloads import Order
from broker.ports import CloudAdapter
from broker.remote import (
    Capability,
    Deadline,
    Fence,
    MachineSpec,
    MachineState,
    PartKind,
    PartSpec,
    RemoteMachine,
    RemotePart,
    RemoteSnapshot,
    SnapshotState,
    Tags,
)
from broker.timeline import Concern, close_finding, raise_finding, tell
from broker.tools import Timing, Tools
from broker.values import new_id

STUCK_FINDING = "lease_stuck"
STUCK = 8  # so many failures in a row, and a person is told, until a pass gets through
UNKNOWN_FINDING = "launch_unknown"
UNCLEAR = 3  # so many requests for one part without a clear answer, and a person is told
UNFENCED = 3  # where no fence holds, so many settle times pass before an unknown outcome counts as nothing (ADR 0008)


@dataclass(slots=True)
class Pass:
    """One worker's pass over one lease: its tools, the site, its claim, and what it has already looked at.

    `trouble`: an error that did not stop the pass, to be raised at its end.
    """

    tools: Tools
    adapter: CloudAdapter
    mine: Claim
    done: set[UUID] = field(default_factory=set)
    look_in: timedelta | None = None
    trouble: SiteError | None = None
    scope: str | None = None

    @property
    def sessions(self) -> sessionmaker[Session]:
        """Where the rows are."""
        return self.tools.sessions

    @property
    def timing(self) -> Timing:
        """How long things may take."""
        return self.tools.timing

    @property
    def settle(self) -> timedelta:
        """From the last moment a request may be sent until what it made must show."""
        return self.timing.settle_of(self.adapter)

    def deadline(self) -> Deadline:
        """For one conversation that starts now."""
        return Deadline.after(self.timing.call.total_seconds())

    def later(self, key: UUID, wait: timedelta) -> None:
        """Leave `key` for this pass; the lease is looked at again after the shortest such wait."""
        self.done.add(key)
        wait = max(wait, self.timing.first_look)
        self.look_in = wait if self.look_in is None else min(self.look_in, wait)

    def look_ever_later(self, key: UUID, *, after: timedelta) -> None:
        """As `later`, for what the site has been doing by itself for `after`: a quarter of that again, and not hot."""
        self.later(key, min(after / 4, self.timing.last_look))


def require_scope(run: Pass, lease: Lease) -> None:
    """Refuse to ask with a credential that cannot see the lease's parts: its 404 would say nothing about them."""
    if run.scope is None:
        run.scope = run.adapter.scope(deadline=run.deadline())
    if lease.scope not in (None, run.scope):
        raise SiteDenied(
            f"the site's credential opens another project ({run.scope}) than the one that this is in ({lease.scope})",
            hint="Give the site a credential of that project until what runs there has ended.",
        )


def plan(run: Pass, lease: Lease) -> None:
    """Write down the parts that the site's way of making a machine needs, and which credential scope they are in."""
    specs = [*run.adapter.plan(MachineSpec(**lease.spec))]
    if lease.keep is not None and Capability.SNAPSHOT in run.adapter.capabilities:  # made last (`broker.snapshots`)
        specs.append(PartSpec(PartKind.SNAPSHOT, Fence.NONE, is_harmless=True))
    with writing(run.sessions, run.mine) as (session, row):
        row.scope = run.scope
        for position, spec in enumerate(specs):
            session.add(
                Part(
                    lease_id=row.id,
                    kind=spec.kind,
                    position=position,
                    fence=spec.fence,
                    is_harmless=spec.is_harmless,
                )
            )


def find(run: Pass, lease: Lease, part: Part) -> None:
    """Find whatever was made for a part that the rows do not know of."""
    _adopt(run, lease, part)
    run.done.add(part.id)


def found(run: Pass) -> None:
    """Every part was searched for; the rest of the pass may make and delete.

    An extension may be lost with the rows that the backup lacks: what seems to be over has its whole grace from now on.
    """
    with writing(run.sessions, run.mine) as (session, row):
        row.must_find = False
        close_stuck(session, row.id)  # said before the backup, or of this search
        order = session.get_one(Order, row.order_id)
        over_for = claimed_at(row, run.mine) - paid_until(row, order.held_until)
        if row.grace is not None and over_for > timedelta(0):
            row.grace += over_for
    run.done.clear()


def close_stuck(session: Session, key: UUID) -> None:
    """It gets on, or it is over."""
    close_finding(session, STUCK_FINDING, str(key))


def tell_stuck(session: Session, lease: Lease, why: str, *, hint: str, now: datetime, key: UUID | None = None) -> None:
    """A lease that does not get on is still tried, ever more rarely, and a person gets to know.

    `key`: what the finding is of, where that is not the lease itself but a leftover of it.
    """
    concern = Concern(
        kind=STUCK_FINDING,
        key=str(key or lease.id),
        text=f"{lease.project}/{lease.spec['name']} does not get on: {why}",
        hint=hint,
        site_id=lease.site_id,
        lease_id=lease.id,
    )
    raise_finding(session, concern, now=now)


# --- making ------------------------------------------------------------------------------------------------------


def make(run: Pass, lease: Lease, part: Part) -> None:
    """Commit an attempt, send its request, write down what came of it."""
    if any(attempt.part_id == part.id for attempt in lease.attempts) and _adopt(run, lease, part):
        return  # late, but there
    # The monotonic clock is read before the row's `give_up_at` is set, so the request never goes out after it.
    deadline = run.deadline()
    attempt = _open_attempt(run, lease, part)
    until = lease.ends_at if part.kind is not PartKind.SNAPSHOT else attempt.started_at + (lease.keep or timedelta(0))
    tags = Tags(run.tools.installation, lease.id, attempt.id, lease.project, until)
    try:
        remote_id = run.adapter.make(
            part.kind, MachineSpec(**lease.spec), tags=tags, made=_made(lease), deadline=deadline
        )
    except (SiteUnknown, SiteConflict) as error:
        # A conflict says that the fence held: another request for this part has made something, seen or not. It is no
        # refusal of the offer, and nobody knows yet what it was.
        is_open = isinstance(error, SiteUnknown) or part.fence is not Fence.NONE
        _close(run, attempt, Outcome.UNKNOWN if is_open else Outcome.REFUSED, error)
        if is_open:
            run.later(attempt.id, run.timing.first_look)
        return
    except SiteError as error:
        _close(run, attempt, Outcome.REFUSED, error)
        if not isinstance(error, SiteRefused) or lease.started_at is not None:
            raise  # denied or busy: about us, not about the offer; and what runs is not given up for what it lacks
        return
    _win(run, attempt.id, part, remote_id)


def _open_attempt(run: Pass, lease: Lease, part: Part) -> LaunchAttempt:
    with writing(run.sessions, run.mine) as (session, row):
        now = claimed_at(row, run.mine)
        number = sum(1 for attempt in lease.attempts if attempt.part_id == part.id) + 1
        attempt = LaunchAttempt(
            id=new_id(),
            lease_id=lease.id,
            part_id=part.id,
            number=number,
            fence=part.fence,
            started_at=now,
            give_up_at=now + run.timing.call,
            outcome=Outcome.PREPARED,
        )
        session.add(attempt)
        if part.kind is PartKind.SERVER:
            tell(session, row, "launch", f"asking the site for the machine (try {number})", attempt=str(attempt.id))
        if part.kind is PartKind.SNAPSHOT:
            text = f"asking the site for a snapshot of the disk (try {number})"
            tell(session, row, "snapshot", text, attempt=str(attempt.id))
    return attempt


def _win(run: Pass, attempt_id: UUID, part: Part, remote_id: str) -> bool:
    """Set the part's remote id if nobody has; an attempt that comes second with another id is marked DISCARD.

    So is one that comes when the lease is over: nobody would look after its part any more. Not fenced on purpose: that
    something exists is a fact, whoever learns it. The compare-and-set decides.
    """
    with run.sessions.begin() as session:
        # Lease first, as everywhere: two who write to one lease's parts wait for each other, and do not deadlock.
        lease = session.scalars(select(Lease).where(Lease.id == part.lease_id).with_for_update(key_share=True)).one()
        now = func.clock_timestamp()
        if lease.gone_at is None:
            session.execute(
                update(Part)
                .where(Part.id == part.id, Part.remote_id.is_(None))
                .values(remote_id=remote_id, made_at=now)
            )
        won = session.scalars(select(Part.remote_id).where(Part.id == part.id)).one() == remote_id
        session.execute(
            update(LaunchAttempt)
            .where(LaunchAttempt.id == attempt_id)
            .values(remote_id=remote_id, outcome=Outcome.CREATED if won else Outcome.DISCARD, resolved_at=now)
        )
        close_finding(session, UNKNOWN_FINDING, str(attempt_id))
        if won:
            close_stuck(session, lease.id)
        else:
            tell(session, lease, "discard", f"a second {part.kind} was made and will be deleted", remote_id=remote_id)
            wake(session, lease.id)  # this worker may have lost its claim, and nothing else may be due
    return won


def _close(run: Pass, attempt: LaunchAttempt, outcome: Outcome, error: SiteError) -> None:
    """Write an attempt's outcome; unfenced, as it is the attempt's own."""
    with run.sessions.begin() as session:
        session.execute(
            update(LaunchAttempt)
            .where(LaunchAttempt.id == attempt.id, LaunchAttempt.outcome.in_(OPEN))
            .values(
                outcome=outcome,
                error_code=error.code,
                error=error.detail[:2000],
                resolved_at=None if outcome in OPEN else func.clock_timestamp(),
            )
        )
        if outcome not in OPEN:  # an answer may come after a person was told that there was none
            close_finding(session, UNKNOWN_FINDING, str(attempt.id))


# --- what an open attempt made -----------------------------------------------------------------------------------


def resolve(run: Pass, lease: Lease, attempt: LaunchAttempt, part: Part, *, now: datetime) -> None:
    """Look for what an open attempt made; absence counts only after `give_up_at` and the settle time.

    Where no fence would stop a second machine, it is looked for three times as long, and what was not found is not
    tried again: a person is told, and stops the lease.
    """
    owners = _adopt(run, lease, part)
    if attempt.id in owners or (owners and part.remote_id is None):
        return
    if attempt.outcome not in OPEN:  # one search says it of all that came to nothing, and they may be many
        run.done.update(a.id for a in lease.attempts if a.part_id == part.id and a.outcome not in OPEN)
        return
    is_unfenced = part.fence is Fence.NONE and not part.is_harmless
    absent_at = attempt.give_up_at + run.settle * (UNFENCED if is_unfenced else 1)
    if now < absent_at:
        run.later(attempt.id, min(absent_at - now, run.timing.backoff(lease.failures + 1)))
        return
    if is_unfenced and lease.desired is not Desired.GONE:
        _wait_for_a_person(run, lease, attempt, part, now=now)
        return
    unclear = 1 + sum(a.part_id == part.id and a.outcome is Outcome.ABSENT for a in lease.attempts)
    with run.sessions.begin() as session:
        session.execute(
            update(LaunchAttempt)
            .where(LaunchAttempt.id == attempt.id, LaunchAttempt.outcome.in_(OPEN))
            .values(outcome=Outcome.ABSENT, resolved_at=func.clock_timestamp())
        )
        close_finding(session, UNKNOWN_FINDING, str(attempt.id))
        if unclear >= UNCLEAR and lease.desired is not Desired.GONE:
            why = f"{unclear} requests for its {part.kind} had no clear answer, and nothing was made ({attempt.error})"
            tell_stuck(session, lease, why, hint="Look at the site, or stop it and take another offer.", now=now)


def _wait_for_a_person(run: Pass, lease: Lease, attempt: LaunchAttempt, part: Part, *, now: datetime) -> None:
    """Nothing at the site would stop a second machine: keep looking, and tell a person."""
    with writing(run.sessions, run.mine) as (session, row):
        concern = Concern(
            kind=UNKNOWN_FINDING,
            key=str(attempt.id),
            text=f"the site never said whether it made the {part.kind} of {lease.project}/{lease.spec['name']}",
            hint="Nothing is tried again by itself: stop it (`leeway stop`) and order again. Should the machine show "
            "up, before or after that, Leeway takes it over or deletes it.",
            site_id=row.site_id,
            lease_id=row.id,
        )
        raise_finding(session, concern, now=now)
    run.later(attempt.id, run.timing.last_look)


# Of several machines of one lease the one that is furthest is kept: two on one port end as one that runs and one in
# ERROR. Of several snapshots the whole one: the machine may be gone.
_FURTHEST = (MachineState.RUNNING, MachineState.STOPPED, MachineState.SHELVED, MachineState.BUILDING)
_WHOLE = (SnapshotState.READY, SnapshotState.SAVING, SnapshotState.FAILED)


def _adopt(run: Pass, lease: Lease, part: Part) -> set[UUID]:
    """Find what was made for a part: one becomes the part unless it has one, the others are discarded.

    Returns the attempts that made what was found.
    """
    things = run.adapter.find(part.kind, lease=lease.id, made=_made(lease), deadline=run.deadline())
    # A name alone may be of a person's own image, and a machine must not go for that.
    mine = [
        thing
        for thing in things
        if (thing.tags is None and part.kind is not PartKind.SNAPSHOT)
        or (thing.tags is not None and thing.tags.installation == run.tools.installation)
    ]
    with run.sessions() as session:
        lost: set[str | None] = {*adopted_among(session, [thing.remote_id for thing in mine])}
    lost |= {attempt.remote_id for attempt in lease.attempts if attempt.outcome in (Outcome.DISCARD, Outcome.GONE)}
    mine = sorted((thing for thing in mine if thing.remote_id not in lost), key=_rank)
    owners = set()
    for thing in mine:
        attempt_id = _attempt_of(run, lease, part, thing)
        _win(run, attempt_id, part, thing.remote_id)
        owners.add(attempt_id)
    return owners


def _rank(thing: RemotePart) -> tuple[int, int]:
    if isinstance(thing, RemoteSnapshot):  # of two that are whole the newer one: attempts' ids are in their order
        return _WHOLE.index(thing.state), 0 if thing.tags is None else -thing.tags.attempt.int
    state = thing.state if isinstance(thing, RemoteMachine) else None
    return (*_FURTHEST, state).index(state), 0


def _attempt_of(run: Pass, lease: Lease, part: Part, thing: RemotePart) -> UUID:
    """The attempt that made a thing: the one with its id, by its tag, else the open one, else a row for it is added."""
    tries = [attempt for attempt in lease.attempts if attempt.part_id == part.id]
    known = [attempt for attempt in tries if attempt.remote_id == thing.remote_id]
    free = [attempt for attempt in tries if attempt.remote_id is None]
    tagged = [attempt for attempt in free if thing.tags is not None and attempt.id == thing.tags.attempt]
    chosen = known or tagged or [attempt for attempt in free if attempt.outcome in OPEN]
    if chosen:
        chosen[0].remote_id = thing.remote_id
        return chosen[0].id
    with run.sessions.begin() as session:
        return record_stray(session, part, thing.remote_id, outcome=Outcome.CREATED)


def record_stray(session: Session, part: Part, remote_id: str, *, outcome: Outcome) -> UUID:
    """A row for a thing that no attempt accounts for, so that it is kept or deleted like the others."""
    session.execute(select(Lease.id).where(Lease.id == part.lease_id).with_for_update(key_share=True))
    known = session.scalars(
        select(LaunchAttempt).where(LaunchAttempt.part_id == part.id, LaunchAttempt.remote_id == remote_id)
    ).first()
    if known is not None:
        if outcome is Outcome.DISCARD and known.outcome in (Outcome.CREATED, Outcome.GONE):
            known.outcome, known.resolved_at = outcome, func.clock_timestamp()  # taken for gone, and it shows again
        return known.id
    newest = func.coalesce(func.max(LaunchAttempt.number), 0)
    number, now = session.execute(select(newest, func.clock_timestamp()).where(LaunchAttempt.part_id == part.id)).one()
    attempt = LaunchAttempt(
        id=new_id(),
        lease_id=part.lease_id,
        part_id=part.id,
        number=number + 1,
        fence=part.fence,
        started_at=now,
        give_up_at=now,
        remote_id=remote_id,
        outcome=outcome,
        resolved_at=now,
    )
    session.add(attempt)
    session.flush()
    return attempt.id


def _made(lease: Lease) -> dict[PartKind, str]:
    return {part.kind: part.remote_id for part in lease.parts if part.remote_id is not None and part.gone_at is None}
