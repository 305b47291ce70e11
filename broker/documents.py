"""Documents that people write (YAML or JSON), read strictly: plain values, and the line where each one stands.

Less than YAML allows, on purpose. Tags, anchors and aliases are refused (they build objects, or bombs), so are double
keys and a second document. Plain scalars follow the YAML 1.2 core schema: `no` is a word (and Norway), not false, and
`1:30` is no number. Numbers with a fraction become exact decimals.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from difflib import get_close_matches
from typing import NoReturn

import yaml

from broker.errors import InvalidInput

_TYPE_NAMES = {dict: "a table", list: "a list", str: "text", bool: "yes or no", int: "a number", Decimal: "a number"}

Path = tuple[str | int, ...]

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the C scanner where PyYAML was built with it
_DEPTH = 12
_INTEGER = re.compile(r"[-+]?[0-9]{1,30}")
_FRACTION = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]{1,3})?")
_BOOLEANS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})


@dataclass(frozen=True, slots=True)
class Document:
    """Plain values (dict, list, str, int, Decimal, bool, None) and the line of each, from 1."""

    value: object
    lines: Mapping[Path, int] = field(default_factory=dict)

    def line(self, path: Path) -> int | None:
        """The line of a field, or of the nearest table around it; None where the document had no lines."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path)


def read(source: str | Mapping[str, object], *, name: str, max_bytes: int) -> Document:
    """Read text (YAML or JSON), or take a table that was read already. `name` says what it should be.

    Raises:
        InvalidInput: too long, unreadable, or outside the subset; with `line` in the context where there is one.
    """
    if isinstance(source, str):
        _check_text(source, name)
        if len(source.encode()) > max_bytes:
            raise InvalidInput(name, f"is longer than {max_bytes // 1024} KiB", hint="Leave data out of the document.")
        return _from_json(source, name) or _Builder(name).build(source)
    return Document(_checked(source, (), name))


def field_path(path: Path) -> str:
    """`requirements.sites[0]`."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


def suggestion(word: str, known: Iterable[str]) -> str | None:
    """The known word that was probably meant, None where nothing is near."""
    folded = {one.casefold(): one for one in known}
    close = get_close_matches(word.casefold(), folded, n=1, cutoff=0.6)
    return folded[close[0]] if close else None


def shown(value: object) -> str:
    """A value as an error may repeat it: short."""
    if isinstance(value, dict | list):
        return _TYPE_NAMES[type(value)]
    text = "nothing" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)
    text = str(value) if isinstance(value, Decimal) else text
    return text if len(text) <= 60 else f"{text[:57]}..."


def canonical(document: Mapping[str, object]) -> bytes:
    """The same bytes for the same content: UTF-8 JSON without spaces, keys sorted. Numbers must be integers or text."""
    return json.dumps(
        document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False, default=_no_float
    ).encode()


def digest(document: Mapping[str, object]) -> str:
    """`sha256:<hex>` of the canonical bytes."""
    return f"sha256:{hashlib.sha256(canonical(document)).hexdigest()}"


def _no_float(value: object) -> NoReturn:
    raise TypeError(f"a canonical document holds no {type(value).__name__}")


def _check_text(text: str, where: str) -> None:
    """NUL and half characters fit in no database column and no file."""
    if "\x00" in text:
        raise InvalidInput(where, "has a NUL character", hint="Remove it.")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise InvalidInput(where, "has half a character (a lone surrogate)", hint="Write UTF-8.") from None


def _checked(value: object, path: Path, name: str) -> object:
    """A copy of plain values; anything else is refused."""
    where = field_path(path) or name
    if len(path) > _DEPTH:
        raise InvalidInput(where, f"is nested deeper than {_DEPTH} levels")
    if isinstance(value, Mapping):
        table: dict[str, object] = {}
        for key, inner in value.items():
            if not isinstance(key, str):
                raise InvalidInput(where, f"the key {shown(key)} is not text")
            _check_text(key, where)
            table[key] = _checked(inner, (*path, key), name)
        return table
    if isinstance(value, list | tuple):
        return [_checked(inner, (*path, index), name) for index, inner in enumerate(value)]
    if isinstance(value, str):
        _check_text(value, where)
    elif isinstance(value, float):
        raise InvalidInput(where, f"{value} is a binary fraction, which is not exact", hint="Write it as text.")
    elif not (value is None or isinstance(value, bool | int | Decimal)):
        raise InvalidInput(where, f"{type(value).__name__} is not something that a document can hold")
    return value


def _from_json(text: str, name: str) -> Document | None:
    """JSON is read as JSON, because YAML refuses some of it (tabs, escaped pairs). None where it is not JSON."""
    if not text.lstrip().startswith("{"):
        return None
    try:
        value = json.loads(
            text, parse_float=Decimal, parse_constant=_refuse_constant, object_pairs_hook=_unique, parse_int=_integer
        )
    except json.JSONDecodeError:
        return None
    except RecursionError:
        raise InvalidInput(name, f"is nested deeper than {_DEPTH} levels") from None
    return Document(_checked(value, (), name))


def _integer(text: str) -> object:
    return int(text) if _INTEGER.fullmatch(text) else text


def _refuse_constant(text: str) -> NoReturn:
    raise InvalidInput("number", f"{text} is not a finite number")


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    table: dict[str, object] = {}
    for key, value in pairs:
        if key in table:
            raise InvalidInput(key, "stands twice in the same table", hint="Keep one of them.")
        table[key] = value
    return table


@dataclass(slots=True)
class _Open:
    """A table or list that is being filled. `key` is the table's key that waits for its value."""

    path: Path
    value: dict[str, object] | list[object]
    key: str | None = None


