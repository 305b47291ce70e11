"""Backups: made while Leeway runs, loaded as one transaction, and tried out before they are needed.

A backup is one file in pg_dump's custom format, so that PostgreSQL's own programs read it as well. What Leeway needs to
know of it (whose it is, at which revision) stands in its own tables `installations` and `alembic_version`.

After a restore Leeway only observes (`broker.restored`): the database is older than the clouds.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final
from uuid import UUID

from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, func, select, text
from sqlalchemy.orm import Session

from broker import schema
from broker.database import Database, single_use_engine
from broker.embedded import APPLICATION_ROLE, OWNER_ROLE, EmbeddedServer
from broker.errors import Conflict, InvalidInput, SetupError
from broker.models import Base
from broker.models.audit import Event
from broker.models.federation import Installation
from broker.postgres_programs import Place, own_programs, programs_for, server_version
from broker.restored import begin_observing

# A connection that was closed is there for a moment yet.
_LEAVING_SECONDS: Final = 2
# Wake-ups only: the rows say again what is due.
_QUEUE: Final = f"--exclude-table-data={schema.QUEUE_PREFIX}*"

_DROP_ALL: Final = """
DO $$
DECLARE
    here CONSTANT oid := current_schema()::regnamespace;
    mine CONSTANT oid := current_user::regrole;
    item record;
BEGIN
    FOR item IN SELECT oid::regclass AS name FROM pg_class
                 WHERE relnamespace = here AND relowner = mine AND relkind IN ('r', 'p') LOOP
        EXECUTE format('DROP TABLE IF EXISTS %s CASCADE', item.name);
    END LOOP;
    FOR item IN SELECT oid::regprocedure AS name FROM pg_proc WHERE pronamespace = here AND proowner = mine LOOP
        EXECUTE format('DROP FUNCTION IF EXISTS %s CASCADE', item.name);
    END LOOP;
    FOR item IN SELECT oid::regtype AS name FROM pg_type
                 WHERE typnamespace = here AND typowner = mine AND typcategory IN ('E', 'C') LOOP
        EXECUTE format('DROP TYPE IF EXISTS %s CASCADE', item.name);
    END LOOP;
END
$$;
"""
# The roles may have other names here than where the backup was made, so that its own grants are not taken.
_GRANT: Final = """
RESET search_path;  -- the script before has emptied it
GRANT USAGE ON SCHEMA {schema} TO {role};
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO {role};
GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA {schema} TO {role};
REVOKE INSERT, UPDATE, DELETE ON {schema}.alembic_version FROM {role};
DO $$
DECLARE
    name regclass;
BEGIN
    FOR name IN SELECT tgrelid FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid
                 WHERE relnamespace = current_schema()::regnamespace AND tgname = relname || '_append_only' LOOP
        EXECUTE format('REVOKE UPDATE, DELETE, TRUNCATE ON %s FROM %I', name, {literal});
    END LOOP;
