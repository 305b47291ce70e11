"""`serve` and `worker` as processes: ready, found, stopped, and refused with reasons."""

from __future__ import annotations

import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest
from sqlalchemy.orm import Session, sessionmaker

from broker.database import Database
from broker.errors import SetupError
from web.server import serve
from web.settings import load_settings
from web.token import load_token

ROOT = Path(__file__).parents[2]
PROGRAM = "import sys; from web import server; from web.settings import load_settings; "


@dataclass
class Process:
    """A process of Leeway's. `line` is what it said when it was ready."""

    popen: subprocess.Popen[str]
    line: str

    def stop(self, number: signal.Signals) -> float:
        """Send a signal; the seconds until it was gone."""
        before = time.monotonic()
        self.popen.send_signal(number)
        assert self.popen.wait(15) == 0
        return time.monotonic() - before


@contextmanager
def started(what: str, data_dir: Path, database: Database, **settings: str) -> Iterator[Process]:
    """`serve` or `worker` in a process of its own."""
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "LEEWAY_DATA_DIR": str(data_dir),
        "LEEWAY_DATABASE_URL": database.application_url,
        "LEEWAY_PORT": "0",
    } | settings
    command = [sys.executable, "-c", f"{PROGRAM} server.{what}(load_settings())"]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            line = process.stdout.readline()
            assert line, process.stderr.read()
            yield Process(process, line)
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serve_is_found_by_its_files_and_leaves_none(
    sessions: sessionmaker[Session], database: Database, tmp_path: Path, number: signal.Signals
) -> None:
    assert sessions  # cleans up afterwards
    with started("serve", tmp_path, database) as process:
        url = (tmp_path / "address").read_text().strip()
        assert re.fullmatch(r"http://127\.0\.0\.1:[0-9]+", url)
        assert process.line == f"Leeway is ready at {url}\n"
        token = load_token(tmp_path / "token").value
        assert stat.S_IMODE((tmp_path / "token").stat().st_mode) == 0o600
        health = httpx2.get(f"{url}/api/v1/health")
        assert health.json()["worker"] is True
        assert "server" not in health.headers
        assert httpx2.get(f"{url}/api/v1/sites", headers={"Authorization": f"Bearer {token}"}).status_code == 200
        with socket.create_connection(("127.0.0.1", int(url.rsplit(":", 1)[1]))):  # somebody who says nothing
            assert process.stop(number) < 10
        assert not (tmp_path / "address").exists()
        assert load_token(tmp_path / "token").value == token, "made once"
        with pytest.raises(httpx2.ConnectError):
            httpx2.get(f"{url}/api/v1/health")


def test_a_port_that_is_taken_is_named_with_the_way_out(database: Database, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        settings = load_settings(data_dir=tmp_path, port=port, database_url=database.application_url)
        with pytest.raises(SetupError, match=f"port {port} on 127.0.0.1 is taken") as refused:
            serve(settings)
    assert "LEEWAY_PORT" in str(refused.value.hint)
    assert list(tmp_path.iterdir()) == [], "nothing was started"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])  # noqa: S104 - to be refused
def test_others_addresses_are_refused_until_login_exists(database: Database, tmp_path: Path, host: str) -> None:
    settings = load_settings(data_dir=tmp_path, host=host, database_url=database.application_url)
    with pytest.raises(SetupError, match="until login exists"):
        serve(settings)


def test_a_worker_works_without_http(sessions: sessionmaker[Session], database: Database, tmp_path: Path) -> None:
    assert sessions  # cleans up afterwards
    with started("worker", tmp_path, database) as process:
        assert "worker is ready" in process.line
        assert not (tmp_path / "address").exists()
        assert process.stop(signal.SIGTERM) < 10


@pytest.mark.parametrize("content", ["", "short\n", "ü" * 40])
def test_a_token_file_that_holds_none_is_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "token"
    file.write_text(content)
    file.chmod(0o600)
    with pytest.raises(SetupError, match="holds no token"):
        load_token(file)


def test_a_token_that_others_can_read_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "token"
    made = load_token(file)
    assert made.value not in repr(made)
    file.chmod(0o640)
    with pytest.raises(SetupError, match="can be read by others"):
        load_token(file)
