"""`leeway inventory`, and `leeway findings` where there is much to look at."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from io import StringIO

import pytest
from rich.console import Console

from tests.unit.cli.conftest import Leeway
from web.cli.inventory_view import show_one, show_quota, show_things
from web.client.shapes import Inventory, Money, Sum, Thing


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
    assert "There is no such thing." in leeway.ok("inventory", "aurora", "--owner", ""), "an unset variable is nobody"
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
    listed = leeway.ok("findings", "--most", "200")
    assert listed.count(leeway.json("findings")[0]["hint"]) == 1, "the same way out is told once"


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


def thing(site: str, number: int, project: str | None = "climate") -> Thing:
    return {
        "id": f"0190-{number}",
        "site": site,
        "kind": "server",
        "remote_id": f"f4d623c6-77b6-4434-af76-fa4cfdc3f27{number}",
        "name": f"tour-leeway-01a1fd8671597025a205e1{number}",
        "owner": "10397aa3c2be4b38aac85fc7a1b91dd3",
        "project": project,
        "size_gib": None,
        "instance_type": "c1.shares",
        "state": "running",
        "status": "ACTIVE",
        "attached_to": None,
        "created_at": "2026-11-21T09:53:29Z",
        "first_seen_at": "2026-11-21T09:53:29Z",
        "changed_at": None,
        "seen_at": "2026-11-21T09:53:29Z",
        "lease_id": None,
        "installation": None,
        "until": None,
        "per_hour": None,
    }


@pytest.mark.parametrize("width", [80, 120, 200])
@pytest.mark.parametrize(
    "things",
    [
        [thing("north", 1)],
        [thing("north", 1), thing("north", 2, "genomes")],
        [thing("north", 1), thing("south", 2, None)],
    ],
)
def test_things_fit_into_the_window_and_keep_their_names(things: list[Thing], width: int) -> None:
    screen = StringIO()
    show_things(things, now=datetime(2026, 11, 21, 12, tzinfo=UTC), console=Console(file=screen, width=width))
    _, *lines = screen.getvalue().splitlines()
    assert len(lines) == len(things), "no line is folded"
    for one, line in zip(things, lines, strict=True):
        assert one["name"] in line
        assert "unknown" in line
    assert "attached to" not in screen.getvalue(), "nothing is"


def test_memory_that_is_left_is_read_in_one_unit() -> None:
    screen = StringIO()
    show_quota(
        [{"resource": "memory_mib", "limit": "409600", "used": "26112", "free": "383488"}],
        console=Console(file=screen, width=80),
    )
    assert "memory  400 GiB  25.5 GiB  374.5 GiB" in screen.getvalue()
