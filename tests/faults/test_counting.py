"""The counting itself: one thing too many or too few is counted, and a life without fault counts nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID

import pytest

from adapters.sandbox.truth import Entry
from broker.models.leases import LeaseState
from broker.models.workloads import OrderState
from broker.remote import PartKind
from tests.faults.clouds import ADDRESS_SKU, DISK_GIB, FLAVOR, SNAPSHOT_SKU, Logs
from tests.faults.counting import NAMES, UNSAVED, Fault, count
from tests.faults.federation import ADDRESS_HOURLY, BEGINNING, HOURLY, STORAGE_HOURLY, Price
from tests.faults.oracle import LATE, Blind, Sight, charges
from tests.faults.rows import ChargeRow, FindingRow, HoldRow, LeaseRow, PartRow, Rows

BEGIN = datetime(2026, 11, 21, 12, tzinfo=UTC)
LEASE, OTHER, ORDER = UUID(int=1), UUID(int=2), UUID(int=3)
SITE, SITE_ID = "swift", UUID(int=4)
FENCES = {SITE: "part", "bare": "none"}
SIGHT = Sight([Price(SITE, BEGINNING, HOURLY, ADDRESS_HOURLY, STORAGE_HOURLY)], [], {SITE: SITE_ID})
# Much longer than anybody may take to look.
LONG = LATE * 6


def at(seconds: float) -> datetime:
    """A moment of the story."""
    return BEGIN + timedelta(seconds=seconds)


def entry(
    seconds: float, event: str, thing: str = "m1", *, kind: str = "server", lease: UUID | None = LEASE, name: str = ""
) -> Entry:
    """A line of a cloud's log."""
    tags = {"leeway:lease": str(lease)} if lease is not None and kind == "server" else {}
    return Entry(at=at(seconds), kind=kind, event=event, id=thing, name=name, metadata=tags)


def life(thing: str = "m1", *, begin: float = 0, seconds: float = 60, lease: UUID = LEASE) -> list[Entry]:
    """A machine that runs from `begin` + 1 for `seconds`."""
    return [
        entry(begin, "created", thing, lease=lease),
        entry(begin + 1, "active", thing, lease=lease),
        entry(begin + 1 + seconds, "deleting", thing, lease=lease),
        entry(begin + 1.1 + seconds, "deleted", thing, lease=lease),
    ]


def lease_row(lease_id: UUID = LEASE, machine: str = "m1", *, member: int = 1, is_gone: bool = True) -> LeaseRow:
    """A lease with its machine."""
    gone = at(62) if is_gone else None
    return LeaseRow(lease_id, ORDER, member, SITE, gone, gone, (PartRow(PartKind.SERVER, machine, gone),))


def charge(start: float, end: float, *, sku: str = FLAVOR, entry: str = "e1", **more: object) -> ChargeRow:
    """A charge at the right price."""
    hourly = HOURLY if sku == FLAVOR else ADDRESS_HOURLY
    cost = (hourly * Decimal(str(end - start)) / 3600).quantize(Decimal("1e-9"))
    row = ChargeRow(LEASE, "m1", sku, LeaseState.RUNNING, Decimal(1), at(start), at(end), cost, entry)
    return replace(row, **more)  # type: ignore[arg-type] # a test's shorthand


def rows(leases: Sequence[LeaseRow], charged: Sequence[ChargeRow] = (), **more: object) -> Rows:
    """What Leeway says, with every charge posted."""
    posted: Counter[str] = Counter()
    for row in charged:
        posted[row.entry] += row.cost  # type: ignore[assignment] # a counter of decimals
    made = Rows({ORDER: OrderState.OVER}, leases, charged, (), (), posted=dict(posted))  # type: ignore[arg-type] # as above
    return replace(made, **more)  # type: ignore[arg-type] # a test's shorthand


def counted(logs: Logs, of: Rows, *, sight: Sight = SIGHT, heeded: frozenset[UUID] = frozenset()) -> dict[str, int]:
    """All numbers that are not zero."""
    faults: list[Fault] = [*count(logs, of, FENCES, heeded=heeded, stops=sight.stops), *charges(logs, of, sight)]
    found = Counter(fault.count for fault in faults)
    assert set(found) <= {*NAMES, UNSAVED}, "every fault is of a number that is printed"
    return dict(found)


