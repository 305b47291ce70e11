"""Ways in which the disk of a machine could be lost although a snapshot of it was ordered, or be kept for ever."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy import Engine, make_url, select, update

from accounting.models.charges import Charge, Segment
from adapters.openstack.adapter import OpenStack
from broker.database import Database
from broker.models.audit import Finding
from broker.models.federation import Site
from broker.models.leases import Desired, LaunchAttempt, Lease, LeaseState, Observation, Outcome, Part
from broker.models.messages import Message
from broker.models.workloads import Order, OrderState
from broker.orders import stop_order
from broker.reconcile import STEPS
from broker.remote import Capability, Deadline, MachineSpec, PartKind, Tags
from broker.values import new_id
from tests.conftest import PostgresForTests
from tests.unit.broker.test_snapshots import (
    NONE,
    alive,
    delete,
    earlier_snapshot,
    images,
    kept,
    lapse,
    running,
    servers,
    snapshot,
    states,
    switch_off,
    tries,
)
from tests.world import World


def only_the_snapshot(world: World, lease_id: UUID) -> str:
    """The machine is gone and its snapshot whole; its id."""
    lapse(world, lease_id)
    kept(world, lease_id)
    view = world.until(lease_id, lambda _: alive(world.view(lease_id)) == {PartKind.SNAPSHOT})
    assert snapshot(view).ready_at is not None
    return snapshot(view).remote_id or ""


def set_status(world: World, remote_id: str, status: str) -> None:
    """What Glance says of an image."""
    with world.cloud.cloud.lock:
        image = world.cloud.cloud.images[remote_id]
        image.config = replace(image.config, status=status)


def take(world: World, lease_id: UUID) -> str:
    """A snapshot that a Leeway made of whose rows nothing is left."""
    lease = world.view(lease_id).lease
    return world.tools.open_site(lease.site_id).make(
        PartKind.SNAPSHOT,
        MachineSpec(**lease.spec),
        tags=Tags(world.tools.installation, lease_id, new_id(), lease.project, world.now() + timedelta(days=30)),
        made={PartKind.SERVER: world.view(lease_id).part(PartKind.SERVER).remote_id or ""},
        deadline=Deadline.after(5),
    )


def vanish(world: World, lease_id: UUID) -> None:
    world.cloud.vanish(world.view(lease_id).part(PartKind.SERVER).remote_id or "")


def list_twice(world: World, site_id: UUID) -> None:
    """Two complete listings, a settle time apart."""
    world.observe(site_id)
    time.sleep(0.35)
    world.observe(site_id)


# --- what is wanted is not deleted -------------------------------------------------------------------------------


def test_a_snapshot_that_its_operator_deactivates_is_not_deleted(world: World) -> None:
    """Nothing else is left of the disk, and a deactivated image can be activated again."""
    _, lease_id = running(world)
    remote_id = only_the_snapshot(world, lease_id)
    set_status(world, remote_id, "deactivated")
    for _ in range(3):
        world.work(lease_id)
    assert images(world) == [remote_id]
    assert world.view(lease_id).lease.desired is Desired.SNAPSHOT
    set_status(world, remote_id, "active")
    assert world.work(lease_id).lease.desired is Desired.SNAPSHOT
    world.wake(lease_id, keep=timedelta(seconds=1))
    world.until_gone(lease_id)
    assert images(world) == []


def test_of_two_snapshots_that_a_restore_finds_the_whole_one_is_kept(world: World) -> None:
    _, lease_id = running(world)
    whole, failed = take(world, lease_id), take(world, lease_id)
    set_status(world, failed, "killed")
    vanish(world, lease_id)
    world.wake(lease_id, must_find=True)
    world.until(lease_id, lambda lease: not lease.must_find)
    list_twice(world, world.view(lease_id).lease.site_id)
    view = kept(world, lease_id)
    world.until(lease_id, lambda _: images(world) == [whole])
    assert snapshot(view).remote_id == whole


def test_a_snapshot_that_is_lost_before_the_machine_is_deleted_is_taken_anew(world: World) -> None:
    """It was whole; then Leeway was away, and somebody took it away."""
    _, lease_id = running(world)
    lapse(world, lease_id)
    world.cloud.faults.add("429", service="compute", method="DELETE", path=r"/servers/", times=1)
    view = world.until(lease_id, lambda _: snapshot(world.view(lease_id)).ready_at is not None)
    first = snapshot(view).remote_id
    assert "deleting" not in servers(world)
    delete(world, view)
    view = kept(world, lease_id)
    assert images(world) == [snapshot(view).remote_id]
    assert snapshot(view).remote_id != first


def test_rows_from_before_the_launch_keep_the_snapshot_of_a_machine_that_came_and_went(
    world: World, admin: Engine
) -> None:
    order, lease_id = running(world)
    remote_id = only_the_snapshot(world, lease_id)
    made = len(world.cloud.log.entries(kind="server", event="created"))
    _forget(world, admin, lease_id)
    for _ in range(3):
        world.work(lease_id)
    view = world.view(lease_id)
    assert images(world) == [remote_id]
    assert len(world.cloud.log.entries(kind="server", event="created")) == made
    assert (view.lease.desired, view.lease.state) == (Desired.SNAPSHOT, LeaseState.SNAPSHOT)
    with world.sessions() as session:
        assert session.get_one(Order, order.id).state is OrderState.ACTIVE
    world.wake(lease_id, keep=timedelta(seconds=1))
    world.until_gone(lease_id)
    world.settle(lease_id)
    with world.sessions() as session:
        assert session.get_one(Order, order.id).state is OrderState.OVER
        assert set(session.scalars(select(Charge.sku_id).where(Charge.lease_id == lease_id))) >= {"snapshot-storage"}


def _forget(world: World, admin: Engine, lease_id: UUID) -> None:
    """The rows of a backup that was made before the launch."""
    _delete(admin, lease_id, "launch_attempts", "parts", "observations")
    with world.sessions.begin() as session:
        session.execute(update(Order).values(state=OrderState.PLACED))
        session.execute(
            update(Lease)
            .where(Lease.id == lease_id)
            .values(
                state=LeaseState.PENDING,
                desired=Desired.RUNNING,
                started_at=None,
                seen_at=None,
                lapsed_at=None,
                addresses=[],
                must_find=True,
            )
        )


def _delete(admin: Engine, lease_id: UUID, *tables: str) -> None:
    """Rows that nobody else may delete."""
    with admin.begin() as connection:
        connection.exec_driver_sql("SET session_replication_role = replica")
        for table in tables:
            connection.exec_driver_sql(f"DELETE FROM {table} WHERE lease_id = '{lease_id}'")  # noqa: S608 - our own names


@pytest.fixture
def admin(postgres: PostgresForTests, database: Database) -> Iterator[Engine]:
    """The superuser's, on this process's database."""
    made = postgres.superuser(make_url(database.application_url).database or "")
    yield made
    made.dispose()


# --- nothing is kept, charged or tried for ever ------------------------------------------------------------------


def test_a_snapshot_that_is_never_whole_is_not_kept_for_ever(world: World) -> None:
    """The machine went while it was saved, and Glance leaves it so."""
    _, lease_id = running(world)
    remote_id = only_the_snapshot(world, lease_id)
    set_status(world, remote_id, "saving")
    with world.sessions.begin() as session:
        session.execute(update(Part).where(Part.remote_id == remote_id).values(ready_at=None))
    assert world.work(lease_id).lease.desired is Desired.SNAPSHOT
    world.wake(lease_id, keep=NONE, snapshot_time=NONE)
    view = world.until_gone(lease_id)
    assert view.lease.stop_reason == "the site did not finish the snapshot of its disk"
    with world.sessions() as session:
        assert [message.kind for message in session.scalars(select(Message))] == ["snapshot_lost"]


def test_an_old_snapshot_whose_machine_does_not_show_is_not_asked_for_hot(world: World) -> None:
    _, lease_id = running(world)
    old = earlier_snapshot(world, lease_id)
    vanish(world, lease_id)
    lapse(world, lease_id)
    world.work(lease_id)  # its end
    view = world.work(lease_id)
    assert view.lease.next_look_at is not None
    assert view.lease.next_look_at > world.now(), f"it took {STEPS} steps and goes on at once"
    list_twice(world, view.lease.site_id)
    assert snapshot(kept(world, lease_id)).remote_id == old


def test_a_leftover_that_cannot_be_deleted_does_not_hide_the_snapshot(world: World) -> None:
    _, lease_id = running(world)
    world.cloud.faults.add("500", service="network", method="DELETE")
    lapse(world, lease_id)
    kept(world, lease_id)
    seen_at = world.work(lease_id).lease.seen_at
    again = world.work(lease_id).lease
    assert PartKind.PORT in alive(world.view(lease_id))
    assert seen_at is not None
    assert again.seen_at is not None
    assert again.seen_at > seen_at


def test_a_machine_that_is_not_saved_in_time_is_told_of(world: World) -> None:
    """A shelved machine that its site does not bring back: no refusal ever counts, and nothing fails."""
    _, lease_id = running(world)
    world.wake(lease_id, desired=Desired.SHELVED)
    world.until(lease_id, lambda lease: lease.state is LeaseState.SHELVED)
    lapse(world, lease_id)
    world.cloud.faults.add("409", service="compute", method="POST", path=r"/action$")
    for _ in range(3):
        world.work(lease_id)
    world.wake(lease_id, snapshot_time=NONE)
    view = world.work(lease_id)
    assert view.lease.desired is Desired.SNAPSHOT
    assert view.lease.failures == 0
    (finding,) = _findings(world, lease_id)
    assert "snapshot" in finding.text
    assert "leeway stop" in finding.hint
    world.cloud.faults.clear()
    kept(world, lease_id)
    assert _findings(world, lease_id) == []


def _findings(world: World, lease_id: UUID) -> list[Finding]:
    with world.sessions() as session:
        return list(
            session.scalars(
                select(Finding).where(
                    Finding.key == str(lease_id), Finding.resolved_at.is_(None), Finding.kind == "lease_stuck"
                )
            )
        )


# --- ends that nobody saw ----------------------------------------------------------------------------------------


def test_the_end_of_a_machine_that_vanished_is_an_estimate_also_where_its_snapshot_is_kept(world: World) -> None:
    _, lease_id = running(world)
    earlier_snapshot(world, lease_id)
    vanish(world, lease_id)
    list_twice(world, world.view(lease_id).lease.site_id)
    kept(world, lease_id)
    with world.sessions() as session:
        seen = session.scalars(
            select(Observation).where(Observation.lease_id == lease_id, Observation.state == LeaseState.SNAPSHOT)
        ).one()
        assert seen.is_estimated
        (segment,) = session.scalars(
            select(Segment).where(Segment.lease_id == lease_id, Segment.state == LeaseState.RUNNING)
        )
        assert segment.is_estimated


def test_the_site_says_later_when_the_machine_ended_whose_snapshot_is_kept(world: World) -> None:
    _, lease_id = running(world)
    earlier_snapshot(world, lease_id)
    view = world.view(lease_id)
    adapter = world.tools.open_site(view.lease.site_id)
    last_seen = view.lease.seen_at
    time.sleep(0.3)
    adapter.delete(PartKind.SERVER, view.part(PartKind.SERVER).remote_id or "", deadline=Deadline.after(5))
    list_twice(world, view.lease.site_id)
    world.cloud.faults.add("500", service="compute", method="GET", path=r"/servers/detail")
    world.wake(lease_id, failures=3)
    kept(world, lease_id)
    world.cloud.faults.clear()
    world.observe(view.lease.site_id)
    world.work(lease_id)
    with world.sessions() as session:
        words = list(
            session.scalars(
                select(Observation)
                .where(Observation.lease_id == lease_id, Observation.state == LeaseState.SNAPSHOT)
                .order_by(Observation.seen_at)
            )
        )
    assert [word.is_estimated for word in words] == [True, False]
    assert words[0].since == last_seen
    assert words[1].since is not None
    assert last_seen is not None
    assert words[1].since >= last_seen.replace(microsecond=0)
    assert world.view(lease_id).lease.state is LeaseState.SNAPSHOT


def test_a_snapshot_that_was_gone_before_it_was_to_be_deleted_ended_when_it_was_last_seen(world: World) -> None:
    """Leeway was away; it came back when the snapshot's time was over."""
    order, lease_id = running(world)
    only_the_snapshot(world, lease_id)
    view = world.work(lease_id)
    last_seen = view.lease.seen_at
    delete(world, view)
    time.sleep(0.3)
    with world.sessions.begin() as session:
        stop_order(session, order.id, jobs=world.jobs, actor="tests", reason="not needed")
    world.until_gone(lease_id)
    with world.sessions() as session:
        end = session.scalars(
            select(Observation).where(Observation.lease_id == lease_id, Observation.state == LeaseState.GONE)
        ).one()
    assert end.is_estimated
    assert end.since == last_seen


