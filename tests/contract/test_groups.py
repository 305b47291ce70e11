"""The groups that a site's settings put every machine into. Clouds differ in what they have, so each has its own part.

OpenStack: security groups of Neutron, which open ports, and server groups of Nova, which keep machines apart.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest

from adapters.registry import Registry
from adapters.sandbox import SandboxCloud, profile, running
from adapters.sandbox.config import ServerFence, Timing
from broker.errors import SiteQuota, SiteRefused, SiteUnknown
from broker.ports import CloudAdapter
from broker.remote import MachineSpec, PartKind, Secret, SiteAddress
from tests.contract.sites import new_tags, soon
from tests.unit.sandbox.wire_client import Client

SERVER_GROUPS, SECURITY_GROUPS = "/compute/v2.1/os-server-groups", "/network/v2.0/security-groups"


@dataclass
class GroupSite:
    """A sandbox cloud; the client is somebody of the same project."""

    cloud: SandboxCloud
    client: Client
    open: Callable[..., CloudAdapter]

    def security_group(self, name: str) -> str:
        answer = self.client("POST", SECURITY_GROUPS, {"security_group": {"name": name}})
        return str(answer.json()["security_group"]["id"])

    def server_group(self, name: str, policy: str = "anti-affinity") -> str:
        body = {"server_group": {"name": name, "policies": [policy]}}
        answer = self.client("POST", SERVER_GROUPS, body, **{"OpenStack-API-Version": "compute 2.15"})
        return str(answer.json()["server_group"]["id"])

    def launch(self, adapter: CloudAdapter) -> str:
        """The id of a new machine."""
        offers = {offer.name: offer.remote_id for offer in adapter.offers(deadline=soon())}
        image = adapter.images(deadline=soon())[0].remote_id
        machine = MachineSpec(name="m", instance_type=offers["a1.small"], image=image)
        made: dict[PartKind, str] = {}
        tags = new_tags()
        for part in adapter.plan(machine):
            made[part.kind] = adapter.make(part.kind, machine, tags=tags, made=made, deadline=soon())
        return made[PartKind.SERVER]

    def groups_of(self, server: str) -> set[str]:
        """The security groups of a machine's only port."""
        (port,) = self.client.get(f"/network/v2.0/ports?device_id={server}")["ports"]
        return set(port["security_groups"])

    def members(self, group: str) -> list[str]:
        found: list[str] = self.client.get(f"{SERVER_GROUPS}/{group}")["server_group"]["members"]
        return found

    def made(self) -> set[str]:
        return self.cloud.log.alive("server") | self.cloud.log.alive("port")


@pytest.fixture(scope="module", params=[ServerFence.PART, ServerFence.NAME], ids=lambda fence: f"fence_{fence}")
def cloud(request: pytest.FixtureRequest) -> Iterator[SandboxCloud]:
    """One with ports that we make, and one where the site makes them."""
    config = replace(profile("aurora"), fence=request.param, timing=Timing(), foreign_servers=0)
    config = replace(config, foreign_volumes=0, foreign_volume_snapshots=0, foreign_addresses=0, foreign_images=0)
    with running(config) as cloud:
        yield cloud


@pytest.fixture
def site(cloud: SandboxCloud) -> Iterator[GroupSite]:
    """The cloud as just started."""
    cloud.reset()
    registry = Registry()

    def open_with(**settings: str) -> CloudAdapter:
        every = settings | {"fence": str(cloud.config.fence)}
        address = SiteAddress(uuid.uuid4(), "aurora", "sandbox", cloud.auth_url, "aurora-1", uuid.uuid4(), every)
        secret = Secret({"username": "leeway", "password": "sandbox", "project_name": "leeway"})
        return registry.open(address, secret)

    yield GroupSite(cloud, Client(cloud, user="leeway"), open_with)
    registry.close()


# --- security groups ---------------------------------------------------------------------------------------------


def test_machines_are_in_the_groups_that_the_setting_names(site: GroupSite) -> None:
    ssh, web = site.security_group("ssh"), site.security_group("web")
    assert site.groups_of(site.launch(site.open(security_groups=f"ssh, {web},ssh"))) == {ssh, web}


