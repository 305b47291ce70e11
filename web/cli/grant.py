"""`leeway grant`."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from web.cli import output
from web.cli.command import LeewayCommand, connect, json_option, print_json
from web.cli.main import HELPS

EPILOG = """\b
Examples:
  leeway grant add era5 --project climate --amount '1000 EUR' --until 2027-01-01
  leeway grant list --project climate
"""
_TIMES = ("%Y-%m-%d", "%Y-%m-%dT%H:%M:%SZ")


@click.group("grant", short_help=HELPS["grant"], epilog=EPILOG)
def command() -> None:
    """Give money to projects: a grant pays for a project's workloads from its start to its end."""


@command.command(
    "add",
    cls=LeewayCommand,
    epilog="\b\nExample:\n  leeway grant add era5 --project climate --amount '1000 EUR' --until 2027-01-01\n",
)
@click.argument("name")
@click.option("--project", required=True, help="Whose grant it is.")
@click.option("--amount", required=True, help="With its currency, like '1000 EUR'.")
@click.option("--until", type=click.DateTime(_TIMES), required=True, help="Its end, UTC (that day is not in it).")
@click.option("--from", "since", type=click.DateTime(_TIMES), help="Its start, UTC; now where not given.")
@json_option
def add(name: str, *, project: str, amount: str, until: datetime, since: datetime | None, as_json: bool) -> None:
    """Make the grant NAME."""
    wanted = {"project": project, "name": name, "amount": amount, "ends_at": until.replace(tzinfo=UTC).isoformat()}
    if since is not None:
        wanted["starts_at"] = since.replace(tzinfo=UTC).isoformat()
    with connect() as client:
        grant = client.add_grant(wanted)
    if as_json:
        print_json(grant)
    else:
        until_day = output.clock(grant["ends_at"])[:10]
        output.say(f"Grant {grant['name']}: {output.money(grant['amount'])} for {grant['project']} until {until_day}.")


@command.command("list", cls=LeewayCommand, epilog="\b\nExample:\n  leeway grant list --project climate\n")
@click.option("--project", help="Only this project's.")
@json_option
def list_(*, project: str | None, as_json: bool) -> None:
    """List grants: what each amounts to, and how much of it is spent, held and free."""
    with connect() as client:
        found = client.grants(project=project)
    if as_json:
        print_json(found)
        return
    output.show_columns(
        {
            "grant": [grant["name"] for grant in found],
            "project": [grant["project"] for grant in found],
            "amount": output.column([grant["amount"] for grant in found]),
            "spent": output.column([grant["spent"] for grant in found]),
            "set aside": output.column([grant["held"] for grant in found]),
            "free": output.column([grant["free"] for grant in found]),
            "from": [output.clock(grant["starts_at"])[:10] for grant in found],
            "until": [output.clock(grant["ends_at"])[:10] for grant in found],
        },
        right=("amount", "spent", "set aside", "free"),
        spare=("from", "until"),
        empty="No grant yet: `leeway grant add`.",
    )
