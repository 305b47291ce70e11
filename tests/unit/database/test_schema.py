"""The schema: up, checked, down and up again, by the real migrations; and who may do what in it."""

from __future__ import annotations

import threading
from dataclasses import replace

import psycopg
import pytest
import sqlalchemy as sa
from alembic.operations import Operations
from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection
from sqlalchemy.orm import Session

from broker import schema
from broker.database import Database, libpq_url, single_use_engine
from broker.errors import SetupError
from broker.placement import Volumes
from broker.restored import acts
from tests.conftest import PostgresForTests
from tests.unit.accounting.world import World


def execute(url: str | None, statement: str) -> None:
    assert url is not None
    with psycopg.connect(libpq_url(url), autocommit=True) as connection:
        connection.execute(statement.encode())


def tables(database: Database) -> set[str]:
    with schema.inspecting(database.application_url) as connection:
        return set(sa.inspect(connection).get_table_names())


def install(connection: Connection) -> None:
    context = MigrationContext.configure(connection)
    with context.begin_transaction():
        schema.install_queue(Operations(context))


def install_queue_where_no_migration_did(database: Database) -> None:
    if "procrastinate_jobs" in tables(database):
        return
    with schema.migrating(database) as (connection, _):
        connection.commit()
        install(connection)


def test_up_check_down_up(empty_database: Database) -> None:
    schema.upgrade(empty_database)
    assert schema.check(empty_database.application_url) == []
    schema.require_current(empty_database.application_url)
    made = tables(empty_database)
    schema.downgrade(empty_database, "base")
    assert tables(empty_database) == {"alembic_version"}
    schema.upgrade(empty_database)
    assert schema.check(empty_database.application_url) == []
    assert tables(empty_database) == made


def test_each_step_down_can_be_taken_again(empty_database: Database) -> None:
    schema.upgrade(empty_database)
    script = ScriptDirectory.from_config(schema.configuration())
    for step in script.walk_revisions():
        schema.downgrade(empty_database, "-1")
        schema.upgrade(empty_database, step.revision)
        schema.downgrade(empty_database, "-1")
    schema.upgrade(empty_database)
    assert schema.check(empty_database.application_url) == []


def test_the_version_before_volumes_can_read_the_specs_of_leases(empty_database: Database) -> None:
    """On the way down from 0005: it makes a `MachineSpec` of all that stands there."""
    schema.upgrade(empty_database)
    engine = single_use_engine(empty_database.application_url, application_name="tests")
    with Session(engine) as session:
        world = World(session)
        lease_id = world.lease(world.order(), volumes=Volumes(10, 50)).id
        session.commit()
    schema.downgrade(empty_database, "0004")
    with engine.connect() as connection:
        query = sa.text("SELECT spec FROM leases WHERE id = :id")
        assert connection.scalar(query, {"id": lease_id}).keys() == {"name", "instance_type", "image"}


def test_the_way_down_leaves_nothing_behind(postgres: PostgresForTests, empty_database: Database) -> None:
    schema.upgrade(empty_database)
    schema.downgrade(empty_database, "base")
    name = sa.make_url(empty_database.application_url).database
    left = """
        SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace
        UNION ALL SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'S')
        UNION ALL SELECT typname FROM pg_type WHERE typnamespace = 'public'::regnamespace AND typtype = 'e'
    """
    with postgres.superuser(str(name)).connect() as connection:
        assert set(connection.exec_driver_sql(left).scalars()) <= {"alembic_version"}


def test_drift_is_told_line_by_line(empty_database: Database) -> None:
    schema.upgrade(empty_database)
    execute(empty_database.migration_url, "ALTER TABLE persons DROP COLUMN email")
    execute(empty_database.migration_url, "CREATE TABLE stranger (id int)")
    assert schema.check(empty_database.application_url) == [
        "remove table: stranger",
        "add column: persons email (table persons)",
    ]


def test_a_changed_type_is_drift(empty_database: Database) -> None:
    schema.upgrade(empty_database)
    execute(empty_database.migration_url, "ALTER TABLE persons ALTER COLUMN name TYPE varchar(7)")
    (line,) = schema.check(empty_database.application_url)
    assert line.startswith("modify type: persons name")


