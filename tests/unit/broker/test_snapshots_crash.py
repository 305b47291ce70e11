"""What `make crash` showed of kept snapshots: what is charged, and what is given up, when workers die or sleep."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from accounting.models.charges import Charge
from adapters.sandbox.profiles import aurora
from broker.lease_view import View
from broker.models.leases import Desired, LeaseState, Observation, Part
from broker.reconcile import decide
from broker.remote import Deadline, PartKind
from broker.removing import PROMPT
from broker.steps import Look, Wait
from tests.world import World, aurora_prices, make_world, quick

NONE = timedelta(0)
HOUR = timedelta(hours=1)


def lapsed(world: World) -> UUID:
    """A lease that has run and whose time and grace are over."""
    order = world.order(keep_snapshot="30 days")
    (lease_id,) = world.leases(order)
    world.until_running(lease_id)
    world.wake(lease_id, ends_at=world.now(), grace=NONE)
    return lease_id


def snapshot(view: View) -> Part:
    return view.part(PartKind.SNAPSHOT)


def at_site(world: World, lease_id: UUID, kind: PartKind) -> None:
    """Somebody deletes a part at the site: a worker that died before it wrote that down, or a person."""
    view = world.view(lease_id)
    adapter = world.tools.open_site(view.lease.site_id)
    adapter.delete(kind, view.part(kind).remote_id or "", deadline=Deadline.after(5))


def pause(world: World) -> None:
    """Until a part that is gone is gone at once, and until nobody has looked for long."""
    timing = world.tools.timing
    assert timing.settle is not None
    time.sleep(max(timing.settle, timing.first_look * PROMPT).total_seconds() * 1.2)


def test_a_snapshot_is_charged_though_its_time_was_over_when_its_machine_was_seen_gone(
    sessions: sessionmaker[Session],
) -> None:
    """A backup from between the machine's deletion and the next look at it, restored after the snapshot's time."""
    config = quick(aurora())
    slow = replace(config, timing=replace(config.timing, delete_seconds=0.5))
    with make_world(sessions, slow) as world:
        world.connect(world.cloud, prices=aurora_prices())
        lease_id = lapsed(world)
        view = world.until(lease_id, lambda lease: lease.state is LeaseState.DELETING)
        assert snapshot(view).ready_at is not None
        assert view.part(PartKind.SERVER).gone_at is None
        world.wake(lease_id, keep=timedelta(microseconds=1))
        # What reminders and findings may say of it, too: the machine is not over before it is gone.
        assert world.view(lease_id).kept_no_longer(frozenset()) is None
        world.until_gone(lease_id)
        world.settle(lease_id)
        (deleted,) = world.cloud.log.entries(kind="server", event="deleted")
        with world.sessions() as session:
            charges = session.scalars(select(Charge).where(Charge.lease_id == lease_id)).all()
        (kept,) = [charge for charge in charges if charge.sku_id == "snapshot-storage"]
        assert deleted.at <= kept.charge_period_start < kept.charge_period_end


def test_a_kept_snapshot_that_was_gone_before_its_deletion_is_charged_until_it_was_last_seen(world: World) -> None:
    """Else a backup of last week that is restored today has it charged for the week."""
    lease_id = lapsed(world)
    world.until(lease_id, lambda lease: lease.state is LeaseState.SNAPSHOT)
    last_seen = world.work(lease_id).lease.seen_at
    at_site(world, lease_id, PartKind.SNAPSHOT)
    pause(world)
    world.wake(lease_id, keep=timedelta(microseconds=1))
    world.until_gone(lease_id)
    with world.sessions() as session:
        end = session.scalars(
            select(Observation).where(Observation.lease_id == lease_id, Observation.state == LeaseState.GONE)
        ).one()
    assert (end.since, end.is_estimated) == (last_seen, True)


def test_a_kept_snapshot_that_leeway_deletes_ends_when_it_is_seen_gone(world: World) -> None:
    lease_id = lapsed(world)
    world.until(lease_id, lambda lease: lease.state is LeaseState.SNAPSHOT)
    pause(world)
    world.wake(lease_id, keep=timedelta(microseconds=1))
    world.until_gone(lease_id)
    (deleted,) = world.cloud.log.entries(kind="snapshot", event="deleted")
    with world.sessions() as session:
        end = session.scalars(
            select(Observation).where(Observation.lease_id == lease_id, Observation.state == LeaseState.GONE)
        ).one()
    assert end.since is not None
    assert not end.is_estimated
    assert end.since >= deleted.at


def test_who_slept_since_the_look_gives_no_machine_up(sessions: sessionmaker[Session]) -> None:
    """A worker alone on a computer that is suspended: by now the snapshot that it saw being saved may be whole."""
    config = quick(aurora())
    slow = replace(config, timing=replace(config.timing, snapshot_seconds=5.0))
    with make_world(sessions, slow) as world:
        world.connect(world.cloud, prices=aurora_prices())
        lease_id = lapsed(world)
        world.until(lease_id, lambda _: snapshot(world.view(lease_id)).made_at is not None)
        view = world.view(lease_id)
        assert view.lease.snapshot_time is not None
        late = replace(view, now=view.now + view.lease.snapshot_time + HOUR)
        looked_at = frozenset({snapshot(view).id})
        view.lease.claim_until = late.now + timedelta(seconds=1)
        assert late.kept_no_longer(looked_at) == "the site did not finish the snapshot of its disk"
        view.lease.claim_until = late.now - timedelta(seconds=1)
        assert late.kept_no_longer(looked_at) is None


def test_what_was_being_built_is_looked_at_before_its_time_is_called_over(sessions: sessionmaker[Session]) -> None:
    """It may run by now."""
    config = quick(aurora())
    slow = replace(config, timing=replace(config.timing, build_seconds=1.0))
    with make_world(sessions, slow) as world:
        world.connect(world.cloud, prices=aurora_prices())
        order = world.order(keep_snapshot="30 days")
        (lease_id,) = world.leases(order)
        world.until(lease_id, lambda lease: lease.state is LeaseState.BUILDING)
        time.sleep(1.2)
        world.wake(lease_id, ends_at=world.now())
        world.until_running(lease_id)


def test_what_an_open_attempt_has_made_is_looked_for_before_its_time_is_called_over(world: World) -> None:
    """A worker died with the answer, and nobody looked until the ordered time had passed: the machine may have run."""
    order = world.order(keep_snapshot="30 days")
    (lease_id,) = world.leases(order)
    world.cloud.faults.add("answer_lost", times=1, service="compute", method="POST", path="/servers$")
    world.cloud.faults.add("500", times=1, service="compute", method="GET", path="/servers")
    world.until(lease_id, lambda _: bool(world.cloud.log.entries(kind="server", event="created")))
    assert world.view(lease_id).part(PartKind.SERVER).remote_id is None
    world.wake(lease_id, ends_at=world.now())
    view = world.until_running(lease_id)
    assert view.lease.desired is Desired.RUNNING
    assert view.lease.ends_at > world.now() + HOUR


def test_what_was_seen_before_its_time_was_over_does_not_end_a_machine_that_is_built(
    sessions: sessionmaker[Session],
) -> None:
    """A worker froze between its look (BUILD) and its next step; meanwhile the machine came to run, for its time."""
    config = quick(aurora())
    slow = replace(config, timing=replace(config.timing, build_seconds=30.0))
    with make_world(sessions, slow) as world:
        world.connect(world.cloud, prices=aurora_prices())
        (lease_id,) = world.leases(world.order(keep_snapshot="30 days"))
        seen = world.until(lease_id, lambda lease: lease.state is LeaseState.BUILDING)
        world.wake(lease_id, ends_at=world.now())
        view = world.view(lease_id)
        server = view.part(PartKind.SERVER)
        assert view.lease.seen_at == seen.lease.seen_at
        assert decide(view, frozenset({server.id})) == Wait(None)
        assert decide(view, frozenset()) == Look(server, Desired.RUNNING)
        world.until_gone(lease_id)  # it still does not run when it is looked at after that
