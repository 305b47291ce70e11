"""Backups: one file, loaded whole or not at all, with the permissions that the migrations gave."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from broker import schema
from broker.backups import drill, faults_of, lost_by, make_backup, read_backup, restore
from broker.database import Database, libpq_url, single_use_engine
from broker.errors import Conflict, InvalidInput, SetupError
from broker.models.federation import Installation, Institution
from broker.postgres_programs import Place, own_programs, programs_for
from broker.restored import acts, first_imprint, look
from tests.conftest import PostgresForTests

INSTALLATION = UUID("01920000-0000-7000-8000-000000000001")


@pytest.fixture
def filled(empty_database: Database) -> Database:
    """A database with a row that PostgreSQL's text formats make life hard for."""
    schema.upgrade(empty_database)
    with session_of(empty_database) as session, session.begin():
        session.add(Installation(only_one=True, installation_id=INSTALLATION, made_at=datetime.now(UTC)))
        session.add(Institution(name="home", title="Tab\tand \\. and\nnewline", jurisdiction="EE"))
        session.flush()
        first_imprint(session)
    return empty_database


@pytest.fixture
def other(postgres: PostgresForTests) -> Iterator[Database]:
    """Another empty database on the same server."""
    name = f"scratch_{uuid4().hex}"
    yield postgres.create(name)
    postgres.drop(name)


def session_of(database: Database) -> Session:
    return Session(single_use_engine(database.application_url, application_name="tests"))


def titles(database: Database) -> list[str]:
    with session_of(database) as session:
        return list(session.scalars(sa.select(Institution.title)))


def permissions(database: Database) -> set[tuple[str, ...]]:
    """Every access list and trigger there is."""
    query = (
        "SELECT 'relation', relname, relacl::text, relowner::regrole::text FROM pg_class"
        " WHERE relnamespace = 'public'::regnamespace"
        " UNION ALL SELECT 'function', proname, proacl::text, proowner::regrole::text FROM pg_proc"
        " WHERE pronamespace = 'public'::regnamespace"
        " UNION ALL SELECT 'default', defaclobjtype::text, defaclacl::text, '' FROM pg_default_acl"
        " UNION ALL SELECT 'trigger', tgrelid::regclass::text, tgname, tgenabled::text FROM pg_trigger"
        " WHERE NOT tgisinternal"
    )
    with psycopg.connect(libpq_url(database.application_url)) as connection:
        return {tuple(map(str, row)) for row in connection.execute(query.encode())}


def test_a_backup_is_one_closed_file_that_says_what_it_holds(filled: Database, tmp_path: Path) -> None:
    file = tmp_path / "a backup.dump"
    before = datetime.now(UTC) - timedelta(seconds=2)
    made = make_backup(filled, file)
    assert made == read_backup(file)
    assert (made.installation, made.revision) == (INSTALLATION, schema.head_revision())
    assert before <= made.made_at <= datetime.now(UTC)
    assert file.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [file], "nothing else is left"


def test_a_file_that_is_there_is_kept(filled: Database, tmp_path: Path) -> None:
    file = tmp_path / "kept"
    file.write_text("mine")
    with pytest.raises(InvalidInput, match="is there already"):
        make_backup(filled, file)
    assert file.read_text() == "mine"
    make_backup(filled, file, over=True)
    assert read_backup(file).installation == INSTALLATION


def test_a_place_that_cannot_be_written_is_told(filled: Database, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="cannot be written: No such file"):
        make_backup(filled, tmp_path / "nowhere" / "file")


def test_nothing_is_no_backup(empty_database: Database, tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="no tables yet"):
        make_backup(empty_database, tmp_path / "file")
    for content in (b"", b"hello", b"PGDMP" + bytes(200)):
        (tmp_path / "odd").write_bytes(content)
        with pytest.raises(InvalidInput, match="cannot be read as a backup"):
            read_backup(tmp_path / "odd")
    with pytest.raises(InvalidInput, match="cannot be read: No such file"):
        read_backup(tmp_path / "nothing")


def test_a_dump_of_something_else_is_no_backup(empty_database: Database, other: Database, tmp_path: Path) -> None:
    with psycopg.connect(libpq_url(str(other.migration_url)), autocommit=True) as connection:
        connection.execute("CREATE TABLE letters (letter text)")
    place = Place.of(str(other.migration_url))
    arguments = ["--format=custom", f"--file={tmp_path / 'letters'}", "-d", place.address]
    assert own_programs().run("pg_dump", *arguments, place=place) == (b"", "")
    with pytest.raises(InvalidInput, match="is no backup of a Leeway"):
        restore(empty_database, tmp_path / "letters")


