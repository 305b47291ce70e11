"""`leeway site boot-test`."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

import click

from broker.units import duration
from web.cli import output
from web.cli.command import Failure, Interrupted, LeewayCommand, connect, json_option, print_json
from web.cli.health_view import boot_words
from web.cli.waiting import Waiting
from web.client.client import Client
from web.client.shapes import BootTest

_EPILOG = """\b
Examples:
  leeway site boot-test aurora --project operations
  leeway site boot-test aurora --project operations --every "1 day"
  leeway site boot-test aurora --every never
"""
# Longer than the server gives a machine.
_SECONDS: Final = timedelta(minutes=25).total_seconds()
# What the API takes.
_SHORTEST: Final = timedelta(hours=1)
_LONGEST: Final = timedelta(days=31)


@click.command("boot-test", cls=LeewayCommand, epilog=_EPILOG)
@click.argument("name")
@click.option("--project", help="The project whose grants pay for the machine.")
@click.option("--image", help="What it starts from; the smallest image of the site where not given.")
@click.option("--every", help="Do it again and again, like `1 day`, the first time within a minute; or `never` more.")
@click.option("--wait/--no-wait", default=True, help="Wait for what comes of it (the default), or return at once.")
@json_option
def command(name: str, *, project: str | None, image: str | None, every: str | None, wait: bool, as_json: bool) -> None:
    """Start a machine at the site NAME to see whether it comes up, and how soon; then it is stopped.

    It is the cheapest that the site sells, an order like any other: it is charged to the project.
    """
    if every == "never":
        with connect() as client:
            client.forget_boot_plan(name)
        output.say(f"{name} is not tested at intervals.")
        return
    if project is None:
        raise click.UsageError("Who pays for the machine? Add --project.")
    wanted: dict[str, Any] = {"project": project} | ({} if image is None else {"image": image})
    if every is not None:
        _plan(name, wanted, duration(every, field="every", example="1 day"), as_json=as_json)
        return
    with connect() as client:
        order_id = client.start_boot_test(name, wanted)
        test = _last(client, name, order_id, wait=wait, is_quiet=as_json)
    if as_json:
        print_json(test)
    if test["error"] is not None:
        hint = f"See `leeway show {output.short(order_id)}`."
        raise Failure(test["error"], title=f"No machine came up at {name}", hint=hint)
    if not as_json:
        output.say(f"{name}: {boot_words(test)} (order {output.short(order_id)}, which is charged to {project}).")


def _plan(name: str, wanted: dict[str, Any], every: timedelta, *, as_json: bool) -> None:
    if not _SHORTEST <= every <= _LONGEST:
        raise click.UsageError("--every takes an hour to 31 days, or `never`.")
    with connect() as client:
        plan = client.plan_boot_tests(name, wanted | {"every_seconds": int(every.total_seconds())})
    if as_json:
        print_json(plan)
    else:
        output.say(f"{name} is tested every {output.span(plan['every_seconds'])}; see `leeway site show {name}`.")


def _last(client: Client, name: str, order_id: str, *, wait: bool, is_quiet: bool) -> BootTest:
    """The test of this order; where that is wanted, once something came of it."""
    with Waiting(f"waiting for a machine at {name}", is_quiet=is_quiet or not wait) as waiting:
        try:
            while True:
                tests = client.site_health(name)["boot_tests"]
                test = next(one for one in tests if one["order_id"] == order_id)
                if test["ended_at"] is not None or not wait:
                    return test
                if waiting.seconds > _SECONDS:
                    raise Failure(
                        f"nobody has judged it for {_SECONDS / 60:.0f} min.",
                        title="No answer",
                        hint="Do a worker and a clock run? See `leeway doctor`.",
                    )
                waiting.pause(1.0)
        except KeyboardInterrupt:
            goes_on = f"the test goes on; `leeway site show {name}` tells what came of it."
            raise Interrupted(goes_on, title="Interrupted") from None
