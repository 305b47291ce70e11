"""A small federation that is set up anew for each play, and what a play does there: through the real code paths."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import count
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import Connection, DateTime, func, select, update
from sqlalchemy.orm import Session, sessionmaker

from accounting.grants import create_grant
from accounting.ledger import Difference, verify
from accounting.models.charges import Charge
from accounting.models.grants import MoneyHold
from adapters.sandbox.config import CloudConfig, QuotaConfig
from adapters.sandbox.faults import FaultKind
from adapters.sandbox.profiles import aurora, borealis
from broker import ratecards
from broker.catalogue import import_rate_card
from broker.database import Database, database_now
from broker.errors import Rejected
from broker.extensions import Funding, extend_order
from broker.models.base import Base
from broker.models.catalogue import Offer
from broker.models.federation import Institution, Site
from broker.models.leases import Desired, Lease
from broker.models.people import Project
from broker.models.workloads import QuoteOffer
from broker.orders import Choice, place_order, stop_order
from broker.quotes import make_quote
from broker.reconcile import reconcile
from broker.values import Amount, Period
from tests.conftest import PostgresForTests
from tests.unit.overcommit.counting import Counted, count_up
from tests.unit.overcommit.oracle import KINDS, TICK, Bid, Books
from tests.unit.overcommit.oracle import Site as BookedSite
from tests.world import DOCUMENT, QUICK, World, connect, make_world, quick

LIMITS = {
    "aurora": {"instances": 5, "cores": 14, "memory_mib": 26 * 1024},
    "borealis": {"instances": 4, "cores": 8, "memory_mib": 10**6},
}
PRICES = dict(zip(KINDS, (Decimal("0.06"), Decimal("0.12"), Decimal("0.06"), Decimal("0.18")), strict=True))
MOST = Decimal("0.24")
FIRST_GRANT = Decimal("0.822")  # six of the smallest machines for two hours
CENTURY = Period(datetime(2020, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC))
KIND_OF = {(kind.site, kind.name): kind for kind in KINDS}
# The imprint of the living database is in this row, and does not survive a write of others.
NOT_MOVED = {"installations"}

# An extension's end is also kept as text, by which asking for it again is known.
UNTIL_MOVES = (
    "UPDATE events SET data = jsonb_set(data, '{{until}}', to_jsonb(to_char((CAST(data ->> 'until' AS timestamptz)"
    " - interval '{minutes} minutes') AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US+00:00'))) WHERE data ? 'until';"
)

_numbers = count(1)


@contextmanager
def superuser(postgres: PostgresForTests, database: Database) -> Iterator[Connection]:
    """The superuser's connection to the database of the test."""
    name = sa.make_url(database.application_url).database
    assert name is not None
    with postgres.superuser(name).connect() as connection:
        yield connection


@contextmanager
def opened(sessions: sessionmaker[Session], admin: Connection) -> Iterator[Stage]:
    """The clouds, for all plays. `admin`: a superuser's connection in autocommit, to let time pass."""
    configs = [limited(aurora()), limited(borealis())]
    with make_world(sessions, *configs) as world:
        timing = replace(QUICK, settle=timedelta(0), first_look=timedelta(milliseconds=1))
        world.tools = replace(world.tools, timing=timing)
        yield Stage(world, admin)


def limited(config: CloudConfig) -> CloudConfig:
    """The cloud, quick, with little room."""
    limits = LIMITS[config.name]
    quota = QuotaConfig(instances=limits["instances"], cores=limits["cores"], ram_mib=limits["memory_mib"], ports=1000)
    ours, *others = config.projects
    return replace(quick(config), projects=(replace(ours, quota=quota), *others))


@dataclass(frozen=True)
class Stage:
    """Where plays take place, one after the other."""

    world: World
    admin: Connection

    def play(self) -> Play:
        """A project with a grant, and sites that nobody uses: clouds as new, under new names."""
        world, number = self.world, next(_numbers)
        with world.sessions.begin() as session:
            home = Institution(name=f"home-{number}", title="Home", jurisdiction="EE")
            session.add(home)
            session.flush()
            project = Project(name=f"climate-{number}", title="Climate", institution_id=home.id)
            session.add(project)
        play = Play(world, self.admin, project.name, project.id, f"-{number}")
        with world.sessions() as session:
            play.known = verify(session)  # of a play that failed
        play.grant(FIRST_GRANT)
        play.books.ceiling = FIRST_GRANT
        for name, cloud in world.clouds.items():
            cloud.reset(keep_identity=True)
            cloud.faults.clear()
            play.sites[name] = connect(
                world.sessions,
                world.doors,
                world.jobs,
                endpoint=cloud.auth_url,
                name=play.called(name),
                region=cloud.config.region,
                project=cloud.config.projects[0].name,
                prices=play.prices(name),
            )
            play.observe(name)
        return play


