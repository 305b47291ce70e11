"""Watching a workload until something is true of it; what happens meanwhile is told as it happens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from web.cli.waiting import Waiting
from web.cli.workload_view import event_style
from web.client.client import Client
from web.client.shapes import Workload

_FIRST_PAUSE: Final = 0.3
_LONGEST_PAUSE: Final = 2.0


def is_up(item: Workload) -> bool:
    """Every machine runs, or it is decided that they will not."""
    machines = [machine for machine in item["machines"] if machine["gone_at"] is None]
    return is_over(item) or (bool(machines) and all(machine["state"] == "running" for machine in machines))


def is_over(item: Workload) -> bool:
    """Nothing will run any more and all is charged, or the order was returned to the person."""
    return item["order"]["state"] in ("over", "returned") and is_gone(item)


def is_gone(item: Workload) -> bool:
    """Nothing is left of any machine; what it cost may not be charged yet."""
    return all(machine["gone_at"] is not None for machine in item["machines"])


def told_already(client: Client, ref: str) -> int:
    """How long a workload's timeline is before something is asked of it: that much is no news."""
    item = client.workload(ref)
    return item["events_left_out"] + len(item["events"])


def follow(
    client: Client, item: Workload, done: Callable[[Workload], bool], waiting: Waiting, *, told: int = 0
) -> Workload:
    """Ask for the workload until `done`, telling each line of its timeline after the first `told`; returns it then."""
    pause = _FIRST_PAUSE
    while True:
        seen = item["events_left_out"] + len(item["events"])
        for event in item["events"][max(0, len(item["events"]) - (seen - told)) :]:
            waiting.note(event["text"], style=event_style(event))
        pause = _FIRST_PAUSE if seen > told else min(pause * 1.2, _LONGEST_PAUSE)
        told = seen
        if done(item):
            return item
        waiting.pause(pause)
        item = client.workload(item["order"]["id"])
