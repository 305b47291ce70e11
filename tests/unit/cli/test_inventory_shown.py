"""`leeway inventory`, and `leeway findings` where there is much to look at."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from io import StringIO

from rich.console import Console

from tests.unit.cli.conftest import Leeway
from web.cli.inventory_view import show_one
from web.client.shapes import Inventory, Money, Sum


def until(met: Callable[[], bool], *, seconds: float = 20) -> None:
    """The server's own worker lists the site every second."""
    deadline = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_a_site_shows_its_things_by_kind_and_owner_and_its_quota(leeway: Leeway) -> None:
    leeway.cloud.add_foreign_servers(3)
    until(lambda: bool(leeway.json("inventory", "aurora", "--kind", "server")))
    found = leeway.json("inventory", "aurora")
    assert found["total"]["count"] >= 3
    assert leeway.json("inventory") == [leeway.json("inventory", "aurora")] or leeway.json("inventory")[0]["site"]
    shown = leeway.ok("inventory", "aurora")
    assert "machine" in shown
    assert "per hour" in shown
    assert "640 GiB" in shown
    assert "aurora  machine" in leeway.ok("inventory")
    assert "There is no such thing." in leeway.ok("inventory", "aurora", "--owner", "nobody")
    assert "There is no such thing." in leeway.ok("inventory", "aurora", "--project-id", "elsewhere")
    (project,) = {one["project"] for one in found["projects"]}
    assert project not in shown, "one alone says nothing"
    in_it = leeway.json("inventory", "aurora", "--project-id", project)
    assert len(in_it) >= found["total"]["count"]
    listed = leeway.ok("inventory", "--kind", "server")
    assert "a1." in listed
    assert "EUR" in listed


def test_a_site_that_there_is_not_is_refused(leeway: Leeway) -> None:
    done = leeway("inventory", "nowhere")
    assert done.exit_code == 1
    assert "there is no site 'nowhere'" in done.stderr
    assert leeway("inventory", "aurora", "--kind", "car").exit_code == 2


def test_findings_begin_with_their_sums(leeway: Leeway) -> None:
    leeway.cloud.add_foreign_servers(3)
    until(lambda: len(leeway.json("findings")) >= 3)
    shown = leeway.ok("findings", "--most", "2")
    first, *_ = shown.splitlines()
    assert "findings, per day " in first
    assert first.endswith(" EUR")
    assert "more: `leeway findings --most" in shown
    assert leeway.ok("findings", "--most", "0").count("unknown_machine") == 0


def sums(count: int, value: str | None, unknown: int = 0) -> Sum:
    money: Money | None = None if value is None else {"value": value, "commodity": "EUR"}
    return {"count": count, "idle": 1, "size_gib": "2.000000000", "per_hour": money, "unknown": unknown}


def test_what_has_no_price_is_counted_beside_the_sum() -> None:
    found: Inventory = {
        "site": "north",
        "listed_at": "2026-11-21T12:00:00Z",
        "total": sums(8, "0.5", 3),
        "kinds": [{**sums(5, "0.5"), "kind": "server"}, {**sums(3, None, 3), "kind": "volume"}],
        "owners": [{**sums(1, None, 1), "owner": f"user-{number:02}"} for number in range(17)],
        "projects": [{**sums(6, "0.5", 1), "project": "climate"}, {**sums(2, None, 2), "project": None}],
    }
    screen = StringIO()
    show_one(found, [], now=datetime(2026, 11, 21, 12, 1, tzinfo=UTC), console=Console(file=screen, width=100))
    lines = [" ".join(line.split()) for line in screen.getvalue().splitlines()]
    assert "machine 5 1 2 0.50 EUR" in lines
    assert "volume 3 1 2 unknown 3" in lines
    assert "in all 8 1 2 0.50 EUR 3" in lines
    assert "and 2 more; `--json` has all." in lines
    assert not any("user-15" in line for line in lines)
    assert "climate 6 1 2 0.50 EUR 1" in lines
    assert "not said 2 1 2 unknown 2" in lines