@dataclass
class Play:
    """One play. Sites go by the names of their clouds."""

    world: World
    admin: Connection
    project: str
    project_id: UUID
    suffix: str
    sites: dict[str, UUID] = field(default_factory=dict)
    books: Books = field(
        default_factory=lambda: Books({name: BookedSite(dict(limits)) for name, limits in LIMITS.items()}, dict(PRICES))
    )
    began: float = field(default_factory=time.monotonic)
    grants: int = 0
    known: Sequence[Difference] = ()

    def called(self, site: str) -> str:
        """The site's name in this play."""
        return site + self.suffix

    def prices(self, site: str) -> dict[str, str]:
        """What the books say that a site's machines cost."""
        return {kind.name: str(price) for kind, price in self.books.prices.items() if kind.site == site}

    def slack(self) -> Decimal:
        """The most that one machine may have cost by the wall clock since the play began."""
        return MOST * Decimal(time.monotonic() - self.began + 1) / 3600

    def end(self) -> None:
        """Nobody quotes its sites any more."""
        with self.world.sessions.begin() as session:
            session.execute(update(Site).where(Site.id.in_(self.sites.values())).values(is_enabled=False))

    # --- what people do ---

    def quote(self, *, cores: int, count: int, ticks: int, limit: Decimal | None) -> tuple[UUID, tuple[Bid, ...]]:
        """A quote's id, and its offers by rank."""
        document = DOCUMENT | {
            "project": self.project,
            "resources": {"cores": cores, "memory": "4 GiB"},
            "count": count,
            "duration": f"{ticks * 30} minutes",
        }
        if limit is not None:
            document["max_price"] = f"{limit} EUR"
        with self.world.sessions.begin() as session:
            quote = make_quote(session, document, self.world.quoting, now=database_now(session))
            rows = session.execute(
                select(QuoteOffer, Offer.name, Site.name)
                .join(Offer, Offer.id == QuoteOffer.offer_id)
                .join(Site, Site.id == QuoteOffer.site_id)
                .where(QuoteOffer.quote_id == quote.id)
                .order_by(QuoteOffer.rank)
            ).all()
        return quote.id, tuple(
            Bid(KIND_OF[site.removesuffix(self.suffix), kind], offer.total, offer.hold) for offer, kind, site in rows
        )

    def order(self, quote_id: UUID, rank: int) -> tuple[UUID | None, str | None]:
        """The order's id, or what refused it."""
        choice, tools = Choice(quote_id, rank), self.world.tools
        try:
            with self.world.sessions.begin() as session:
                now = database_now(session)
                order = place_order(session, choice, ledger=tools.ledger, jobs=tools.jobs, actor="tests", now=now)
                return order.id, None
        except Rejected as refused:
            return None, type(refused).__name__

    def stop(self, order_id: UUID) -> None:
        """Cancel an order."""
        with self.world.sessions.begin() as session:
            stop_order(session, order_id, jobs=self.world.jobs, actor="tests", reason="cancelled")

    def funding(self, window: timedelta = timedelta(days=7)) -> Funding:
        """What orders get more money with."""
        return Funding(self.world.tools.ledger, self.world.tools.jobs, window)

    def extend(self, order_id: UUID, ticks: int, *, window: timedelta = timedelta(days=7)) -> str | None:
        """Extend an order beyond the end of the machine that lasts longest; what refused that."""
        funding = self.funding(window)
        try:
            with self.world.sessions.begin() as session:
                kept = (Lease.order_id == order_id, Lease.gone_at.is_(None), Lease.desired != Desired.GONE)
                end = session.scalar(select(func.max(Lease.ends_at)).where(*kept)) or database_now(session)
                now = database_now(session)
                extend_order(session, order_id, end + ticks * TICK, funding, actor="tests", now=now)
        except Rejected as refused:
            return type(refused).__name__
        return None

    def import_prices(self, site: str) -> None:
        """What the books say are the prices from now on."""
        rows = "".join(f"  {sku}: {{unit: hour, unit_price: '{price}'}}\n" for sku, price in self.prices(site).items())
        with self.world.sessions.begin() as session:
            now = database_now(session)
            card = (
                f"kind: rate-card\nname: {self.called(site)}\nprovider: {self.called(site)}\ncurrency: EUR\n"
                f"valid_from: '{now.isoformat()}'\nbills: openstack\nprices:\n{rows}"
            )
            import_rate_card(session, ratecards.parse(card), now=now)

    def grant(self, amount: Decimal) -> None:
        """One more grant of the project."""
        self.grants += 1
        with self.world.sessions.begin() as session:
            create_grant(
                session, self.project_id, name=f"grant-{self.grants}", amount=Amount.of(amount, "EUR"), period=CENTURY
            )

    # --- what workers and clouds do ---

    def work(self, lease_id: UUID, aim: str) -> str:
        """Pass over a lease until it is what it should be, or gone; returns which."""
        deadline = time.monotonic() + 10
        while True:
            self.visit(lease_id)
            with self.world.sessions() as session:
                lease = session.get_one(Lease, lease_id)
            if lease.gone_at is not None or lease.state.value == aim:
                return lease.state.value
            if time.monotonic() > deadline:
                raise AssertionError(f"wanted {aim}: {lease.state} {lease.desired} {lease.stop_reason} {lease.trouble}")

    def visit(self, lease_id: UUID) -> None:
        """One pass over a lease, due or not."""
        self.world.wake(lease_id)
        reconcile(self.world.tools, lease_id)

    def settle(self, lease_id: UUID) -> None:
        """Charge what can be charged."""
        self.world.settle(lease_id)

    def observe(self, site: str) -> None:
        """One complete listing."""
        self.world.observe(self.sites[site])

    def break_site(self, site: str, kind: FaultKind, times: int) -> None:
        """The next requests for machines meet this."""
        self.world.clouds[site].faults.add(kind, times=times, service="compute", method="POST", path=r"/servers$")

    def mend(self) -> None:
        """No trouble any more."""
        for cloud in self.world.clouds.values():
            cloud.faults.clear()

    def let_a_stranger_in(self, site: str) -> str:
        """Somebody else starts a small machine in our project at the site; its id."""
        cloud = self.world.clouds[site]
        (server,) = cloud.add_foreign_servers(1, project=cloud.config.projects[0].name)
        return server

    def pass_time(self, ticks: int) -> None:
        """All that is written down was so much longer ago."""
        moves = [UNTIL_MOVES.format(minutes=ticks * 30)]
        for table in Base.metadata.sorted_tables:
            times = [column.name for column in table.columns if isinstance(column.type, DateTime)]
            if times and table.name not in NOT_MOVED:
                changes = ", ".join(f"{name} = {name} - interval '{ticks * 30} minutes'" for name in times)
                moves.append(f"UPDATE {table.name} SET {changes};")  # noqa: S608 - our own names
        self.admin.exec_driver_sql(
            f"DO $$ BEGIN SET LOCAL session_replication_role = replica; {' '.join(moves)} END $$"
        )

    # --- what came of it ---

    def leases(self, order_id: UUID) -> list[tuple[UUID, int, int]]:
        """Id, member and rank of the order's leases, in the order of their making."""
        with self.world.sessions() as session:
            rows = session.execute(
                select(Lease.id, Lease.member, QuoteOffer.rank)
                .join(QuoteOffer, QuoteOffer.id == Lease.quote_offer_id)
                .where(Lease.order_id == order_id)
                .order_by(Lease.id)
            )
            return [(lease_id, member, rank) for lease_id, member, rank in rows]

    def charged(self, lease_id: UUID) -> Decimal:
        """What was charged for a lease."""
        with self.world.sessions() as session:
            return Decimal(
                session.scalars(
                    select(func.coalesce(func.sum(Charge.billed_cost), 0)).where(Charge.lease_id == lease_id)
                ).one()
            )

    def held(self, order_id: UUID) -> Decimal:
        """What an order has set aside."""
        with self.world.sessions() as session:
            return Decimal(
                session.scalars(
                    select(func.coalesce(func.sum(MoneyHold.remaining), 0)).where(
                        MoneyHold.order_id == order_id, MoneyHold.released_at.is_(None)
                    )
                ).one()
            )

    def counted(self) -> Counted:
        """All that this play wrote down."""
        names = {site_id: name for name, site_id in self.sites.items()}
        with self.world.sessions() as session:
            counted = count_up(session, self.project_id, names)
        return replace(counted, differences=[found for found in counted.differences if found not in self.known])
