"""The command `leeway`: finds the command that was named, and imports only that one.

This module imports next to nothing but click, so that `leeway --help` costs little; the short helps of the commands
stand here, and a test holds them against the commands' own.
"""

from __future__ import annotations

import difflib
import errno
import importlib
import os
import sys
from collections.abc import Mapping
from typing import Final

import click

from web.version import leeway_version

REFUSED: Final = 1
USAGE: Final = 2
UNREACHABLE: Final = 3
INTERRUPTED: Final = 130

# Command -> what it does, in the order of a person's first day. `rate-card` is in the module `rate_card`.
SECTIONS: Final[Mapping[str, Mapping[str, str]]] = {
    "Begin": {
        "demo": "Two sandbox clouds, one workload, from quote to charge.",
        "serve": "Run the server, with its worker and its clock.",
        "worker": "Run one more worker for the same database.",
        "open": "Print the link that opens the pages in a browser.",
        "doctor": "Check this installation, and say what to mend.",
        "db": "Bring the tables up to date, back them up, restore them.",
        "resume": "Act again after the database was restored.",
    },
    "Connect": {
        "site": "Connect clouds, and look at them.",
        "rate-card": "Import what a provider's things cost.",
        "inventory": "Show what is at sites, and what it costs.",
        "adopt": "Have a project pay for what is at a site already.",
        "project": "Make projects.",
        "grant": "Give money to projects.",
    },
    "Work": {
        "quote": "Price a workload on every site, with the reasons.",
        "submit": "Quote a workload, order it, and wait until it runs.",
        "ps": "List workloads, the newest first.",
        "show": "Show one workload with its timeline.",
        "explain": "Say why each site was or was not chosen.",
        "extend": "Let a workload run longer.",
        "stop": "End a workload, or only power it off.",
        "start": "Power a stopped or shelved workload on again.",
    },
    "Money": {
        "spend": "Show what was spent, is held and is free.",
        "ledger": "Prove that the books agree.",
        "findings": "List what a person should look at.",
    },
}
HELPS: Final[Mapping[str, str]] = {name: text for section in SECTIONS.values() for name, text in section.items()}


class Commands(click.Group):
    """Commands by the table above; each one's module is imported when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Every name, in the order of the table."""
        return list(HELPS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - same
        """The command of a name, from its own module; None where there is none."""
        if cmd_name not in HELPS:
            return None
        found = importlib.import_module(f"web.cli.{cmd_name.replace('-', '_')}").command
        assert isinstance(found, click.Command)
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, but a word that is no command is told the nearest one."""
        word = args[0]
        if word not in HELPS and not word.startswith("-"):
            near = difflib.get_close_matches(word, HELPS, n=1)
            hint = f" Did you mean {near[0]}?" if near else " `leeway --help` lists the commands."
            raise click.UsageError(f"There is no command {word!r}.{hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - same
        """By section, without importing any."""
        for title, commands in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl(list(commands.items()), col_max=12)


def _show_version(ctx: click.Context, _option: click.Parameter, wanted: bool) -> None:  # noqa: FBT001 - click's signature
    if wanted and not ctx.resilient_parsing:
        click.echo(f"leeway {leeway_version()}")
        ctx.exit()


EPILOG = """\
\b
Examples:
  leeway demo
  leeway submit workload.yaml
  leeway explain era5-trial

Commands that talk to the server find it by LEEWAY_URL and LEEWAY_TOKEN, or by the files that `leeway serve` writes into
its data directory (LEEWAY_DATA_DIR). With --json they print what the API answered. NO_COLOR is respected.

Exit codes: 0 done; 1 refused or failed; 2 the command line is wrong; 3 the server cannot be reached; 130 Ctrl-C.
"""


@click.command(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=EPILOG,
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_show_version, help="Show the version."
)
def cli() -> None:
    """Leeway, a federated cloud broker: priced, explained, started once, metered, charged."""


def main() -> None:
    """Run the command line and end the process with its exit code."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command line; returns the exit code. Never a traceback for Ctrl-C or an error that is expected."""
    try:
        code = cli.main(arguments, prog_name="leeway", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("Interrupted.", err=True)
        return INTERRUPTED
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        click.echo(f"What this prints cannot be written: {error.strerror}. Free some space.", err=True)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else writing the rest fails once more at exit
        return REFUSED
    return code if isinstance(code, int) else 0


if __name__ == "__main__":
    main()
