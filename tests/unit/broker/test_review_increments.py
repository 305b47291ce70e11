"""Attacks on listings: too long for their turn, late, repeated, about other leases, with names that are used again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from uuid import UUID

import pytest
from sqlalchemy import func, select, update

from broker import increments, inventory
from broker.inventory import observe, take_turn
from broker.models.federation import Site
from broker.models.inventory import Thing
from broker.models.leases import Lease, LeaseState, SiteListing
from broker.ports import Changes, CloudAdapter, Increments
from broker.remote import Deadline, PartKind, RemoteMachine, RemoteQuota, ThingKind
from broker.sites import site_named
from broker.tools import Pace, Tools
from broker.turns import Turn
from tests.world import World


@dataclass
class Odd:
    """The site's adapter, with answers of the test's own to what changed; `late`: the visit took as long as it may."""

    world: World
    site_id: UUID
    changed: Changes | None = None
    late: bool = False

    @property
    def tools(self) -> Tools:
        return replace(self.world.tools, open_site=self.open)

    def open(self, site_id: UUID) -> CloudAdapter:
        return cast("CloudAdapter", Answers(self, self.world.tools.open_site(site_id)))

    def set(self, **values: Any) -> None:
        with self.world.sessions.begin() as session:
            session.execute(update(Site).where(Site.id == self.site_id).values(**values))

    def turn(self, *, complete: bool = False) -> Turn:
        values = {"full_listing_wanted_at": func.clock_timestamp()} if complete else {}
        self.set(next_listing_at=func.clock_timestamp(), **values)
        turn = take_turn(self.tools, self.site_id)
        assert turn is not None
        assert (turn.changed_since is None) is complete
        return turn

    def machine(self, lease_id: UUID) -> RemoteMachine:
        server = self.world.view(lease_id).part(PartKind.SERVER).remote_id
        assert server is not None
        seen = self.world.tools.open_site(self.site_id).look(PartKind.SERVER, server, deadline=Deadline.after(10))
        assert isinstance(seen, RemoteMachine)
        return seen

    def running(self, **document: Any) -> UUID:
        (lease_id,) = self.world.leases(self.world.order(**document))
        self.world.until_running(lease_id)
        return lease_id


class Answers:
    """What `Odd` opens."""

    def __init__(self, odd: Odd, adapter: CloudAdapter) -> None:
        self._odd = odd
        self._adapter = adapter

    def changes(self, *, since: datetime, deadline: Deadline) -> Changes:
        assert isinstance(self._adapter, Increments)
        found = self._adapter.changes(since=since, deadline=deadline)
        return found if self._odd.changed is None else replace(self._odd.changed, scope=found.scope)

    def quotas(self, *, deadline: Deadline) -> Sequence[RemoteQuota]:
        found = self._adapter.quotas(deadline=deadline)
        if self._odd.late:
            self._odd.set(listing_claim_until=func.clock_timestamp() - timedelta(seconds=1))
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._adapter, name)


@pytest.fixture
def odd(world: World) -> Odd:
    pace = Pace(listing=timedelta(minutes=2), full=timedelta(minutes=30))
    with world.sessions() as session:
        site_id = site_named(session, "aurora").id
    made = Odd(replace(world, tools=replace(world.tools, pace=pace)), site_id)
    assert observe(made.tools, made.turn(complete=True))
    return made


@pytest.mark.parametrize("complete", [True, False])
def test_who_writes_down_a_long_visit_is_not_taken_for_dead(
    odd: Odd, monkeypatch: pytest.MonkeyPatch, *, complete: bool
) -> None:
    """Else a site that takes nearly all of its time to read would be read again and again, and never written down."""
    module = inventory if complete else increments
    ours, others = module.record_ours, list[Turn | None]()

    def meanwhile(*args: Any, **named: Any) -> Any:
        others.append(take_turn(odd.tools, odd.site_id))
        return ours(*args, **named)

    turn = odd.turn(complete=complete)
    monkeypatch.setattr(module, "record_ours", meanwhile)
    odd.late = True
    assert observe(odd.tools, turn)
    assert others == [None]
    with odd.world.sessions() as session:
        assert session.get_one(Site, odd.site_id).listing_claim_until is None


def test_an_answer_that_names_a_machine_twice_and_as_ended_is_of_what_is_there(odd: Odd) -> None:
    lease_id = odd.running()
    machine = odd.machine(lease_id)
    odd.changed = Changes("", (machine, machine), {machine.remote_id: datetime(2020, 1, 1, tzinfo=UTC)})
    assert observe(odd.tools, odd.turn())
    lease = odd.world.view(lease_id).lease
    assert (lease.missing_since, lease.state) == (None, LeaseState.RUNNING)
    with odd.world.sessions() as session:
        living = select(func.count()).where(Thing.remote_id == machine.remote_id, Thing.gone_at.is_(None))
        assert session.scalars(living).one() == 1
        assert session.scalars(select(func.count()).select_from(SiteListing)).one() >= 1


def test_the_word_that_another_leases_machine_ended_ends_that_alone(odd: Odd) -> None:
    mine, other = odd.running(), odd.running(name="other")
    server = odd.machine(other).remote_id
    odd.changed = Changes("", (), {server: None, "never-heard-of": None})
    assert observe(odd.tools, odd.turn())
    assert odd.world.view(mine).lease.missing_since is None
    assert odd.world.view(other).lease.missing_since is not None
    odd.changed = None
    assert observe(odd.tools, odd.turn(complete=True))  # it is there after all
    lease = odd.world.view(other).lease
    assert (lease.missing_since, lease.is_missing, lease.gone_at) == (None, False, None)


def test_a_late_answer_changes_nothing_that_a_later_listing_saw(odd: Odd) -> None:
    lease_id = odd.running()
    server = odd.machine(lease_id).remote_id
    frozen = odd.turn()
    odd.set(listing_claim_until=func.clock_timestamp() - timedelta(seconds=1))
    assert observe(odd.tools, odd.turn(complete=True))
    odd.changed = Changes("", (), {server: None})
    assert not observe(odd.tools, frozen)
    assert odd.world.view(lease_id).lease.missing_since is None


def test_a_name_that_is_used_again_is_another_machine(odd: Odd) -> None:
    cloud = odd.world.cloud
    (first,) = cloud.add_foreign_servers(1, project="leeway")
    assert observe(odd.tools, odd.turn())
    with cloud.cloud.lock:
        name = cloud.cloud.servers[first].name
    odd.changed = Changes("", (), {first: None})
    assert observe(odd.tools, odd.turn())
    odd.changed = None
    cloud.vanish(first)
    (second,) = cloud.add_foreign_servers(1, project="leeway")
    with cloud.cloud.lock:
        cloud.cloud.servers[second].name = name
    assert observe(odd.tools, odd.turn())
    with odd.world.sessions() as session:
        rows = session.execute(
            select(Thing.remote_id, Thing.gone_at.is_(None)).where(Thing.name == name, Thing.kind == ThingKind.SERVER)
        )
        assert dict(rows.all()) == {first: False, second: True}
        assert not session.scalars(select(Lease.id)).all()
