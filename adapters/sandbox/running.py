"""A cloud that listens: in a thread of this process, or as the whole process."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from adapters.sandbox import keystone_credentials, machines
from adapters.sandbox.app import CUT, Application
from adapters.sandbox.config import CloudConfig
from adapters.sandbox.faults import FaultBoard
from adapters.sandbox.foreign import add_foreign_servers, add_foreigners
from adapters.sandbox.identity import Identity, Region
from adapters.sandbox.state import Clock, Cloud, utc_now
from adapters.sandbox.truth import TruthLog

HOST = "127.0.0.1"
_START_SECONDS = 10.0
_KEEP_ALIVE_SECONDS = 75


class _CuttableProtocol(H11Protocol):
    """Lets the application end a connection without an answer, which ASGI alone cannot."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.app = _with_cut(self.app, self._cut)

    def _cut(self) -> None:
        self.transport.abort()


def _with_cut(app: ASGIApp, cut: Callable[[], None]) -> ASGIApp:
    async def respond(scope: Scope, receive: Receive, send: Send) -> None:
        scope["extensions"] = {CUT: cut}
        await app(scope, receive, send)

    return respond


class _Server(uvicorn.Server):
    """A stop does not wait for requests that a fault keeps waiting: it cuts them."""

    def __init__(self, config: uvicorn.Config, application: Application) -> None:
        super().__init__(config)
        self._application = application

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._application.closing.set()
        await super().shutdown(sockets)


def new_cloud(config: CloudConfig, clock: Clock = utc_now, *, shared: Identity | None = None) -> Cloud:
    """The state of a cloud as configured, foreign things included; with the Keystone that it shares, if any.

    Raises:
        ConfigError: it cannot be a region of that Keystone.
    """
    if shared is not None:
        shared.admit(config)
    cloud = Cloud(config, clock, shared=shared)
    add_foreigners(cloud, clock())
    return cloud


def listen(port: int) -> socket.socket:
    """A listening socket on loopback; port 0 takes a free one.

    Raises:
        OSError: the port is taken.
    """
    # The protocol is named because asyncio switches Nagle's delay off only where it is, and accept() hands it down.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
        listener.listen(256)
    except OSError:
        listener.close()
        raise
    return listener


def new_server(cloud: Cloud) -> uvicorn.Server:
    """The HTTP server of this cloud, not yet running."""
    application = Application(cloud)
    config = uvicorn.Config(
        application,
        http=_CuttableProtocol,
        ws="none",
        loop="asyncio",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
    )
    return _Server(config, application)


class SandboxCloud:
    """A running cloud. Faults and the log may be used from any thread while it answers.

    With `home` it is another region of that cloud: the Keystone there names it, and its tokens are good here. Then it
    has no Keystone of its own; quotas are limits of each region, which `home` sets for all.
    """

    def __init__(
        self, config: CloudConfig, *, port: int = 0, clock: Clock = utc_now, home: "SandboxCloud | None" = None
    ) -> None:
        self.config = config
        self.home = home or self
        self.cloud: Cloud = new_cloud(config, clock, shared=None if home is None else home.cloud.identity)
        listener = listen(port)
        self.port: int = listener.getsockname()[1]
        self._server = new_server(self.cloud)
        self._thread = threading.Thread(
            target=self._server.run, args=([listener],), name=f"sandbox-{config.name}", daemon=True
        )
        self._thread.start()
        deadline = time.monotonic() + _START_SECONDS
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > deadline:
                self.close()
                raise RuntimeError(f"the sandbox cloud {config.name} did not start; see the log of uvicorn.error")
            time.sleep(0.002)
        if home is not None:
            self.cloud.identity.regions.append(Region(config, self.url))

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def auth_url(self) -> str:
        """Keystone's address, with version, as sites publish it."""
        return f"{self.home.url}/v3"

    @property
    def control_url(self) -> str:
        return f"{self.url}/_control"

    @property
    def faults(self) -> FaultBoard:
        return self.cloud.faults

    @property
    def log(self) -> TruthLog:
        return self.cloud.log

    def reset(self, *, keep_identity: bool = False) -> None:
        """As just started."""
        with self.cloud.lock:
            self.cloud.reset(keep_identity=keep_identity)
            add_foreigners(self.cloud, self.cloud.clock())

    def add_foreign_servers(self, count: int, *, project: str | None = None, flavor: str | None = None) -> list[str]:
        """More servers of other people, running at once; their ids."""
        with self.cloud.lock:
            now = self.cloud.clock()
            self.cloud.advance(now)
            return add_foreign_servers(self.cloud, count, now, project_name=project, flavor_name=flavor)

    def vanish(self, *server_ids: str) -> None:
        """These servers are gone without a trace in the API."""
        with self.cloud.lock:
            now = self.cloud.clock()
            self.cloud.advance(now)
            for server_id in server_ids:
                machines.vanish(self.cloud, self.cloud.servers[server_id], now)

    def take_roles(self, user: str, project: str) -> None:
        """The user, by name, has no role in the project any more; tokens and credentials for it are over."""
        with self.cloud.lock:
            keystone_credentials.take_roles(self.cloud, user, project)

    def close(self) -> None:
        """Stop listening; requests under way are cut. Doing it twice is fine."""
        self._server.should_exit = True
        self._thread.join(_START_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def running(
    config: CloudConfig, *, port: int = 0, clock: Clock = utc_now, home: SandboxCloud | None = None
) -> SandboxCloud:
    """Start a cloud in a thread, or another region of one. As a context manager it stops at the end of the block.

    Raises:
        OSError: the port is taken.
        ConfigError: it cannot be a region of `home`.
    """
    return SandboxCloud(config, port=port, clock=clock, home=home)


def serve(cloud: Cloud, listener: socket.socket) -> None:
    """Answer until SIGTERM or SIGINT."""
    with contextlib.suppress(KeyboardInterrupt):
        new_server(cloud).run([listener])