GOOD = rows([lease_row()], [charge(1, 61)])


def test_a_life_without_fault_counts_nothing() -> None:
    assert counted({SITE: life()}, GOOD) == {}


# --- machines and parts ------------------------------------------------------------------------------------------


def test_a_machine_that_no_live_lease_owns_is_extra() -> None:
    logs = {SITE: [*life(), entry(30, "created", "m2")]}
    assert counted(logs, GOOD) == {"extra": 1}


def test_a_machine_of_a_live_lease_is_not_extra() -> None:
    live = rows([lease_row(is_gone=False)], orders={ORDER: OrderState.ACTIVE})
    assert "extra" not in counted({SITE: life()[:2]}, live)


def test_a_machine_that_a_finding_names_is_a_persons_matter() -> None:
    logs = {SITE: [*life(), entry(30, "created", "m2")]}
    finding = FindingRow("ours_unknown", f"{SITE_ID}:m2", "server m2 ...", site=SITE)
    assert counted(logs, replace(GOOD, findings=[finding])) == {}


def test_somebody_elses_machine_is_nobodys_matter() -> None:
    assert counted({SITE: [*life(), entry(0, "created", "theirs", lease=None, name="web")]}, GOOD) == {}


@pytest.mark.parametrize(
    ("kind", "name"), [("port", f"leeway-{LEASE.hex}"), ("key_pair", f"leeway-{LEASE.hex}"), ("floating_ip", "")]
)
def test_a_part_that_nobody_owns_is_counted(kind: str, name: str) -> None:
    left = entry(2, "created", "p1", kind=kind, name=name)
    assert counted({SITE: [*life(), left]}, GOOD) == {"unowned": 1}
    assert counted({SITE: [*life(), left, entry(3, "deleted", "p1", kind=kind, name=name)]}, GOOD) == {}


def test_two_machines_of_one_lease_that_ran_at_one_moment_are_counted() -> None:
    logs = {SITE: sorted([*life(), *life("m2", begin=30, seconds=5)], key=lambda entry: entry.at)}
    assert counted(logs, GOOD) == {"two_active": 1}


def test_one_machine_after_the_other_is_fine_and_so_are_two_without_a_fence() -> None:
    assert counted({SITE: [*life(), *life("m2", begin=70)]}, GOOD) == {}
    assert counted({SITE: life(), "bare": life("m2", begin=30)}, GOOD) == {}


def test_a_machine_in_error_never_ran() -> None:
    loser = [entry(30, "created", "m2"), entry(31, "error", "m2"), entry(33, "deleted", "m2")]
    assert counted({SITE: [*life(), *loser]}, GOOD) == {}


def test_two_leases_of_one_member_may_not_run_at_one_moment() -> None:
    both = [lease_row(), lease_row(OTHER, "m2")]
    second = replace(charge(2, 62, entry="e2"), lease_id=OTHER, resource="m2")
    logs = {SITE: [*life(), *life("m2", begin=1, lease=OTHER)]}
    assert counted(logs, rows(both, [charge(1, 61), second])) == {"two_active": 1}
    members = [both[0], replace(both[1], member=2)]
    assert counted(logs, rows(members, [charge(1, 61), second])) == {}


# --- money -------------------------------------------------------------------------------------------------------


def test_a_charge_posted_twice_is_double() -> None:
    assert counted({SITE: life()}, replace(GOOD, posted={"e1": GOOD.charges[0].cost * 2})) == {"double_charges": 1}


def test_a_charge_not_posted_is_missing() -> None:
    assert counted({SITE: life()}, replace(GOOD, posted={})) == {"missing_charges": 1}


def test_a_posting_without_a_charge_is_double() -> None:
    posted = {**GOOD.posted, "e9": Decimal(1)}
    assert counted({SITE: life()}, replace(GOOD, posted=posted)) == {"double_charges": 1}


