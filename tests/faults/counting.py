"""The counting: what the clouds' logs show that Leeway's rows do not account for, and what the rows hold for nothing.

Pure: logs and rows in, faults out. Charges are the matter of `tests.faults.oracle`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from broker.inventory import OURS_UNKNOWN
from broker.models.workloads import OrderState
from tests.faults.clouds import Logs
from tests.faults.rows import LeaseRow, Rows
from tests.faults.truth import Machine, Snapshot, machines, parts_alive, snapshots, together

NAMES = (
    "extra",
    "unowned",
    "two_active",
    "double_charges",
    "missing_charges",
    "stuck_holds",
    "stuck_orders",
)
# Told beside them.
UNSAVED = "unsaved"
_DONE = (OrderState.OVER, OrderState.RETURNED)


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that must not be: which number it counts in, and whose it is."""

    count: str
    text: str
    lease_id: UUID | None = None
    site: str | None = None


def count(
    logs: Logs,
    rows: Rows,
    fences: Mapping[str, str],
    *,
    heeded: Collection[UUID] = frozenset(),
    stops: Mapping[UUID, datetime] | None = None,
) -> list[Fault]:
    """Everything but the charges.

    `fences`: of each site; on a site without one, two machines may run for a while. `heeded`: leases whose findings a
    person has acted upon, so that they excuse nothing any more. `stops`: when a person first wanted an order to end.
    """
    found = machines(logs)
    excused = {finding.lease_id for finding in rows.findings if finding.lease_id is not None} - set(heeded)
    return [
        *_extra(found, rows),
        *_unowned(logs, rows),
        *_two_active(found, rows, fences),
        *_stuck_holds(rows, excused),
        *_stuck_orders(rows, excused),
        *_unsaved(found, snapshots(logs), rows, stops or {}),
    ]


def _owned(rows: Rows) -> set[str]:
    """What live leases own, and what a finding tells a person to look at."""
    told = {finding.key.rpartition(":")[2] for finding in rows.findings if finding.kind == OURS_UNKNOWN}
    return told | {
        part.remote_id for lease in rows.leases if lease.gone_at is None for part in lease.parts if part.gone_at is None
    }


def _extra(found: Sequence[Machine], rows: Rows) -> Iterator[Fault]:
    owned = _owned(rows)
    for machine in found:
        if machine.gone is None and machine.lease is not None and machine.id not in owned:
            yield Fault("extra", f"machine {machine.id} is alive", machine.lease, machine.site)


def _unowned(logs: Logs, rows: Rows) -> Iterator[Fault]:
    owned = _owned(rows)
    for thing in parts_alive(logs):
        if thing.id not in owned:
            lease = UUID(thing.name[-32:]) if thing.name else None
            yield Fault("unowned", f"{thing.kind} {thing.id} is alive", lease, thing.site)


def _two_active(found: Sequence[Machine], rows: Rows, fences: Mapping[str, str]) -> Iterator[Fault]:
    members = {lease.id: (lease.order_id, lease.member) for lease in rows.leases}
    groups: dict[tuple[UUID, int], list[Machine]] = defaultdict(list)
    for machine in found:
        if machine.lease is not None and fences[machine.site] != "none":
            # A lease that a restore forgot is a group of its own.
            groups[members.get(machine.lease, (machine.lease, 0))].append(machine)
    for some in groups.values():
        for one, other, span in together(some):
            text = f"machines {one.id} and {other.id} ran at {span.start:%H:%M:%S.%f}"
            yield Fault("two_active", text, other.lease, other.site)


def _stuck_holds(rows: Rows, excused: AbstractSet[UUID]) -> Iterator[Fault]:
    gone = {lease.id: lease.gone_at is not None for lease in rows.leases}
    of_order: dict[UUID, list[UUID]] = defaultdict(list)
    for lease in rows.leases:
        of_order[lease.order_id].append(lease.id)
    for hold in rows.holds:
        concerned = of_order[hold.order_id] if hold.lease_id is None else [hold.lease_id]
        is_over = rows.orders[hold.order_id] in _DONE if hold.lease_id is None else gone[hold.lease_id]
        if is_over and excused.isdisjoint(concerned):
            yield Fault("stuck_holds", f"{hold.what} of order {hold.order_id} is held", concerned[0])


def _stuck_orders(rows: Rows, excused: AbstractSet[UUID]) -> Iterator[Fault]:
    for order_id, state in rows.orders.items():
        leases = [lease.id for lease in rows.leases if lease.order_id == order_id]
        if state not in _DONE and excused.isdisjoint(leases):
            stuck = next((lease.id for lease in rows.leases if lease.id in leases and lease.settled_at is None), None)
            yield Fault("stuck_orders", f"order {order_id} is {state}", stuck or leases[0])


def _unsaved(
    found: Sequence[Machine], saved: Sequence[Snapshot], rows: Rows, stops: Mapping[UUID, datetime]
) -> Iterator[Fault]:
    """Disks that were to be kept and were not, though their machines ran to their end and nobody stopped them.

    The deletion was asked for before a snapshot that was begun after the end was whole; or no such snapshot was kept
    for as long as was ordered. What never ran, or not before its time was over, has no disk to keep, and of what was
    given up the project was told.
    """
    of_machine: dict[str, list[Snapshot]] = defaultdict(list)
    for snapshot in saved:
        of_machine[snapshot.machine].append(snapshot)
    by_id = {machine.id: machine for machine in found}
    for lease in rows.leases:
        machine = by_id.get(lease.machine or "")
        if lease.keep is None or lease.failure is not None or lease.gave_up or machine is None:
            continue
        stop = stops.get(lease.order_id)
        first = next(machine.active, None)
        if first is None or (lease.starts_by is not None and lease.starts_by <= first.start):
            continue
        if machine.ending is None or (stop is not None and stop <= machine.ending):
            continue
        text = _why_unsaved(lease, machine.ending, of_machine[machine.id], stop)
        if text is not None:
            yield Fault(UNSAVED, f"machine {machine.id}: {text}", lease.id, lease.site)


def _why_unsaved(lease: LeaseRow, ending: datetime, saved: Sequence[Snapshot], stop: datetime | None) -> str | None:
    # Rows out of a backup may have learned of the end long after it.
    over = lease.lapsed_at if lease.lapsed_at is not None and lease.lapsed_at <= ending else lease.ends_at
    whole = [
        (snapshot, snapshot.whole)
        for snapshot in saved
        if snapshot.whole is not None and snapshot.whole <= ending and (over is None or snapshot.born >= over)
    ]
    if not whole:
        return f"deleted at {ending:%H:%M:%S.%f}, before a snapshot of it was whole"
    assert lease.keep is not None
    for snapshot, since in whole:
        until = since + lease.keep if stop is None else min(since + lease.keep, stop)
        if snapshot.gone is None or snapshot.gone >= until or snapshot.has_vanished:
            return None
    return f"its snapshot {whole[-1][0].id} was deleted before its time"
