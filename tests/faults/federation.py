"""What the workers work on: a database of its own, the sites with their prices, a project with a grant."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.orm import Session

from broker import ratecards, schema
from broker.catalogue import import_rate_card
from broker.database import Database, database_now
from broker.embedded import APPLICATION_ROLE, OWNER_ROLE, EmbeddedServer
from broker.models.federation import Site
from broker.remote import Secret
from broker.sites import NewSite, add_site
from tests.faults.clouds import ADDRESS_SKU, FLAVOR, PASSWORD, PROJECT, SETTLE, SNAPSHOT_SKU, Clouds, SiteSpec
from tests.world import people
from web import compose
from web.compose import Services
from web.settings import load_settings

CALL = 0.8
CLAIM = 1.0
STOP_DELAY = 3.0
# Beyond three times the slowest cloud's, as the machine under all this may be slow.
SNAPSHOT_TIME = 5.0
WINDOW = 20.0
LISTING = 3.0
# Of a machine, per hour: a hundredth of a euro per second, so that a lifetime of seconds has a legible price.
HOURLY = Decimal(36)
ADDRESS_HOURLY = Decimal("3.6")
STORAGE_HOURLY = Decimal("0.9")  # of a GiB
CURRENCY = "EUR"
# Nobody has had these prices before.
BEGINNING = datetime(2020, 1, 1, tzinfo=UTC)

T = TypeVar("T")


def times() -> dict[str, Any]:
    """The times of the workers, as settings: each at most a second, save where noted."""
    return {
        "call_timeout": timedelta(seconds=CALL),
        "claim_time": timedelta(seconds=CLAIM),
        "first_look": timedelta(seconds=0.05),
        "last_look": timedelta(seconds=0.5),
        "settle_time": timedelta(seconds=SETTLE),
        "sweep_interval": timedelta(seconds=1),
        "listing_interval": timedelta(seconds=LISTING),
        "full_listing_interval": timedelta(seconds=3 * LISTING),
        "listing_timeout": timedelta(seconds=2),
        "stop_delay": timedelta(seconds=STOP_DELAY),
        "snapshot_time": timedelta(seconds=SNAPSHOT_TIME),
        "hold_window": timedelta(seconds=WINDOW),
        "workers": 8,
        "port": 0,
        "log_level": "INFO",
    }


def as_texts(settings: dict[str, Any]) -> dict[str, Any]:
    """The same, as JSON carries them: seconds."""
    return {
        name: f"{value.total_seconds()}" if isinstance(value, timedelta) else value for name, value in settings.items()
    }


@dataclass(frozen=True, slots=True)
class Price:
    """One version of a site's prices per hour (`storage`: of a GiB), in force from `valid_from` on."""

    site: str
    valid_from: datetime
    machine: Decimal
    address: Decimal
    storage: Decimal


@dataclass
class Federation:
    """The product's services as the driver uses them. `prices`: every version that was ever imported."""

    server: EmbeddedServer
    database: Database
    settings: dict[str, Any]
    services: Services
    clouds: Clouds
    prices: list[Price] = field(default_factory=list)

    def write(self, work: Callable[[Session, datetime], T]) -> T:
        """One transaction; `now` is the database's."""
        with self.services.sessions.begin() as session:
            return work(session, database_now(session))

    def connect(self, spec: SiteSpec) -> None:
        """Add a cloud as a site of its own provider, with its first prices."""
        secret = Secret(
            {
                "username": "leeway",
                "password": PASSWORD,
                "project_name": PROJECT,
                "user_domain_name": "Default",
                "project_domain_name": "Default",
            }
        )
        new = NewSite(
            name=spec.name,
            provider=spec.name,
            adapter="sandbox",
            endpoint=self.clouds.auth_url(spec.name),
            region="here",
            secret=secret,
            jurisdiction="EE",
            settings={"fence": spec.fence},
        )

        def add(session: Session, _now: datetime) -> None:
            add_site(session, new, self.services.doors, jobs=self.services.jobs, actor="crash run")

        self.write(add)
        self.set_price(Price(spec.name, BEGINNING, HOURLY, ADDRESS_HOURLY, STORAGE_HOURLY))

    def set_price(self, price: Price) -> None:
        """Import a version of a site's prices."""
        card = {
            "kind": "rate-card",
            "name": f"{price.site}-{price.machine}",
            "provider": price.site,
            "currency": CURRENCY,
            "valid_from": price.valid_from.isoformat(),
            "bills": "openstack",
            "prices": {
                FLAVOR: {"unit": "hour", "unit_price": str(price.machine)},
                ADDRESS_SKU: {"unit": "hour", "unit_price": str(price.address)},
                SNAPSHOT_SKU: {"unit": "GiB-hour", "unit_price": str(price.storage)},
            },
        }
        self.write(lambda session, now: import_rate_card(session, ratecards.parse(card), now=now))
        self.prices.append(price)

    def listed(self) -> bool:
        """Whether every site has been listed."""
        with self.services.sessions() as session:
            return not session.scalars(sa.select(Site.id).where(Site.listed_at.is_(None))).all()


@contextmanager
def federation(server: EmbeddedServer, folder: Path, clouds: Clouds) -> Iterator[Federation]:
    """Migrate, compose, connect every site. The workers need `settings`."""
    database = Database(server.url(APPLICATION_ROLE), server.url(OWNER_ROLE))
    schema.upgrade(database)
    settings = {
        "data_dir": str(folder / "leeway"),
        "database_url": database.application_url,
        "migration_database_url": database.migration_url,
        **times(),
    }
    loaded = load_settings(**settings)
    (folder / "leeway").mkdir(mode=0o700)
    with compose.services(loaded, database) as services:
        people(services.sessions, grant="1000000000 EUR")
        made = Federation(server, database, as_texts(settings), services, clouds)
        for spec in clouds.specs.values():
            made.connect(spec)
        yield made
