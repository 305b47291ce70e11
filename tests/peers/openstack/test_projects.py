"""Several projects of the real cloud at one observed site."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from openstack.config import OpenStackConfig
from openstack.connection import Connection

from broker.errors import SiteDenied
from broker.remote import PartKind
from tests.peers.openstack.federation import CLOUDS, SECONDS
from tests.peers.openstack.test_adapter import Open, open_as, pytestmark, soon

__all__ = ["open_as", "pytestmark"]  # fixtures and marks, not names of this file


@pytest.fixture
def bob() -> Iterator[Connection]:
    """Who works in the other project of alice's."""
    config = OpenStackConfig(config_files=[str(CLOUDS)], load_envvars=False)
    connection = Connection(config=config.get_one("leeway-bob"))
    yield connection
    connection.close()


def test_what_is_in_another_project_is_shown_and_counted(open_as: Open, bob: Connection) -> None:
    storage: Any = bob.block_storage
    genomes, climate = bob.current_project_id, open_as("leeway-alice").scope(deadline=soon()).partition("/")[2]
    volume = storage.create_volume(name=f"projects-{uuid.uuid4().hex[:8]}", size=1)
    try:
        storage.wait_for_status(volume, "available", interval=1, wait=int(SECONDS))
        for wanted in ("climate,genomes", f"{genomes},climate", "*"):
            adapter = open_as("leeway-alice", observe_only=True, settings={"projects": wanted})
            listing = adapter.listing(deadline=soon())
            shown = {thing.remote_id: thing.project for thing in listing.things}
            assert shown[volume.id] == genomes
            assert {machine.project for machine in listing.machines} <= {climate, genomes}
            both = "*" if wanted == "*" else ",".join(sorted((climate, genomes)))
            assert listing.scope == adapter.scope(deadline=soon()) == f"RegionOne/{both}"
            limits = {quota.resource: quota.limit for quota in adapter.quotas(deadline=soon())}
            assert (limits["instances"], limits["volumes"], limits["floating_ips"]) == (60, 25, 7)
            assert adapter.look(PartKind.VOLUME, volume.id, deadline=soon()) is not None
            assert [step for step in adapter.check(deadline=soon()) if not step.ok] == []
        own = open_as("leeway-alice", observe_only=True)
        assert volume.id not in {thing.remote_id for thing in own.listing(deadline=soon()).things}
        assert own.look(PartKind.VOLUME, volume.id, deadline=soon()) is None
    finally:
        storage.delete_volume(volume)


def test_a_project_that_may_not_be_entered_is_named(open_as: Open) -> None:
    adapter = open_as("leeway-alice", observe_only=True, settings={"projects": "climate,tiny"})
    with pytest.raises(SiteDenied, match="'tiny' cannot be entered") as refused:
        adapter.listing(deadline=soon())
    assert "genomes (" in str(refused.value)
