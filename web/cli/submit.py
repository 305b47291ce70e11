"""`leeway submit`."""

from __future__ import annotations

import sys

import click

from web.cli import output
from web.cli.command import Failure, Interrupted, LeewayCommand, connect, json_option, print_json, read_document
from web.cli.following import follow, is_up
from web.cli.main import HELPS
from web.cli.quote_view import show_quote
from web.cli.waiting import Waiting
from web.cli.workload_view import summary_state
from web.client.client import Client
from web.client.shapes import Offer, Quote, Workload

EPILOG = """\b
Examples:
  leeway submit workload.yaml
  leeway submit --rank 2 --yes --no-wait workload.yaml
"""


@click.command("submit", cls=LeewayCommand, short_help=HELPS["submit"], epilog=EPILOG)
@click.argument("file")
@click.option("--rank", type=click.IntRange(min=1), default=1, show_default=True, help="Which of the quote's offers.")
@click.option("--yes", is_flag=True, help="Order without asking.")
@click.option("--wait/--no-wait", default=True, help="Wait until it runs (the default), or return once it is ordered.")
@json_option
def command(file: str, *, rank: int, yes: bool, wait: bool, as_json: bool) -> None:
    """Quote the workload in FILE (YAML or JSON; - is standard input), order an offer, and wait until it runs.

    Money and quota are set aside when it is ordered. Ctrl-C while waiting ends the waiting, not the order.
    """
    if not yes and (as_json or file == "-" or not sys.stdin.isatty()):
        raise click.UsageError("Nobody can be asked here whether to order: add --yes.")
    document = read_document(file)
    with connect() as client:
        quote = client.make_quote(document)
        if not as_json:
            show_quote(quote)
            output.say("")
        offer = _pick(quote, rank)
        if not yes:
            _ask(offer)
        item = client.place_order(_quote_id(quote), rank=rank)
        if wait:
            item = wait_until_up(client, item, is_quiet=as_json)
        if as_json:
            print_json(item)
    _tell(item, is_quiet=as_json, waited=wait)


def wait_until_up(client: Client, item: Workload, *, is_quiet: bool = False, told: int = 0) -> Workload:
    """Follow an order until it runs, or does not; Ctrl-C leaves it as it is."""
    try:
        with Waiting(f"waiting for {item['name']} to run", is_quiet=is_quiet) as waiting:
            return follow(client, item, is_up, waiting, told=told)
    except KeyboardInterrupt:
        stands = f"the order stands; `leeway show {output.short(item['order']['id'])}` shows it."
        raise Interrupted(stands, title="Interrupted") from None


def _quote_id(quote: Quote) -> str:
    assert quote["id"] is not None, "only a preview has no id"
    return quote["id"]


def _pick(quote: Quote, rank: int) -> Offer:
    if not quote["offers"]:
        raise Failure(
            f"no site can take {quote['name']}.",
            title="Nothing was ordered",
            hint="The reasons say what to change in the workload.",
        )
    found = next((offer for offer in quote["offers"] if offer["rank"] == rank), None)
    if found is None:
        ranks = ", ".join(str(offer["rank"]) for offer in quote["offers"][:20])
        raise Failure(f"there is no offer of rank {rank}.", title="Nothing was ordered", hint=f"There are: {ranks}.")
    return found


def _ask(offer: Offer) -> None:
    what = f"{offer['offer']} at {offer['site']} for {output.money(offer['total'])}"
    if not click.confirm(f"Order {output.clean(what)}?", default=True, err=True):
        raise Failure("you said no.", title="Nothing was ordered")


def _tell(item: Workload, *, is_quiet: bool, waited: bool) -> None:
    state = summary_state(item)
    if waited and state != "running":
        why = item["order"]["reason"] or next((m["trouble"] for m in item["machines"] if m["trouble"]), None)
        raise Failure(
            f"{item['name']} is {state}{f': {why}' if why else ''}.",
            title="It does not run",
            hint=f"See `leeway explain {output.short(item['order']['id'])}`; what it held is given back.",
        )
    if is_quiet:
        return
    output.say(f"{item['name']} is {state} (id {output.short(item['order']['id'])}).")
    for machine in item["machines"]:
        if machine["addresses"] and machine["gone_at"] is None:
            output.say(f"  {machine['name']} at {machine['site']}: {', '.join(machine['addresses'])}")
