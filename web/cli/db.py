"""`leeway db`."""

from __future__ import annotations

import click

from broker import schema
from web.cli import output
from web.cli.command import Failure, LeewayCommand, json_option, print_json
from web.cli.main import HELPS
from web.compose import database
from web.settings import load_settings

EPILOG = """\b
Examples:
  leeway db check
  leeway db upgrade
"""


@click.group("db", short_help=HELPS["db"], epilog=EPILOG)
def command() -> None:
    """Bring the database's tables up to date, or check them.

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