def test_the_end_of_a_snapshot_is_not_taken_from_its_machine(world: World) -> None:
    _, lease_id = running(world)
    only_the_snapshot(world, lease_id)
    view = world.work(lease_id)
    delete(world, view)
    world.until_gone(lease_id)
    world.observe(view.lease.site_id)
    with world.sessions() as session:
        ends = list(
            session.scalars(
                select(Observation).where(Observation.lease_id == lease_id, Observation.state == LeaseState.GONE)
            )
        )
    assert [end.is_estimated for end in ends] == [True]


# --- rows that are lost altogether -------------------------------------------------------------------------------


def _lose(admin: Engine, lease_id: UUID) -> None:
    """The backup is from before the order."""
    _delete(admin, lease_id, "charges", "segments", "observations", "launch_attempts", "parts", "quota_holds", "events")
    with admin.begin() as connection:
        connection.exec_driver_sql("SET session_replication_role = replica")
        for table in ("money_holds", "events", "leases", "orders", "quote_offers", "quotes", "workloads"):
            connection.exec_driver_sql(f"DELETE FROM {table}")  # noqa: S608 - our own names
        connection.exec_driver_sql("UPDATE balances SET held = 0")


def test_a_machine_taken_back_together_with_its_snapshot_keeps_it(world: World, admin: Engine) -> None:
    _, lease_id = running(world)
    site_id = world.view(lease_id).lease.site_id
    take(world, lease_id)
    _lose(admin, lease_id)
    world.observe(site_id)
    view = world.view(lease_id)
    assert view.lease.keep is not None
    assert timedelta(days=30) - view.lease.keep < timedelta(minutes=1)
    lapse(world, lease_id)
    view = kept(world, lease_id)
    world.until(lease_id, lambda _: images(world) == [snapshot(view).remote_id])
    assert view.lease.desired is Desired.SNAPSHOT
    world.wake(lease_id, keep=timedelta(seconds=1))
    world.until_gone(lease_id)


