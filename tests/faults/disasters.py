"""What befalls the database: killed with all its children, its queue emptied, brought back from a dump."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy import NullPool
from sqlalchemy.exc import DBAPIError

from broker.database import libpq_url, single_use_engine
from broker.embedded import APPLICATION_ROLE, DATABASE, OWNER_ROLE, SUPERUSER, EmbeddedServer
from broker.embedded_files import binaries, read_postmaster
from broker.errors import Conflict, SetupError
from broker.resuming import resume
from tests.faults.clouds import Logs
from tests.faults.federation import Federation
from tests.faults.oracle import Blind

_ACTS = frozenset({"created", "deleting", "deleted", "stopped", "shelved"})
_SECONDS = 60.0


def truncate_queue(federation: Federation) -> None:
    """Lose every wake-up."""
    assert federation.database.migration_url is not None
    with single_use_engine(federation.database.migration_url, application_name="crash run").begin() as connection:
        connection.exec_driver_sql("TRUNCATE procrastinate_jobs CASCADE")


def make_roomy(server: EmbeddedServer) -> None:
    """Room for the connections of all the workers that die and are born at one time. Restarts the server."""
    superuser = sa.create_engine(
        server.url(SUPERUSER, database="postgres"), poolclass=NullPool, isolation_level="AUTOCOMMIT"
    )
    with superuser.connect() as connection:
        connection.exec_driver_sql("ALTER SYSTEM SET max_connections = 400")
    server.stop()
    server.start()


def kill_postgres(federation: Federation) -> datetime:
    """Kill -9 the postmaster and each of its children; when that was. Who keeps it running starts it again."""
    postmaster = read_postmaster(federation.server.cluster)
    assert postmaster is not None, "it does not run"
    now = datetime.now(UTC)
    for pid in [postmaster.pid, *_children(postmaster.pid)]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return now


def _children(parent: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):  # it has just ended
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(fields[1]) == parent:
                    found.append(int(entry.name))
    return found


def wait_for_postgres(federation: Federation) -> datetime:
    """When it answers again."""
    deadline = time.monotonic() + _SECONDS
    while True:
        with contextlib.suppress(DBAPIError, SetupError), federation.services.sessions() as session:
            session.execute(sa.text("SELECT 1"))
            return datetime.now(UTC)
        if time.monotonic() > deadline:
            raise RuntimeError("PostgreSQL was not started again")
        time.sleep(0.1)


# --- a dump, and a day later --------------------------------------------------------------------------------------


def dump(federation: Federation, to: Path) -> datetime:
    """Dump the database while everything goes on; when its snapshot was taken, or before."""
    assert federation.database.migration_url is not None
    now = datetime.now(UTC)
    _run("pg_dump", "--format=custom", f"--file={to}", libpq_url(federation.database.migration_url))
    return now


def restore(federation: Federation, source: Path) -> None:
    """Replace the database by the dump. Nobody may be connected who would mind."""
    superuser = sa.create_engine(
        federation.server.url(SUPERUSER, database="postgres"), poolclass=NullPool, isolation_level="AUTOCOMMIT"
    )
    with superuser.connect() as connection:
        for statement in (
            f"DROP DATABASE {DATABASE} WITH (FORCE)",
            f"CREATE DATABASE {DATABASE} OWNER {OWNER_ROLE} TEMPLATE template0",
            f"REVOKE ALL ON DATABASE {DATABASE} FROM PUBLIC",
            f"GRANT CONNECT ON DATABASE {DATABASE} TO {APPLICATION_ROLE}",
        ):
            connection.exec_driver_sql(statement)
    assert federation.database.migration_url is not None
    url = libpq_url(federation.database.migration_url)
    _run("pg_restore", "--exit-on-error", f"--dbname={url}", str(source))


def _run(program: str, *arguments: str) -> None:
    done = subprocess.run(
        [str(binaries() / program), *arguments],
        env={"PATH": os.defpath, "LC_ALL": "C"},
        capture_output=True,
        text=True,
        check=False,
        timeout=_SECONDS,
    )
    if done.returncode:
        raise RuntimeError(f"{program}: {done.stderr.strip()}")


def acts_between(before: Logs, after: Logs) -> list[str]:
    """What somebody did at the clouds between two readings of their logs."""
    found: list[str] = []
    for site, entries in after.items():
        found += [
            f"{entry.at:%H:%M:%S.%f} {site}: {entry.kind} {entry.id} {entry.event}"
            for entry in entries[len(before[site]) :]
            if entry.event in _ACTS
        ]
    return found


def try_to_resume(federation: Federation) -> bool:
    """A person says `leeway resume`; False where a site was not listed late enough."""
    try:
        resume(federation.services.tools, actor="crash run")
    except Conflict:
        return False
    return True


def freeze_blind(start: datetime, end: datetime, point: str, subject: str) -> Blind:
    """Whom a frozen worker kept from looking: who wants the same lease or site, or any row of an open transaction.

    Such a transaction may hold a project's balances or a wake-up that every sweep wants, until PostgreSQL ends it.
    """
    is_open = ":before-" in point or point.startswith(("clock.", "queue."))
    return Blind(start, end, "" if is_open else subject)
