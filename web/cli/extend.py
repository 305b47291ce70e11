"""`leeway extend`."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import click

from broker.errors import InvalidInput
from broker.units import duration
from web.cli import output
from web.cli.command import LeewayCommand, connect, json_option, print_json
from web.cli.main import HELPS
from web.client.client import Client
from web.client.shapes import Money, Workload

EPILOG = """\b
Examples:
  leeway extend era5-trial 3 days
  leeway extend era5-trial --until 2026-12-24T12:00Z
"""


class Moment(click.ParamType[datetime]):
    """A day or a time as ISO 8601 writes them; UTC where it names no zone."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """The moment in UTC."""
        try:
            moment = datetime.fromisoformat(str(value))
            return moment.replace(tzinfo=UTC) if moment.utcoffset() is None else moment.astimezone(UTC)
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is not a time; write it like 2026-12-24T12:00Z.", param, ctx)


class Extend(LeewayCommand):
    """Knows that `-3 days` is a length, and no option."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the command line."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            if error.option_name[1:2].isdecimal():
                raise click.UsageError(
                    "An end is only moved later: give a length like `3 days`. `leeway stop` ends it now.", ctx
                ) from None
            raise


@click.command("extend", cls=Extend, short_help=HELPS["extend"], epilog=EPILOG)
@click.argument("workload")
@click.argument("length", nargs=-1)
@click.option("--until", type=Moment(), help="The new end instead of a length; UTC where no zone is named.")
@json_option
def command(workload: str, length: tuple[str, ...], *, until: datetime | None, as_json: bool) -> None:
    """Let WORKLOAD (a name or an id) run for LENGTH longer, like `3 days`, and set the money for that aside.

    It is priced as of now. What is off because its end has come, and is not deleted yet, comes back, for LENGTH from
    now.
    """
    if bool(length) == (until is not None):
        raise click.UsageError("Say how much longer (`3 days`) or until when (--until), one of the two.")
    with connect() as client:
        before = client.workload(workload)
        old = _end(before)
        # Who brings back what is off wants it for the whole length. Where nothing can be kept the server says why.
        new = until or _later(max(old, datetime.now(UTC)), " ".join(length))
        after = client.extend(before["order"]["id"], until=new)
        if as_json:
            print_json(after)
            return
        free = _free(client, after)
    output.say(f"{after['name']} ends on {_words(_end(after))}, not on {_words(old)}.")
    held, was = after["money"]["held"], before["money"]["held"]
    more = Decimal(held["value"]) - Decimal(was["value"])
    change = output.money({"value": str(abs(more)), "commodity": held["commodity"]})
    output.say(f"Set aside: {output.money(held)}, {change} {'more' if more >= 0 else 'less'} than before.")
    output.say(f"Free on the grants of {after['project']}: {output.money(free)}.")
    if (money_until := after["order"]["held_until"]) is not None:
        output.say(
            f"That lasts until {output.clock(money_until)}; before that more is set aside, of what is free then."
        )
        _warn_of_too_little(after, free)


def _warn_of_too_little(item: Workload, free: Money) -> None:
    """The money of a long order is set aside window by window: say now that there is none for the last of them."""
    hourly, money_until = item["offer"]["hourly"], item["order"]["held_until"]
    if money_until is None or hourly["commodity"] != free["commodity"]:
        return
    length = _end(item) - datetime.fromisoformat(money_until)
    rest = Decimal(hourly["value"]) * Decimal(int(length.total_seconds())) / 3600
    if rest > Decimal(free["value"]):
        about = output.money({"value": f"{rest:.2f}", "commodity": free["commodity"]})
        output.say(f"The time after that costs about {about}: without more money on the grants it ends earlier.")


def _later(old: datetime, length: str) -> datetime:
    longer = duration(length, field="LENGTH")
    if not longer:
        raise InvalidInput("LENGTH", f"{length} is no time", hint="Write it like 3 days.")
    try:
        return old + longer
    except OverflowError:
        raise InvalidInput("LENGTH", f"{length} is too long", hint="Write it like 3 days.") from None


def _end(item: Workload) -> datetime:
    """When its last machine ends that is to be kept; where there is none, when the last one ended."""
    machines = item["machines"]
    kept = [one for one in machines if one["gone_at"] is None and one["desired"] not in ("snapshot", "gone")]
    return max(datetime.fromisoformat(machine["ends_at"]) for machine in kept or machines)


def _free(client: Client, item: Workload) -> Money:
    """What the project's grants have left, in the order's currency."""
    code = item["money"]["held"]["commodity"]
    grants = [grant for spend in client.spend(project=item["project"]) for grant in spend["grants"]]
    free = sum((Decimal(g["free"]["value"]) for g in grants if g["free"]["commodity"] == code), Decimal(0))
    return {"value": str(free), "commodity": code}


def _words(moment: datetime) -> str:
    return output.clock(moment.isoformat())
