"""Everything a demo runs on: two sandbox clouds, PostgreSQL, and the server, started side by side."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psycopg

from broker.database import libpq_url
from broker.embedded import APPLICATION_ROLE, DATABASE, OWNER_ROLE, SUPERUSER, EmbeddedServer
from broker.errors import SetupError
from web.client.client import Client
from web.client.errors import Unreachable
from web.client.place import Place
from web.demo.children import Child, Children

CLOUDS: Final = ("aurora", "borealis")
HOST: Final = "127.0.0.1"
FIRST_PORT: Final = 8642
_PORTS_TRIED: Final = 20
_CLOUD_SECONDS: Final = 60.0
_SERVER_SECONDS: Final = 120.0
# A person watches: everything is looked at far more often than an installation would.
_SETTINGS: Final = {
    "LEEWAY_HOST": HOST,
    "LEEWAY_SWEEP_INTERVAL": "PT1S",
    "LEEWAY_LISTING_INTERVAL": "PT5S",
    "LEEWAY_FIRST_LOOK": "PT0.5S",
    "LEEWAY_LAST_LOOK": "PT5S",
    "LEEWAY_CALL_TIMEOUT": "PT20S",
    "LEEWAY_CLAIM_TIME": "PT60S",
}


@dataclass(frozen=True, slots=True)
class Stage:
    """A server to talk to, and where each cloud has its Keystone."""

    place: Place
    clouds: dict[str, str]
    children: Children


@contextlib.contextmanager
def stage(folder: Path, note: Callable[[str], None]) -> Iterator[Stage]:
    """Start all of it, and stop all of it in the end. `note` is told what is up.

    Raises:
        SetupError: something does not start; the error says what it wrote.
    """
    children = Children(folder)
    with contextlib.ExitStack() as stack:
        stack.callback(children.stop)
        clouds = {name: _start_cloud(children, folder, name) for name in CLOUDS}
        postgres = stack.enter_context(EmbeddedServer(folder / "postgres"))
        stack.callback(children.stop)  # before PostgreSQL is; once more for what started in vain does no harm
        _make_database(postgres)
        note("PostgreSQL runs, with a new database")
        server = _start_server(children, folder)
        auth_urls = {}
        for name, child in clouds.items():
            auth_urls[name] = _cloud_address(child, folder)
            note(f"cloud {name} answers at {auth_urls[name]}")
        place = _server_place(server, folder)
        note(f"the server answers at {place.url}")
        yield Stage(place, auth_urls, children)


def _start_cloud(children: Children, folder: Path, name: str) -> Child:
    port_file = folder / f"{name}.json"
    port_file.unlink(missing_ok=True)
    arguments = ["--profile", name, "--port", "0", "--port-file", str(port_file), "--die-with-parent"]
    return children.start(name, "adapters.sandbox", arguments, {})


def _cloud_address(child: Child, folder: Path) -> str:
    port_file = folder / f"{child.name}.json"
    child.wait_for(port_file.exists, seconds=_CLOUD_SECONDS)
    return str(json.loads(port_file.read_text(encoding="utf-8"))["auth_url"])


def _make_database(postgres: EmbeddedServer) -> None:
    """The clouds are new and empty, so what is known of the last demo's is worth nothing."""
    url = libpq_url(postgres.url(SUPERUSER, database="postgres"))
    try:
        with psycopg.connect(url, autocommit=True) as connection:
            for statement in (
                f"DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)",
                f"CREATE DATABASE {DATABASE} OWNER {OWNER_ROLE}",
                f"REVOKE ALL ON DATABASE {DATABASE} FROM PUBLIC",
                f"GRANT CONNECT ON DATABASE {DATABASE} TO {APPLICATION_ROLE}",
            ):
                connection.execute(statement.encode())
    except psycopg.Error as error:
        raise SetupError(
            f"The demo's database cannot be made: {error}", hint=f"Look into {postgres.log_file}."
        ) from error


def _start_server(children: Children, folder: Path) -> Child:
    settings = {**_SETTINGS, "LEEWAY_DATA_DIR": str(folder), "LEEWAY_PORT": str(free_port())}
    return children.start("server", "web.cli.main", ["serve", "--die-with-parent"], settings)


def _server_place(server: Child, folder: Path) -> Place:
    """Where the server is, once it answers."""
    address, token = folder / "address", folder / "token"

    def answers() -> bool:
        if not (address.exists() and token.exists()):
            return False
        with Client(_place(address, token)) as client, contextlib.suppress(Unreachable):
            return client.health()["worker"]
        return False

    server.wait_for(answers, seconds=_SERVER_SECONDS)
    return _place(address, token)


def _place(address: Path, token: Path) -> Place:
    return Place(address.read_text(encoding="utf-8").strip(), token.read_text(encoding="utf-8").strip())


def free_port() -> int:
    """The usual port, or the next one that nobody has; 0 (whichever is free) where many are taken."""
    for port in range(FIRST_PORT, FIRST_PORT + _PORTS_TRIED):
        with socket.socket() as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                tried.bind((HOST, port))
                tried.listen(1)
                return port
    return 0
