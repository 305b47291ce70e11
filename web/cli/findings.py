"""`leeway findings`."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from web.cli import output
from web.cli.command import LeewayCommand, connect, json_option, print_json
from web.cli.main import HELPS

EPILOG = """\b
Examples:
  leeway findings
  leeway findings --json
"""


@click.command("findings", cls=LeewayCommand, short_help=HELPS["findings"], epilog=EPILOG)
@json_option
def command(*, as_json: bool) -> None:
    """List what a person should look at, with what it costs per day where that is known."""
    with connect() as client:
        found = client.findings()
    if as_json:
        print_json(found)
        return
    now = datetime.now(UTC)
    made = output.table("kind", "site", "what, and what to do", "per day", "since", right=("per day",))
    for finding in found:
        cost = output.money(finding["per_day"])
        what = f"{finding['text'].removesuffix('.')}. {finding['hint']}"
        output.row(
            made, finding["kind"], finding["site"] or "-", what, cost, output.when(finding["first_seen_at"], now=now)
        )
    output.show(made, empty="Nothing needs you.")
