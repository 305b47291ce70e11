"""`leeway spend`."""

from __future__ import annotations

import click

from web.cli import output
from web.cli.command import LeewayCommand, connect, json_option, print_json
from web.cli.main import HELPS
from web.cli.workload_view import show_spend

EPILOG = """\b
Examples:
  leeway spend
  leeway spend climate
"""


@click.command("spend", cls=LeewayCommand, short_help=HELPS["spend"], epilog=EPILOG)
@click.argument("project", required=False)
@json_option
def command(project: str | None, *, as_json: bool) -> None:
    """Show what PROJECT (or every project) spent, holds and has free, per grant and per machine.

    "Used since" is what runs right now and is not charged yet; it is a part of what is set aside.
    """
    with connect() as client:
        found = client.spend(project=project)
    if as_json:
        print_json(found)
        return
    if not found:
        output.say("No project yet: `leeway project add`.")
    for place, spend in enumerate(found):
        if place:
            output.say("")
        show_spend(spend)
