"""How well a site answers, as people read it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from rich.console import Console

from web.cli import output
from web.client.shapes import BootPlan, BootTest, HourOfContacts, SiteHealth

# From none failed to all of them; and an hour in which nobody asked.
_BARS: Final = "▁▂▃▄▅▆▇█"
_PLAIN_BARS: Final = "_123456X"
_NOBODY: Final = "."
_DAY: Final = 24
_STYLES: Final = {"healthy": "green", "shaky": "yellow", "failing": "bold red"}


def show_health(health: SiteHealth, *, now: datetime, console: Console | None = None) -> None:
    """What the contacts of the last hour say of a site, kind by kind, and what those of the last day were like."""
    console = console or output.screen()
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
    output.show(made, empty="No contact with it was noted within the hour.", console=console, indent=2)
    if health["reason"] is not None:
        output.say(output.styled(f"  {health['reason']}", _STYLES.get(health["state"], "")), console=console)
    _show_day(health["hours"], now=now, console=console)
    if health["boot_tests"] or health["boot_plan"] is not None:
        output.say("", console=console)
    for line in _boot_lines(health["boot_tests"], health["boot_plan"], now=now):
        output.say(f"  {line}", console=console)


def _show_day(hours: Sequence[HourOfContacts], *, now: datetime, console: Console) -> None:
    """A line for each kind of contact, with a bar for each of the last 24 hours of UTC."""
    kinds = list(dict.fromkeys(hour["kind"] for hour in hours))
    if not kinds:
        return
    bars = _BARS if console.encoding.startswith("utf") else _PLAIN_BARS
    output.say("", console=console)
    legend = f"{bars[0]} none, {bars[-1]} all, {_NOBODY} nobody asked"
    output.say(f"  what failed in each of the last {_DAY} hours ({legend}):", console=console)
    for kind in sorted(kinds):
        line = _line([hour for hour in hours if hour["kind"] == kind], bars, now=now)
        output.say(f"  {kind:<8} {line}", console=console)


def _line(hours: Sequence[HourOfContacts], bars: str, *, now: datetime) -> str:
    """The oldest hour first, the present one last."""
    shares = {output.moment(hour["at"]): hour["failures"] / hour["contacts"] for hour in hours}
    present = now.replace(minute=0, second=0, microsecond=0)
    found = (shares.get(present - timedelta(hours=ago)) for ago in reversed(range(_DAY)))
    return "".join(_NOBODY if share is None else bars[_height(share, len(bars))] for share in found)


def _height(share: float, count: int) -> int:
    """None failed is the lowest bar, all failed the highest, and nothing in between is either."""
    if share in (0, 1):
        return int(share) * (count - 1)
    return 1 + int(share * (count - 2))


def _boot_lines(tests: Sequence[BootTest], plan: BootPlan | None, *, now: datetime) -> list[str]:
    lines = []
    if tests:
        last = tests[0]
        lines.append(f"boot test {output.when(last['began_at'], now=now)}: {boot_words(last)}")
    if plan is not None:
        every = output.span(plan["every_seconds"])
        following = output.when(plan["next_at"], now=now)
        following = "now" if following.endswith("ago") else following  # the clock takes what is due within a minute
        lines.append(f"boot tests every {every}, the next {following}, paid by {plan['project']}")
        if plan["trouble"]:
            lines.append(f"the last one could not be ordered: {plan['trouble']}")
    return lines


def boot_words(test: BootTest) -> str:
    """What came of a boot test."""
    if test["seconds"] is not None:
        return f"a machine ran after {test['seconds']:.0f} s"
    if test["error"] is not None:
        return f"failed: {test['error']}"
    return "under way" if test["ended_at"] is None else "stopped before anything could be said"


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
