"""`leeway ledger`."""

from __future__ import annotations

import click
from sqlalchemy import text
from sqlalchemy.orm import Session

from accounting.proof import prove
from broker.database import single_use_engine
from broker.schema import require_current
from web.cli import output
from web.cli.command import Failure, LeewayCommand, json_option, print_json
from web.cli.main import HELPS
from web.compose import database
from web.settings import load_settings


@click.group("ledger", short_help=HELPS["ledger"], epilog="\b\nExample:\n  leeway ledger verify\n")
def command() -> None:
    """Look after the books.

    They are in the embedded database in LEEWAY_DATA_DIR, or on the server of LEEWAY_DATABASE_URL.
    """


@command.command("verify", cls=LeewayCommand, epilog="\b\nExample:\n  leeway ledger verify --json\n")
@json_option
def verify(*, as_json: bool) -> None:
    """Prove that balances, holds, entries and charges agree; changes nothing. Exit code 1 where they do not."""
    with database(load_settings()) as found:
        require_current(found.application_url)
        bind = single_use_engine(found.application_url, application_name="leeway ledger")
        # One moment for all comparisons, and all the time that they need.
        with Session(bind.execution_options(isolation_level="REPEATABLE READ")) as session:
            session.execute(text("SET TRANSACTION READ ONLY"))
            session.execute(text("SET LOCAL statement_timeout = 0"))
            differences = prove(session)
    if as_json:
        print_json({"differences": differences})
    if differences:
        more = [(line, None) for line in differences[1:]]
        raise Failure(
            differences[0],
            title="The books do not agree",
            hint="Order nothing until it is known why. A backup tells since when: `leeway db drill FILE`.",
            more=more,
        )
    if not as_json:
        output.say("The books agree: balances, holds, entries and charges.")
