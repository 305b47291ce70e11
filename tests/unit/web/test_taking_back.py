"""A backup is older than the clouds: what was ordered since is taken back, what was made since is found, once each."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from threading import Barrier, Thread
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import func, select, text, update
from sqlalchemy.orm import Session

from accounting.ledger import verify
from accounting.models.charges import Charge
from accounting.models.grants import MoneyHold
from adapters.sandbox import SandboxCloud, running
from adapters.sandbox.faults import FaultKind
from adapters.sandbox.profiles import aurora
from broker.backups import make_backup, restore
from broker.database import Database
from broker.errors import PriceUnknown
from broker.lost import Find
from broker.meters import VOLUME_SKU
from broker.models.audit import Event, Finding
from broker.models.catalogue import Offer
from broker.models.federation import Site
from broker.models.holds import QuotaHold, QuotaPool
from broker.models.leases import Desired, Lease, LeaseState, Part
from broker.models.people import Project
from broker.models.workloads import Order, OrderState, Quote, QuoteOffer, WorkloadRow
from broker.orders import stop_order
from broker.placement import Volumes
from broker.rebuilt import _boot_gib
from broker.remote import Deadline, MachineSpec, MachineState, PartKind, RemoteMachine, RemoteThing, Tags, ThingKind
from broker.restored import look
from broker.resuming import readiness, resume
from broker.taking_back import take_back
from broker.values import new_id
from broker.workloads import parse
from tests.conftest import PostgresForTests
from tests.world import NotedJobs, World, aurora_prices, people, quick
from web.compose import services
from web.settings import load_settings

CALL = timedelta(seconds=2)
SETTLE = timedelta(milliseconds=300)


@pytest.fixture
def own(postgres: PostgresForTests, database: Database) -> Iterator[Database]:
    """A database to replace."""
    assert isinstance(database, Database), "it is what makes the template"
    name = f"restored_{uuid4().hex}"
    yield postgres.create(name, template="leeway_template")
    postgres.drop(name)


@pytest.fixture
def cloud() -> Iterator[SandboxCloud]:
    """A cloud that lives on while the database is replaced."""
    with running(quick(aurora())) as made:
        yield made


@contextlib.contextmanager
def served(database: Database, folder: Path, cloud: SandboxCloud) -> Iterator[World]:
    """As `leeway serve` begins; passes and listings are the test's."""
    folder.mkdir(exist_ok=True)
    settings = load_settings(
        data_dir=folder, call_timeout=CALL, settle_time=SETTLE, first_look=0.01, last_look=0.2, claim_time=20
    )
    with services(settings, replace(database, is_embedded=False)) as made:
        jobs = NotedJobs()
        tools = replace(made.tools, jobs=jobs)
        yield World(made.sessions, tools, made.doors, jobs, made.quoting, {cloud.config.name: cloud})


class Stage:
    """A database with a backup, and clouds that go on."""

    def __init__(self, database: Database, folder: Path, cloud: SandboxCloud) -> None:
        """Connect the cloud; nothing is ordered yet."""
        self.database, self.folder, self.cloud = database, folder, cloud
        self.file = folder / "backup"
        self.serving: contextlib.AbstractContextManager[World] | None = None
        self.world = self.start()
        people(self.world.sessions, grant="100 EUR")
        self.world.connect(cloud, prices=aurora_prices() | {VOLUME_SKU: "0.0002"})

    def start(self) -> World:
        self.serving = served(self.database, self.folder / "data", self.cloud)
        self.world = self.serving.__enter__()
        return self.world

    def stop(self) -> None:
        if self.serving is not None:
            self.serving.__exit__(None, None, None)
            self.serving = None

    def back_up(self) -> None:
        make_backup(self.database, self.file)

    def bring_back(self) -> World:
        """Stop, restore, start."""
        self.stop()
        restore(self.database, self.file, replace=True)
        return self.start()

    @property
    def site_id(self) -> UUID:
        with self.world.sessions() as session:
            return session.scalars(select(Site.id)).one()

    def resume(self) -> None:
        """Wait until a listing counts, list, and say so."""
        for site in readiness(self.world.tools)[1]:
            assert site.wanted_after is not None
            while self.world.now() < site.wanted_after:
                time.sleep(0.05)
            self.world.observe(site.site_id)
        resume(self.world.tools, actor="tests")
        with self.world.sessions.begin() as session:
            standing = look(session)
        assert standing is not None
        assert standing.observing_since is None

    def live(self) -> list[Lease]:
        with self.world.sessions() as session:
            return list(session.scalars(select(Lease).where(Lease.gone_at.is_(None)).order_by(Lease.id)))

    def work(self, *, rounds: int = 12) -> None:
        """Passes over everything, and listings, until it has come to rest."""
        for _ in range(rounds):
            for lease in self.live():
                self.world.work(lease.id)
            time.sleep(0.05)
        time.sleep(SETTLE.total_seconds())
        self.world.observe(self.site_id)
        for lease in self.live():
            self.world.work(lease.id)

    def server_of(self, lease_id: UUID) -> str:
        found = next(part.remote_id for part in self.world.view(lease_id).lease.parts if part.kind == "server")
        assert found is not None
        return found

    def one(self, query: Any) -> Any:
        with self.world.sessions() as session:
            return session.scalars(query).one()


