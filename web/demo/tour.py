"""The tour: one workload from its price to its charge, and one that no site can take."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from importlib import resources
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.text import Text

from adapters.sandbox.profiles import DEMO_PASSWORD, profile
from broker.errors import SetupError
from web.cli import site_view
from web.cli.following import follow, is_over, is_up
from web.cli.quote_view import show_quote
from web.cli.waiting import Waiting
from web.cli.workload_view import show_spend, summary_state
from web.client.client import Client
from web.client.place import Place
from web.client.shapes import Workload

PROJECT: Final = "climate"
GRANT: Final = "100 EUR"
_JURISDICTIONS: Final = {"aurora": "EE", "borealis": "FI"}
# How long each step may take before something is wrong.
_LISTING_SECONDS: Final = 60.0
_STEP_SECONDS: Final = 120.0
# A meter that ran for so long shows something.
_METERED_SECONDS: Final = 4
_LINE: Final = 100
_LOOK: Final = "Look into server.log in the demo's directory."


def connect_clouds(client: Client, clouds: Mapping[str, str], waiting: Waiting) -> None:
    """Connect the clouds as sites, with prices, and give a project a grant; returns once both are listed."""
    home = {"name": "home", "title": "Home university", "jurisdiction": "EE"}
    client.add_project({"name": PROJECT, "title": "Climate", "institution": home})
    ends_at = (datetime.now(UTC) + timedelta(days=365)).isoformat()
    client.add_grant({"project": PROJECT, "name": "first", "amount": GRANT, "ends_at": ends_at})
    for name, auth_url in clouds.items():
        client.add_site(_site(name, auth_url))
        client.import_rate_card({"document": text(f"{name}.yaml"), "format": "yaml"})
    waiting.note(f"two sites connected, with prices; project {PROJECT} has a grant of {GRANT}")
    started = waiting.seconds
    while not all(_is_ready(client, name) for name in clouds):
        if waiting.seconds - started > _LISTING_SECONDS:
            raise SetupError("The sites were not listed in time.", hint=_LOOK)
        waiting.pause(0.2)
    waiting.note("both sites are checked and listed")


def _site(name: str, auth_url: str) -> dict[str, Any]:
    config = profile(name)
    return {
        "name": name,
        "provider": name,
        "adapter": "sandbox",
        "endpoint": auth_url,
        "region": config.region,
        "jurisdiction": _JURISDICTIONS[name],
        # What a sandbox accepted shows at once; without this the end of a machine a few seconds old is not believed.
        "settings": {"settle_time": "3"},
        "credential": {
            "username": "leeway",
            "password": DEMO_PASSWORD,
            "project_name": config.projects[0].name,
            "user_domain_name": "Default",
            "project_domain_name": "Default",
        },
    }


def _is_ready(client: Client, name: str) -> bool:
    site = client.site(name)
    if found := site_view.trouble(site):
        raise SetupError(f"The site {name} cannot be used: {found}.", hint=_LOOK)
    return site["offers"] > 0 and not site["check_pending"]


# --- the steps -------------------------------------------------------------------------------------------------------


def text(name: str) -> str:
    """A file of the demo."""
    return (resources.files("web.demo") / name).read_text(encoding="utf-8")


@dataclass(frozen=True, slots=True)
class Tour:
    """The steps, each under the command that does the same."""

    client: Client
    console: Console

    def show(self) -> None:
        """All of them."""
        self._title("Two clouds are connected.", "leeway site list")
        site_view.show_list(self.client.sites(), now=datetime.now(UTC), console=self.console)
        quote_id = self._quote()
        item = self._order(quote_id)
        item = self._meter(item)
        self._stop(item)
        self._refuse()

    def _quote(self) -> str:
        self._title("What would this workload cost, and where?", "leeway quote workload.yaml")
        self._document("workload.yaml")
        quote = self.client.make_quote(text("workload.yaml"))
        show_quote(quote, console=self.console)
        if quote["id"] is None or not quote["offers"]:
            raise SetupError("No site has an offer for the demo's workload.", hint=_LOOK)
        return quote["id"]

    def _order(self, quote_id: str) -> Workload:
        words = "Order the first offer: money and quota are set aside, then it starts."
        self._title(words, "leeway submit workload.yaml")
        item = self.client.place_order(quote_id, rank=1)
        item = self._follow(item, is_up, f"waiting for {item['name']} to run")
        if summary_state(item) != "running":
            raise SetupError(f"{item['name']} is {summary_state(item)}.", hint=_LOOK)
        machine = item["machines"][0]
        addresses = ", ".join(machine["addresses"])
        self.console.print(Text(f"\n  {item['name']} runs at {machine['site']}, address {addresses}"))
        return item

    def _meter(self, item: Workload) -> Workload:
        self._title("It is metered while it runs.", f"leeway spend {PROJECT}")
        hourly = Decimal(item["offer"]["hourly"]["value"])

        def is_metered(now: Workload) -> bool:
            accrued, spent = now["money"]["accrued"], now["money"]["spent"]
            if accrued is None:
                raise SetupError("The price of the demo's machine is not known.", hint=_LOOK)
            return Decimal(accrued["value"]) + Decimal(spent["value"]) >= hourly * _METERED_SECONDS / 3600

        item = self._follow(item, is_metered, "letting its meter run", told=len(item["events"]))
        self.console.print()
        show_spend(self.client.spend(project=PROJECT)[0], console=self.console)
        return item

    def _stop(self, item: Workload) -> None:
        self._title("Stop it, and what it held and did not use is given back.", f"leeway stop {item['name']}")
        told = len(item["events"])
        item = self.client.stop(item["order"]["id"])
        self._follow(item, _is_settled, f"waiting for {item['name']} to stop", told=told)
        self.console.print()
        show_spend(self.client.spend(project=PROJECT)[0], console=self.console)

    def _refuse(self) -> None:
        self._title("One that no site can take, and what to change.", "leeway submit too-large.yaml")
        self._document("too-large.yaml")
        quote = self.client.make_quote(text("too-large.yaml"))
        show_quote(quote, console=self.console)
        self.console.print()
        self.console.print(Text(f"Nothing was ordered: no site can take {quote['name']}.", style="bold"))

    def _follow(self, item: Workload, done: Callable[[Workload], bool], words: str, *, told: int = 0) -> Workload:
        with Waiting(words, console=self.console) as waiting:

            def is_done(now: Workload) -> bool:
                if waiting.seconds > _STEP_SECONDS:
                    raise SetupError(f"{words} took more than {_STEP_SECONDS:.0f} s.", hint=_LOOK)
                return done(now)

            return follow(self.client, item, is_done, waiting, told=told)

    def _title(self, words: str, command: str) -> None:
        self.console.print()
        separate(self.console)
        self.console.print(Text(words, style="bold"))
        self.console.print(Text(f"$ {command}", style="dim"))
        self.console.print()

    def _document(self, name: str) -> None:
        for line in text(name).splitlines():
            self.console.print(Text(f"    {line}", style="dim"))
        self.console.print()


def _is_settled(item: Workload) -> bool:
    return is_over(item) and Decimal(item["money"]["held"]["value"]) == 0


def write_documents(folder: Path) -> None:
    """The tour's workloads as files, to be tried with the commands."""
    for name in ("workload.yaml", "too-large.yaml"):
        (folder / name).write_text(text(name), encoding="utf-8")


def separate(console: Console) -> None:
    """A line across."""
    console.print(Text("─" * min(console.width, _LINE), style="dim"))


def try_next(place: Place, folder: Path, console: Console) -> None:
    """Where the page is, and what can be tried with the other commands."""
    console.print()
    separate(console)
    console.print(Text("The page with every workload, its timeline and its reasons:", style="bold"))
    console.print(Text(f"  {place.login_link}"), soft_wrap=True)
    console.print(Text("\nTo try more, in another terminal:", style="bold"))
    programs = Path(sys.executable).parent
    lines = (
        *([] if shutil.which("leeway") else [f'export PATH={shlex.quote(str(programs))}:"$PATH"']),
        f"export LEEWAY_DATA_DIR={shlex.quote(str(folder))}",
        "leeway explain era5-trial",
        'leeway submit --rank 2 "$LEEWAY_DATA_DIR/workload.yaml"',
        "leeway ps",
    )
    for line in lines:
        console.print(Text(f"  {line}"), soft_wrap=True)
