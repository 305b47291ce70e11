"""`leeway findings`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import click

from web.cli import output
from web.cli.command import LeewayCommand, connect, json_option, print_json
from web.cli.main import HELPS
from web.cli.site_view import show_unlisted
from web.client.shapes import Finding, FindingSums, Money

EPILOG = """\b
Examples:
  leeway findings
  leeway findings --most 100
  leeway findings --json
"""


@click.command("findings", cls=LeewayCommand, short_help=HELPS["findings"], epilog=EPILOG)
@click.option("--most", type=click.IntRange(0, 200), default=20, show_default=True, help="List at most so many.")
@json_option
def command(*, most: int, as_json: bool) -> None:
    """List what a person should look at, with what it costs per day where that is known.

    First the sums, then the findings: what went wrong, then what costs, the dearest first.
    """
    with connect() as client:
        if as_json:
            print_json(client.findings())
            return
        found, sites = client.finding_sums(most=most), client.sites()
    show_unlisted(sites)
    if not found["count"]:
        output.say(output.styled("Nothing needs you.", "dim"))
        return
    _show_sums(found)
    if found["first"]:
        output.say("")
        _show_findings(found["first"], now=datetime.now(UTC))
    if left := found["count"] - len(found["first"]):
        output.say(f"and {left} more: `leeway findings --most {min(found['count'], 200)}`, or `--json`.")


def _show_sums(found: FindingSums) -> None:
    number = "1 finding" if found["count"] == 1 else f"{found['count']} findings"
    output.say(f"{number}, per day {_per_day(found['per_day'], found['unknown'])}")
    if len(found["sums"]) < 2:
        return
    made = output.table("kind", "site", "number", "per day", right=("number", "per day"))
    for one in found["sums"]:
        output.row(made, one["kind"], one["site"] or "-", str(one["count"]), _per_day(one["per_day"], one["unknown"]))
    output.show(made)


def _per_day(amounts: Sequence[Money], unknown: int) -> str:
    """`12.40 EUR`, `12.40 EUR and 3 unknown`, `unknown`."""
    known = [output.monies(amounts)] if amounts else []
    return " and ".join([*known, *([f"{unknown} unknown"] if unknown else [])]) or "0"


def _show_findings(findings: Sequence[Finding], *, now: datetime) -> None:
    """What to do about several stands with the first of them."""
    told: set[tuple[str, str]] = set()
    made = output.table("kind", "site", "what, and what to do", "per day", "since", right=("per day",))
    for finding in findings:
        cost = output.money(finding["per_day"])
        way_out = (finding["kind"], finding["hint"])
        what = finding["text"] if way_out in told else f"{finding['text'].removesuffix('.')}. {finding['hint']}"
        told.add(way_out)
        since = output.when(finding["first_seen_at"], now=now)
        output.row(made, finding["kind"], finding["site"] or "-", what, cost, since)
    output.show(made)