@pytest.fixture
def stage(own: Database, tmp_path: Path, cloud: SandboxCloud) -> Iterator[Stage]:
    made = Stage(own, tmp_path, cloud)
    yield made
    made.stop()


def end(stage: Stage, order_id: UUID) -> None:
    with stage.world.sessions.begin() as session:
        stop_order(session, order_id, jobs=stage.world.jobs, actor="tests", reason="done")


def run(stage: Stage, **changes: Any) -> tuple[Order, UUID]:
    order = stage.world.order(**changes)
    lease_id = stage.world.leases(order)[0]
    stage.world.until_running(lease_id)
    return order, lease_id


def test_after_a_restore_each_order_has_one_machine_and_is_charged(stage: Stage) -> None:
    world = stage.world
    _, lasting = run(stage, name="lasting")
    waiting = world.leases(world.order(name="waiting"))[0]
    ended_order, ended = run(stage, name="ended")
    stage.back_up()
    world.until_running(waiting)
    end(stage, ended_order.id)
    world.until_gone(ended)
    _, forgotten = run(stage, name="forgotten", public_address=True)
    servers = {lease: stage.server_of(lease) for lease in (lasting, waiting, forgotten)}
    assert stage.cloud.log.alive("server") == set(servers.values())

    world = stage.bring_back()
    before = stage.cloud.log.entries()
    for _ in range(3):
        for lease in stage.live():
            world.work(lease.id)
        world.observe(stage.site_id)
    assert stage.cloud.log.entries() == before, "nothing is touched while Leeway observes"
    finding = stage.one(select(Finding.text).where(Finding.kind == "ours_unknown", Finding.text.contains("server")))
    assert "Leeway only observes" in finding

    unknown_now = select(func.count()).where(Finding.kind == "ours_unknown", Finding.resolved_at.is_(None))
    stage.resume()
    assert stage.one(unknown_now) == 0, "nobody shall delete at the site what the next listing takes back"
    stage.work()
    assert stage.cloud.log.alive("server") == set(servers.values()), "one machine each, and the same ones"
    assert {lease.id for lease in stage.live()} == {lasting, waiting, forgotten}
    assert {lease.id: stage.server_of(lease.id) for lease in stage.live()} == servers
    assert world.view(ended).lease.gone_at is not None
    assert stage.one(unknown_now) == 0
    for lease in stage.live():
        end(stage, lease.order_id)
        world.until_gone(lease.id)
    assert stage.cloud.log.alive("server") == set()
    assert stage.cloud.log.alive("port") == set()
    active = {entry.id: entry.at for entry in stage.cloud.log.entries(kind="server", event="active")}
    with world.sessions() as session:
        assert verify(session) == []
        for lease_id, server in servers.items():
            began = session.scalars(
                select(func.min(Charge.charge_period_start)).where(Charge.lease_id == lease_id)
            ).one()
            assert began is not None
            assert abs(began - active[server]) < timedelta(seconds=1), "charged from when it began"


def test_what_is_taken_back_says_what_is_known_and_what_is_not(stage: Stage) -> None:
    stage.back_up()
    order, lease_id = run(stage, name="era5", public_address=True)
    lost = stage.world.view(lease_id)
    stage.bring_back()
    stage.resume()
    stage.world.observe(stage.site_id)
    view = stage.world.view(lease_id)
    lease = view.lease
    assert (lease.state, lease.desired, view.order) == (LeaseState.RUNNING, Desired.RUNNING, OrderState.ACTIVE)
    assert lease.project == "climate"
    assert lease.started_at == lost.lease.started_at
    assert abs(lease.ends_at - lost.lease.ends_at) < timedelta(seconds=1)
    assert lease.grace == lost.lease.grace
    assert lease.generation >= 1_000_000, "no worker of the time before may write to it"
    assert [(part.kind, part.remote_id, part.fence) for part in lease.parts] == [
        (part.kind, part.remote_id, part.fence) for part in lost.lease.parts
    ]
    row, quote = stage.one(select(WorkloadRow)), stage.one(select(Quote))
    assert row.name == "era5"
    read = parse(row.document)
    assert (read.image, read.cores, read.public_address) == ("unknown", 2, True)
    assert abs(read.duration - order.duration) <= timedelta(seconds=1)
    assert quote.assumptions["rebuilt"] is True
    assert "rebuilt" in quote.verdicts[0]["summary"]
    assert quote.expires_at <= stage.world.now()
    assert stage.one(select(Event.text).where(Event.kind == "taken_back")).startswith("taken back after a restore")
    assert stage.one(select(MoneyHold)).remaining > 0
    with stage.world.sessions() as session:
        held = session.scalars(select(QuotaHold)).all()
        assert held
        assert all(hold.counted_at is not None for hold in held)


