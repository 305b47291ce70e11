"""The way to the database: where it is, its engines and sessions, and what is wrong when it cannot be reached.

Two roles: the owner makes and changes tables (migrations), the application reads and writes rows and owns nothing, so
that what a migration takes from it (say, changing a posting) it cannot give itself back.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import psycopg
import sqlalchemy as sa
from sqlalchemy import URL, Engine, NullPool, QueuePool
from sqlalchemy.orm import Session, sessionmaker

from broker.embedded import APPLICATION_ROLE, OWNER_ROLE, EmbeddedServer
from broker.embedded_watch import kept_running
from broker.errors import SetupError

# DESIGN: nobody waits long for a lock, runs for ever, or sleeps inside a transaction. Milliseconds.
_LIMITS: Final = {
    "lock_timeout": "3000",
    "statement_timeout": "30000",
    "idle_in_transaction_session_timeout": "10000",
    "timezone": "UTC",
}
# A migration gives up on a lock just as fast, but may take its time over rows once it has it.
_MIGRATION_LIMITS: Final = _LIMITS | {"statement_timeout": "0", "idle_in_transaction_session_timeout": "600000"}
_CONNECT_SECONDS: Final = 5


@dataclass(frozen=True)
class _Fault:
    """What the driver says, and what that means. `{role}`, `{database}` are filled in from the address."""

    pattern: str
    reason: str
    hint: str
    is_transient: bool = False  # waiting may help


_FAULTS: Final = (
    _Fault(
        r"password authentication failed|no password supplied",
        "the password for role {role} is wrong or missing, or there is no such role",
        "Correct role and password in the database's URL, or create the role (CREATE ROLE ... LOGIN PASSWORD ...).",
    ),
    _Fault(
        r'role ".*" does not exist',
        "the role {role} does not exist",
        "Create it (CREATE ROLE ... LOGIN), or name another in the database's URL.",
    ),
    _Fault(
        r'database ".*" does not exist',
        "there is no such database",
        "Create it (CREATE DATABASE ... OWNER ...), or correct the database's URL.",
    ),
    _Fault(
        r"no pg_hba.conf entry|(peer|ident|certificate|gssapi).* authentication failed|not permitted to log in",
        "the server does not let the role {role} in from here",
        "Have its pg_hba.conf changed, or correct the database's URL.",
    ),
    _Fault(
        r"permission denied for database",
        "the role {role} may not connect to it",
        "Grant it: GRANT CONNECT ON DATABASE ... TO ...",
    ),
    _Fault(
        r"failed to resolve host|could not translate host name",
        "the host's name is not known",
        "Correct the host in the database's URL.",
        is_transient=True,
    ),
    _Fault(
        r"connection refused|no such file or directory|network is unreachable|no route to host",
        "nothing answers there",
        "Start the server, or correct the database's URL.",
        is_transient=True,
    ),
    _Fault(
        r"timeout",
        "it did not answer in time",
        "Look at the network and the server's load, or correct the database's URL.",
        is_transient=True,
    ),
    _Fault(
        r"starting up|shutting down|not yet accepting|in recovery mode",
        "it is starting or stopping",
        "Wait a moment and try again.",
        is_transient=True,
    ),
    _Fault(
        r"too many clients|remaining connection slots|too many connections",
        "it has no connection left",
        "Raise the server's max_connections, or run fewer processes of Leeway.",
        is_transient=True,
    ),
)
_OTHER_FAULT: Final = _Fault(
    "", "it refused the connection", "Correct the database's URL, or ask whoever runs the server."
)


@dataclass(frozen=True)
class Database:
    """Where the database is, once for each role. The addresses may hold passwords, so they are not in the repr."""

    application_url: str = field(repr=False)
    migration_url: str | None = field(repr=False)
    is_embedded: bool = False


@contextlib.contextmanager
def resolve(application_url: str | None, migration_url: str | None, data_dir: Path) -> Iterator[Database]:
    """The configured server, or else the embedded one, which is there for as long as the context is open.

    Args:
        application_url: LEEWAY_DATABASE_URL, the role that serves.
        migration_url: LEEWAY_MIGRATION_DATABASE_URL, the role that owns the tables; only migrations need it.
        data_dir: where the embedded server keeps its data.

    Raises:
        SetupError: an address cannot be used, or the embedded server cannot run here.
    """
    if application_url is None and migration_url is None:
        with EmbeddedServer(data_dir) as server, kept_running(server):
            yield Database(server.url(APPLICATION_ROLE), server.url(OWNER_ROLE), is_embedded=True)
        return
    if application_url is None:
        raise SetupError(
            "LEEWAY_MIGRATION_DATABASE_URL is set, LEEWAY_DATABASE_URL is not.",
            hint="Set both for your own server, or neither for the embedded one.",
        )
    parse_url(application_url)
    if migration_url is not None:
        parse_url(migration_url, variable="LEEWAY_MIGRATION_DATABASE_URL")
    yield Database(application_url, migration_url)


def parse_url(url: str, *, variable: str = "LEEWAY_DATABASE_URL") -> URL:
    """The address in SQLAlchemy's form, for psycopg. `postgres://` and `postgresql://` are what people write."""
    try:
        parsed = sa.make_url(url)
    except (sa.exc.ArgumentError, ValueError):  # neither text is passed on: it may quote the password
        parsed = None
    if parsed is None or parsed.drivername not in {"postgres", "postgresql", "postgresql+psycopg"}:
        raise SetupError(
            f"{variable} is not the address of a PostgreSQL database.",
            hint="It looks like postgresql://role:password@host:5432/database; in a password @ : / are %40 %3A %2F.",
        )
    return parsed.set(drivername="postgresql+psycopg")