def test_two_charges_of_one_moment_are_double() -> None:
    assert counted({SITE: life()}, rows([lease_row()], [charge(1, 40), charge(39, 61, entry="e2")])) == {
        "double_charges": 1
    }


def test_a_life_that_nobody_charged_is_missing() -> None:
    assert counted({SITE: life()}, rows([lease_row()])) == {"missing_charges": 1}


def test_a_gap_is_missing() -> None:
    assert counted({SITE: life()}, rows([lease_row()], [charge(1, 30), charge(33, 61, entry="e2")])) == {
        "missing_charges": 1
    }


def test_a_charge_far_beyond_the_end_is_double_and_one_a_look_later_is_not() -> None:
    late = LATE.total_seconds()
    assert counted({SITE: life()}, rows([lease_row()], [charge(1, 61 + late * 2)])) == {"double_charges": 1}
    assert counted({SITE: life()}, rows([lease_row()], [charge(1, 60 + late)])) == {}


def test_a_look_may_be_later_by_as_long_as_nobody_could_look() -> None:
    late = LATE.total_seconds()
    blind = replace(SIGHT, blinds=[Blind(at(61), at(91))])
    of_another = replace(SIGHT, blinds=[Blind(at(61), at(91), str(OTHER))])
    over = rows([lease_row()], [charge(1, 85 + late)])
    assert counted({SITE: life()}, over, sight=blind) == {}
    assert counted({SITE: life()}, over, sight=of_another) == {"double_charges": 1}


def test_a_wrong_price_is_counted_by_its_sign() -> None:
    good = charge(1, 61)
    assert counted({SITE: life()}, rows([lease_row()], [replace(good, cost=good.cost * 2)])) == {"double_charges": 1}
    assert counted({SITE: life()}, rows([lease_row()], [replace(good, cost=good.cost / 2)])) == {"missing_charges": 1}


def test_a_charge_keeps_to_one_version_of_the_prices() -> None:
    later = Price(SITE, at(31), HOURLY * 2, ADDRESS_HOURLY, STORAGE_HOURLY)
    sight = replace(SIGHT, prices=[*SIGHT.prices, later])
    second = replace(charge(31, 61, entry="e2"), cost=charge(31, 61).cost * 2)
    assert counted({SITE: life()}, rows([lease_row()], [charge(1, 31), second]), sight=sight) == {}
    assert counted({SITE: life()}, GOOD, sight=sight) == {"missing_charges": 1}


def test_what_a_shelved_machine_does_not_cost_is_not_charged() -> None:
    long = LONG.total_seconds()
    logs = {SITE: [*life(seconds=long)[:2], entry(20, "offloaded"), *life(seconds=long)[2:]]}
    shelved = charge(20, 1 + long, entry="e2", state=LeaseState.SHELVED, share=Decimal(0), cost=Decimal(0))
    assert counted(logs, rows([lease_row()], [charge(1, 20), shelved])) == {}
    assert counted(logs, rows([lease_row()], [charge(1, 1 + long)])) == {"double_charges": 1}


def test_a_lease_is_charged_for_its_own_machine_only() -> None:
    stray = charge(1, 61, resource="m2")
    assert counted({SITE: [*life(), *life("m2", begin=70)]}, rows([lease_row()], [stray])) == {"double_charges": 1}


def test_an_address_is_charged_while_it_is_there() -> None:
    part = PartRow(PartKind.ADDRESS, "a1", at(61))
    lease = replace(lease_row(), parts=(*lease_row().parts, part))
    address = [entry(1, "created", "a1", kind="floating_ip"), entry(61, "deleted", "a1", kind="floating_ip")]
    logs = {SITE: sorted([*life(), *address], key=lambda entry: entry.at)}
    both = [charge(1, 61), charge(1, 61, sku=ADDRESS_SKU)]
    assert counted(logs, rows([lease], both)) == {}
    assert counted(logs, rows([lease], both[:1])) == {"missing_charges": 1}


def test_books_that_differ_from_themselves_are_counted() -> None:
    assert counted({SITE: life()}, replace(GOOD, differences=["balance ..."])) == {"double_charges": 1}


