"""`leeway site boot-test` over a real server with its worker and its clock."""

from __future__ import annotations

from tests.unit.cli.conftest import Leeway


def test_now_and_at_intervals(leeway: Leeway) -> None:
    said = leeway.ok("site", "boot-test", "aurora", "--project", "climate")
    assert said.startswith("aurora: a machine ran after ")
    assert "which is charged to climate" in said
    shown = leeway.ok("site", "show", "aurora")
    assert "boot test" in shown
    assert ": a machine ran after " in shown
    assert "what failed in each of the last 24 hours" in shown
    health = leeway.json("site", "show", "aurora")["health"]
    assert health["boot_tests"][0]["outcome"] == "ok"
    assert leeway.json("ps", "--name", "boot-test")[0]["order"]["reason"].startswith("the boot test is done")
    assert "every 24 h" in leeway.ok("site", "boot-test", "aurora", "--project", "climate", "--every", "1 day")
    assert "boot tests every 24 h" in leeway.ok("site", "show", "aurora")
    assert "not tested" in leeway.ok("site", "boot-test", "aurora", "--every", "never")
    assert leeway.json("site", "show", "aurora")["health"]["boot_plan"] is None


def test_what_is_not_said_right_is_told(leeway: Leeway) -> None:
    done = leeway("site", "boot-test", "aurora")
    assert (done.exit_code, "--project" in done.stderr) == (2, True)
    done = leeway("site", "boot-test", "aurora", "--project", "climate", "--every", "often")
    assert (done.exit_code, "every: " in done.stderr) == (1, True)
    done = leeway("site", "boot-test", "aurora", "--project", "climate", "--every", "1 min")
    assert (done.exit_code, "--every takes an hour to 31 days" in done.stderr) == (2, True)
    done = leeway("site", "boot-test", "aurora", "--project", "climate", "--image", "windows-3.11")
    assert (done.exit_code, "no machine can be started at aurora now" in done.stderr) == (1, True)
