"""Machines that boot from a volume, and second disks: launched, counted, paid for, and gone with their lease."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from accounting.ledger import verify
from accounting.models.charges import Charge
from accounting.models.grants import MoneyHold
from adapters.sandbox.config import FlavorConfig, QuotaConfig
from adapters.sandbox.faults import FaultKind
from adapters.sandbox.profiles import aurora, borealis
from broker.errors import QuotaExhausted
from broker.lease_view import View
from broker.meters import SNAPSHOT_SKU, VOLUME_SKU
from broker.models.holds import QuotaHold, QuotaPool
from broker.models.leases import Desired, LeaseState
from broker.models.workloads import Order
from broker.orders import Choice, set_power, stop_order
from broker.placement import Volumes
from broker.remote import PartKind
from broker.values import Amount
from tests.world import World, aurora_prices, make_world, quick

PRICES = aurora_prices() | {"a1.diskless": "0.03", VOLUME_SKU: "0.0002"}
# Its own disk, of 20 GiB, is too small.
LARGE = {"cores": 2, "memory": "4 GiB", "disk": "30 GiB"}
BOTH = LARGE | {"volume": "50 GiB"}


@pytest.fixture
def world(sessions: sessionmaker[Session]) -> Iterator[World]:
    """One quick cloud with a price for volumes."""
    with make_world(sessions, quick(aurora())) as made:
        made.connect(made.cloud, prices=PRICES)
        yield made


def run(world: World, **changes: Any) -> tuple[Order, View]:
    order = world.order(**changes)
    (lease_id,) = world.leases(order)
    return order, world.until_running(lease_id)


def sizes(world: World) -> dict[str, int]:
    """The volumes that are there, by the cloud's own log: id -> GiB."""
    made = {entry.id: entry.detail["size_gib"] for entry in world.cloud.log.entries(kind="volume", event="created")}
    return {remote_id: made[remote_id] for remote_id in world.cloud.log.alive("volume")}


def ever(world: World) -> int:
    return len(world.cloud.log.entries(kind="volume", event="created"))


def charges(world: World, lease_id: UUID) -> list[Charge]:
    with world.sessions() as session:
        assert verify(session) == []
        return list(session.scalars(select(Charge).where(Charge.lease_id == lease_id).order_by(Charge.id)))


def stop(world: World, order: Order, lease_id: UUID) -> None:
    with world.sessions.begin() as session:
        stop_order(session, order.id, jobs=world.jobs, actor="tests", reason="done")
    world.until_gone(lease_id)
    world.settle(lease_id)


def held(world: World, lease_id: UUID) -> dict[str, Decimal]:
    """Quota that the lease still holds."""
    with world.sessions() as session:
        rows = session.execute(
            select(QuotaPool.resource, QuotaHold.amount)
            .join(QuotaPool, QuotaPool.id == QuotaHold.pool_id)
            .where(QuotaHold.lease_id == lease_id, QuotaHold.released_at.is_(None))
        )
        return dict(rows.all())


def test_a_machine_has_its_volumes_and_they_are_paid_in_every_state(world: World) -> None:
    order, view = run(world, resources=BOTH)
    lease = view.lease
    assert Volumes.of(lease.spec) == Volumes(30, 50)
    second = view.part(PartKind.VOLUME).remote_id
    there = sizes(world)
    assert sorted(there.values()) == [30, 50]
    assert there[second or ""] == 50
    assert {name: held(world, lease.id)[name] for name in ("volumes", "volume_gib")} == {"volumes": 2, "volume_gib": 80}

    with world.sessions.begin() as session:
        set_power(session, order.id, Desired.STOPPED, jobs=world.jobs, actor="tests")
    world.until(lease.id, lambda lease: lease.state is LeaseState.STOPPED)
    stop(world, order, lease.id)

    assert sizes(world) == {}
    assert held(world, lease.id) == {}
    rows = charges(world, lease.id)
    machines, disks = ([row for row in rows if (row.sku_id == VOLUME_SKU) is is_disk] for is_disk in (False, True))
    assert {row.x_machine_state for row in disks} >= {"running", "stopped"}
    assert {(row.resource_id, row.resource_type, row.service_name, row.service_category) for row in disks} == {
        (second, "Volume", "Volumes", "Storage")
    }
    hours = {row.segment_id: row.consumed_quantity for row in machines}
    for row in disks:
        # To the ninth decimal, which is where the hours of the machine's own row end.
        assert abs(row.consumed_quantity - 80 * hours[row.segment_id]) <= 80 * Decimal("5E-10") + Decimal("5E-10")
        assert abs(row.billed_cost - row.consumed_quantity * Decimal("0.0002")) <= Decimal("1E-9")
        assert (row.consumed_unit, row.x_share) == ("GiB-Hours", 1)
    assert {row.segment_id for row in disks} == set(hours)


