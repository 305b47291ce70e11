"""The processes: `serve` answers HTTP and works, `worker` only works. Both end in order on SIGINT and SIGTERM."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import uvicorn

from broker.errors import SetupError
from web import compose, logs
from web.app import make_app
from web.clock import Clock
from web.compose import Services
from web.settings import Settings
from web.token import load_token
from web.worker import Worker, register

# Open requests get so long to be answered when the process is told to stop; none takes longer than a statement may.
_GRACE_SECONDS = 5
# A worker whose clock has not ticked for so many more seconds ends.
_CLOCK_ROUNDS = 30

Ready = Callable[[str], None]


def serve(settings: Settings, *, ready: Ready | None = None) -> None:
    """Answer HTTP on loopback, with a worker and the clock beside it, until SIGINT or SIGTERM.

    `ready` is told the address once it answers; by default one line on standard output says it.

    Raises:
        SetupError: the address is not loopback, the port is taken, or the database or the token cannot be used.
    """
    _require_loopback(settings)
    logs.configure(settings.log_level)
    with _stopping() as stopping, _bound(settings) as listener, _services(settings) as services:
        register(services.queue, services)
        with Worker(services.queue, size=settings.workers) as working, Clock(services) as ticking:
            is_working, is_ticking = (lambda: working.is_alive), (lambda: ticking.is_alive)
            app = make_app(services, is_working=is_working, is_ticking=is_ticking)
            url = _url(settings.host, listener)
            server = _Server(
                uvicorn.Config(
                    app,
                    http="h11",
                    ws="none",
                    loop="asyncio",
                    lifespan="off",
                    log_config=None,
                    access_log=False,
                    server_header=False,
                    proxy_headers=False,
                    timeout_graceful_shutdown=_GRACE_SECONDS,
                ),
                started=lambda: (ready or _announcement(settings))(url),
            )
            stopping.by(server.stop)
            with _address(settings.address_file, url):
                server.run([listener])


def worker(settings: Settings) -> None:
    """Work and tick without HTTP, until SIGINT or SIGTERM.

    Raises:
        SetupError: the database cannot be used, or the worker or the clock broke: a supervisor is to start another.
    """
    logs.configure(settings.log_level)
    with _stopping() as stopping, _services(settings) as services:
        register(services.queue, services)
        with Worker(services.queue, size=settings.workers) as working, Clock(services) as ticking:
            told, silence = threading.Event(), 0
            stopping.by(told.set)
            _say("Leeway's worker is ready.")
            while not told.wait(1):
                if not working.is_alive:
                    raise SetupError("the worker stopped by itself", hint="Its log says why; start it again.")
                # Counted in rounds of our own: after the whole process stood still, the clock has its time to catch up.
                silence = 0 if ticking.is_alive else silence + 1
                if silence > _CLOCK_ROUNDS:
                    raise SetupError("the clock stopped by itself", hint="Its log says why; start it again.")


# --- signals ---------------------------------------------------------------------------------------------------------


class _Stopping:
    """The first signal ends what runs, or interrupts the start; what closes down is not interrupted by a second one."""

    def __init__(self) -> None:
        self._end: Callable[[], None] | None = None
        self._told = False

    def by(self, end: Callable[[], None]) -> None:
        """From now on a signal calls `end`."""
        self._end = end

    def tell(self, _number: int, _frame: FrameType | None) -> None:
        """A signal's handler."""
        if self._told:
            return
        self._told = True
        if self._end is None:
            raise KeyboardInterrupt
        self._end()


@contextlib.contextmanager
def _stopping() -> Iterator[_Stopping]:
    """Handle the signals until everything inside is closed."""
    stopping = _Stopping()
    before = {number: signal.signal(number, stopping.tell) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with contextlib.suppress(KeyboardInterrupt):
            yield stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Server(uvicorn.Server):
    """Says when it answers, and leaves signals to us: its own way ends the process before the rest is closed."""

    def __init__(self, config: uvicorn.Config, started: Callable[[], None]) -> None:
        super().__init__(config)
        self._tell_started = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, then say so."""
        await super().startup(sockets)
        if self.started:
            self._tell_started()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Nothing: `_stopping` has them."""
        yield

    def stop(self) -> None:
        """Take no more requests, answer the open ones, and return from `run`."""
        self.should_exit = True


# --- the address -----------------------------------------------------------------------------------------------------


def _require_loopback(settings: Settings) -> None:
    if not settings.is_loopback:
        raise SetupError(
            f"LEEWAY_HOST is {settings.host}, which others can reach: `leeway serve` takes only this machine's own "
            "addresses until login exists",
            hint="Listen on 127.0.0.1; from elsewhere, come through `ssh -L`.",
        )


@contextlib.contextmanager
def _bound(settings: Settings) -> Iterator[socket.socket]:
    """The port, taken before anything is started; it listens when the server does."""
    host, port = settings.host, settings.port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named because asyncio switches Nagle's delay off only where it is.
    with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
            listener.listen(1)  # two sockets may be bound to one port; only one may listen
        except OSError as error:
            raise _port_fault(error, host, port) from None
        yield listener


def _port_fault(error: OSError, host: str, port: int) -> SetupError:
    other = "or take another port: LEEWAY_PORT=8643 (0 takes any free one)"
    if error.errno == errno.EADDRINUSE:
        return SetupError(f"port {port} on {host} is taken", hint=f"Stop what listens there, {other}.")
    if error.errno == errno.EACCES:
        return SetupError(f"this account may not listen on port {port}", hint=f"Ask for the right, {other}.")
    return SetupError(f"{host} port {port} cannot be listened on: {error.strerror}", hint="Set LEEWAY_HOST=127.0.0.1.")


def _url(host: str, listener: socket.socket) -> str:
    port = listener.getsockname()[1]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@contextlib.contextmanager
def _address(path: Path, url: str) -> Iterator[None]:
    """The file by which commands of this account find the server, for as long as it runs."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(f"{url}\n")
    draft.replace(path)
    try:
        yield
    finally:
        with contextlib.suppress(FileNotFoundError):
            if path.read_text().strip() == url:  # another server may have taken the file over
                path.unlink()


def _announcement(settings: Settings) -> Ready:
    def announce(url: str) -> None:
        _say(f"Leeway is ready at {url}")
        if sys.stdout.isatty():  # the link opens the pages, so it belongs on a screen and not into a log
            _say(f"In a browser: {url}/login?token={load_token(settings.token_file).value}")

    return announce


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


@contextlib.contextmanager
def _services(settings: Settings) -> Iterator[Services]:
    with compose.database(settings) as found, compose.services(settings, found) as services:
        # What was imported stays for good: looking through it again took a quarter of the CPU of a large listing.
        gc.collect()
        gc.freeze()
        yield services
