"""HTTP to a cloud: libcloud's connection, with what it lacks.

libcloud lays out URL, headers and TLS and keeps the connection alive. Added here: a deadline for the whole answer, from
its status line to its last byte, and not only for each read, so that no site holds us by a byte a second; a bound on
its size, unpacked; answers as bytes whatever their status (its own guess the encoding of every page, which costs more
than parsing it), no redirects (a POST would come back as a GET, and the token would go to a stranger), and no `.netrc`.

Not bounded: how long this machine's resolver takes to look up a name.
"""

from __future__ import annotations

import http.client
import io
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, cast

import requests
import requests.adapters
import urllib3
from libcloud.common.base import Connection
from libcloud.http import LibcloudConnection

from broker.errors import SiteBusy, SiteError, SiteUnknown
from broker.remote import Deadline

_CONNECT_SECONDS = 10.0
_MOST_BYTES = 64 * 1024 * 1024  # unpacked; a page of 1,000 servers is 1 to 2 MB
_CHUNK = 64 * 1024
# Servers close idle connections after 5 s and more. A write is not sent on one that may be closing: it could be lost
# on the way, and its outcome would be unknown without need.
_STALE_SECONDS = 4.0
_WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})


class Answer:
    """One HTTP answer: status, headers (names in lower case), body. libcloud makes it, as a `responseCls`."""

    __slots__ = ("body", "headers", "status")

    def __init__(self, response: requests.Response, connection: SiteConnection) -> None:
        """Read the body, within the connection's deadline."""
        self.status = response.status_code
        self.headers = {name.lower(): value for name, value in response.headers.items()}
        try:
            self.body = _read(response, connection)
        finally:
            response.close()


# --- the deadline ------------------------------------------------------------------------------------------------

Wait = Callable[[], float]


class _Incoming(io.RawIOBase):
    """What a socket receives. Before each read `wait` says how many seconds it may last, or raises."""

    def __init__(self, source: socket.socket, wait: Wait) -> None:
        self.is_amid_headers = True
        self._socket = source
        self._raw = source.makefile("rb", buffering=0)
        self._wait = wait

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._socket.settimeout(self._wait())
        size = self._raw.readinto(buffer)
        if size == 0 and self.is_amid_headers:  # http.client takes half the headers for all of them
            raise ConnectionResetError("the connection ended amid the headers")
        return size

    def close(self) -> None:
        self._raw.close()
        super().close()


class _TimedResponse(http.client.HTTPResponse):
    """Reads status line, headers, chunks and body alike through `_Incoming`."""

    def __init__(self, sock: socket.socket, *args: Any, wait: Wait, **named: Any) -> None:
        super().__init__(sock, *args, **named)
        self.fp.close()
        self._incoming = _Incoming(sock, wait)
        self.fp = io.BufferedReader(self._incoming)

    def begin(self) -> None:
        super().begin()
        self._incoming.is_amid_headers = False


class _TimedAdapter(requests.adapters.HTTPAdapter):
    """Makes connections whose answers are `_TimedResponse`."""

    def __init__(self, wait: Wait) -> None:
        super().__init__()
        self._wait = wait

    def get_connection_with_tls_context(self, *args: Any, **named: Any) -> Any:
        pool: Any = super().get_connection_with_tls_context(*args, **named)
        if not isinstance(pool.ConnectionCls, partial):
            pool.ConnectionCls = partial(self._connect, pool.ConnectionCls)
        return pool

    def _connect(self, kind: Callable[..., Any], **named: Any) -> Any:
        connection = kind(**named)
        connection.response_class = partial(_TimedResponse, wait=self._wait)
        return connection


# --- requests ----------------------------------------------------------------------------------------------------


class _Transport(LibcloudConnection):
    """Sends one request: streamed, so that the body is read under our deadline."""

    session: requests.Session
    seconds: tuple[float, float]  # to connect, and between two bytes

    def request(self, method: str, url: str, body: Any = None, headers: Any = None, *_: Any, **__: Any) -> None:
        """What libcloud passes beyond these is fixed here."""
        self.response = self.session.request(
            method,
            f"{self.host}{url}",
            data=body,
            headers=headers,
            allow_redirects=False,
            stream=True,
            verify=self.verification,
            timeout=self.seconds,
        )


