"""Amounts, quantities and periods: the properties that money and time rest on."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.errors import InvalidInput
from broker.values import Amount, Commodity, Period, Quantity, Unit, decimal, month_starts, new_id, plain, utc

EUR = Commodity("EUR")
MONEY = st.decimals(min_value=Decimal(-(10**18)), max_value=Decimal(10**18), places=9)
AMOUNTS = MONEY.map(lambda value: Amount(value, EUR))
# What a price times a time makes: as many digits as Leeway ever carries.
LONG = st.decimals(min_value=-1, max_value=1, allow_nan=False, allow_infinity=False, places=48)
MOMENTS = st.datetimes(min_value=datetime(1990, 1, 1), max_value=datetime(2090, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - hypothesis adds the zone
PERIODS = st.tuples(MOMENTS, MOMENTS).map(lambda pair: Period(min(pair), max(pair)))


class TestDecimal:
    @pytest.mark.parametrize("wrong", [1.5, True, None, object()])
    def test_only_exact_types(self, wrong: object) -> None:
        with pytest.raises(TypeError, match="exact numbers"):
            decimal(wrong)  # type: ignore[arg-type]  # the wrong type is the test

    @pytest.mark.parametrize("wrong", ["", "x", "1,5", "nan", "Infinity", "1_000", "٣", "0x10", "1e", "--1", "1 2"])
    def test_text_that_is_no_number_names_the_field(self, wrong: str) -> None:
        with pytest.raises(InvalidInput) as caught:
            decimal(wrong, field="max_price")
        assert caught.value.field == "max_price"

    @pytest.mark.parametrize("wrong", ["1e999999999", "-1e400", "1" * 20, "1e-999999", "0." + "0" * 60 + "1"])
    def test_text_that_no_column_holds_is_refused_before_anything_counts_with_it(self, wrong: str) -> None:
        with pytest.raises(InvalidInput, match=r"too (large|small)"):
            decimal(wrong)

    @pytest.mark.parametrize(("text", "value"), [("1e3", 1000), (" 12.50 ", Decimal("12.5")), ("-.5", Decimal("-0.5"))])
    def test_usual_spellings(self, text: str, value: Decimal) -> None:
        assert decimal(text) == value

    @given(MONEY)
    def test_plain_reads_back(self, value: Decimal) -> None:
        text = plain(value)
        assert decimal(text) == value
        assert "E" not in text
        assert not ("." in text and text.endswith(("0", ".")))

    def test_plain_has_no_negative_zero(self) -> None:
        assert plain(Decimal("-0.00")) == "0"


class TestAmount:
    @given(AMOUNTS, AMOUNTS, AMOUNTS)
    def test_sums_are_associative_and_commutative(self, a: Amount, b: Amount, c: Amount) -> None:
        assert (a + b) + c == a + (b + c)
        assert a + b == b + a

    @given(AMOUNTS, AMOUNTS)
    def test_subtraction_undoes_addition(self, a: Amount, b: Amount) -> None:
        assert (a + b) - b == a
        assert a + (-a) == Amount.zero(EUR)

    @given(LONG.map(lambda value: Amount(value, EUR)))
    def test_negation_keeps_every_digit(self, a: Amount) -> None:
        owed = -a
        assert a + owed == Amount.zero(EUR)
        assert -owed == a

    @given(st.lists(AMOUNTS, max_size=20))
    def test_total_is_the_exact_sum(self, amounts: list[Amount]) -> None:
        exact = sum((Fraction(amount.value) for amount in amounts), Fraction(0))
        assert Fraction(Amount.total(amounts, EUR).value) == exact

    @given(AMOUNTS, st.integers(min_value=-(10**6), max_value=10**6))
    def test_times_is_repeated_addition(self, a: Amount, factor: int) -> None:
        assert Fraction(a.times(factor).value) == Fraction(a.value) * factor

    def test_two_commodities_never_mix(self) -> None:
        euro, hours = Amount.of(1, "EUR"), Amount.of(1, "SU@vsc")
        for mix in (
            lambda: euro + hours,
            lambda: euro - hours,
            lambda: euro < hours,
            lambda: euro <= hours,
            lambda: Amount.total([hours], EUR),
        ):
            with pytest.raises(ValueError, match="do not add up"):
                mix()
        assert euro != hours

    @pytest.mark.parametrize("wrong", [1.5, "1.5", 1, True, None])
    def test_the_value_is_a_decimal_and_nothing_else(self, wrong: object) -> None:
        with pytest.raises(TypeError):
            Amount(wrong, EUR)  # type: ignore[arg-type]  # the wrong type is the test

    @pytest.mark.parametrize("wrong", ["NaN", "Infinity", "-Infinity", "sNaN"])
    def test_no_amount_is_infinite(self, wrong: str) -> None:
        with pytest.raises(InvalidInput):
            Amount(Decimal(wrong), EUR)

    def test_a_float_factor_is_refused(self) -> None:
        with pytest.raises(TypeError):
            Amount.of(1, "EUR").times(0.5)  # type: ignore[arg-type]  # the wrong type is the test

    @given(LONG)
    def test_storing_is_nearest_and_idempotent(self, value: Decimal) -> None:
        stored = Amount(value, EUR).stored()
        assert abs(Fraction(stored.value) - Fraction(value)) <= Fraction(1, 2 * 10**9)
        assert stored.stored() == stored

    @pytest.mark.parametrize(
        ("value", "code", "shown"),
        [
            ("0.005", "EUR", "0.01 EUR"),
            ("0.004999999", "EUR", "0.005 EUR"),
            ("0.00151667", "EUR", "0.0015 EUR"),
            ("-0.000019", "EUR", "-0.000019 EUR"),
            ("0.25", "JPY", "0.25 JPY"),
            ("0", "EUR", "0.00 EUR"),
            ("-0.005", "EUR", "-0.01 EUR"),
            ("2.5", "JPY", "3 JPY"),
            ("2.5", "VND", "3 VND"),
            ("1.0005", "KWD", "1.001 KWD"),
            ("1.0005", "JOD", "1.001 JOD"),
            ("1.005", "HUF", "1.01 HUF"),
            ("12.345", "SU@vsc", "12.35 SU@vsc"),
        ],
    )
    def test_people_see_the_minor_unit_rounded_half_up_and_never_nothing_for_a_little(
        self, value: str, code: str, shown: str
    ) -> None:
        assert str(Amount.of(value, code)) == shown

    @pytest.mark.parametrize("text", ["12", "EUR", "12 euro", "x EUR", "12 EUR EUR", "1e99 EUR", ""])
    def test_parsing_names_the_field_whatever_is_wrong(self, text: str) -> None:
        with pytest.raises(InvalidInput) as caught:
            Amount.parse(text, field="max_price")
        assert caught.value.field == "max_price"
        assert caught.value.hint

    def test_parsing(self) -> None:
        assert Amount.parse(" 12.50 EUR ") == Amount.of("12.5", "EUR")
        assert Amount.parse("3 SU@vsc") == Amount.of(3, "SU@vsc")

    @pytest.mark.parametrize("wrong", ["eur", "EURO", "", "SU", "SU@", "@vsc", "SU@VSC", "EUR\n"])
    def test_a_commodity_is_a_currency_or_a_bound_unit(self, wrong: str) -> None:
        with pytest.raises(InvalidInput):
            Commodity(wrong)


class TestQuantity:
    @given(st.decimals(min_value=0, max_value=10**12, places=6))
    def test_there_and_back_between_a_unit_and_a_finer_one(self, value: Decimal) -> None:
        assert Quantity(value, Unit.HOUR).to(Unit.SECOND).to(Unit.HOUR).value == value
        assert Quantity(value, Unit.GIB).to(Unit.MIB) == Quantity(value * 1024, Unit.MIB)

    def test_units_of_another_kind_do_not_convert(self) -> None:
        with pytest.raises(ValueError, match="is no"):
            Quantity(Decimal(1), Unit.GIB).to(Unit.GIB_HOUR)

    def test_a_quantity_is_a_non_negative_decimal(self) -> None:
        with pytest.raises(InvalidInput):
            Quantity(Decimal("-0.1"), Unit.HOUR)
        for wrong in (1, 1.0, "1"):
            with pytest.raises(TypeError):
                Quantity(wrong, Unit.HOUR)  # type: ignore[arg-type]  # the wrong type is the test


class TestPeriod:
    @given(PERIODS, st.lists(MOMENTS, max_size=12))
    def test_a_split_joins_to_the_period_without_gap_or_overlap(self, period: Period, cuts: list[datetime]) -> None:
        parts = list(period.split(cuts))
        assert parts[0].start == period.start
        assert parts[-1].end == period.end
        assert all(before.end == after.start for before, after in pairwise(parts))
        assert sum((part.length for part in parts), timedelta(0)) == period.length
        assert {part.start for part in parts[1:]} == {cut for cut in cuts if period.start < cut < period.end}

    @given(PERIODS, MOMENTS, st.lists(MOMENTS, max_size=6))
    def test_each_moment_is_in_exactly_one_part(self, period: Period, moment: datetime, cuts: list[datetime]) -> None:
        inside = sum(part.contains(moment) for part in period.split(cuts))
        assert inside == (1 if period.contains(moment) else 0)

    @given(PERIODS)
    def test_half_open(self, period: Period) -> None:
        assert not period.contains(period.end)
        assert period.contains(period.start) is not period.is_empty

    @given(PERIODS)
    def test_months_begin_where_a_utc_calendar_says(self, period: Period) -> None:
        found = month_starts(period)
        for cut in found:
            assert (cut.day, cut.hour, cut.minute, cut.second, cut.microsecond) == (1, 0, 0, 0, 0)
            assert cut.utcoffset() == timedelta(0)
            assert period.start < cut < period.end
        for part in period.split(found):
            if not part.is_empty:
                last = part.end - timedelta(microseconds=1)
                assert (part.start.year, part.start.month) == (last.year, last.month)

    def test_months_of_a_period_given_in_another_zone_are_utc_months(self) -> None:
        east = timezone(timedelta(hours=2))
        period = Period(datetime(2026, 2, 1, 0, 30, tzinfo=east), datetime(2026, 2, 1, 4, 0, tzinfo=east))
        assert month_starts(period) == [datetime(2026, 2, 1, tzinfo=UTC)]

    def test_a_clock_change_does_not_change_the_length(self) -> None:
        tallinn = ZoneInfo("Europe/Tallinn")
        night = Period(datetime(2026, 10, 24, 12, tzinfo=tallinn), datetime(2026, 10, 25, 12, tzinfo=tallinn))
        assert night.length == timedelta(hours=25)
        assert night.hours == Quantity(Decimal(25), Unit.HOUR)
        assert night.start.tzinfo is UTC

    @given(PERIODS, st.lists(MOMENTS, max_size=8))
    def test_the_hours_of_the_parts_add_up_exactly(self, period: Period, cuts: list[datetime]) -> None:
        parts = [Fraction(part.hours.value) for part in period.split(cuts)]
        assert sum(parts) == Fraction(period.hours.value)

    @given(PERIODS)
    def test_hours_and_seconds_are_the_length(self, period: Period) -> None:
        seconds = Fraction(period.length // timedelta(microseconds=1), 10**6)
        assert Fraction(period.seconds.value) == seconds
        assert abs(Fraction(period.hours.value) - seconds / 3600) <= Fraction(1, 10**18)

    @given(MOMENTS, st.integers(min_value=0, max_value=100_000))
    def test_whole_hours_are_whole_wherever_they_begin(self, start: datetime, hours: int) -> None:
        assert Period(start, start + timedelta(hours=hours)).hours.value == hours

    def test_refusals(self) -> None:
        noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
        with pytest.raises(InvalidInput, match="before the start"):
            Period(noon, noon - timedelta(microseconds=1))
        with pytest.raises(InvalidInput, match="no time zone"):
            Period(noon.replace(tzinfo=None), noon)
        with pytest.raises(InvalidInput, match="no time zone"):
            utc(noon.replace(tzinfo=None))


def test_ids_sort_by_the_time_they_were_made() -> None:
    ids = [new_id() for _ in range(1000)]
    assert ids == sorted(ids)
    assert {one.version for one in ids} == {7}