# --- what is held and what does not move -------------------------------------------------------------------------


def test_a_hold_of_an_order_that_is_over_is_stuck() -> None:
    assert counted({SITE: life()}, replace(GOOD, holds=[HoldRow("money", ORDER)])) == {"stuck_holds": 1}
    assert counted({SITE: life()}, replace(GOOD, holds=[HoldRow("quota", ORDER, LEASE)])) == {"stuck_holds": 1}


def test_an_order_that_does_not_end_is_stuck_unless_a_person_must_do_something() -> None:
    stuck = replace(GOOD, orders={ORDER: OrderState.STOPPING})
    finding = FindingRow("launch_unknown", "a1", "the site never said ...", LEASE, SITE)
    assert counted({SITE: life()}, stuck) == {"stuck_orders": 1}
    assert counted({SITE: life()}, replace(stuck, findings=[finding])) == {}
    # Somebody did what it says, and it did not help.
    told = replace(stuck, findings=[finding])
    assert counted({SITE: life()}, told, heeded=frozenset({LEASE})) == {"stuck_orders": 1}


# --- kept snapshots ----------------------------------------------------------------------------------------------

# Its time is over at 50 and its grace at 61; it is saved at 64, deleted at 65, gone at 65.1, and kept until 80.
KEPT = replace(
    lease_row(),
    parts=(*lease_row().parts, PartRow(PartKind.SNAPSHOT, "s1", at(80))),
    ends_at=at(50),
    lapsed_at=at(61),
    keep=timedelta(seconds=10),
)


def image(seconds: float, event: str, thing: str = "s1", *, machine: str = "m1") -> Entry:
    """What a log says of a snapshot."""
    return replace(
        entry(seconds, event, thing, kind="snapshot", lease=None, name=f"crash-1-leeway-{LEASE.hex}"),
        detail={"server_id": machine} if event == "created" else {},
    )


def saved(*images: Entry, seconds: float = 64) -> Logs:
    """A machine, deleted so long after it began to run, with its snapshots."""
    return {SITE: sorted([*life(seconds=seconds), *images], key=lambda entry: entry.at)}


def storage(start: float, end: float, **more: object) -> ChargeRow:
    """A charge for a snapshot at the right price."""
    cost = (STORAGE_HOURLY * DISK_GIB * Decimal(str(end - start)) / 3600).quantize(Decimal("1e-9"))
    more = {"resource": "s1", "state": LeaseState.SNAPSHOT, "cost": cost, "entry": "e2", **more}
    return charge(start, end, sku=SNAPSHOT_SKU, **more)  # type: ignore[arg-type] # a test's shorthand


WHOLE = (image(62, "created"), image(64, "active"), image(80, "deleted"))
KEPT_ROWS = rows([KEPT], [charge(1, 65.1), storage(65.1, 80)])


def stopped(seconds: float) -> Sight:
    """A person wanted it to end."""
    return replace(SIGHT, stops={ORDER: at(seconds)})


def test_a_kept_snapshot_without_fault_counts_nothing() -> None:
    assert counted(saved(*WHOLE), KEPT_ROWS) == {}


def test_a_snapshot_that_nobody_owns_is_counted() -> None:
    left = image(63, "created", "s2"), image(64, "error", "s2")
    assert counted(saved(*WHOLE, *left), KEPT_ROWS) == {"unowned": 1}
    assert counted(saved(*WHOLE, *left, image(70, "deleted", "s2")), KEPT_ROWS) == {}


@pytest.mark.parametrize(
    "images",
    [
        (),
        (image(62, "created"), image(65.1, "deleted")),
        (image(62, "created"), image(65.05, "active"), image(80, "deleted")),
        (image(62, "created"), image(64, "error"), image(80, "deleted")),
        (image(40, "created"), image(42, "active"), image(80, "deleted")),
        (image(62, "created", machine="m2"), image(64, "active"), image(80, "deleted")),
    ],
    ids=["none", "not whole", "whole too late", "killed", "older than the end", "of another machine"],
)
def test_a_machine_deleted_before_its_snapshot_was_whole_is_unsaved(images: Sequence[Entry]) -> None:
    bare = rows([KEPT], [charge(1, 65.1)])
    assert counted(saved(*images), bare, sight=stopped(66))[UNSAVED] == 1
    assert UNSAVED not in counted(saved(*images), bare, sight=stopped(64))


