"""What a real Nova says changed, written down by the core between complete listings."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session, sessionmaker

from broker.models.federation import Site
from broker.models.inventory import Thing
from broker.models.leases import Lease, LeaseState, Observation, SiteListing
from broker.remote import MachineState, PartKind
from broker.tools import Pace
from tests.peers.openstack.federation import PAUSE, PEER, SECONDS, Cloud, connect, federation, ordered, until
from tests.world import World

PRICES = {"m1.tiny": "3.60", "public-address": "0.36"}

pytestmark = PEER


@pytest.fixture(scope="module")
def cloud() -> Iterator[Cloud]:
    made = Cloud()
    yield made
    made.close()


@pytest.fixture
def world(sessions: sessionmaker[Session], cloud: Cloud) -> Iterator[World]:
    with federation(sessions) as made:
        made.tools = replace(made.tools, pace=Pace(full=timedelta(minutes=30)))
        yield made
        with made.sessions() as session:
            leases = session.scalars(select(Lease.id)).all()
    for lease_id in leases:
        cloud.clear(lease_id)


def looks(world: World, site_id: UUID) -> bool:
    """List the site; True where that was a complete listing, by the rows."""

    def complete() -> int:
        with world.sessions() as session:
            return session.scalars(select(func.count()).select_from(SiteListing)).one()

    before = complete()
    world.observe(site_id)
    return complete() > before


def states(world: World, lease_id: UUID) -> list[LeaseState]:
    with world.sessions() as session:
        seen = select(Observation.state).where(Observation.lease_id == lease_id).order_by(Observation.seen_at)
        return list(session.scalars(seen))


def test_a_machines_life_is_seen_by_what_changed(world: World, cloud: Cloud) -> None:
    site_id = connect(world, prices=PRICES)
    assert looks(world, site_id)
    _, lease_id = ordered(world)
    lease = until(world, lease_id, lambda lease: lease.state is LeaseState.RUNNING)
    (server,) = (part.remote_id or "" for part in lease.parts if part.kind is PartKind.SERVER)
    assert not looks(world, site_id)
    with world.sessions() as session:
        row = session.scalars(select(Thing).where(Thing.remote_id == server, Thing.gone_at.is_(None))).one()
        assert (row.state, row.lease_id) == (MachineState.RUNNING, lease_id)

    cloud.alice.compute.stop_server(server)
    cloud.alice.compute.wait_for_server(cloud.alice.compute.get_server(server), "SHUTOFF", wait=int(SECONDS))
    assert not looks(world, site_id)
    assert states(world, lease_id)[-1] is LeaseState.STOPPED

    cloud.alice.compute.delete_server(server)
    limit = time.monotonic() + SECONDS
    while [life.status for life in cloud.lives(lease_id)] != ["DELETED"]:
        assert time.monotonic() < limit
        time.sleep(PAUSE)
    (life,) = cloud.lives(lease_id)
    assert not looks(world, site_id)
    view = world.view(lease_id)
    assert view.lease.missing_since is not None
    assert (view.lease.gone_at, view.lease.is_missing) == (None, False)
    with world.sessions() as session:
        assert session.scalars(select(Thing).where(Thing.remote_id == server, Thing.gone_at.is_(None))).all() == []

    time.sleep(1.1)  # the settle time; the site asked for the complete listing itself
    with world.sessions() as session:
        assert session.get_one(Site, site_id).next_listing_at <= world.now()
    assert looks(world, site_id)
    until(world, lease_id, lambda lease: lease.gone_at is not None)
    with world.sessions() as session:
        end = session.scalars(
            select(Observation).where(Observation.lease_id == lease_id, Observation.state == LeaseState.GONE)
        ).one()
    assert not end.is_estimated
    assert end.since is not None
    assert life.ended_at is not None
    # Nova cuts its times to whole seconds, and no end is before the last sight.
    assert abs(end.since - life.ended_at) < timedelta(seconds=1)


def test_of_machines_that_did_not_change_nothing_is_said(world: World, cloud: Cloud) -> None:
    site_id = connect(world, prices=PRICES)
    assert looks(world, site_id)
    _, lease_id = ordered(world)
    seen_at = until(world, lease_id, lambda lease: lease.state is LeaseState.RUNNING).seen_at
    assert cloud.lives(lease_id)
    with world.sessions.begin() as session:  # as if the last listing had begun after all that was done
        later = func.clock_timestamp() + timedelta(minutes=6)
        session.execute(update(Site).where(Site.id == site_id).values(changes_at=later))
    assert not looks(world, site_id)
    lease = world.view(lease_id).lease
    assert (lease.seen_at, lease.missing_since) == (seen_at, None)
