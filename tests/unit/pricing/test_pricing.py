"""The one price code: what splitting, tiers, minimum and increment may and may not do to a charge."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from broker.errors import InvalidInput, PriceUnknown
from broker.pricing import Price, RateCard, Tier, amount, billed_time
from broker.values import Amount, Commodity, Period, Unit, new_id

EUR = Commodity("EUR")
START = datetime(2026, 1, 31, 22, 17, 5, 123_457, tzinfo=UTC)
TIMED = (Unit.HOUR, Unit.SECOND, Unit.GIB_HOUR, Unit.CORE_HOUR)

UNIT_PRICES = st.decimals(min_value=0, max_value=10_000, places=9)
COUNTS = st.integers(min_value=0, max_value=500).map(Decimal)
SHARES = st.decimals(min_value=0, max_value=1, places=2)
LENGTHS = st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=400))
STEPS = st.timedeltas(min_value=timedelta(0), max_value=timedelta(hours=3))


def card(*prices: Price, bills: dict[str, Decimal] | None = None) -> RateCard:
    return RateCard(new_id(), "test", 1, EUR, {price.sku: price for price in prices}, bills or {})


def flat(unit_price: Decimal | str, unit: Unit = Unit.HOUR, **steps: timedelta) -> Price:
    return Price("sku", unit, (Tier(Decimal(0), Decimal(unit_price)),), **steps)


def period(length: timedelta) -> Period:
    return Period(START, START + length)


@st.composite
def tiered(draw: st.DrawFn, unit: Unit = Unit.GIB) -> Price:
    starts = draw(st.lists(st.decimals(min_value=1, max_value=1000, places=3), max_size=4, unique=True))
    above = [Decimal(0), *sorted(starts)]
    return Price("sku", unit, tuple(Tier(start, draw(UNIT_PRICES)) for start in above))


class TestLinearMeters:
    @given(UNIT_PRICES, COUNTS, SHARES, LENGTHS, st.lists(LENGTHS, max_size=8), st.sampled_from(TIMED))
    def test_splitting_a_period_keeps_the_charge_exactly(  # noqa: PLR0917 - one argument per strategy
        self,
        unit_price: Decimal,
        count: Decimal,
        share: Decimal,
        length: timedelta,
        cuts: list[timedelta],
        unit: Unit,
    ) -> None:
        price = flat(unit_price, unit)
        assert price.is_linear
        whole = amount(card(price), "sku", count, period(length), share=share)
        parts = [
            amount(card(price), "sku", count, part, share=share)
            for part in period(length).split(START + cut for cut in cuts)
        ]
        assert Amount.total((part.total for part in parts), EUR) == whole.total
        assert sum(Fraction(part.billed.value) for part in parts) == Fraction(whole.billed.value)

    @given(UNIT_PRICES, COUNTS, SHARES, LENGTHS)
    def test_the_charge_is_price_times_time(
        self, unit_price: Decimal, count: Decimal, share: Decimal, length: timedelta
    ) -> None:
        hours = Fraction(length // timedelta(microseconds=1), 3_600_000_000)
        exact = hours * Fraction(unit_price) * Fraction(count) * Fraction(share)
        charged = amount(card(flat(unit_price)), "sku", count, period(length), share=share).total
        # Far below what is stored: 9 decimals.
        assert abs(Fraction(charged.value) - exact) <= Fraction(1, 10**11)

    @pytest.mark.parametrize("hours", [1, 24, 744, 8784])
    def test_whole_hours_are_exact_wherever_they_begin(self, hours: int) -> None:
        charged = amount(card(flat("0.1")), "sku", Decimal(3), period(timedelta(hours=hours)))
        assert charged.total == Amount(Decimal("0.3") * hours, EUR)
        assert charged.billed.value == 3 * hours

    @given(UNIT_PRICES, LENGTHS)
    def test_a_price_per_second_is_metered_by_time_too(self, unit_price: Decimal, length: timedelta) -> None:
        charged = amount(card(flat(unit_price, Unit.SECOND)), "sku", Decimal(2), period(length))
        seconds = Fraction(length // timedelta(microseconds=1), 1_000_000)
        assert Fraction(charged.billed.value) == 2 * seconds
        assert Fraction(charged.total.value) == 2 * seconds * Fraction(unit_price)

    @given(UNIT_PRICES, COUNTS, LENGTHS)
    def test_a_price_without_time_counts_the_quantity_alone(
        self, unit_price: Decimal, count: Decimal, length: timedelta
    ) -> None:
        for unit in (Unit.GIB, Unit.MIB, Unit.COUNT):
            charged = amount(card(flat(unit_price, unit)), "sku", count, period(length))
            assert charged.total == Amount(unit_price * count, EUR)


class TestTiers:
    @given(tiered(), *[st.decimals(min_value=0, max_value=2000, places=3)] * 3)
    def test_two_uses_cost_what_one_costs(self, price: Price, before: Decimal, first: Decimal, second: Decimal) -> None:
        now = period(timedelta(0))
        one = amount(card(price), "sku", first + second, now, already_used=before)
        a = amount(card(price), "sku", first, now, already_used=before)
        b = amount(card(price), "sku", second, now, already_used=before + first)
        assert a.total + b.total == one.total

    @given(tiered(Unit.HOUR), LENGTHS, LENGTHS, st.integers(min_value=1, max_value=5))
    def test_the_same_holds_for_time(self, price: Price, length: timedelta, cut: timedelta, count: int) -> None:
        assume(cut < length)
        before, after = period(length).split([START + cut]) if cut else (period(timedelta(0)), period(length))
        whole = amount(card(price), "sku", Decimal(count), period(length))
        a = amount(card(price), "sku", Decimal(count), before)
        b = amount(card(price), "sku", Decimal(count), after, already_used=a.billed.value)
        assert a.total + b.total == whole.total

    @given(tiered(), st.integers(min_value=0, max_value=300), st.integers(min_value=0, max_value=300))
    def test_each_unit_costs_what_its_tier_says(self, price: Price, before: int, used: int) -> None:
        """An oracle that counts thousandths one tier at a time, not the code's intervals."""
        expected = Fraction(0)
        for tier, following in zip(price.tiers, (*price.tiers[1:], None), strict=True):
            top = Fraction(10**9) if following is None else Fraction(following.above)
            inside = min(Fraction(before + used), top) - max(Fraction(before), Fraction(tier.above))
            expected += max(inside, Fraction(0)) * Fraction(tier.unit_price)
        found = amount(card(price), "sku", Decimal(used), period(timedelta(0)), already_used=Decimal(before))
        assert Fraction(found.total.value) == expected

    def test_graduated_by_hand(self) -> None:
        price = Price("sku", Unit.GIB, (Tier(Decimal(0), Decimal(0)), Tier(Decimal(100), Decimal("0.08"))))
        found = amount(card(price), "sku", Decimal(150), period(timedelta(0)))
        assert found.total == Amount.of("4", "EUR")
        assert [(part.quantity.value, part.unit_price) for part in found.parts] == [
            (Decimal(100), Decimal(0)),
            (Decimal(50), Decimal("0.08")),
        ]

    @given(tiered(Unit.HOUR), COUNTS, LENGTHS, SHARES)
    def test_parts_add_up_to_the_whole(self, price: Price, count: Decimal, length: timedelta, share: Decimal) -> None:
        found = amount(card(price), "sku", count, period(length), share=share)
        assert Amount.total((part.amount for part in found.parts), EUR) == found.total
        assert sum(Fraction(part.quantity.value) for part in found.parts) == Fraction(found.billed.value)