def test_nobody_is_told_to_delete_a_snapshot_that_is_kept(world: World, admin: Engine) -> None:
    _, lease_id = running(world)
    site_id = world.view(lease_id).lease.site_id
    remote_id = only_the_snapshot(world, lease_id)
    _lose(admin, lease_id)
    world.observe(site_id)
    with world.sessions() as session:
        (finding,) = session.scalars(select(Finding).where(Finding.kind == "ours_unknown"))
    assert "snapshot" in finding.text
    assert "was to be kept until" in finding.hint
    assert images(world) == [remote_id]


# --- no machine goes without its snapshot for what is not about the machine --------------------------------------


def test_requests_that_a_site_never_answered_are_no_refusals(world: World) -> None:
    """Nova answers 500 while it cannot reach Glance, for hours maybe; that says nothing about the machine."""
    _, lease_id = running(world)
    switch_off(world, lease_id)
    world.cloud.faults.add("500", service="compute", method="POST", path=r"/action$")
    lapse(world, lease_id)
    long = timedelta(seconds=5) + world.tools.timing.settle_of(
        world.tools.open_site(world.view(lease_id).lease.site_id)
    )
    while tries(world.view(lease_id)).count(Outcome.ABSENT) < 3:
        world.work(lease_id)
        with world.sessions.begin() as session:  # so long ago that what it made would show by now
            session.execute(update(LaunchAttempt).values(give_up_at=LaunchAttempt.give_up_at - long))
    world.wake(lease_id, snapshot_time=NONE)
    view = world.work(lease_id)
    assert view.lease.desired is Desired.SNAPSHOT, view.lease.stop_reason
    assert "deleting" not in servers(world)
    world.cloud.faults.clear()
    kept(world, lease_id)


