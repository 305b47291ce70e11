"""The one place where the parts are put together."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

from procrastinate import App
from sqlalchemy.orm import Session, sessionmaker

from accounting.grants import GrantFacts
from accounting.holds import GrantLedger
from adapters.registry import Registry
from broker.boot_tests import Ordering
from broker.catalogue import Catalogues
from broker.contacts import Contacts
from broker.database import Database, engine, resolve
from broker.database import sessions as make_sessions
from broker.embedded_files import make_private_dir
from broker.errors import SetupError
from broker.extensions import Funding
from broker.messages import Mailer
from broker.placement import Assumptions
from broker.ports import Jobs, Ledger
from broker.quotes import Quoting
from broker.schema import require_current, upgrade
from broker.sites import Doors
from broker.tools import Pace, Timing, Tolerance, Tools
from policies.place import CheapestPlacer
from web.identity.vault import SealedVault, load_key
from web.installation import Marks, watch
from web.mail import make_mailer
from web.queue import QueuedJobs, make_app
from web.settings import Settings


@dataclass(frozen=True, slots=True)
class Services:
    """Everything that a request, a job or a tick works with."""

    settings: Settings
    marks: Marks
    sessions: sessionmaker[Session]
    queue: App
    jobs: Jobs
    mailer: Mailer
    doors: Doors
    contacts: Contacts
    ledger: Ledger
    quoting: Quoting
    tools: Tools

    @property
    def funding(self) -> Funding:
        """What orders are given more money with."""
        return Funding(self.ledger, self.jobs, self.quoting.assumptions.hold_window)

    @property
    def ordering(self) -> Ordering:
        """What boot tests are ordered with."""
        return Ordering(self.quoting, self.ledger, self.jobs)


@contextlib.contextmanager
def database(settings: Settings) -> Iterator[Database]:
    """The configured database, started where it is the embedded one.

    Raises:
        SetupError: it cannot be reached or started; or the embedded one would serve more than this machine.
    """
    if settings.database_url is None and not settings.is_loopback:
        raise SetupError(
            f"the embedded database serves this machine only, and LEEWAY_HOST is {settings.host}",
            hint="Set LEEWAY_DATABASE_URL to a PostgreSQL server, or listen on 127.0.0.1.",
        )
    make_private_dir(settings.data_dir)
    url, owner = settings.database_url, settings.migration_database_url
    with resolve(
        url.get_secret_value() if url else None,
        owner.get_secret_value() if owner else None,
        settings.data_dir / "postgres",
    ) as found:
        yield found


@contextlib.contextmanager
def services(settings: Settings, found: Database) -> Iterator[Services]:
    """Put the parts together over a database whose schema is current; the embedded one is brought up to date."""
    if found.is_embedded:
        upgrade(found)
    require_current(found.application_url)
    bind = engine(found.application_url, pool_size=settings.workers + 12)
    try:
        marks = Marks(settings.data_dir)
        watch(bind, marks)
        yield _services(settings, marks, make_sessions(bind), make_app(found.application_url))
    finally:
        bind.dispose()


def _services(settings: Settings, marks: Marks, sessions: sessionmaker[Session], queue: App) -> Services:
    installation = marks.establish(sessions)
    key = settings.secret_key
    vault = SealedVault(load_key(key.get_secret_value() if key else None, settings.data_dir / "key"))
    timing = Timing(
        call=settings.call_timeout,
        claim=settings.claim_time,
        first_look=settings.first_look,
        last_look=settings.last_look,
        settle=settings.settle_time,
    )
    pace = Pace(
        listing=settings.listing_interval,
        full=settings.full_listing_interval,
        catalogue=settings.catalogue_interval,
        call=settings.listing_timeout,
    )
    assumptions = Assumptions(
        stop_delay=settings.stop_delay, hold_window=settings.hold_window, snapshot_time=settings.snapshot_time
    )
    if settings.settle_time is not None:
        assumptions = replace(assumptions, settle_time=settings.settle_time)
    doors, contacts = Doors(sessions, Registry(), vault, installation), Contacts()
    catalogues = Catalogues(settings.health_half_life)
    jobs, ledger = QueuedJobs(), GrantLedger()
    return Services(
        settings=settings,
        marks=marks,
        sessions=sessions,
        queue=queue,
        jobs=jobs,
        mailer=make_mailer(settings),
        doors=doors,
        contacts=contacts,
        ledger=ledger,
        quoting=Quoting(catalogues, CheapestPlacer(), GrantFacts(), assumptions, settings.quote_lifetime),
        tools=Tools(
            sessions, contacts.watching(doors.open), installation, ledger, jobs, timing, pace, _tolerance(settings)
        ),
    )


def _tolerance(settings: Settings) -> Tolerance:
    return Tolerance(machine=settings.idle_after, volume=settings.orphan_after, snapshot=settings.old_snapshot_after)
