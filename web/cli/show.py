"""`leeway show`."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from web.cli.command import LeewayCommand, connect, json_option, print_json
from web.cli.main import HELPS
from web.cli.workload_view import show_workload

EPILOG = """\b
Examples:
  leeway show era5-trial
  leeway show 01938e5a-7f3e --json
"""


@click.command("show", cls=LeewayCommand, short_help=HELPS["show"], epilog=EPILOG)
@click.argument("workload")
@json_option
def command(workload: str, *, as_json: bool) -> None:
    """Show one WORKLOAD (a name, an id, or the beginning of one): machines, money, timeline."""
    with connect() as client:
        item = client.workload(workload)
    if as_json:
        print_json(item)
    else:
        show_workload(item, now=datetime.now(UTC))
