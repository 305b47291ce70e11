"""Where the embedded PostgreSQL cannot run: each time one plain error, with the reason and the way out."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import psycopg
import pytest

from broker.embedded import APPLICATION_ROLE, SUPERUSER, EmbeddedServer
from broker.errors import SetupError

ROOT = Path(__file__).parents[3]
PACKAGES = Path(psycopg.__file__).parents[1]  # given by name: another account's interpreter is not in our venv
NEEDS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another account")

# Starts and stops a server in argv[1] and prints the answer to a query, or the error.
RUN = """
import sys
from pathlib import Path
import psycopg
from broker.database import libpq_url
from broker.embedded import EmbeddedServer
from broker.errors import SetupError
try:
    with EmbeddedServer(Path(sys.argv[1])) as server:
        with psycopg.connect(libpq_url(server.url("leeway_app"))) as connection:
            print(connection.execute("SELECT 'served ' || current_user").fetchone()[0])
except SetupError as error:
    print("refused:", error)
"""


def run(prefix: Sequence[str], data_dir: Path, *, python: str = sys.executable, uid: int = 0) -> str:
    with private_dir(uid or os.geteuid()) as sockets:
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": f"{ROOT}:{PACKAGES}",
            "PYTHONDONTWRITEBYTECODE": "1",
            "XDG_RUNTIME_DIR": str(sockets),
        }
        done = subprocess.run(
            [*prefix, python, "-c", RUN, str(data_dir)],
            cwd="/",
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert list(sockets.iterdir()) == []
    return done.stdout + done.stderr


@contextlib.contextmanager
def private_dir(uid: int, *, prefix: str = "lw") -> Iterator[Path]:
    """A directory of that account, on a short way that every account may go (pytest's are closed to others)."""
    path = Path(tempfile.mkdtemp(prefix=prefix))
    os.chown(path, uid, -1)
    try:
        yield path
    finally:
        shutil.rmtree(path)


def refusal(data_dir: Path) -> str:
    with pytest.raises(SetupError) as caught, EmbeddedServer(data_dir, durable=False):
        pass
    assert caught.value.code == "setup_failed"
    assert caught.value.hint
    return str(caught.value)


def test_data_of_another_major_version(server: EmbeddedServer) -> None:
    server.stop()
    (server.cluster / "PG_VERSION").write_text("15\n")
    assert "was made by PostgreSQL 15; this Leeway brings PostgreSQL 18" in refusal(server.data_dir)
    (server.cluster / "PG_VERSION").write_text("18\n")
    server.start()


def test_a_cluster_that_is_none(data_dir: Path) -> None:
    (data_dir / "cluster").mkdir(parents=True)
    data_dir.chmod(0o700)
    assert "cannot be read as PostgreSQL's data directory" in refusal(data_dir)


def test_a_data_directory_of_somebody_elses_server(data_dir: Path) -> None:
    data_dir.mkdir(mode=0o700)
    (data_dir / "PG_VERSION").write_text("18\n")
    assert "is itself a data directory of PostgreSQL" in refusal(data_dir)


def test_a_file_in_its_place(data_dir: Path) -> None:
    data_dir.write_text("")
    assert "is not a directory" in refusal(data_dir)
    data_dir.unlink()


def test_a_place_where_nothing_can_be_made() -> None:
    assert "cannot be made" in refusal(Path("/proc/leeway/data"))


def test_a_directory_open_to_others(data_dir: Path) -> None:
    data_dir.mkdir()
    data_dir.chmod(0o777)
    assert f"chmod 700 '{data_dir}'" in refusal(data_dir)


def test_a_damaged_cluster_says_what_postgresql_said(server: EmbeddedServer) -> None:
    server.stop()
    (server.cluster / "global" / "pg_control").rename(server.cluster / "pg_control.away")
    message = refusal(server.data_dir)
    assert "PostgreSQL could not start" in message
    assert "pg_control" in message
    (server.cluster / "pg_control.away").rename(server.cluster / "global" / "pg_control")
    server.start()


@NEEDS_ROOT
def test_a_directory_of_another_account(data_dir: Path) -> None:
    data_dir.mkdir(mode=0o700)
    os.chown(data_dir, 1234, 1234)
    assert "belongs to the account with uid 1234" in refusal(data_dir)
    os.chown(data_dir, 0, 0)


@NEEDS_ROOT
def test_a_directory_that_only_root_may_enter_will_do(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    with EmbeddedServer(closed / "data", durable=False) as server:
        assert server.pid > 0


@NEEDS_ROOT
def test_a_way_that_root_without_its_privileges_cannot_go(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    data_dir = closed / "data"
    data_dir.mkdir(mode=0o700)
    os.chown(closed, 1234, 1234)
    message = refusal(data_dir)
    assert "Permission denied" in message
    assert "must be open to the account that runs Leeway" in message
    os.chown(closed, 0, 0)


@NEEDS_ROOT
def test_no_other_account_gets_in(server: EmbeddedServer) -> None:
    """In its user namespace every other account looks like ours, so the closed directory has to keep them out."""
    become = ["setpriv", "--reuid=1234", "--regid=1234", "--clear-groups"]
    connect = "import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])"
    done = subprocess.run(
        [*become, "/usr/bin/python3", "-c", connect, str(server.socket_dir / ".s.PGSQL.5432")],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
        cwd="/",
    )
    assert "PermissionError" in done.stderr
    assert server.url(SUPERUSER) != server.url(APPLICATION_ROLE)


@NEEDS_ROOT
@pytest.mark.parametrize("uid", [65534, 1234], ids=["a named account", "an account without a name"])
def test_an_ordinary_account(uid: int) -> None:
    become = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]
    candidates = [sys.executable, f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}"]
    python = next((name for name in candidates if _can_run(become, name)), None)
    if python is None:
        pytest.skip("no interpreter that another account may run and that has these packages")
    with private_dir(uid, prefix="leeway tests ") as home:
        for _ in range(2):
            assert run(become, home / "data", python=python, uid=uid) == "served leeway_app\n"


def _can_run(become: Sequence[str], python: str) -> bool:
    done = subprocess.run(
        [*become, python, "-c", "import broker.database"],
        cwd="/",
        env={"PATH": os.environ["PATH"], "PYTHONPATH": f"{ROOT}:{PACKAGES}", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        check=False,
        timeout=60,
    )
    return done.returncode == 0


def in_namespace(script: str) -> list[str]:
    """Root of a user and mount namespace of its own, where limits and file systems are the test's."""
    prefix = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-ec", script, "sh"]
    probe = subprocess.run([*prefix, "true"], capture_output=True, text=True, check=False, timeout=30)
    if probe.returncode != 0:
        pytest.skip(f"this machine allows no such namespace: {probe.stderr.strip()}")
    return prefix


def test_no_user_namespaces(tmp_path: Path) -> None:
    prefix = in_namespace('echo 0 > /proc/sys/user/max_user_namespaces; exec "$@"')
    said = run(prefix, tmp_path / "data")
    assert "refused: PostgreSQL does not run as root without a user namespace" in said
    assert "Run Leeway as an ordinary user" in said


def test_too_little_space_to_begin(tmp_path: Path) -> None:
    prefix = in_namespace(f'mount -t tmpfs -o size=60m tmpfs "{tmp_path}"; exec "$@"')
    said = run(prefix, tmp_path / "data")
    assert "MB free; PostgreSQL needs 200 MB to begin. Free some space" in said


def test_a_disk_that_is_full_at_a_later_start(tmp_path: Path) -> None:
    script = f'mount -t tmpfs -o size=250m tmpfs "{tmp_path}"; "$@"; head -c 300m /dev/zero > "{tmp_path}/full" || "$@"'
    said = run(in_namespace(script), tmp_path / "data")
    served, _, refused = said.partition("\n")
    assert served == "served leeway_app"
    assert "refused: " in refused
    assert "No space left on device" in refused
    assert "ree some" in refused
