"""Ends that were estimated are corrected once the site has said when they were.

A machine that is gone and whose end nobody saw is charged until it was last seen. Where the site could not be asked at
that moment, it is asked again after each listing for an hour; its word makes a second GONE observation (SNAPSHOT,
where that is what is left of it), and accounting posts the difference. When a snapshot ended no site says.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import and_, exists, func, select
from sqlalchemy.orm import Session, aliased

from broker.errors import SiteError
from broker.models.leases import Lease, LeaseState, Observation, Part
from broker.observations import end_after
from broker.orders import RECONCILE
from broker.ports import CloudAdapter, Endings
from broker.remote import Deadline, PartKind
from broker.timeline import tell
from broker.tools import Tools

# A site that has not said it by then no longer knows (one that vanished leaves no trace), and its bill will tell.
ASKED_FOR: Final = timedelta(hours=1)
# So many are asked for after one listing.
MOST: Final = 20


def correct_ends(tools: Tools, site_id: UUID, adapter: CloudAdapter) -> int:
    """Ask a site for the ends that are estimated; returns how many it told. An error of the site is the next one's."""
    if not isinstance(adapter, Endings):
        return 0
    told = 0
    with tools.sessions() as session:
        estimated = _estimated(session, site_id)
    for guess, remote_id in estimated:
        last = guess.since or guess.seen_at
        deadline = Deadline.after(tools.timing.call.total_seconds())
        try:
            word = adapter.ended_at(remote_id, since=last, deadline=deadline)
        except SiteError:
            break
        if word is not None:
            with tools.sessions.begin() as session:
                told += _correct(session, tools, guess, max(word, last))
    return told


def _estimated(session: Session, site_id: UUID) -> list[tuple[Observation, str]]:
    """Estimated ends that nothing has corrected yet, with the machine's id."""
    later = aliased(Observation)
    is_corrected = exists().where(later.lease_id == Observation.lease_id, later.seen_at > Observation.seen_at)
    former = aliased(Observation)
    is_of_snapshot = and_(
        Observation.state == LeaseState.GONE,
        exists().where(former.lease_id == Observation.lease_id, former.state == LeaseState.SNAPSHOT),
    )
    rows = session.execute(
        select(Observation, Part.remote_id)
        .join(Lease, Lease.id == Observation.lease_id)
        .join(Part, Part.lease_id == Lease.id)
        .where(
            Lease.site_id == site_id,
            Part.kind == PartKind.SERVER,
            Part.remote_id.is_not(None),
            Observation.state.in_((LeaseState.SNAPSHOT, LeaseState.GONE)),
            Observation.is_estimated,
            Observation.seen_at > func.clock_timestamp() - ASKED_FOR,
            ~is_corrected,
            ~is_of_snapshot,
        )
        .order_by(Observation.seen_at)
        .limit(MOST)
    ).all()
    return [(guess, remote_id) for guess, remote_id in rows if remote_id is not None]


def _correct(session: Session, tools: Tools, guess: Observation, ended_at: datetime) -> bool:
    """Write the site's word down, and have the lease's money looked at again, settled or not."""
    lease = session.get_one(Lease, guess.lease_id, with_for_update={"key_share": True}, populate_existing=True)
    newest = select(Observation.id).where(Observation.lease_id == lease.id).order_by(Observation.seen_at.desc())
    if session.scalars(newest.limit(1)).one() != guess.id:
        return False  # somebody else was faster
    now = session.scalars(select(func.clock_timestamp())).one()
    word = end_after(guess, seen_at=now, ended_at=ended_at, is_estimated=False)
    word.state = guess.state
    session.add(word)
    lease.settled_at, lease.next_look_at = None, now
    tell(session, lease, "state", "the site has said when the machine ended")
    tools.jobs.defer(session, RECONCILE, str(lease.id))
    return True
