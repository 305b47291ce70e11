"""A site with things that somebody made before Leeway knew of it, and a project that may pay for them."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID

from sqlalchemy import func, select

from accounting.models.charges import Charge
from broker.adopted import record_adopted
from broker.adoption import Wish, adopt
from broker.extensions import Funding
from broker.models.audit import Finding
from broker.models.inventory import Thing
from broker.models.leases import Lease
from broker.models.workloads import Order
from broker.orders import stop_order
from broker.ports import CloudAdapter
from broker.remote import Listing, RemoteThing, ThingKind
from tests.world import World


@dataclass
class Found:
    """A site with two machines, three volumes and three addresses that somebody made, and a project that may pay."""

    world: World
    site_id: UUID

    @property
    def adapter(self) -> CloudAdapter:
        return self.world.tools.open_site(self.site_id)

    @property
    def funding(self) -> Funding:
        return Funding(self.world.tools.ledger, self.world.jobs, self.world.quoting.assumptions.hold_window)

    def things(self, kind: ThingKind) -> list[Thing]:
        with self.world.sessions() as session:
            wanted = select(Thing).where(Thing.site_id == self.site_id, Thing.kind == kind, Thing.gone_at.is_(None))
            return list(session.scalars(wanted.order_by(Thing.remote_id)))

    def adopt(
        self, *things: Thing, project: str = "climate", until: datetime | None = None, site: str = "aurora"
    ) -> list[UUID]:
        """The leases."""
        world = self.world
        with world.sessions.begin() as session:
            wish = Wish(site, project, [thing.id for thing in things], until)
            assumed = world.quoting.assumptions
            now = session.scalars(select(func.clock_timestamp())).one()
            orders = adopt(session, wish, self.funding, assumed=assumed, actor="tests", now=now)
            ids = [order.id for order in orders]
        return [lease_id for order_id in ids for lease_id in self.leases(order_id)]

    def leases(self, order_id: UUID) -> list[UUID]:
        with self.world.sessions() as session:
            return list(session.scalars(select(Lease.id).where(Lease.order_id == order_id)))

    def order_of(self, lease_id: UUID) -> Order:
        with self.world.sessions() as session:
            return session.get_one(Order, session.get_one(Lease, lease_id).order_id)

    def stop(self, lease_id: UUID) -> None:
        with self.world.sessions.begin() as session:
            order_id = session.get_one(Lease, lease_id).order_id
            stop_order(session, order_id, jobs=self.world.jobs, actor="tests", reason="nobody pays for it any more")

    def charges(self, lease_id: UUID) -> list[Charge]:
        with self.world.sessions() as session:
            return list(session.scalars(select(Charge).where(Charge.lease_id == lease_id).order_by(Charge.id)))

    def miss(self, lease_id: UUID) -> None:
        """List until two listings, a settle time apart, have missed it; then look."""
        self.world.observe(self.site_id)
        time.sleep(0.35)
        self.world.observe(self.site_id)
        assert self.world.view(lease_id).lease.is_missing

    def list_volume(self, volume: Thing, *, size_gib: Decimal) -> datetime:
        """A listing that shows nothing but a volume of this size; when it began."""
        seen = RemoteThing(ThingKind.VOLUME, volume.remote_id, "", "available", size_gib=size_gib)
        world, started_at = self.world, self.world.now()
        record_adopted(
            world.tools,
            Listing("scope", (), (), (seen,)),
            site_id=self.site_id,
            started_at=started_at,
            settle=timedelta(0),
            writing=world.sessions.begin,
        )
        return started_at

    def finding(self, kind: str) -> Finding | None:
        with self.world.sessions() as session:
            wanted = select(Finding).where(Finding.kind == kind, Finding.resolved_at.is_(None))
            return session.scalars(wanted).one_or_none()
