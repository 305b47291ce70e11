"""Found by trying to break the contract: ends that never came, and came to the wrong machine. Each was seen to fail."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import func, select, update

from adapters.sandbox.faults import FaultKind
from adapters.sandbox.machines import fail
from adapters.sandbox.state import utc_now
from broker import launching, ratecards
from broker.catalogue import import_rate_card
from broker.claims import claim
from broker.errors import SiteDenied
from broker.extensions import ROLL, Funding, roll_hold
from broker.launching import Pass
from broker.models.audit import Event, Finding
from broker.models.federation import Site
from broker.models.leases import Desired, LaunchAttempt, LeaseState, Outcome, Part, SiteListing
from broker.models.workloads import Order, OrderState
from broker.orders import stop_order
from broker.reconcile import STEPS, STUCK, reconcile
from broker.remote import Deadline, Fence, MachineSpec, PartKind, Tags
from broker.values import new_id
from tests.world import RATES, World, aurora_prices

HOUR = timedelta(hours=1)
CREATES = {"service": "compute", "method": "POST", "path": r"/servers$"}


def ordered(world: World, **changes: Any) -> tuple[Order, UUID]:
    order = world.order(**changes)
    (lease_id,) = world.leases(order)
    return order, lease_id


def stop(world: World, order: Order) -> None:
    with world.sessions.begin() as session:
        stop_order(session, order.id, jobs=world.jobs, actor="tests", reason="enough")


def part_of(world: World, lease_id: UUID, kind: PartKind) -> Part:
    return next(part for part in world.view(lease_id).lease.parts if part.kind is kind)


def tags_of(world: World, lease_id: UUID) -> Tags:
    return Tags(world.tools.installation, lease_id, new_id(), "climate", world.now())


def add_attempts(world: World, part: Part, outcome: Outcome, count: int) -> None:
    now = world.now() - HOUR
    with world.sessions.begin() as session:
        last = session.scalars(select(func.max(LaunchAttempt.number)).where(LaunchAttempt.part_id == part.id)).one()
        session.add_all(
            LaunchAttempt(
                lease_id=part.lease_id,
                part_id=part.id,
                number=(last or 0) + number,
                fence=part.fence,
                started_at=now,
                give_up_at=now,
                outcome=outcome,
            )
            for number in range(1, count + 1)
        )


def set_sites(world: World, **values: Any) -> None:
    with world.sessions.begin() as session:
        session.execute(update(Site).values(**values))


def findings(world: World, kind: str) -> list[Finding]:
    with world.sessions() as session:
        return list(session.scalars(select(Finding).where(Finding.kind == kind)))


def test_a_lease_ends_however_many_of_its_requests_came_to_nothing(world: World) -> None:
    """A site that answers 500 for an hour leaves more ABSENT attempts than a pass has steps."""
    order, lease_id = ordered(world)
    world.until_running(lease_id)
    add_attempts(world, part_of(world, lease_id, PartKind.SERVER), Outcome.ABSENT, STEPS + 1)
    stop(world, order)
    world.until_gone(lease_id)
    assert world.cloud.log.alive("server") == set()


def test_past_its_end_a_lease_at_a_site_that_is_only_observed_is_not_looked_at_all_the_time(world: World) -> None:
    _, lease_id = ordered(world)
    world.until_running(lease_id)
    set_sites(world, observe_only=True)
    world.wake(lease_id, ends_at=world.now() - HOUR, grace=None)
    view = world.work(lease_id)
    assert view.lease.next_look_at is not None
    assert view.lease.next_look_at > view.now + timedelta(seconds=30)


def test_at_a_site_that_is_only_observed_no_leftover_of_a_settled_lease_is_deleted(world: World) -> None:
    order, lease_id = ordered(world)
    site_id = world.until_running(lease_id).lease.site_id
    stop(world, order)
    world.until_gone(lease_id)
    world.settle(lease_id)
    assert world.view(lease_id).lease.settled_at is not None
    adapter, tags = world.tools.open_site(site_id), tags_of(world, lease_id)
    adapter.make(PartKind.PORT, MachineSpec("x", "x", "x"), tags=tags, made={}, deadline=Deadline.after(5))
    set_sites(world, observe_only=True)
    world.observe(site_id)
    for _ in range(3):
        reconcile(world.tools, lease_id)
    assert len(world.cloud.log.alive("port")) == 1

    set_sites(world, observe_only=False)
    world.observe(site_id)
    world.until(lease_id, lambda _: world.cloud.log.alive("port") == set())


def test_a_leftover_of_a_kind_that_the_machine_does_not_need_is_deleted_and_not_made_anew(world: World) -> None:
    """It was taken for a part that is still to be made; as the site refused that, the machine was given up."""
    _, lease_id = ordered(world, ssh_key=None)
    site_id = world.until_running(lease_id).lease.site_id
    (server,) = world.cloud.log.alive("server")
    adapter, tags = world.tools.open_site(site_id), tags_of(world, lease_id)
    spec = MachineSpec("x", "x", "x", ssh_key="ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGJ1aWx0LWZvci10ZXN0cy1vbmx5 x")
    for _ in range(2):  # and so is a second one
        adapter.make(PartKind.KEY_PAIR, spec, tags=tags, made={}, deadline=Deadline.after(5))
        world.observe(site_id)
        for _ in range(40):
            world.work(lease_id)
        assert world.cloud.log.alive("keypair") == set()
    assert world.view(lease_id).lease.state is LeaseState.RUNNING
    assert world.cloud.log.alive("server") == {server}


def test_an_order_returns_also_where_no_grant_pays_in_the_next_offers_currency(world: World) -> None:
    order, lease_id = ordered(world, max_price="5 EUR")
    card = (
        RATES.format(provider="aurora").replace("EUR", "USD").replace("2020-01-01T00:00:00Z", f"{world.now():%FT%TZ}")
    )
    card += "".join(f"  {sku}: {{unit: hour, unit_price: '{price}'}}\n" for sku, price in aurora_prices().items())
    with world.sessions.begin() as session:
        import_rate_card(session, ratecards.parse(card), now=world.now() - HOUR)
    world.cloud.faults.add(FaultKind.QUOTA, **CREATES)
    world.until_gone(lease_id)
    with world.sessions() as session:
        assert session.get_one(Order, order.id).state is OrderState.RETURNED


def test_a_refusal_that_comes_late_closes_the_question_of_what_was_made(world: World) -> None:
    _, lease_id = ordered(world)
    world.wake(lease_id)
    mine = claim(world.sessions, lease_id, length=timedelta(seconds=20))
    assert mine is not None
    run = Pass(world.tools, world.tools.open_site(world.view(lease_id).lease.site_id), mine)
    launching.plan(run, world.view(lease_id).lease)
    part = part_of(world, lease_id, PartKind.SERVER)
    with world.sessions.begin() as session:
        session.execute(update(Part).where(Part.id == part.id).values(fence=Fence.NONE))
    attempt = launching._open_attempt(run, world.view(lease_id).lease, part)
    view = world.view(lease_id)
    part = part_of(world, lease_id, PartKind.SERVER)
    late = attempt.give_up_at + HOUR
    launching.resolve(run, view.lease, view.lease.attempts[0], part, now=late)
    assert [finding.resolved_at for finding in findings(world, "launch_unknown")] == [None]

    launching._close(run, attempt, Outcome.REFUSED, SiteDenied("no"))

    assert None not in [finding.resolved_at for finding in findings(world, "launch_unknown")]


def test_what_does_not_get_on_is_one_finding_until_it_does(world: World) -> None:
    """A machine of some age was seen to be built, which closed what was said of its leftover, time and again."""
    timing = replace(world.tools.timing, patience=timedelta(0))
    world.tools = replace(world.tools, timing=timing)
    _, lease_id = ordered(world)
    site_id = world.until_running(lease_id).lease.site_id
    adapter, tags = world.tools.open_site(site_id), tags_of(world, lease_id)
    adapter.make(PartKind.PORT, MachineSpec("x", "x", "x"), tags=tags, made={}, deadline=Deadline.after(5))
    world.observe(site_id)
    fault = world.cloud.faults.add(FaultKind.FORBIDDEN, service="network", method="DELETE")
    for _ in range(3):
        world.wake(lease_id, failures=STUCK)
        reconcile(world.tools, lease_id)
    assert [finding.resolved_at for finding in findings(world, "lease_stuck")] == [None]

    world.cloud.faults.remove(fault)
    world.until(lease_id, lambda lease: all(attempt.outcome is not Outcome.DISCARD for attempt in lease.attempts))
    world.work(lease_id)
    assert None not in [finding.resolved_at for finding in findings(world, "lease_stuck")]


def test_a_power_request_that_the_site_refuses_for_now_is_not_repeated_all_the_time(world: World) -> None:
    _, lease_id = ordered(world)
    world.until_running(lease_id)
    world.cloud.faults.add(FaultKind.CONFLICT, method="POST", path=r"/action$")
    world.tools = replace(world.tools, timing=replace(world.tools.timing, last_look=HOUR))
    world.wake(lease_id, ends_at=world.now(), grace=HOUR)
    for _ in range(3):
        world.work(lease_id)
    with world.sessions() as session:
        of_power = (Event.lease_id == lease_id, Event.kind == "power")
        told = session.execute(select(Event.at, Event.text).where(*of_power)).all()
    assert [text for _, text in told] == ["its time is over: powering it off before it is deleted"]
    time.sleep(1)
    before = world.now()
    view = world.work(lease_id)
    assert view.lease.next_look_at is not None
    assert view.lease.next_look_at >= before + (before - told[0].at) / 4


def test_a_machine_that_ran_while_no_row_knew_of_it_and_broke_since_is_left_alone(world: World) -> None:
    """As after a restore: it may hold work, so it is a person's to delete."""
    _, lease_id = ordered(world)
    world.until_running(lease_id)
    world.wake(lease_id, state=LeaseState.BUILDING, started_at=None, seen_at=None)
    (server_id,) = world.cloud.log.alive("server")
    cloud = world.cloud.cloud
    with cloud.lock:
        fail(cloud, cloud.servers[server_id], utc_now(), "the host died")
    world.work(lease_id)
    view = world.work(lease_id)
    assert world.cloud.log.alive("server") == {server_id}
    assert view.lease.state is LeaseState.ERROR
    assert [finding.resolved_at for finding in findings(world, "machine_failed")] == [None]


