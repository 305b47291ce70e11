"""`leeway resume`."""

from __future__ import annotations

import click

from web.cli import output
from web.cli.command import LeewayCommand, connect, json_option, print_json
from web.cli.main import HELPS

EPILOG = """\b
Examples:
  leeway resume
  leeway resume --leave aurora
"""


@click.command("resume", cls=LeewayCommand, short_help=HELPS["resume"], epilog=EPILOG)
@click.option("--leave", metavar="SITE", multiple=True, help="Do not wait for this site; only observe it from now on.")
@json_option
def command(*, leave: tuple[str, ...], as_json: bool) -> None:
    """Act again after the database was restored.

    Until then Leeway only observes: sites are listed, and nothing is started, changed or deleted. It is refused until
    every site was listed so late that whatever was asked for before the restore shows.
    """
    with connect() as client:
        done = client.resume(leave)
    if as_json:
        print_json(done)
    elif done["leases"]:
        output.say(f"Leeway acts again. {done['leases']} leases are looked at before anything is made for them;")
        output.say("machines that were ordered after the backup are taken back by the next listings.")
    else:
        output.say("Leeway acts already: there is nothing to resume.")
