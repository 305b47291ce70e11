"""Metrics, for Prometheus. Beside the API's versions: its address is a convention, and its contents are its own."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header
from sqlalchemy import select
from starlette.responses import Response

from broker.database import database_now
from broker.figures import figures
from broker.restored import only_observes
from web.endpoint import ServicesOf, Transaction
from web.metrics import Standing, render
from web.queue import queue_state
from web.version import leeway_version

router = APIRouter(include_in_schema=False)


@router.get("/metrics")
def show_metrics(session: Transaction, services: ServicesOf, accept: Annotated[str, Header()] = "") -> Response:
    """How things stand, read from the rows at this moment."""
    now = database_now(session)
    standing = Standing(
        version=leeway_version(),
        is_observing=session.scalars(select(only_observes())).one(),
        figures=figures(session, now=now, half_life=services.settings.health_half_life),
        queue=queue_state(session),
        now=now,
    )
    body, media_type = render(standing, accept=accept)
    return Response(body, media_type=media_type)
