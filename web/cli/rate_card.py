"""`leeway rate-card`."""

from __future__ import annotations

from typing import Any

import click

from web.cli import output
from web.cli.command import LeewayCommand, connect, json_option, print_json, read_document
from web.cli.main import HELPS

EPILOG = """\b
Examples:
  leeway rate-card import prices.yaml
  leeway rate-card list
"""


@click.group("rate-card", short_help=HELPS["rate-card"], epilog=EPILOG)
def command() -> None:
    """Import what a provider's things cost. A newer version of a card counts from its `valid_from` on."""


@command.command(
    "import",
    cls=LeewayCommand,
    epilog="\b\nExamples:\n  leeway rate-card import prices.yaml\n"
    "  leeway rate-card import prices.csv --name 2026 --provider tartu --currency EUR \\\n"
    "    --valid-from 2026-01-01T00:00:00Z --bills openstack\n",
)
@click.argument("file")
@click.option("--format", "format_", type=click.Choice(("yaml", "csv")), help="By the file's ending where not given.")
@click.option("--name", help="For CSV: the card's name.")
@click.option("--provider", help="For CSV: whose prices they are.")
@click.option("--currency", help="For CSV: like EUR.")
@click.option("--valid-from", help="For CSV: when they begin to count, like 2026-01-01T00:00:00Z.")
@click.option("--bills", help="For CSV: what each state of a machine costs; `openstack` is the usual way.")
@json_option
def import_(file: str, *, format_: str | None, as_json: bool, **described: str | None) -> None:
    """Import the prices in FILE (YAML, JSON or CSV; - is standard input). YAML and JSON say all by themselves."""
    wanted: dict[str, Any] = {name: value for name, value in described.items() if value is not None}
    wanted["document"] = read_document(file)
    wanted["format"] = format_ or ("csv" if file.lower().endswith(".csv") else "yaml")
    with connect() as client:
        card = client.import_rate_card(wanted)
    if as_json:
        print_json(card)
    else:
        since = output.clock(card["valid_from"])
        output.say(
            f"Rate card {card['name']}, version {card['number']} of {card['provider']}: {card['skus']} prices in "
            f"{card['currency']} from {since} UTC."
        )


@command.command("list", cls=LeewayCommand, epilog="\b\nExample:\n  leeway rate-card list --json\n")
@json_option
def list_(*, as_json: bool) -> None:
    """List every version of every provider's prices."""
    with connect() as client:
        found = client.rate_cards()
    if as_json:
        print_json(found)
        return
    made = output.table(
        "provider", "version", "name", "prices", "currency", "from", "until", right=("version", "prices")
    )
    for card in found:
        until = output.clock(card["valid_to"]) or "-"
        number, prices = str(card["number"]), str(card["skus"])
        since = output.clock(card["valid_from"])
        output.row(made, card["provider"], number, card["name"], prices, card["currency"], since, until)
    output.show(made, empty="No prices yet: `leeway rate-card import`.")
