"""How well a site answers, on a terminal."""

from __future__ import annotations

import io
from datetime import UTC, datetime

from web.cli import output
from web.cli.health_view import show_health
from web.client.shapes import HourOfContacts, KindHealth, SiteHealth

NOW = datetime(2026, 11, 21, 14, 30, tzinfo=UTC)
REASON = "failing since 14:02 UTC: 7 of the last 9 contacts failed (list: site_unknown)"


def kind(name: str, state: str, contacts: int, failures: int) -> KindHealth:
    return {
        "kind": name,
        "state": state,
        "share": 0.5,
        "contacts": contacts,
        "failures": failures,
        "last_at": "2026-11-21T14:29:00Z",
        "ok_at": "2026-11-21T14:02:00Z",
        "error": None,
    }


def hour(at: int, contacts: int, failures: int, mean: int) -> HourOfContacts:
    return {
        "at": f"2026-11-21T{at:02}:00:00Z",
        "kind": "list",
        "contacts": contacts,
        "failures": failures,
        "latency_mean_ms": mean,
        "latency_max_ms": 2 * mean,
    }


def shown(health: SiteHealth) -> list[str]:
    """Lines, with one space between words."""
    file = io.StringIO()
    show_health(health, now=NOW, console=output.screen(file=file))
    return [" ".join(line.split()) for line in file.getvalue().splitlines()]


def test_a_site_that_fails_says_what_and_since_when() -> None:
    kinds = [kind("list", "failing", 12, 9), kind("quota", "healthy", 3, 0)]
    hours = [hour(14, 10, 9, 3000), hour(13, 30, 0, 200)]
    lines = shown({"state": "failing", "reason": REASON, "kinds": kinds, "hours": hours})
    assert lines[1] == "list failing 12, 9 failed 40, 9 failed 900 ms 6.0 s 28 min ago"
    assert lines[2] == "quota healthy 3 0 - - 28 min ago"
    assert lines[3] == REASON


def test_a_site_that_nobody_asked_says_so() -> None:
    assert shown({"state": "unknown", "reason": None, "kinds": [], "hours": []}) == [
        "Nobody has asked it within the hour."
    ]
