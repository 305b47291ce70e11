"""The HTTP application: the API, the pages, and the guard before both."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fastapi import APIRouter, FastAPI, Request
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

from broker.errors import LeewayError
from web import problems
from web.api import (
    adoptions,
    boot_tests,
    findings,
    grants,
    health,
    installation,
    inventory,
    metrics,
    orders,
    overdue,
    projects,
    quotes,
    rate_cards,
    site_health,
    sites,
    spend,
    workloads,
)
from web.compose import Services
from web.guard import API, Guard, add_headers
from web.pages.views import Pages
from web.token import load_token
from web.version import leeway_version

_STATIC = Path(__file__).parent / "pages" / "static"
_NOUNS = (
    health,
    installation,
    sites,
    site_health,
    boot_tests,
    inventory,
    adoptions,
    rate_cards,
    projects,
    grants,
    quotes,
    orders,
    workloads,
    spend,
    findings,
    overdue,
)
_PROBLEM = {
    "description": "A problem document (RFC 9457): code, detail, hint, and the field where one is wrong.",
    "content": {problems.MEDIA_TYPE: {"schema": {"type": "object"}}},
}


def _nobody_works() -> bool:
    return False


def make_app(
    services: Services,
    *,
    is_working: Callable[[], bool] = _nobody_works,
    is_ticking: Callable[[], bool] = _nobody_works,
) -> FastAPI:
    """The application over these services. The two say whether a worker, and a clock, run in this process.

    Raises:
        SetupError: the token's file cannot be used.
    """
    token = load_token(services.settings.token_file)
    pages = Pages(token)

    def answer(request: Request, error: LeewayError) -> Response:
        return _answer(pages, request, error)

    app = FastAPI(
        title="Leeway",
        version=leeway_version(),
        openapi_url="/api/v1/openapi.json",
        docs_url=None,  # their pages load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.services = services
    app.state.is_working = is_working
    app.state.is_ticking = is_ticking
    problems.install(app, answer)
    app.add_middleware(Guard, token=token, host=services.settings.host, answer=answer)
    api = APIRouter(prefix=f"{API}v1", responses={"4XX": _PROBLEM, "5XX": _PROBLEM})
    for noun in _NOUNS:
        api.include_router(noun.router)
    app.include_router(api)
    app.include_router(metrics.router)
    app.include_router(pages.router())
    app.mount("/static", StaticFiles(directory=_STATIC))
    return app


def _answer(pages: Pages, request: Request, error: LeewayError) -> Response:
    """An error for whoever asked: a document for programs, a page for people."""
    request_id = request.state.request_id
    if request.url.path.startswith(API):
        answer = problems.response(error, instance=request.url.path, request_id=request_id)
    else:
        answer = pages.problem(error, request_id=request_id)
    add_headers(answer.headers, path=request.url.path, request_id=request_id)
    return answer