def test_what_is_restored_is_what_was_there_and_only_observes(
    filled: Database, other: Database, tmp_path: Path
) -> None:
    make_backup(filled, tmp_path / "file")
    wanted = permissions(filled)
    restore(other, tmp_path / "file")
    assert titles(other) == titles(filled)
    assert permissions(other) == wanted
    assert faults_of(other) == []
    with session_of(other) as session:
        found = look(session)
        assert found is not None
        assert found.installation == INSTALLATION
        assert "restored from a backup of 20" in str(found.reason)
        assert not session.scalars(sa.select(acts())).one()
    with session_of(filled) as session:
        assert session.scalars(sa.select(acts())).one(), "the living one goes on"


def test_append_only_is_append_only_after_a_restore(filled: Database, other: Database, tmp_path: Path) -> None:
    make_backup(filled, tmp_path / "file")
    restore(other, tmp_path / "file")
    for url, said in ((other.application_url, "permission denied"), (other.migration_url, "append-only")):
        with psycopg.connect(libpq_url(str(url))) as connection, pytest.raises(psycopg.Error, match=said):
            connection.execute("DELETE FROM events")


def test_tables_are_given_up_only_when_asked(filled: Database, tmp_path: Path) -> None:
    make_backup(filled, tmp_path / "file")
    with session_of(filled) as session, session.begin():
        session.add(Institution(name="later", title="Later", jurisdiction="EE"))
    with pytest.raises(Conflict, match="holds tables already"):
        restore(filled, tmp_path / "file")
    assert "Later" in titles(filled)
    wanted = permissions(filled)
    restore(filled, tmp_path / "file", replace=True)
    assert titles(filled) == ["Tab\tand \\. and\nnewline"]
    assert permissions(filled) == wanted
    assert faults_of(filled) == []


def test_what_is_not_ours_in_the_database_is_left_alone(filled: Database, tmp_path: Path) -> None:
    with psycopg.connect(libpq_url(str(filled.migration_url)), autocommit=True) as connection:
        connection.execute("CREATE SCHEMA others")
        connection.execute("CREATE TABLE others.letters AS SELECT 'a' AS letter")
        make_backup(filled, tmp_path / "file")
        connection.execute("INSERT INTO others.letters VALUES ('b')")
    restore(filled, tmp_path / "file", replace=True)
    with psycopg.connect(libpq_url(str(filled.migration_url))) as connection:
        assert connection.execute("SELECT count(*) FROM others.letters").fetchone() == (2,)
    assert faults_of(filled) == []


@pytest.mark.parametrize("damage", [b"", bytes(4000)])
def test_a_damaged_backup_changes_nothing(filled: Database, tmp_path: Path, damage: bytes) -> None:
    """A script is committed where it ends: psql must not take the end of what could be read for that."""
    with session_of(filled) as session, session.begin():
        for n in range(1500):
            session.add(Institution(name=f"i{n}", title=os.urandom(90).hex(), jurisdiction="EE"))
    make_backup(filled, tmp_path / "file")
    content = (tmp_path / "file").read_bytes()
    place = len(content) * 3 // 4
    (tmp_path / "damaged").write_bytes(content[:place] + damage + (content[place + len(damage) :] if damage else b""))
    before = titles(filled)
    with pytest.raises((SetupError, InvalidInput), match=r"cannot be loaded|cannot be read"):
        restore(filled, tmp_path / "damaged", replace=True)
    assert titles(filled) == before
    assert faults_of(filled) == []


def test_a_database_in_use_is_left_alone(filled: Database, tmp_path: Path) -> None:
    make_backup(filled, tmp_path / "file")
    with (
        psycopg.connect(libpq_url(filled.application_url), application_name="leeway serve"),
        pytest.raises(Conflict, match=r"is in use \(1 connections: leeway serve\)"),
    ):
        restore(filled, tmp_path / "file", replace=True)


def test_a_backup_of_a_newer_leeway_is_refused(filled: Database, other: Database, tmp_path: Path) -> None:
    with psycopg.connect(libpq_url(str(filled.migration_url)), autocommit=True) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    make_backup(filled, tmp_path / "file")
    with pytest.raises(InvalidInput, match="revision 9999, which this Leeway does not know"):
        restore(other, tmp_path / "file")


def test_a_backup_of_an_older_leeway_is_brought_up_to_date_and_only_observes(
    empty_database: Database, other: Database, tmp_path: Path
) -> None:
    """The migration takes what it finds for the living database: the restore knows better."""
    schema.upgrade(empty_database, "0001")
    with psycopg.connect(libpq_url(empty_database.application_url), autocommit=True) as connection:
        connection.execute("INSERT INTO installations VALUES (true, %s, now())", (INSTALLATION,))
    make_backup(empty_database, tmp_path / "file")
    restore(other, tmp_path / "file")
    assert faults_of(other) == []
    with session_of(other) as session:
        assert not session.scalars(sa.select(acts())).one()