class TestMinimumAndIncrement:
    @given(STEPS, STEPS, LENGTHS)
    def test_never_less_than_used_nor_more_than_a_step_above(
        self, minimum: timedelta, increment: timedelta, length: timedelta
    ) -> None:
        billed = billed_time(flat("1", minimum=minimum, increment=increment), period(length))
        if not length:
            assert billed == timedelta(0)
            return
        least = max(length, minimum)
        assert least <= billed
        assert billed - least < increment or billed == least
        if increment:
            assert billed % increment == timedelta(0)

    @given(UNIT_PRICES, STEPS, STEPS, LENGTHS)
    def test_never_cheaper_than_the_linear_meter(
        self, unit_price: Decimal, minimum: timedelta, increment: timedelta, length: timedelta
    ) -> None:
        stepped = card(flat(unit_price, minimum=minimum, increment=increment))
        linear = card(flat(unit_price))
        assert amount(linear, "sku", Decimal(1), period(length)).total <= (
            amount(stepped, "sku", Decimal(1), period(length)).total
        )

    def test_by_hand(self) -> None:
        price = flat("3600", minimum=timedelta(minutes=1), increment=timedelta(seconds=1))
        for used, paid in ((timedelta(seconds=2), 60), (timedelta(seconds=61, microseconds=1), 62)):
            assert amount(card(price), "sku", Decimal(1), period(used)).total.rounded() == Amount.of(paid, "EUR")
        assert not price.is_linear


