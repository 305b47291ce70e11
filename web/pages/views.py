"""The pages' endpoints: read models into templates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import ROUND_HALF_UP, Decimal
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import HTMLResponse, RedirectResponse, Response

from accounting.order_money import order_money
from broker.database import database_now
from broker.errors import LeewayError, NotAuthenticated, NotFound, tree
from broker.paging import Page
from broker.quote_views import quote_view
from broker.quotes import get_quote
from broker.restored import look
from broker.site_views import list_sites, sum_findings
from broker.units import show_memory
from broker.values import Amount, plain
from broker.workload_views import EventView, Wanted, find_order, list_workloads, timeline, workload_view
from web import problems
from web.api.schemas import PageQuery, to_cursor
from web.endpoint import Transaction
from web.guard import COOKIE
from web.pages.advice import ADVICE
from web.token import Token

_TEMPLATES = Path(__file__).parent / "templates"
_SHOWN_DIGITS = Decimal("0.0001")
_YEAR = 366 * 86_400


@dataclass(frozen=True, slots=True)
class Day:
    """The lines of a timeline that share a date."""

    date: date
    events: Sequence[EventView]


class Pages:
    """Everything that answers in HTML."""

    def __init__(self, token: Token) -> None:
        """Templates are read when they are first shown."""
        self._token = token
        self._templates = Environment(
            loader=FileSystemLoader(_TEMPLATES),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.filters.update(short=_short, exact=_exact, memory=show_memory)

    def router(self) -> APIRouter:
        """The addresses."""
        router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)
        router.add_api_route("/", self.workloads, methods=["GET"])
        router.add_api_route("/workloads/{ref}", self.workload, methods=["GET"])
        router.add_api_route("/login", self.login, methods=["GET"])
        router.add_api_route("/problems/{code}", self.explain, methods=["GET"])
        return router

    def workloads(self, session: Transaction, query: Annotated[PageQuery, Query()]) -> Response:
        """Ordered workloads, newest first, with state and money; sites and findings below."""
        now = database_now(session)
        found = list_workloads(session, Wanted(), query.page())
        return self._show(
            "workloads.html",
            now=now,
            standing=look(session),
            workloads=found.items,
            money_of=order_money(session, [one.order.id for one in found.items], now=now),
            following=None if found.next is None else to_cursor(found.next),
            is_first=query.cursor is None,
            sites=list_sites(session, Page(limit=200)).items,
            findings=sum_findings(session, most=20),
        )

    def workload(self, ref: str, session: Transaction) -> Response:
        """One workload: its machines, its money, why it runs there, what happened."""
        now = database_now(session)
        view = workload_view(session, find_order(session, ref))
        lines = timeline(session, view.id)
        quote = quote_view(session, get_quote(session, view.quote_id))
        return self._show(
            "workload.html",
            now=now,
            standing=look(session),
            workload=view,
            purse=order_money(session, [view.order.id], now=now)[view.order.id],
            quote=quote,
            verdicts=sorted(quote.verdicts, key=_rank_first),
            days=[Day(day, list(events)) for day, events in groupby(lines.events, key=lambda event: event.at.date())],
            left_out=lines.left_out,
            machine_names={machine.lease_id: machine.name for machine in view.machines},
        )

    def login(self, token: str = "") -> Response:
        """Remember this browser: the link that `serve` prints leads here, once."""
        if not self._token.admits(token):
            raise NotAuthenticated(
                "The link holds no token of this server, or an old one.",
                hint="Follow the link that `leeway serve` printed, or run `leeway open`.",
            )
        answer = RedirectResponse("/", status_code=303)
        answer.set_cookie(COOKIE, self._token.page_key, max_age=_YEAR, httponly=True, samesite="strict")
        return answer

    def explain(self, code: str) -> Response:
        """What an error code means, and what to do."""
        kinds = {kind.code: kind for kind in tree() if kind.code in ADVICE}
        if code not in kinds:
            raise NotFound(f"There is no error code {code[:70]!r}.", hint=f"Known: {', '.join(sorted(kinds))}.")
        return self._show("explanation.html", kind=kinds[code], advice=ADVICE[code])

    def problem(self, error: LeewayError, *, request_id: str) -> Response:
        """An error as a page."""
        return self._show(
            "problem.html", status=error.status, headers=problems.headers(error), error=error, request_id=request_id
        )

    def _show(
        self, template: str, *, status: int = 200, headers: dict[str, str] | None = None, **values: Any
    ) -> Response:
        return HTMLResponse(self._templates.get_template(template).render(values), status, headers)


# --- how values look -------------------------------------------------------------------------------------------------


def _rank_first(verdict: Mapping[str, Any]) -> tuple[bool, int, str]:
    """Ranked sites by rank, then the others by name."""
    rank = verdict["rank"]
    return rank is None, rank or 0, verdict["site"]


def _short(amount: Amount) -> str:
    """Two to four decimals; pages keep the exact value in their markup."""
    whole, _, digits = plain(amount.value.quantize(_SHOWN_DIGITS, rounding=ROUND_HALF_UP)).partition(".")
    return f"{whole}.{digits.ljust(2, '0')}"


def _exact(amount: Amount) -> str:
    """Every digit."""
    return plain(amount.value)
