"""`leeway adopt`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

import click

from web.cli import output
from web.cli.command import Failure, LeewayCommand, connect, failure, json_option, print_json
from web.cli.extend import Moment
from web.cli.inventory_view import show_things
from web.cli.main import HELPS
from web.client.errors import ClientError
from web.client.shapes import Money, Thing, Workload

EPILOG = """\b
Examples:
  leeway adopt aurora web-1 data-volume --project climate
  leeway adopt aurora --owner 4f1c... --project climate --until 2027-06-30
  leeway adopt aurora --project-id 6483... --project climate
  leeway adopt aurora --idle --project leftovers --dry-run
"""
_KINDS: Final = ("server", "volume", "address", "snapshot", "volume_snapshot")
# Of one request, which adopts all that it names or nothing.
_AT_ONCE: Final = 500


@click.command("adopt", cls=LeewayCommand, short_help=HELPS["adopt"], epilog=EPILOG)
@click.argument("site")
@click.argument("things", nargs=-1, metavar="[THING]...")
@click.option("--project", required=True, help="Who pays for them from now on.")
@click.option("--kind", type=click.Choice(_KINDS), help="Only things of this kind; without THING, all of them.")
@click.option("--owner", metavar="USER", help="Only what this user has, by the site's id.")
@click.option("--project-id", metavar="PROJECT", help="Only what is in this project of the site's, by its id there.")
@click.option("--idle", is_flag=True, help="Only what is stopped, or attached to nothing.")
@click.option("--until", type=Moment(), help="When somebody is to look at them again; 366 days, if not given.")
@click.option("--dry-run", is_flag=True, help="Show what would be adopted, and what it costs.")
@json_option
def command(*, site: str, things: Sequence[str], project: str, dry_run: bool, as_json: bool, **options: Any) -> None:
    """Have a project pay for what is at SITE already: each THING (a name, or the site's id) becomes a workload.

    They are metered and charged from now on. Leeway does not change them, ever: `leeway stop` ends the charging and
    leaves them where they are.
    """
    until = options.pop("until")
    if not (things or any(value not in (None, False) for value in options.values())):
        raise click.UsageError("Which things? Name them, or say --kind, --owner, --project-id or --idle.")
    with connect() as client:
        found = client.things(site, **options)
        picked = _picked(found, things, site=site) if things else [one for one in found if _is_free(one)]
        if dry_run:
            _show(picked, as_json=as_json)
            return
        made: list[Workload] = []
        for start in range(0, len(picked), _AT_ONCE):
            ids = [thing["id"] for thing in picked[start : start + _AT_ONCE]]
            try:
                made += client.adopt(site, ids, project=project, until=until)
            except ClientError as error:
                if not made:
                    raise
                raise _broken_off(failure(error), made=len(made), wanted=len(picked)) from error
    if as_json:
        print_json(made)
        return
    _tell(made, project)


def _broken_off(found: Failure, *, made: int, wanted: int) -> Failure:
    """The failure of a later request, with what the former ones did."""
    detail = f"{found.message.removesuffix('.')}. {made} of the {wanted} things are adopted already."
    return type(found)(detail, title=found.title, hint=found.hint, more=found.more)


def _show(picked: Sequence[Thing], *, as_json: bool) -> None:
    if as_json:
        print_json(list(picked))
        return
    show_things(picked, now=datetime.now(UTC))
    if picked:
        output.say("")
        output.say(_in_all(picked))


def _in_all(picked: Sequence[Thing]) -> str:
    """`3 things, 0.03 EUR an hour, 0.72 EUR a day; 1 without a price, which is refused`."""
    costs: dict[str, Decimal] = defaultdict(Decimal)
    prices = [thing["per_hour"] for thing in picked]
    for price in filter(None, prices):
        costs[price["commodity"]] += Decimal(price["value"])
    parts = ["1 thing" if len(picked) == 1 else f"{len(picked)} things"]
    for length, hours in (("an hour", 1), ("a day", 24)):
        sums: list[Money] = [{"value": str(cost * hours), "commodity": name} for name, cost in sorted(costs.items())]
        parts += [f"{output.monies(sums)} {length}"] if sums else []
    unknown = prices.count(None)
    return ", ".join(parts) + (f"; {unknown} without a price: the rate card lacks it" if unknown else "")


def _tell(made: Sequence[Workload], project: str) -> None:
    if not made:
        output.say("There is nothing to adopt.")
    for item in made:
        output.say(
            f"{item['name']}: {output.money(item['offer']['hourly'])} an hour, charged to {project} from now on."
        )


def _is_free(thing: Thing) -> bool:
    """Whether it is nobody's, as far as the inventory says; who names a thing is told why it is not."""
    return thing["lease_id"] is None and thing["installation"] is None and thing["state"] != "deleting"


def _picked(found: Iterable[Thing], wanted: Sequence[str], *, site: str) -> list[Thing]:
    """The thing that each word means: by the site's id, by Leeway's, or by a name that only one has."""
    listed = list(found)
    picked: dict[str, Thing] = {}
    for word in wanted:
        ones = [thing for thing in listed if word in (thing["remote_id"], thing["id"])]
        ones = ones or [thing for thing in listed if thing["name"] == word]
        if len(ones) != 1:
            what = f"{len(ones)} things are called" if ones else "nothing is called"
            some = ", ".join(f"{thing['kind']} {thing['remote_id']}" for thing in ones[:5])
            hint = (
                f"Give the id of one: {some}." if ones else f"`leeway inventory {site} --kind server` lists machines."
            )
            raise Failure(f"At {site} {what} {word!r}.", title="That cannot be adopted", hint=hint)
        picked[ones[0]["id"]] = ones[0]
    return list(picked.values())
