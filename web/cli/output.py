"""How answers look on a terminal: tables without boxes, exact amounts, plain words for times.

Everything that came from outside (names, what a site said) is shown as text: neither rich's markup nor a terminal's
control sequences in it have any effect.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import IO, Any, Final

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from web.client.shapes import Money

# Where nobody's window limits it, a line is as long as its words.
_PIPE_WIDTH: Final = 200
_PIPE_HEIGHT: Final = 25
_CENTS: Final = 2
_DECIMALS: Final = 6
_LONG_WORD: Final = re.compile(r"(\S{100})\S{200,}(\S{20})")
# What turns the direction of a line round (Unicode's Bidi_Control): it could make one name look like another.
_TURNS: Final = (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
_CONTROL: Final = {code: None for code in (*range(32), *range(127, 160), *_TURNS) if code not in (9, 10)}

Cell = str | Text


def screen(*, errors: bool = False, file: IO[str] | None = None) -> Console:
    """Standard output, or standard error. NO_COLOR and a pipe are respected."""
    stream = file or (sys.stderr if errors else sys.stdout)
    width = None if stream.isatty() or "COLUMNS" in os.environ else _PIPE_WIDTH
    # Rich takes a width as it is only with a height, and else 80 where TERM is dumb, as in many a cron job.
    height = None if width is None else _PIPE_HEIGHT
    return Console(file=stream, width=width, height=height, highlight=False, emoji=False, markup=False, soft_wrap=False)


def clean(text: object) -> str:
    """Text that cannot move the cursor, change colours or turn the line round."""
    return str(text).translate(_CONTROL)


def styled(text: object, style: str) -> Text:
    """Text in a style, for a cell or a line."""
    return Text(clean(text), style=style)


def table(*columns: str, right: Sequence[str] = ()) -> Table:
    """An empty table: a quiet header, no lines. Columns named in `right` are for numbers."""
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for name in columns:
        is_number = name in right
        made.add_column(name, justify="right" if is_number else "left", no_wrap=is_number, overflow="fold")
    return made


def row(into: Table, *cells: Cell) -> None:
    """Add a row; texts are cleaned."""
    into.add_row(*(cell if isinstance(cell, Text) else Text(clean(cell)) for cell in cells))


def show(made: Table, *, empty: str = "Nothing.", console: Console | None = None, indent: int = 0) -> None:
    """Print a table, or say that it is empty."""
    console = console or screen()
    console.print(Padding(made, (0, 0, 0, indent), expand=False) if made.row_count else styled(empty, "dim"))


def show_columns(
    columns: Mapping[str, Sequence[Cell]],
    *,
    right: Sequence[str] = (),
    spare: Sequence[str] = (),
    empty: str = "Nothing.",
    console: Console | None = None,
    indent: int = 0,
) -> None:
    """Print columns side by side.

    Where the window is too narrow the `spare` ones that there are are left out, the first one first: a number that is
    cut off would be worse than one that is missing.
    """
    console = console or screen()
    kept = dict(columns)
    for name in spare:
        if _natural_width(kept) + indent > console.width:
            kept.pop(name, None)
    made = table(*kept, right=right)
    for cells in zip(*kept.values(), strict=True):
        row(made, *cells)
    show(made, empty=empty, console=console, indent=indent)


def _natural_width(columns: Mapping[str, Sequence[Cell]]) -> int:
    """Two spaces stand between columns, and none after the last."""
    return sum(2 + max(len(str(cell)) for cell in (name, *cells)) for name, cells in columns.items()) - 2


def say(text: Cell, *, console: Console | None = None) -> None:
    """Print one line."""
    (console or screen()).print(text if isinstance(text, Text) else Text(clean(text)))


def show_failure(
    title: str, detail: str, hint: str | None, more: Iterable[tuple[str, str | None]], *, file: IO[Any] | None = None
) -> None:
    """What failed, why, and the way out, on standard error."""
    console = screen(errors=True, file=file)
    console.print(Text.assemble((f"{clean(title)}: ", "bold red"), _bounded(detail)))
    if hint:
        console.print(Text(f"  {_bounded(hint)}"))
    for text, way_out in more:
        console.print(Text.assemble(("also ", "dim"), _bounded(text), f" - {_bounded(way_out)}" if way_out else ""))


def _bounded(text: str) -> str:
    """Clean, and without the middle of words that nobody reads: what was typed may be a whole file."""
    return _LONG_WORD.sub(r"\1...\2", clean(text))


# --- amounts ---------------------------------------------------------------------------------------------------------


def _decimals(value: Decimal) -> int:
    """2 to 6: as many as the amount has."""
    exponent = value.normalize().as_tuple().exponent
    return min(max(_CENTS, -exponent if isinstance(exponent, int) else 0), _DECIMALS)


def _digits(value: Decimal, decimals: int) -> str:
    """Half away from zero, as invoices round. What is there but would round away is not shown as nothing."""
    shown = round(value, decimals)
    if value and not shown:
        return f"{value.normalize():f}"
    return f"{shown:f}"


def money(amount: Money | None) -> str:
    """`1.92 EUR`, `0.000133 EUR`; `unknown` where the price is not known."""
    if amount is None:
        return "unknown"
    value = Decimal(amount["value"])
    return f"{_digits(value, _decimals(value))} {amount['commodity']}"


def monies(amounts: Sequence[Money] | None) -> str:
    """Several currencies in one cell."""
    return "unknown" if amounts is None else ", ".join(money(amount) for amount in amounts) or "-"


def column(amounts: Sequence[Money | None]) -> list[str]:
    """A column of amounts with the same number of decimals, so that their points stand below each other."""
    values = [None if amount is None else Decimal(amount["value"]) for amount in amounts]
    decimals = max((_decimals(value) for value in values if value is not None), default=_CENTS)
    return [
        "unknown" if amount is None or value is None else f"{_digits(value, decimals)} {amount['commodity']}"
        for amount, value in zip(amounts, values, strict=True)
    ]


# --- times and sizes -------------------------------------------------------------------------------------------------


def moment(text: str | None) -> datetime | None:
    """A time of the API."""
    return None if text is None else datetime.fromisoformat(text).astimezone(UTC)


def when(text: str | None, *, now: datetime) -> str:
    """`12 s ago`, `in 3 h`; `never` for nothing."""
    found = moment(text)
    if found is None:
        return "never"
    ahead = (found - now).total_seconds()
    return f"in {span(ahead)}" if ahead > 0 else f"{span(-ahead)} ago"


def clock(text: str | None) -> str:
    """A time of day with its date, UTC."""
    found = moment(text)
    return "" if found is None else f"{found:%Y-%m-%d %H:%M:%S}"


def span(length: float) -> str:
    """Seconds in the largest unit of which there are two: `9 s`, `14 min`, `5 h`, `12 days`."""
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if length >= 2 * size:
            return f"{int(length // size)} {unit}"
    return f"{int(length)} s"


def memory(mebibytes: int) -> str:
    """`32 GiB`, `512 MiB`."""
    return f"{mebibytes // 1024} GiB" if mebibytes % 1024 == 0 else f"{mebibytes} MiB"


def short(identifier: str) -> str:
    """The beginning of an id, long enough to be one workload's: UUIDv7 begin with the time."""
    return identifier[:13]


_STATE_STYLES: Final = {
    "running": "green",
    "active": "green",
    "over": "dim",
    "gone": "dim",
    "returned": "red",
    "error": "red",
    "unknown": "yellow",
}


def state(word: str) -> Text:
    """A state in its colour; the word alone says it too."""
    return Text(word, style=_STATE_STYLES.get(word, ""))
