"""The last rungs of the ladder: no machine that keeps a snapshot is deleted before that is whole, and it is kept."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from uuid import UUID

import pytest
from sqlalchemy import delete as delete_rows
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session, sessionmaker

from accounting.ledger import verify
from accounting.models.charges import Charge
from accounting.models.grants import Grant, MoneyHold
from adapters.sandbox.profiles import aurora, borealis
from broker.errors import Conflict, GrantExhausted
from broker.extensions import Funding, extend_order
from broker.lease_view import View
from broker.models.audit import Event
from broker.models.federation import Site
from broker.models.holds import QuotaHold
from broker.models.leases import Desired, LaunchAttempt, Lease, LeaseState, Outcome, Part
from broker.models.messages import Message
from broker.models.workloads import Order, OrderState, QuoteOffer
from broker.orders import set_power, stop_order
from broker.remote import Deadline, MachineSpec, PartKind, Tags
from broker.values import new_id
from broker.workload_views import workload_view
from tests.world import World, aurora_prices, make_world, quick

HOUR = timedelta(hours=1)
NONE = timedelta(0)


def running(world: World) -> tuple[Order, UUID]:
    order = world.order(keep_snapshot="30 days")
    (lease_id,) = world.leases(order)
    world.until_running(lease_id)
    world.work(lease_id)
    return order, lease_id


def lapse(world: World, lease_id: UUID) -> None:
    """Its time, and the grace after it, are over."""
    world.wake(lease_id, ends_at=world.now(), grace=NONE)


def switch_off(world: World, lease_id: UUID) -> None:
    """Its time is over, and it is off: the next action is the snapshot."""
    world.wake(lease_id, ends_at=world.now(), grace=HOUR)
    world.until(lease_id, lambda lease: lease.state is LeaseState.STOPPED)


def kept(world: World, lease_id: UUID) -> View:
    return world.until(lease_id, lambda lease: lease.state is LeaseState.SNAPSHOT)


def snapshot(view: View) -> Part:
    return view.part(PartKind.SNAPSHOT)


def images(world: World) -> list[str]:
    """Ids of the snapshots that are there, by the cloud's own log."""
    return sorted(world.cloud.log.alive("snapshot"))


def states(world: World, kind: str) -> list[str]:
    return [entry.event for entry in world.cloud.log.entries(kind=kind)]


def servers(world: World) -> list[str]:
    return states(world, "server")


def alive(view: View) -> set[PartKind]:
    return {part.kind for part in view.lease.parts if part.remote_id and not part.gone_at}


def told(world: World, lease_id: UUID, kind: str) -> list[str]:
    with world.sessions() as session:
        rows = session.scalars(
            select(Event.text).where(Event.lease_id == lease_id, Event.kind == kind).order_by(Event.id)
        )
        return list(rows)


def tries(view: View) -> list[Outcome]:
    part = snapshot(view)
    return [attempt.outcome for attempt in view.lease.attempts if attempt.part_id == part.id]


def charged(world: World, lease_id: UUID) -> dict[str, Decimal]:
    with world.sessions() as session:
        assert verify(session) == []
        rows = session.execute(
            select(Charge.sku_id, func.sum(Charge.consumed_quantity))
            .where(Charge.lease_id == lease_id)
            .group_by(Charge.sku_id)
        )
        return dict(rows.all())


def test_after_the_grace_the_disk_is_saved_and_then_the_machine_goes(world: World) -> None:
    order, lease_id = running(world)
    assert images(world) == []
    lapse(world, lease_id)
    kept(world, lease_id)
    view = world.until(lease_id, lambda _: alive(world.view(lease_id)) == {PartKind.SNAPSHOT})
    assert images(world) == [snapshot(view).remote_id]
    assert view.lease.gone_at is None
    with world.sessions() as session:
        assert session.get_one(Order, order.id).state is OrderState.ACTIVE
        assert all(hold.released_at is not None for hold in session.scalars(select(QuotaHold)))
        assert all(hold.released_at is None for hold in session.scalars(select(MoneyHold)))
        (machine,) = workload_view(session, order.id).machines
        assert machine.kept_until is not None
        assert timedelta(days=29) < machine.kept_until - world.now() < timedelta(days=31)
    # Nothing is to be done for long, and it is looked at now and then.
    again = world.work(lease_id)
    assert again.lease.next_look_at is not None
    assert timedelta(minutes=50) < again.lease.next_look_at - world.now() <= HOUR


