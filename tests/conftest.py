"""What every test may use: PostgreSQL as the migrations build it, and no network but loopback.

One server for the whole run, whether one process or several (pytest-xdist); each process has its own database, a copy
of one that was migrated once. The last process stops the server and deletes it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_socket
import sqlalchemy as sa
from sqlalchemy import Engine, NullPool
from sqlalchemy.orm import Session, sessionmaker

import broker.database
from broker import schema
from broker.database import Database
from broker.embedded import APPLICATION_ROLE, OWNER_ROLE, SUPERUSER, EmbeddedServer
from broker.embedded_files import FileLock

_TEMPLATE = "leeway_template"

# Rows come and go quickest without triggers and foreign keys, so a superuser does it; the tables are small.
# What the migrations themselves put in (kept in the schema "seed") comes back.
_KEEP_SEED = """
DO $$
DECLARE
    item record;
    is_filled boolean;
BEGIN
    CREATE SCHEMA seed;
    FOR item IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'alembic_version' LOOP
        EXECUTE format('SELECT EXISTS (SELECT FROM public.%I)', item.tablename) INTO is_filled;
        IF is_filled THEN
            EXECUTE format('CREATE TABLE seed.%I AS TABLE public.%I', item.tablename, item.tablename);
        END IF;
    END LOOP;
END
$$
"""
_CLEAN = """
DO $$
DECLARE
    item record;
    is_filled boolean;
BEGIN
    SET LOCAL session_replication_role = replica;
    SET LOCAL lock_timeout = '5s';  -- a test that left a transaction open is to fail, not to hang
    FOR item IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'alembic_version' LOOP
        EXECUTE format('SELECT EXISTS (SELECT FROM public.%I)', item.tablename) INTO is_filled;
        IF is_filled THEN
            EXECUTE format('DELETE FROM public.%I', item.tablename);
        END IF;
        IF to_regclass(format('seed.%I', item.tablename)) IS NOT NULL THEN
            EXECUTE format('INSERT INTO public.%I OVERRIDING SYSTEM VALUE TABLE seed.%I', item.tablename,
                           item.tablename);
        END IF;
    END LOOP;
