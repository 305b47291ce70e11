"""Why a site is where it is, in as many lines as help."""

from __future__ import annotations

from io import StringIO

from rich.console import Console

from web.cli.quote_view import show_reasons
from web.client.shapes import Quote, Reason, Verdict

OBSERVED: Reason = {
    "clause": "site",
    "wanted": "a site that starts machines",
    "offered": "Leeway only observes this site",
    "hint": "Ask the site's operator.",
}
QUOTA: Reason = {"clause": "quota_cores", "wanted": "8 cores of quota", "offered": "0 free", "hint": "Ask for more."}


def shown(*reasons: Reason) -> str:
    verdict: Verdict = {"site": "north", "rank": None, "summary": "", "offers": 2, "reasons": [*reasons]}
    quote: Quote = {
        "id": None,
        "workload_id": None,
        "name": "trial",
        "project": "climate",
        "workload": {},
        "made_at": "2026-11-21T12:00:00Z",
        "expires_at": "2026-11-21T13:00:00Z",
        "offers": [],
        "verdicts": [verdict],
        "eliminated": {},
        "relaxations": [],
        "assumptions": {},
    }
    screen = StringIO()
    show_reasons(quote, console=Console(file=screen, width=100))
    return screen.getvalue()


def test_where_the_site_itself_is_out_nothing_else_is_told() -> None:
    assert "Leeway only observes this site" in shown(OBSERVED, QUOTA)
    assert "quota" not in shown(OBSERVED, QUOTA)
    assert "quota cores: wanted 8 cores of quota, but 0 free" in shown(QUOTA)