def test_a_new_order_can_start_from_it_after_the_next_listing(world: World) -> None:
    """And not hours later, when the images are read again anyway."""
    _, lease_id = running(world)
    lapse(world, lease_id)
    view = kept(world, lease_id)
    with world.sessions() as session:
        (site_id,) = session.scalars(select(Site.id))
        (name,) = session.scalars(
            select(Event.data["name"].astext).where(Event.lease_id == lease_id, Event.data["name"].is_not(None))
        )
    assert world.quote(image=name).offers == []
    world.observe(site_id)
    offers = world.quote(image=name).offers
    assert {offer.image_remote_id for offer in offers} == {snapshot(view).remote_id}


def test_a_person_who_stops_it_then_deletes_the_snapshot(world: World) -> None:
    order, lease_id = running(world)
    lapse(world, lease_id)
    kept(world, lease_id)
    with world.sessions.begin() as session:
        stop_order(session, order.id, jobs=world.jobs, actor="tests", reason="not needed")
    world.until_gone(lease_id)
    world.settle(lease_id)
    assert images(world) == []
    assert {"snapshot-storage"} < charged(world, lease_id).keys()
    with world.sessions() as session:
        assert session.get_one(Order, order.id).state is OrderState.OVER
        assert all(hold.released_at is not None for hold in session.scalars(select(MoneyHold)))


def test_when_it_was_kept_long_enough_it_is_deleted(world: World) -> None:
    _, lease_id = running(world)
    lapse(world, lease_id)
    kept(world, lease_id)
    world.wake(lease_id, keep=timedelta(seconds=1))
    view = world.until_gone(lease_id)
    assert images(world) == []
    assert view.lease.stop_reason == "its snapshot was kept for as long as was ordered"


def test_the_machine_waits_for_its_snapshot_to_be_whole(sessions: sessionmaker[Session]) -> None:
    config = quick(aurora())
    slow = replace(config, timing=replace(config.timing, snapshot_seconds=1.0))
    with make_world(sessions, slow) as world:
        world.connect(world.cloud, prices=aurora_prices())
        _, lease_id = running(world)
        lapse(world, lease_id)
        view = world.until(lease_id, lambda _: snapshot(world.view(lease_id)).remote_id is not None)
        for _ in range(3):
            assert snapshot(view).ready_at is None
            assert "deleting" not in servers(world)
            view = world.work(lease_id)
        kept(world, lease_id)
        assert states(world, "snapshot") == ["created", "active"]


def test_a_snapshot_that_fails_at_the_site_is_taken_anew(world: World) -> None:
    _, lease_id = running(world)
    switch_off(world, lease_id)
    world.cloud.faults.add("no_capacity", service="compute", method="POST", path=r"/action$", times=1)
    lapse(world, lease_id)
    world.until(lease_id, lambda _: "error" in states(world, "snapshot"))
    assert "deleting" not in servers(world)
    view = kept(world, lease_id)
    world.until(lease_id, lambda _: images(world) == [snapshot(view).remote_id])
    assert Outcome.CREATED in tries(view)
    assert any("is lost" in text for text in told(world, lease_id, "snapshot"))


def test_a_machine_that_still_runs_at_its_end_is_powered_off_before_it_is_saved(world: World) -> None:
    """Leeway was away for all of the grace: what is written until the machine goes would be lost."""
    _, lease_id = running(world)
    lapse(world, lease_id)
    kept(world, lease_id)
    entries = [(entry.kind, entry.event) for entry in world.cloud.log.entries()]
    assert entries.index(("server", "stopped")) < entries.index(("snapshot", "created"))


def test_a_machine_that_cannot_be_powered_off_is_saved_as_it_runs(world: World) -> None:
    _, lease_id = running(world)
    world.cloud.faults.add("409", service="compute", method="POST", path=r"/action$")
    lapse(world, lease_id)
    for _ in range(3):
        world.work(lease_id)
    assert tries(world.view(lease_id)) == []
    world.cloud.faults.clear()
    world.wake(lease_id, lapsed_at=world.now() - HOUR, state=LeaseState.RUNNING)
    world.work(lease_id)
    kept(world, lease_id)


def test_a_lost_answer_makes_no_second_snapshot(world: World) -> None:
    _, lease_id = running(world)
    switch_off(world, lease_id)
    world.cloud.faults.add("answer_lost", times=1, service="compute", method="POST", path=r"/action$")
    lapse(world, lease_id)
    view = kept(world, lease_id)
    assert images(world) == [snapshot(view).remote_id]
    assert tries(view) == [Outcome.CREATED]


def test_while_a_site_is_away_no_machine_is_given_up(world: World) -> None:
    """However long it was away: the time alone is no reason."""
    _, lease_id = running(world)
    switch_off(world, lease_id)
    lapse(world, lease_id)
    world.cloud.faults.add("429", service="compute", method="POST", path=r"/action$", times=5)
    world.until(lease_id, lambda _: len(tries(world.view(lease_id))) == 4)
    world.wake(lease_id, lapsed_at=world.now() - 100 * HOUR)
    assert world.work(lease_id).lease.desired is Desired.SNAPSHOT
    kept(world, lease_id)


