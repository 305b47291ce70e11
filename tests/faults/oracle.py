"""What every machine should have cost, from the clouds' logs and the imported prices alone, against what was charged.

Leeway knows of a change only when it looks, so after each change it may go on charging the state before for a while:
`LATE` seconds, and longer by as much of that time as nobody could look at all (`Blind`: PostgreSQL was away, a frozen
worker held the row, a restored backup had forgotten). Beyond that, at every moment the share that is charged must be
the share of the state that the cloud says. What a charge costs is exact, save for the last digit of its rounding.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal, localcontext
from itertools import pairwise
from uuid import UUID

from broker.models.leases import LeaseState
from broker.remote import PartKind
from tests.faults.clouds import ADDRESS_SKU, DISK_GIB, SNAPSHOT_SKU, Logs
from tests.faults.counting import Fault
from tests.faults.federation import Price
from tests.faults.rows import ChargeRow, LeaseRow, Rows
from tests.faults.truth import Machine, Snapshot, Thing, addresses, machines, snapshots

# A look at a healthy lease comes within claim + sweep + the longest backoff + a call, which is less than four seconds,
# and a listing comes every three. On a machine that other things keep busy each of them takes several times as long,
# and sites that answer late take turns.
LATE = timedelta(seconds=15)
# A snapshot is charged from its machine's end on, and that is the site's own word where nobody saw it. Only as late as
# this may it begin: what is kept for seconds would else never be missed.
LATE_TO_KEEP = timedelta(seconds=2)
# Shorter stretches than this are the rounding of the site's own times to seconds.
_GRAIN = timedelta(seconds=1)
_ROUNDING = Decimal("2e-9")
# `bills: openstack` of a rate card, said once more.
SHARES: Mapping[LeaseState, Decimal] = {
    LeaseState.BUILDING: Decimal(0),
    LeaseState.RUNNING: Decimal(1),
    LeaseState.STOPPED: Decimal(1),
    LeaseState.SHELVED: Decimal(0),
    LeaseState.ERROR: Decimal(0),
    LeaseState.DELETING: Decimal(0),
    LeaseState.SNAPSHOT: Decimal(1),
}
_NOTHING = Decimal(0)


@dataclass(frozen=True, slots=True)
class Blind:
    """Nobody could look over [start, end): at anything, or only at what `subject` (a lease's or a site's id) names."""

    start: datetime
    end: datetime
    subject: str = ""


@dataclass(frozen=True, slots=True)
class Sight:
    """What the oracle knows beside logs and rows: the prices, when nobody could look, and the sites' ids.

    `stops`: when a person first wanted an order to end.
    """

    prices: Sequence[Price]
    blinds: Sequence[Blind]
    site_ids: Mapping[str, UUID]
    stops: Mapping[UUID, datetime] = field(default_factory=dict)

    def late_until(self, moment: datetime, lease: LeaseRow, late: timedelta = LATE) -> datetime:
        """Until when Leeway may not know what happened at `moment`."""
        subjects = {"", str(lease.id), str(lease.order_id), str(self.site_ids.get(lease.site))}
        limit = moment + late
        reached = moment
        for blind in sorted(self.blinds, key=lambda blind: blind.start):
            start = max(blind.start, reached)
            if blind.subject in subjects and start < limit and blind.end > start:
                limit += blind.end - start
                reached = blind.end
        return limit


@dataclass(frozen=True, slots=True)
class Billable:
    """What was really there of one thing: (moment, share from then on), the first from nothing."""

    changes: tuple[tuple[datetime, Decimal], ...]

    def share(self, moment: datetime) -> Decimal:
        """What it costs of its price at a moment."""
        last = _NOTHING
        for at, share in self.changes:
            if at > moment:
                break
            last = share
        return last


def charges(logs: Logs, rows: Rows, sight: Sight) -> list[Fault]:
    """Every charge that should not be there, and every one that is missing."""
    found = {machine.id: machine for machine in machines(logs)}
    fixed = {thing.id: thing for thing in addresses(logs)}
    saved = {snapshot.id: snapshot for snapshot in snapshots(logs)}
    by_lease: dict[UUID, list[ChargeRow]] = defaultdict(list)
    for row in _whole(rows.charges):
        by_lease[row.lease_id].append(row)
    faults = [Fault("double_charges", f"the books differ: {text}") for text in rows.differences]
    faults += _posted(rows)
    for lease in rows.leases:
        of_snapshot = [row for row in by_lease[lease.id] if row.sku == SNAPSHOT_SKU]
        of_machine = [row for row in by_lease[lease.id] if row.sku != SNAPSHOT_SKU]
        faults += _lease(lease, of_machine, found=found, fixed=fixed, sight=sight)
        machine = found.get(lease.machine or "")
        snapshot = saved.get(lease.part(PartKind.SNAPSHOT) or "")
        faults += _kept(lease, of_snapshot, of_machine, machine=machine, snapshot=snapshot, sight=sight)
    return faults


def _whole(rows: Sequence[ChargeRow]) -> list[ChargeRow]:
    """One row per segment and thing: what several payers share comes in several rows of one entry and one period."""
    whole: dict[tuple[object, ...], ChargeRow] = {}
    for row in rows:
        key = (row.lease_id, row.entry, row.sku, row.start, row.end)
        whole[key] = replace(row, cost=row.cost + whole[key].cost) if key in whole else row
    return list(whole.values())


def _posted(rows: Rows) -> Iterator[Fault]:
    """Every charge is posted, once, with its own amount."""
    costs: dict[str, Decimal] = defaultdict(Decimal)
    leases: dict[str, UUID] = {}
    for row in rows.charges:
        costs[row.entry] += row.cost
        leases[row.entry] = row.lease_id
    for key in costs.keys() | rows.posted.keys():
        cost, posted = costs.get(key, _NOTHING), rows.posted.get(key, _NOTHING)
        if cost != posted:
            name = "double_charges" if posted > cost else "missing_charges"
            yield Fault(name, f"entry {key} posts {posted} for charges of {cost}", leases.get(key))


def _lease(
    lease: LeaseRow,
    rows: Sequence[ChargeRow],
    *,
    found: Mapping[str, Machine],
    fixed: Mapping[str, Thing],
    sight: Sight,
) -> Iterator[Fault]:
    machine = found.get(lease.machine) if lease.machine is not None else None
    for row in rows:
        if machine is None or row.resource != machine.id:
            yield _fault("double", f"charged for {row.resource}, which is not its machine", lease)
            return
        wrong = _price(row, lease, sight.prices)
        if wrong is not None:
            yield wrong
    if machine is None:
        return
    is_estimated = any(row.is_estimated for row in rows)
    of_machine = Billable((*((span.start, SHARES[span.state]) for span in machine.spans), *_end(machine.gone)))
    yield from _compare(
        of_machine, [row for row in rows if row.sku != ADDRESS_SKU], lease, sight=sight, is_estimated=is_estimated
    )
    address = next((fixed.get(part.remote_id) for part in lease.parts if part.kind is PartKind.ADDRESS), None)
    there = () if address is None else ((address.born, Decimal(1)), *_end(address.gone), *_end(machine.gone))
    of_address = Billable(tuple(sorted(there)))
    yield from _compare(
        of_address, [row for row in rows if row.sku == ADDRESS_SKU], lease, sight=sight, is_estimated=is_estimated
    )


def _kept(
    lease: LeaseRow,
    rows: Sequence[ChargeRow],
    others: Sequence[ChargeRow],
    *,
    machine: Machine | None,
    snapshot: Snapshot | None,
    sight: Sight,
) -> Iterator[Fault]:
    """A snapshot is charged from the end of its machine to its own, and nothing else is beside it."""
    for row in rows:
        if snapshot is None or machine is None or row.resource != snapshot.id:
            yield _fault("double", f"charged for {row.resource}, which is not its snapshot", lease)
            return
        wrong = _price(row, lease, sight.prices)
        if wrong is not None:
            yield wrong
        beside = next((other for other in others if other.start < row.end and row.start < other.end), None)
        if beside is not None:
            text = f"{beside.sku} is charged beside the snapshot from {max(row.start, beside.start):%H:%M:%S.%f}"
            yield _fault("double", text, lease)
    if snapshot is None or machine is None:
        return
    there = _kept_over(snapshot, machine)
    stop = sight.stops.get(lease.order_id)
    is_stopped = machine.gone is not None and stop is not None and stop <= sight.late_until(machine.gone, lease)
    if not rows and (is_stopped or lease.gave_up):
        return  # nothing was to be kept any more when the machine was seen gone
    is_estimated = any(row.is_estimated for row in (*rows, *others))
    yield from _compare(there, rows, lease, sight=sight, is_estimated=is_estimated, late_to_begin=LATE_TO_KEEP)


def _kept_over(snapshot: Snapshot, machine: Machine) -> Billable:
    """While the machine is there it is not charged, and one that was not whole by then goes with the machine."""
    if machine.gone is None or snapshot.whole is None or machine.gone < snapshot.whole:
        return Billable(())
    if snapshot.gone is not None and snapshot.gone <= machine.gone:
        return Billable(())
    return Billable(((machine.gone, Decimal(1)), *_end(snapshot.gone)))


def _end(gone: datetime | None) -> tuple[tuple[datetime, Decimal], ...]:
    return () if gone is None else ((gone, _NOTHING),)


def _price(row: ChargeRow, lease: LeaseRow, prices: Sequence[Price]) -> Fault | None:
    """The exact cost of one charge, under the one version that was in force all through it."""
    versions = sorted((price for price in prices if price.site == lease.site), key=lambda price: price.valid_from)
    inside = [price for price in versions if row.start < price.valid_from < row.end]
    price = next(price for price in reversed(versions) if price.valid_from <= row.start)
    others = {ADDRESS_SKU: price.address, SNAPSHOT_SKU: price.storage * DISK_GIB}
    hourly = others.get(row.sku, price.machine)
    share = Decimal(1) if row.sku in others else SHARES[row.state]
    with localcontext(prec=50):
        seconds = Decimal((row.end - row.start) // timedelta(microseconds=1)) / 1_000_000
        cost = hourly * share * seconds / 3600
        is_right = not inside and share == row.share and abs(cost - row.cost) <= _ROUNDING
        if is_right:
            return None
        kind = "double" if row.cost > cost else "missing"
    text = f"{row.sku} {row.state} {row.start:%H:%M:%S.%f}-{row.end:%H:%M:%S.%f} costs {row.cost}, not {cost:.9f}"
    return _fault(kind, f"{text}{' and spans a change of price' if inside else ''}", lease)


def _compare(
    truth: Billable,
    rows: Sequence[ChargeRow],
    lease: LeaseRow,
    *,
    sight: Sight,
    is_estimated: bool,
    late_to_begin: timedelta = LATE,
) -> Iterator[Fault]:
    """At every moment: what is charged, and what may be charged."""
    for row, following in pairwise(sorted(rows, key=lambda row: row.start)):
        if following.start < row.end:
            text = f"{row.sku} is charged twice from {following.start:%H:%M:%S.%f} to {row.end:%H:%M:%S.%f}"
            yield _fault("double", text, lease)
    late = [
        (
            at,
            sight.late_until(at, lease, LATE if number else late_to_begin),
            truth.share(at - timedelta(microseconds=1)),
        )
        for number, (at, _) in enumerate(truth.changes)
    ]
    end = truth.changes[-1][0] if truth.changes else None
    edges = {at for at, _ in truth.changes} | {until for _, until, _ in late}
    edges |= {moment for row in rows for moment in (row.start, row.end)}
    wrong: dict[str, timedelta] = defaultdict(timedelta)
    first: dict[str, datetime] = {}
    for start, stop in pairwise(sorted(edges)):
        allowed = {truth.share(start)} | {share for at, until, share in late if at <= start < until}
        if is_estimated and end is not None and end - _longest(late) <= start < end:
            allowed.add(_NOTHING)  # the end is when it was last seen
        charged = next((row.share for row in rows if row.start <= start < row.end), _NOTHING)
        name = "double" if charged > max(allowed) else "missing" if charged < min(allowed) else None
        if name is not None:
            wrong[name] += stop - start
            first.setdefault(name, start)
    for name, length in wrong.items():
        if length > _GRAIN:
            what = "too much" if name == "double" else "too little"
            sku = rows[0].sku if rows else "nothing"
            text = f"{sku}: {what} for {length.total_seconds():.3f} s, first at {first[name]:%H:%M:%S.%f}"
            yield _fault(name, text, lease)


def _longest(late: Sequence[tuple[datetime, datetime, Decimal]]) -> timedelta:
    return max((until - at for at, until, _ in late), default=LATE)


def _fault(kind: str, text: str, lease: LeaseRow) -> Fault:
    return Fault(f"{kind}_charges", text, lease.id, lease.site)
