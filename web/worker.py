"""The worker: takes wake-ups from the queue and works on what they name. The rows say what there is to do."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import partial
from types import TracebackType
from typing import Self
from uuid import UUID

from procrastinate import App
from procrastinate.exceptions import ConnectorException
from psycopg_pool import PoolTimeout
from sqlalchemy import select

from accounting.settle import settle
from accounting.unsettled import NotedFailures, forget_failures
from broker.claims import put_off
from broker.database import database_now
from broker.errors import LeewayError
from broker.extensions import ROLL, roll_hold
from broker.inventory import observe, take_turn
from broker.messages import send_due
from broker.models.federation import Site
from broker.models.leases import Lease
from broker.orders import RECONCILE
from broker.reconcile import reconcile
from broker.sites import CHECK, OBSERVE, check_site, listing_is_due
from broker.threads import DaemonThreads
from web.bulkheads import Bulkheads, Kind
from web.compose import Services
from web.queue import HEARTBEAT

log = logging.getLogger(__name__)

SETTLE = "settle"
# Its key is the installation: all of the outbox.
MAIL = "mail"

# A worker that lost the database tries again after this; the rows wait.
_RECONNECT_SECONDS = 2
# So many sites without a place, and a listing leaves the others to the next sweep.
_MISSES = 3
# The share of a conversation's time after which a site counts as slow.
_SLOW = 0.5


def reconcile_lease(services: Services, lease_id: UUID) -> bool:
    """One pass over a lease, then over its money, which needs no site: also where the site cannot be opened.

    True where the lease was due and ours to work on.
    """
    try:
        return reconcile(services.tools, lease_id)
    finally:
        settle_lease(services, lease_id)


def settle_lease(services: Services, lease_id: UUID) -> None:
    """Bring a lease's segments, charges and hold up to now. What fails is noted in its row, and raised."""
    backoff = services.tools.timing.backoff
    with (
        NotedFailures(services.sessions, lease_id, backoff=backoff),
        services.sessions.begin() as session,
    ):
        settle(session, lease_id, now=database_now(session))
        forget_failures(session, lease_id)


def roll_order(services: Services, order_id: UUID) -> None:
    """Set the money for an order's next window aside, or tell a person."""
    with services.sessions.begin() as session:
        roll_hold(session, order_id, services.funding, now=database_now(session))


def observe_site(services: Services, site_id: UUID) -> bool:
    """List a site if that is due; True where this has been done."""
    turn = take_turn(services.tools, site_id)
    return turn is not None and observe(services.tools, turn)


def check(services: Services, site_id: UUID) -> bool:
    """Try a site's credential, and keep the diagnosis."""
    check_site(services.tools, site_id)
    return True


# --- work at sites, each in its place (`web.bulkheads`) ------------------------------------------------------------


def pass_in_place(services: Services, places: Bulkheads, lease_id: UUID) -> None:
    """A pass over a lease, or none for now where work at its site has to wait: then the row says later."""
    with services.sessions() as session:
        site_id = session.scalars(select(Lease.site_id).where(Lease.id == lease_id)).one_or_none()
    if site_id is None or _in_place(places, site_id, Kind.PASS, lambda: reconcile_lease(services, lease_id)):
        return
    # The longer the queue there, the later: a thousand leases of a silent site are not a thousand jobs at once.
    timing = services.tools.timing
    wait = min(timing.backoff(2) + timedelta(seconds=places.sent_away(site_id) // 4), timing.last_look)
    with services.sessions.begin() as session:
        put_off(session, lease_id, wait)


def listing_in_place(services: Services, places: Bulkheads, site_id: UUID) -> None:
    """List a site, or leave it due; then those that have waited longest, which found no place when they were woken."""
    tried: set[UUID] = set()
    misses = 0
    following: UUID | None = site_id
    while following is not None and misses < _MISSES:
        tried.add(following)
        misses += not _in_place(places, following, Kind.LISTING, partial(observe_site, services, following))
        following = _longest_due(services, tried)


def _longest_due(services: Services, tried: set[UUID]) -> UUID | None:
    with services.sessions() as session:
        waiting = select(Site.id).where(listing_is_due(), Site.id.not_in(tried)).order_by(Site.next_listing_at)
        return session.scalars(waiting.limit(1)).one_or_none()


def check_in_place(services: Services, places: Bulkheads, site_id: UUID) -> None:
    """Check a site, or leave the check wanted: the sweep comes back to it."""
    _in_place(places, site_id, Kind.CHECK, lambda: check(services, site_id))


def _in_place(places: Bulkheads, site_id: UUID, kind: Kind, ask: Callable[[], bool]) -> bool:
    """Do it, if there is a place. What found nothing to do says nothing of the site, nor does what broke off."""
    with places.place(site_id, kind) as work:
        if work is None:
            return False
        work.has_asked = False
        work.has_asked = ask()
        return True


def send_mail(services: Services, installation: UUID) -> None:  # noqa: ARG001 - a task's signature
    """Send the messages that are due."""
    send_due(services.sessions, services.mailer)


# --- the tasks -------------------------------------------------------------------------------------------------------

# What a wake-up's name stands for. Work that asks a site stands in the second table: it needs a place.
TASKS: Mapping[str, Callable[[Services, UUID], None]] = {
    SETTLE: settle_lease,
    ROLL: roll_order,
    MAIL: send_mail,
}
SITE_TASKS: Mapping[str, Callable[[Services, Bulkheads, UUID], None]] = {
    RECONCILE: pass_in_place,
    OBSERVE: listing_in_place,
    CHECK: check_in_place,
}


def register(app: App, services: Services) -> Bulkheads:
    """Make the tasks known to the queue; returns the places of this process.

    A job that raises is logged once, with its traceback where the error is our own, and its row says when it is tried
    again.
    """
    slow_seconds = services.tools.timing.call.total_seconds() * _SLOW
    places = Bulkheads(services.settings.workers, slow_seconds=slow_seconds)
    for name, job in TASKS.items():
        _add(app, name, partial(job, services))
    for name, site_job in SITE_TASKS.items():
        _add(app, name, partial(site_job, services, places))
    return places


def _add(app: App, name: str, work: Callable[[UUID], None]) -> None:
    def run(key: str) -> None:
        try:
            work(UUID(key))
        except LeewayError as error:
            log.warning("job failed", extra={"task": name, "key": key, "code": error.code, "detail": str(error)})

    async def wait(key: str) -> None:
        # Not as a task of the queue's own threads: a worker that lost the database waits for all of those before it
        # connects again, and a silent site would keep it from that for minutes. This one it can leave alone.
        await asyncio.get_running_loop().run_in_executor(None, run, key)

    app.task(name=name)(wait)


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
                update_heartbeat_interval=HEARTBEAT.total_seconds(),
                shutdown_graceful_timeout=self._grace_seconds,
            )
