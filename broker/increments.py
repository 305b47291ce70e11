"""What changed at a site since its last listing: for less than a complete listing costs, and knowing less.

A listing of changes is complete in one sense only: every machine that the site itself made, changed or deleted since
then is in it. So it tells of machines that are there, as they are now: observations, presence, quota, duplicates.

A machine that it does not name is as it was, or gone without a deletion, or moved to where we cannot see it: it was not
seen, and its `seen_at` stays. Nor does the site's word that a machine was deleted prove that it is gone. It counts as
the first time that the machine was missing, so that the next complete listing can be the second
(`broker.inventory`), and a machine that Leeway made and that nobody asked to end makes that listing the next one. What
it is charged until is the site's word or the last sight, whenever that is settled (`broker.removing`).

Everything else waits for a complete listing too: volumes, addresses and snapshots, leftovers that are no machines,
machines that no row knows, and all findings, which speak of days and are judged over the whole site.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Protocol

from sqlalchemy import func
from sqlalchemy.orm import Session

from broker.errors import SiteDenied
from broker.models.leases import ENDING
from broker.ports import Changes, CloudAdapter, Increments
from broker.presence import (
    chunks,
    last_scope,
    leased_servers,
    record_ours,
    record_presence,
    record_quotas,
    refuse_another_scope,
    wake,
)
from broker.remote import Deadline, RemoteQuota
from broker.strays import locked
from broker.things import record_changed_servers
from broker.timeline import tell
from broker.tools import Tools
from broker.turns import Turn, end_turn, go_on, writing


class TellsChanges(CloudAdapter, Increments, Protocol):
    """An adapter that can be asked for less than everything."""


def observe_changes(tools: Tools, turn: Turn, adapter: TellsChanges, *, since: datetime, settle: timedelta) -> None:
    """Ask a site what changed, and write down what was seen.

    `since` is the start of the last listing of either kind, less the settle time: what the site accepted by then may
    have shown only after it.

    Raises:
        SiteError: of the site, or because the answer is of another credential scope.
        Fenced: another lister took over.
    """
    deadline = Deadline.after(tools.pace.call.total_seconds())
    changes = adapter.changes(since=since, deadline=deadline)
    # Quota after the changes: what they show is then surely in `used`.
    quotas = tuple(adapter.quotas(deadline=deadline))
    _record(tools, turn, changes, quotas, settle=settle)


def _record(tools: Tools, turn: Turn, changes: Changes, quotas: Sequence[RemoteQuota], *, settle: timedelta) -> None:
    with writing(tools, turn) as session:
        go_on(session, tools, turn)
        _refuse_another_scope(session, turn, changes.scope)
        # `used` before `counted_at` below: meanwhile a machine counts twice, never not at all.
        record_quotas(session, turn, quotas)
    machines = {machine.remote_id: machine for machine in changes.machines}
    ended = {remote_id: at for remote_id, at in changes.ended.items() if remote_id not in machines}
    for ids in chunks(sorted(machines)):
        with writing(tools, turn) as session:
            servers = leased_servers(session, turn, remote_ids=ids)
            found = {lease_id: machines[remote_id] for lease_id, remote_id in servers.items()}
            wake(session, tools, record_presence(session, turn, found, settle=settle))
    are_lost = False
    for ids in chunks(sorted(ended)):
        with writing(tools, turn) as session:
            are_lost |= _record_ends(session, turn, {remote_id: ended[remote_id] for remote_id in ids})
    # Those that no lease is known for are taken back by a complete listing.
    record_ours(tools, turn, machines.values())
    record_changed_servers(
        machines, ended, site_id=turn.site_id, started_at=turn.started_at, writing=partial(writing, tools, turn)
    )
    with writing(tools, turn) as session:
        _finish(session, tools, turn, settle=settle if are_lost else None)


def _refuse_another_scope(session: Session, turn: Turn, scope: str) -> None:
    """Changes of one scope on top of a complete listing of another would be a picture of neither."""
    refuse_another_scope(session, turn, scope)
    last = last_scope(session, turn.site_id)
    if last not in (None, scope):
        raise SiteDenied(
            f"the credential opens another project ({scope}) than when the site was listed last ({last})",
            hint="The next listing is a complete one, of the new project.",
        )


def _record_ends(session: Session, turn: Turn, ended: Mapping[str, datetime | None]) -> bool:
    """The site says that these were deleted; True where Leeway had made one of them, and nobody asked for its end."""
    servers = leased_servers(session, turn, remote_ids=ended.keys())
    are_lost = False
    for lease in locked(session, servers):
        is_newer = lease.seen_at is not None and lease.seen_at >= turn.started_at  # a look has shown it since
        if lease.gone_at is not None or lease.missing_since is not None or is_newer:
            continue
        lease.missing_since = turn.started_at
        if lease.desired in ENDING:
            continue
        at = ended[servers[lease.id]]
        when = "" if at is None else f" at {at:%Y-%m-%d %H:%M:%S} UTC"
        tell(session, lease, "missing", f"the site says that the machine was deleted there{when}")
        are_lost |= lease.adopted_at is None
    return are_lost


def _finish(session: Session, tools: Tools, turn: Turn, *, settle: timedelta | None) -> None:
    """The changes are written down. `settle`: a complete listing is wanted as soon as that is over; None: in its time.

    There is no row of `site_listings`: those are of complete ones.
    """
    now = func.clock_timestamp()
    values: dict[str, Any] = {"changes_at": turn.started_at, "next_listing_at": now + tools.pace.listing}
    if settle is not None:
        values["full_listing_wanted_at"] = now
        values["next_listing_at"] = turn.started_at + settle
    end_turn(session, turn, failures=0, trouble=None, **values)