DISKS = {"cores": 2, "memory": "4 GiB", "disk": "30 GiB", "volume": "50 GiB"}


def test_a_machine_is_taken_back_with_its_volumes_and_they_are_paid(stage: Stage) -> None:
    stage.back_up()
    _, lease_id = run(stage, resources=DISKS)
    before = stage.world.view(lease_id).lease
    stage.bring_back()
    stage.resume()
    stage.world.observe(stage.site_id)
    lease = stage.world.view(lease_id).lease
    assert Volumes.of(lease.spec) == Volumes(30, 50)
    assert [(part.kind, part.remote_id) for part in lease.parts] == [
        (part.kind, part.remote_id) for part in before.parts
    ]
    assert stage.one(select(QuoteOffer.boot_volume_gib)) == 30
    assert parse(stage.one(select(WorkloadRow.document))).volume_gib == 50
    held = select(QuotaHold.amount).join(QuotaPool, QuotaPool.id == QuotaHold.pool_id)
    assert stage.one(held.where(QuotaPool.resource == "volume_gib")) == 80
    stage.work(rounds=2)
    assert len(stage.cloud.log.alive("volume")) == 2, "none of them passes for a leftover"
    end(stage, lease.order_id)
    stage.world.until_gone(lease_id)
    stage.world.settle(lease_id)
    assert stage.cloud.log.alive("volume") == set()
    paid = stage.one(
        select(func.sum(Charge.consumed_quantity)).where(Charge.lease_id == lease_id, Charge.sku_id == VOLUME_SKU)
    )
    ran = stage.one(
        select(func.sum(Charge.consumed_quantity)).where(Charge.lease_id == lease_id, Charge.sku_id == "a1.small")
    )
    assert paid > 0
    assert abs(paid - 80 * ran) < Decimal("1E-6")


def test_while_volumes_cannot_be_read_no_machine_that_may_have_one_is_taken_back(stage: Stage) -> None:
    stage.back_up()
    _, lease_id = run(stage, resources=DISKS)
    stage.bring_back()
    stage.resume()
    fault = stage.cloud.faults.add(FaultKind.FORBIDDEN, service="volume", method="GET", path=r"/volumes/detail")
    stage.world.observe(stage.site_id)
    assert stage.live() == []
    unknown_now = select(Finding.text).where(Finding.kind == "ours_unknown", Finding.resolved_at.is_(None))
    assert "which volumes" in stage.one(unknown_now.where(Finding.text.contains("server")))
    stage.cloud.faults.remove(fault)
    stage.world.observe(stage.site_id)
    assert [lease.id for lease in stage.live()] == [lease_id]
    assert Volumes.of(stage.live()[0].spec) == Volumes(30, 50)


@pytest.mark.parametrize(
    ("made", "tagged", "is_it"),
    [
        (-60, False, False),  # there before the machine: a person put it in
        (-1, False, True),  # the site's clocks say whole seconds
        (5, False, True),
        (5, True, False),  # of a Leeway: it is somebody's second disk
        (11, False, True),
        (60, False, False),  # the machine had run by then
        (None, False, False),
    ],
)
def test_what_a_machine_boots_from_was_made_with_it(*, made: int | None, tagged: bool, is_it: bool) -> None:
    born = datetime(2026, 11, 21, 12, tzinfo=UTC)
    tags = Tags(new_id(), new_id(), new_id(), "climate", born)
    machine = RemoteMachine(
        PartKind.SERVER,
        "s-1",
        "m",
        tags,
        MachineState.RUNNING,
        "ACTIVE",
        instance_type="f-1",
        created_at=born,
        launched_at=born + timedelta(seconds=10),
    )
    disk = RemoteThing(
        ThingKind.VOLUME,
        "v-1",
        "",
        "in-use",
        size_gib=Decimal(30),
        created_at=None if made is None else born + timedelta(seconds=made),
        tags=tags if tagged else None,
    )
    find = Find(new_id(), "scope", born + timedelta(hours=1), machine, tags, (), (disk,), unread=None)
    assert (find.boot_disks == [disk]) is is_it
    assert _boot_gib(find, Offer(disk_gib=20)) == (30 if is_it else 0)
    if is_it:
        assert _boot_gib(find, Offer(disk_gib=0)) == 30
    else:
        with pytest.raises(PriceUnknown, match="how large the volume that it boots from is"):
            _boot_gib(find, Offer(disk_gib=0))


