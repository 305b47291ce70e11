"""Is it alive: open to whoever asks, so that it says little."""

from __future__ import annotations

from fastapi import APIRouter, Request
from sqlalchemy import select

from broker.restored import only_observes
from web.api.schemas import Shown
from web.clock import due_count
from web.endpoint import Transaction
from web.version import leeway_version

router = APIRouter(prefix="/health", tags=["health"])


class Health(Shown):
    """`worker`, `clock`: one runs in this process. `due`: leases that wait for one; it should not keep growing.

    `observing`: after a restore Leeway only observes, until `leeway resume`.
    """

    status: str = "ok"
    version: str
    database: str = "ok"
    worker: bool
    clock: bool
    due: int
    observing: bool


@router.get("")
def show_health(request: Request, session: Transaction) -> Health:
    """Whether the database answers (else 503), and whether anybody works."""
    return Health(
        version=leeway_version(),
        worker=request.app.state.is_working(),
        clock=request.app.state.is_ticking(),
        due=due_count(session),
        observing=session.scalars(select(only_observes())).one(),
    )
