"""How far a listing is: told by the adapter, written now and then, shown while nothing is known yet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, cast
from uuid import UUID

import pytest
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from broker import turns
from broker.errors import Fenced, SiteError
from broker.inventory import observe, take_turn
from broker.models.federation import Site
from broker.ports import CloudAdapter
from broker.remote import Deadline, Listing
from broker.sites import site_named
from broker.turns import PROGRESS_SECONDS, Progress, Turn
from tests.world import World


@dataclass
class Clock:
    """Seconds that the test moves on."""

    now: float = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def turn(world: World) -> Turn:
    with world.sessions.begin() as session:
        session.execute(update(Site).values(next_listing_at=func.clock_timestamp()))
        site_id = session.scalars(select(Site.id)).one()
    taken = take_turn(world.tools, site_id)
    assert taken is not None
    return taken


def site(world: World) -> Site:
    with world.sessions() as session:
        return site_named(session, "aurora")


def test_it_is_written_at_most_every_two_seconds(world: World, turn: Turn) -> None:
    clock = Clock()
    progress = Progress(world.sessions, turn, clock=clock)
    seen = []
    for read in (10, 20, 30, 40, 50):
        progress(read)
        seen.append(site(world).listing_read)
        clock.now += PROGRESS_SECONDS / 2
    assert seen == [10, 10, 30, 30, 50]


def test_a_lister_whose_turn_is_over_hears_of_it(world: World, turn: Turn) -> None:
    progress = Progress(world.sessions, turn)
    with world.sessions.begin() as session:
        session.execute(update(Site).values(listing_generation=Site.listing_generation + 1))
    with pytest.raises(Fenced):
        progress(10)
    assert site(world).listing_read == 0


def test_where_the_row_cannot_be_written_the_listing_goes_on(world: World, turn: Turn) -> None:
    clock = Clock()
    progress = Progress(world.sessions, turn, clock=clock)
    with world.sessions.begin() as session:
        session.execute(select(Site.id).with_for_update())
        progress(20)  # the lock timeout is three seconds
    assert site(world).listing_read == 0
    clock.now += PROGRESS_SECONDS
    progress(30)
    assert site(world).listing_read == 30


class Telling:
    """The same adapter; `during` happens after each page of its listings."""

    def __init__(self, adapter: CloudAdapter, during: Callable[[int], None]) -> None:
        self._adapter = adapter
        self._during = during

    def listing(self, *, deadline: Deadline, progress: Callable[[int], None] | None = None) -> Listing:
        assert progress is not None

        def told(read: int) -> None:
            progress(read)
            self._during(read)

        return self._adapter.listing(deadline=deadline, progress=told)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._adapter, name)


def telling(world: World, during: Callable[[int], None]) -> World:
    tools = world.tools
    opened = cast("Callable[[UUID], CloudAdapter]", lambda site_id: Telling(tools.open_site(site_id), during))
    return replace(world, tools=replace(tools, open_site=opened))


def test_while_a_listing_is_under_way_the_row_says_how_far_it_is(
    world: World, turn: Turn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "PROGRESS_SECONDS", 0.0)
    world.cloud.add_foreign_servers(3, project="leeway")
    seen: list[int | None] = []
    assert site(world).listing_since is not None
    assert observe(telling(world, lambda _: seen.append(site(world).listing_read)).tools, turn)
    assert max(one or 0 for one in seen) >= 3
    assert (site(world).listing_since, site(world).listing_read) == (None, None)


def test_a_listing_that_fails_is_under_way_no_more(world: World, turn: Turn) -> None:
    world.cloud.faults.add("500", service="compute", path=r"/servers/detail$")
    with pytest.raises(SiteError):
        observe(world.tools, turn)
    assert (site(world).listing_since, site(world).listing_read) == (None, None)


def test_nobody_waits_for_the_rest_of_a_listing_whose_turn_is_over(
    world: World, turn: Turn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "PROGRESS_SECONDS", 0.0)
    before = site(world).listed_at
    with world.sessions.begin() as session:
        take_over(session)
    assert not observe(world.tools, turn)
    after = site(world)
    assert (after.listed_at, after.failures, after.trouble) == (before, 0, None)


def take_over(session: Session) -> None:
    session.execute(update(Site).values(listing_generation=Site.listing_generation + 1))
