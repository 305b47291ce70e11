"""Everything at once on one grant and two sites: nobody waits in a circle or for long, and nothing is lost or kept.

`LEEWAY_TEST_OVERCOMMIT_SECONDS=600` goes on for longer.
"""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from uuid import UUID

import pytest
from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session, sessionmaker

from accounting.models.charges import Charge
from adapters.sandbox.faults import FaultKind
from broker.database import Database, database_now
from broker.errors import Rejected
from broker.extensions import roll_hold
from broker.inventory import observe, take_turn
from broker.models.federation import Site
from broker.models.leases import Lease
from broker.models.workloads import Order, OrderState
from tests.conftest import PostgresForTests
from tests.unit.overcommit.oracle import KINDS
from tests.unit.overcommit.stage import Play, opened, superuser

pytestmark = pytest.mark.postgres

SECONDS = float(os.environ.get("LEEWAY_TEST_OVERCOMMIT_SECONDS", "6"))
THREADS = 4


@dataclass
class Actor:
    """One thread's dice, and what it has done. What it asks for may be refused, and nothing else may happen."""

    play: Play
    dice: random.Random
    done: Counter[str] = field(default_factory=Counter)

    def act(self, until: float) -> None:
        """Do one thing after another until then."""
        actions: list[Callable[[], object]] = [
            *(self.order,) * 3,
            *(self.work,) * 6,
            self.cancel,
            self.extend,
            self.roll,
            self.observe,
            self.settle,
            self.change_prices,
        ]
        while time.monotonic() < until:
            action = self.dice.choice(actions)
            try:
                is_done = action() is not None
            except Rejected as refused:
                self.done[f"{action.__name__}: {refused.code}"] += 1
            else:
                self.done[action.__name__] += is_done

    def order(self) -> UUID | None:
        """A quote, and an order of one of its first offers."""
        quote_id, bids = self.play.quote(
            cores=self.dice.choice((2, 4)),
            count=self.dice.randint(1, 3),
            ticks=self.dice.randint(1, 4),
            limit=Decimal(3),
        )
        if not bids:
            return None
        order_id, refusal = self.play.order(quote_id, self.dice.randint(1, min(2, len(bids))))
        self.done[f"order: {refusal}"] += refusal is not None
        return order_id

    def cancel(self) -> UUID | None:
        """An order ends."""
        order_id = self.any(self.orders)
        if order_id is not None:
            self.play.stop(order_id)
        return order_id

    def extend(self) -> UUID | None:
        """An order is to last longer, with money for the next hour."""
        order_id = self.any(self.orders)
        if order_id is None:
            return None
        refusal = self.play.extend(order_id, self.dice.randint(1, 3), window=timedelta(hours=1))
        self.done[f"extend: {refusal}"] += refusal is not None
        return order_id if refusal is None else None

    def roll(self) -> UUID | None:
        """An order gets money for its next hours."""
        order_id = self.any(self.orders)
        if order_id is None:
            return None
        with self.play.world.sessions.begin() as session:
            funding = self.play.funding(timedelta(hours=4))
            return order_id if roll_hold(session, order_id, funding, now=database_now(session)) else None

    def work(self) -> UUID | None:
        """A pass over a lease, at a site that may break down."""
        lease_id = self.any(self.leases)
        if lease_id is None:
            return None
        if self.dice.random() < 0.2:
            self.play.break_site(self.dice.choice(list(self.play.sites)), FaultKind.NO_CAPACITY, 1)
        self.play.visit(lease_id)
        return lease_id

    def observe(self) -> UUID | None:
        """A listing, unless another thread is at the site."""
        site_id = self.dice.choice(list(self.play.sites.values()))
        with self.play.world.sessions.begin() as session:
            session.get_one(Site, site_id, with_for_update=True).next_listing_at = database_now(session)
        turn = take_turn(self.play.world.tools, site_id)
        if turn is None:
            return None
        observe(self.play.world.tools, turn)
        return site_id

    def settle(self) -> UUID | None:
        """Money of a lease, alive or not."""
        lease_id = self.any(self.leases)
        if lease_id is not None:
            self.play.settle(lease_id)
        return lease_id

    def change_prices(self) -> str:
        """A site's prices change; or nobody changed them meanwhile."""
        site = self.dice.choice(list(self.play.sites))
        for kind in KINDS:
            if kind.site == site:
                self.play.books.prices[kind] = Decimal("0.06") * self.dice.randint(1, 4)
        self.play.import_prices(site)
        return site

    @property
    def orders(self) -> Select[UUID]:
        """Orders that are not over."""
        return select(Order.id).where(Order.project_id == self.play.project_id, Order.state != OrderState.OVER)

    @property
    def leases(self) -> Select[UUID]:
        """Leases that are not settled."""
        mine = select(Lease.id).join(Order, Order.id == Lease.order_id).where(Lease.settled_at.is_(None))
        return mine.where(Order.project_id == self.play.project_id)

    def any(self, found: Select[UUID]) -> UUID | None:
        """One of them, if there is one."""
        with self.play.world.sessions() as session:
            ids = session.scalars(found).all()
        return self.dice.choice(ids) if ids else None


def test_everything_at_once(postgres: PostgresForTests, database: Database, sessions: sessionmaker[Session]) -> None:
    with superuser(postgres, database) as admin, opened(sessions, admin) as stage:
        play = stage.play()
        play.grant(Decimal(2))
        actors = [Actor(play, random.Random(number)) for number in range(THREADS)]  # noqa: S311 - to be repeated
        with ThreadPoolExecutor(THREADS) as pool:
            until = time.monotonic() + SECONDS
            acting = [pool.submit(actor.act, until) for actor in actors]
            while time.monotonic() < until:
                check(play)
                time.sleep(0.3)
            for one in acting:
                one.result(timeout=60)
        check(play)
        done = sum((actor.done for actor in actors), Counter())
        wanted = {"order", "work", "cancel", "extend", "observe", "settle", "change_prices"}
        assert wanted <= set(+done), done
        end(play)


def check(play: Play) -> None:
    """What must hold at any moment."""
    counted = play.counted()
    assert counted.over_committed == []
    assert counted.differences == []
    for (site, resource), taken in counted.taken.items():
        assert taken <= play.books.sites[site].limits[resource]


def end(play: Play) -> None:
    """All is cancelled, and gone: then nothing is held, and what was used is posted once."""
    play.mend()
    actor = Actor(play, random.Random(0))  # noqa: S311 - not used
    while (order_id := actor.any(actor.orders)) is not None:
        play.stop(order_id)
        for lease_id, _, _ in play.leases(order_id):
            play.work(lease_id, "gone")
        for lease_id, _, _ in play.leases(order_id):
            play.settle(lease_id)
    while (unsettled := actor.any(actor.leases)) is not None:  # of orders that came back, and were let go then
        play.settle(unsettled)
    for site in play.sites:
        play.observe(site)
    counted = play.counted()
    assert counted.differences == []
    assert counted.held == 0
    assert set(counted.taken.values()) == {Decimal(0)}
    assert all(counted.free[key] == play.books.sites[key[0]].limits[key[1]] for key in counted.free)
    with play.world.sessions() as session:
        billed = select(func.coalesce(func.sum(Charge.billed_cost), 0)).where(Charge.project_id == play.project_id)
        assert counted.posted + counted.overdraft == session.scalars(billed).one()
    for cloud in play.world.clouds.values():
        assert cloud.log.alive("server") == set()
