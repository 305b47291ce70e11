"""How well a site answers, as people read it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from rich.console import Console

from web.cli import output
from web.client.shapes import HourOfContacts, SiteHealth

_STYLES: Final = {"healthy": "green", "shaky": "yellow", "failing": "bold red"}


def show_health(health: SiteHealth, *, now: datetime, console: Console | None = None) -> None:
    """What the contacts of the last hour say of a site, kind by kind, and what those of the last day were like."""
    made = output.table("contacts", "now", "last hour", "last day", "mean time", "longest", "last good", right=(
        "mean time", "longest"))  # fmt: skip
    for kind in health["kinds"]:
        day = [hour for hour in health["hours"] if hour["kind"] == kind["kind"]]
        output.row(
            made,
            kind["kind"],
            output.styled(kind["state"], _STYLES.get(kind["state"], "")),
            _counted(kind["contacts"], kind["failures"]),
            _counted(sum(hour["contacts"] for hour in day), sum(hour["failures"] for hour in day)),
            _mean(day),
            _longest(day),
            output.when(kind["ok_at"], now=now),
        )
    output.show(made, empty="Nobody has asked it within the hour.", console=console, indent=2)
    if health["reason"] is not None:
        output.say(output.styled(f"  {health['reason']}", _STYLES.get(health["state"], "")), console=console)


def _counted(contacts: int, failures: int) -> str:
    """`30`, or `30, 2 failed`."""
    return f"{contacts}, {failures} failed" if failures else str(contacts)


def _mean(hours: Sequence[HourOfContacts]) -> str:
    """Of all contacts in some hours; `-` where there was none."""
    contacts = sum(hour["contacts"] for hour in hours)
    total = sum(hour["latency_mean_ms"] * hour["contacts"] for hour in hours)
    return _milliseconds(total / contacts) if contacts else "-"


def _longest(hours: Sequence[HourOfContacts]) -> str:
    """Of all contacts in some hours; `-` where there was none."""
    return _milliseconds(max(hour["latency_max_ms"] for hour in hours)) if hours else "-"


def _milliseconds(time: float) -> str:
    return f"{time:.0f} ms" if time < 1000 else f"{time / 1000:.1f} s"
