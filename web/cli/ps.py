"""`leeway ps`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

import click

from web.cli.command import LeewayCommand, connect, json_option, print_json
from web.cli.main import HELPS
from web.cli.workload_view import show_list

EPILOG = """\b
Examples:
  leeway ps
  leeway ps --project climate --state active
"""
STATES: Final = ("placed", "active", "returned", "stopping", "over")


@click.command("ps", cls=LeewayCommand, short_help=HELPS["ps"], epilog=EPILOG)
@click.option("--project", help="Only this project's.")
@click.option("--state", type=click.Choice(STATES), help="Only orders in this state.")
@click.option("--name", help="Only workloads of this name.")
@click.option("--most", type=click.IntRange(min=1), default=50, show_default=True, help="At most so many.")
@json_option
def command(*, project: str | None, state: str | None, name: str | None, most: int, as_json: bool) -> None:
    """List workloads, the newest first."""
    with connect() as client:
        items = client.workloads(project=project, state=state, name=name, most=most)
    if as_json:
        print_json(items)
    else:
        show_list(items, now=datetime.now(UTC), is_part=any((project, state, name)))