class _Builder:
    """Builds plain values from YAML events, one by one, without recursion: nothing is built before it is allowed."""

    def __init__(self, name: str) -> None:
        """`name` says in errors what the document should be."""
        self._name = name
        self._lines: dict[Path, int] = {}
        self._open: list[_Open] = []
        self._root: object = None
        self._documents = 0

    def build(self, text: str) -> Document:
        """Raises `InvalidInput` with the line."""
        try:
            for event in yaml.parse(text, Loader=_LOADER):
                self._take(event)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            self._refuse(f"is no valid YAML: {error.problem or error.context}", mark.line + 1 if mark else None)
        except yaml.YAMLError as error:
            self._refuse(f"is no valid YAML: {str(error).splitlines()[0]}", None)
        return Document(self._root, self._lines)

    def _take(self, event: yaml.Event) -> None:
        line = event.start_mark.line + 1 if event.start_mark else 0
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            self._refuse("uses an anchor or alias (& or *)", line, "Write the value out.")
        tag = getattr(event, "tag", None)
        if tag is not None:
            self._refuse(f"uses a tag ({shown(tag)})", line, "Leave out what begins with an exclamation mark.")
        if isinstance(event, yaml.DocumentStartEvent):
            self._documents += 1
            if self._documents > 1:
                self._refuse("holds more than one document", line, "Keep what stands before the second `---`.")
        elif isinstance(event, yaml.ScalarEvent):
            self._scalar(event, line)
        elif isinstance(event, yaml.MappingStartEvent):
            self._start({}, line)
        elif isinstance(event, yaml.SequenceStartEvent):
            self._start([], line)
        elif isinstance(event, yaml.CollectionEndEvent):
            self._open.pop()

    def _scalar(self, event: yaml.ScalarEvent, line: int) -> None:
        _check_text(event.value, self._name)
        top = self._open[-1] if self._open else None
        if top is not None and isinstance(top.value, dict) and top.key is None:
            if event.value in top.value:
                self._refuse(
                    f"{shown(event.value)} stands twice in the same table", line, "Keep one of them.", top.path
                )
            top.key = event.value
            self._lines[*top.path, event.value] = line
            return
        self._put(_plain(event.value) if event.implicit[0] else event.value, line)

    def _start(self, value: dict[str, object] | list[object], line: int) -> None:
        if len(self._open) >= _DEPTH:
            self._refuse(f"is nested deeper than {_DEPTH} levels", line)
        self._open.append(_Open(self._put(value, line), value))

    def _put(self, value: object, line: int) -> Path:
        """Hang a value where it belongs, and say where that is."""
        if not self._open:
            self._root = value
            self._lines[()] = line
            return ()
        top = self._open[-1]
        if isinstance(top.value, list):
            path: Path = (*top.path, len(top.value))
            self._lines[path] = line
            top.value.append(value)
            return path
        if top.key is None:
            self._refuse("has a table or list as a key", line, "Keys are words.", top.path)
        path = (*top.path, top.key)
        top.value[top.key] = value
        top.key = None
        return path

    def _refuse(self, reason: str, line: int | None, hint: str | None = None, path: Path = ()) -> NoReturn:
        where = field_path(path) or self._name
        place = f" (line {line})" if line else ""
        raise InvalidInput(where, f"{reason}{place}", hint=hint, line=line)


def _plain(text: str) -> object:
    """An unquoted scalar: null, boolean, integer, exact decimal, or text."""
    if text in _NULLS:
        return None
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _FRACTION.fullmatch(text):
        return Decimal(text)
    return text
