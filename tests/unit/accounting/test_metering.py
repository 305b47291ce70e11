"""From sightings to uses: no gap, no overlap, whatever the order; and who is believed about when."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from accounting.metering import CardSpan, Ends, Meter, Sighting, Use, ends_by_word, meter, outside
from accounting.rating import Thing, rate
from broker.meters import SNAPSHOT_SKU
from broker.models.leases import LeaseState
from broker.pricing import Price, RateCard, Tier
from broker.values import Commodity, Period, Unit, exact, new_id
from tests.unit.accounting.world import HOUR, T0

CARD = CardSpan(new_id(), T0 - timedelta(days=300), None)
BY = Meter(
    made_at=T0, sku="m1.small", skus={"f-1": "m1.small", "f-2": "m1.big"}, cards=(CARD,), cuts=(), known_until=T0
)
RUNNING, STOPPED, GONE, UNKNOWN = LeaseState.RUNNING, LeaseState.STOPPED, LeaseState.GONE, LeaseState.UNKNOWN
BUILDING, SNAPSHOT = LeaseState.BUILDING, LeaseState.SNAPSHOT


def at(hours: float) -> datetime:
    """So many hours after the lease was made."""
    return T0 + hours * HOUR


def seen(hours: float, state: LeaseState, *, since: float | None = None, estimated: bool = False) -> Sighting:
    """A sighting in hours."""
    return Sighting(at(hours), state, "f-1", None if since is None else at(since), is_estimated=estimated)


def spans(uses: list[Use]) -> list[tuple[float, float | None, str]]:
    """Start and end in hours, and the state; `?` marks an estimate."""
    return [
        (
            (use.starts_at - T0) / HOUR,
            None if use.ends_at is None else (use.ends_at - T0) / HOUR,
            use.state.value + ("?" if use.is_estimated else ""),
        )
        for use in uses
    ]


def test_a_life_from_building_to_gone() -> None:
    life = [seen(1, BUILDING), seen(2, RUNNING, since=1.5), seen(5, STOPPED), seen(7, GONE, since=6.5)]
    assert spans(meter(life, BY)) == [(1, 1.5, "building"), (1.5, 5, "running"), (5, 6.5, "stopped")]


def test_what_runs_is_open_and_what_never_was_seen_is_nothing() -> None:
    assert spans(meter([seen(1, RUNNING)], BY)) == [(1, None, "running")]
    assert meter([], BY) == []
    assert meter([seen(1, LeaseState.PENDING)], BY) == []
    assert meter([seen(1, GONE)], BY) == []


def test_the_site_is_not_believed_about_the_future_nor_before_the_former_change() -> None:
    for since in (2.1, 0.5):
        assert spans(meter([seen(1, BUILDING), seen(2, RUNNING, since=since)], BY))[1] == (2, None, "running")
    # Nor about a time before the lease was made.
    assert spans(meter([seen(1, RUNNING, since=-1)], BY)) == [(1, None, "running")]
    assert spans(meter([seen(1, RUNNING, since=0.5)], BY)) == [(0.5, None, "running")]


def test_a_word_in_whole_seconds_may_lie_just_before_a_sighting_within_that_second() -> None:
    """Nova cuts its times to whole seconds: seen building at 10:00:37.7, active since 10:00:37, seen at 10:00:39.3."""
    second = 1 / 3600
    for since in (1 - 0.9 * second, 1):
        assert spans(meter([seen(1, BUILDING), seen(2, RUNNING, since=since)], BY)) == [(1, None, "running")]
    assert spans(meter([seen(1, RUNNING, since=-0.9 * second)], BY)) == [(0, None, "running")]
    too_early = [seen(1, BUILDING), seen(2, RUNNING, since=1 - second)]
    assert spans(meter(too_early, BY)) == [(1, 2, "building"), (2, None, "running")]


def test_an_end_is_never_before_the_former_change_nor_after_it_was_seen() -> None:
    life = [seen(1, RUNNING), seen(3, STOPPED)]
    assert spans(meter([*life, seen(5, GONE, since=2)], BY)) == [(1, 3, "running")]
    assert spans(meter([*life, seen(5, GONE, since=6)], BY))[-1] == (3, 5, "stopped")
    assert spans(meter([*life, seen(5, GONE)], BY))[-1] == (3, 5, "stopped")


def test_a_vanished_machine_ends_when_it_was_last_seen_estimated() -> None:
    assert spans(meter([seen(1, RUNNING), seen(9, GONE, since=4, estimated=True)], BY)) == [(1, 4, "running?")]
    life = [seen(1, BUILDING), seen(4, RUNNING, since=2), seen(9, GONE, estimated=True)]
    assert spans(meter(life, BY)) == [(1, 2, "building"), (2, 4, "running?")]
    assert meter([seen(9, GONE, estimated=True)], BY) == []


def test_only_the_piece_whose_end_is_estimated_is_an_estimate() -> None:
    by = replace(BY, cuts=(at(3),))
    life = [seen(1, RUNNING), seen(9, GONE, since=4, estimated=True)]
    assert spans(meter(life, by)) == [(1, 3, "running"), (3, 4, "running?")]


def test_an_unreadable_status_goes_on_as_before_estimated() -> None:
    life = [seen(1, STOPPED), seen(2, UNKNOWN), seen(3, UNKNOWN), seen(4, STOPPED), seen(5, RUNNING)]
    assert spans(meter(life, BY)) == [(1, 2, "stopped"), (2, 4, "stopped?"), (4, 5, "stopped"), (5, None, "running")]
    assert spans(meter([seen(1, UNKNOWN), seen(2, RUNNING)], BY)) == [(1, 2, "running?"), (2, None, "running")]
    life = [seen(1, STOPPED), seen(2, GONE), seen(3, UNKNOWN)]
    assert spans(meter(life, BY)) == [(1, 2, "stopped"), (3, None, "stopped?")]


def test_a_machine_that_was_wrongly_said_gone_is_metered_again() -> None:
    assert spans(meter([seen(1, RUNNING), seen(2, GONE), seen(4, RUNNING)], BY)) == [
        (1, 2, "running"),
        (4, None, "running"),
    ]


def test_a_type_is_priced_by_its_name_and_kept_where_the_site_does_not_say() -> None:
    kinds = [None, "f-2", None, "f-9", "f-1"]
    life = [Sighting(at(number), RUNNING, kind) for number, kind in enumerate(kinds, start=1)]
    assert [(use.sku, use.starts_at) for use in meter(life, BY)] == [
        ("m1.small", at(1)),
        ("m1.big", at(2)),
        ("f-9", at(4)),
        ("m1.small", at(5)),
    ]


def test_cuts_at_prices_months_and_grants_but_not_beyond_what_is_known() -> None:
    december = datetime(2026, 12, 1, tzinfo=UTC)
    new = CardSpan(new_id(), at(30), at(50))
    by = replace(BY, cards=(replace(CARD, valid_to=at(30)), new), cuts=(at(10), at(-5)))
    life = [seen(1, RUNNING)]
    edges = [at(1), at(10), at(30), at(50), december]
    for known, count in ((1, 1), (10, 1), (10.1, 2), (31, 3), (50.1, 4), (24 * 30, 5)):
        uses = meter(life, replace(by, known_until=at(known)))
        assert [use.starts_at for use in uses] == edges[:count]
        assert [use.ends_at for use in uses] == [*edges[1:count], None]
    assert [use.version_id for use in uses] == [CARD.version_id, CARD.version_id, new.version_id, None, None]
    # What has ended is cut whatever is known.
    assert len(meter([*life, seen(24 * 30, GONE)], by)) == 5


def test_what_is_charged_stays_and_the_rest_goes_around_it() -> None:
    uses = meter([seen(1, RUNNING), seen(5, STOPPED)], BY)
    assert spans(outside(uses, [])) == spans(uses)
    assert spans(outside(uses, [Period(at(1), at(6))])) == [(6, None, "stopped")]
    assert spans(outside(uses, [Period(at(2), at(3)), Period(at(5), at(6))])) == [
        (1, 2, "running"),
        (3, 5, "running"),
        (6, None, "stopped"),
    ]
    assert spans(outside(uses, [Period(at(0), at(1))])) == spans(uses)


# --- what is left of a machine ----------------------------------------------------------------------------------------


def test_a_snapshot_follows_its_machine_without_gap_or_overlap() -> None:
    life = [seen(1, RUNNING), seen(5, STOPPED), seen(7, SNAPSHOT, since=6.5), seen(20, GONE, since=19)]
    uses = meter(life, BY)
    assert spans(uses) == [(1, 5, "running"), (5, 6.5, "stopped"), (6.5, 19, "snapshot")]
    assert [use.sku for use in uses] == ["m1.small", "m1.small", SNAPSHOT_SKU]
    assert ends_by_word(life, T0) == Ends(machine=at(6.5), snapshot=at(19))
    assert spans(meter(life[:3], BY))[-1] == (6.5, None, "snapshot")
    assert ends_by_word(life[:3], T0) == Ends(machine=at(6.5), snapshot=None)


def test_of_a_machine_that_vanished_the_snapshot_begins_when_it_was_last_seen() -> None:
    for since in (4, None):  # a site's word, or the last look: the change before
        life = [seen(4, RUNNING), seen(7, SNAPSHOT, since=since, estimated=True), seen(20, GONE, since=19)]
        assert spans(meter(life, BY)) == [(4, 19, "snapshot")]
        assert ends_by_word(life, T0) == Ends(machine=None, snapshot=at(19))
    life = [seen(1, RUNNING), seen(7, SNAPSHOT, since=4, estimated=True), seen(20, GONE, since=15, estimated=True)]
    assert spans(meter(life, BY)) == [(1, 4, "running?"), (4, 15, "snapshot?")]
    assert ends_by_word(life, T0) == Ends(machine=None, snapshot=None)


def test_a_later_word_for_the_machines_end_moves_the_border() -> None:
    life = [seen(1, RUNNING), seen(7, SNAPSHOT, since=4, estimated=True), seen(8, SNAPSHOT, since=6)]
    assert spans(meter(life, BY)) == [(1, 6, "running"), (6, None, "snapshot")]
    later = [*life, seen(20, GONE, since=19, estimated=True), seen(22, GONE, since=18)]
    assert spans(meter(later, BY)) == [(1, 6, "running"), (6, 18, "snapshot")]
    assert ends_by_word(later, T0) == Ends(machine=at(6), snapshot=at(18))


def test_a_snapshot_whose_state_cannot_be_read_is_still_one() -> None:
    life = [seen(1, RUNNING), seen(3, SNAPSHOT), seen(5, UNKNOWN), seen(9, GONE)]
    assert spans(meter(life, BY)) == [(1, 3, "running"), (3, 5, "snapshot"), (5, 9, "snapshot?")]
    assert ends_by_word(life, T0) == Ends(machine=at(3), snapshot=at(9))


states = st.sampled_from([state for state in LeaseState if state is not LeaseState.PENDING])
hours = st.integers(0, 24 * 70 * 6).map(lambda tens: T0 + timedelta(minutes=10 * tens))
sightings = st.builds(
    Sighting, hours, states, st.sampled_from([None, "f-1", "f-2"]), st.none() | hours, is_estimated=st.booleans()
)
lives = st.lists(sightings, max_size=12, unique_by=lambda sighting: sighting.seen_at)
meters = st.builds(
    lambda cuts, change, known: replace(
        BY,
        cuts=tuple(cuts),
        cards=(replace(CARD, valid_to=change), CardSpan(new_id(), change, None)),
        known_until=known,
    ),
    st.lists(hours, max_size=3),
    hours,
    hours,
)


@given(life=lives, by=meters, shuffle=st.randoms(use_true_random=False))
def test_uses_tile_the_life_from_any_order_of_sightings(life: list[Sighting], by: Meter, shuffle: Random) -> None:
    uses = meter(life, by)
    mixed = list(life)
    shuffle.shuffle(mixed)
    assert meter(mixed, by) == uses
    ends = [use.ends_at for use in uses]
    assert None not in ends[:-1], "only the last is open"
    for use in uses:
        assert use.ends_at is None or use.starts_at < use.ends_at
        assert use.state not in (GONE, LeaseState.PENDING, UNKNOWN)
        assert (use.sku == SNAPSHOT_SKU) is (use.state is SNAPSHOT)
    in_order = sorted(life, key=lambda sighting: sighting.seen_at)
    for former, following in pairwise(uses):
        assert former.ends_at is not None
        assert former.ends_at <= following.starts_at
        if former.ends_at < following.starts_at:
            # A gap is where the machine was gone, and nowhere else.
            assert any(sighting.state is GONE and former.ends_at <= sighting.seen_at for sighting in in_order), (
                "a gap without an end"
            )
    if in_order and in_order[-1].state is not GONE:
        assert ends[-1] is None
    if in_order and in_order[-1].state is GONE:
        assert None not in ends


@given(life=lives, by=meters)
def test_cuts_only_split(life: list[Sighting], by: Meter) -> None:
    """Put together again, the pieces are the intervals without a cut."""
    assert together(meter(life, by)) == together(meter(life, replace(by, cuts=(), cards=(CARD,), known_until=T0)))


def together(uses: list[Use]) -> list[tuple[datetime, datetime | None, LeaseState, str]]:
    """Neighbours of the same state and SKU as one."""
    found: list[tuple[datetime, datetime | None, LeaseState, str]] = []
    for use in uses:
        start = use.starts_at
        if found and found[-1][1:] == (start, use.state, use.sku):
            start = found.pop()[0]
        found.append((start, use.ends_at, use.state, use.sku))
    return found


PRICE = Price("m1.small", Unit.HOUR, (Tier(Decimal(0), Decimal("0.061234567")),))
PRICES = {name: replace(PRICE, sku=name) for name in ("m1.small", "m1.big")}
PRICES[SNAPSHOT_SKU] = replace(PRICE, sku=SNAPSHOT_SKU, unit=Unit.GIB_HOUR)
BILLS = {state.value: Decimal(number) / 16 for number, state in enumerate(LeaseState)}
LIST = RateCard(CARD.version_id, "list", 1, Commodity("EUR"), PRICES, BILLS)


def total(uses: list[Use], end: datetime = T0 + timedelta(days=80)) -> Decimal:
    """What the uses cost before anything is rounded; what is open lasts until `end`."""
    with exact():
        parts = [
            rated.part.amount.value
            for use in uses
            for rated in rate(
                LIST, Period(use.starts_at, use.ends_at or end), Thing(use.state, disk_gib=7), skus=(use.sku,), used={}
            )
        ]
        return sum(parts, Decimal(0))


@given(life=lives, cuts=st.lists(hours, max_size=20))
def test_splitting_keeps_the_charge(life: list[Sighting], cuts: list[datetime]) -> None:
    """For a linear meter, to the last digit; only what is stored is rounded, charge by charge."""
    split = replace(BY, cuts=tuple(cuts), known_until=T0 + timedelta(days=80))
    assert total(meter(life, split)) == total(meter(life, BY))
