"""How far a listing is, where a person waits for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from io import StringIO

from rich.console import Console
from sqlalchemy import func, update
from sqlalchemy.orm import Session

from broker.database import Database, engine
from broker.models.federation import Site as SiteRow
from tests.unit.cli.conftest import Leeway
from web.cli.site import waited_for
from web.cli.site_view import show_list, show_site, show_unlisted
from web.client.shapes import Site

NOW = datetime(2026, 11, 21, 12, 30, tzinfo=UTC)
SITE: Site = {
    "id": "0",
    "name": "north",
    "provider": "north",
    "adapter": "openstack",
    "endpoint": "https://north.example.org",
    "region": None,
    "jurisdiction": None,
    "observe_only": True,
    "enabled": True,
    "listed_at": "2026-11-21T12:00:00Z",
    "changes_at": "2026-11-21T12:29:00Z",
    "listing_since": None,
    "listing_read": None,
    "trouble": None,
    "offers": 0,
    "images": [],
    "quota": [],
    "checked_at": None,
    "check_wanted_at": None,
    "check_pending": False,
    "diagnosis": [],
}
FRESH: Site = {**SITE, "listed_at": None, "changes_at": None}
READING: Site = {**FRESH, "listing_since": "2026-11-21T12:29:50Z", "listing_read": 3000}


def shown(site: Site) -> list[str]:
    screen = StringIO()
    show_site(site, now=NOW, console=Console(file=screen, width=100))
    return [" ".join(line.split()) for line in screen.getvalue().splitlines()]


def unlisted(*sites: Site) -> str:
    screen = StringIO()
    show_unlisted(sites, console=Console(file=screen, width=100))
    return screen.getvalue().strip()


def test_a_site_says_when_all_of_it_and_when_its_changes_were_listed() -> None:
    assert "listed 30 min ago, changes 60 s ago" in shown(SITE)
    assert "listed 30 min ago" in shown({**SITE, "changes_at": None})
    assert "listing now 3,000 things read so far" in shown(READING)
    assert not [line for line in shown(SITE) if line.startswith("listing now")]


def test_the_list_says_when_anything_was_heard_last() -> None:
    screen = StringIO()
    show_list([SITE], now=NOW, console=Console(file=screen, width=120))
    assert "60 s ago" in screen.getvalue()


def test_trouble_has_lines_of_its_own_so_that_the_list_fits_the_window() -> None:
    trouble = "north: logging in: the site says 401 (The request you have made requires authentication.)"
    unlike = "no host name of ours; " + "a word more " * 20
    screen = StringIO()
    show_list(
        [{**SITE, "trouble": trouble}, {**SITE, "name": "south", "provider": "a-provider-of-the-south"},
         {**SITE, "name": "west", "trouble": unlike}],
        now=NOW, console=Console(file=screen, width=80),
    )  # fmt: skip
    lines = [line.rstrip() for line in screen.getvalue().splitlines()]
    assert [line.split()[0] for line in lines[1:4]] == ["north", "south", "west"]
    assert [line.endswith("yes") for line in lines[1:4]] == [True, False, True]
    assert "openstack" in lines[1]
    assert " ".join(lines[5:7]) == trouble
    assert lines[7].startswith("west: no host name of ours; a word more")


def test_where_nothing_is_known_yet_it_is_said_how_far_the_listing_is() -> None:
    assert unlisted(READING) == "north has not been listed yet: 3,000 things read so far."
    assert unlisted(FRESH) == "north has not been listed yet: it waits for a worker."
    assert unlisted({**FRESH, "trouble": "no answer"}) == "north has not been listed yet: no answer."
    assert unlisted(SITE, {**FRESH, "enabled": False}, {**SITE, "listing_since": "2026-11-21T12:29:50Z"}) == ""


def test_a_site_that_was_never_listed_says_its_trouble_once() -> None:
    said = unlisted({**FRESH, "trouble": "north: nobody is there. Check the name."})
    assert said == "north has not been listed yet: nobody is there. Check the name."


def test_who_waits_for_the_first_listing_sees_it_grow() -> None:
    assert waited_for([READING, SITE]) == "listing north: 3,000 things read so far and north"


@contextmanager
def rows(own_database: Database) -> Iterator[Session]:
    """The database of the server that the commands talk to."""
    bind = engine(own_database.application_url, pool_size=1)
    with Session(bind) as session, session.begin():
        yield session
    bind.dispose()


def test_inventory_and_findings_say_how_far_it_is(leeway: Leeway, own_database: Database) -> None:
    assert "not been listed yet" not in leeway.ok("inventory") + leeway.ok("findings")
    with rows(own_database) as session:
        later = func.clock_timestamp() + func.make_interval(0, 0, 0, 1)
        values = {"listed_at": None, "listing_since": func.clock_timestamp(), "listing_read": 1234}
        # A listing that is under way now is not to clear that.
        fence = {"listing_generation": SiteRow.listing_generation + 1, "next_listing_at": later}
        session.execute(update(SiteRow).where(SiteRow.name == "aurora").values(**values, **fence))
    words = "aurora has not been listed yet: 1,234 things read so far."
    assert words in leeway.ok("inventory")
    assert words in leeway.ok("inventory", "aurora")
    assert words in leeway.ok("findings")
    assert "1,234 things read so far" in leeway.ok("site", "show", "aurora")
    assert leeway.json("site", "show", "aurora")["listing_read"] == 1234