def test_no_schema_and_an_older_one_ask_for_an_upgrade(empty_database: Database) -> None:
    with pytest.raises(SetupError, match=r"no tables yet.*Run `leeway db upgrade`"):
        schema.require_current(empty_database.application_url)
    assert "at revision none" in schema.check(empty_database.application_url)[0]


def test_a_newer_schema_is_not_touched(empty_database: Database) -> None:
    schema.upgrade(empty_database)
    execute(empty_database.migration_url, "UPDATE alembic_version SET version_num = '9999'")
    for refused in (
        lambda: schema.upgrade(empty_database),
        lambda: schema.downgrade(empty_database, "base"),
        lambda: schema.require_current(empty_database.application_url),
        lambda: schema.check(empty_database.application_url),
    ):
        with pytest.raises(SetupError, match="9999, which this Leeway does not know: a newer one"):
            refused()


def test_an_unknown_target_is_refused(empty_database: Database) -> None:
    with pytest.raises(SetupError, match="cannot go to nowhere"):
        schema.upgrade(empty_database, "nowhere")


def test_two_upgrades_at_once_take_turns(empty_database: Database) -> None:
    failures: list[BaseException] = []

    def attempt() -> None:
        try:
            schema.upgrade(empty_database)
        except (SetupError, sa.exc.SQLAlchemyError) as error:
            failures.append(error)

    both = [threading.Thread(target=attempt) for _ in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert failures == []
    schema.require_current(empty_database.application_url)


def test_a_table_in_use_stops_the_migration_in_time(empty_database: Database) -> None:
    schema.upgrade(empty_database)
    with psycopg.connect(libpq_url(empty_database.application_url)) as reader:
        reader.execute("SELECT count(*) FROM persons")
        with pytest.raises(SetupError, match="waited in vain for a table"):
            schema.downgrade(empty_database, "base")
    schema.upgrade(empty_database)  # each step is a transaction of its own: only the one that waited was undone
    assert schema.check(empty_database.application_url) == []


# --- two roles


def test_the_application_reads_and_writes_but_changes_no_schema(empty_database: Database) -> None:
    schema.upgrade(empty_database)
    url = empty_database.application_url
    execute(url, "INSERT INTO persons (id, name) VALUES (gen_random_uuid(), 'Ada')")
    execute(url, "UPDATE persons SET name = 'Grace'")
    execute(url, "DELETE FROM persons")
    for statement in (
        "CREATE TABLE mine ()",
        "ALTER TABLE persons ADD COLUMN mine int",
        "DROP TABLE persons",
        "TRUNCATE persons",
        "UPDATE alembic_version SET version_num = '9999'",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            execute(url, statement)


def test_revoke_changes_leaves_a_table_append_only(empty_database: Database) -> None:
    with schema.migrating(empty_database) as (connection, application_role):
        schema._grant_by_default(connection, application_role)
        connection.exec_driver_sql('CREATE TABLE "odd name" (id int)')
        config = schema.configuration(application_role=application_role)
        environment = EnvironmentContext(config, ScriptDirectory.from_config(config))
        context = MigrationContext.configure(connection, environment_context=environment)
        schema.revoke_changes(Operations(context), "odd name")
        connection.commit()
    url = empty_database.application_url
    execute(url, 'INSERT INTO "odd name" VALUES (1)')
    for statement in ('UPDATE "odd name" SET id = 2', 'DELETE FROM "odd name"', 'TRUNCATE "odd name"'):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            execute(url, statement)


def test_an_application_role_of_another_name_gets_the_same(postgres: PostgresForTests) -> None:
    role, name = "service of the institute", "scratch_named"
    made = postgres.create(name)
    with postgres.admin.connect() as connection:
        connection.exec_driver_sql(f'CREATE ROLE "{role}" LOGIN')
    database = replace(made, application_url=postgres.let_in(role, database=name))
    schema.upgrade(database)
    execute(database.application_url, "INSERT INTO persons (id, name) VALUES (gen_random_uuid(), 'Ada')")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        execute(made.application_url, "SELECT * FROM persons")


def test_one_role_for_both_is_refused(empty_database: Database) -> None:
    assert empty_database.migration_url is not None
    both = replace(empty_database, application_url=empty_database.migration_url)
    with pytest.raises(SetupError, match="is the owner of the tables, a member of it, or a superuser"):
        schema.upgrade(both)


def test_a_superuser_as_application_is_refused(postgres: PostgresForTests, empty_database: Database) -> None:
    name = sa.make_url(empty_database.application_url).database
    risky = replace(empty_database, application_url=postgres.superuser(str(name)).url.render_as_string())
    with pytest.raises(SetupError, match="or a superuser"):
        schema.upgrade(risky)


def test_an_owner_that_may_not_create_is_refused(empty_database: Database) -> None:
    swapped = Database(str(empty_database.migration_url), empty_database.application_url)
    with pytest.raises(SetupError, match="may not create tables"):
        schema.upgrade(swapped)


def test_addresses_of_two_databases_are_refused(empty_database: Database, database: Database) -> None:
    with pytest.raises(SetupError, match="lead to different databases"):
        schema.upgrade(replace(empty_database, migration_url=database.migration_url))


def test_without_the_owners_address_there_is_no_upgrade(empty_database: Database) -> None:
    with pytest.raises(SetupError, match="LEEWAY_MIGRATION_DATABASE_URL is not set"):
        schema.upgrade(replace(empty_database, migration_url=None))


# --- the queue, whose tables are not ours


def test_the_application_may_use_the_queue(empty_database: Database) -> None:
    schema.upgrade(empty_database)
    install_queue_where_no_migration_did(empty_database)
    assert schema.check(empty_database.application_url) == []
    defer = """
        SELECT procrastinate_defer_jobs_v1(ARRAY[
            ROW('default', 'wake', 0, NULL, 'wake', '{}'::jsonb, NULL)::procrastinate_job_to_defer_v1])
    """
    execute(empty_database.application_url, defer)
    with schema.inspecting(empty_database.application_url) as connection:
        assert connection.scalar(sa.text("SELECT count(*) FROM procrastinate_jobs")) == 1
        assert connection.scalar(sa.text("SELECT count(*) FROM procrastinate_events")) == 1


def test_a_queue_of_another_version_is_made_anew_by_the_upgrade(empty_database: Database) -> None:
    schema.upgrade(empty_database)
    install_queue_where_no_migration_did(empty_database)
    execute(empty_database.migration_url, "COMMENT ON TABLE procrastinate_jobs IS 'of an older version'")
    execute(empty_database.migration_url, "ALTER TABLE procrastinate_jobs DROP COLUMN worker_id CASCADE")
    (line,) = schema.check(empty_database.application_url)
    assert "another version of Procrastinate" in line
    with pytest.raises(SetupError, match="another version of Procrastinate"):
        schema.require_current(empty_database.application_url)
    schema.upgrade(empty_database)
    assert schema.check(empty_database.application_url) == []
    with schema.inspecting(empty_database.application_url) as connection:
        columns = {column["name"] for column in sa.inspect(connection).get_columns("procrastinate_jobs")}
    assert "worker_id" in columns


def test_the_owner_is_alone_while_it_migrates(empty_database: Database) -> None:
    assert empty_database.migration_url is not None
    with schema.migrating(empty_database) as (connection, _):
        other = single_use_engine(empty_database.migration_url, application_name="tests", is_migration=True)
        with other.connect() as rival:
            assert rival.scalar(sa.select(sa.func.pg_try_advisory_lock(schema._TURN))) is False
        assert connection.closed is False


def test_the_second_migration_takes_the_database_that_it_finds_for_the_living_one(empty_database: Database) -> None:
    schema.upgrade(empty_database, "0001")
    execute(
        empty_database.application_url,
        "INSERT INTO installations (only_one, installation_id, made_at) VALUES (true, gen_random_uuid(), now())",
    )
    schema.upgrade(empty_database)
    with schema.inspecting(empty_database.application_url) as connection:
        assert connection.scalar(sa.select(acts()))