def test_without_the_setting_they_are_in_the_default_group(site: GroupSite) -> None:
    default = site.client.first(SECURITY_GROUPS, "security_groups", "default")
    assert site.groups_of(site.launch(site.open())) == {default}


def test_a_group_that_was_made_anew_is_the_one(site: GroupSite) -> None:
    former = site.security_group("ssh")
    adapter = site.open(security_groups="ssh")
    first = site.launch(adapter)
    assert site.groups_of(first) == {former}
    site.client("PUT", f"{SECURITY_GROUPS}/{former}", {"security_group": {"name": "old-ssh"}})
    latter = site.security_group("ssh")
    assert site.groups_of(site.launch(adapter)) == {latter}


def test_a_group_that_is_not_there_is_a_refusal_that_says_what_is(site: GroupSite) -> None:
    there = site.security_group("ssh")
    before = site.made()
    with pytest.raises(SiteRefused, match="no group 'shh'") as refused:
        site.launch(site.open(security_groups="ssh,shh"))
    assert refused.value.hint
    assert f"ssh ({there})" in refused.value.hint
    assert "security_groups" in refused.value.hint
    assert site.made() == before


def test_a_name_of_two_groups_is_a_refusal_that_tells_them_apart(site: GroupSite) -> None:
    both = {site.security_group("ssh"), site.security_group("ssh")}
    with pytest.raises(SiteRefused, match="2 groups are called 'ssh'") as refused:
        site.launch(site.open(security_groups="ssh"))
    assert refused.value.hint
    assert all(group in refused.value.hint for group in both)
    one = min(both)
    assert site.groups_of(site.launch(site.open(security_groups=one))) == {one}


def test_a_group_of_another_project_is_not_there(site: GroupSite) -> None:
    others: dict[str, Any] = Client(site.cloud, user="alice", project="physics").get(SECURITY_GROUPS)
    theirs = others["security_groups"][0]["id"]
    with pytest.raises(SiteRefused):
        site.launch(site.open(security_groups=theirs))


@pytest.mark.parametrize("fault", ["500", "foreign_json", "cut"])
def test_groups_that_cannot_be_read_are_no_empty_list(site: GroupSite, fault: str) -> None:
    site.security_group("ssh")
    adapter = site.open(security_groups="ssh")
    before = site.made()
    site.cloud.faults.add(fault, service="network", path="/security-groups$")
    with pytest.raises(SiteUnknown):
        site.launch(adapter)
    assert site.made() == before


# --- server groups -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by_id", [False, True], ids=["by_name", "by_id"])
def test_machines_are_in_the_server_group_and_apart(site: GroupSite, *, by_id: bool) -> None:
    group = site.server_group("apart", "soft-anti-affinity")
    adapter = site.open(server_group=group if by_id else "apart")
    servers = [site.launch(adapter) for _ in range(3)]
    assert sorted(site.members(group)) == sorted(servers)
    assert len({site.client.server(server)["hostId"] for server in servers}) == 3


def test_machines_of_one_group_are_together(site: GroupSite) -> None:
    site.server_group("near", "affinity")
    adapter = site.open(server_group="near")
    assert len({site.client.server(site.launch(adapter))["hostId"] for _ in range(3)}) == 1


def test_a_server_group_that_is_not_there_is_a_refusal_that_says_what_is(site: GroupSite) -> None:
    group = site.server_group("apart")
    with pytest.raises(SiteRefused, match="no group 'appart'") as refused:
        site.launch(site.open(server_group="appart"))
    assert refused.value.hint
    assert f"apart ({group})" in refused.value.hint
    assert not site.cloud.log.alive("server")


def test_a_full_server_group_is_a_quota(site: GroupSite) -> None:
    site.server_group("small")
    adapter = site.open(server_group="small")
    for _ in range(10):
        site.launch(adapter)
    with pytest.raises(SiteQuota):
        site.launch(adapter)
