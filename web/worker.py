"""The worker: takes wake-ups from the queue and works on what they name. The rows say what there is to do."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from types import TracebackType
from typing import Self
from uuid import UUID

from procrastinate import App
from procrastinate.exceptions import ConnectorException
from psycopg_pool import PoolTimeout

from accounting.settle import settle
from broker.database import database_now
from broker.errors import LeewayError
from broker.inventory import observe, take_turn
from broker.orders import RECONCILE
from broker.reconcile import reconcile
from broker.sites import CHECK, OBSERVE, check_site
from broker.threads import DaemonThreads
from web.compose import Services

log = logging.getLogger(__name__)

SETTLE = "settle"

# A worker that lost the database tries again after this; the rows wait.
_RECONNECT_SECONDS = 2


def reconcile_lease(services: Services, lease_id: UUID) -> None:
    """One pass over a lease, then over its money."""
    reconcile(services.tools, lease_id)
    settle_lease(services, lease_id)


def settle_lease(services: Services, lease_id: UUID) -> None:
    """Bring a lease's segments, charges and hold up to now."""
    with services.sessions.begin() as session:
        settle(session, lease_id, now=database_now(session))


def observe_site(services: Services, site_id: UUID) -> None:
    """List a site if that is due."""
    turn = take_turn(services.tools, site_id)
    if turn is not None:
        observe(services.tools, turn)


def check(services: Services, site_id: UUID) -> None:
    """Try a site's credential, and keep the diagnosis."""
    check_site(services.tools, site_id)


TASKS = {RECONCILE: reconcile_lease, SETTLE: settle_lease, OBSERVE: observe_site, CHECK: check}


def register(app: App, services: Services) -> None:
    """Make the tasks known to the queue. A job that raises is logged once, and its row says when it is tried again."""

    def add(name: str) -> None:
        def run(key: str) -> None:
            try:
                TASKS[name](services, UUID(key))
            except LeewayError as error:
                log.warning("job failed", extra={"task": name, "key": key, "code": error.code, "detail": str(error)})

        app.task(name=name)(run)

    for name in TASKS:
        add(name)


class Worker:
    """Procrastinate's worker in a thread of its own, with its own event loop; jobs run in `size` more threads."""

    def __init__(self, app: App, *, size: int, poll_seconds: float = 10, grace_seconds: float = 5) -> None:
        """`size`: how many jobs run at once.

        `poll_seconds`: how often it looks although nothing woke it. `grace_seconds`: how long running jobs may take
        when it stops; those that take longer are left to themselves, as a kill would, and their rows say what to do.
        """
        self._app = app
        self._size = size
        self._poll_seconds = poll_seconds
        self._grace_seconds = grace_seconds
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, name="leeway-worker", daemon=True)

    def __enter__(self) -> Self:
        """Start."""
        self._thread.start()
        self._started.wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take no new jobs, and let the running ones come to their end, within the grace."""
        if self._loop is not None and self._task is not None:
            with contextlib.suppress(RuntimeError):  # it broke, and its loop is closed
                self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join(self._grace_seconds + 1)
        if self._thread.is_alive():
            log.warning("stopped with jobs that still wait for their site")

    @property
    def is_alive(self) -> bool:
        """False after it stopped or broke."""
        return self._thread.is_alive()

    def _run(self) -> None:
        with contextlib.suppress(asyncio.CancelledError):  # how `__exit__` stops it
            asyncio.run(self._main())

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._loop.set_default_executor(DaemonThreads("leeway-job"))
        self._task = asyncio.current_task()
        self._started.set()
        while True:
            try:
                await self._work()
            except (ConnectorException, PoolTimeout) as error:
                log.warning("the queue is away", extra={"detail": str(error.__cause__ or error)})
            await asyncio.sleep(_RECONNECT_SECONDS)

    async def _work(self) -> None:
        """Until the task is cancelled, or the database goes away."""
        async with self._app.open_async():
            # Woken by NOTIFY; the poll is for a notification that was lost with its connection.
            await self._app.run_worker_async(
                concurrency=self._size,
                install_signal_handlers=False,
                delete_jobs="always",
                fetch_job_polling_interval=self._poll_seconds,
                shutdown_graceful_timeout=self._grace_seconds,
            )
