"""Rate-card documents in YAML, JSON and CSV: prices exactly as they are written, checked SKU by SKU.

Reading only: which version is in force, and when, is the catalogue's matter.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from types import MappingProxyType
from uuid import UUID

from broker.documents import Document, Path, digest, field_path, read, shown, suggestion
from broker.errors import InvalidInput
from broker.pricing import Price, RateCard, Tier
from broker.remote import MachineState
from broker.units import duration, show_duration
from broker.values import STORED, Commodity, Unit, decimal, plain, utc

MAX_BYTES = 8 * 1024 * 1024

# What each state of a machine costs, as a share of its price. A stopped OpenStack server keeps its place on the host; a
# shelved one gives it back. Taken only where a card says `bills: openstack`, never by itself.
BILLS_OPENSTACK: Mapping[str, Decimal] = MappingProxyType(
    {
        MachineState.BUILDING.value: Decimal(0),
        MachineState.RUNNING.value: Decimal(1),
        MachineState.STOPPED.value: Decimal(1),
        MachineState.SHELVED.value: Decimal(0),
        MachineState.ERROR.value: Decimal(0),
        MachineState.DELETING.value: Decimal(0),
    }
)
_NAMED_BILLS = {"openstack": BILLS_OPENSTACK}
_BILLS_HINT = "Write `bills: openstack`, or the share that each state costs, like `bills: {running: 1, stopped: 0.5}`."

_KIND = "rate-card"
_CARD_KEYS = ("kind", "name", "provider", "currency", "valid_from", "bills", "prices")
_PRICE_KEYS = ("unit", "unit_price", "tiers", "minimum", "increment")
_TIER_KEYS = ("above", "unit_price")
_COLUMNS = ("sku", "unit", "unit_price", "above", "minimum", "increment")
_NEEDED_COLUMNS = _COLUMNS[:3]
_TIMED = frozenset({Unit.HOUR, Unit.SECOND, Unit.GIB_HOUR, Unit.CORE_HOUR})
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,62}")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_LONGEST_STEP = timedelta(days=31)
# Numeric(19, 9) unit prices, Numeric(28, 9) tier starts.
_MOST_PRICE = Decimal(10) ** 10
_MOST_ABOVE = Decimal(10) ** 19


@dataclass(frozen=True, slots=True)
class RateCardDocument:
    """A rate card as it was written. `bills` maps machine states to the share of the price that they cost."""

    name: str
    provider: str
    currency: Commodity
    valid_from: datetime
    prices: Mapping[str, Price]
    bills: Mapping[str, Decimal]

    def card(self, version_id: UUID, number: int) -> RateCard:
        """The card as pricing takes it, once it is a version."""
        return RateCard(version_id, self.name, number, self.currency, self.prices, self.bills)

    def document(self) -> dict[str, object]:
        """The canonical form: `parse` reads it back, and the same card always gives the same."""
        return {
            "kind": _KIND,
            "name": self.name,
            "provider": self.provider,
            "currency": self.currency.code,
            "valid_from": self.valid_from.isoformat(),
            "bills": {state: plain(self.bills[state]) for state in sorted(self.bills)},
            "prices": {sku: _price_document(self.prices[sku]) for sku in sorted(self.prices)},
        }

    def digest(self) -> str:
        """`sha256:...` of the canonical form."""
        return digest(self.document())


@dataclass(frozen=True, slots=True)
class _Row:
    """One tier of one SKU as it was written, and where: both formats come down to these."""

    sku: str
    cells: Mapping[str, object]
    path: Path
    line: int | None

    def fault(self, column: str | None, reason: str, hint: str | None = None) -> InvalidInput:
        """The error that names the SKU, the field and the line."""
        path = self.path if column is None else (*self.path, column)
        return _fault(path, self.line, reason, hint, sku=self.sku)


def parse(source: str | Mapping[str, object]) -> RateCardDocument:
    """Read a YAML or JSON rate card.

    Raises:
        InvalidInput: for the first fault, naming the field (`prices.a1.small.unit`) and the line; `sku` and `line` in
            the context.
    """
    written = read(source, name="rate card", max_bytes=MAX_BYTES)
    table = _table(written.value, (), _CARD_KEYS, written)
    if table.get("kind", _KIND) != _KIND:
        raise _fault(
            ("kind",), written.line(("kind",)), f"{shown(table['kind'])} is no {_KIND}", f"Write `kind: {_KIND}`."
        )
    for key in ("name", "provider", "currency", "valid_from", "bills", "prices"):
        if table.get(key) is None:
            raise _fault((key,), None, "is missing", _BILLS_HINT if key == "bills" else _EXAMPLES[key])
    try:
        name, provider = (_name(table[key], key) for key in ("name", "provider"))
        currency, valid_from = _currency(table["currency"]), _moment(table["valid_from"])
        bills = _bills(table["bills"])
    except InvalidInput as error:
        path = tuple(error.field.split("."))
        raise _fault(path, written.line(path), error.reason, error.hint) from None
    prices = _merged(_yaml_rows(table["prices"], written))
    return RateCardDocument(name, provider, currency, valid_from, prices, bills)


def parse_csv(
    text: str,
    *,
    name: str,
    provider: str,
    currency: str,
    valid_from: datetime,
    bills: str | Mapping[str, str | Decimal],
) -> RateCardDocument:
    """Read prices from CSV with the columns sku, unit, unit_price and, where needed, above, minimum, increment.

    A SKU with tiers has one row for each; every row says above how many units its price holds.

    Raises:
        InvalidInput: for the first fault, naming the SKU, the column and the line.
    """
    if len(text.encode(errors="replace")) > MAX_BYTES:
        raise InvalidInput("rate card", f"is longer than {MAX_BYTES // 1024**2} MiB", hint="Split it by provider.")
    return RateCardDocument(
        name=_name(name, "name"),
        provider=_name(provider, "provider"),
        currency=_currency(currency),
        valid_from=utc(valid_from, field="valid_from"),
        prices=_merged(_csv_rows(text)),
        bills=_bills(bills),
    )


_EXAMPLES = {
    "name": "Write it like `name: internal-2026`.",
    "provider": "Write it like `provider: aurora`.",
    "currency": "Write it like `currency: EUR`.",
    "valid_from": "Write it like `valid_from: 2026-01-01`.",
    "prices": "Write it like `prices: {a1.small: {unit: hour, unit_price: 0.02}}`.",
}


def _fault(path: Path, line: int | None, reason: str, hint: str | None, **context: object) -> InvalidInput:
    place = f" (line {line})" if line else ""
    return InvalidInput(field_path(path) or "rate card", f"{reason}{place}", hint=hint, line=line, **context)


def _table(value: object, path: Path, known: Sequence[str], written: Document) -> dict[str, object]:
    """A table with known keys only."""
    if not isinstance(value, dict):
        raise _fault(path, written.line(path), f"{shown(value)} is not a table", f"Known keys: {', '.join(known)}.")
    for key in value:
        if key not in known:
            near = suggestion(key, known)
            hint = f"Did you mean {near}?" if near else f"Known keys: {', '.join(known)}."
            raise _fault((*path, key), written.line((*path, key)), "unknown key", hint)
    return value


def _yaml_rows(prices: object, written: Document) -> Iterator[_Row]:
    path: Path = ("prices",)
    if not isinstance(prices, dict):
        raise _fault(path, written.line(path), f"{shown(prices)} is not a table", _EXAMPLES["prices"])
    for sku, value in prices.items():
        here = (*path, sku)
        price = _table(value, here, _PRICE_KEYS, written)
        tiers = price.get("tiers")
        if tiers is None:
            yield _Row(sku, price, here, written.line(here))
            continue
        place = (*here, "tiers")
        if "unit_price" in price:
            raise _fault(place, written.line(place), "stands beside a unit_price", "Keep one of the two.")
        if not isinstance(tiers, list) or not tiers:
            hint = "Write it like tiers: [{above: 0, unit_price: 0.10}, {above: 100, unit_price: 0.08}]."
            raise _fault(place, written.line(place), f"{shown(tiers)} is not a list of tiers", hint)
        for index, tier in enumerate(tiers):
            step = (*place, index)
            cells = price | _table(tier, step, _TIER_KEYS, written)
            if cells.get("above") is None:
                raise _fault((*step, "above"), written.line(step), "is missing", "The first tier is above 0.")
            yield _Row(sku, cells, step, written.line(step))


def _csv_rows(text: str) -> Iterator[_Row]:
    reader = csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline=""), strict=True)
    try:
        columns = _header(next(reader, []))
        for cells in reader:
            line = reader.line_num
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) > len(columns):
                raise _fault(("row",), line, f"has {len(cells)} cells for {len(columns)} columns", _COMMA_HINT)
            row = {name: cell.strip() for name, cell in zip(columns, cells, strict=False) if cell.strip()}
            sku = row.get("sku")
            if sku is None:
                raise _fault(("sku",), line, "is missing", "Every row names its SKU, also for another tier.")
            yield _Row(sku, row, ("prices", sku), line)
    except csv.Error as error:
        raise _fault(("row",), reader.line_num, f"is no valid CSV: {error}", _COMMA_HINT) from None


_COMMA_HINT = 'Separate cells by commas, write a decimal point, and put text that holds a comma in "quotes".'


def _header(cells: Sequence[str]) -> list[str]:
    columns = [cell.strip() for cell in cells]
    for column in columns:
        if column not in _COLUMNS:
            near = suggestion(column, _COLUMNS)
            hint = f"Did you mean {near}?" if near else f"Known columns: {','.join(_COLUMNS)}. {_COMMA_HINT}"
            raise _fault(("header",), 1, f"unknown column {shown(column)}", hint)
    missing = [column for column in _NEEDED_COLUMNS if column not in columns]
    if missing or len(set(columns)) != len(columns):
        reason = f"lacks the column {missing[0]}" if missing else "names a column twice"
        raise _fault(("header",), 1, reason, f"Write it like {','.join(_COLUMNS)}.")
    return columns


def _merged(rows: Iterator[_Row]) -> dict[str, Price]:
    """Rows to prices: those of one SKU are its tiers."""
    by_sku: dict[str, list[_Row]] = {}
    for row in rows:
        if not (0 < len(row.sku) <= 255 and row.sku.isprintable() and row.sku == row.sku.strip()):
            raise row.fault(None, "is not a SKU", "Use up to 255 printable characters.")
        by_sku.setdefault(row.sku, []).append(row)
    if not by_sku:
        raise InvalidInput("prices", "is empty", hint=_EXAMPLES["prices"])
    return {sku: _price(sku, tiers) for sku, tiers in by_sku.items()}


def _price(sku: str, rows: Sequence[_Row]) -> Price:
    first = rows[0]
    unit, minimum, increment = _unit(first), _step(first, "minimum"), _step(first, "increment")
    for row in rows[1:]:
        if (_unit(row), _step(row, "minimum"), _step(row, "increment")) != (unit, minimum, increment):
            raise row.fault(
                None, "has another unit, minimum or increment than its first tier", "Write the same in all."
            )
    for column, step in (("minimum", minimum), ("increment", increment)):
        if step and unit not in _TIMED:
            raise first.fault(column, f"has no meaning for a price per {unit}", "Leave it out.")
    tiers: dict[Decimal, Tier] = {}
    for row in rows:
        above = _number(row, "above", below=_MOST_ABOVE) if row.cells.get("above") is not None else Decimal(0)
        if above in tiers:
            raise row.fault(None, f"has two prices above {plain(above)}", "Keep one of them, or give tiers by `above`.")
        tiers[above] = Tier(above, _number(row, "unit_price", below=_MOST_PRICE))
    if Decimal(0) not in tiers:
        raise first.fault("above", "has no price for the first units", "Begin with a tier above 0.")
    return Price(sku, unit, tuple(tiers[above] for above in sorted(tiers)), minimum, increment)


def _unit(row: _Row) -> Unit:
    value = row.cells.get("unit")
    known = [unit.value for unit in Unit]
    if value is None:
        raise row.fault("unit", "is missing", f"Write one of {', '.join(known)}.")
    if value not in known:
        near = suggestion(str(value), known)
        raise row.fault(
            "unit", f"{shown(value)} is not a unit", f"Did you mean {near}?" if near else f"Known: {', '.join(known)}."
        )
    return Unit(str(value))


def _number(row: _Row, column: str, *, below: Decimal) -> Decimal:
    value = row.cells.get(column)
    if value is None:
        raise row.fault(column, "is missing", "Write 0 if it is truly free.")
    try:
        return _exact(value, column, below=below)
    except InvalidInput as error:
        raise row.fault(column, error.reason, error.hint) from None


def _exact(value: object, field: str, *, below: Decimal) -> Decimal:
    """A number from 0 that a column keeps exactly: 9 decimals."""
    if isinstance(value, bool) or not isinstance(value, str | int | Decimal):
        raise InvalidInput(field, f"{shown(value)} is not a number", hint="Write it like 0.02.")
    number = decimal(value, field=field)
    if number < 0:
        raise InvalidInput(field, f"{shown(value)} is negative", hint="Credits are no prices; leave them out.")
    if number >= below:
        raise InvalidInput(field, f"{shown(value)} is too large", hint=f"It must be below {plain(below)}.")
    if number != number.quantize(STORED):
        raise InvalidInput(field, f"{shown(value)} has more than 9 decimals", hint="Quote it per 1000 units instead.")
    return abs(number)


def _step(row: _Row, column: str) -> timedelta:
    value = row.cells.get(column)
    if value is None:
        return timedelta(0)
    try:
        found = duration(value, field=column, example="1 minute")
    except InvalidInput as error:
        raise row.fault(column, error.reason, error.hint) from None
    if found > _LONGEST_STEP:
        raise row.fault(column, f"{shown(value)} is longer than {show_duration(_LONGEST_STEP)}", "Write a shorter one.")
    return found


def _name(value: object, field: str) -> str:
    if not (isinstance(value, str) and _NAME.fullmatch(value)):
        raise InvalidInput(
            field, f"{shown(value)} is not a name", hint="Use up to 63 letters, digits, `.`, `_`, `:` and hyphens."
        )
    return value


def _currency(value: object) -> Commodity:
    try:
        return Commodity(str(value))
    except InvalidInput as error:
        raise InvalidInput("currency", error.reason, hint=error.hint) from None


def _moment(value: object) -> datetime:
    """A date (its first instant in UTC), or a time with a zone."""
    text = str(value).strip()
    try:
        moment = datetime.fromisoformat(text)
        return moment.replace(tzinfo=UTC) if _DATE.fullmatch(text) else utc(moment, field="valid_from")
    except (ValueError, OverflowError):
        raise InvalidInput("valid_from", f"{shown(value)} is not a date", hint=_EXAMPLES["valid_from"]) from None


def _bills(value: object) -> dict[str, Decimal]:
    """Shares by machine state. No default: what the card does not say stays unknown."""
    if isinstance(value, str):
        named = _NAMED_BILLS.get(value)
        if named is None:
            raise InvalidInput("bills", f"{shown(value)} is no table of shares that is known", hint=_BILLS_HINT)
        return dict(named)
    if not isinstance(value, Mapping):
        raise InvalidInput("bills", f"{shown(value)} is not a table", hint=_BILLS_HINT)
    states = [state.value for state in MachineState if state is not MachineState.UNKNOWN]
    shares = {}
    for state, share in value.items():
        field = f"bills.{state}"
        if state not in states:
            near = suggestion(str(state), states)
            hint = f"Did you mean {near}?" if near else f"Known: {', '.join(states)}."
            raise InvalidInput(field, "is not a state of a machine", hint=hint)
        shares[str(state)] = _exact(share, field, below=_MOST_PRICE)
        if shares[state] > 1:
            raise InvalidInput(field, f"{shown(share)} is more than the whole price", hint="Write 0 to 1.")
    return shares


def _price_document(price: Price) -> dict[str, object]:
    """Canonical: one tier is a unit_price; zero minimum and increment are left out."""
    found: dict[str, object] = {"unit": price.unit.value}
    if len(price.tiers) == 1:
        found["unit_price"] = plain(price.tiers[0].unit_price)
    else:
        found["tiers"] = [{"above": plain(tier.above), "unit_price": plain(tier.unit_price)} for tier in price.tiers]
    for name, step in (("minimum", price.minimum), ("increment", price.increment)):
        if step:
            found[name] = show_duration(step)
    return found