def test_pg_restore_by_hand_is_noticed_too(filled: Database, other: Database, tmp_path: Path) -> None:
    make_backup(filled, tmp_path / "file")
    place = Place.of(str(other.migration_url))
    folder = own_programs().folder
    subprocess.run(
        [str(folder / "pg_restore"), "--exit-on-error", "-d", place.address, str(tmp_path / "file")],
        env=place.environment,
        check=True,
    )
    with session_of(other) as session:
        assert not session.scalars(sa.select(acts())).one()


def test_rows_loaded_back_into_the_same_tables_are_noticed_too(filled: Database, tmp_path: Path) -> None:
    """`pg_restore --data-only`: same server, same database, same table."""
    make_backup(filled, tmp_path / "file")
    with psycopg.connect(libpq_url(str(filled.migration_url)), autocommit=True) as connection:
        connection.execute("TRUNCATE installations")
    place = Place.of(str(filled.migration_url))
    arguments = ["--data-only", "--table=installations", "-d", place.address, str(tmp_path / "file")]
    subprocess.run([str(own_programs().folder / "pg_restore"), *arguments], env=place.environment, check=True)
    with session_of(filled) as session:
        assert not session.scalars(sa.select(acts())).one()


def test_a_copy_of_the_database_is_noticed_too(postgres: PostgresForTests, filled: Database) -> None:
    name = sa.make_url(filled.application_url).database
    assert name is not None
    copy = postgres.create(f"{name}_copy", template=name)
    try:
        with session_of(copy) as session:
            assert not session.scalars(sa.select(acts())).one()
    finally:
        postgres.drop(f"{name}_copy")


def test_a_drill_says_what_a_restore_would_bring_and_leaves_nothing(
    filled: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_backup(filled, tmp_path / "file")
    with session_of(filled) as session, session.begin():
        session.execute(
            sa.text(
                "INSERT INTO events (id, at, kind, text, actor, data)"
                " VALUES (gen_random_uuid(), now(), 'later', '', 'tests', '{}')"
            )
        )
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir(mode=0o700)
    done = drill(tmp_path / "file", prove=lambda session: [str(session.scalar(sa.text("SELECT 'proven'")))])
    assert done.faults == ["proven"]
    assert done.rows["institutions"] == 1
    assert done.took > timedelta(0)
    assert list((tmp_path / "scratch").iterdir()) == []
    assert lost_by(filled, done) == {"orders": 0, "leases": 0, "events": 1}
    stranger = replace(done, backup=replace(done.backup, installation=uuid4()))
    assert lost_by(filled, stranger) is None


def test_faults_of_permissions_are_told(filled: Database) -> None:
    with psycopg.connect(libpq_url(str(filled.migration_url)), autocommit=True) as connection:
        connection.execute("GRANT UPDATE ON events TO leeway_app")
        connection.execute("ALTER TABLE postings DISABLE TRIGGER postings_append_only")
        connection.execute("REVOKE SELECT ON sites FROM leeway_app")
    assert faults_of(filled) == [
        "the application may change rows of events, which is append-only",
        "the trigger that keeps postings append-only is switched off",
        "the application may not read sites",
    ]


# --- PostgreSQL's programs ---------------------------------------------------------------------------------------


def test_the_programs_are_of_the_servers_version_or_newer() -> None:
    assert programs_for(18).version == 18
    assert programs_for(14).version >= 14
    with pytest.raises(SetupError, match="The server is PostgreSQL 99"):
        programs_for(99)


def test_a_password_is_not_on_the_command_line() -> None:
    place = Place.of("postgresql://role:s%40cret@db.example.org:5433/leeway?options=-c%20a%3Db&sslmode=require")
    assert "s@cret" not in place.address
    assert "s%40cret" not in place.address
    assert place.environment["PGPASSWORD"] == "s@cret"
    assert place.address.startswith("postgresql://role@db.example.org:5433/leeway?")
    assert "sslmode=require" in place.address


def test_a_script_of_a_newer_pg_restore_loads_into_an_older_server(
    filled: Database, other: Database, tmp_path: Path
) -> None:
    """Servers before 17 do not know `transaction_timeout`; that of the tests is told to be one."""
    make_backup(filled, tmp_path / "file")
    wrong = own_programs().load(
        tmp_path / "file",
        Place.of(str(other.migration_url)),
        schema="public",
        before="",
        after="SELECT 1 / (current_setting('transaction_timeout') = '7ms')::int;",
        server=16,
    )
    assert "division by zero" in wrong
    wrong = own_programs().load(
        tmp_path / "file",
        Place.of(str(other.migration_url)),
        schema="public",
        before="SET transaction_timeout = '7h';",
        after="SELECT 1 / (current_setting('transaction_timeout') = '7h')::int;",
        server=16,
    )
    assert wrong == ""
