"""Several regions of one cloud: one Keystone, one login, and for each region a site of its own."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Callable, Iterator

import pytest

from adapters.registry import Registry
from adapters.sandbox import ConfigError, SandboxCloud, profile, running
from adapters.sandbox.config import CloudConfig, Timing
from broker.errors import SiteDenied
from broker.ports import CloudAdapter
from broker.remote import Deadline, MachineSpec, PartKind, Secret, SiteAddress, Tags
from tests.contract.sites import new_tags

LOGIN = {"username": "leeway", "password": "sandbox", "project_name": "leeway"}
HOME: CloudConfig = dataclasses.replace(profile("aurora"), region="east", timing=Timing())
OTHER: CloudConfig = dataclasses.replace(HOME, name="aurora-west", region="west", foreign_servers=3, has_volumes=False)
Open = Callable[[str | None], CloudAdapter]


def soon() -> Deadline:
    return Deadline.after(10)


@pytest.fixture
def east() -> Iterator[SandboxCloud]:
    with running(HOME) as cloud:
        yield cloud


@pytest.fixture
def west(east: SandboxCloud) -> Iterator[SandboxCloud]:
    with running(OTHER, home=east) as cloud:
        yield cloud


@pytest.fixture
def site(east: SandboxCloud, west: SandboxCloud) -> Iterator[Open]:
    """The site of a region; both have the one endpoint that there is."""
    assert west.auth_url == east.auth_url
    registry = Registry()

    def open_one(region: str | None) -> CloudAdapter:
        address = SiteAddress(uuid.uuid4(), f"site-{region}", "openstack", east.auth_url, region, uuid.UUID(int=1))
        return registry.open(address, Secret(LOGIN))

    yield open_one
    registry.close()


def machines(adapter: CloudAdapter) -> set[str]:
    return {machine.remote_id for machine in adapter.listing(deadline=soon()).machines}


def failing(adapter: CloudAdapter) -> dict[str, str]:
    steps = adapter.check(deadline=soon())
    return {step.step: f"{step.detail}. {step.hint}" for step in steps if not step.ok}


def test_each_region_has_its_own_machines(east: SandboxCloud, west: SandboxCloud, site: Open) -> None:
    there, elsewhere = machines(site("east")), machines(site("west"))
    assert (there, elsewhere) == (set(east.cloud.servers), set(west.cloud.servers))
    assert (len(there), len(elsewhere)) == (2, 3)
    server = min(elsewhere)
    assert site("west").look(PartKind.SERVER, server, deadline=soon()) is not None
    assert site("east").look(PartKind.SERVER, server, deadline=soon()) is None


def test_what_is_made_in_one_region_is_in_no_other(site: Open, west: SandboxCloud, east: SandboxCloud) -> None:
    adapter, tags = site("west"), new_tags()
    flavor = next(offer.remote_id for offer in adapter.offers(deadline=soon()) if offer.name == "a1.small")
    image = adapter.images(deadline=soon())[0].remote_id
    made: dict[PartKind, str] = {}
    machine = MachineSpec("m", flavor, image)
    for part in adapter.plan(machine):
        made[part.kind] = adapter.make(part.kind, machine, tags=tags, made=made, deadline=soon())
    assert made[PartKind.SERVER] in west.cloud.servers
    assert made[PartKind.PORT] not in east.cloud.ports
    assert _tags(adapter, made) == tags
    assert made[PartKind.SERVER] not in machines(site("east"))
    used = {name: _used(site(name)) for name in ("east", "west")}
    assert used == {"east": 2, "west": 4}


def _tags(adapter: CloudAdapter, made: dict[PartKind, str]) -> Tags | None:
    seen = adapter.look(PartKind.SERVER, made[PartKind.SERVER], deadline=soon())
    return None if seen is None else seen.tags


def _used(adapter: CloudAdapter) -> int:
    return next(int(quota.used) for quota in adapter.quotas(deadline=soon()) if quota.resource == "instances")


def test_the_scope_names_the_region_and_what_a_region_lacks_is_not_taken_from_another(site: Open) -> None:
    scopes = {site(name).scope(deadline=soon()).partition("/")[0] for name in ("east", "west")}
    assert scopes == {"east", "west"}
    assert "volumes" in {quota.resource for quota in site("east").quotas(deadline=soon())}
    assert "volumes" not in {quota.resource for quota in site("west").quotas(deadline=soon())}
    assert not site("west").listing(deadline=soon()).unread
    assert failing(site("east")) == failing(site("west")) == {}


def test_where_there_are_several_one_must_be_named(site: Open) -> None:
    unnamed, wrong = failing(site(None)), failing(site("north"))
    assert set(unnamed) == set(wrong) == {"region"}
    assert "no region is named, the site has 2" in unnamed["region"]
    assert "there is no region 'north'" in wrong["region"]
    for told in (unnamed, wrong):
        assert "east, west" in told["region"]
    for adapter in (site(None), site("north")):
        with pytest.raises(SiteDenied, match="no compute service in region") as denied:
            adapter.listing(deadline=soon())
        assert "east, west" in str(denied.value.hint)


def test_one_region_needs_no_name(east: SandboxCloud) -> None:
    address = SiteAddress(uuid.uuid4(), "alone", "openstack", east.auth_url, None, uuid.UUID(int=1))
    registry = Registry()
    assert len(machines(registry.open(address, Secret(LOGIN)))) == 2
    registry.close()


def test_a_token_is_its_sites_own_and_one_is_enough_for_each(east: SandboxCloud, site: Open) -> None:
    """Sites share no session, not even those of one Keystone: each has its own region, guard and bulkhead."""
    adapters = [site("east"), site("west")]
    for _ in range(3):
        for adapter in adapters:
            adapter.listing(deadline=soon())
            adapter.quotas(deadline=soon())
    assert len(east.cloud.tokens) == len(adapters)
    east.cloud.tokens.clear()  # revoked at the one Keystone, refused in both regions, and made anew
    for adapter in adapters:
        adapter.listing(deadline=soon())
    assert len(east.cloud.tokens) == len(adapters)


def test_a_region_that_fails_takes_no_other_along(west: SandboxCloud, site: Open) -> None:
    both = [site("east"), site("west")]
    west.close()
    assert len(machines(both[0])) == 2
    assert "machines" in failing(both[1]) or "flavors" in failing(both[1])


def test_a_region_has_no_keystone_of_its_own(west: SandboxCloud) -> None:
    address = SiteAddress(uuid.uuid4(), "w", "openstack", f"{west.url}/v3", "west", uuid.UUID(int=1))
    registry = Registry()
    assert set(failing(registry.open(address, Secret(LOGIN)))) == {"endpoint"}
    registry.close()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"region": "east"}, "region: 'east' is there already"),
        ({"users": HOME.users[:1]}, "users: must be those of aurora"),
        ({"name": "aurora"}, "name: is 'aurora' in both regions"),
    ],
)
def test_what_is_no_region_of_a_cloud_is_refused(east: SandboxCloud, change: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        running(dataclasses.replace(OTHER, **change), home=east)  # type: ignore[arg-type] # the fields above
