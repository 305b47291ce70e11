"""Servers and databases of a test's own."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from broker.database import Database
from broker.embedded import EmbeddedServer
from tests.conftest import PostgresForTests


@pytest.fixture
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where a test may run a server. Whatever the test does, no server and no socket is left of it."""
    path = tmp_path / "data"
    with tempfile.TemporaryDirectory(prefix="lw") as sockets:
        monkeypatch.setenv("XDG_RUNTIME_DIR", sockets)
        yield path
        EmbeddedServer(path).stop(even_if_used=True)
        assert list(Path(sockets).iterdir()) == []


@pytest.fixture
def server(data_dir: Path) -> Iterator[EmbeddedServer]:
    """A server of the test's own, running."""
    with EmbeddedServer(data_dir, durable=False) as running:
        yield running


@pytest.fixture
def empty_database(postgres: PostgresForTests) -> Iterator[Database]:
    """A database without any table, on the shared server."""
    name = f"scratch_{uuid4().hex}"
    yield postgres.create(name)
    postgres.drop(name)