END
$$;
"""
_OTHER_SCHEMAS: Final = text(
    "SELECT nspname FROM pg_namespace"
    " WHERE nspname !~ '^pg_' AND nspname NOT IN ('information_schema', current_schema())"
)
_OTHERS: Final = text(
    "SELECT coalesce(nullif(application_name, ''), 'without a name') AS name FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid() AND usesysid IS NOT NULL"
)
# What the application could do to rows that must never change.
_LOOSE: Final = text(
    "SELECT relname, tgenabled, has_table_privilege(current_user, tgrelid, 'UPDATE, DELETE, TRUNCATE') AS may_change"
    " FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid"
    " WHERE relnamespace = current_schema()::regnamespace AND tgname = relname || '_append_only'"
    " ORDER BY relname"
)
_CLOSED: Final = text(
    "SELECT relname FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND relkind = 'r'"
    " AND NOT has_table_privilege(current_user, oid, 'SELECT') ORDER BY relname"
)


@dataclass(frozen=True, slots=True)
class Backup:
    """What a file holds. `installation` is None where it was made before the first start."""

    file: Path
    size: int
    made_at: datetime
    revision: str
    installation: UUID | None


@dataclass(frozen=True, slots=True)
class Drill:
    """What came of trying a backup out. `faults` must be empty; `last_event`: what it knows of, None for nothing."""

    backup: Backup
    took: timedelta
    rows: dict[str, int]
    last_event: datetime | None
    faults: list[str]


def make_backup(database: Database, file: Path, *, over: bool = False) -> Backup:
    """Write the database as it is at this moment; others go on working meanwhile.

    A kill or a full disk leaves no file, or the former one.

    Raises:
        InvalidInput: the file is there already (unless `over`), or cannot be written.
        SetupError: the database cannot be read.
    """
    if file.exists() and not over:
        raise InvalidInput("FILE", f"{file} is there already", hint="Choose another name, or --force to write over it.")
    url = database.migration_url or database.application_url
    with schema.inspecting(url) as connection:
        programs = programs_for(server_version(connection))
        if schema.revision_of(connection) is None:
            raise SetupError("The database has no tables yet.", hint="There is nothing to back up.")
        # What else is in the database is not ours to copy. Not `--schema`: that dump would want to make the schema.
        quote = connection.dialect.identifier_preparer.quote_identifier
        others = [f"--exclude-schema={quote(name)}" for name in connection.scalars(_OTHER_SCHEMAS)]
    draft = file.with_name(f".{file.name}.{secrets.token_hex(8)}")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
            place = Place.of(url)
            # By its name: to a pipe or standard output the dump would be one that cannot be read in parts.
            arguments = ["--format=custom", *others, _QUEUE, f"--file={draft}", "-d", place.address]
            _, wrong = programs.run("pg_dump", *arguments, place=place)
            if wrong:
                raise SetupError(f"The database cannot be backed up: {wrong}.", hint="Nothing was written.")
            os.fsync(out.fileno())
        found = read_backup(draft)
        if over:
            draft.replace(file)
        else:
            file.hardlink_to(draft)
    except OSError as error:
        raise InvalidInput(
            "FILE", f"{file} cannot be written: {error.strerror}", hint="Choose another place."
        ) from error
    finally:
        draft.unlink(missing_ok=True)
    return Backup(file, found.size, found.made_at, found.revision, found.installation)


def read_backup(file: Path) -> Backup:
    """What a file holds, without loading it.

    Raises:
        InvalidInput: it cannot be read, or is no backup of Leeway.
    """
    try:
        size = file.stat().st_size
    except OSError as error:
        raise InvalidInput(
            "FILE", f"{file} cannot be read: {error.strerror}", hint="Give the path of a backup."
        ) from None
    programs = own_programs()
    listed, wrong = programs.run("pg_restore", "--list", str(file))
    told, more = programs.run(
        "pg_restore", "--data-only", "--table=installations", "--table=alembic_version", "--file=-", str(file)
    )
    if wrong or more:
        raise InvalidInput("FILE", f"{file} cannot be read as a backup: {wrong or more}", hint="Take another one.")
    rows = _copied(told.decode())
    made = re.search(r"^;\s+Archive created at (\S+ \S+) UTC$", listed.decode(), re.MULTILINE)
    revisions = [row["version_num"] for row in rows.get("alembic_version", [])]
    if made is None or not revisions:
        raise InvalidInput("FILE", f"{file} is no backup of a Leeway", hint="Take one that `leeway db backup` made.")
    ids = [UUID(row["installation_id"]) for row in rows.get("installations", [])]
    made_at = datetime.strptime(made[1], "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC)
    return Backup(file, size, made_at, revisions[0], ids[0] if ids else None)


def _copied(script: str) -> dict[str, list[dict[str, str]]]:
    """The rows of COPY statements, by table; of plain values only, as nothing is unescaped."""
    found: dict[str, list[dict[str, str]]] = {}
    for match in re.finditer(
        r"^COPY (?:\S+\.)?(\w+) \((.*?)\) FROM stdin;\n(.*?)^\\\.$", script, re.MULTILINE | re.DOTALL
    ):
        columns = match[2].split(", ")
        found[match[1]] = [dict(zip(columns, line.split("\t"), strict=True)) for line in match[3].splitlines()]
    return found


def restore(database: Database, file: Path, *, replace: bool = False) -> Backup:
    """Load a backup, in one transaction; older ones are then brought up to date. Leeway only observes afterwards.

    Raises:
        InvalidInput: the backup is damaged, or of a newer Leeway.
        Conflict: others use the database, or it holds tables already (unless `replace`).
        SetupError: the backup cannot be loaded, or the owner's role is not known. Nothing was changed in any case.
    """
    backup = _load(database, file, replace=replace)
    assert database.migration_url is not None, "it has been used"
    _observe(database.migration_url, backup)
    return backup


def _load(database: Database, file: Path, *, replace: bool) -> Backup:
    backup = read_backup(file)
    _require_known(backup)
    with schema.migrating(database) as (connection, role):
        _require_alone(connection)
        if schema.revision_of(connection) is not None and not replace:
            raise Conflict(
                "the database holds tables already",
                hint="Restore into an empty one, or give up all that it holds: --replace.",
            )
        server = server_version(connection)
        quote = connection.dialect.identifier_preparer.quote_identifier
        here = connection.scalars(select(func.current_schema())).one()
        literal = "'" + role.replace("'", "''") + "'"
        connection.commit()
        assert database.migration_url is not None, "`migrating` has seen to it"
        wrong = programs_for(server).load(
            file,
            Place.of(database.migration_url),
            schema=here,
            before=_DROP_ALL if replace else "",
            after=_GRANT.format(schema=quote(here), role=quote(role), literal=literal),
            server=server,
        )
    if wrong:
        raise SetupError(f"The backup cannot be loaded: {wrong}.", hint="Nothing was changed.")
    schema.upgrade(database)
    return backup


def _require_known(backup: Backup) -> None:
    try:
        ScriptDirectory.from_config(schema.configuration()).get_revision(backup.revision)
    except CommandError as error:
        raise InvalidInput(
            "FILE",
            f"it is at revision {backup.revision}, which this Leeway does not know: a newer one made it",
            hint="Restore it with that version of Leeway.",
        ) from error


def _require_alone(connection: Connection) -> None:
    deadline = time.monotonic() + _LEAVING_SECONDS
    while others := connection.scalars(_OTHERS).all():
        connection.rollback()  # within a transaction the answer would stay the same
        if time.monotonic() < deadline:
            time.sleep(0.1)
            continue
        raise Conflict(
            f"the database is in use ({len(others)} connections: {', '.join(sorted(set(others)))})",
            hint="Stop `leeway serve`, every `leeway worker` and whoever else is connected.",
        )


def _observe(url: str, backup: Backup) -> None:
    """The imprint would tell as much; this says when, and from what."""
    with Session(single_use_engine(url, application_name="leeway db")) as session, session.begin():
        if session.get(Installation, True) is not None:
            begin_observing(session, f"the database was restored from a backup of {backup.made_at:%Y-%m-%d %H:%M} UTC")


def faults_of(database: Database) -> list[str]:
    """What is wrong with tables and permissions, a line each."""
    found = schema.check(database.application_url)
    with schema.inspecting(database.application_url) as connection:
        for table, enabled, may_change in connection.execute(_LOOSE):
            if may_change:
                found.append(f"the application may change rows of {table}, which is append-only")
            if enabled != "O":
                found.append(f"the trigger that keeps {table} append-only is switched off")
        found += [f"the application may not read {table}" for table in connection.scalars(_CLOSED)]
    return found


def drill(file: Path, *, prove: Callable[[Session], Sequence[str]]) -> Drill:
    """Restore a backup into a server of its own, look at it, and remove everything.

    `prove` is asked what else is wrong (the books).
    """
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="leeway-drill-")))
        server = stack.enter_context(EmbeddedServer(folder / "postgres", durable=False))
        scratch = Database(server.url(APPLICATION_ROLE), server.url(OWNER_ROLE), is_embedded=True)
        began = time.monotonic()
        backup = _load(scratch, file, replace=False)
        took = timedelta(seconds=time.monotonic() - began)
        # As a migration: to prove the books may take its time.
        bind = single_use_engine(scratch.application_url, application_name="leeway db", is_migration=True)
        with Session(bind) as session:
            faults = [*faults_of(scratch), *prove(session)]
            tables = [table for table in Base.metadata.sorted_tables if not table.name.startswith(schema.QUEUE_PREFIX)]
            rows = {table.name: session.scalars(select(func.count()).select_from(table)).one() for table in tables}
            last = session.scalars(select(func.max(Event.at))).one()
        return Drill(backup, took, rows, last, faults)


def lost_by(database: Database, drilled: Drill) -> dict[str, int] | None:
    """How many rows the living database has of what the backup does not know yet; None where it is another's."""
    url = database.application_url
    with Session(single_use_engine(url, application_name="leeway db")) as session:
        living = session.scalars(select(Installation.installation_id)).one_or_none()
        if living != drilled.backup.installation:
            return None
        counted = {
            name: session.scalars(select(func.count()).select_from(Base.metadata.tables[name])).one()
            for name in ("orders", "leases", "events")
        }
    return {name: max(0, count - drilled.rows[name]) for name, count in counted.items()}
