"""Commands that look at the installation itself, and Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner, Result

from broker.database import Database, libpq_url
from broker.errors import SetupError
from tests.conftest import PostgresForTests
from tests.unit.cli.conftest import Leeway
from web.cli.main import cli
from web.settings import load_settings


@pytest.fixture
def spare(postgres: PostgresForTests, database: Database, worker_id: str) -> Iterator[Database]:
    """A database to break."""
    assert database, "it is what makes the template"
    name = f"leeway_cli_spare_{worker_id}"
    postgres.drop(name)
    yield postgres.create(name, template="leeway_template")
    postgres.drop(name)


def run(*arguments: str, folder: Path, database: Database) -> Result:
    environment = {
        "LEEWAY_DATA_DIR": str(folder),
        "LEEWAY_DATABASE_URL": database.application_url,
        "LEEWAY_MIGRATION_DATABASE_URL": database.migration_url,
        "LEEWAY_URL": None,
        "LEEWAY_TOKEN": None,
    }
    return CliRunner().invoke(cli, list(arguments), env=environment, prog_name="leeway")


def test_a_schema_that_differs_is_exit_code_1(spare: Database, tmp_path: Path) -> None:
    assert run("db", "check", folder=tmp_path, database=spare).exit_code == 0
    assert spare.migration_url is not None
    with psycopg.connect(libpq_url(spare.migration_url), autocommit=True) as connection:
        connection.execute("ALTER TABLE sites ADD COLUMN surprise text")
    done = run("db", "check", folder=tmp_path, database=spare)
    assert done.exit_code == 1
    assert "surprise" in done.stderr
    answered = run("db", "check", "--json", folder=tmp_path, database=spare)
    assert answered.exit_code == 1
    assert len(json.loads(answered.stdout)["differences"]) == 1


def test_the_migrations_fill_an_empty_database(
    postgres: PostgresForTests, spare: Database, worker_id: str, tmp_path: Path
) -> None:
    name = f"leeway_cli_spare_{worker_id}"
    postgres.drop(name)
    assert postgres.create(name) == spare
    behind = run("db", "check", folder=tmp_path, database=spare)
    assert behind.exit_code == 1
    assert "leeway db upgrade" in behind.stderr
    assert "The database is at revision" in run("db", "upgrade", folder=tmp_path, database=spare).stdout
    assert run("db", "check", folder=tmp_path, database=spare).exit_code == 0


def test_backup_drill_and_restore(postgres: PostgresForTests, spare: Database, worker_id: str, tmp_path: Path) -> None:
    def leeway(*arguments: str) -> Result:
        return run(*arguments, folder=tmp_path / "data", database=spare)

    file = tmp_path / "a.dump"
    made = leeway("db", "backup", str(file))
    assert (made.exit_code, "MB, revision" in made.stdout) == (0, True), made.output
    again = leeway("db", "backup", str(file))
    assert (again.exit_code, "--force" in again.stderr) == (1, True)
    assert json.loads(leeway("db", "backup", str(file), "--force", "--json").stdout)["installation"] is None
    tried = leeway("db", "drill", str(file))
    assert tried.exit_code == 0, tried.output
    assert "Sound: " in tried.stdout
    assert "0 orders, 0 leases, 0 events" in tried.stdout
    assert json.loads(leeway("db", "drill", str(file), "--json").stdout)["faults"] == []
    refused = leeway("db", "restore", str(file))
    assert (refused.exit_code, "--replace" in refused.stderr) == (1, True)
    postgres.drop(f"leeway_cli_spare_{worker_id}")
    postgres.create(f"leeway_cli_spare_{worker_id}")
    restored = leeway("db", "restore", str(file))
    assert (restored.exit_code, "leeway resume" in restored.stdout) == (0, True), restored.output
    assert leeway("db", "check").exit_code == 0
    replaced = leeway("db", "restore", str(file), "--replace", "--json")
    assert replaced.exit_code == 0, replaced.output
    assert json.loads(replaced.stdout)["faults"] == []
    assert leeway("db", "drill", str(tmp_path / "nothing")).exit_code == 1


def test_a_drill_whose_books_do_not_agree_is_exit_code_1(spare: Database, tmp_path: Path) -> None:
    assert spare.migration_url is not None
    with psycopg.connect(libpq_url(spare.migration_url), autocommit=True) as connection:
        connection.execute(
            "WITH made AS (INSERT INTO accounts (id, kind, key, title) VALUES (gen_random_uuid(), 'grant', 'g', 'G')"
            " RETURNING id) INSERT INTO balances (id, account_id, commodity, posted, held, ceiling)"
            " SELECT gen_random_uuid(), id, 'EUR', 3, 0, 5 FROM made"
        )
    assert run("db", "backup", str(tmp_path / "file"), folder=tmp_path / "data", database=spare).exit_code == 0
    done = run("db", "drill", str(tmp_path / "file"), folder=tmp_path / "data", database=spare)
    assert done.exit_code == 1
    assert "the books differ in balance and its postings" in done.stderr


def test_a_database_that_is_away_is_explained(tmp_path: Path) -> None:
    nowhere = Database("postgresql://x@127.0.0.1:9/x", "postgresql://y@127.0.0.1:9/x")
    done = run("db", "check", folder=tmp_path, database=nowhere)
    assert done.exit_code == 1
    assert "This installation is not ready: The database x at 127.0.0.1 cannot be used" in done.stderr


def test_the_doctor_finds_a_sound_installation_sound(leeway: Leeway, own_database: Database) -> None:
    done = run("doctor", "--json", folder=leeway.data_dir, database=own_database)
    assert done.exit_code == 0, done.output
    steps = {check["step"]: check["ok"] for check in json.loads(done.stdout)}
    assert {
        "python",
        "data directory",
        "vault key",
        "token",
        "disk",
        "database",
        "server",
        "worker",
        "site aurora",
    } <= set(steps)
    assert all(steps.values())


def test_the_doctor_says_what_to_mend(spare: Database, tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    (tmp_path / "key").write_text("secret")
    (tmp_path / "key").chmod(0o644)
    done = run("doctor", folder=tmp_path, database=spare)
    assert done.exit_code == 1
    assert "To be mended: vault key, server" in done.stderr
    assert f"Run: chmod 600 '{tmp_path}/key'" in done.stdout
    assert "leeway serve" in done.stdout


@pytest.mark.parametrize("content", [b"", b"\xff\xfe"])
def test_the_doctor_reads_key_and_token_as_the_server_will(spare: Database, tmp_path: Path, content: bytes) -> None:
    tmp_path.chmod(0o700)
    for name in ("key", "token"):
        (tmp_path / name).write_bytes(content)
        (tmp_path / name).chmod(0o600)
    assert "To be mended: vault key, token, server" in run("doctor", folder=tmp_path, database=spare).stderr


def test_a_data_directory_that_is_a_file_or_nothing_is_refused(
    spare: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    done = run("doctor", folder=tmp_path / "file", database=spare)
    assert f"{tmp_path}/file is no directory" in "".join(line.strip() for line in done.stdout.splitlines())
    monkeypatch.setenv("LEEWAY_DATA_DIR", "")
    with pytest.raises(SetupError, match="LEEWAY_DATA_DIR is empty"):
        load_settings()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is Linux's")
def test_output_that_cannot_be_written_is_told_without_a_traceback() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "web.cli.main", "--help"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr == "What this prints cannot be written: No space left on device. Free some space.\n"


def test_a_misspelt_setting_is_named(spare: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEEWAY_WORKRES", "3")
    done = run("doctor", folder=tmp_path, database=spare)
    assert done.exit_code == 1
    assert "there is no setting LEEWAY_WORKRES" in done.stdout
    assert run("serve", folder=tmp_path, database=spare).exit_code == 1


@pytest.mark.parametrize("command", [["quote"], ["submit", "--yes"], ["rate-card", "import"]])
def test_ctrl_c_is_one_line(command: list[str], tmp_path: Path) -> None:
    pipe = tmp_path / "endless.yaml"
    os.mkfifo(pipe)
    program = subprocess.Popen(
        [sys.executable, "-m", "web.cli.main", *command, str(pipe)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with pipe.open("w"):  # returns when the program has opened it too, and waits for what never comes
        program.send_signal(signal.SIGINT)
        out, err = program.communicate(timeout=20)
    assert (program.returncode, out) == (130, "")
    assert err.strip() == "Interrupted."
