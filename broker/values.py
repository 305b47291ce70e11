"""Frozen values: money, quantities, time. No I/O, no clock, no floats."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_UP, Context, Decimal, localcontext
from enum import StrEnum
from typing import Self
from uuid import UUID

import uuid_utils.compat

from broker.errors import InvalidInput

# Products of Numeric(19, 9) prices and Numeric(28, 9) quantities need 47 digits; 50 leaves none of them out.
PRECISION = 50
# What a money column keeps: Numeric(28, 9).
STORED = Decimal("0.000000001")

_EXACT = Context(prec=PRECISION, rounding=ROUND_HALF_UP)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_CURRENCY = re.compile(r"[A-Z]{3}")
_ALLOCATION_UNIT = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,30}@[a-z0-9][a-z0-9.-]{0,60}")
# ASCII only, and no underscores: what Decimal reads beyond that is no spelling that a person means.
_NUMBER = re.compile(r"[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]{1,9})?")
# What text may reach: 19 digits before the point, as Numeric(28, 9) keeps; `1e999999999` would fill the memory.
_MOST_DIGITS = 19
# ISO 4217 codes whose minor unit is not 1/100 (ISO 4217 list one).
_MINOR_DIGITS = dict.fromkeys(
    ("BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG", "RWF", "UGX", "VND", "VUV", "XAF", "XOF", "XPF"), 0
) | dict.fromkeys(("BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"), 3)


def new_id() -> UUID:
    """A UUIDv7 (RFC 9562): unique, and sorted by the time it was made."""
    return uuid_utils.compat.uuid7()


def decimal(value: str | int | Decimal, *, field: str = "number") -> Decimal:
    """An exact, finite number from text or an integer.

    Raises:
        TypeError: for a float or bool, which would bring its rounding error along.
        InvalidInput: for text that is no finite number, or one that no column holds; `field` names it.
    """
    if isinstance(value, bool) or not isinstance(value, str | int | Decimal):
        raise TypeError(f"{field}: exact numbers come from str, int or Decimal, not {type(value).__name__}")
    if isinstance(value, str):
        return _read(value.strip(), field)
    number = Decimal(value)
    if not number.is_finite():
        raise InvalidInput(field, f"{value!r} is not a finite number", hint="Write it like 12.50.")
    return number


def _read(text: str, field: str) -> Decimal:
    """The number that text spells, within what is stored."""
    shown = text if len(text) <= 40 else f"{text[:37]}..."
    if not _NUMBER.fullmatch(text):
        raise InvalidInput(field, f"{shown!r} is not a number", hint="Write it like 12.50.")
    number = Decimal(text)
    if number and number.adjusted() >= _MOST_DIGITS:
        raise InvalidInput(field, f"{shown} is too large", hint=f"At most {_MOST_DIGITS} digits before the point.")
    exponent = number.as_tuple().exponent
    if isinstance(exponent, int) and not -PRECISION <= exponent <= PRECISION:
        raise InvalidInput(field, f"{shown} is too small", hint=f"At most {PRECISION} digits after the point.")
    return number


def _require_decimal(value: Decimal, field: str) -> Decimal:
    """Refuse at run time what the type checker did not see: an int or text inside a value breaks much later."""
    if not isinstance(value, Decimal):
        raise TypeError(f"{field}: a Decimal is needed, not {type(value).__name__}")
    return decimal(value, field=field)


def plain(value: Decimal) -> str:
    """Digits without exponent and without trailing zeros (FOCUS allows no exponents)."""
    text = format(value, "f") if value else "0"
    return text.rstrip("0").rstrip(".") if "." in text else text


@dataclass(frozen=True, slots=True, order=True)
class Commodity:
    """What an amount counts: an ISO 4217 currency (`EUR`) or an allocator's unit (`SU@vsc`)."""

    code: str

    def __post_init__(self) -> None:
        """Refuse what is neither."""
        if not (_CURRENCY.fullmatch(self.code) or _ALLOCATION_UNIT.fullmatch(self.code)):
            raise InvalidInput(
                "commodity",
                f"{self.code!r} is neither a currency nor an allocation unit",
                hint="Write EUR, or SU@allocator.",
            )

    @property
    def is_currency(self) -> bool:
        """True for ISO 4217 codes."""
        return "@" not in self.code

    def __str__(self) -> str:
        """The code."""
        return self.code


