"""Workloads as people read them: one line each, or one with its machines, money and timeline."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Final

from rich.console import Console
from rich.text import Text

from web.cli import output
from web.client.shapes import Event, Machine, Spend, Workload, WorkloadItem

_EVENT_STYLES: Final = {"refused": "red", "returned": "red", "vanished": "red", "missing": "yellow", "order": "bold"}


def show_list(
    items: Sequence[WorkloadItem], *, now: datetime, is_part: bool = False, console: Console | None = None
) -> None:
    """A line for each. `is_part`: only some kind of them was asked for."""
    columns: dict[str, list[output.Cell]] = {
        "workload": [output.styled(item["name"], "bold") for item in items],
        "id": [output.short(item["order"]["id"]) for item in items],
        "project": [item["project"] for item in items],
        "state": [output.state(summary_state(item)) for item in items],
        "site": [_join(machine["site"] for machine in _current(item)) or item["offer"]["site"] for item in items],
        "machine": [item["offer"]["name"] for item in items],
        "address": [_join(address for one in _current(item) for address in one["addresses"]) or "-" for item in items],
        "spent": [_used(item) for item in items],
        "ends": [_end(item, now=now) for item in items],
    }
    output.show_columns(
        columns,
        right=("spent",),
        spare=("machine", "project", "spent", "id"),
        empty="No such workloads." if is_part else "No workloads. `leeway submit FILE` orders one.",
        console=console,
    )


def summary_state(item: WorkloadItem) -> str:
    """The machines' state where the order is under way and they agree, else the order's."""
    state = item["order"]["state"]
    if state not in ("placed", "active"):
        return state
    found = {machine["state"] for machine in _current(item)}
    return found.pop() if len(found) == 1 else state


def show_workload(item: Workload, *, now: datetime, console: Console | None = None) -> None:
    """All of one."""
    console = console or output.screen()
    console.print(
        Text.assemble(
            (output.clean(item["name"]), "bold"), "  ", output.state(summary_state(item)), f"  {item['order']['id']}"
        )
    )
    facts = output.table("", "")
    facts.show_header = False
    order, money = item["order"], item["money"]
    output.row(facts, "project", item["project"])
    picked = item["offer"]
    came = "adopted" if any(machine["adopted_at"] for machine in item["machines"]) else "ordered"
    output.row(facts, came, f"{picked['name']} at {picked['site']}, {output.money(picked['hourly'])} an hour")
    output.row(facts, "placed", f"{output.clock(order['placed_at'])} UTC ({output.when(order['placed_at'], now=now)})")
    output.row(facts, "ends", _end(item, now=now))
    used = f"spent {output.money(money['spent'])}, used since {output.money(money['accrued'])}"
    output.row(facts, "money", f"{used}, set aside {output.money(money['held'])}")
    if order["reason"]:
        output.row(facts, "reason", order["reason"])
    output.show(facts, console=console, indent=2)
    console.print()
    _show_machines(item["machines"], console)
    console.print()
    show_timeline(item["events"], left_out=item["events_left_out"], console=console)


def _show_machines(machines: Sequence[Machine], console: Console) -> None:
    made = output.table("machine", "site", "state", "address", "since", "trouble")
    for machine in machines:
        output.row(
            made,
            machine["name"],
            machine["site"],
            output.state(machine["state"]),
            _join(machine["addresses"]) or "-",
            output.clock(machine["started_at"]) or "-",
            machine["trouble"] or "",
        )
    output.show(made, empty="No machine yet.", console=console, indent=2)


def show_timeline(events: Sequence[Event], *, console: Console, left_out: int = 0) -> None:
    """Oldest first, UTC."""
    if left_out:
        console.print(Text(f"  {left_out} older lines are not shown", style="dim"))
    made = output.table("time (UTC)", "what happened", "by")
    for event in events:
        by = "" if event["actor"] == "leeway" else event["actor"]
        output.row(made, output.clock(event["at"]), output.styled(event["text"], event_style(event)), by)
    output.show(made, empty="Nothing happened yet.", console=console, indent=2)


def event_style(event: Event) -> str:
    """Refusals stand out."""
    return _EVENT_STYLES.get(event["kind"], "")


def _current(item: WorkloadItem) -> list[Machine]:
    """Those that are not gone; all where every one is."""
    return [machine for machine in item["machines"] if machine["gone_at"] is None] or item["machines"]


def _join(words: Iterable[str]) -> str:
    """Each once, in their order."""
    return ", ".join(dict.fromkeys(words))


def _used(item: WorkloadItem) -> str:
    """What was charged, and with a plus what was used since."""
    money = item["money"]
    spent = output.money(money["spent"])
    if money["accrued"] is None:
        return f"{spent} + unknown"
    return f"{spent} + {output.money(money['accrued'])}" if Decimal(money["accrued"]["value"]) else spent


def _end(item: WorkloadItem, *, now: datetime) -> str:
    if item["order"]["ended_at"] is not None:
        return f"ended {output.when(item['order']['ended_at'], now=now)}"
    if item["order"]["state"] == "stopping":
        return "is being ended"
    machines = _current(item)
    if not machines:
        return "-"
    last = max(machines, key=lambda machine: machine["paid_until"])
    paid = datetime.fromisoformat(last["paid_until"])
    if last["gone_at"] is None and last["adopted_at"] is None and paid <= now:
        goes = f"deleted {output.when(last['deleted_at'], now=now)}"
        if last["kept_until"] is not None:
            goes = f"its snapshot is deleted {output.when(last['kept_until'], now=now)}"
        return f"{output.when(last['paid_until'], now=now)}; {goes}"
    end = output.when(last["ends_at"], now=now) + (" (adopted: not deleted)" if last["adopted_at"] else "")
    if last["gone_at"] is not None or paid >= datetime.fromisoformat(last["ends_at"]):
        return end
    # A long order's money is set aside for a window that moves on: where that ends, the order does not.
    return f"{end}; money for {output.span((paid - now).total_seconds())}"


# --- money -----------------------------------------------------------------------------------------------------------


def show_spend(spend: Spend, *, console: Console | None = None) -> None:
    """A project's grants, then its machines."""
    console = console or output.screen()
    console.print(Text.assemble("project ", (output.clean(spend["project"]), "bold")))
    grants = spend["grants"]
    columns: dict[str, list[str]] = {
        "grant": [grant["name"] for grant in grants],
        "spent": output.column([grant["spent"] for grant in grants]),
        "used since": output.column([grant["accrued"] for grant in grants]),
        "set aside": output.column([grant["held"] for grant in grants]),
        "free": output.column([grant["free"] for grant in grants]),
        "of": output.column([grant["ceiling"] for grant in grants]),
        "until": [output.clock(grant["ends_at"])[:10] for grant in grants],
    }
    output.show_columns(
        columns,
        right=("spent", "used since", "set aside", "free", "of"),
        spare=("until", "of"),
        empty="It has no grant: `leeway grant add`.",
        console=console,
        indent=2,
    )
    for amount in spend["overdraft"]:
        console.print(Text(f"  {output.money(amount)} were charged beyond what was set aside", style="red"))
    if not spend["workloads"]:
        return
    console.print()
    lines = spend["workloads"]
    output.show_columns(
        {
            "workload": [line["workload"] for line in lines],
            "machine": [line["machine"] for line in lines],
            "site": [line["site"] for line in lines],
            "state": [output.state(line["state"]) for line in lines],
            "charged": [output.monies(line["charged"]) for line in lines],
            "used since": [output.monies(line["accrued"]) for line in lines],
        },
        right=("charged", "used since"),
        spare=("machine", "site"),
        console=console,
        indent=2,
    )
