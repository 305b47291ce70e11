"""Money set aside: from which grants, how it grows and shrinks, and what is said when there is not enough."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from accounting.ledger import verify
from broker.errors import Conflict, GrantExhausted, InvalidInput, NotFound, RateMissing
from broker.values import Amount, Period, new_id
from tests.unit.accounting.world import HOUR, LEDGER, T0, YEAR, World, eur

pytestmark = pytest.mark.postgres


def test_a_hold_takes_grants_in_their_order_and_may_be_split(world: World) -> None:
    first, second, third = world.grant("10"), world.grant("5"), world.grant("100")
    order = world.order("12.5")
    assert world.of_grant(first) == (0, 10)
    assert world.of_grant(second) == (0, Decimal("2.5"))
    assert world.of_grant(third) == (0, 0)
    assert [(hold.amount, hold.remaining) for hold in world.holds(order)] == [(10, 10), (Decimal("2.5"),) * 2]
    assert verify(world.session) == []


def test_the_position_counts_and_not_the_age(world: World) -> None:
    world.grant("10")
    older, newer = world.grant("10", name="older"), world.grant("10", name="newer")
    older.position, newer.position = 9, 0
    world.session.flush()
    world.order("15")
    assert world.of_grant(newer) == (0, 10)
    assert world.of_grant(older) == (0, 0)


@pytest.mark.parametrize(
    ("period", "why"),
    [
        (Period(T0 + HOUR, YEAR.end), "opens on 2026-11-21 13:00 UTC"),
        (Period(YEAR.start, T0), "ended on 2026-11-21 12:00 UTC"),
        (Period(YEAR.start, T0 + HOUR), "ends on 2026-11-21 13:00 UTC, before this would on 2026-11-23 12:00 UTC"),
    ],
)
def test_only_grants_open_for_the_whole_window_take_part(world: World, period: Period, why: str) -> None:
    closed = world.grant("1000", name="closed", period=period)
    world.grant("10", name="open")
    with pytest.raises(GrantExhausted) as refused:
        world.order("10.01")
    assert f"closed: {why}" in refused.value.detail
    assert "open: 10.00 EUR free" in refused.value.detail
    assert refused.value.context["needed"] == "10.01"
    assert refused.value.context["free"] == "10"
    assert refused.value.hint
    assert world.of_grant(closed) == (0, 0)
    world.order("10")


def test_a_window_may_end_with_the_grant(world: World) -> None:
    grant = world.grant("10", period=Period(T0, T0 + 48 * HOUR))
    world.order("10", until=T0 + 48 * HOUR)
    assert world.of_grant(grant) == (0, 10)


def test_too_little_holds_nothing_and_shows_digits_that_rounding_would_hide(world: World) -> None:
    grant = world.grant("10")
    with pytest.raises(GrantExhausted, match=r"needs 10\.001 EUR .*10\.00 EUR is free \(grant-1: 10\.00 EUR free\)"):
        world.order("10.001")
    assert world.of_grant(grant) == (0, 0)
    assert verify(world.session) == []


def test_no_grant_at_all(world: World) -> None:
    with pytest.raises(GrantExhausted, match=r"0\.00 EUR is free \(it has no grant\)"):
        world.order("1")


def test_a_currency_that_no_grant_pays_in_needs_a_rate(world: World) -> None:
    world.grant("10")
    order = world.order()
    with pytest.raises(RateMissing, match=r"5\.00 USD .* pay in EUR, and no exchange rate from USD"):
        LEDGER.hold(world.session, order.id, [Amount.of(5, "USD")], T0 + HOUR, now=T0)


def test_a_hold_is_a_vector_and_all_of_it_fits_or_none(world: World) -> None:
    money, hours = world.grant("10"), world.grant(Amount.of(100, "SU@vsc"))
    order = world.order()
    both = [eur(4), Amount.of(60, "SU@vsc"), eur(3)]
    LEDGER.hold(world.session, order.id, both, T0 + HOUR, now=T0)
    assert world.of_grant(money) == (0, 7)
    assert world.of_grant(hours) == (0, 60)
    another = world.order()
    with pytest.raises(GrantExhausted, match="SU@vsc"):
        LEDGER.hold(world.session, another.id, [eur(1), Amount.of(60, "SU@vsc")], T0 + HOUR, now=T0)
    assert world.of_grant(money) == (0, 7)


def test_holds_are_rounded_up_to_what_is_stored(world: World) -> None:
    grant = world.grant("10")
    order = world.order()
    LEDGER.hold(world.session, order.id, [eur("1.0000000001")], T0 + HOUR, now=T0)
    assert world.of_grant(grant) == (0, Decimal("1.000000001"))


def test_nothing_needs_no_grant(world: World) -> None:
    order = world.order("0")
    assert world.holds(order) == []


def test_a_second_hold_is_a_conflict_and_a_negative_one_a_mistake(world: World) -> None:
    world.grant("10")
    order = world.order("1")
    with pytest.raises(Conflict):
        LEDGER.hold(world.session, order.id, [eur(1)], T0 + HOUR, now=T0)
    with pytest.raises(ValueError, match="-1"):
        LEDGER.extend(world.session, order.id, [eur(-1)], T0 + HOUR, now=T0)


def test_unknown_orders_and_naive_times(world: World) -> None:
    with pytest.raises(NotFound):
        LEDGER.hold(world.session, new_id(), [eur(1)], T0 + HOUR, now=T0)
    order = world.order()
    with pytest.raises(InvalidInput, match="until"):
        LEDGER.hold(world.session, order.id, [eur(1)], datetime(2026, 12, 1), now=T0)  # noqa: DTZ001 - the point


def test_extend_grows_and_shrinks_the_whole_hold(world: World) -> None:
    first, second = world.grant("10"), world.grant("10")
    order = world.order("8")
    LEDGER.extend(world.session, order.id, [eur(13)], T0 + 72 * HOUR, now=T0)
    assert (world.of_grant(first), world.of_grant(second)) == ((0, 10), (0, 3))
    assert {hold.until for hold in world.holds(order)} == {T0 + 72 * HOUR}
    LEDGER.extend(world.session, order.id, [eur(4)], T0 + 24 * HOUR, now=T0)
    assert (world.of_grant(first), world.of_grant(second)) == ((0, 4), (0, 0))
    assert verify(world.session) == []


def test_an_extension_that_does_not_fit_changes_nothing(world: World) -> None:
    grant = world.grant("10")
    order = world.order("8")
    with pytest.raises(GrantExhausted, match=r"needs 11\.00 EUR .* 10\.00 EUR is free"):
        LEDGER.extend(world.session, order.id, [eur(11)], T0 + 72 * HOUR, now=T0)
    assert world.of_grant(grant) == (0, 8)
    assert world.holds(order)[0].until == T0 + 48 * HOUR


def test_an_extension_beyond_a_grants_end_moves_to_the_others(world: World) -> None:
    ending = world.grant("10", period=Period(YEAR.start, T0 + 48 * HOUR))
    lasting = world.grant("10")
    order = world.order("6")
    assert world.of_grant(ending) == (0, 6)
    LEDGER.extend(world.session, order.id, [eur(8)], T0 + 72 * HOUR, now=T0)
    assert (world.of_grant(ending), world.of_grant(lasting)) == ((0, 0), (0, 8))


def test_another_currency_replaces_the_former(world: World) -> None:
    euros, dollars = world.grant("10"), world.grant(Amount.of(10, "USD"))
    order = world.order("6")
    LEDGER.extend(world.session, order.id, [Amount.of(7, "USD")], T0 + 72 * HOUR, now=T0)
    assert (world.of_grant(euros), world.of_grant(dollars)) == ((0, 0), (0, 7))


def test_release_gives_back_once(world: World) -> None:
    grant = world.grant("10")
    order, other = world.order("6"), world.order("1")
    LEDGER.release(world.session, order.id, now=T0 + HOUR)
    LEDGER.release(world.session, order.id, now=T0 + 2 * HOUR)
    assert world.of_grant(grant) == (0, 1)
    assert [hold.released_at for hold in world.holds(order)] == [T0 + HOUR]
    assert [hold.released_at for hold in world.holds(other)] == [None]
    LEDGER.extend(world.session, order.id, [eur(2)], T0 + timedelta(days=1), now=T0 + HOUR)
    assert world.of_grant(grant) == (0, 3)
    assert verify(world.session) == []


def test_moments_are_shown_in_utc(world: World) -> None:
    world.grant("1")
    until = datetime(2026, 11, 23, 12, 0, tzinfo=UTC).astimezone(tz=None)
    with pytest.raises(GrantExhausted, match="until 2026-11-23 12:00 UTC"):
        world.order("2", until=until)