@dataclass(frozen=True, slots=True)
class Amount:
    """An exact amount of one commodity. Adding two commodities raises; there is no multiplication of amounts."""

    value: Decimal
    commodity: Commodity

    def __post_init__(self) -> None:
        """Refuse floats and infinities."""
        _require_decimal(self.value, "amount")

    @classmethod
    def of(cls, value: str | int | Decimal, commodity: str | Commodity) -> Self:
        """`Amount.of("12.50", "EUR")`."""
        unit = commodity if isinstance(commodity, Commodity) else Commodity(commodity)
        return cls(decimal(value, field="amount"), unit)

    @classmethod
    def parse(cls, text: str, *, field: str = "amount") -> Self:
        """`Amount.parse("12.50 EUR")`; raises `InvalidInput` naming `field`."""
        number, _, unit = text.strip().partition(" ")
        if not unit:
            raise InvalidInput(field, f"{text!r} has no currency", hint="Write it like 12.50 EUR.")
        value = decimal(number, field=field)
        try:
            return cls(value, Commodity(unit.strip()))
        except InvalidInput as error:
            raise InvalidInput(field, error.reason, hint=error.hint) from None

    @classmethod
    def zero(cls, commodity: str | Commodity) -> Self:
        """Nothing, of something."""
        return cls.of(0, commodity)

    @classmethod
    def total(cls, amounts: Iterable[Self], commodity: Commodity) -> Self:
        """The exact sum; zero of `commodity` where there are none."""
        total = cls.zero(commodity)
        for amount in amounts:
            total = total + amount
        return total

    def _same(self, other: Amount) -> None:
        if self.commodity != other.commodity:
            raise ValueError(f"{self.commodity} and {other.commodity} do not add up")

    def __add__(self, other: Self) -> Self:
        """Exact sum of two amounts of one commodity."""
        self._same(other)
        return type(self)(_EXACT.add(self.value, other.value), self.commodity)

    def __sub__(self, other: Self) -> Self:
        """Exact difference of two amounts of one commodity."""
        self._same(other)
        return type(self)(_EXACT.subtract(self.value, other.value), self.commodity)

    def __neg__(self) -> Self:
        """The same, owed the other way."""
        return type(self)(_EXACT.minus(self.value), self.commodity)

    def times(self, factor: Decimal | int) -> Self:
        """Exact multiple by a bare number."""
        return type(self)(_EXACT.multiply(self.value, decimal(factor, field="factor")), self.commodity)

    def __lt__(self, other: Self) -> bool:
        """Less, of the same commodity."""
        self._same(other)
        return self.value < other.value

    def __le__(self, other: Self) -> bool:
        """Less or equal, of the same commodity."""
        self._same(other)
        return self.value <= other.value

    def stored(self) -> Self:
        """As a money column keeps it: nine decimals, half up."""
        return type(self)(self.value.quantize(STORED, rounding=ROUND_HALF_UP, context=_EXACT), self.commodity)

    def rounded(self) -> Self:
        """As an invoice line shows it: the currency's minor unit, half up. The one place where money is rounded."""
        digits = _MINOR_DIGITS.get(self.commodity.code, 2)
        step = Decimal(1).scaleb(-digits)
        return type(self)(self.value.quantize(step, rounding=ROUND_HALF_UP, context=_EXACT), self.commodity)

    def __str__(self) -> str:
        """For people: rounded to the minor unit, `12.50 EUR`; what is less than that keeps two digits, `0.0015 EUR`."""
        shown = self.rounded().value
        if not shown and self.value:  # a little is not nothing
            return f"{plain(Decimal(f'{self.value:.1e}'))} {self.commodity}"
        return f"{shown:f} {self.commodity}"


class Unit(StrEnum):
    """What a quantity counts. Units convert only through `Quantity.to`."""

    HOUR = "hour"
    SECOND = "second"
    GIB = "GiB"
    MIB = "MiB"
    GIB_HOUR = "GiB-hour"
    CORE_HOUR = "core-hour"
    COUNT = "count"


# Factor to the unit's base; units convert only inside one base.
_BASE: dict[Unit, tuple[str, Decimal]] = {
    Unit.HOUR: ("time", Decimal(3600)),
    Unit.SECOND: ("time", Decimal(1)),
    Unit.GIB: ("size", Decimal(1024)),
    Unit.MIB: ("size", Decimal(1)),
    Unit.GIB_HOUR: ("size-time", Decimal(1)),
    Unit.CORE_HOUR: ("core-time", Decimal(1)),
    Unit.COUNT: ("count", Decimal(1)),
}


