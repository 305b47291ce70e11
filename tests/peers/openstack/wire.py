"""An HTTP proxy on loopback between Leeway and a cloud, which keeps requests back and loses answers when told to.

`requests` goes through it where `http_proxy` names it, so neither Leeway nor the cloud's catalogue knows of it.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from enum import Enum, auto
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TypeVar
from urllib.parse import urlsplit

# RFC 9110 7.6.1: between two neighbours only.
_NEIGHBOURS_ONLY = frozenset({"connection", "proxy-connection", "keep-alive", "transfer-encoding", "content-length"})
_SILENCE_SECONDS = 120.0


class Fate(Enum):
    """What becomes of one request for a server.

    HELD    it is kept back until the next one comes; its sender waits as if frozen, or with LOST hears nothing at once
    BEFORE  what was kept back goes to the cloud just before it
    AFTER   what was kept back goes to the cloud just after it
    LOST    the cloud gets it, and the sender's connection breaks
    """

    HELD = auto()
    BEFORE = auto()
    AFTER = auto()
    LOST = auto()


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it came, to be sent once."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def makes_a_server(self) -> bool:
        """Whether it is the one that Nova builds a server for."""
        return self.method == "POST" and urlsplit(self.url).path.endswith("/servers")

    def send(self) -> Answer:
        """Send it to where it is addressed, and read the whole answer."""
        parts = urlsplit(self.url)
        connection = HTTPConnection(parts.hostname or "", parts.port, timeout=_SILENCE_SECONDS)
        try:
            path = parts._replace(scheme="", netloc="").geturl()
            connection.request(self.method, path, body=self.body or None, headers=dict(self.headers))
            response = connection.getresponse()
            headers = {name: value for name, value in response.getheaders() if name.lower() not in _NEIGHBOURS_ONLY}
            return Answer(response.status, headers, response.read())
        finally:
            connection.close()


@dataclass(frozen=True, slots=True)
class Answer:
    """What the cloud said. `pause`: seconds before each byte of the body."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    pause: float = 0.0


class Kept:
    """A request that is kept back until somebody sends it."""

    def __init__(self, request: Request) -> None:
        """Not sent yet."""
        self.request = request
        self.answer: Answer | None = None
        self.was_sent = threading.Event()

    def send(self) -> int:
        """Send it now; the status of its answer."""
        self.answer = self.request.send()
        self.was_sent.set()
        return self.answer.status


class Wire:
    """Requests for servers meet the fates in turn, then pass like all others.

    `said` are the cloud's answers to them; `holds` is set once one is kept back. `seen` is every request, by method and
    path.
    """

    def __init__(self, server: ThreadingHTTPServer) -> None:
        """Keep nothing back yet."""
        self.url = f"http://127.0.0.1:{server.server_port}"
        self.said: list[int] = []
        self.seen: list[tuple[str, str]] = []
        self.holds = threading.Event()
        self._fates: deque[frozenset[Fate]] = deque()
        self._kept: list[Kept] = []
        self._lock = threading.Lock()

    def servers_meet(self, *fates: frozenset[Fate]) -> None:
        """The next requests for servers meet these, one each."""
        self._fates.extend(fates)

    def carry(self, request: Request) -> Answer | None:
        """The answer for the sender; None where it gets none."""
        self.seen.append((request.method, urlsplit(request.url).path))
        if not request.makes_a_server:
            return request.send()
        mine = Kept(request)
        with self._lock:
            fate = self._fates.popleft() if self._fates else frozenset()
            if Fate.HELD in fate:
                self._kept.append(mine)
            before = [self._kept.pop()] if Fate.BEFORE in fate else []
            after = [self._kept.pop()] if Fate.AFTER in fate else []
        if Fate.HELD in fate:
            self.holds.set()
            if Fate.LOST not in fate:
                mine.was_sent.wait(_SILENCE_SECONDS)
        else:
            for each in (*before, mine, *after):
                self.said.append(each.send())
        return None if Fate.LOST in fate else mine.answer


AnyWire = TypeVar("AnyWire", bound=Wire)


def wire() -> AbstractContextManager[Wire]:
    """A proxy that runs."""
    return running(Wire)


@contextmanager
def running(kind: Callable[[ThreadingHTTPServer], AnyWire]) -> Iterator[AnyWire]:
    """The same, of a kind that does more than `Wire`."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            """Say nothing: the headers hold tokens."""

        def pass_on(self) -> None:
            size = int(self.headers.get("Content-Length") or 0)
            headers = {name: value for name, value in self.headers.items() if name.lower() not in _NEIGHBOURS_ONLY}
            answer = made.carry(Request(self.command, self.path, headers, self.rfile.read(size)))
            if answer is None:
                self.close_connection = True
                return
            self.send_response_only(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            if answer.status != 204:
                self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            if not answer.pause:
                self.wfile.write(answer.body)
                return
            with suppress(OSError):  # nobody listens to the end
                for byte in answer.body:
                    time.sleep(answer.pause)
                    self.wfile.write(bytes([byte]))
            self.close_connection = True

        do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = pass_on  # noqa: N815 - http.server's names

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    made = kind(server)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
