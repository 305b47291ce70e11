"""`leeway inventory`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

import click

from web.cli.command import LeewayCommand, connect, json_option, print_json
from web.cli.inventory_view import show_all, show_one, show_things
from web.cli.main import HELPS
from web.cli.site_view import show_unlisted
from web.client.client import Client

EPILOG = """\b
Examples:
  leeway inventory
  leeway inventory aurora
  leeway inventory aurora --kind volume --idle
  leeway inventory --owner 4f1c... --json
  leeway inventory aurora --project-id 6483...
"""
_KINDS: Final = ("server", "volume", "address", "snapshot", "volume_snapshot")


@click.command("inventory", cls=LeewayCommand, short_help=HELPS["inventory"], epilog=EPILOG)
@click.argument("site", required=False)
@click.option("--kind", type=click.Choice(_KINDS), help="List the things of this kind.")
@click.option("--owner", metavar="USER", help="List what this user has, by the site's id.")
@click.option("--project-id", metavar="PROJECT", help="List what is in this project of the site's, by its id there.")
@click.option("--idle", is_flag=True, help="List what is stopped, or attached to nothing.")
@json_option
def command(site: str | None, *, as_json: bool, **wanted: Any) -> None:
    """Show what is at SITE, or at every site, and what it costs per hour by the rate cards, whoever made it.

    Without an option: sums by kind, by owner and by project, and the quota. With one: the things themselves.
    """
    now = datetime.now(UTC)
    with connect() as client:
        if any(value not in (None, False) for value in wanted.values()):  # an empty id is one that nothing has
            things = [thing for name in _names(client, site) for thing in client.things(name, **wanted)]
            if as_json:
                print_json(things)
            else:
                show_things(things, now=now)
        elif site is not None:
            found = client.inventory(site)
            if as_json:
                print_json(found)
                return
            its_site = client.site(site)
            show_unlisted([its_site])
            show_one(found, its_site["quota"], now=now)
        else:
            all_of_them = [client.inventory(name) for name in _names(client, None)]
            if as_json:
                print_json(all_of_them)
            else:
                show_unlisted(client.sites())
                show_all(all_of_them, now=now)


def _names(client: Client, site: str | None) -> list[str]:
    return [site] if site is not None else sorted(one["name"] for one in client.sites())