@dataclass(frozen=True, slots=True)
class Quantity:
    """A non-negative exact number of one unit."""

    value: Decimal
    unit: Unit

    def __post_init__(self) -> None:
        """Refuse floats and negative quantities."""
        if _require_decimal(self.value, "quantity") < 0:
            raise InvalidInput("quantity", f"{self.value} {self.unit} is negative")

    def to(self, unit: Unit) -> Quantity:
        """The same quantity in another unit of the same kind; raises ValueError for another kind."""
        kind, factor = _BASE[self.unit]
        other_kind, other_factor = _BASE[unit]
        if kind != other_kind:
            raise ValueError(f"{self.unit} is no {unit}")
        return Quantity(_EXACT.divide(_EXACT.multiply(self.value, factor), other_factor), unit)

    def __str__(self) -> str:
        """`12.5 hour`."""
        return f"{plain(self.value)} {self.unit}"


def utc(moment: datetime, *, field: str = "time") -> datetime:
    """The moment in UTC; a naive one, or one that falls outside of the years 1 to 9999 there, raises `InvalidInput`."""
    if moment.utcoffset() is None:
        raise InvalidInput(field, f"{moment.isoformat()} has no time zone", hint="Write it like 2026-11-21T12:00:00Z.")
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise InvalidInput(
            field, f"{moment.isoformat()} is no year of ours in UTC", hint="Write it like 2026-11-21T12:00:00Z."
        ) from None


@dataclass(frozen=True, slots=True, order=True)
class Period:
    """The half-open UTC interval [start, end) (FOCUS ChargePeriodStart and -End): periods join without overlap."""

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        """Refuse naive times and ends before starts. An empty period is allowed.

        Times of other zones become UTC: Python subtracts two times of one zone by their clocks, also over a clock
        change, and months begin elsewhere there.
        """
        object.__setattr__(self, "start", utc(self.start, field="start"))
        object.__setattr__(self, "end", utc(self.end, field="end"))
        if self.end < self.start:
            raise InvalidInput("end", f"{self.end.isoformat()} is before the start {self.start.isoformat()}")

    @property
    def length(self) -> timedelta:
        """The duration."""
        return self.end - self.start

    @property
    def is_empty(self) -> bool:
        """True where start and end coincide."""
        return self.start == self.end

    @property
    def hours(self) -> Quantity:
        """The duration in hours, to 1e-18, such that the parts of a split period add up exactly.

        A third of an hour has no exact decimal. Both ends are rounded on one scale, hours since 1970, then subtracted:
        whatever was rounded off at the end of one part is what the next one begins with. Whole hours are exact.
        """
        return Quantity(_EXACT.subtract(_hours_since_1970(self.end), _hours_since_1970(self.start)), Unit.HOUR)

    @property
    def seconds(self) -> Quantity:
        """The exact duration in seconds."""
        return Quantity(Decimal(self.length // _MICROSECOND).scaleb(-6, context=_EXACT), Unit.SECOND)

    def contains(self, moment: datetime) -> bool:
        """True for start <= moment < end."""
        return self.start <= moment < self.end

    def split(self, cuts: Iterable[datetime]) -> Iterator[Period]:
        """The consecutive parts between the cuts that fall strictly inside; together they are the period."""
        start = self.start
        for cut in sorted({cut for cut in cuts if self.start < cut < self.end}):
            yield Period(start, cut)
            start = cut
        yield Period(start, self.end)


def _hours_since_1970(moment: datetime) -> Decimal:
    """Rounded down to 1e-18: nine digits below what is stored."""
    steps = (moment - _EPOCH) // _MICROSECOND * 10**18 // 3_600_000_000
    return Decimal(steps).scaleb(-18, context=_EXACT)


def month_starts(period: Period) -> list[datetime]:
    """Every first instant of a UTC month strictly inside the period: where billing periods end."""
    found: list[datetime] = []
    year, month = period.start.year, period.start.month
    while True:
        year, month = (year + 1, 1) if month == 12 else (year, month + 1)
        cut = datetime(year, month, 1, tzinfo=UTC)
        if cut >= period.end:
            return found
        if cut > period.start:
            found.append(cut)


def exact() -> AbstractContextManager[Context]:
    """Context manager: Decimal arithmetic with `PRECISION` digits, half up."""
    return localcontext(_EXACT)
