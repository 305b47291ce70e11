"""Processes that the run starts, kills, freezes and thaws. None of them outlives it.

Workers are forked from a zygote: a process that has imported everything, runs one thread and does nothing else, so
that a new worker costs milliseconds. The parent tells it what to fork, and it tells the parent who was born, was
stopped by a signal, or died. What workers have to say at their points goes to the parent straight.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import uuid_utils

from broker.errors import SetupError
from tests.faults.points import Arm, Deed, Points, watch
from tests.faults.sabotage import sabotage
from web import server
from web.settings import load_settings

_PR_SET_PDEATHSIG = 1
_MOST_BYTES = 200_000
_POLL_SECONDS = 0.03

Message = dict[str, Any]


def die_with_parent() -> None:
    """SIGKILL when the thread that forked this process ends, also where it has just ended."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() == 1:
        os._exit(0)


def forked(body: Callable[[], None], *, log: Path) -> int:
    """Run `body` in a child whose output goes to the end of `log`; the child's pid. Fork before starting threads."""
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        die_with_parent()
        _write_to(log)
        body()
        status = 0
    except BaseException:  # noqa: BLE001 - a child never returns into its parent's code; the log has it
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _write_to(log: Path) -> None:
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


# --- the zygote --------------------------------------------------------------------------------------------------


def _zygote(control: socket.socket, reports: socket.socket, log: Path) -> None:
    """Fork what is asked for and tell what became of it, until the parent closes the line."""
    alive: set[int] = set()
    while True:
        if select.select([control], [], [], _POLL_SECONDS)[0]:
            raw = control.recv(_MOST_BYTES)
            if not raw:
                break
            order = json.loads(raw)

            def work(order: Message = order) -> None:
                control.close()
                _work(order, reports)

            pid = forked(work, log=log)
            alive.add(pid)
            control.send(json.dumps({"born": pid, "number": order["number"]}).encode())
        for message in _changes(alive):
            control.send(json.dumps(message).encode())
    for pid in alive:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _changes(alive: set[int]) -> Iterator[Message]:
    while alive:
        pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED)
        if not pid:
            return
        if os.WIFSTOPPED(status):
            yield {"stopped": pid}
            continue
        alive.discard(pid)
        signalled = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
        yield {"dead": pid, "signal": signalled, "status": None if signalled else os.WEXITSTATUS(status)}


def _work(order: Message, reports: socket.socket) -> None:
    """A process as `leeway serve` or `leeway worker` runs it, with its points watched."""
    uuid_utils.reseed_rng()  # forked processes would else make the same ids
    arms = {name: Arm(nth, Deed(deed)) for name, (nth, deed) in order["arms"].items()}
    sabotage(order["sabotage"])
    watch(Points(arms, set(order["known"]), lambda message: _tell(reports, message)))
    settings = load_settings(**order["settings"])
    try:
        if order["serves"]:
            server.serve(settings, ready=lambda url: _tell(reports, {"ready": url, "pid": os.getpid()}))
        else:
            server.worker(settings)
    except SetupError as error:  # PostgreSQL is away: a supervisor starts another, and so does the run
        print(f"worker {os.getpid()}: {error}", file=sys.stderr)


def _tell(reports: socket.socket, message: Message) -> None:
    reports.send(json.dumps(message).encode())


# --- its other side ----------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Worker:
    """One worker as the parent knows it.

    `serves`: it answers the API too, at `url` once it listens. `hit`: the point at which its deed was done.
    """

    number: int
    arms: Mapping[str, Arm]
    ordered_at: float
    serves: bool = False
    pid: int | None = None
    url: str | None = None
    hit: str | None = None
    frozen_at: float | None = None


@dataclass(slots=True)
class Herd:
    """The workers that are there. Everything of it is called from one thread. `settings`: those of `leeway worker`."""

    zygote: int
    control: socket.socket
    reports: socket.socket
    settings: Mapping[str, Any] = field(default_factory=dict)
    sabotage: Sequence[str] = ()
    known: set[str] = field(default_factory=set)
    workers: dict[int, Worker] = field(default_factory=dict)
    count: int = 0

    @classmethod
    def start(cls, *, log: Path) -> Herd:
        """Fork the zygote; call it before any thread is started."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        inbox, outbox = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)

        def body() -> None:
            ours.close()
            inbox.close()
            _zygote(theirs, outbox, log)

        pid = forked(body, log=log)
        theirs.close()
        outbox.close()
        inbox.setblocking(False)
        return cls(pid, ours, inbox)

    def fork(self, arms: Mapping[str, Arm], *, serves: bool) -> Worker:
        """Ask for one more worker."""
        self.count += 1
        worker = Worker(self.count, arms, time.monotonic(), serves)
        self.workers[worker.number] = worker
        order = {
            "number": worker.number,
            "serves": serves,
            "arms": {name: (arm.nth, arm.deed) for name, arm in arms.items()},
            "known": sorted(self.known),
            "settings": self.settings,
            "sabotage": self.sabotage,
        }
        self.control.send(json.dumps(order).encode())
        return worker

    def news(self) -> Iterator[tuple[str, Worker | None, Message]]:
        """What happened since the last call: ("seen" | "hit" | "stopped" | "dead", who, what)."""
        while select.select([self.control], [], [], 0)[0]:
            raw = self.control.recv(_MOST_BYTES)
            if not raw:
                raise RuntimeError("the zygote died; see its log")
            message = json.loads(raw)
            if "born" in message:
                self.workers[message["number"]].pid = message["born"]
                continue
            yield from self._heard()  # what it said before it was stopped
            kind = "stopped" if "stopped" in message else "dead"
            worker = self._by_pid(message[kind])
            if worker is not None and kind == "stopped":
                worker.frozen_at = time.monotonic()
            elif worker is not None:
                del self.workers[worker.number]
            yield kind, worker, message
        yield from self._heard()

    def _heard(self) -> Iterator[tuple[str, Worker | None, Message]]:
        with contextlib.suppress(BlockingIOError):
            while True:
                message = json.loads(self.reports.recv(_MOST_BYTES))
                if "seen" in message:
                    if message["seen"] not in self.known:
                        self.known.add(message["seen"])
                        yield "seen", None, message
                    continue
                worker = self._by_pid(message["pid"])
                if "ready" in message:
                    if worker is not None:
                        worker.url = message["ready"]
                    continue
                if worker is not None:
                    worker.hit = message["hit"]
                yield "hit", worker, message

    @property
    def urls(self) -> list[str]:
        """Where the API is answered now."""
        return [worker.url for worker in self.workers.values() if worker.url is not None and worker.hit is None]

    def _by_pid(self, pid: int) -> Worker | None:
        return next((worker for worker in self.workers.values() if worker.pid == pid), None)

    def thaw(self, worker: Worker) -> None:
        """Let a frozen worker go on."""
        worker.frozen_at = None
        self.signal(worker, signal.SIGCONT)

    def signal(self, worker: Worker, number: signal.Signals) -> None:
        """Send a worker a signal; none where it is gone."""
        if worker.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker.pid, number)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Kill every worker and the zygote, and wait for it."""
        self.control.close()
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.zygote, 0)
        self.reports.close()
