"""What is at sites as people read it: sums by kind, owner and project, quota, and the things one by one."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Final

from rich.console import Console
from rich.text import Text

from web.cli import output
from web.client.shapes import Inventory, Quota, Sum, Thing

# Owners and projects shown; the others are counted.
_MOST: Final = 15
_NUMBERS: Final = ("number", "idle", "GiB", "per hour", "unpriced", "limit", "used", "free")
_MEMORY: Final = ("ram_mib", "memory_mib")
_QUOTA_WORDS: Final = dict.fromkeys(_MEMORY, "memory") | {"floating_ips": "floating IPs", "volume_gib": "volume GiB"}


def show_all(found: Sequence[Inventory], *, now: datetime, console: Console | None = None) -> None:
    """A line for each site and kind."""
    sites = [one for one in found for _ in one["kinds"]]
    kinds = [kind for one in found for kind in one["kinds"]]
    seen = [output.when(one["listed_at"], now=now) for one in sites]
    names = {"site": [one["site"] for one in sites], "kind": [_words(kind["kind"]) for kind in kinds]}
    empty = "Nothing is known yet: `leeway site list` says whether the sites were listed."
    columns = names | _columns(kinds) | {"listed": seen}
    output.show_columns(columns, right=_NUMBERS, spare=("listed",), empty=empty, console=console)


def show_one(found: Inventory, quota: Sequence[Quota], *, now: datetime, console: Console | None = None) -> None:
    """One site: by kind, by owner, by project where there are several, and what the quota leaves."""
    console = console or output.screen()
    listed = output.when(found["listed_at"], now=now)
    console.print(Text.assemble((output.clean(found["site"]), "bold"), f"  listed {listed}"))
    show_kinds(found, console=console)
    owners = [(one["owner"], one) for one in found["owners"]]
    projects = [(one["project"], one) for one in found["projects"]]
    if owners:
        console.print()
        _show_most("owner", owners, console)
    if len(projects) > 1:
        console.print()
        _show_most("project", projects, console)
    console.print()
    show_quota(quota, console=console)


def show_kinds(found: Inventory, *, console: Console | None = None) -> None:
    """One site's sums by kind, and in all."""
    sums: list[Sum] = [*found["kinds"], *([found["total"]] if len(found["kinds"]) > 1 else [])]
    names = [*(_words(kind["kind"]) for kind in found["kinds"]), "in all"][: len(sums)]
    empty = "Nothing is there." if found["listed_at"] else "It has not been listed yet."
    output.show_columns({"what": names} | _columns(sums), right=_NUMBERS, empty=empty, console=console, indent=2)


def _show_most(title: str, sums: Sequence[tuple[str | None, Sum]], console: Console) -> None:
    """The first so many, which have most, each with its name."""
    first = sums[:_MOST]
    names = [name or "not said" for name, _ in first]
    columns = {title: names} | _columns([one for _, one in first])
    output.show_columns(columns, right=_NUMBERS, console=console, indent=2)
    if left := len(sums) - len(first):
        output.say(f"  and {left} more; `--json` has all.", console=console)


def _columns(sums: Sequence[Sum]) -> dict[str, Sequence[output.Cell]]:
    """Unknown prices are counted beside the sum, which is then a least amount."""
    return {
        "number": [str(one["count"]) for one in sums],
        "idle": [str(one["idle"]) if one["idle"] else "" for one in sums],
        "GiB": [_gib(one["size_gib"]) for one in sums],
        "per hour": output.column([one["per_hour"] for one in sums]),
        "unpriced": [str(one["unknown"]) if one["unknown"] else "" for one in sums],
    }


def _gib(text: str | None) -> str:
    """To a tenth."""
    size = Decimal(text or 0)
    return f"{size:.1f}".removesuffix(".0") if size else ""


def show_quota(quota: Sequence[Quota], *, console: Console | None = None) -> None:
    """Limits, use and what is left."""
    made = output.table("quota", "limit", "used", "free", right=_NUMBERS)
    for one in quota:
        name = one["resource"]
        amounts = (one["limit"], one["used"], one["free"])
        words = _QUOTA_WORDS.get(name, name.replace("_", " "))
        output.row(made, words, *(_amount(text, is_memory=name in _MEMORY) for text in amounts))
    output.show(made, empty="Its quota is not known yet.", console=console, indent=2)


def _amount(text: str | None, *, is_memory: bool) -> str:
    """Memory comes in MiB and is shown to a tenth of a GiB."""
    if text is None:
        return "unlimited"
    return f"{Decimal(text) / 1024:.1f}".removesuffix(".0") + " GiB" if is_memory else text


def show_things(things: Sequence[Thing], *, now: datetime, console: Console | None = None) -> None:
    """A line for each."""
    columns: dict[str, Sequence[output.Cell]] = {
        "site": [thing["site"] for thing in things],
        "kind": [_words(thing["kind"]) for thing in things],
        "name": [thing["name"] or thing["remote_id"] for thing in things],
        "owner": [thing["owner"] or "not said" for thing in things],
        "project": [thing["project"] or "not said" for thing in things],
        "type or GiB": [thing["instance_type"] or _gib(thing["size_gib"]) for thing in things],
        "status": [thing["status"] for thing in things],
        "attached to": [thing["attached_to"] or "" for thing in things],
        "made": [output.when(thing["created_at"], now=now) if thing["created_at"] else "" for thing in things],
        "per hour": output.column([thing["per_hour"] for thing in things]),
    }
    sites = {thing["site"] for thing in things}
    if len({(thing["site"], thing["project"]) for thing in things}) <= len(sites):
        del columns["project"]
    if len(sites) < 2:  # whoever asked has named it, or has no other
        del columns["site"]
    if not any(columns["attached to"]):
        del columns["attached to"]
    spare = ("attached to", "made", "project", "owner", "site")
    output.show_columns(columns, right=_NUMBERS, spare=spare, empty="There is no such thing.", console=console)


def _words(kind: str) -> str:
    return {"server": "machine", "volume_snapshot": "volume snapshot"}.get(kind, kind)
