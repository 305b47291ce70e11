"""Sizes and durations as people write them."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.errors import InvalidInput
from broker.units import counted, duration, gibibytes, mebibytes, show_duration, show_memory


class TestSizes:
    @pytest.mark.parametrize(
        ("text", "mib"),
        [
            ("32 GiB", 32_768),
            ("32GiB", 32_768),
            (" 4096 MiB ", 4096),
            ("1 TiB", 1_048_576),
            ("0.5 GiB", 512),
            ("32 GB", 30_518),  # 32e9 / 2**20 = 30517.578
            ("1 MB", 1),
            ("1.1 MiB", 2),
            ("2 TB", 1_907_349),
            ("0 GiB", 0),
        ],
    )
    def test_sizes_are_minima_and_rounded_up(self, text: str, mib: int) -> None:
        assert mebibytes(text, field="memory") == mib

    def test_disk_is_in_whole_gib(self) -> None:
        assert gibibytes("20 GB", field="disk") == 19
        assert gibibytes("20 GiB", field="disk") == 20
        assert gibibytes("100 MiB", field="disk") == 1

    @pytest.mark.parametrize(
        "wrong", [4, Decimal("4.5"), "4", "", "GiB", "4 G", "4 Gi", "4 gb", "4 GiB/s", "-4 GiB", "1e3 GiB", "4,5 GiB"]
    )
    def test_no_guessing(self, wrong: object) -> None:
        with pytest.raises(InvalidInput) as caught:
            mebibytes(wrong, field="resources.memory")
        assert caught.value.field == "resources.memory"
        assert "4 GiB" in str(caught.value.hint)

    @pytest.mark.parametrize("wrong", [True, None, [], 1.5, {}])
    def test_what_is_no_text(self, wrong: object) -> None:
        for read in (mebibytes, gibibytes, duration):
            with pytest.raises(InvalidInput, match="must be text"):
                read(wrong, field="x")

    @given(st.integers(min_value=1, max_value=10**9))
    def test_shown_sizes_read_back(self, mib: int) -> None:
        assert mebibytes(show_memory(mib), field="memory") == mib

    @given(st.integers(min_value=0, max_value=10**9))
    def test_binary_and_decimal_units_agree_with_bytes(self, number: int) -> None:
        assert (mebibytes(f"{number} GB", field="x") - 1) * 2**20 < number * 10**9
        assert mebibytes(f"{number} GB", field="x") * 2**20 >= number * 10**9


class TestDurations:
    @pytest.mark.parametrize(
        ("text", "length"),
        [
            ("3 days", timedelta(days=3)),
            ("1 day", timedelta(days=1)),
            ("12 h", timedelta(hours=12)),
            ("12h", timedelta(hours=12)),
            ("90 minutes", timedelta(minutes=90)),
            ("2 weeks", timedelta(weeks=2)),
            ("1.5 h", timedelta(minutes=90)),
            ("1 day 12 h", timedelta(hours=36)),
            ("1 day, 30 min", timedelta(days=1, minutes=30)),
            ("45 s", timedelta(seconds=45)),
        ],
    )
    def test_spellings(self, text: str, length: timedelta) -> None:
        assert duration(text, field="duration") == length

    @pytest.mark.parametrize(
        "wrong", [3, "3", "", "days", "5 m", "2 months", "1 year", "P3D", "-1 day", "1 s 1", "3 d!"]
    )
    def test_no_guessing(self, wrong: object) -> None:
        with pytest.raises(InvalidInput) as caught:
            duration(wrong, field="duration")
        assert caught.value.hint

    def test_whole_seconds_only(self) -> None:
        with pytest.raises(InvalidInput, match="whole number of seconds"):
            duration("0.5 s", field="duration")

    def test_longer_than_time_itself(self) -> None:
        with pytest.raises(InvalidInput, match="too long"):
            duration("999999999999999 weeks", field="duration")

    @given(st.integers(min_value=0, max_value=10**10))
    def test_shown_durations_read_back(self, seconds: int) -> None:
        length = timedelta(seconds=seconds)
        assert duration(show_duration(length), field="duration") == length

    def test_shown_for_people(self) -> None:
        assert show_duration(timedelta(days=1, hours=12)) == "1 day 12 hours"
        assert show_duration(timedelta(0)) == "0 seconds"
        assert show_duration(timedelta(seconds=1.5)) == "1.5 seconds"


def test_counted() -> None:
    assert (counted(1, "core"), counted(8, "core"), counted(0, "GPU")) == ("1 core", "8 cores", "0 GPUs")