def test_a_snapshot_deleted_before_its_time_was_not_kept() -> None:
    early = (*WHOLE[:2], image(70, "deleted"))
    charged = rows([KEPT], [charge(1, 65.1), storage(65.1, 70)])
    assert counted(saved(*early), charged) == {UNSAVED: 1}
    assert counted(saved(*early), charged, sight=stopped(69)) == {}
    assert counted(saved(*early), charged, sight=stopped(71)) == {UNSAVED: 1}
    assert counted(saved(*WHOLE[:2], image(70, "vanished")), charged) == {}


def test_whose_project_was_told_or_that_never_ran_or_that_keeps_nothing_is_not_unsaved() -> None:
    for lease in (replace(KEPT, gave_up=True), replace(KEPT, failure="no room"), replace(KEPT, keep=None)):
        assert counted(saved(), rows([lease], [charge(1, 65.1)])) == {}
    never = {SITE: [entry(0, "created"), entry(65, "deleting"), entry(65.1, "deleted")]}
    assert counted(never, rows([KEPT])) == {}
    for starts_by, found in ((0.5, {}), (1.5, {UNSAVED: 1})):
        lease = replace(KEPT, starts_by=at(starts_by))
        assert counted(saved(), rows([lease], [charge(1, 65.1)])) == found


def test_rows_out_of_a_backup_learn_of_the_end_after_it() -> None:
    later = replace(KEPT, lapsed_at=at(75))
    assert counted(saved(*WHOLE), replace(KEPT_ROWS, leases=[later])) == {}
    old = (image(40, "created"), image(42, "active"), image(80, "deleted"))
    assert counted(saved(*old), replace(KEPT_ROWS, leases=[later])) == {UNSAVED: 1}


def test_a_kept_snapshot_that_nobody_charged_is_missing() -> None:
    free = rows([KEPT], [charge(1, 65.1)])
    assert counted(saved(*WHOLE), free) == {"missing_charges": 1}
    # Stopped at about the end of the machine: nothing was kept any more.
    assert counted(saved(*WHOLE[:2], image(66, "deleted")), free, sight=stopped(65)) == {}


def test_a_snapshot_is_charged_from_the_end_of_its_machine_to_its_own() -> None:
    late = LATE.total_seconds()
    for start, end, number in (
        (60, 80, "double"),
        (69, 80, "missing"),
        (65.1, 77, "missing"),
        (65.1, 84 + late, "double"),
    ):
        off = rows([KEPT], [charge(1, min(start, 65.1)), storage(start, end)])
        assert counted(saved(*WHOLE), off).get(f"{number}_charges") == 1, (start, end)


def test_nothing_of_the_machine_is_charged_beside_its_snapshot() -> None:
    beside = rows([KEPT], [charge(1, 68), storage(65.1, 80)])
    assert counted(saved(*WHOLE), beside) == {"double_charges": 1}


def test_a_snapshot_has_its_own_price_and_name() -> None:
    good = storage(65.1, 80)
    for wrong, number in ((good.cost * 2, "double"), (good.cost / DISK_GIB, "missing")):
        off = rows([KEPT], [charge(1, 65.1), replace(good, cost=wrong)])
        assert counted(saved(*WHOLE), off) == {f"{number}_charges": 1}
    other = rows([KEPT], [charge(1, 65.1), replace(good, resource="s2")])
    assert counted(saved(*WHOLE), other) == {"double_charges": 1}


def test_a_snapshot_that_went_with_its_machine_is_not_charged() -> None:
    lost = saved(image(62, "created"), image(65.1, "deleted"))
    assert counted(lost, rows([KEPT], [charge(1, 65.1)]), sight=stopped(63)) == {}
    assert counted(lost, rows([KEPT], [charge(1, 65.1), storage(65.1, 80)]), sight=stopped(63)) == {"double_charges": 1}
