"""How well a site answers, on a terminal."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from typing import cast

import pytest

from web.cli import output
from web.cli.health_view import boot_words, show_health
from web.client.shapes import BootTest, HourOfContacts, KindHealth, SiteHealth

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


def health(
    state: str, kinds: list[KindHealth], hours: list[HourOfContacts], *, reason: str | None = None
) -> SiteHealth:
    return {"state": state, "reason": reason, "kinds": kinds, "hours": hours, "boot_tests": [], "boot_plan": None}


def shown(health: SiteHealth) -> list[str]:
    """Lines, with one space between words."""
    file = io.StringIO()
    show_health(health, now=NOW, console=output.screen(file=file))
    return [" ".join(line.split()) for line in file.getvalue().splitlines()]


def test_a_site_that_fails_says_what_and_since_when() -> None:
    kinds = [kind("list", "failing", 12, 9), kind("quota", "healthy", 3, 0)]
    hours = [hour(14, 10, 9, 3000), hour(13, 30, 0, 200)]
    lines = shown(health("failing", kinds, hours, reason=REASON))
    assert lines[1] == "list failing 12, 9 failed 40, 9 failed 900 ms 6.0 s 28 min ago"
    assert lines[2] == "quota healthy 3 0 - - 28 min ago"
    assert lines[3] == REASON


def test_a_site_that_nobody_asked_says_so() -> None:
    assert shown(health("unknown", [], [])) == ["No contact with it was noted within the hour."]


def test_a_day_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    hours = [hour(14, 10, 10, 3), hour(13, 100, 1, 2), hour(12, 100, 99, 2), hour(11, 2, 1, 2), hour(2, 5, 0, 2)]
    (line,) = [line for line in shown(health("failing", [], hours)) if line.startswith("list")]
    assert line == f"list {'.' * 11}▁{'.' * 8}▅▇▂█"


def test_a_day_in_a_line_where_there_is_only_ascii() -> None:
    file = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    hours = [hour(14, 10, 10, 3), hour(13, 100, 1, 2), hour(2, 5, 0, 2)]
    show_health(health("failing", [], hours), now=NOW, console=output.screen(file=file))
    file.seek(0)
    assert f"list     {'.' * 11}_{'.' * 10}1X\n" in file.read()


def test_boot_tests() -> None:
    made = health("healthy", [], [])
    made["boot_plan"] = {
        "project": "operations",
        "image": None,
        "every_seconds": 86400,
        "next_at": "2026-11-22T11:30:00Z",
        "trouble": "the grant is used up",
    }
    ok: BootTest = {
        "order_id": "1",
        "began_at": "2026-11-21T11:30:00Z",
        "ended_at": "2026-11-21T11:30:41Z",
        "outcome": "ok",
        "seconds": 40.7,
        "error": None,
    }
    made["boot_tests"] = [ok]
    assert shown(made)[2:] == [
        "boot test 3 h ago: a machine ran after 41 s",
        "boot tests every 24 h, the next in 21 h, paid by operations",
        "the last one could not be ordered: the grant is used up",
    ]
    for changes, words in (
        ({"seconds": None, "error": "no valid host"}, "failed: no valid host"),
        ({"seconds": None}, "stopped before anything could be said"),
        ({"seconds": None, "ended_at": None}, "under way"),
    ):
        assert boot_words(cast("BootTest", ok | changes)) == words