def test_an_address_that_cannot_be_given_back_does_not_keep_the_machine_running(world: World) -> None:
    order, lease_id = ordered(world, public_address=True)
    world.until_running(lease_id)
    fault = world.cloud.faults.add(FaultKind.SERVER_ERROR, method="DELETE", path="/floatingips/")
    stop(world, order)
    view = world.until(lease_id, lambda _: world.cloud.log.alive("server") == set())
    assert view.lease.gone_at is None, "its address is still there"
    assert view.lease.trouble is not None

    world.cloud.faults.remove(fault)
    world.until_gone(lease_id)
    assert world.cloud.log.alive("floating_ip") == set()


def test_a_machine_that_ran_is_not_given_up_for_an_address(world: World) -> None:
    """The site was too busy to give one, somebody worked on the machine meanwhile, and then there was none left."""
    busy = world.cloud.faults.add(FaultKind.TOO_MANY_REQUESTS, method="POST", path="/floatingips$")
    _, lease_id = ordered(world, public_address=True)
    site_id = world.work(lease_id).lease.site_id
    world.observe(site_id)
    assert world.view(lease_id).lease.started_at is not None
    world.cloud.faults.remove(busy)
    full = world.cloud.faults.add(FaultKind.QUOTA, method="POST", path="/floatingips$")
    view = world.until(lease_id, lambda lease: lease.failures >= STUCK)
    assert view.lease.desired is Desired.RUNNING
    assert [finding.resolved_at for finding in findings(world, "lease_stuck")] == [None]

    world.cloud.faults.remove(full)
    world.until(lease_id, lambda lease: len(lease.parts) == sum(part.remote_id is not None for part in lease.parts))
    world.until(lease_id, lambda lease: lease.failures == 0)
    assert None not in [finding.resolved_at for finding in findings(world, "lease_stuck")]


