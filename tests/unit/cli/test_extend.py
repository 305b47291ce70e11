"""`leeway extend` over a real server."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta

import pytest

from tests.unit.cli.conftest import WORKLOAD, Leeway


@pytest.fixture
def name(leeway: Leeway) -> str:
    """A workload that was ordered, and ends in two hours."""
    leeway.ok("submit", "--yes", "--no-wait", "-", stdin=WORKLOAD.replace("name: trial", "name: longer"))
    return "longer"


def end_of(leeway: Leeway, name: str) -> datetime:
    """When its machine ends."""
    return datetime.fromisoformat(leeway.json("show", name)["machines"][0]["ends_at"])


def test_a_length_counts_from_the_present_end(leeway: Leeway, name: str) -> None:
    said = leeway.ok("extend", name, "3", "days")
    assert said.startswith("longer ends on 20")
    assert "Set aside: 2.6" in said
    assert "more than before." in said
    assert "Free on the grants of climate: 9" in said
    after = leeway.json("extend", name, "1 day 12 h")
    # The end moves with the machine's start, which may come between the command's question and its request.
    assert abs(after["order"]["duration_seconds"] - (2 + 72 + 36) * 3600) < 60
    said = leeway.ok("extend", name, "20 days")
    assert "That lasts until 20" in said
    assert "without more money" not in said, "17 days more cost 15 EUR, and 90 are free"
    # Money is set aside for a week at once, and more follows: the order does not end there.
    assert "in 24 days; money for 6 days" in leeway.ok("ps", "--name", name)
    assert "in 24 days; money for 6 days" in leeway.ok("show", name)
    # All that is needed in the end is more than what is free.
    assert "The time after that costs about 2" in leeway.ok("extend", name, "250 days")
    leeway.ok("stop", name)


def test_after_the_end_a_length_counts_from_now(leeway: Leeway) -> None:
    document = re.sub("duration: .*", "duration: 1 second", WORKLOAD.replace("name: trial", "name: ended"))
    leeway.ok("submit", "--yes", "-", stdin=document)
    while end_of(leeway, "ended") > datetime.now(UTC) - timedelta(seconds=3):
        time.sleep(0.5)
    began = datetime.now(UTC)
    leeway.ok("extend", "ended", "1", "hour")
    assert end_of(leeway, "ended") >= began + timedelta(hours=1)
    leeway.ok("stop", "ended")


def test_an_end_is_taken_as_it_is(leeway: Leeway, name: str) -> None:
    wanted = end_of(leeway, name).replace(microsecond=0, second=0) + timedelta(days=2)
    for text in (f"{wanted:%Y-%m-%dT%H:%MZ}", f"{wanted:%Y-%m-%dT%H:%M}"):
        item = leeway.json("extend", name, "--until", text)
        assert abs(datetime.fromisoformat(item["machines"][0]["ends_at"]) - wanted) < timedelta(minutes=1)
    leeway.ok("stop", name)


def test_what_is_not_said_right_is_told(leeway: Leeway, name: str) -> None:
    for arguments in ((), ("3 days", "--until", "2100-01-01")):
        done = leeway("extend", name, *arguments)
        assert (done.exit_code, "one of the two" in done.stderr) == (2, True)
    for length in (("-3", "days"), ("-3d",), ("-12 h",)):
        done = leeway("extend", name, *length)
        assert (done.exit_code, "An end is only moved later" in done.stderr) == (2, True), done.stderr
    done = leeway("extend", name, "--untill", "2100-01-01")
    assert (done.exit_code, "--until" in done.stderr) == (2, True)
    assert leeway("extend", name, "--until", "soon").exit_code == 2
    done = leeway("extend", name, "3")
    assert (done.exit_code, "LENGTH" in done.stderr) == (1, True)
    for length in ("0 days", "100000000 days"):
        done = leeway("extend", name, length)
        assert (done.exit_code, f"LENGTH: {length} is" in done.stderr) == (1, True)
    assert leeway("extend", name, "--until", "0001-01-01T00:00+05:00").exit_code == 2
    done = leeway("extend", name, "--until", "2020-01-01")
    assert (done.exit_code, "is not after the present end" in done.stderr) == (1, True)
    leeway.ok("stop", name)
    done = leeway("extend", name, "3 days")
    assert (done.exit_code, "no machine to keep" in done.stderr) == (1, True)