class SiteConnection(Connection):
    """A kept-alive connection to one service of a site. For one thread at a time."""

    conn_class = _Transport
    connection: _Transport | None
    responseCls = Answer  # type: ignore[assignment] # noqa: N815 - libcloud's name; it only makes one

    def __init__(self, url: str, *, socket_seconds: float, ca_bundle: str | None = None) -> None:
        """`url` is the service's root; `socket_seconds` the longest silence that is waited for."""
        super().__init__(url=url)  # type: ignore[no-untyped-call] # libcloud is typed in part
        self.url = url
        self.socket_seconds = socket_seconds
        self.deadline = Deadline(0.0)
        self.doing = ""
        self._ca_bundle = ca_bundle
        self._used = 0.0

    def _user_agent(self) -> str:
        return "leeway"

    def _transport(self) -> _Transport:
        if self.connection is None:
            self.connect()  # type: ignore[no-untyped-call] # libcloud is typed in part
            transport = cast("_Transport", self.connection)
            # Proxies are read once; asking the environment at every request costs as much as the request.
            transport.session.proxies = requests.utils.get_environ_proxies(self.url)
            transport.session.trust_env = False
            for scheme in ("http://", "https://"):
                transport.session.mount(scheme, _TimedAdapter(self.silence))
            if self._ca_bundle:
                transport.ca_cert = self._ca_bundle
            return transport
        return self.connection

    def send(
        self, method: str, path: str, *, body: bytes | None, headers: Mapping[str, str], deadline: Deadline, doing: str
    ) -> Answer:
        """Send one request and read the whole answer, whatever its status.

        Raises:
            SiteBusy: no connection came about, so nothing was sent.
            SiteUnknown: the deadline passed, the connection broke or TLS failed.
        """
        transport = self._transport()
        if method in _WRITES and time.monotonic() - self._used > _STALE_SECONDS:
            transport.session.close()  # its pool; the next request opens a new connection
        deadline.check(doing)
        self.deadline, self.doing = deadline, f"{doing}: {self.host}:{self.port}"
        wait = self.silence()
        transport.seconds = (min(_CONNECT_SECONDS, wait), wait)
        try:
            answer: Answer = self.request(  # type: ignore[no-untyped-call] # libcloud is typed in part
                path, data=body, headers=dict(headers), method=method
            )
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            raise _broken(error, self.doing) from error
        self._used = time.monotonic()
        return answer

    def silence(self) -> float:
        """Seconds that the next byte of the answer may take.

        Raises:
            SiteUnknown: the deadline has passed.
        """
        self.deadline.check(self.doing)
        return min(self.socket_seconds, max(self.deadline.remaining, 0.001))

    def close(self) -> None:
        """Close the sockets; the next request would open new ones."""
        if self.connection is not None:
            self.connection.session.close()


def _read(response: requests.Response, connection: SiteConnection) -> bytes:
    chunks: list[bytes] = []
    size = 0
    while chunk := response.raw.read1(_CHUNK, decode_content=True):  # unpacks no more than is asked for
        chunks.append(chunk)
        size += len(chunk)
        if size > _MOST_BYTES:
            raise SiteUnknown(f"{connection.doing} sends an answer larger than {_MOST_BYTES // 1024**2} MiB")
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


# What OpenSSL calls an answer that is no TLS at all; the second name is of its releases since 3.2.
_NO_TLS = frozenset({"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"})
_NEVER_SENT = (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError)


def _broken(error: Exception, where: str) -> SiteError:
    """What a request that got no whole answer means. Only a connection that never was proves that nothing was sent."""
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            refusal = SiteUnknown(f"{where} has a certificate that is not trusted ({cause.verify_message})")
            refusal.hint = "If the site uses its own authority, name its file in the site's setting ca_bundle."
            return refusal
        if isinstance(cause, ssl.SSLError) and cause.reason in _NO_TLS:
            stranger = SiteUnknown(f"{where} does not speak TLS")
            stranger.hint = "Is the port right, and does its address begin with http:// instead?"
            return stranger
        if isinstance(cause, urllib3.exceptions.NameResolutionError):
            return _unreachable(f"{where} has no address: the name is not known", "Check the name in the endpoint.")
        if isinstance(cause, _NEVER_SENT):
            refused = isinstance(cause, urllib3.exceptions.NewConnectionError)
            reason = "is refused" if refused else "takes too long"
            return _unreachable(f"{where}: the connection {reason}", "Check host, port and firewall.")
    if isinstance(error, (requests.Timeout, urllib3.exceptions.TimeoutError, TimeoutError)):
        return SiteUnknown(f"{where} did not answer in time")
    return SiteUnknown(f"{where} broke the connection off ({type(causes[-1]).__name__})")


def _unreachable(detail: str, hint: str) -> SiteBusy:
    error = SiteBusy(f"{detail}; nothing was sent")
    error.hint = hint
    return error


def _causes(error: BaseException) -> list[BaseException]:
    """The error and what caused it; requests and urllib3 keep the cause in `args` or `reason`, not in `__cause__`."""
    found: list[BaseException] = []
    todo: list[Any] = [error]
    while todo:
        item = todo.pop(0)
        if isinstance(item, BaseException) and item not in found:
            found.append(item)
            todo += [*item.args, getattr(item, "reason", None), item.__cause__, item.__context__]
    return found
