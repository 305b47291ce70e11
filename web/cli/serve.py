"""`leeway serve`."""

from __future__ import annotations

import click

from web import server
from web.cli.command import LeewayCommand
from web.cli.main import HELPS
from web.cli.parent import die_with_parent
from web.settings import load_settings

EPILOG = """\b
Examples:
  leeway serve
  LEEWAY_PORT=8700 LEEWAY_DATA_DIR=/srv/leeway leeway serve
"""


@click.command("serve", cls=LeewayCommand, short_help=HELPS["serve"], epilog=EPILOG)
@click.option("--die-with-parent", "bound", is_flag=True, help="End when the process that started it ends (Linux).")
def command(*, bound: bool) -> None:
    """Run the server, with its worker and its clock, until Ctrl-C.

    It listens on this machine only, and keeps its token and address in the data directory, where the other commands
    find them. Every setting is a variable of the environment (docs/reference/settings.md).
    """
    if bound:
        die_with_parent()
    server.serve(load_settings())