def test_a_listing_counts_by_the_project_that_the_machines_are_in(world: World) -> None:
    """The credential was replaced while a machine was launched, and then the former one was brought back."""
    _, lease_id = ordered(world)
    site_id = world.until_running(lease_id).lease.site_id
    with world.sessions.begin() as session:
        now = world.now()
        session.add(SiteListing(site_id=site_id, scope="x/another", started_at=now, finished_at=now, machines=0))
    world.observe(site_id)
    seen_at = world.view(lease_id).lease.seen_at
    assert seen_at is not None
    assert seen_at > now


def test_past_its_end_at_a_site_that_is_only_observed_a_person_is_told(world: World) -> None:
    _, lease_id = ordered(world)
    world.until_running(lease_id)
    set_sites(world, observe_only=True)
    world.work(lease_id)
    assert findings(world, "lease_stuck") == []
    world.wake(lease_id, ends_at=world.now() - HOUR, grace=None)
    world.work(lease_id)
    assert [finding.resolved_at for finding in findings(world, "lease_stuck")] == [None]

    world.wake(lease_id, ends_at=world.now() + HOUR)
    world.work(lease_id)
    assert None not in [finding.resolved_at for finding in findings(world, "lease_stuck")]


def test_a_machine_of_ours_whose_tags_somebody_took_away_is_not_said_to_be_unknown(world: World) -> None:
    """The hint says to delete what has no owner, and this one is paid for."""
    _, lease_id = ordered(world)
    site_id = world.until_running(lease_id).lease.site_id
    (server_id,) = world.cloud.log.alive("server")
    cloud = world.cloud.cloud
    with cloud.lock:
        cloud.servers[server_id].metadata.clear()
    world.observe(site_id)
    assert findings(world, "unknown_machine") == []


