"""The table of what the sandbox has, for docs/reference/sandbox.md: `python -m tests.contract.shapes.conformance`.

It is made of the sandbox's own routes, the named calls with what may differ, and the operations that the clients run.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path

from adapters.sandbox import cinder, glance, keystone, neutron, nova, nova_actions
from adapters.sandbox.wire import Handler
from tests.contract.shapes.asks import Ask
from tests.contract.shapes.calls import CALLS
from tests.contract.shapes.comparing import allowed
from tests.unit.sandbox.operations.operation import Operation
from tests.unit.sandbox.operations.table import OPERATIONS

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "sandbox.md"
BEGIN = "<!-- conformance: written by python -m tests.contract.shapes.conformance -->"
END = "<!-- conformance: end -->"

_SERVICES: dict[str, tuple[str, str, Mapping[str, Mapping[str, Handler]]]] = {
    "identity": ("Keystone", "", keystone.TABLE),
    "compute": ("Nova", "/compute", nova.TABLE),
    "network": ("Neutron", "/network", neutron.TABLE),
    "image": ("Glance", "/image", glance.TABLE),
    "volume": ("Cinder", "/volume", cinder.TABLE),
}
_ACTION = re.compile(r"/servers/\{\}/action$")
_VERSIONS = re.compile(r"^(/|/versions|/v\d(\.\d)?)$")
_HEAD = "| Call | There | Compared | Run by |\n|---|---|---|---|"
# What the table of a path does not tell: the actions of a server.
_ACTIONS = frozenset(nova_actions._ACTIONS)


def _plain(path: str) -> str:
    """A path without the names of its placeholders, without what is asked, and without endings that mean nothing."""
    bare = path.partition("?")[0].removesuffix(".json")
    if bare != "/":
        bare = bare.rstrip("/")
    filled = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|0{32}", "{}", bare)
    return re.sub(r"\{\w*\}", "{}", filled)


def claimed() -> dict[str, set[str]]:
    """By service: the calls of the sandbox's own routes, as `GET /v2.1/servers/{}`; an action's name stands behind."""
    found: dict[str, set[str]] = {}
    for service, (_, prefix, table) in _SERVICES.items():
        calls = {
            f"{method} {_plain(path.removeprefix(prefix) or '/')}"
            for path, methods in table.items()
            for method in methods
        }
        acting = {call for call in calls if _ACTION.search(call)}
        found[service] = calls - acting | {f"{call} {name}" for call in acting for name in _ACTIONS}
    return found


def is_version(call: str) -> bool:
    """Whether it asks for a document of versions, which every client reads before it asks for anything."""
    return call.startswith("GET ") and _VERSIONS.match(call.removeprefix("GET ")) is not None


def call_of(ask: Ask) -> str:
    """What a named call asks for, in the form of `claimed`."""
    path = _plain(ask.path)
    template = path if f"{ask.method} {path}" in claimed()[ask.service] else _templated(ask, path)
    call = f"{ask.method} {template}"
    return f"{call} {next(iter(ask.body))}" if _ACTION.search(call) else call


def _templated(ask: Ask, path: str) -> str:
    """The path of the sandbox's route that a path with a word of its own, as `/extensions/quotas`, belongs to."""
    for call in claimed()[ask.service]:
        method, _, template = call.partition(" ")
        pattern = re.escape(template).replace(r"\{\}", r"[^/]+")
        if method == ask.method and re.fullmatch(pattern, path):
            return template
    return path


def operation_call(operation: Operation) -> tuple[str, str]:
    """Service and call of an operation."""
    method, path, *action = operation.route.split(" ")
    service = path.split("/")[1]
    if service not in _SERVICES:
        service = "identity"
    return service, " ".join([method, _plain(path.removeprefix(_SERVICES[service][1])), *action])


def table() -> str:
    """The tables as they stand on the page."""
    differing = Counter(difference.partition(": ")[0] for difference in allowed())
    compared: dict[tuple[str, str], list[int]] = defaultdict(list)
    for ask in CALLS:
        if "no such" not in ask.name:
            compared[ask.service, call_of(ask)].append(differing[f"{ask.service} {ask.name}"])
    clients: dict[tuple[str, str], set[str]] = defaultdict(set)
    for operation in OPERATIONS:
        kinds = {"command"} if operation.command else set()
        clients[operation_call(operation)] |= kinds | ({"SDK"} if operation.sdk else set())
    sections = []
    for service, (name, _, _table) in _SERVICES.items():
        there = claimed()[service]
        calls = there | {call for known, call in compared if known == service}
        rows = [
            _row(call, compared[service, call], clients[service, call], is_there=call in there)
            for call in sorted(calls, key=_order)
        ]
        sections.append("\n".join([f"### {name}", "", _HEAD, *rows]))
    return "\n\n".join(sections)


def _order(call: str) -> tuple[str, str]:
    method, _, rest = call.partition(" ")
    return rest, method


def _row(call: str, found: list[int], clients: set[str], *, is_there: bool) -> str:
    told = "no"
    if found:
        told = f"{len(found)} {'state' if len(found) == 1 else 'states'}"
        told += f", {sum(found)} allowed" if sum(found) else ""
    by = {"SDK", "command"} if is_version(call) else clients
    return f"| `{call}` | {'yes' if is_there else 'no'} | {told} | {', '.join(sorted(by)) or '-'} |"


def page() -> str:
    """The page with the tables as they should be."""
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{table()}\n\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
