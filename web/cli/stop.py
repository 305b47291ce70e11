"""`leeway stop`."""

from __future__ import annotations

import time
from typing import Final

import click

from web.cli import output
from web.cli.command import LeewayCommand, connect, json_option, print_json
from web.cli.following import follow, is_gone, is_over, told_already
from web.cli.main import HELPS
from web.cli.waiting import Waiting
from web.client.client import Client
from web.client.shapes import Workload

EPILOG = """\b
Examples:
  leeway stop era5-trial
  leeway stop era5-trial --shelve
"""
_HOW: Final = {"end": "end", "keep": "stop", "shelve": "shelve"}
# Seconds.
_CHARGED_WITHIN: Final = 20
_STATE: Final = {"stop": "stopped", "shelve": "shelved"}


@click.command("stop", cls=LeewayCommand, short_help=HELPS["stop"], epilog=EPILOG)
@click.argument("workload")
@click.option("--keep", "what", flag_value="keep", help="Only power it off: it keeps its place, and may cost the same.")
@click.option("--shelve", "what", flag_value="shelve", help="Keep the disk, give the place back; what that costs is "
              "the rate card's matter.")  # fmt: skip
@click.option("--reason", help="Written into its timeline.")
@click.option("--wait/--no-wait", default=True, help="Wait until it is done (the default), or return at once.")
@json_option
def command(workload: str, *, what: str | None, reason: str | None, wait: bool, as_json: bool) -> None:
    """End WORKLOAD (a name or an id): its machines are deleted, with their disks, and what it held is given back.

    What was adopted (`leeway adopt`) is left where it is, and charged no longer.

    With --keep or --shelve the order goes on, and `leeway start` brings the machines back.
    """
    how = _HOW[what or "end"]
    with connect() as client:
        told = told_already(client, workload) if wait else 0
        item = client.stop(workload, how=how, reason=reason)
        # Nothing would come of waiting: after a restore nothing is changed at a site until a person says so.
        observes = client.health()["observing"]
        if wait and not observes:
            item = wait_until_stopped(client, item, how=how, is_quiet=as_json, told=told)
    if as_json:
        print_json(item)
        return
    money = item["money"]
    done = {"end": "is over", "stop": "is stopped", "shelve": "is shelved"}[how]
    if any(machine["adopted_at"] is not None for machine in item["machines"]):
        done = f"is charged no longer, and still at {item['offer']['site']}"
    if observes:
        output.say(
            f"{item['name']} is to stop: that is noted, and carried out after `leeway resume`, as Leeway only observes."
        )
        return
    output.say(f"{item['name']} {done if wait else 'is stopping'}. Spent: {output.money(money['spent'])}.")


def wait_until_stopped(client: Client, item: Workload, *, how: str, is_quiet: bool, told: int) -> Workload:
    """Follow a workload until it is over, stopped or shelved, telling what its timeline gains after `told` lines."""
    gone_since: list[float] = []

    def done(now: Workload) -> bool:
        if how == "end" and is_gone(now) and now["order"]["state"] == "stopping":
            # Charging follows at once, unless a price is missing: that is a finding, and no reason to wait for ever.
            gone_since.append(time.monotonic())
            return gone_since[-1] - gone_since[0] > _CHARGED_WITHIN
        if is_over(now) or how == "end":
            return is_over(now)
        return all(machine["state"] == _STATE[how] for machine in now["machines"] if machine["gone_at"] is None)

    with Waiting(f"waiting for {item['name']} to stop", is_quiet=is_quiet) as waiting:
        return follow(client, item, done, waiting, told=told)
