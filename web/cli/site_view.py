"""Sites as people read them: one line each, or one with its quota and the last check."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from rich.console import Console
from rich.text import Text

from web.cli import output
from web.cli.inventory_view import show_kinds, show_quota
from web.client.shapes import Diagnosis, Inventory, Site


def show_list(sites: Sequence[Site], *, now: datetime, console: Console | None = None) -> None:
    """A line for each."""
    troubled = [site for site in sites if trouble(site)]
    columns: dict[str, list[output.Cell]] = {
        "site": [output.styled(site["name"], "bold") for site in sites],
        "provider": [site["provider"] for site in sites],
        "kind": [site["adapter"] for site in sites],
        "use": [_use(site) for site in sites],
        "machine types": [str(site["offers"]) for site in sites],
        "images": [str(len(site["images"])) for site in sites],
        "listed": [output.when(site["changes_at"] or site["listed_at"], now=now) for site in sites],
        "trouble": [output.styled("yes" if site in troubled else "", "red") for site in sites],
    }
    output.show_columns(
        columns,
        right=("machine types", "images"),
        spare=("images", "machine types", "kind"),
        empty="No site yet: `leeway site add`.",
        console=console,
    )
    if troubled:
        output.say("", console=console)
    for site in troubled:
        output.say(output.styled(f"{site['name']}: {unnamed_trouble(site)}", "red"), console=console)


def show_site(site: Site, *, now: datetime, inventory: Inventory | None = None, console: Console | None = None) -> None:
    """All of one; with what is there, where that was asked for."""
    console = console or output.screen()
    console.print(Text.assemble((output.clean(site["name"]), "bold"), f"  {output.clean(site['endpoint'])}"))
    facts = output.table("", "")
    facts.show_header = False
    place = ", ".join(part for part in (site["region"], site["jurisdiction"]) if part) or "not stated"
    output.row(facts, "provider", site["provider"])
    output.row(facts, "place", place)
    output.row(facts, "use", _use(site))
    output.row(facts, "listed", _listed(site, now=now))
    if under_way := progress(site):
        output.row(facts, "listing now", under_way)
    output.row(facts, "machine types", str(site["offers"]))
    output.row(facts, "images", ", ".join(site["images"]) or "none")
    if found := trouble(site):
        output.row(facts, "trouble", output.styled(found, "red"))
    output.show(facts, console=console, indent=2)
    console.print()
    if inventory is not None:
        show_kinds(inventory, console=console)
        console.print()
    show_quota(site["quota"], console=console)
    console.print()
    show_diagnosis(site["diagnosis"], console=console)


def show_diagnosis(steps: Sequence[Diagnosis], *, console: Console | None = None) -> None:
    """What was tried with the credential, step by step."""
    made = output.table("step", "", "what was found")
    for step in steps:
        mark = output.styled("ok" if step["ok"] else "failed", "green" if step["ok"] else "bold red")
        output.row(made, step["step"], mark, step["detail"])
        if step["hint"]:
            output.row(made, "", "", output.styled(step["hint"], "cyan"))
    output.show(made, empty="It has not been checked yet.", console=console, indent=2)


def progress(site: Site) -> str | None:
    """How far the listing under way is; None where there is none."""
    return None if site["listing_since"] is None else f"{site['listing_read'] or 0:,} things read so far"


def show_unlisted(sites: Sequence[Site], *, console: Console | None = None) -> None:
    """A line for each site that was never listed: until then nothing is known of what is there."""
    for site in sites:
        if site["enabled"] and site["listed_at"] is None:
            state = progress(site) or unnamed_trouble(site) or "it waits for a worker"
            said = f"{site['name']} has not been listed yet: {state.removesuffix('.')}."
            output.say(output.styled(said, "dim"), console=console)


def _listed(site: Site, *, now: datetime) -> str:
    """`12 min ago, changes 1 min ago`."""
    listed = output.when(site["listed_at"], now=now)
    return listed if site["changes_at"] is None else f"{listed}, changes {output.when(site['changes_at'], now=now)}"


def trouble(site: Site) -> str | None:
    """What keeps machines from being started there, None where nothing does."""
    failed = next((step for step in site["diagnosis"] if not step["ok"]), None)
    return site["trouble"] or (failed["detail"] if failed else None)


def unnamed_trouble(site: Site) -> str:
    """Without the site's name, which errors of sites begin with; empty where there is none."""
    return (trouble(site) or "").removeprefix(f"{site['name']}: ")


def _use(site: Site) -> str:
    if not site["enabled"]:
        return "off"
    return "observe" if site["observe_only"] else "broker"