END
$$
"""


@dataclass(frozen=True)
class PostgresForTests:
    """The server of this run. `admin` is its superuser, in autocommit."""

    server: EmbeddedServer
    admin: Engine

    def create(self, name: str, *, template: str = "template0") -> Database:
        """A new database, of the owner's."""
        with self.admin.connect() as connection:
            connection.exec_driver_sql(f'CREATE DATABASE "{name}" OWNER {OWNER_ROLE} TEMPLATE "{template}"')
        return self.named(name)

    def drop(self, name: str) -> None:
        """Delete it, whoever is connected."""
        with self.admin.connect() as connection:
            connection.exec_driver_sql(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def named(self, name: str) -> Database:
        """Its addresses."""
        return Database(
            self.server.url(APPLICATION_ROLE, database=name),
            self.server.url(OWNER_ROLE, database=name),
            is_embedded=True,
        )

    def let_in(self, role: str, *, database: str) -> str:
        """The address of one more role. It is let in from now on."""
        for name, line in (
            ("pg_hba.conf", f'local all "{role}" peer map=leeway\n'),
            ("pg_ident.conf", f'leeway /^.*$ "{role}"\n'),
        ):
            file = self.server.cluster / name
            if line not in file.read_text():
                file.write_text(file.read_text() + line)
        self.reload()
        with self.admin.connect() as connection:
            connection.exec_driver_sql(f'GRANT CONNECT ON DATABASE "{database}" TO "{role}"')
        return self.server.url(role, database=database)

    def reload(self) -> None:
        """Have the server read its files again, and wait until it has."""
        with self.admin.connect() as connection:
            before = connection.scalar(sa.text("SELECT pg_conf_load_time()"))
            connection.exec_driver_sql("SELECT pg_reload_conf()")
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with self.admin.connect() as connection:  # each process has its own time; a new one has the postmaster's
                if connection.scalar(sa.text("SELECT pg_conf_load_time()")) != before:
                    return
            time.sleep(0.02)
        raise TimeoutError("PostgreSQL did not read its configuration again")

    def superuser(self, name: str) -> Engine:
        """An engine of the superuser on one database, in autocommit."""
        url = self.server.url(SUPERUSER, database=name)
        plain = {"no_parameters": True}  # the % of format() is no placeholder
        return sa.create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT", execution_options=plain)


def pytest_runtest_setup() -> None:
    """Whoever reaches for the network by mistake gets an error, not a slow test."""
    pytest_socket.socket_allow_hosts(["127.0.0.1", "::1", "localhost"], allow_unix_socket=True)
    # Python's readline sets them where something imports it, and then piped output would be as narrow as a terminal.
    for name in ("COLUMNS", "LINES"):
        os.environ.pop(name, None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs the server, so that `-m "not postgres"` leaves it out."""
    for item in items:
        if "postgres" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.postgres)


def pytest_configure() -> None:
    """What starts the tests in its background may have SIGINT ignored, and the programs they start would inherit it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Leave nothing: not after Ctrl-C, nor when a process of pytest-xdist died without a word."""
    factory = getattr(config, "_tmp_path_factory", None)
    if factory is None or hasattr(config, "workerinput"):
        return
    data_dir = _data_dir(factory.getbasetemp())
    if data_dir.exists():
        EmbeddedServer(data_dir, durable=False).stop(even_if_used=True)
        with contextlib.suppress(FileNotFoundError):  # pytest may be clearing its old directories at the same time
            shutil.rmtree(data_dir)


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Iterator[PostgresForTests]:
    """The server that all processes of this run share."""
    base = tmp_path_factory.getbasetemp()
    with EmbeddedServer(_data_dir(base if worker_id == "master" else base.parent), durable=False) as server:
        url = server.url(SUPERUSER, database="postgres")
        yield PostgresForTests(server, sa.create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT"))


@pytest.fixture(scope="session")
def database(postgres: PostgresForTests, worker_id: str) -> Iterator[Database]:
    """This process's database, migrated."""
    name = f"leeway_{worker_id}"
    with _one_at_a_time(postgres.server.data_dir / "template.lock"):
        with postgres.admin.connect() as connection:
            found = connection.scalar(sa.text("SELECT 1 FROM pg_database WHERE datname = :name"), {"name": _TEMPLATE})
        if found is None:
            postgres.drop(f"{_TEMPLATE}_draft")  # of a process whose migrations failed: ours shall tell why
            draft = postgres.create(f"{_TEMPLATE}_draft")
            schema.upgrade(draft)
            with postgres.superuser(f"{_TEMPLATE}_draft").connect() as connection:
                connection.exec_driver_sql(_KEEP_SEED)
            with postgres.admin.connect() as connection:
                connection.exec_driver_sql(f"ALTER DATABASE {_TEMPLATE}_draft RENAME TO {_TEMPLATE}")
        postgres.drop(name)
        made = postgres.create(name, template=_TEMPLATE)
    yield made
    postgres.drop(name)


@pytest.fixture(scope="session")
def database_engine(database: Database) -> Iterator[Engine]:
    """The application's engine, as the program uses it."""
    made = broker.database.engine(database.application_url, application_name="leeway tests")
    yield made
    made.dispose()


@pytest.fixture
def sessions(
    postgres: PostgresForTests, database: Database, database_engine: Engine
) -> Iterator[sessionmaker[Session]]:
    """For tests that commit, from as many connections as they like. Afterwards the database is as it was."""
    yield broker.database.sessions(database_engine)
    name = sa.make_url(database.application_url).database
    assert name is not None
    with postgres.superuser(name).connect() as connection:
        connection.exec_driver_sql(_CLEAN)


@pytest.fixture
def session(database_engine: Engine) -> Iterator[Session]:
    """One session in a transaction that is rolled back: what the test commits, only the test sees. The quicker way."""
    with database_engine.connect() as connection, connection.begin() as transaction:
        with Session(connection, expire_on_commit=False, join_transaction_mode="create_savepoint") as made:
            yield made
        transaction.rollback()


def _data_dir(base: Path) -> Path:
    return base / "postgresql"


@contextlib.contextmanager
def _one_at_a_time(path: Path) -> Iterator[None]:
    lock = FileLock(path)
    lock.exclusive()
    try:
        yield
    finally:
        lock.release()
