"""`leeway open`."""

from __future__ import annotations

import os

import click

from web.cli.command import LeewayCommand, json_option, print_json
from web.cli.main import HELPS
from web.client.place import find_place

EPILOG = """\b
Examples:
  leeway open
  xdg-open "$(leeway open)"
"""


@click.command("open", cls=LeewayCommand, short_help=HELPS["open"], epilog=EPILOG)
@json_option
def command(*, as_json: bool) -> None:
    """Print the link that opens the pages in a browser. It holds the token: give it to nobody."""
    place = find_place(os.environ)
    if as_json:
        print_json({"url": place.url, "login_link": place.login_link})
    else:
        click.echo(place.login_link)