def libpq_url(url: str) -> str:
    """The same address, with the same limits, for who connects without SQLAlchemy (Procrastinate). Holds the password.

    SQLAlchemy writes a space as it is, or as a plus; libpq reads neither.
    """
    parsed = parse_url(url)
    limited = parsed.set(drivername="postgresql").update_query_dict({"options": _options(parsed, _LIMITS)})
    place, _, query = limited.render_as_string(hide_password=False).partition("?")
    return f"{place.replace(' ', '%20')}?{query.replace('+', '%20')}"


def engine(url: str, *, pool_size: int = 10, application_name: str = "leeway") -> Engine:
    """An engine whose connections all carry the limits of this project and speak UTC.

    The pool has at most `pool_size` connections, never more, so that whoever sets `max_connections` can add them up.
    Each is tried before use (one round trip, about 0.1 ms): the embedded server may have been restarted since, an
    external one may have failed over, and a request should not be what finds out. Failing to connect raises
    `SetupError`.
    """
    parsed = parse_url(url)
    return _explaining(
        sa.create_engine(
            parsed,
            connect_args=_arguments(parsed, _LIMITS, application_name),
            poolclass=QueuePool,
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=10,
            pool_pre_ping=True,
        )
    )


def single_use_engine(url: str, *, application_name: str, is_migration: bool = False) -> Engine:
    """An engine that keeps no connection: for commands and migrations (which may take long, but not wait long)."""
    parsed = parse_url(url)
    arguments = _arguments(parsed, _MIGRATION_LIMITS if is_migration else _LIMITS, application_name)
    return _explaining(sa.create_engine(parsed, connect_args=arguments, poolclass=NullPool))


def _arguments(url: URL, limits: Mapping[str, str], application_name: str) -> dict[str, Any]:
    return {
        "options": _options(url, limits),
        "application_name": application_name,
        "connect_timeout": _CONNECT_SECONDS,
        # A server that vanished without a word is noticed after 30 s instead of two hours.
        "keepalives_idle": 15,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 30_000,
    }


def _options(url: URL, limits: Mapping[str, str]) -> str:
    """What the address asks for itself, and then the limits: the last one wins."""
    return " ".join(
        [str(url.query.get("options", "")), *(f"-c {name}={value}" for name, value in limits.items())]
    ).strip()


def _explaining(made: Engine) -> Engine:
    """Let a failure to connect say what is wrong and what to do."""

    def explain(context: sa.engine.ExceptionContext) -> None:
        error = context.original_exception
        is_connecting = context.connection is None and not context.is_pre_ping  # a failed ping leads to a new attempt
        if is_connecting and isinstance(error, psycopg.OperationalError):
            raise _explained(error, made.url) from error

    sa.event.listen(made, "handle_error", explain)
    return made


def sessions(bind: Engine) -> sessionmaker[Session]:
    """Makes sessions whose objects stay readable after the commit."""
    return sessionmaker(bind, expire_on_commit=False)


def database_now(session: Session) -> datetime:
    """The database's clock at this moment, in UTC; the one clock that all replicas share.

    Not `now()`, which stands still at the start of the transaction: after a wait for a lock it lies in the past, and a
    claim or deadline compared with it would seem to live longer than it does.
    """
    moment: datetime = session.execute(sa.select(sa.func.clock_timestamp())).scalar_one()
    return moment.astimezone(UTC)


def wait_until_ready(url: str, *, timeout_seconds: float = 30) -> None:
    """Return once the database answers.

    Raises:
        SetupError: it did not within the time, or waiting cannot help (wrong password, no such role or database).
    """
    deadline = time.monotonic() + timeout_seconds
    probe = single_use_engine(url, application_name="leeway wait")
    while True:
        try:
            probe.connect().close()
        except SetupError as fault:
            if not fault.context["is_transient"] or time.monotonic() > deadline:
                raise
            time.sleep(0.2)
        else:
            return


def _explained(error: psycopg.OperationalError, url: URL) -> SetupError:
    said = " ".join(str(error).split())
    found = next((fault for fault in _FAULTS if re.search(fault.pattern, said, re.IGNORECASE)), _OTHER_FAULT)
    reason = found.reason.format(role=url.username or "of this account")
    host = url.query.get("host", url.host or "its default socket")
    return SetupError(
        f"The database {url.database or ''} at {host} cannot be used: {reason} ({said}).",
        hint=found.hint,
        is_transient=found.is_transient,
    )
