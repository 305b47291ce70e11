"""Long-running processes, known by pid files.

A pid file holds the pid, the process's start time (clock ticks since boot), the boot, and a fingerprint of what was
started. A pid alone is not enough: after a reboot, or once the number was given away, it names a stranger.
"""

import json
import os
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from rig.machine import SYSTEM_PATH, RigError

BOOT = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class Service:
    """A process of the rig; `fingerprint` changes when it must be restarted to follow its configuration."""

    name: str
    command: tuple[str, ...]
    ports: tuple[int, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    fingerprint: str = ""
    stop_seconds: float = 10


class Processes:
    """The processes whose pid files lie in one folder."""

    def __init__(self, home: Path) -> None:
        self.pids = home / "run"
        self.logs = home / "log"
        self.work = home / "work"

    def is_running(self, name: str) -> bool:
        """Whether the process of the pid file lives; a zombie is dead."""
        return self._note(name).get("pid") in self._members(name)

    def is_current(self, service: Service) -> bool:
        """Whether it lives and was started with the same command and configuration."""
        return self.is_running(service.name) and self._note(service.name).get("fingerprint") == service.fingerprint

    def names(self) -> list[str]:
        """Every service that has a pid file, alive or not."""
        return sorted(path.stem for path in self.pids.glob("*.pid"))

    def log(self, name: str) -> Path:
        """Where a service writes; the run before is kept beside it as `.log.1`."""
        return self.logs / f"{name}.log"

    def start(self, service: Service) -> None:
        """Start it unless it runs; a stale or left-over one is stopped first."""
        if self.is_current(service):
            return
        self.stop(service.name, service.stop_seconds)
        log = self.log(service.name)
        if log.exists():
            log.replace(log.with_suffix(".log.1"))
        with log.open("wb") as out:
            process = subprocess.Popen(
                service.command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                cwd=self.work,
                env=self.environment() | service.environment,
                start_new_session=True,  # its own session, so that stop reaches all it forked
            )
        status = _status(process.pid)
        note = {
            "pid": process.pid,
            "started": status[1] if status else 0,
            "boot": BOOT.read_text(),
            "fingerprint": service.fingerprint,
        }
        (self.pids / f"{service.name}.pid").write_text(json.dumps(note))

    def environment(self) -> dict[str, str]:
        """A clean environment: no proxies (all is on loopback), and never the caller's Python settings."""
        return {"PATH": SYSTEM_PATH, "LC_ALL": "C.UTF-8", "HOME": str(self.work), "PYTHONWARNINGS": "ignore"}

    def stop(self, name: str, seconds: float = 10) -> None:
        """Stop it and all it forked: politely for `seconds`, then by force. Nothing to do when it is gone."""
        give_up = time.monotonic() + seconds
        self._signal(name, signal.SIGTERM)
        while self._members(name) and time.monotonic() < give_up:
            time.sleep(0.1)
        self._signal(name, signal.SIGKILL)
        while held := self._members(name):
            if time.monotonic() > give_up + 10:
                raise RigError(f"{name} (pid {held[0]}) does not die: `cat /proc/{held[0]}/stack` shows what holds it")
            time.sleep(0.1)
        (self.pids / f"{name}.pid").unlink(missing_ok=True)

    def pause(self, name: str, *, paused: bool) -> None:
        """Freeze or thaw a service, so that its files can be copied as of one instant."""
        self._signal(name, signal.SIGSTOP if paused else signal.SIGCONT)

    def require_running(self, name: str) -> None:
        """Raise, with the end of its log, if it has died."""
        if not self.is_running(name):
            lines = self.log(name).read_text(errors="replace").splitlines() if self.log(name).exists() else []
            tail = "\n    ".join(lines[-12:])
            raise RigError(f"{name} died; the end of {self.log(name)}:\n    {tail}")

    def _note(self, name: str) -> dict[str, object]:
        try:
            note = json.loads((self.pids / f"{name}.pid").read_text())
        except (FileNotFoundError, ValueError):
            return {}
        return note if isinstance(note, dict) else {}

    def _signal(self, name: str, number: signal.Signals) -> None:
        for pid in self._members(name):
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def _members(self, name: str) -> list[int]:
        """The living processes of a service's session, also when its first one has died and left others behind.

        The kernel gives no number away while a session bears it, so a living first process with another start time
        is the one sign that the session is a stranger's.
        """
        note = self._note(name)
        session = note.get("pid")
        if not isinstance(session, int) or note.get("boot") != BOOT.read_text():
            return []
        first = _status(session)
        if first is not None and first[1] != note.get("started"):
            return []
        found = []
        for entry in Path("/proc").iterdir():
            status = _status(int(entry.name)) if entry.name.isdigit() else None
            if status is not None and status[0] not in "ZX" and status[2] == session:
                found.append(int(entry.name))
        return found


def _status(pid: int) -> tuple[str, int, int] | None:
    """State letter, start time in ticks and session of a process, from proc(5); None when there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text.rpartition(")")[2].split()
    return fields[0], int(fields[19]), int(fields[3])