def test_a_machine_of_which_the_site_takes_no_snapshot_goes_without_and_its_project_is_told(world: World) -> None:
    order, lease_id = running(world)
    switch_off(world, lease_id)
    world.cloud.faults.add("quota", service="compute", method="POST", path=r"/action$")
    lapse(world, lease_id)
    world.until(lease_id, lambda _: len(tries(world.view(lease_id))) >= 3)
    assert "deleting" not in servers(world)
    world.wake(lease_id, snapshot_time=NONE)
    view = world.until_gone(lease_id)
    assert view.lease.stop_reason is not None
    assert "times to take a snapshot" in view.lease.stop_reason
    with world.sessions() as session:
        (message,) = session.scalars(select(Message).where(Message.order_id == order.id))
    assert message.kind == "snapshot_lost"
    assert "no snapshot of its disk is kept" in message.subject
    assert view.lease.stop_reason in message.body


def test_a_snapshot_that_somebody_deletes_ends_what_is_kept(world: World) -> None:
    _, lease_id = running(world)
    lapse(world, lease_id)
    view = kept(world, lease_id)
    last_seen = world.work(lease_id).lease.seen_at
    delete(world, view)
    world.until_gone(lease_id)
    world.settle(lease_id)
    with world.sessions() as session:
        ends = session.scalars(
            select(func.max(Charge.charge_period_end)).where(
                Charge.lease_id == lease_id, Charge.sku_id == "snapshot-storage"
            )
        ).one()
    assert last_seen is not None
    assert ends >= last_seen


def delete(world: World, view: View) -> None:
    """Somebody deletes the snapshot at the site."""
    remote_id = snapshot(view).remote_id
    assert remote_id is not None
    world.tools.open_site(view.lease.site_id).delete(PartKind.SNAPSHOT, remote_id, deadline=Deadline.after(5))


def test_what_is_only_kept_can_be_neither_extended_nor_switched_on(world: World) -> None:
    order, lease_id = running(world)
    lapse(world, lease_id)
    view = kept(world, lease_id)
    assert view.kept_until is not None
    name = f"trial-leeway-{lease_id.hex}"
    said = f"its machine is gone; a snapshot of its disk, {name}, is kept until {view.kept_until:%Y-%m-%d %H:%M} UTC"
    funding = Funding(world.tools.ledger, world.jobs, timedelta(days=7))
    with world.sessions.begin() as session, pytest.raises(Conflict) as caught:
        extend_order(session, order.id, world.now() + HOUR, funding, actor="tests", now=world.now())
    assert caught.value.detail == said
    assert f"with `image: {name}`" in str(caught.value.hint)
    with world.sessions.begin() as session, pytest.raises(Conflict) as caught:
        set_power(session, order.id, Desired.RUNNING, jobs=world.jobs, actor="tests")
    assert caught.value.detail == said
    # And when a person has ended that, too.
    with world.sessions.begin() as session:
        stop_order(session, order.id, jobs=world.jobs, actor="tests", reason="not needed")
    world.until_gone(lease_id)
    with world.sessions.begin() as session, pytest.raises(Conflict, match="no machine to keep"):
        extend_order(session, order.id, world.now() + HOUR, funding, actor="tests", now=world.now())


def test_of_several_that_are_kept_some_are_named(world: World) -> None:
    order = world.order(keep_snapshot="30 days", count=4)
    leases = world.leases(order)
    for lease_id in leases:
        world.until_running(lease_id)
    for lease_id in leases:
        lapse(world, lease_id)
    for lease_id in leases:
        kept(world, lease_id)
    with world.sessions.begin() as session, pytest.raises(Conflict, match="its machines are gone") as caught:
        set_power(session, order.id, Desired.RUNNING, jobs=world.jobs, actor="tests")
    assert caught.value.detail.endswith(" and 1 more")
    assert f"trial-1-leeway-{leases[0].hex} until" in caught.value.detail


def test_in_the_grace_it_is_stopped_not_shelved_and_an_extension_brings_it_back(world: World) -> None:
    """Of a shelved machine Nova takes no snapshot."""
    _, lease_id = running(world)
    world.wake(lease_id, ends_at=world.now(), grace=HOUR)
    world.until(lease_id, lambda lease: lease.state is LeaseState.STOPPED)
    world.wake(lease_id, ends_at=world.now() + HOUR)
    world.until_running(lease_id)
    assert images(world) == []


