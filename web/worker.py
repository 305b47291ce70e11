"""The worker: takes wake-ups from the queue and works on what they name. The rows say what there is to do."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections import Counter
from types import TracebackType
from typing import Self
from uuid import UUID

from procrastinate import App
from procrastinate.exceptions import ConnectorException
from psycopg_pool import PoolTimeout
from sqlalchemy import select

from accounting.settle import settle
from broker.claims import put_off
from broker.database import database_now
from broker.errors import LeewayError
from broker.inventory import observe, take_turn
from broker.models.leases import Lease
from broker.orders import RECONCILE
from broker.reconcile import reconcile
from broker.sites import CHECK, OBSERVE, check_site
from broker.threads import DaemonThreads
from web.compose import Services

log = logging.getLogger(__name__)

SETTLE = "settle"

# A worker that lost the database tries again after this; the rows wait.
_RECONNECT_SECONDS = 2


def reconcile_lease(services: Services, lease_id: UUID) -> bool:
    """One pass over a lease, then over its money, which needs no site: also where the site cannot be opened.

    True where the lease was due and ours to work on.
    """
    try:
        return reconcile(services.tools, lease_id)
    finally:
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


class SlowSites:
    """Sites whose passes wait for them, so that a silent one does not keep every thread of a worker.

    A site is slow after a pass that took longer than `slow_seconds`, until a pass is quick again. Meanwhile at most
    `most` passes at once are made there. Kept per process: each learns by itself.
    """

    def __init__(self, *, most: int, slow_seconds: float) -> None:
        """No site is slow yet."""
        self._most = most
        self._slow_seconds = slow_seconds
        self._running: Counter[UUID] = Counter()  # slow site -> passes there
        self._lock = threading.Lock()

    def make_pass(self, services: Services, lease_id: UUID) -> None:
        """A pass, or none for now where the lease's site has as many as it may."""
        site_id = _site_of(services, lease_id) if self._running else None  # the question costs something
        is_counted = site_id in self._running
        if site_id is not None and is_counted and not self._enter(site_id):
            with services.sessions.begin() as session:
                put_off(session, lease_id, services.tools.timing.backoff(2))
            return
        began, has_worked = time.monotonic(), False
        try:
            has_worked = reconcile_lease(services, lease_id)
        finally:
            if site_id is not None and is_counted:
                self._leave(site_id)
            if time.monotonic() - began > self._slow_seconds:
                self._note(site_id or _site_of(services, lease_id), is_slow=True)
            elif has_worked and site_id is not None:
                self._note(site_id, is_slow=False)

    def _enter(self, site_id: UUID) -> bool:
        with self._lock:
            if self._running[site_id] >= self._most:
                return False
            self._running[site_id] += 1
            return True

    def _leave(self, site_id: UUID) -> None:
        with self._lock:
            if site_id in self._running:
                self._running[site_id] = max(0, self._running[site_id] - 1)

    def _note(self, site_id: UUID | None, *, is_slow: bool) -> None:
        with self._lock:
            if site_id is not None and is_slow:
                self._running.setdefault(site_id, 0)
            elif site_id is not None:
                self._running.pop(site_id, None)


def _site_of(services: Services, lease_id: UUID) -> UUID | None:
    with services.sessions() as session:
        return session.scalars(select(Lease.site_id).where(Lease.id == lease_id)).one_or_none()


TASKS = {RECONCILE: reconcile_lease, SETTLE: settle_lease, OBSERVE: observe_site, CHECK: check}


def register(app: App, services: Services) -> None:
    """Make the tasks known to the queue. A job that raises is logged once, and its row says when it is tried again."""
    slow_seconds = services.tools.timing.call.total_seconds() / 2
    slow_sites = SlowSites(most=max(1, services.settings.workers // 4), slow_seconds=slow_seconds)
    tasks = TASKS | {RECONCILE: slow_sites.make_pass}

    def add(name: str) -> None:
        def run(key: str) -> None:
            try:
                tasks[name](services, UUID(key))
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
