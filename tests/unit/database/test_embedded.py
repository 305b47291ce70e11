"""The embedded PostgreSQL: starts, restarts, accidents. Every server here is a real one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa

from broker.database import libpq_url
from broker.embedded import APPLICATION_ROLE, OWNER_ROLE, SUPERUSER, EmbeddedServer
from broker.embedded_files import Postmaster, orphans, read_postmaster
from broker.errors import SetupError

ROOT = Path(__file__).parents[3]

# A process that uses the server in argv[1]: says who serves it, waits for a line, leaves in good order.
USER = """
import sys
from pathlib import Path
from broker.embedded import EmbeddedServer
with EmbeddedServer(Path(sys.argv[1]), durable=False) as server:
    print(server.pid, flush=True)
    sys.stdin.readline()
"""


def ask(server: EmbeddedServer, query: str, *, role: str = APPLICATION_ROLE) -> object:
    """First column of the first row, over a connection of its own."""
    with psycopg.connect(libpq_url(server.url(role)), autocommit=True) as connection:
        row = connection.execute(query.encode()).fetchone()
        return row[0] if row else None


def execute(server: EmbeddedServer, statement: str) -> None:
    with psycopg.connect(libpq_url(server.url(OWNER_ROLE)), autocommit=True) as connection:
        connection.execute(statement.encode())


def use_in_another_process(data_dir: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", USER, str(data_dir)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def say_goodbye(process: subprocess.Popen[str]) -> None:
    process.communicate("\n", timeout=60)
    assert process.returncode == 0


def wait_for(condition: Callable[[], bool], *, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def test_first_start_makes_roles_and_database(server: EmbeddedServer) -> None:
    assert ask(server, "SELECT current_user || ' ' || current_database()") == f"{APPLICATION_ROLE} leeway"
    assert ask(server, "SELECT session_user", role=OWNER_ROLE) == OWNER_ROLE
    assert ask(server, "SHOW listen_addresses", role=SUPERUSER) == ""
    assert ask(server, "SHOW data_checksums") == "on"
    assert (
        ask(server, "SELECT datlocprovider::text || datlocale FROM pg_database WHERE datname = 'leeway'") == "bC.UTF-8"
    )
    assert ask(server, "SELECT lower('ÄÖ')") == "äö"


def test_only_the_owner_may_make_tables(server: EmbeddedServer) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        ask(server, "CREATE TABLE mine ()")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        ask(server, "CREATE SCHEMA mine")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        ask(server, f"SET ROLE {OWNER_ROLE}")
    execute(server, "CREATE TABLE theirs ()")


def test_directories_and_socket_are_private(server: EmbeddedServer) -> None:
    for path in (server.data_dir, server.cluster, server.socket_dir):
        assert path.stat().st_mode & 0o777 == 0o700
        assert path.stat().st_uid == os.geteuid()
    socket = server.socket_dir / ".s.PGSQL.5432"
    assert socket.stat().st_mode & 0o077 == 0


def test_stop_leaves_nothing_behind_and_a_warm_start_finds_the_data(server: EmbeddedServer) -> None:
    execute(server, "CREATE TABLE kept AS SELECT 42 AS n")
    socket_dir = server.socket_dir
    assert server.stop()
    assert not socket_dir.exists()
    assert orphans(server.cluster) == []
    server.start()
    assert ask(server, "SELECT n FROM kept", role=OWNER_ROLE) == 42


@pytest.mark.parametrize("name", ["a path with spaces", "quotes ' and % and ü", "long" * 50, 'shell $HOME `id` " \\'])
def test_any_path_will_do(tmp_path: Path, name: str) -> None:
    with EmbeddedServer(tmp_path / name / "data", durable=False) as server:
        assert ask(server, "SELECT 1") == 1
        cluster = server.cluster
    assert orphans(cluster) == []


def test_the_last_user_stops_it(server: EmbeddedServer) -> None:
    other = EmbeddedServer(server.data_dir)
    other.start()
    assert other.pid == server.pid
    assert not server.stop()
    assert ask(other, "SELECT 1") == 1
    assert other.stop()
    assert read_postmaster(other.cluster) is None


def test_two_processes_at_once_share_one_server(data_dir: Path) -> None:
    users = [use_in_another_process(data_dir) for _ in range(2)]
    pids = {user.stdout.readline() for user in users if user.stdout}
    assert len(pids) == 1
    say_goodbye(users[0])
    assert read_postmaster(data_dir / "cluster") is not None
    say_goodbye(users[1])
    assert read_postmaster(data_dir / "cluster") is None


def test_a_server_whose_user_was_killed_is_used_again(data_dir: Path) -> None:
    user = use_in_another_process(data_dir)
    assert user.stdout is not None
    pid = int(user.stdout.readline())
    user.kill()
    user.communicate()
    with EmbeddedServer(data_dir, durable=False) as server:
        assert server.pid == pid
    assert read_postmaster(data_dir / "cluster") is None


@pytest.mark.parametrize("moment", ["cluster.new", "server.log"], ids=["creating", "starting"])
def test_ctrl_c_leaves_no_server(data_dir: Path, moment: str) -> None:
    user = use_in_another_process(data_dir)
    wait_for((data_dir / moment).exists)
    user.send_signal(signal.SIGINT)
    user.communicate(timeout=60)
    assert user.returncode != 0
    wait_for(lambda: orphans(data_dir / "cluster") == [] and orphans(data_dir / "cluster.new") == [])
    with EmbeddedServer(data_dir, durable=False) as server:
        assert ask(server, "SELECT 1") == 1


def test_starts_at_once_after_its_postmaster_was_killed(data_dir: Path) -> None:
    with EmbeddedServer(data_dir) as server:
        execute(server, "CREATE TABLE kept AS SELECT 42 AS n")
        killed = server.pid
        os.kill(killed, signal.SIGKILL)
        server.start()
        assert server.pid != killed
        assert ask(server, "SELECT n FROM kept", role=OWNER_ROLE) == 42


def test_starts_while_a_child_of_the_killed_postmaster_still_computes(server: EmbeddedServer) -> None:
    def compute() -> None:
        with pytest.raises(psycopg.OperationalError):
            ask(server, "SELECT count(*) FROM generate_series(1, 1000000000) AS n WHERE sqrt(n) > 5")

    busy = threading.Thread(target=compute)
    busy.start()
    query = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT count(*) FROM generate%'"
    wait_for(lambda: ask(server, query, role=SUPERUSER) == 1)
    os.kill(server.pid, signal.SIGKILL)
    server.start()
    assert ask(server, "SELECT 1") == 1
    busy.join(timeout=30)
    assert not busy.is_alive()


def test_starts_after_everything_was_killed(data_dir: Path) -> None:
    user = use_in_another_process(data_dir)
    assert user.stdout is not None
    user.stdout.readline()
    for pid in [user.pid, *orphans(data_dir / "cluster")]:
        os.kill(pid, signal.SIGKILL)
    user.communicate()
    with EmbeddedServer(data_dir, durable=False) as server:
        assert ask(server, "SELECT 1") == 1


def test_a_stranger_with_the_old_process_id_is_not_taken_for_the_server(server: EmbeddedServer) -> None:
    pid_file = server.cluster / "postmaster.pid"
    lines = pid_file.read_text().splitlines(keepends=True)
    os.kill(server.pid, signal.SIGKILL)
    wait_for(lambda: orphans(server.cluster) == [])
    stranger = subprocess.Popen(["sleep", "60"])
    try:
        pid_file.write_text("".join([f"{stranger.pid}\n", *lines[1:]]))
        (server.socket_dir / ".s.PGSQL.5432.lock").write_text("".join([f"{stranger.pid}\n", *lines[1:]]))
        assert read_postmaster(server.cluster) is None
        server.start()
        assert ask(server, "SELECT 1") == 1
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_socket_that_was_cleaned_away_is_made_anew(server: EmbeddedServer) -> None:
    unreachable = server.pid
    for file in server.socket_dir.iterdir():
        file.unlink()
    server.socket_dir.rmdir()
    with EmbeddedServer(server.data_dir, durable=False) as other:
        assert other.pid != unreachable
        assert ask(other, "SELECT 1") == 1


def test_a_squatted_socket_directory_is_not_used(server: EmbeddedServer, tmp_path: Path) -> None:
    expected = server.socket_dir
    server.stop()
    expected.symlink_to(tmp_path)  # what another user could do in /tmp while the server is down
    try:
        server.start()
        assert server.socket_dir != expected
        assert server.socket_dir.stat().st_mode & 0o777 == 0o700
        assert ask(server, "SELECT 1") == 1
    finally:
        expected.unlink()


def test_a_creation_that_was_killed_half_way_is_begun_again(data_dir: Path) -> None:
    (data_dir / "cluster.new" / "base").mkdir(parents=True)
    data_dir.chmod(0o700)
    with EmbeddedServer(data_dir, durable=False) as server:
        assert ask(server, "SELECT 1") == 1


def test_an_interrupted_pid_file_means_that_it_is_starting(server: EmbeddedServer) -> None:
    pid_file = server.cluster / "postmaster.pid"
    whole = pid_file.read_text()
    pid_file.write_text(whole.splitlines()[0] + "\n")
    assert read_postmaster(server.cluster) == Postmaster(server.pid, 0, server.cluster, "starting")
    pid_file.write_text(whole)


def test_explicit_stop_stops_it_for_everybody(server: EmbeddedServer) -> None:
    assert EmbeddedServer(server.data_dir).stop(even_if_used=True)
    assert read_postmaster(server.cluster) is None
    server.start()


def test_url_before_the_start_is_refused(data_dir: Path) -> None:
    with pytest.raises(SetupError, match="has not been started"):
        EmbeddedServer(data_dir).url(APPLICATION_ROLE)


def test_sqlalchemy_reads_its_url(server: EmbeddedServer) -> None:
    engine = sa.create_engine(server.url(APPLICATION_ROLE))
    with engine.connect() as connection:
        assert connection.scalar(sa.text("SELECT current_user")) == APPLICATION_ROLE
    engine.dispose()