def test_former_snapshots_are_no_refusals(world: World) -> None:
    """They were found after a restore, and discarded; the first request for a new one is yet to be sent."""
    _, lease_id = running(world)
    for _ in range(3):
        take(world, lease_id)
    world.wake(lease_id, must_find=True)
    world.until(lease_id, lambda _: tries(world.view(lease_id)).count(Outcome.GONE) == 2)
    lapse(world, lease_id)
    world.wake(lease_id, snapshot_time=NONE)
    kept(world, lease_id)


def test_nobody_is_told_to_delete_a_machine_whose_disk_is_to_be_kept(world: World) -> None:
    _, lease_id = running(world)
    with world.sessions.begin() as session:
        session.execute(update(Site).values(observe_only=True))
    lapse(world, lease_id)
    world.work(lease_id)
    (finding,) = _findings(world, lease_id)
    assert "a snapshot of its disk" in finding.hint


def test_a_snapshot_that_does_not_show_for_a_while_is_not_given_up(world: World) -> None:
    """A gateway that answers in Glance's words for another one. What is given up and shows again would be deleted."""
    _, lease_id = running(world)
    remote_id = only_the_snapshot(world, lease_id)
    view = world.work(lease_id)
    world.cloud.cloud.images[remote_id].visible_at = world.now() + timedelta(seconds=1)
    until = time.monotonic() + 1.2
    while time.monotonic() < until:
        world.work(lease_id)
        time.sleep(0.1)
    world.observe(view.lease.site_id)
    world.work(lease_id)
    assert images(world) == [remote_id]
    assert world.view(lease_id).lease.desired is Desired.SNAPSHOT


# --- a site that takes no snapshots ------------------------------------------------------------------------------


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sites can take none."""
    monkeypatch.setattr(OpenStack, "capabilities", OpenStack.capabilities & ~Capability.SNAPSHOT)


@pytest.mark.usefixtures("without")
def test_a_site_that_takes_no_snapshots_is_left_also_after_a_restore(world: World) -> None:
    order = world.order(keep_snapshot="30 days")
    (lease_id,) = world.leases(order)
    world.wake(lease_id, must_find=True)
    view = world.until_gone(lease_id)
    assert view.lease.failure == "the site can take no snapshot"
    assert servers(world) == []


def test_a_machine_found_where_no_snapshot_can_be_taken_ends_without(
    world: World, admin: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, lease_id = running(world)
    monkeypatch.setattr(OpenStack, "capabilities", OpenStack.capabilities & ~Capability.SNAPSHOT)
    _forget(world, admin, lease_id)
    world.until_running(lease_id)
    lapse(world, lease_id)
    world.until_gone(lease_id)
    assert "created" not in states(world, "snapshot")
    with world.sessions() as session:
        assert [message.kind for message in session.scalars(select(Message))] == ["snapshot_lost"]
