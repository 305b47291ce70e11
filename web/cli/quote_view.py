"""A quote as people read it: the ranked offers, and for every site why it is where it is."""

from __future__ import annotations

from typing import Final

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from web.cli import output
from web.client.shapes import Offer, Quote, Reason, Verdict

# The best offers; the site's own best ones stand in the reasons.
_SHOWN: Final = 8


def show_quote(quote: Quote, *, console: Console | None = None) -> None:
    """Offers, reasons, and what to change where nothing fits."""
    console = console or output.screen()
    console.print(Text.assemble((output.clean(quote["name"]), "bold"), f" {_wanted(quote)}"))
    console.print()
    if quote["workload"]["kind"] == "adopted":
        console.print(Text("  It was there before, and nothing was chosen."))
        return
    if quote["offers"]:
        _show_offers(quote["offers"], console)
    else:
        console.print(Text("  No site can take it.", style="bold red"))
    console.print()
    show_reasons(quote, console=console)


def show_reasons(quote: Quote, *, console: Console) -> None:
    """A line for every site, and under it what to change where nothing fits; then the nearest changes of all."""
    made = output.table("site", "why")
    for verdict in sorted(quote["verdicts"], key=_place):
        output.row(made, _site(verdict), _summary(verdict))
        for reason in _telling(verdict):
            what = f"{_words(reason['clause'])}: wanted {reason['wanted']}, but {reason['offered']}. "
            output.row(made, "", Text.assemble(output.clean(what), (output.clean(reason["hint"]), "cyan")))
    output.show(made, empty="  No site is connected yet: `leeway site add`.", console=console, indent=2)
    if quote["relaxations"]:
        console.print()
        console.print(Text("  What would help most:", style="bold"))
        for line in quote["relaxations"]:
            console.print(Padding(output.styled(line, "cyan"), (0, 0, 0, 4), expand=False))


def _place(verdict: Verdict) -> tuple[bool, int, str]:
    return verdict["rank"] is None, verdict["rank"] or 0, verdict["site"]


def _site(verdict: Verdict) -> Text:
    return output.styled(verdict["site"], "dim" if verdict["rank"] is None else "bold")


def _summary(verdict: Verdict) -> str:
    """The reasons of a site where nothing fits have lines of their own."""
    if verdict["rank"] is None and verdict["reasons"]:
        count = verdict["offers"]
        return f"none of its {count} instance types fits" if count > 1 else "nothing fits"
    return verdict["summary"]


def _telling(verdict: Verdict) -> list[Reason]:
    """Where the site itself is out, nothing else about it helps; `--json` has all."""
    return [reason for reason in verdict["reasons"] if reason["clause"] == "site"] or verdict["reasons"]


def _words(clause: str) -> str:
    return clause.replace("_", " ")


def _show_offers(offers: list[Offer], console: Console) -> None:
    shown = offers[:_SHOWN]
    amounts = {name: output.column([offer[name] for offer in shown]) for name in ("hourly", "total", "hold")}
    columns: dict[str, list[output.Cell]] = {
        "rank": [str(offer["rank"]) for offer in shown],
        "site": [offer["site"] for offer in shown],
        "machine": [offer["offer"] for offer in shown],
        "cores": [str(offer["cores"] or "-") for offer in shown],
        "memory": [output.memory(offer["memory_mib"]) if offer["memory_mib"] else "-" for offer in shown],
        "disk": [f"{offer['disk_gib']} GiB" for offer in shown],
        "GPUs": [str(offer["gpus"] or "-") for offer in shown],
        "per hour": [*amounts["hourly"]],
        "total": [output.styled(text, "" if place else "bold") for place, text in enumerate(amounts["total"])],
        "set aside": [*amounts["hold"]],
    }
    numbers = [name for name in columns if name not in ("site", "machine")]
    output.show_columns(columns, right=numbers, spare=("disk", "GPUs", "set aside"), console=console, indent=2)
    if len(offers) > len(shown):
        console.print(Text(f"  and {len(offers) - len(shown)} more (--json shows all)", style="dim"))


def _wanted(quote: Quote) -> str:
    """The workload in one line, from its canonical document."""
    workload = quote["workload"]
    if workload["kind"] == "adopted":
        return output.clean(f"for project {quote['project']}: {workload['thing']} {workload['remote_id']}, as it was")
    resources = workload["resources"]
    cores = resources["cores"]
    parts = ["1 core" if cores == 1 else f"{cores} cores", str(resources["memory"])]
    if resources.get("disk"):
        parts.append(f"{resources['disk']} disk")
    if resources.get("gpus"):
        parts.append(f"{resources['gpus']} x {resources.get('gpu_model', 'GPU')}")
    parts += [str(workload["image"]), str(workload["duration"])]
    if workload.get("keep_snapshot"):
        parts.append(f"a snapshot kept for {workload['keep_snapshot']}")
    if workload.get("count"):
        parts.insert(0, f"{workload['count']} machines of")
    return output.clean(f"for project {quote['project']}: {', '.join(parts)}")
