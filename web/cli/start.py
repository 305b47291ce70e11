"""`leeway start`."""

from __future__ import annotations

import click

from web.cli import output
from web.cli.command import LeewayCommand, connect, json_option, print_json
from web.cli.following import told_already
from web.cli.main import HELPS
from web.cli.submit import wait_until_up
from web.cli.workload_view import summary_state

EPILOG = """\b
Examples:
  leeway start era5-trial
  leeway start era5-trial --no-wait
"""


@click.command("start", cls=LeewayCommand, short_help=HELPS["start"], epilog=EPILOG)
@click.argument("workload")
@click.option("--wait/--no-wait", default=True, help="Wait until it runs (the default), or return at once.")
@json_option
def command(workload: str, *, wait: bool, as_json: bool) -> None:
    """Power the machines of a stopped or shelved WORKLOAD on again."""
    with connect() as client:
        told = told_already(client, workload) if wait else 0
        item = client.start(workload)
        if wait:
            item = wait_until_up(client, item, is_quiet=as_json, told=told)
    if as_json:
        print_json(item)
    else:
        output.say(f"{item['name']} is {summary_state(item)}.")