@given(tiered(Unit.HOUR), STEPS, STEPS, LENGTHS, LENGTHS, COUNTS)
def test_more_use_never_costs_less(  # noqa: PLR0917 - one argument per strategy
    price: Price, minimum: timedelta, increment: timedelta, one: timedelta, other: timedelta, count: Decimal
) -> None:
    sold = card(Price("sku", Unit.HOUR, price.tiers, minimum, increment))
    short, long = sorted((one, other))
    less = amount(sold, "sku", count, period(short)).total
    assert less <= amount(sold, "sku", count, period(long)).total
    assert less <= amount(sold, "sku", count + 1, period(short)).total


class TestUnknownIsNeverZero:
    def test_a_sku_that_the_card_lacks(self) -> None:
        with pytest.raises(PriceUnknown, match="no price for gpu"):
            amount(card(flat("1")), "gpu", Decimal(0), period(timedelta(0)))

    def test_a_state_that_the_card_does_not_bill(self) -> None:
        sold = card(flat("1"), bills={"running": Decimal(1), "stopped": Decimal(0)})
        assert sold.share("stopped") == 0
        with pytest.raises(PriceUnknown, match="shelved"):
            sold.share("shelved")


class TestRefusals:
    @pytest.mark.parametrize(
        "tiers",
        [
            (),
            (Tier(Decimal(1), Decimal(1)),),
            (Tier(Decimal(0), Decimal(1)), Tier(Decimal(0), Decimal(2))),
            (Tier(Decimal(0), Decimal(1)), Tier(Decimal(5), Decimal(2)), Tier(Decimal(3), Decimal(2))),
            (Tier(Decimal(0), Decimal(-1)),),
        ],
    )
    def test_tiers_that_make_no_sense(self, tiers: tuple[Tier, ...]) -> None:
        with pytest.raises(InvalidInput, match=r"prices\.sku"):
            Price("sku", Unit.GIB, tiers)

    def test_negative_steps(self) -> None:
        for steps in ({"minimum": timedelta(seconds=-1)}, {"increment": timedelta(seconds=-1)}):
            with pytest.raises(InvalidInput):
                flat("1", **steps)

    @pytest.mark.parametrize(
        ("count", "share", "used"), [("-1", "1", "0"), ("1", "-0.1", "0"), ("1", "1.1", "0"), ("1", "1", "-1")]
    )
    def test_arguments_out_of_range(self, count: str, share: str, used: str) -> None:
        with pytest.raises(InvalidInput):
            amount(
                card(flat("1")),
                "sku",
                Decimal(count),
                period(timedelta(hours=1)),
                share=Decimal(share),
                already_used=Decimal(used),
            )
