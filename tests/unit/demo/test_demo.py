"""The real demo as a stranger runs it: what it shows, and that it leaves nothing, however it ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.postgres
_PATIENCE = 120.0


class Demo:
    """One `leeway demo` in a directory of its own, with a space in its name."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.folder = folder
        self.output = folder.parent / f"output-{time.monotonic_ns()}"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("LEEWAY_")}
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "web.cli.main", "demo", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment | {"LEEWAY_DATA_DIR": str(folder)},
            )

    @property
    def text(self) -> str:
        return self.output.read_text(encoding="utf-8")

    def shows(self, words: str) -> None:
        """Wait until it has printed these words."""
        deadline = time.monotonic() + _PATIENCE
        while words not in self.text:
            assert self.process.poll() is None, self.text
            assert time.monotonic() < deadline, self.text
            time.sleep(0.1)

    def ends(self) -> int:
        return self.process.wait(_PATIENCE)


def processes(folder: Path) -> list[str]:
    """What runs for this directory: PostgreSQL and the clouds by their arguments, the server by its environment."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdecimal() and int(process.name) != os.getpid():
            try:
                words = (process / "cmdline").read_bytes() + b"\0" + (process / "environ").read_bytes()
            except OSError:  # gone, or another account's
                continue
            if str(folder).encode() in words:
                found.append(f"{process.name}: {(process / 'cmdline').read_bytes()!r}")
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    made = tmp_path / "a demo"
    yield made
    assert processes(made) == []


def test_the_tour_is_shown_the_page_stays_and_ctrl_c_ends_everything(folder: Path) -> None:
    demo = Demo(folder)
    try:
        demo.shows("rank 1: a1.medium")
        second = Demo(folder)
        assert second.ends() == 1
        assert "a demo runs in" in second.text
        assert "End that one with Ctrl-C first." in second.text
        demo.shows("Ctrl-C stops everything.")
        assert len(processes(folder)) >= 4  # PostgreSQL, two clouds, the server
    finally:
        demo.process.send_signal(signal.SIGINT)
    assert demo.ends() == 0, demo.text
    text = demo.text
    assert "Traceback" not in text
    for words in (
        "both sites are checked and listed",
        "borealis  rank 2: std.4c8g, 0.54 EUR for 6 hours, 0.11 EUR more than a1.medium at aurora",
        "0.45 EUR set aside",
        "the site says running (ACTIVE)",
        "nothing of it is left at the site",
        "gpus: wanted 2, but none (a1.pinned).",
        "What would help most:",
        "Nothing was ordered: no site can take era5-training.",
        "Everything is stopped.",
    ):
        assert words in text, words
    _check_money(text)
    assert re.search(r"http://127\.0\.0\.1:\d+/login\?token=\S+", text)
    assert not (folder / "address").exists()


def _check_money(text: str) -> None:
    """Nothing is charged before it ran, something after; what is free and what was spent are the grant."""
    lines = [line for line in text.splitlines() if line.startswith("  first ")]
    running, stopped = ([float(number) for number in re.findall(r"([\d.]+) EUR", line)] for line in lines)
    assert (running[0], running[2] > 0) == (0, True)
    assert running[1] > 0
    spent, accrued, held, free, ceiling = stopped
    assert (accrued, held, ceiling) == (0, 0, 100)
    assert 0 < spent < 0.01
    assert round(spent + free, 6) == 100


def test_after_kill_nine_the_next_demo_starts_and_leaves_nothing(folder: Path) -> None:
    killed = Demo(folder)
    killed.shows("the server answers at")
    killed.process.kill()
    killed.ends()
    again = Demo(folder, "--tour-only")
    assert again.ends() == 0, again.text
    assert "Everything is stopped." in again.text
    assert "Ctrl-C stops everything." not in again.text
    assert "in another terminal" not in again.text, "nothing stays up to be tried"


def test_what_no_demo_made_is_not_thrown_away(folder: Path) -> None:
    (folder / "postgres").mkdir(parents=True)
    demo = Demo(folder)
    assert demo.ends() == 1
    assert "no demo made it; a demo would throw away what is in it." in demo.text
    assert [entry.name for entry in folder.iterdir()] == ["postgres"]