def test_it_is_taken_back_once_however_often_it_is_seen(stage: Stage) -> None:
    stage.back_up()
    run(stage)
    stage.bring_back()
    stage.resume()
    for _ in range(3):
        stage.world.observe(stage.site_id)
    assert stage.one(select(func.count()).select_from(Lease)) == 1
    assert stage.one(select(func.count()).select_from(Order)) == 1


def test_two_at_once_take_it_back_once(stage: Stage) -> None:
    stage.back_up()
    _, lease_id = run(stage)
    stage.bring_back()
    stage.resume()
    tools, site_id = stage.world.tools, stage.site_id
    adapter = tools.open_site(site_id)
    listing = adapter.listing(deadline=Deadline.after(5))
    both, told = Barrier(2), []

    def take() -> None:
        both.wait()
        told.append(
            take_back(
                tools,
                listing,
                [*listing.machines, *listing.parts],
                site_id=site_id,
                seen_at=stage.world.now(),
                writing=tools.sessions.begin,
            )
        )

    threads = [Thread(target=take) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(bool, told)) == [False, True]
    assert stage.one(select(func.count()).select_from(Lease)) == 1
    assert stage.world.view(lease_id).lease.parts


def test_a_kill_between_two_leases_leaves_whole_ones(stage: Stage) -> None:
    stage.back_up()
    for name in ("one", "two"):
        run(stage, name=name)
    stage.bring_back()
    stage.resume()
    tools, site_id = stage.world.tools, stage.site_id
    stopped = _Stopped(tools.sessions.begin, after=1)
    listing = tools.open_site(site_id).listing(deadline=Deadline.after(5))
    with pytest.raises(KeyboardInterrupt):
        take_back(
            tools,
            listing,
            [*listing.machines, *listing.parts],
            site_id=site_id,
            seen_at=stage.world.now(),
            writing=stopped,
        )
    assert stage.one(select(func.count()).select_from(Lease)) == 1
    stage.world.observe(site_id)
    assert stage.one(select(func.count()).select_from(Lease)) == 2
    stage.work()
    assert len(stage.cloud.log.alive("server")) == 2


class _Stopped:
    """Opens so many transactions, then ends the process."""

    def __init__(self, begin: Callable[[], contextlib.AbstractContextManager[Session]], *, after: int) -> None:
        self.begin, self.left = begin, after

    def __call__(self) -> contextlib.AbstractContextManager[Session]:
        if not self.left:
            raise KeyboardInterrupt
        self.left -= 1
        return self.begin()


def test_what_cannot_be_taken_back_says_why_and_is_once_it_can(stage: Stage) -> None:
    """A project that was made after the backup."""
    stage.back_up()
    run(stage)
    stage.bring_back()
    with stage.world.sessions.begin() as session:
        session.execute(update(Project).values(name="other"))
    stage.resume()
    stage.world.observe(stage.site_id)
    open_now = select(Finding).where(Finding.kind == "ours_unknown", Finding.resolved_at.is_(None))
    with stage.world.sessions() as session:
        found = session.scalars(open_now).all()
        assert len(found) >= 2, "the machine and its parts"
        assert all("there is no project 'climate'" in finding.text for finding in found)
        assert all("leeway project add climate" in finding.hint for finding in found)
    with stage.world.sessions.begin() as session:
        session.execute(update(Project).values(name="climate"))
    stage.world.observe(stage.site_id)
    with stage.world.sessions() as session:
        assert session.scalars(open_now).all() == []
    assert len(stage.live()) == 1


