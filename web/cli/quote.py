"""`leeway quote`."""

from __future__ import annotations

import click

from web.cli import output
from web.cli.command import LeewayCommand, connect, json_option, print_json, read_document
from web.cli.main import HELPS
from web.cli.quote_view import show_quote

EPILOG = """\b
Examples:
  leeway quote workload.yaml
  leeway quote --preview - < workload.yaml
"""


@click.command("quote", cls=LeewayCommand, short_help=HELPS["quote"], epilog=EPILOG)
@click.argument("file")
@click.option("--preview", is_flag=True, help="Only look: keep no quote, promise no prices.")
@json_option
def command(file: str, *, preview: bool, as_json: bool) -> None:
    """Price the workload in FILE (YAML or JSON; - is standard input) on every site, with the reasons.

    The quote is kept, and its prices stand for a while; `leeway submit` quotes and orders in one step.
    """
    document = read_document(file)
    with connect() as client:
        quote = client.make_quote(document, preview=preview)
    if as_json:
        print_json(quote)
        return
    show_quote(quote)
    if quote["id"] is not None:
        output.say("")
        until = output.clock(quote["expires_at"])
        output.say(output.styled(f"Quote {quote['id']}, good until {until} UTC.", "dim"))
