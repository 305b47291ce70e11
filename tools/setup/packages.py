"""Packages: locked, fetched and unpacked by the user's own pip."""

import contextlib
import os
import re
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tools.setup.machine import Pip, clean_environment
from tools.setup.report import Progress, SetupError
from tools.setup.state import locked_names

# What pip says, what it means for the person waiting, and the way out. The first that matches wins.
DIAGNOSES = (
    (r"No space left on device|Errno 28", "the disk is full", "Free some space and run the same command again."),
    (
        r"DO NOT MATCH THE HASHES",
        "a downloaded package is not the one that was locked",
        "The index serves another file under the same name. Look at the index that pip is set to: pip config list",
    ),
    (
        r"CERTIFICATE_VERIFY_FAILED|SSLError",
        "the certificate of the package index is not trusted",
        "Behind a proxy of your own? Give pip its certificate: PIP_CERT=/path/to/ca.pem",
    ),
    (r"ProxyError|407 Proxy", "the proxy refused the connection", "Look at HTTPS_PROXY and: pip config list"),
    (
        r"NewConnection|name resolution|[Tt]imed out|Connection (refused|broken)|is unreachable|ConnectionReset",
        "the package index cannot be reached",
        "Check the network and run the same command again: what is downloaded or unpacked is kept.",
    ),
    (r"Permission denied|Errno 13", "a file may not be written", "Run as the owner of this directory."),
    (
        r"No matching distribution found",
        "the package index has no ready-made package for this machine",
        "Leeway needs Linux with glibc on x86-64 or arm64, and an index that carries all of requirements/*.txt.",
    ),
)
TELL_EVERY_S = 5.0


@dataclass(frozen=True)
class Installer:
    """The user's pip, installing into one environment.

    pip inherits the set-up's lock, so that a set-up started after this one was killed waits until pip has ended too.
    """

    pip: Pip
    environment: Path
    lock_descriptor: int

    def install_locked(self, lock: Path, progress: Progress) -> None:
        """Installs exactly what the lock file names; raises SetupError with a diagnosis."""
        total = len(locked_names(lock.read_text("utf-8")))
        at_hand = 0
        told = time.monotonic()

        def tell(line: str) -> None:
            nonlocal at_hand, told
            at_hand += line.startswith(("Collecting ", "Requirement already satisfied: "))
            if time.monotonic() - told < TELL_EVERY_S:
                return
            told = time.monotonic()
            if "WARNING: Retrying" in line:
                progress.say("packages: the package index does not answer, pip tries again")
            else:
                progress.say(f"packages: {min(at_hand, total)} of {total} at hand, {self._unpacked(total)} unpacked")

        # No source packages: building one would run code that is not locked, and want compilers.
        self._run(["--require-hashes", "--no-deps", "--only-binary=:all:", "-r", str(lock)], tell)

    def connect_checkout(self) -> None:
        """Makes `leeway` run from this checkout; what it needs is locked and there already."""
        arguments = ["--no-index", "--no-deps", "--no-build-isolation", "--force-reinstall", "--editable", "."]
        self._run(arguments, lambda _line: None)

    def install_wheel(self, wheel: Path) -> None:
        """Installs one wheel as it is; what it needs is there already."""
        self._run(["--no-index", "--no-deps", str(wheel)], lambda _line: None)

    def _unpacked(self, total: int) -> int:
        return min(total, len(list(self.environment.glob("lib/python*/site-packages/*.dist-info/INSTALLER"))))

    def _run(self, arguments: list[str], tell: Callable[[str], None]) -> None:
        """Runs `pip install`; `tell` hears each line, and an empty one for every second of silence."""
        command = [self.pip.python, "-m", "pip", "--python", str(self.environment / "bin" / "python")]
        command += ["--no-input", "--disable-pip-version-check", "install", "--no-user", "--progress-bar=off"]
        output: list[str] = []
        with subprocess.Popen(
            [*command, "--no-warn-script-location", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=(self.lock_descriptor,),
            process_group=0,  # pip starts itself once more inside the environment: both are stopped together
            env=clean_environment() | {"PYTHONUNBUFFERED": "1"},
        ) as child:
            try:
                for line in read_lines(child):
                    output.append(line)
                    tell(line)
            except KeyboardInterrupt:
                stop(child)
                raise
        log = self.environment / "set-up.log"
        with contextlib.suppress(OSError):  # the disk may be full, which the diagnosis will say
            log.write_text("\n".join(filter(None, output)) + "\n", "utf-8")
        if child.returncode != 0:
            raise diagnose("\n".join(output), log)


def stop(leader: subprocess.Popen[bytes]) -> None:
    """Ends a process group: politely first, so that pip puts back what it was replacing."""
    os.killpg(leader.pid, signal.SIGINT)
    try:
        leader.wait(10)
    except subprocess.TimeoutExpired:
        os.killpg(leader.pid, signal.SIGKILL)


def read_lines(child: subprocess.Popen[bytes]) -> Iterator[str]:
    if child.stdout is None:
        raise ValueError("the child was started without a pipe")
    pending = b""
    while True:
        ready, _, _ = select.select([child.stdout], [], [], 1)
        if not ready:
            yield ""
            continue
        block = os.read(child.stdout.fileno(), 65536)
        if not block:
            break
        *lines, pending = (pending + block).split(b"\n")
        yield from (line.decode("utf-8", "replace").rstrip() for line in lines)
    if pending:
        yield pending.decode("utf-8", "replace").rstrip()


def diagnose(output: str, log: Path) -> SetupError:
    """What a failed pip means, with its own last words."""
    problem, remedy = "pip failed", f"Its whole output is in {log}."
    for pattern, meaning, way_out in DIAGNOSES:
        if re.search(pattern, output):
            problem, remedy = meaning, f"{way_out} (pip's output: {log})"
            break
    errors = [line for line in output.splitlines() if line.startswith("ERROR")] or output.split("\n")[-5:]
    return SetupError(f"{problem}.", "\n  ".join([remedy, *(f"pip: {line}" for line in errors[-3:])]))
