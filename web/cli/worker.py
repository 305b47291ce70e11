"""`leeway worker`."""

from __future__ import annotations

import click

from web import server
from web.cli.command import LeewayCommand
from web.cli.main import HELPS
from web.settings import load_settings

EPILOG = """\b
Examples:
  leeway worker
  LEEWAY_WORKERS=16 leeway worker
"""


@click.command("worker", cls=LeewayCommand, short_help=HELPS["worker"], epilog=EPILOG)
def command() -> None:
    """Run one more worker, with a clock of its own, for the same database, until Ctrl-C.

    `leeway serve` has a worker already; more of them share the work, also from other machines.
    """
    server.worker(load_settings())
