"""`leeway demo`."""

from __future__ import annotations

import signal
import time
from types import FrameType
from typing import Final, NoReturn

import click
from rich.text import Text

from broker.errors import SetupError
from web.cli import output
from web.cli.command import LeewayCommand
from web.cli.main import HELPS
from web.cli.waiting import Waiting
from web.client.client import Client
from web.demo.children import end_leftovers
from web.demo.folder import default_folder, demo_folder
from web.demo.stage import Stage, stage
from web.demo.tour import Tour, connect_clouds, try_next, write_documents

EPILOG = """\b
Examples:
  leeway demo
  leeway demo --tour-only
"""

# A closed terminal ends it as Ctrl-C does. Also SIGINT is set: a shell starts what it puts into the background without.
_ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@click.command("demo", cls=LeewayCommand, short_help=HELPS["demo"], epilog=EPILOG)
@click.option("--tour-only", is_flag=True, help="End after the tour instead of waiting for Ctrl-C.")
def command(*, tour_only: bool) -> None:
    """Start two sandbox clouds and a server, and follow one workload from its price to its charge.

    Everything lies in .leeway/demo (or LEEWAY_DATA_DIR), new at each start, and ends with the demo. Then a page stays
    up, and the other commands can be tried, until Ctrl-C.
    """
    for number in _ENDING:
        signal.signal(number, _interrupt)
    folder = default_folder()
    console = output.screen()
    with demo_folder(folder), Waiting("starting two clouds, PostgreSQL and the server", console=console) as waiting:
        if left := end_leftovers(folder):
            waiting.note(f"ended {left} processes of a demo that was killed")
        with stage(folder, waiting.note) as made:
            try:
                with Client(made.place) as client:
                    connect_clouds(client, made.clouds, waiting)
                    waiting.stop()
                    write_documents(folder)
                    Tour(client, console).show()
                if not tour_only:
                    try_next(made.place, folder, console)
                    _stay(made)
            finally:  # a second Ctrl-C would leave behind what the first one is ending
                for number in _ENDING:
                    signal.signal(number, signal.SIG_IGN)
                output.say(output.styled("\nStopping the clouds, the server and PostgreSQL ...", "dim"))
    output.say(output.styled("Everything is stopped.", "dim"))


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _stay(made: Stage) -> None:
    """Until Ctrl-C, which is how it is meant to end."""
    output.say(Text("\nCtrl-C stops everything.", style="bold"))
    try:
        while (ended := made.children.ended()) is None:
            time.sleep(0.5)
    except KeyboardInterrupt:
        return
    raise SetupError(f"The {ended.name} ended by itself.", hint=f"Look into {ended.log}, and start the demo again.")
