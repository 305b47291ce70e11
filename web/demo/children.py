"""The processes of a demo: started from its main thread, ended with it, and else found again by the next demo.

A child asks Linux for a signal when its parent dies, so a demo that is killed leaves nothing but, for a moment,
children on their way out; which ones they were stands in a file.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import web
from broker.errors import SetupError

_STOP_SECONDS: Final = 25.0  # a worker lets its running jobs come to their end, which takes it 20 s at most
_POLL_SECONDS: Final = 0.05
_LOG_LINES: Final = 5

# Where our packages lie, in a checkout and in an installation.
_ROOT: Final = Path(web.__file__).resolve().parents[1]


@dataclass
class Child:
    """One process and where its output goes."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def wait_for(self, met: Callable[[], bool], *, seconds: float) -> None:
        """Return once `met`.

        Raises:
            SetupError: the process ended before, or it took too long; with the last lines it wrote.
        """
        deadline = time.monotonic() + seconds
        while not met():
            if self.process.poll() is not None:
                raise self._fault(f"ended with code {self.process.returncode}")
            if time.monotonic() > deadline:
                raise self._fault(f"is not ready after {seconds:.0f} s")
            time.sleep(_POLL_SECONDS)

    def _fault(self, what: str) -> SetupError:
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LOG_LINES:]
        said = f": {' / '.join(line.strip() for line in lines)}" if lines else ""
        return SetupError(f"The {self.name} {what}{said}", hint=f"Look into {self.log}.")


@dataclass
class Children:
    """All of a demo's processes; `folder` holds their logs and the list of them."""

    folder: Path
    running: list[Child] = field(default_factory=list)

    def start(self, name: str, module: str, arguments: Sequence[str], settings: Mapping[str, str]) -> Child:
        """Run one of our modules in a process of its own, which a Ctrl-C on the terminal does not reach."""
        log = self.folder / f"{name}.log"
        environment = {key: value for key, value in os.environ.items() if not key.startswith("LEEWAY_")}
        # -P: a folder named like one of our packages, where the demo happens to be run, is not ours.
        environment |= {"PYTHONPATH": str(_ROOT), **settings}
        with log.open("wb") as output:
            process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                [sys.executable, "-P", "-m", module, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                process_group=0,
            )
        child = Child(name, process, log)
        self.running.append(child)
        self._note()
        return child

    def ended(self) -> Child | None:
        """One that is not alive any more, None where all are."""
        return next((child for child in self.running if child.process.poll() is not None), None)

    def stop(self) -> None:
        """End all, the last one first, and wait until they have."""
        for child in reversed(self.running):
            child.process.terminate()
        deadline = time.monotonic() + _STOP_SECONDS
        for child in reversed(self.running):
            try:
                child.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.process.kill()
                child.process.wait()
        self.running.clear()
        _list(self.folder).unlink(missing_ok=True)

    def _note(self) -> None:
        found = [{"pid": child.process.pid, "started": _started(child.process.pid)} for child in self.running]
        _list(self.folder).write_text(json.dumps(found), encoding="utf-8")


def end_leftovers(folder: Path) -> int:
    """End what a killed demo's children have not ended by themselves yet; returns how many."""
    try:
        noted = json.loads(_list(folder).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return 0
    left = [child["pid"] for child in noted if child["started"] is not None and _is_alive(child)]
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + _STOP_SECONDS
    while any(_is_alive(child) for child in noted) and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
    _list(folder).unlink(missing_ok=True)
    return len(left)


def _list(folder: Path) -> Path:
    return folder / "children.json"


def _is_alive(noted: Mapping[str, int | None]) -> bool:
    """The very process: a number that was given to another one since is not meant."""
    pid, started = noted["pid"], noted["started"]
    return pid is not None and started is not None and _started(pid) == started


def _started(pid: int) -> int | None:
    """When a process started, in ticks since the machine did (proc(5), field 22); None where it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    state, *fields = stat.rpartition(")")[2].split()
    return None if state == "Z" else int(fields[18])
