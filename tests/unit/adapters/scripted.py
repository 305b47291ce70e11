"""A loopback HTTP server that answers as the test says, byte by byte where needed."""

from __future__ import annotations

import http.server
import json
import ssl
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, BinaryIO, Self


@dataclass
class Request:
    """What arrived. Header names are in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def document(self) -> Any:
        return json.loads(self.body)


@dataclass
class Reply:
    """What goes back. An iterable body is sent piece by piece; a `length` that is too large cuts it short.

    `raw` goes out piece by piece instead of all that, from the status line on; then the connection ends.
    """

    status: int = 200
    body: bytes | Iterable[bytes] = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    length: int | None = None
    raw: Iterable[bytes] | None = None


def reply(document: Any, status: int = 200, **headers: str) -> Reply:
    """A JSON answer."""
    return Reply(status, json.dumps(document).encode(), {"Content-Type": "application/json", **headers})


Answer = Callable[[Request], Reply]


def _send(pieces: Iterable[bytes], file: BinaryIO) -> bool:
    """False where the client has had enough, which is what some tests are about."""
    try:
        for piece in pieces:
            file.write(piece)
            file.flush()
    except OSError:
        return False
    return True


class ScriptedServer:
    """Runs in a thread; keeps what arrived and how many connections there were."""

    def __init__(self, answer: Answer, context: ssl.SSLContext | None = None) -> None:
        self.answer = answer
        self.requests: list[Request] = []
        self.connections = 0
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.scheme = "http"
        if context:
            self.scheme = "https"
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _handler(self) -> type[http.server.BaseHTTPRequestHandler]:
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 5

            def setup(self) -> None:
                outer.connections += 1
                super().setup()

            def handle_any(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                headers = {name.lower(): value for name, value in self.headers.items()}
                request = Request(self.command, self.path, headers, body)
                outer.requests.append(request)
                answer = outer.answer(request)
                if answer.raw is None:
                    self.respond(answer)
                else:
                    self.close_connection = True
                    _send(answer.raw, self.wfile)

            def respond(self, answer: Reply) -> None:
                # Without the server's own Date where the answer brings one.
                (self.send_response_only if "Date" in answer.headers else self.send_response)(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                whole = answer.body if isinstance(answer.body, bytes) else None
                if whole is not None or answer.length is not None:
                    self.send_header(
                        "Content-Length", str(len(whole or b"") if answer.length is None else answer.length)
                    )
                    self.close_connection = answer.length is not None
                else:
                    self.send_header("Connection", "close")
                    self.close_connection = True
                self.end_headers()
                if not _send([answer.body] if isinstance(answer.body, bytes) else answer.body, self.wfile):
                    self.close_connection = True

            do_GET = do_POST = do_DELETE = do_PUT = handle_any  # noqa: N815 - http.server's names

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server's name
                """Be quiet."""

        return Handler
