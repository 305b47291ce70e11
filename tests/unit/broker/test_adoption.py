"""What was there before Leeway is adopted into a project: charged from then on, and never changed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from uuid import uuid4

import pytest
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session, sessionmaker

from accounting.models.charges import Segment
from accounting.models.grants import MoneyHold
from accounting.proof import prove
from adapters.sandbox.config import Timing as CloudTiming
from adapters.sandbox.profiles import aurora
from broker.adopted import record_adopted
from broker.errors import Conflict, GrantExhausted, InvalidInput, NotFound, PriceUnknown
from broker.extensions import HOLD_REFUSED, orders_to_roll, roll_hold
from broker.meters import VOLUME_SKU
from broker.models.audit import Event, Finding
from broker.models.federation import Site
from broker.models.inventory import Thing
from broker.models.leases import Desired, Lease, LeaseState, Part
from broker.models.people import Project
from broker.models.workloads import Order, OrderState
from broker.orders import set_power
from broker.remote import Deadline, Listing, PartKind, ThingKind
from broker.workload_views import workload_view
from tests.found import Found
from tests.world import aurora_prices, make_world

DAY = timedelta(days=1)


@pytest.fixture(params=[False, True], ids=["brokered", "observed"])
def found(request: pytest.FixtureRequest, sessions: sessionmaker[Session]) -> Iterator[Found]:
    with make_world(sessions, replace(aurora(), timing=CloudTiming())) as world:
        site_id = world.connect(world.cloud, prices=aurora_prices() | {VOLUME_SKU: "0.0002"})
        with sessions.begin() as session:
            session.get_one(Site, site_id).observe_only = request.param
        yield Found(world, site_id)


def changes(found: Found) -> int:
    """What ever changed at the cloud, by its own account."""
    return len(found.world.cloud.log.entries())


def test_a_machine_is_charged_from_its_adoption_on_until_it_is_gone(found: Found) -> None:
    machine = found.things(ThingKind.SERVER)[0]
    (lease_id,) = found.adopt(machine)
    lease = found.world.view(lease_id).lease
    assert (lease.state, lease.adopted_at) == (LeaseState.RUNNING, lease.made_at)
    assert found.order_of(lease_id).state is OrderState.ACTIVE
    found.world.observe(found.site_id)
    found.world.work(lease_id)
    assert not found.charges(lease_id), "what runs is posted when it ends"
    with found.world.sessions.begin() as session:  # its owner deletes it
        session.get_one(Site, found.site_id).observe_only = False
    found.adapter.delete(PartKind.SERVER, machine.remote_id, deadline=Deadline.after(10))
    found.miss(lease_id)
    view = found.world.until_gone(lease_id)
    found.world.settle(lease_id)
    (charge,) = found.charges(lease_id)
    assert (charge.resource_id, charge.charge_period_start) == (machine.remote_id, view.lease.made_at)
    assert charge.billed_cost > 0
    assert found.order_of(lease_id).state is OrderState.OVER
    with found.world.sessions() as session:
        assert not session.scalars(select(MoneyHold.id).where(MoneyHold.released_at.is_(None))).all()
        assert not prove(session)


@pytest.mark.parametrize(
    ("kind", "sku", "unit"),
    [
        (ThingKind.VOLUME, "volume-storage", "GiB-Hours"),
        (ThingKind.ADDRESS, "public-address", "Hours"),
        (ThingKind.SNAPSHOT, "snapshot-storage", "GiB-Hours"),
        (ThingKind.VOLUME_SNAPSHOT, "snapshot-storage", "GiB-Hours"),
    ],
)
def test_what_is_no_machine_is_charged_by_its_size_and_given_up(
    found: Found, kind: ThingKind, sku: str, unit: str
) -> None:
    thing = found.things(kind)[0]
    (lease_id,) = found.adopt(thing)
    found.world.observe(found.site_id)
    assert found.world.work(lease_id).lease.state is LeaseState.PRESENT
    found.stop(lease_id)
    lease = found.world.until_gone(lease_id).lease
    found.world.settle(lease_id)
    (charge,) = found.charges(lease_id)
    assert (charge.sku_id, charge.consumed_unit, charge.resource_id) == (sku, unit, thing.remote_id)
    hours = Decimal((charge.charge_period_end - charge.charge_period_start) / timedelta(microseconds=1)) / 3_600_000_000
    assert abs(charge.consumed_quantity - hours * (thing.size_gib or 1)) < Decimal("0.000001")
    assert charge.charge_period_start == lease.adopted_at
    with found.world.sessions() as session:
        wanted = session.get_one(Site, found.site_id).full_listing_wanted_at
        assert wanted is not None
        assert wanted > charge.charge_period_end, "it is a finding again as soon as a listing has shown it"
    found.world.observe(found.site_id)
    (same,) = [one for one in found.things(kind) if one.remote_id == thing.remote_id]
    assert same.lease_id is None, "it is still there, and nobody's"


def test_nothing_that_was_adopted_is_ever_changed(found: Found) -> None:
    before = changes(found)
    things = [*found.things(ThingKind.SERVER), *found.things(ThingKind.VOLUME), *found.things(ThingKind.ADDRESS)]
    leases = found.adopt(*things, until=found.world.now() + timedelta(seconds=0.5))
    time.sleep(0.6)
    for lease_id in leases:
        found.world.work(lease_id)
    assert {found.world.view(lease_id).lease.desired for lease_id in leases} <= {Desired.RUNNING, Desired.STOPPED}
    with found.world.sessions() as session:
        told = session.scalars(select(Finding.text).where(Finding.kind == "lease_stuck")).all()
    assert len(told) == len(leases)
    assert all("deletes nothing that it did not make" in text for text in told)
    for lease_id in leases:
        found.stop(lease_id)
        found.world.until_gone(lease_id)
    assert changes(found) == before
    found.world.observe(found.site_id)
    assert {thing.remote_id for thing in things} <= {
        thing.remote_id for kind in ThingKind for thing in found.things(kind)
    }


def test_its_power_is_its_owners(found: Found) -> None:
    (lease_id,) = found.adopt(found.things(ThingKind.SERVER)[0])
    order = found.order_of(lease_id)
    with found.world.sessions.begin() as session, pytest.raises(Conflict, match="adopted"):
        set_power(session, order.id, Desired.STOPPED, jobs=found.world.jobs, actor="tests")


def test_once_is_enough_and_two_projects_are_one_too_many(found: Found) -> None:
    machine = found.things(ThingKind.SERVER)[0]
    assert found.adopt(machine) == found.adopt(machine)
    with found.world.sessions.begin() as session:
        home = session.scalars(select(Project.institution_id)).one()
        session.add(Project(name="physics", title="Physics", institution_id=home))
    with pytest.raises(Conflict, match="charged to a project already"):
        found.adopt(machine, project="physics")


def test_what_was_given_up_may_be_adopted_again(found: Found) -> None:
    machine = found.things(ThingKind.SERVER)[0]
    (first,) = found.adopt(machine)
    found.stop(first)
    found.world.until_gone(first)
    found.world.observe(found.site_id)
    (second,) = found.adopt(machine)
    assert second != first


def test_all_or_nothing(found: Found) -> None:
    machine, volume = found.things(ThingKind.SERVER)[0], found.things(ThingKind.VOLUME)[0]
    with found.world.sessions.begin() as session:  # a size that the site does not say has no price
        session.execute(update(Thing).where(Thing.id == volume.id).values(size_gib=None))
    with pytest.raises(PriceUnknown, match="does not say how large"):
        found.adopt(machine, volume)
    with found.world.sessions() as session:
        assert not session.scalars(select(Lease.id)).all()
        assert not session.scalars(select(MoneyHold.id)).all()


def test_a_grant_that_is_too_small_adopts_nothing(found: Found) -> None:
    with found.world.sessions.begin() as session:
        session.execute(update(Thing).where(Thing.kind == ThingKind.VOLUME).values(size_gib=Decimal(100_000)))
    with pytest.raises(GrantExhausted):
        found.adopt(*found.things(ThingKind.VOLUME))
    with found.world.sessions() as session:
        assert not session.scalars(select(Lease.id)).all()


def test_a_leeways_own_is_not_adopted(found: Found) -> None:
    machine = found.things(ThingKind.SERVER)[0]
    with found.world.sessions.begin() as session:
        session.execute(update(Thing).where(Thing.id == machine.id).values(installation=uuid4()))
    with pytest.raises(Conflict, match="tags of Leeway installation"):
        found.adopt(machine)


def test_wishes_that_cannot_be(found: Found) -> None:
    machine = found.things(ThingKind.SERVER)[0]
    with pytest.raises(InvalidInput, match="366 days"):
        found.adopt(machine, until=found.world.now() - DAY)
    with pytest.raises(NotFound, match="no project"):
        found.adopt(machine, project="nobody")
    with pytest.raises(InvalidInput, match="0 things"):
        found.adopt()
    stranger = Thing(id=uuid4())
    with pytest.raises(NotFound, match="no thing"):
        found.adopt(stranger)


def test_its_money_rolls_on(found: Found) -> None:
    world, window = found.world, found.funding.window
    (lease_id,) = found.adopt(found.things(ThingKind.VOLUME)[0])
    order = found.order_of(lease_id)
    assert order.held_until is not None
    later = order.held_until - window * 0.4
    with world.sessions.begin() as session:
        assert orders_to_roll(session, now=later, window=window) == [order.id]
        assert roll_hold(session, order.id, found.funding, now=later)
        assert session.get_one(Order, order.id).held_until == later + window


def test_where_there_is_no_money_it_is_charged_all_the_same(found: Found) -> None:
    world, window = found.world, found.funding.window
    volume = found.things(ThingKind.VOLUME)[0]
    (lease_id,) = found.adopt(volume)
    order = found.order_of(lease_id)
    assert order.held_until is not None
    found.list_volume(volume, size_gib=Decimal(50_000_000))  # it grew beyond all that the grant has
    with world.sessions.begin() as session:
        assert not roll_hold(session, order.id, found.funding, now=order.held_until - window * 0.4)
    refused = found.finding(HOLD_REFUSED)
    assert refused is not None
    assert "overdraft" in refused.hint
    found.stop(lease_id)
    found.world.until_gone(lease_id)
    found.world.settle(lease_id)
    assert sum(charge.billed_cost for charge in found.charges(lease_id)) > 0


def test_a_volume_that_grows_costs_more_from_when_that_was_seen(found: Found) -> None:
    volume = found.things(ThingKind.VOLUME)[0]
    (lease_id,) = found.adopt(volume)
    assert volume.size_gib is not None
    world = found.world
    seen_at = found.list_volume(volume, size_gib=volume.size_gib + 10)
    world.settle(lease_id)
    found.stop(lease_id)
    world.until_gone(lease_id)
    world.settle(lease_id)
    small, large = found.charges(lease_id)
    assert small.charge_period_end == large.charge_period_start == seen_at
    for charge, gib in ((small, volume.size_gib), (large, volume.size_gib + 10)):
        length = Decimal((charge.charge_period_end - charge.charge_period_start) // timedelta(microseconds=1))
        assert abs(charge.consumed_quantity - length / 3_600_000_000 * gib) < Decimal("0.000001")


def test_a_listing_of_other_projects_misses_nothing(found: Found) -> None:
    """An observed site may be read in several projects, and in fewer of them later."""
    volume = found.things(ThingKind.VOLUME)[0]
    assert volume.project is not None
    (lease_id,) = found.adopt(volume)
    world = found.world
    for projects, is_missed in (({"another"}, False), ({"another", volume.project}, True)):
        record_adopted(
            world.tools,
            Listing("scope", (), (), projects=frozenset(projects)),
            site_id=found.site_id,
            started_at=world.now(),
            settle=timedelta(0),
            writing=world.sessions.begin,
        )
        assert (world.view(lease_id).lease.missing_since is not None) is is_missed


def test_a_kind_that_could_not_be_read_is_missed_by_nobody(found: Found) -> None:
    (lease_id,) = found.adopt(found.things(ThingKind.VOLUME)[0])
    world = found.world
    nothing = Listing("scope", (), (), (), unread={ThingKind.VOLUME: "Cinder is away"})
    record_adopted(
        world.tools,
        nothing,
        site_id=found.site_id,
        started_at=world.now(),
        settle=timedelta(0),
        writing=world.sessions.begin,
    )
    assert world.view(lease_id).lease.missing_since is None


def test_a_name_may_be_as_long_as_the_site_lets_it_be(found: Found) -> None:
    volume = found.things(ThingKind.VOLUME)[0]
    with found.world.sessions.begin() as session:
        session.execute(update(Thing).where(Thing.id == volume.id).values(name="data " * 51))
    (lease_id,) = found.adopt(volume)
    found.stop(lease_id)
    found.world.until_gone(lease_id)
    found.world.settle(lease_id)
    (charge,) = found.charges(lease_id)
    assert len(charge.resource_name) == 255


def test_a_finding_of_what_was_adopted_closes_with_the_next_listing(found: Found) -> None:
    world = found.world
    with world.sessions.begin() as session:
        open_ones = session.scalars(select(Finding).where(Finding.kind == "idle_address")).all()
        keys = {finding.key for finding in open_ones if finding.resolved_at is None}
    address = next(one for one in found.things(ThingKind.ADDRESS) if any(one.remote_id in key for key in keys))
    found.adopt(address)
    with world.sessions() as session:
        site = session.get_one(Site, found.site_id)
        assert site.full_listing_wanted_at is not None
        assert site.next_listing_at <= world.now()
    world.observe(found.site_id)
    with world.sessions() as session:
        left = select(Finding.key).where(Finding.kind == "idle_address", Finding.resolved_at.is_(None))
        assert not [key for key in session.scalars(left) if address.remote_id in key]


def test_people_see_what_it_is(found: Found) -> None:
    (lease_id,) = found.adopt(found.things(ThingKind.VOLUME)[0])
    with found.world.sessions() as session:
        order_id = session.get_one(Lease, lease_id).order_id
        view = workload_view(session, order_id)
        text = session.scalars(select(Event.text).where(Event.kind == "adopt")).one()
        segments = session.scalars(select(func.count()).select_from(Segment)).one()
    assert (view.offer.name, view.machines[0].state) == ("volume", LeaseState.PRESENT)
    assert view.machines[0].adopted_at is not None
    assert "an hour until" in text
    assert segments == 0
    with found.world.sessions() as session:
        assert session.scalars(select(Part.kind).where(Part.lease_id == lease_id)).one() is PartKind.VOLUME
