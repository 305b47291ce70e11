"""Engines, sessions and the clock; and the words for a database that cannot be reached."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
import pytest_socket
import sqlalchemy as sa
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import Engine
from sqlalchemy.orm import Session, sessionmaker

from broker.database import (
    Database,
    database_now,
    engine,
    libpq_url,
    parse_url,
    resolve,
    single_use_engine,
    wait_until_ready,
)
from broker.embedded import APPLICATION_ROLE, OWNER_ROLE, SUPERUSER, EmbeddedServer
from broker.embedded_files import read_postmaster
from broker.errors import SetupError
from tests.conftest import PostgresForTests


def show(bind: Engine, setting: str) -> object:
    with bind.connect() as connection:
        return connection.scalar(sa.text(f"SHOW {setting}"))


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("lock_timeout", "3s"),
        ("statement_timeout", "30s"),
        ("idle_in_transaction_session_timeout", "10s"),
        ("TimeZone", "UTC"),
        ("application_name", "leeway tests"),
    ],
)
def test_every_connection_carries_the_limits(database_engine: Engine, setting: str, value: str) -> None:
    assert show(database_engine, setting) == value


def test_limits_hold_against_the_address_and_leave_its_other_options(database: Database) -> None:
    url = parse_url(database.application_url).update_query_dict(
        {"options": "-c work_mem=5MB -c statement_timeout=0 -c TimeZone=Asia/Tokyo"}
    )
    bind = engine(url.render_as_string(), application_name="leeway other")
    assert [show(bind, name) for name in ("work_mem", "statement_timeout", "TimeZone")] == ["5MB", "30s", "UTC"]
    bind.dispose()


def test_connections_without_sqlalchemy_carry_them_too(database: Database) -> None:
    with psycopg.connect(libpq_url(database.application_url)) as connection:
        for name, value in (("lock_timeout", "3s"), ("statement_timeout", "30s"), ("TimeZone", "UTC")):
            assert connection.execute(f"SHOW {name}".encode()).fetchone() == (value,)


def test_migrations_may_take_long_but_not_wait_long(database: Database) -> None:
    assert database.migration_url is not None
    bind = single_use_engine(database.migration_url, application_name="leeway migration", is_migration=True)
    assert [show(bind, name) for name in ("lock_timeout", "statement_timeout")] == ["3s", "0"]


def test_a_lock_is_waited_for_three_seconds(sessions: sessionmaker[Session]) -> None:
    lock = sa.select(sa.func.pg_advisory_xact_lock(4711))
    with sessions.begin() as holder, sessions() as waiter:
        holder.execute(lock)
        began = time.monotonic()
        with pytest.raises(sa.exc.OperationalError) as caught:
            waiter.execute(lock)
        assert isinstance(caught.value.orig, psycopg.errors.LockNotAvailable)
        assert 2.5 < time.monotonic() - began < 10


def test_a_broken_connection_is_replaced_before_use(postgres: PostgresForTests, database: Database) -> None:
    bind = engine(database.application_url, pool_size=1)
    with bind.connect() as connection:
        pid = connection.scalar(sa.text("SELECT pg_backend_pid()"))
    with postgres.admin.connect() as connection:
        connection.execute(sa.text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})
    with bind.connect() as connection:
        assert connection.scalar(sa.text("SELECT pg_backend_pid()")) != pid
    bind.dispose()


def test_the_pool_never_grows_beyond_its_size(database: Database) -> None:
    bind = engine(database.application_url, pool_size=1)
    bind.pool._timeout = 0.1  # type: ignore[attr-defined] # ten seconds would be a slow test
    with bind.connect(), pytest.raises(sa.exc.TimeoutError):
        bind.connect()
    bind.dispose()


def test_the_clock_moves_on_within_a_transaction(session: Session) -> None:
    first = database_now(session)
    session.execute(sa.select(sa.func.pg_sleep(0.01)))
    second = database_now(session)
    assert first.tzinfo is UTC
    assert second - first >= timedelta(milliseconds=10)
    assert abs(second - datetime.now(UTC)) < timedelta(seconds=5)


def test_objects_stay_readable_after_the_commit(sessions: sessionmaker[Session]) -> None:
    assert sessions.kw["expire_on_commit"] is False


# --- what is said when it cannot be reached


def fault(url: str) -> SetupError:
    with pytest.raises(SetupError) as caught:
        engine(url).connect()
    assert caught.value.hint
    return caught.value


@contextlib.contextmanager
def letting_in_by_password(postgres: PostgresForTests) -> Iterator[sa.URL]:
    """For a moment the shared server also takes passwords, as an external one would: role guarded, right-secret."""
    file = postgres.server.cluster / "pg_hba.conf"
    before = file.read_text()
    file.write_text(f"local all guarded scram-sha-256\n{before}")
    with postgres.admin.connect() as connection:
        connection.exec_driver_sql("CREATE ROLE guarded LOGIN PASSWORD 'right-secret'")
    postgres.reload()
    try:
        yield sa.make_url(postgres.server.url("guarded", database="postgres")).set(password="right-secret")
    finally:
        file.write_text(before)
        with postgres.admin.connect() as connection:
            connection.exec_driver_sql("DROP ROLE guarded")
        postgres.reload()


def test_missing_role(server: EmbeddedServer) -> None:
    bind = single_use_engine(server.url(SUPERUSER), application_name="tests")
    with bind.begin() as connection:
        connection.exec_driver_sql(f"ALTER ROLE {APPLICATION_ROLE} RENAME TO somebody_else")
    found = fault(server.url(APPLICATION_ROLE))
    assert f"the role {APPLICATION_ROLE} does not exist" in str(found)
    assert not found.context["is_transient"]


def test_wrong_and_missing_password(postgres: PostgresForTests) -> None:
    with letting_in_by_password(postgres) as url:
        found = fault(url.set(password="wrong-secret").render_as_string(hide_password=False))
        assert "the password for role guarded is wrong or missing" in str(found)
        assert "wrong-secret" not in str(found)
        assert "is wrong or missing" in str(fault(url.set(password=None).render_as_string()))
        bind = engine(url.render_as_string(hide_password=False))
        assert show(bind, "lock_timeout") == "3s"
        bind.dispose()


def test_missing_database(postgres: PostgresForTests) -> None:
    assert "there is no such database" in str(fault(postgres.server.url(OWNER_ROLE, database="none_such")))


def test_a_role_that_the_server_does_not_let_in(postgres: PostgresForTests) -> None:
    with postgres.admin.connect() as connection:
        connection.exec_driver_sql("CREATE ROLE outsider LOGIN")
    assert "does not let the role outsider in" in str(fault(postgres.server.url("outsider", database="postgres")))
    with postgres.admin.connect() as connection:
        connection.exec_driver_sql("DROP ROLE outsider")


def test_a_database_that_the_role_may_not_use(server: EmbeddedServer) -> None:
    bind = single_use_engine(server.url(SUPERUSER), application_name="tests")
    with bind.begin() as connection:
        connection.exec_driver_sql(f"REVOKE CONNECT ON DATABASE leeway FROM {APPLICATION_ROLE}")
    assert "may not connect to it" in str(fault(server.url(APPLICATION_ROLE)))


@pytest.mark.parametrize(
    "address", ["postgresql://leeway_app@/leeway?host=/nonexistent", "postgresql://leeway_app@127.0.0.1:1/leeway"]
)
def test_nothing_there(address: str) -> None:
    found = fault(address)
    assert "nothing answers there" in str(found)
    assert found.context["is_transient"]


def test_a_host_that_never_answers() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        began = time.monotonic()
        found = fault(f"postgresql://leeway_app@127.0.0.1:{silent.getsockname()[1]}/leeway")
    assert "did not answer in time" in str(found)
    assert time.monotonic() - began < 15


def test_waiting_ends_when_the_server_is_there(data_dir: Path) -> None:
    with EmbeddedServer(data_dir, durable=False) as server:
        url = server.url(APPLICATION_ROLE)
    later = threading.Timer(0.5, server.start)
    later.start()
    wait_until_ready(url, timeout_seconds=30)
    later.join()
    server.stop()


def test_waiting_ends_at_once_where_it_cannot_help(postgres: PostgresForTests) -> None:
    began = time.monotonic()
    with pytest.raises(SetupError, match="no such database"):
        wait_until_ready(postgres.server.url(OWNER_ROLE, database="none_such"), timeout_seconds=30)
    assert time.monotonic() - began < 5


def test_waiting_gives_up_in_time() -> None:
    with pytest.raises(SetupError, match="nothing answers"):
        wait_until_ready("postgresql://x@127.0.0.1:1/x", timeout_seconds=0.3)


# --- addresses


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_addresses_as_people_write_them(scheme: str) -> None:
    url = f"{scheme}://a%20role:p%40s s@db.example.org:5433/leeway?sslmode=require"
    assert parse_url(url).drivername == "postgresql+psycopg"
    expected = {"user": "a role", "password": "p@s s", "host": "db.example.org", "port": "5433", "dbname": "leeway"}
    assert conninfo_to_dict(libpq_url(url)).items() >= (expected | {"sslmode": "require"}).items()


@pytest.mark.parametrize("url", ["", "secret", "mysql://r:secret@h/d", "sqlite:///secret", "postgres://r:secret@h:x/d"])
def test_other_addresses_are_refused_without_repeating_them(url: str) -> None:
    with pytest.raises(SetupError, match="LEEWAY_DATABASE_URL is not the address") as caught:
        parse_url(url)
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_the_configured_server_is_taken(tmp_path: Path) -> None:
    with resolve("postgresql://a:secret@h/d", "postgresql://o:secret@h/d", tmp_path / "data") as database:
        assert database == Database("postgresql://a:secret@h/d", "postgresql://o:secret@h/d")
        assert not database.is_embedded
        assert "secret" not in repr(database)
    assert not (tmp_path / "data").exists()


def test_without_one_the_embedded_server_is_there_for_as_long_as_it_is_needed(data_dir: Path) -> None:
    with resolve(None, None, data_dir) as database:
        assert database.is_embedded
        wait_until_ready(database.application_url, timeout_seconds=0)
    with pytest.raises(SetupError, match="nothing answers"):
        wait_until_ready(database.application_url, timeout_seconds=0)


def test_the_embedded_server_is_started_again_where_it_was_killed(data_dir: Path) -> None:
    cluster = data_dir / "cluster"
    with resolve(None, None, data_dir) as database:
        killed = read_postmaster(cluster)
        assert killed is not None
        os.kill(killed.pid, signal.SIGKILL)
        deadline = time.monotonic() + 60
        while (again := read_postmaster(cluster)) is None or again.pid == killed.pid or again.status != "ready":
            assert time.monotonic() < deadline, "nobody started it again"
            time.sleep(0.05)
        wait_until_ready(database.application_url, timeout_seconds=10)
    assert read_postmaster(cluster) is None, "what was started again is stopped as well"


def test_no_new_server_is_made_where_its_directory_was_deleted(data_dir: Path) -> None:
    with resolve(None, None, data_dir):
        running = read_postmaster(data_dir / "cluster")
        assert running is not None
        os.kill(running.pid, signal.SIGKILL)
        shutil.rmtree(data_dir, ignore_errors=True)
        time.sleep(2.5)  # the watch looks every second
        assert not (data_dir / "cluster").exists()


def test_half_a_configuration_is_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(SetupError, match="LEEWAY_DATABASE_URL is not"),
        resolve(None, "postgresql://o@h/d", tmp_path / "data"),
    ):
        pass
    with (
        pytest.raises(SetupError, match=re.escape("LEEWAY_MIGRATION_DATABASE_URL is not the address")),
        resolve("postgresql://o@h/d", "mysql://x", tmp_path / "data"),
    ):
        pass


# --- the fixtures that all tests rest on


def add_person(bind: Session, name: str) -> None:
    bind.execute(sa.text("INSERT INTO persons (id, name) VALUES (gen_random_uuid(), :name)"), {"name": name})
    bind.commit()


def count_persons(bind: Session) -> int:
    return int(bind.scalar(sa.text("SELECT count(*) FROM persons")) or 0)


@pytest.mark.parametrize("turn", [1, 2])
def test_what_sessions_commit_is_gone_in_the_next_test(sessions: sessionmaker[Session], turn: int) -> None:
    with sessions() as one, sessions() as other:
        add_person(one, f"person {turn}")
        assert count_persons(other) == 1


@pytest.mark.parametrize("turn", [1, 2])
def test_what_a_session_commits_only_it_sees(session: Session, database_engine: Engine, turn: int) -> None:
    add_person(session, f"person {turn}")
    assert count_persons(session) == 1
    with Session(database_engine) as other:
        assert count_persons(other) == 0


@pytest.mark.filterwarnings("ignore:A test tried to use")
def test_the_network_is_closed() -> None:
    with socket.socket() as client, pytest.raises(pytest_socket.SocketConnectBlockedError):
        client.connect(("192.0.2.1", 80))