def test_a_machine_that_its_person_shelved_is_saved_too(world: World) -> None:
    _, lease_id = running(world)
    world.wake(lease_id, desired=Desired.SHELVED)
    world.until(lease_id, lambda lease: lease.state is LeaseState.SHELVED)
    lapse(world, lease_id)
    view = kept(world, lease_id)
    assert images(world) == [snapshot(view).remote_id]


def earlier_snapshot(world: World, lease_id: UUID) -> str:
    """One that was taken by a Leeway whose rows were lost: the backup is from before the end."""
    lease = world.view(lease_id).lease
    adapter = world.tools.open_site(lease.site_id)
    remote_id = adapter.make(
        PartKind.SNAPSHOT,
        MachineSpec(**lease.spec),
        tags=Tags(world.tools.installation, lease_id, new_id(), lease.project, world.now()),
        made={PartKind.SERVER: world.view(lease_id).part(PartKind.SERVER).remote_id or ""},
        deadline=Deadline.after(5),
    )
    world.wake(lease_id, must_find=True)
    world.until(lease_id, lambda lease: not lease.must_find)
    return remote_id


def test_a_snapshot_of_before_a_restored_backup_is_taken_anew_while_the_machine_is_there(world: World) -> None:
    _, lease_id = running(world)
    old = earlier_snapshot(world, lease_id)
    assert snapshot(world.view(lease_id)).remote_id == old
    lapse(world, lease_id)
    view = kept(world, lease_id)
    assert snapshot(view).remote_id != old
    world.until(lease_id, lambda _: images(world) == [snapshot(view).remote_id])


def test_a_snapshot_whose_machine_is_gone_is_kept_after_a_restore(world: World) -> None:
    _, lease_id = running(world)
    old = earlier_snapshot(world, lease_id)
    server = world.view(lease_id).part(PartKind.SERVER)
    adapter = world.tools.open_site(world.view(lease_id).lease.site_id)
    adapter.delete(PartKind.SERVER, server.remote_id or "", deadline=Deadline.after(5))
    for _ in range(2):
        world.observe(world.view(lease_id).lease.site_id)
        time.sleep(world.tools.timing.settle_of(adapter).total_seconds())
    world.observe(world.view(lease_id).lease.site_id)
    view = kept(world, lease_id)
    assert snapshot(view).remote_id == old
    assert images(world) == [old]
    assert view.lease.desired is Desired.SNAPSHOT
    assert told(world, lease_id, "vanished") == ["the machine vanished at the site"]


def test_a_second_snapshot_that_a_listing_shows_is_deleted(world: World) -> None:
    _, lease_id = running(world)
    lapse(world, lease_id)
    view = kept(world, lease_id)
    # The rows of the first are lost, and it is taken for nobody's.
    part = snapshot(view)
    with world.sessions.begin() as session:
        session.execute(delete_rows(LaunchAttempt).where(LaunchAttempt.part_id == part.id))
        session.execute(update(Part).where(Part.id == part.id).values(remote_id="another", gone_at=world.now()))
        session.execute(update(Part).where(Part.id == part.id).values(gone_at=None))
    world.observe(view.lease.site_id)
    world.until(lease_id, lambda _: images(world) == [])


def test_the_next_offer_is_held_with_its_snapshot(sessions: sessionmaker[Session]) -> None:
    with make_world(sessions, quick(aurora()), quick(borealis())) as world:
        first, second = world.clouds.values()
        world.connect(first, prices=aurora_prices())
        world.connect(second, prices={"std.2c4g": "0.05"})
        first.faults.add("quota", service="compute", method="POST", path=r"/servers$")
        order = world.order(keep_snapshot="30 days", max_price="50 EUR", requirements={"sites": ["aurora", "borealis"]})
        (lease_id,) = world.leases(order)
        world.until_gone(lease_id)
        (following,) = [found for found in world.leases(order) if found != lease_id]
        with world.sessions() as session:
            offer = session.get_one(QuoteOffer, session.get_one(Lease, following).quote_offer_id)
            held = session.scalars(
                select(func.sum(MoneyHold.remaining)).where(
                    MoneyHold.order_id == order.id, MoneyHold.released_at.is_(None)
                )
            ).one()
        assert held == pytest.approx(offer.hold, rel=Decimal("0.001"))


def test_a_grant_that_ends_before_the_snapshot_does_cannot_pay_for_it(world: World) -> None:
    with world.sessions.begin() as session:
        session.execute(update(Grant).values(ends_at=world.now() + timedelta(days=20)))
    with pytest.raises(GrantExhausted, match="before this would"):
        world.order(keep_snapshot="30 days")