def test_after_a_restore_a_machine_whose_extension_is_lost_is_kept_for_the_grace(world: World) -> None:
    """The rows say that all its time was over long ago; that somebody has extended it since, they cannot know."""
    _, lease_id = ordered(world)
    world.until_running(lease_id)
    world.wake(lease_id, must_find=True, ends_at=world.now() - 3 * HOUR, grace=HOUR)
    world.until(lease_id, lambda lease: lease.state is LeaseState.SHELVED)
    view = world.work(lease_id)
    assert len(world.cloud.log.alive("server")) == 1
    assert view.deleted_at > view.now + HOUR / 2


def test_a_machine_that_nobody_saw_yet_is_looked_at_before_its_time_is_said_to_be_over(world: World) -> None:
    """As where the rows come out of a backup from before its launch: it may run, and then it has a grace."""
    _, lease_id = ordered(world, duration="1 day")
    world.wake(lease_id)
    mine = claim(world.sessions, lease_id, length=timedelta(milliseconds=1))
    assert mine is not None
    run = Pass(world.tools, world.tools.open_site(world.view(lease_id).lease.site_id), mine)
    launching.plan(run, world.view(lease_id).lease)
    for number in range(len(world.view(lease_id).lease.parts)):  # a pass that dies before its first look
        lease = world.view(lease_id).lease
        launching.make(run, lease, lease.parts[number])
    world.wake(lease_id, ends_at=world.now() - HOUR)
    world.until_running(lease_id)
    events = {entry.event for entry in world.cloud.log.entries(kind="server")}
    assert not events & {"deleting", "shelved", "stopped"}


def test_a_machine_does_not_end_for_money_that_nobody_has_asked_for(world: World) -> None:
    """Leeway itself was away for a week: the hold ran out, and the grant has money."""
    order, lease_id = ordered(world)
    world.until_running(lease_id)
    with world.sessions.begin() as session:
        session.execute(update(Order).values(held_until=world.now() - 2 * HOUR))
    world.wake(lease_id, grace=HOUR)
    view = world.work(lease_id)
    assert view.lease.desired is Desired.RUNNING
    assert (ROLL, str(order.id)) in world.jobs.woken

    with world.sessions.begin() as session:
        funding = Funding(world.tools.ledger, world.jobs, timedelta(days=7))
        assert roll_hold(session, order.id, funding, now=world.now())
    assert world.work(lease_id).lease.state is LeaseState.RUNNING
    events = {entry.event for entry in world.cloud.log.entries(kind="server")}
    assert not events & {"deleting", "shelved", "stopped"}
