"""What differs between the shapes of two clouds, the recorded shapes of a real one, and what may differ.

`allowed.json` has each allowed difference, word for word, under its reason. It is frozen both ways: a new difference is
no member, and a member that is no difference any more has to go.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.contract.shapes.asking import Place, walk
from tests.contract.shapes.asks import Ask
from tests.contract.shapes.calls import CALLS
from tests.contract.shapes.reducing import Shape

FOLDER = Path(__file__).parent
RECORDED = FOLDER / "recorded"
ALLOWED = FOLDER / "allowed.json"
SERVICES = ("identity", "image", "network", "volume", "compute")

Shapes = Mapping[str, Mapping[str, Shape]]  # by service and name


def shapes_at(place: Place, calls: Iterable[Ask] = CALLS) -> dict[str, dict[str, Shape]]:
    """All shapes of a cloud."""
    found: dict[str, dict[str, Shape]] = {service: {} for service in SERVICES}
    for ask, shape in walk(place, tuple(calls)):
        found[ask.service][ask.name] = shape
    return found


def recorded() -> dict[str, dict[str, Shape]]:
    """The shapes of the real OpenStack, as they were recorded."""
    return {service: json.loads((RECORDED / f"{service}.json").read_text(encoding="utf-8")) for service in SERVICES}


def record(shapes: Shapes) -> None:
    """Write them down; the same shapes always give the same files."""
    RECORDED.mkdir(exist_ok=True)
    for service in SERVICES:
        text = json.dumps(shapes[service], indent=1, sort_keys=True) + "\n"
        (RECORDED / f"{service}.json").write_text(text, encoding="utf-8")


def allowed() -> dict[str, str]:
    """Each allowed difference with its reason."""
    document: dict[str, list[str]] = json.loads(ALLOWED.read_text(encoding="utf-8"))
    return {difference: reason for reason, differences in document.items() for difference in differences}


def differences(real: Shapes, other: Shapes) -> dict[str, Ask]:
    """What another cloud says otherwise, as lines of text, each with the call it is about."""
    found: dict[str, Ask] = {}
    for ask in CALLS:
        pair = (real[ask.service].get(ask.name, "not recorded"), other[ask.service].get(ask.name, "not asked"))
        for line in _compare(*pair, ""):
            found[f"{ask.service} {ask.name}: {line}"] = ask
    return found


def _compare(real: Shape, other: Shape, at: str) -> Iterator[str]:
    if isinstance(real, dict) and isinstance(other, dict):
        if not at and real.get("status") != other.get("status"):  # then all the rest differs too
            yield f"status is {real.get('status')}, here {other.get('status')}"
            return
        for key in sorted({*real, *other}):
            yield from _compare(real.get(key), other.get(key), f"{at}.{key}".lstrip("."))
    elif isinstance(real, list) and isinstance(other, list) and real and other:
        yield from _compare(real[0], other[0], f"{at}[]")
    elif real != other:
        yield f"{at} is {_brief(real)}, here {_brief(other)}"


def _brief(shape: Any) -> str:
    if isinstance(shape, dict):
        return "an object" if shape else "an empty object"
    if isinstance(shape, list):
        return "a list" if shape else "an empty list"
    return "nothing" if shape is None else str(shape)
