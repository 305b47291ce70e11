"""Sizes and durations as people write them: `32 GiB`, `500 GB`, `3 days`, `1 day 12 h`. A bare number is refused."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import timedelta
from decimal import ROUND_CEILING, Decimal

from broker.errors import InvalidInput
from broker.values import exact, plain

_NUMBER = r"[0-9]{1,15}(?:\.[0-9]{1,9})?"
_SIZE = re.compile(rf"({_NUMBER})\s*([A-Za-z]*)")
_DURATION_PART = re.compile(rf"({_NUMBER})\s*([A-Za-z]*)\s*,?\s*")

# Bytes. IEC units are powers of two, SI units powers of ten.
_BYTES = {
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
}
_SECONDS = {
    name: seconds
    for seconds, names in {
        1: ("s", "sec", "second", "seconds"),
        60: ("min", "minute", "minutes"),
        3600: ("h", "hour", "hours"),
        86_400: ("d", "day", "days"),
        604_800: ("w", "week", "weeks"),
    }.items()
    for name in names
}
_SHOWN = ((86_400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))
# What looks like a unit and is not one here, or could be two.
_TRAPS = {"m": "minutes or months?", "month": "months differ in length", "months": "months differ in length"}


def mebibytes(value: object, *, field: str, example: str = "4 GiB") -> int:
    """A size in whole MiB, rounded up, because sizes are minima.

    Raises:
        InvalidInput: no unit, an unknown one, or no number.
    """
    return _size(value, step="MiB", field=field, example=example)


def gibibytes(value: object, *, field: str, example: str = "20 GiB") -> int:
    """A size in whole GiB, rounded up; raises as `mebibytes`."""
    return _size(value, step="GiB", field=field, example=example)


def duration(value: object, *, field: str, example: str = "3 days") -> timedelta:
    """A duration in whole seconds, one part or several (`1 day 12 h`).

    Raises:
        InvalidInput: no unit, an unknown or ambiguous one, or a fraction of a second.
    """
    text = _text(value, field, example)
    total = Decimal(0)
    rest = text
    while rest or rest is text:
        part = _DURATION_PART.match(rest)
        if part is None:
            raise InvalidInput(field, f"{_short(text)} is not a duration", hint=f"Write it like {example} or 12 h.")
        number, unit = part.groups()
        total += Decimal(number) * _seconds(unit, text, field, example)
        rest = rest[part.end() :]
    if total != total.to_integral_value():
        raise InvalidInput(field, f"{_short(text)} is not a whole number of seconds", hint="Write it in seconds.")
    try:
        return timedelta(seconds=int(total))
    except OverflowError:
        raise InvalidInput(field, f"{_short(text)} is too long", hint=f"Write it like {example}.") from None


def show_memory(mib: int | Decimal) -> str:
    """`32 GiB`, or MiB where that is not whole; `mebibytes` reads it back."""
    return f"{plain(Decimal(mib) / 1024)} GiB" if mib % 1024 == 0 else f"{plain(Decimal(mib))} MiB"


def show_duration(length: timedelta) -> str:
    """`3 days`, `1 day 12 hours`; `duration` reads it back where it is in whole seconds."""
    if length % timedelta(seconds=1):
        return f"{plain(Decimal(length // timedelta(microseconds=1)) / 1_000_000)} seconds"
    words, rest = [], length // timedelta(seconds=1)
    for seconds, name in _SHOWN:
        number, rest = divmod(rest, seconds)
        if number:
            words.append(counted(number, name))
    return " ".join(words) or "0 seconds"


def counted(number: int, noun: str) -> str:
    """`1 core`, `8 cores`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _size(value: object, *, step: str, field: str, example: str) -> int:
    text = _text(value, field, example)
    found = _SIZE.fullmatch(text)
    if found is None:
        raise InvalidInput(field, f"{_short(text)} is not a size", hint=f"Write it like {example}.")
    number, unit = found.groups()
    if unit not in _BYTES:
        raise InvalidInput(field, _unit_reason(unit, text, _BYTES), hint=f"Write it like {example}.")
    with exact():
        return int((Decimal(number) * _BYTES[unit] / _BYTES[step]).to_integral_value(rounding=ROUND_CEILING))


def _seconds(unit: str, text: str, field: str, example: str) -> int:
    if unit in _SECONDS:
        return _SECONDS[unit]
    if unit.lower() in _TRAPS:
        raise InvalidInput(
            field, f"{_short(text)} is not clear: {_TRAPS[unit.lower()]}", hint="Write minutes, hours, days or weeks."
        )
    known = ("seconds", "minutes", "hours", "days", "weeks")
    raise InvalidInput(field, _unit_reason(unit, text, known), hint=f"Write it like {example}.")


def _unit_reason(unit: str, text: str, known: Iterable[str] | Mapping[str, int]) -> str:
    there = ", ".join(known)
    return f"{_short(text)} has no unit" if not unit else f"{unit} is not a unit here; known are {there}"


def _text(value: object, field: str, example: str) -> str:
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise InvalidInput(field, "must be text with a unit", hint=f"Write it like {example}.")
    raise InvalidInput(field, f"{_short(str(value))} has no unit", hint=f"Write it like {example}.")


def _short(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:37]}..."
