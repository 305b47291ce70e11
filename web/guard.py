"""What every request passes first: its id, the Host, the token, the size; and what every answer carries.

Plain ASGI: it touches each request, so it costs a few microseconds and no thread.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from ipaddress import ip_address

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from broker.errors import InvalidInput, LeewayError, NotAuthenticated
from broker.values import new_id
from web import logs
from web.problems import TooLarge, WrongHost
from web.token import Token

log = logging.getLogger(__name__)

API = "/api/"
COOKIE = "sid"
# A rate card may have 8 MiB, and JSON writes some characters in two.
MOST_BYTES = 12 * 1024 * 1024

# Open without the token: what says no more than the program's source does.
_OPEN = ("/api/v1/health", "/login", "/static/", "/problems/")
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}

Answer = Callable[[Request, LeewayError], Response]


@dataclass(frozen=True, slots=True)
class Guard:
    """The middleware. `host` is the one that `serve` was told to listen on; loopback's own names are always right."""

    app: ASGIApp
    token: Token
    host: str
    answer: Answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer what may not pass; let the rest pass."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = Request(scope)
        request.state.request_id = identifier = new_id().hex
        logs.request_id.set(identifier)  # each request runs in a context of its own
        noted = _Answered(scope["path"], identifier, send)
        started = time.monotonic()
        refused = self._refusal(request)
        if refused is not None:
            await self.answer(request, refused)(scope, receive, noted.send)
        else:
            await self.app(scope, _limited(receive), noted.send)
        spent = round((time.monotonic() - started) * 1000, 1)
        data = {"method": scope["method"], "path": scope["path"], "status": noted.status, "milliseconds": spent}
        log.log(logging.DEBUG if scope["method"] in ("GET", "HEAD") else logging.INFO, "request answered", extra=data)

    def _refusal(self, request: Request) -> LeewayError | None:
        if not self._is_our_host(request.headers.get("host", "")):
            return WrongHost(
                "The request names another server than this one.",
                hint="Use the address that `leeway serve` printed.",
            )
        if not request.url.path.startswith(_OPEN) and not self._is_known(request):
            return _unknown(request)
        if "\x00" in request.url.path or b"%00" in request.scope["query_string"]:
            return InvalidInput("address", "has a NUL character", hint="Leave it out.")
        length = request.headers.get("content-length", "0")
        if length.isdecimal() and int(length) > MOST_BYTES:
            return TooLarge(
                f"The request has {length} bytes, this server takes {MOST_BYTES}.", hint="Send less at once."
            )
        return None

    def _is_our_host(self, header: str) -> bool:
        name = header.rsplit(":", 1)[0] if not header.endswith("]") else header
        name = name.strip("[]").lower()
        if name in ("localhost", self.host.lower()):
            return True
        try:
            return ip_address(name).is_loopback
        except ValueError:
            return False

    def _is_known(self, request: Request) -> bool:
        scheme, _, shown = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self.token.admits(shown.strip()):
            return True
        if request.url.path.startswith(API):
            return False  # a cookie comes with every request that a browser makes, also on others' behalf
        return self.token.admits_page(_cookie(request.headers))


def _unknown(request: Request) -> NotAuthenticated:
    if not request.url.path.startswith(API):
        return NotAuthenticated(
            "This page wants the token once, and then remembers this browser.",
            hint="Follow the link that `leeway serve` printed, or run `leeway open`.",
        )
    is_shown = "authorization" in request.headers
    detail = "The token is not this server's." if is_shown else "The request shows no token."
    return NotAuthenticated(detail, hint="Send `Authorization: Bearer ...` with the token of the file `token`.")


def _cookie(headers: Headers) -> str:
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return ""
    return "" if found is None else found.value


def _limited(receive: Receive) -> Receive:
    """The body's parts, counted: who sends no length is stopped on the way."""
    total = 0

    async def counted() -> Message:
        nonlocal total
        message = await receive()
        total += len(message.get("body", b""))
        if total > MOST_BYTES:
            raise HTTPException(413)
        return message

    return counted


class _Answered:
    """The way back: adds the headers, and notes the status."""

    def __init__(self, path: str, request_id: str, send: Send) -> None:
        self._path = path
        self._request_id = request_id
        self._send = send
        self.status = 0

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            add_headers(headers, path=self._path, request_id=self._request_id)
        await self._send(message)


def add_headers(headers: MutableHeaders, *, path: str, request_id: str) -> None:
    """What every answer carries."""
    for name, value in _HEADERS.items():
        headers.setdefault(name, value)
    # Static files are asked for again each time, mostly for a 304: no page wears the last release's clothes.
    headers.setdefault("Cache-Control", "no-cache" if path.startswith("/static/") else "no-store")
    headers["X-Request-Id"] = request_id