def test_an_instance_type_without_a_disk_boots_from_a_volume_of_ten_gib(sessions: sessionmaker[Session]) -> None:
    config = quick(aurora())
    bare = replace(config, flavors=(FlavorConfig(name="a1.diskless", vcpus=2, ram_mib=4096, disk_gib=0),))
    with make_world(sessions, bare) as world:
        world.connect(world.cloud, prices=PRICES)
        order, view = run(world)
        assert Volumes.of(view.lease.spec) == Volumes(10, 0)
        assert list(sizes(world).values()) == [10]
        assert PartKind.VOLUME not in {part.kind for part in view.lease.parts}, "the cloud made it with the machine"
        stop(world, order, view.lease.id)
        assert sizes(world) == {}
        server = view.part(PartKind.SERVER).remote_id
        assert {row.resource_id for row in charges(world, view.lease.id) if row.sku_id == VOLUME_SKU} == {server}


def test_what_is_held_is_what_was_quoted_and_more_for_longer(world: World) -> None:
    quote = world.quote(resources=BOTH, count=2)
    best = quote.offers[0]
    assert best.boot_volume_gib == 30
    assert [(line["component"], line["quantity"]) for line in best.lines] == [("machine", "4"), ("volumes", "320")]
    assert (best.total, best.hourly) == (Decimal("0.224"), Decimal("0.112"))  # 2 x (0.04 + 80 x 0.0002) an hour
    order = world.order_quote(Choice(quote.id))
    with world.sessions() as session:
        (hold,) = session.scalars(select(MoneyHold).where(MoneyHold.order_id == order.id))
        assert hold.amount == best.hold


def test_the_second_disk_goes_with_its_machine_where_a_snapshot_is_kept(world: World) -> None:
    order, view = run(world, resources={"cores": 2, "memory": "4 GiB", "volume": "50 GiB"}, keep_snapshot="30 days")
    lease_id = view.lease.id
    world.wake(lease_id, ends_at=world.now(), grace=timedelta(0))
    world.until(lease_id, lambda lease: lease.state is LeaseState.SNAPSHOT)
    world.until(lease_id, lambda _: not sizes(world))
    assert len(world.cloud.log.alive("snapshot")) == 1
    stop(world, order, lease_id)
    rows = charges(world, lease_id)
    assert {row.x_machine_state for row in rows if row.sku_id == SNAPSHOT_SKU} == {"snapshot"}
    assert "snapshot" not in {row.x_machine_state for row in rows if row.sku_id == VOLUME_SKU}


def test_after_a_lost_answer_there_is_one_volume(world: World) -> None:
    world.cloud.faults.add(FaultKind.ANSWER_LOST, times=1, service="volume", method="POST", path=r"/volumes$")
    order, view = run(world, resources=LARGE | {"disk": "20 GiB", "volume": "50 GiB"})
    assert ever(world) == 1
    assert list(sizes(world)) == [view.part(PartKind.VOLUME).remote_id]
    stop(world, order, view.lease.id)
    assert sizes(world) == {}


