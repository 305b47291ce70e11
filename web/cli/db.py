"""`leeway db`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click

from accounting.proof import prove
from broker import backups, schema
from broker.backups import Backup, Drill
from broker.errors import SetupError
from web.cli import output
from web.cli.command import Failure, LeewayCommand, json_option, print_json
from web.cli.main import HELPS
from web.compose import database
from web.settings import load_settings

EPILOG = """\b
Examples:
  leeway db check
  leeway db upgrade
  leeway db backup leeway-2026-11-21.dump
  leeway db drill leeway-2026-11-21.dump
"""
_FILE = click.argument("file", type=click.Path(path_type=Path))


@click.group("db", short_help=HELPS["db"], epilog=EPILOG)
def command() -> None:
    """Bring the database's tables up to date, check them, back them up.

    The database is the embedded one in LEEWAY_DATA_DIR, or the server of LEEWAY_DATABASE_URL.
    """


@command.command(
    "upgrade", cls=LeewayCommand, epilog="\b\nExample:\n  LEEWAY_MIGRATION_DATABASE_URL=... leeway db upgrade\n"
)
@json_option
def upgrade(*, as_json: bool) -> None:
    """Run the migrations that are missing, each in its own transaction."""
    with database(load_settings()) as found:
        schema.upgrade(found)
        revision = schema.head_revision()
    if as_json:
        print_json({"revision": revision})
    else:
        output.say(f"The database is at revision {revision}.")


@command.command("check", cls=LeewayCommand, epilog="\b\nExample:\n  leeway db check --json\n")
@json_option
def check(*, as_json: bool) -> None:
    """Compare the tables with what this Leeway expects; changes nothing. Exit code 1 where they differ."""
    with database(load_settings()) as found:
        differences = schema.check(found.application_url)
    if as_json:
        print_json({"differences": differences})
    if differences:
        raise Failure(differences[0], title="The schema differs", more=[(line, None) for line in differences[1:]])
    if not as_json:
        output.say(f"The database is at revision {schema.head_revision()}, as this Leeway expects.")


@command.command("backup", cls=LeewayCommand, epilog="\b\nExample:\n  leeway db backup leeway-2026-11-21.dump\n")
@_FILE
@click.option("--force", is_flag=True, help="Write over a file that is there.")
@json_option
def backup(file: Path, *, force: bool, as_json: bool) -> None:
    """Write the whole database to FILE, while Leeway goes on working.

    Beside it keep the files `key` and `installation` of LEEWAY_DATA_DIR, the key apart: without it the stored
    credentials do not open, and with it they do.
    """
    with database(load_settings()) as found:
        made = backups.make_backup(found, file, over=force)
    if as_json:
        print_json(_told(made))
    else:
        output.say(f"{file}: {made.size / 1e6:.1f} MB, revision {made.revision}, of {_time(made.made_at)}.")


@command.command("restore", cls=LeewayCommand, epilog="\b\nExample:\n  leeway db restore leeway-2026-11-21.dump\n")
@_FILE
@click.option("--replace", is_flag=True, help="Give up everything that the database holds now.")
@json_option
def restore(file: Path, *, replace: bool, as_json: bool) -> None:
    """Load FILE into the database: all of it, or nothing. Stop everything that uses the database first.

    Afterwards Leeway only observes until `leeway resume`, as the database is older than the clouds.
    """
    with database(load_settings()) as found:
        loaded = backups.restore(found, file, replace=replace)
        faults = backups.faults_of(found)
    if as_json:
        print_json({**_told(loaded), "faults": faults})
    if faults:
        raise Failure(faults[0], title="Restored, but not sound", more=[(line, None) for line in faults[1:]])
    if not as_json:
        output.say(f"Restored what was there at {_time(loaded.made_at)}. Now run `leeway serve`: it only observes,")
        output.say("until every site was listed and you say `leeway resume`.")


@command.command("drill", cls=LeewayCommand, epilog="\b\nExample:\n  leeway db drill leeway-2026-11-21.dump\n")
@_FILE
@json_option
def drill(file: Path, *, as_json: bool) -> None:
    """Restore FILE into a PostgreSQL of its own, look at it, and remove everything. Exit code 1 where it is not sound.

    Says how long a restore takes, and how much of what happened since would be lost.
    """
    done = backups.drill(file, prove=prove)
    lost = _lost(done)
    if as_json:
        print_json(
            {
                **_told(done.backup),
                "took_seconds": round(done.took.total_seconds(), 1),
                "rows": done.rows,
                "lost": lost,
                "faults": done.faults,
            }
        )
    if done.faults:
        raise Failure(done.faults[0], title="The backup is not sound", more=[(line, None) for line in done.faults[1:]])
    if not as_json:
        _show_drill(done, lost)


def _show_drill(done: Drill, lost: Mapping[str, int] | None) -> None:
    age = datetime.now(UTC) - done.backup.made_at
    counted = sum(done.rows.values())
    output.say(f"Sound: {counted} rows in {len(done.rows)} tables, restored in {done.took.total_seconds():.1f} s.")
    output.say(f"It was made {_long(age)} ago ({_time(done.backup.made_at)}). What happened since would be lost:")
    if lost is None:
        output.say("  how much is not known, as the living database does not answer.")
    else:
        output.say(f"  {lost['orders']} orders, {lost['leases']} leases, {lost['events']} events.")


def _lost(done: Drill) -> dict[str, int] | None:
    """What the living database has that the backup has not; None where it does not answer, or is another's."""
    settings = load_settings()
    if settings.database_url is None and not (settings.data_dir / "postgres" / "cluster").exists():
        return None
    try:
        with database(settings) as found:
            return backups.lost_by(found, done)
    except SetupError:
        return None


def _told(found: Backup) -> dict[str, Any]:
    return {
        "file": str(found.file),
        "bytes": found.size,
        "made_at": found.made_at.isoformat().replace("+00:00", "Z"),
        "revision": found.revision,
        "installation": None if found.installation is None else str(found.installation),
    }


def _time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def _long(time: timedelta) -> str:
    """A length of time in the two largest units that say something."""
    minutes = int(time.total_seconds() // 60)
    days, hours = minutes // 1440, minutes // 60 % 24
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes % 60} min" if hours else f"{minutes} min"