@pytest.mark.parametrize(
    ("statement", "why"),
    [
        ("UPDATE offers SET remote_id = 'no ' || remote_id", "the site sells no machine type"),
        ("UPDATE rate_card_versions SET valid_from = '2099-01-01'", "provider aurora has no rate card in force"),
        ("DELETE FROM rate_card_prices WHERE sku LIKE 'a1.%'", "a1."),
    ],
)
def test_no_offer_and_no_price_are_told(stage: Stage, statement: str, why: str) -> None:
    stage.back_up()
    run(stage)
    stage.bring_back()
    stage.resume()
    with stage.world.sessions.begin() as session:
        session.execute(text(statement))
    stage.world.observe(stage.site_id)
    assert stage.live() == []
    unknown_now = select(Finding.text).where(Finding.kind == "ours_unknown", Finding.resolved_at.is_(None))
    finding = stage.one(unknown_now.where(Finding.text.contains("server")))
    assert why in finding
    assert len(stage.cloud.log.alive("server")) == 1, "it is left alone"


def test_parts_without_a_machine_are_left_to_a_person(stage: Stage) -> None:
    stage.back_up()
    _, lease_id = run(stage)
    server = stage.server_of(lease_id)
    stage.bring_back()
    stage.world.tools.open_site(stage.site_id).delete(PartKind.SERVER, server, deadline=Deadline.after(5))
    stage.resume()
    stage.world.observe(stage.site_id)
    assert stage.live() == []
    with stage.world.sessions() as session:
        told = select(Finding.text).where(Finding.kind == "ours_unknown", Finding.resolved_at.is_(None))
        found = sorted(session.scalars(told))
    assert [finding.partition(" ")[0] for finding in found] == ["key_pair", "port"]
    assert all("belongs to no machine" in finding for finding in found)


def test_a_machine_that_was_powered_off_stays_off(stage: Stage) -> None:
    stage.back_up()
    _, lease_id = run(stage)
    stage.world.wake(lease_id, desired=Desired.STOPPED)
    stage.world.until(lease_id, lambda lease: lease.state is LeaseState.STOPPED)
    stage.bring_back()
    stage.resume()
    stage.work(rounds=3)
    lease = stage.world.view(lease_id).lease
    assert (lease.state, lease.desired) == (LeaseState.STOPPED, Desired.STOPPED)
    assert lease.started_at is not None, "it has run: after its end it is kept for the grace"


def test_without_money_it_is_taken_back_all_the_same(stage: Stage) -> None:
    stage.back_up()
    _, lease_id = run(stage)
    stage.bring_back()
    with stage.world.sessions.begin() as session:
        session.execute(text("UPDATE balances SET ceiling = 0 WHERE ceiling IS NOT NULL"))
    stage.resume()
    stage.world.observe(stage.site_id)
    order = stage.one(select(Order))
    assert order.held_until is not None
    assert order.held_until <= stage.world.now(), "its stop ladder begins"
    finding = stage.one(select(Finding).where(Finding.kind == "hold_refused"))
    assert (finding.key, finding.lease_id) == (str(order.id), lease_id)
    assert finding.per_day == Decimal("0.96")
    assert stage.world.view(lease_id).lease.state is LeaseState.RUNNING


def test_an_end_that_is_past_begins_the_ladder_now(stage: Stage) -> None:
    """It was extended, or its end came while nothing ran: nothing is deleted without the grace."""
    stage.back_up()
    _, lease_id = run(stage, duration="1 second")
    stage.stop()
    time.sleep(1.2)
    stage.bring_back()
    stage.resume()
    stage.world.observe(stage.site_id)
    view = stage.world.view(lease_id)
    assert stage.world.now() - view.lease.ends_at < timedelta(seconds=30)
    assert view.lease.grace == timedelta(minutes=15)
    assert view.deleted_at > stage.world.now()


def test_the_second_machine_of_a_lost_lease_is_a_leftover(stage: Stage) -> None:
    """Of two, the one that runs is kept, as a lease with rows would have it."""
    stage.back_up()
    _, lease_id = run(stage)
    first = stage.server_of(lease_id)
    lease = stage.world.view(lease_id).lease
    adapter = stage.world.tools.open_site(stage.site_id)
    tags = Tags(stage.world.tools.installation, lease_id, new_id(), "climate", lease.ends_at)
    spec = MachineSpec(**lease.spec)
    port = adapter.make(PartKind.PORT, spec, tags=tags, made={}, deadline=Deadline.after(5))
    second = adapter.make(
        PartKind.SERVER, spec, tags=tags, made={PartKind.PORT: port, PartKind.KEY_PAIR: f"leeway-{lease_id.hex}"},
        deadline=Deadline.after(5),
    )  # fmt: skip
    stage.bring_back()
    stage.resume()
    stage.work()
    stage.work()
    assert stage.cloud.log.alive("server") == {first} != {second}
    with stage.world.sessions() as session:
        kept = set(session.scalars(select(Part.remote_id).where(Part.lease_id == lease_id)))
    assert stage.cloud.log.alive("port") <= kept
