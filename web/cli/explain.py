"""`leeway explain`."""

from __future__ import annotations

from pathlib import Path

import click
from rich.text import Text

from web.cli import output
from web.cli.command import LeewayCommand, connect, json_option, print_json, read_document
from web.cli.main import HELPS
from web.cli.quote_view import show_quote
from web.cli.workload_view import show_timeline
from web.client.client import Client
from web.client.errors import Problem
from web.client.shapes import Explanation, Offer, Picked, Quote

EPILOG = """\b
Examples:
  leeway explain era5-trial
  leeway explain workload.yaml
"""


@click.command("explain", cls=LeewayCommand, short_help=HELPS["explain"], epilog=EPILOG)
@click.argument("what", metavar="WORKLOAD|QUOTE|FILE")
@json_option
def command(what: str, *, as_json: bool) -> None:
    """Say why each site was or was not chosen, with the numbers and what to change.

    WORKLOAD is a name or an id of `leeway ps`, QUOTE the id of a quote. A FILE (or - for standard input) is quoted as
    things are now, and nothing is kept.
    """
    # No name or id has a slash: whoever writes one means a file, also where there is none.
    is_file = what == "-" or "/" in what or Path(what).is_file()
    document = read_document(what) if is_file else ""
    since: Explanation | None = None
    with connect() as client:
        if is_file:
            quote = client.make_quote(document, preview=True)
        else:
            quote, since = _known(client, what)
    if as_json:
        print_json(since or quote)
        return
    _show(quote, since)
    if since is not None:
        _show_since(since)


def _known(client: Client, ref: str) -> tuple[Quote, Explanation | None]:
    """A workload; where there is none of this name, a quote. An id that is neither is told as an unknown workload."""
    try:
        found = client.explanation(ref)
        return found["quote"], found
    except Problem as error:
        if error.code != "not_found":
            raise
        try:
            return client.quote(ref), None
        except Problem:
            raise error from None


def _show(quote: Quote, since: Explanation | None) -> None:
    console = output.screen()
    show_quote(quote, console=console)
    priced = quote["offers"][0] if quote["offers"] else None
    if since is not None:
        priced = _ordered(quote, since["offer"])
        rank = f"rank {priced['rank']}, " if priced else ""
        what = f"{since['offer']['name']} at {since['offer']['site']} for {output.money(since['offer']['total'])}"
        console.print(Text(f"\n  Ordered: {rank}{output.clean(what)}", style="bold"))
    if priced:
        console.print()
        _show_lines(priced)


def _ordered(quote: Quote, picked: Picked) -> Offer | None:
    """The offer of the quote that was ordered."""
    return next((o for o in quote["offers"] if (o["site"], o["offer"]) == (picked["site"], picked["name"])), None)


def _show_lines(offer: Offer) -> None:
    """What an offer's price is made of."""
    console = output.screen()
    console.print(Text(f"  The price of {output.clean(offer['offer'])} at {output.clean(offer['site'])}", style="bold"))
    made = output.table("for", "quantity", "unit price", "amount", right=("quantity", "unit price", "amount"))
    lines = offer["lines"]
    amounts = output.column([{"value": line["amount"], "commodity": line["commodity"]} for line in lines])
    prices = output.column([{"value": line["unit_price"], "commodity": line["commodity"]} for line in lines])
    for line, price, amount in zip(lines, prices, amounts, strict=True):
        output.row(made, line["component"], f"{line['quantity']} {line['unit']}", price, amount)
    output.show(made, console=console, indent=2)


def _show_since(found: Explanation) -> None:
    """What sites refused after it was ordered."""
    if not found["refusals"]:
        return
    console = output.screen()
    console.print()
    console.print(Text(f"  Since it was ordered (now {output.clean(found['order_state'])})", style="bold"))
    show_timeline(found["refusals"], console=console)
