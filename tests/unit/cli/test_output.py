"""Amounts keep their digits, texts cannot act, lengths of time read well."""

from __future__ import annotations

import io
import unicodedata
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from web.cli import output
from web.client.shapes import Money

TURNS = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def euros(value: str) -> Money:
    return {"value": value, "commodity": "EUR"}


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("0.000000000", "0.00 EUR"),
        ("100.000000000", "100.00 EUR"),
        ("1.920000000", "1.92 EUR"),
        ("0.000133200", "0.000133 EUR"),
        ("0.0000000012", "0.0000000012 EUR"),
        ("-3.5", "-3.50 EUR"),
        ("12345678901234567890.1", "12345678901234567890.10 EUR"),
    ],
)
def test_money_shows_what_there_is(value: str, shown: str) -> None:
    assert output.money(euros(value)) == shown


def test_an_unknown_amount_is_never_shown_as_nothing() -> None:
    assert output.money(None) == "unknown"
    assert output.monies(None) == "unknown"
    assert output.column([None, euros("1")]) == ["unknown", "1.00 EUR"]


@given(st.lists(st.decimals("0", "1e9", places=9), min_size=1))
def test_a_column_has_its_points_below_each_other_and_no_amount_vanishes(values: list[Decimal]) -> None:
    cells = output.column([euros(f"{value:f}") for value in values])
    for value, cell in zip(values, cells, strict=True):
        shown = Decimal(cell.removesuffix(" EUR"))
        assert abs(shown - value) <= Decimal("0.0000005")
        assert bool(shown) == bool(value)
    long_enough = [cell for value, cell in zip(values, cells, strict=True) if not 0 < value < Decimal("0.000001")]
    assert len({len(cell.partition(".")[2]) for cell in long_enough}) <= 1


@given(st.text())
def test_what_came_from_outside_cannot_move_the_cursor(text: str) -> None:
    cleaned = output.clean(text)
    assert not any(ord(letter) < 32 and letter not in "\t\n" for letter in cleaned)
    assert not any(127 <= ord(letter) < 160 for letter in cleaned)
    assert not any(unicodedata.bidirectional(letter) in TURNS for letter in cleaned)


def test_markup_in_a_name_is_text() -> None:
    stream = io.StringIO()
    made = output.table("name")
    output.row(made, "[bold]site[/bold] :smile: \x1b[31mred")
    output.show(made, console=output.screen(file=stream))
    assert "[bold]site[/bold] :smile: [31mred" in stream.getvalue()


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "0 s"), (119, "119 s"), (120, "2 min"), (7300, "2 h"), (172_799, "47 h"), (1e6, "11 days")],
)
def test_a_length_of_time_is_in_the_unit_of_which_there_are_two(seconds: float, shown: str) -> None:
    assert output.span(seconds) == shown


def test_a_moment_is_told_from_now() -> None:
    assert output.when((NOW - timedelta(seconds=9)).isoformat(), now=NOW) == "9 s ago"
    assert output.when("2026-03-01T15:00:00Z", now=NOW) == "in 3 h"
    assert output.when(None, now=NOW) == "never"


def test_sizes_keep_what_is_no_whole_gibibyte() -> None:
    assert output.memory(32768) == "32 GiB"
    assert output.memory(1536) == "1536 MiB"


@pytest.mark.parametrize(("width", "columns"), [(80, "name price note"), (20, "name price"), (10, "name price")])
def test_a_narrow_window_is_shown_fewer_columns_and_no_broken_number(width: int, columns: str) -> None:
    stream = io.StringIO()
    console = output.screen(file=stream)
    console.width = width
    cells = {"name": ["a"], "note": ["something long about it"], "price": ["1.20 EUR"]}
    output.show_columns(cells, right=("price",), spare=("note",), console=console)
    header, only = stream.getvalue().splitlines()
    assert set(header.split()) <= set(columns.split())
    assert width < 15 or "1.20 EUR" in only


@pytest.mark.parametrize(("width", "is_there"), [(18, True), (17, False)])
def test_a_spare_column_is_left_out_where_there_is_no_room_and_only_there(width: int, is_there: bool) -> None:
    screen = io.StringIO()
    columns = {"name": ["north-1"], "spare": ["not so"], "n": ["1"]}
    output.show_columns(columns, spare=("gone", "spare"), console=Console(file=screen, width=width))
    assert ("spare" in screen.getvalue()) is is_there
    assert len(screen.getvalue().splitlines()) == 2


def test_a_name_is_read_in_the_direction_in_which_it_is_written() -> None:
    assert output.clean("invoice\u202efdp.exe\u2069") == "invoicefdp.exe"
