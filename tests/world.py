"""A small federation for tests: a real database, a real sandbox cloud, the real adapter, a project with a grant."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session, sessionmaker

from accounting.grants import GrantFacts, create_grant
from accounting.holds import GrantLedger
from accounting.settle import settle
from adapters.registry import Registry
from adapters.sandbox import SandboxCloud, running
from adapters.sandbox.config import CloudConfig
from adapters.sandbox.config import Timing as CloudTiming
from adapters.sandbox.profiles import DEMO_PASSWORD, aurora
from broker import ratecards
from broker.catalogue import Catalogues, import_rate_card
from broker.database import database_now
from broker.inventory import observe, take_turn
from broker.lease_view import View, read
from broker.meters import SNAPSHOT_SKU, VOLUME_SKU
from broker.models.federation import Installation, Institution, Site
from broker.models.leases import Lease, LeaseState
from broker.models.people import Project
from broker.models.workloads import Order, Quote
from broker.orders import Choice, place_order
from broker.placement import Assumptions
from broker.ports import Jobs
from broker.quotes import Quoting, make_quote
from broker.reconcile import reconcile
from broker.remote import Secret
from broker.restored import first_imprint
from broker.sites import Doors, NewSite, add_site
from broker.tools import Pace, Timing, Tools
from broker.values import Amount, Period
from policies.place import CheapestPlacer
from web.identity.vault import SealedVault

RATES = """
kind: rate-card
name: {provider}-internal
provider: {provider}
currency: EUR
valid_from: 2020-01-01T00:00:00Z
bills: openstack
prices:
"""

DOCUMENT: dict[str, Any] = {
    "kind": "machine",
    "name": "trial",
    "project": "climate",
    "resources": {"cores": 2, "memory": "4 GiB"},
    "image": "ubuntu-24.04",
    "duration": "2 hours",
    "ssh_key": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGJ1aWx0LWZvci10ZXN0cy1vbmx5LW5vdC1hLWtleQ== tests",
}


@dataclass
class NotedJobs:
    """`broker.ports.Jobs` that keeps the wake-ups, for tests that work on leases themselves."""

    woken: list[tuple[str, str]] = field(default_factory=list)

    def defer(self, session: Session, task: str, key: str) -> None:
        """Note the wake-up."""
        assert session.is_active
        self.woken.append((task, key))


@dataclass
class World:
    """What a test works with. `cloud` is the one that it may break."""

    sessions: sessionmaker[Session]
    tools: Tools
    doors: Doors
    jobs: NotedJobs
    quoting: Quoting
    clouds: dict[str, SandboxCloud]

    @property
    def cloud(self) -> SandboxCloud:
        """The first one."""
        return next(iter(self.clouds.values()))

    def now(self) -> datetime:
        """The database's clock."""
        with self.sessions() as session:
            return database_now(session)

    def connect(self, cloud: SandboxCloud, *, prices: dict[str, str]) -> UUID:
        """Add a cloud as a site with its prices, and list it once."""
        config = cloud.config
        site_id = connect(
            self.sessions,
            self.doors,
            self.jobs,
            endpoint=cloud.auth_url,
            name=config.name,
            region=config.region,
            project=config.projects[0].name,
            prices=prices,
        )
        self.observe(site_id)
        return site_id

    def observe(self, site_id: UUID) -> None:
        """One complete listing, due or not."""
        with self.sessions.begin() as session:
            session.execute(update(Site).where(Site.id == site_id).values(next_listing_at=func.clock_timestamp()))
        turn = take_turn(self.tools, site_id)
        assert turn is not None, "another lister is at the site"
        observe(self.tools, turn)

    def quote(self, **changes: Any) -> Quote:
        """Quote the test's document with some keys changed."""
        with self.sessions.begin() as session:
            return make_quote(session, DOCUMENT | changes, self.quoting, now=database_now(session))

    def order(self, *, rank: int = 1, key: str | None = None, **changes: Any) -> Order:
        """Quote and order."""
        quote = self.quote(**changes)
        return self.order_quote(Choice(quote.id, rank, key))

    def order_quote(self, choice: Choice) -> Order:
        """Order from a quote."""
        with self.sessions.begin() as session:
            return place_order(
                session, choice, ledger=self.tools.ledger, jobs=self.jobs, actor="tests", now=database_now(session)
            )

    def leases(self, order: Order) -> list[UUID]:
        """The order's leases, in the order of their making."""
        with self.sessions() as session:
            return list(session.scalars(select(Lease.id).where(Lease.order_id == order.id).order_by(Lease.id)))

    def view(self, lease_id: UUID) -> View:
        """The lease with its parts and attempts."""
        return read(self.sessions, lease_id)

    def wake(self, lease_id: UUID, **values: Any) -> None:
        """Make a lease due, and set some of its columns."""
        values.setdefault("next_look_at", func.clock_timestamp())
        with self.sessions.begin() as session:
            session.execute(update(Lease).where(Lease.id == lease_id).values(values))

    def work(self, lease_id: UUID) -> View:
        """One pass over a lease, due or not, and then over its money."""
        self.wake(lease_id)
        reconcile(self.tools, lease_id)
        self.settle(lease_id)
        return self.view(lease_id)

    def settle(self, lease_id: UUID) -> None:
        """Bring the lease's money up to now."""
        with self.sessions.begin() as session:
            settle(session, lease_id, now=database_now(session))

    def until(self, lease_id: UUID, met: Callable[[Lease], bool], *, seconds: float = 10) -> View:
        """Pass over a lease until a condition holds; fails with what is known of it."""
        deadline = time.monotonic() + seconds
        while True:
            view = self.work(lease_id)
            if met(view.lease):
                return view
            if time.monotonic() > deadline:
                lease = view.lease
                tries = [(attempt.outcome, attempt.error) for attempt in lease.attempts]
                raise AssertionError(f"{lease.state} {lease.desired} {lease.stop_reason} {lease.trouble} {tries}")
            time.sleep(0.02)

    def until_running(self, lease_id: UUID) -> View:
        """Pass over a lease until it runs."""
        return self.until(lease_id, lambda lease: lease.state is LeaseState.RUNNING)

    def until_gone(self, lease_id: UUID) -> View:
        """Pass over a lease until nothing of it is left."""
        return self.until(lease_id, lambda lease: lease.gone_at is not None)