def test_a_second_volume_that_shows_late_is_deleted(world: World) -> None:
    """The first request's answer was lost and its volume hidden until another was made."""
    world.cloud.faults.add(FaultKind.HIDDEN, times=1, seconds=3, service="volume", method="POST", path=r"/volumes$")
    world.cloud.faults.add(FaultKind.ANSWER_LOST, times=1, service="volume", method="POST", path=r"/volumes$")
    order = world.order(resources=LARGE | {"disk": "20 GiB", "volume": "50 GiB"})
    (lease_id,) = world.leases(order)
    world.tools = replace(world.tools, timing=replace(world.tools.timing, call=world.tools.timing.settle))
    view = world.until_running(lease_id)
    assert ever(world) == 2
    site_id = view.lease.site_id
    for _ in range(100):
        world.observe(site_id)
        world.work(lease_id)
        if len(sizes(world)) == 1:
            break
    assert list(sizes(world)) == [view.part(PartKind.VOLUME).remote_id]
    stop(world, order, lease_id)
    assert sizes(world) == {}


def test_a_site_without_cinder_is_out_with_the_reason(sessions: sessionmaker[Session]) -> None:
    with make_world(sessions, replace(quick(aurora()), has_volumes=False)) as world:
        world.connect(world.cloud, prices=PRICES)
        quote = world.quote(resources=LARGE | {"disk": "10 GiB", "volume": "50 GiB"})
        assert quote.offers == []
        (verdict,) = quote.verdicts
        assert verdict["summary"] == "nothing fits: volume: wanted a volume of 50 GiB, offered no block storage"
        assert quote.relaxations[0].startswith("leave the volume out: fits at aurora (a1.small, ")
        (verdict,) = world.quote(resources=LARGE | {"disk": "100 GiB"}).verdicts
        assert "and no block storage" in verdict["summary"]


def test_no_more_volumes_are_promised_than_there_are(sessions: sessionmaker[Session]) -> None:
    config = quick(aurora())
    quota = QuotaConfig(volumes=5, volume_gib=150)
    tight = replace(config, projects=(replace(config.projects[0], quota=quota), *config.projects[1:]))
    with make_world(sessions, tight) as world:
        world.connect(world.cloud, prices=PRICES)
        first, second = (world.quote(resources=BOTH, name=name) for name in ("first", "second"))
        assert [offer.boot_volume_gib for offer in second.offers][:1] == [30]
        world.order_quote(Choice(first.id))
        with pytest.raises(QuotaExhausted, match="aurora has 70 volume_gib left, the order needs 80"):
            world.order_quote(Choice(second.id))


def test_the_next_offer_has_its_own_boot_volume_and_is_held_for(sessions: sessionmaker[Session]) -> None:
    """The first site's type has a disk that is large enough, the next one's has not."""
    with make_world(sessions, quick(borealis()), quick(aurora())) as world:
        first, second = world.clouds.values()
        world.connect(first, prices={"std.4c8g": "0.01"})
        world.connect(second, prices=PRICES)
        first.faults.add(FaultKind.NO_CAPACITY, service="compute", method="POST", path=r"/servers$")
        order = world.order(resources=LARGE, max_price="5 EUR")
        (failed,) = world.leases(order)
        assert Volumes.of(world.view(failed).lease.spec) == Volumes()
        world.until_gone(failed)
        with world.sessions() as session:
            (hold,) = session.scalars(select(MoneyHold).where(MoneyHold.order_id == order.id))
        (again,) = [lease_id for lease_id in world.leases(order) if lease_id != failed]
        lease = world.until_running(again).lease
        assert Volumes.of(lease.spec) == Volumes(30, 0)
        # 2 h, the stop ladder's 15 min and the settle time's 2, of machine and volume.
        least = Amount.of((Decimal("0.04") + 30 * Decimal("0.0002")) * 137 / 60, "EUR")
        assert abs(hold.amount - least.value) < Decimal("1E-6")
