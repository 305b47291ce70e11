"""From an answer to its shape: status, the headers that clients read, keys, JSON types and the formats of texts.

A shape is plain JSON. A text stands for a value: its type, or its format if it is a text, `a|b` where it is now this,
now that, `=value` where the value itself is what counts. A list has the union of its items, or nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

Shape = Any

# What clients read of the headers. Of `OpenStack-API-Version` and the like the value counts.
HEADERS = (
    "Content-Type",
    "Location",
    "OpenStack-API-Version",
    "Retry-After",
    "Vary",
    "WWW-Authenticate",
    "X-OpenStack-Nova-API-Version",
    "X-OpenStack-Request-Id",
    "X-Subject-Token",
)
_EXACT_HEADERS = frozenset(
    {"Content-Type", "OpenStack-API-Version", "Retry-After", "Vary", "X-OpenStack-Nova-API-Version"}
)
# Fields whose value is a word of the API, not data.
_EXACT = frozenset(
    {
        "OS-EXT-STS:power_state",
        "OS-EXT-STS:task_state",
        "OS-EXT-STS:vm_state",
        "attach_status",
        "code",
        "device_owner",
        "interface",
        "locked",
        "message",
        "status",
        "title",
        "visibility",
    }
)
# Objects whose keys are data: all their values are one.
_MAPS = frozenset({"addresses", "extra_specs", "metadata", "properties"})
# Of things that others made too: some are over, some are not.
_SOMETIMES = {"ended_at": "2026-01-01T00:00:00.000000"}
_OR = "(or)"

_FORMATS = {
    "uuid": r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}",
    "hex": r"[0-9a-f]{32,}",
    "request id": r"req-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}",
    "time Z": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ",
    "time us Z": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z",
    "time us": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}",
    "time": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d",
    "time offset": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d",
    "address": r"\d+\.\d+\.\d+\.\d+",
    "network": r"\d+\.\d+\.\d+\.\d+/\d+",
    "mac": r"[0-9a-f]{2}(:[0-9a-f]{2}){5}",
    "url": r"https?://\S+",
    "path": r"/\S+",
    "digits": r"\d+",
    "empty": r"",
}
# What is data in a text: ids, names that a walk gives its things, times.
_DATA = re.compile(r"(shape-)?[0-9a-f]{8}(-?[0-9a-f]{4}){3}-?[0-9a-f]{12}|shape-[0-9a-f]{8}|\d+\.\d+\.\d+\.\d+")
_PATTERNS = {name: re.compile(pattern) for name, pattern in _FORMATS.items()}


def shape_of(status: int, headers: Mapping[str, str], body: Any) -> Shape:
    """The shape of one answer. A body that is no JSON is a text."""
    shown = {name: _header(name, headers[name]) for name in HEADERS if name in headers}
    if body in (None, ""):  # then nobody reads what it would be
        shown.pop("Content-Type", None)
    return {"status": status, "headers": shown, "body": "nothing" if body == "" else _reduce(body, "")}


def _header(name: str, value: str) -> str:
    return f"={value}" if name in _EXACT_HEADERS else _format(value)


def _reduce(value: Any, field: str) -> Shape:
    if isinstance(value, dict):
        if field in _MAPS:
            return {"*": _union(_reduce(item, "") for item in value.values())} if value else {}
        return {key: _reduce(item, key) for key, item in value.items()}
    if isinstance(value, list):
        return [_union(_reduce(item, field) for item in value)] if value else []
    if field in _SOMETIMES:
        return _merge("null", _leaf(value or _SOMETIMES[field]))
    return _word(value) if field in _EXACT and value is not None else _leaf(value)


def _word(value: Any) -> str:
    """The first line of a refusal's text, without what is data; the value of anything else."""
    first, *_ = str(value).splitlines() or [""]
    return f"={_DATA.sub('*', first).strip()}"


def _leaf(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, str):
        return _format(value)
    return type(value).__name__


def _format(text: str) -> str:
    return next((name for name, pattern in _PATTERNS.items() if pattern.fullmatch(text)), "text")


def _union(shapes: Iterable[Shape]) -> Shape:
    merged: Shape = None
    for shape in shapes:
        merged = shape if merged is None else _merge(merged, shape)
    return merged


def _merge(one: Shape, other: Shape) -> Shape:
    if isinstance(one, dict) and isinstance(other, dict):
        return {key: _merge(one.get(key, "absent"), other.get(key, "absent")) for key in {**one, **other}}
    if isinstance(one, list) and isinstance(other, list):
        return [_merge(one[0], other[0])] if one and other else one or other
    if isinstance(one, str) and isinstance(other, str):
        return "|".join(sorted({*one.split("|"), *other.split("|")}))
    nested, leaf = (other, one) if isinstance(one, str) else (one, other)
    if isinstance(nested, dict) and isinstance(leaf, str):
        return {**nested, _OR: _merge(nested.get(_OR, leaf), leaf)}
    return nested