def connect(
    sessions: sessionmaker[Session],
    doors: Doors,
    jobs: Jobs,
    *,
    endpoint: str,
    name: str,
    region: str,
    project: str,
    prices: dict[str, str],
) -> UUID:
    """Add a sandbox cloud as a site of a provider of its own name, with its prices."""
    secret = Secret(
        {
            "username": "leeway",
            "password": DEMO_PASSWORD,
            "project_name": project,
            "user_domain_name": "Default",
            "project_domain_name": "Default",
        }
    )
    new = NewSite(
        name=name,
        provider=name,
        adapter="sandbox",
        endpoint=endpoint,
        region=region,
        secret=secret,
        jurisdiction="EE",
    )
    card = RATES.format(provider=name) + "".join(
        f"  {sku}: {{unit: {'GiB-hour' if sku in (SNAPSHOT_SKU, VOLUME_SKU) else 'hour'}, unit_price: '{price}'}}\n"
        for sku, price in prices.items()
    )
    with sessions.begin() as session:
        site = add_site(session, new, doors, jobs=jobs, actor="tests")
        import_rate_card(session, ratecards.parse(card), now=database_now(session))
        return site.id


def people(sessions: sessionmaker[Session], *, grant: str) -> None:
    """An institution, and its project `climate` with a grant."""
    with sessions.begin() as session:
        home = Institution(name="home", title="Home", jurisdiction="EE")
        session.add(home)
        session.flush()
        project = Project(name="climate", title="Climate", institution_id=home.id)
        session.add(project)
        session.flush()
        century = Period(datetime(2020, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC))
        create_grant(session, project.id, name="first", amount=Amount.parse(grant), period=century)


QUICK = Timing(
    call=timedelta(seconds=5),
    claim=timedelta(seconds=20),
    first_look=timedelta(milliseconds=10),
    last_look=timedelta(milliseconds=200),
    settle=timedelta(milliseconds=300),
)


def quick(config: CloudConfig) -> CloudConfig:
    """The same cloud, with machines that do everything at once and no foreign ones."""
    return replace(config, timing=CloudTiming(), foreign_servers=0)


def aurora_prices() -> dict[str, str]:
    """Per hour (of a snapshot, per GiB and hour), in EUR."""
    machines = {"a1.small": "0.04", "a1.medium": "0.08", "a1.large": "0.20", "a1.pinned": "0.70"}
    return machines | {"public-address": "0.004", SNAPSHOT_SKU: "0.0001"}


def _install(sessions: sessionmaker[Session], installation: UUID) -> None:
    """The row without which nothing is ever done, unless the program itself has made it."""
    with sessions.begin() as session:
        if session.get(Installation, True) is None:
            session.add(Installation(only_one=True, installation_id=installation, made_at=database_now(session)))
            session.flush()
            first_imprint(session)


@contextmanager
def make_world(
    sessions: sessionmaker[Session], *configs: CloudConfig, grant: str = "100 EUR", doors: Doors | None = None
) -> Iterator[World]:
    """A federation of these clouds (default: a quick aurora, connected and listed); project `climate` has a grant."""
    doors = doors or Doors(sessions, Registry(), SealedVault(b"k" * 32), uuid4())
    jobs = NotedJobs()
    tools = Tools(sessions, doors.open, doors.installation, GrantLedger(), jobs, QUICK, Pace(full=timedelta(0)))
    quoting = Quoting(Catalogues(), CheapestPlacer(), GrantFacts(), Assumptions())
    clouds: dict[str, SandboxCloud] = {}
    try:
        for config in configs or (quick(aurora()),):
            clouds[config.name] = running(config)
        _install(sessions, doors.installation)
        world = World(sessions, tools, doors, jobs, quoting, clouds)
        people(sessions, grant=grant)
        if not configs:
            world.connect(world.cloud, prices=aurora_prices())
        yield world
    finally:
        for cloud in clouds.values():
            cloud.close()
