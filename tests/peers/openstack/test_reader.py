"""Who has the role reader alone, by password or by an application credential: sees everything, changes nothing.

The refusals are those of Keystone, Nova, Neutron, Cinder and Glance themselves. Two things are the user's own, whatever
the role: key pairs, and application credentials with no more roles than the user has.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from openstack.config import OpenStackConfig
from openstack.connection import Connection

from adapters.cloud import Bulkhead
from adapters.openstack.adapter import OpenStack
from broker.errors import SiteDenied
from broker.remote import MachineSpec, MachineState, PartKind, Tags, ThingKind
from tests.peers.openstack.federation import CLOUDS, PUBLIC_KEY, SECONDS, address_and_secret
from tests.peers.openstack.test_adapter import (
    Open,
    launch,
    new_tags,
    open_as,
    pytestmark,
    remove,
    soon,
    spec,
    wait_for,
)
from tests.peers.openstack.wire import Wire, wire

__all__ = ["open_as", "pytestmark"]  # fixtures and marks, not names of this file

TEMPLATES = Path(__file__).parent / "templates"
ELSE = "c1.shares"  # another flavor than the machine's
WAIT: dict[str, Any] = {"interval": 1, "wait": int(SECONDS)}


def connect(entry: str) -> Connection:
    config = OpenStackConfig(config_files=[str(CLOUDS)], load_envvars=False)
    return Connection(config=config.get_one(entry))


@pytest.fixture(scope="module")
def rita() -> Iterator[Connection]:
    connection = connect("leeway-rita")
    yield connection
    connection.close()


@pytest.fixture(scope="module", params=["password", "application credential"])
def fields(request: pytest.FixtureRequest, rita: Connection) -> Iterator[dict[str, str]]:
    """What rita logs in with, beside her entry of clouds.yaml."""
    if request.param == "password":
        yield {}
        return
    path = f"/users/{rita.current_user_id}/application_credentials"
    wanted = {"name": f"reader-{uuid.uuid4().hex[:8]}", "roles": [{"name": "reader"}]}
    made = rita.identity.post(path, json={"application_credential": wanted}).json()["application_credential"]
    assert [role["name"] for role in made["roles"]] == ["reader"]
    yield {"application_credential_id": made["id"], "application_credential_secret": made["secret"]}
    assert rita.identity.delete(f"{path}/{made['id']}").status_code == 204


@pytest.fixture
def reader(open_as: Open, fields: dict[str, str]) -> OpenStack:
    """Circumvents Leeway's own guard: a site that is brokered, so that every request is sent."""
    return open_as("leeway-rita", fields=fields)


@pytest.fixture
def observing(open_as: Open, fields: dict[str, str]) -> OpenStack:
    return open_as("leeway-rita", fields=fields, observe_only=True)


@pytest.fixture
def raw(fields: dict[str, str], rita: Connection) -> Iterator[Connection]:
    """The same login without the adapter."""
    if not fields:
        yield rita
        return
    address, _ = address_and_secret("leeway-rita")
    auth = {"auth_url": address.endpoint, **fields}
    config = OpenStackConfig(config_files=[], load_envvars=False)
    connection = Connection(
        config=config.get_one(auth_type="v3applicationcredential", auth=auth, region_name=address.region)
    )
    yield connection
    connection.close()


class Alices:
    """One of everything, which alice makes, and which is still there as it was at the end."""

    def __init__(self, adapter: OpenStack, by_hand: Connection) -> None:
        self.adapter, self.by_hand = adapter, by_hand
        self.storage: Any = by_hand.block_storage
        self.machine: MachineSpec = replace(spec(adapter), volume_gib=1)
        self.tags: Tags = new_tags()
        self.made: dict[PartKind, str] = {}
        self.loose: Any = None
        self.backup: Any = None
        self.group: Any = None
        self.servers: Any = None

    def prepare(self, tags: Tags) -> dict[PartKind, str]:
        """Everything that a server is made with."""
        made = launch(self.adapter, self.machine, tags, until=PartKind.SERVER)
        volume = self.storage.get_volume(made[PartKind.VOLUME])
        self.storage.wait_for_status(volume, "available", **WAIT)
        return made

    def make(self) -> None:
        self.group = self.by_hand.network.create_security_group(name=f"reader-{uuid.uuid4().hex[:8]}")
        self.servers = self.by_hand.compute.create_server_group(name="reader", policies=["affinity"])
        self.loose = self.storage.create_volume(name="reader-loose", size=1)
        self.storage.wait_for_status(self.loose, "available", **WAIT)
        self.backup = self.storage.create_snapshot(volume_id=self.loose.id, name="reader-backup")
        self.storage.wait_for_status(self.backup, "available", **WAIT)
        self.made |= self.prepare(self.tags)
        for kind in (PartKind.SERVER, PartKind.ADDRESS, PartKind.SNAPSHOT):
            made = self.adapter.make(kind, self.machine, tags=self.tags, made=self.made, deadline=soon())
            self.made[kind] = made
            wait_for(self.adapter, self.made[PartKind.SERVER], MachineState.RUNNING)

    def clear(self) -> None:
        if PartKind.SNAPSHOT in self.made:
            self.adapter.delete(PartKind.SNAPSHOT, self.made.pop(PartKind.SNAPSHOT), deadline=soon())
        remove(self.adapter, self.machine, self.made)
        if self.backup is not None:
            self.storage.delete_snapshot(self.backup)
            self.storage.wait_for_delete(self.backup, **WAIT)
        if self.loose is not None:
            self.storage.delete_volume(self.loose)
        if self.servers is not None:
            self.by_hand.compute.delete_server_group(self.servers)
        if self.group is not None:
            self.by_hand.network.delete_security_group(self.group)


@pytest.fixture(scope="module")
def alices() -> Iterator[Alices]:
    by_hand = connect("leeway-alice")
    address, secret = address_and_secret("leeway-alice")
    adapter = OpenStack(address, secret, Bulkhead("alice"))
    made = Alices(adapter, by_hand)
    try:
        made.make()
        yield made
    finally:
        made.clear()
        adapter.close()
        by_hand.close()


# --- what the adapter sends --------------------------------------------------------------------------------------


def test_the_services_run_with_the_new_role_defaults() -> None:
    """What follows shows that they do; here is where it is said, for who runs it elsewhere."""
    for name in ("shared.conf", "neutron.conf"):
        assert "enforce_new_defaults = true" in (TEMPLATES / name).read_text(encoding="utf-8")


def test_a_reader_makes_no_part(reader: OpenStack, alices: Alices) -> None:
    tags = new_tags()
    ready = alices.prepare(ready_tags := new_tags())
    try:
        for kind in (PartKind.PORT, PartKind.VOLUME, PartKind.SERVER, PartKind.ADDRESS, PartKind.SNAPSHOT):
            made = ready | {PartKind.SERVER: alices.made[PartKind.SERVER]}
            with pytest.raises(SiteDenied) as refused:
                reader.make(kind, alices.machine, tags=tags, made=made, deadline=soon())
            assert refused.value.http_status == 403, kind
    finally:
        remove(alices.adapter, alices.machine, ready)
    after = alices.adapter.listing(deadline=soon())
    assert not [part for part in (*after.parts, *after.machines) if part.tags in (tags, ready_tags)]


def test_a_reader_deletes_no_part(reader: OpenStack, alices: Alices) -> None:
    kinds = set(alices.made) - {PartKind.KEY_PAIR}
    assert kinds == {PartKind.PORT, PartKind.VOLUME, PartKind.SERVER, PartKind.ADDRESS, PartKind.SNAPSHOT}
    for kind in kinds:
        with pytest.raises(SiteDenied) as refused:
            reader.delete(kind, alices.made[kind], deadline=soon())
        assert refused.value.http_status == 403, kind
        assert alices.adapter.look(kind, alices.made[kind], deadline=soon()) is not None
    # Alice's key pair is not there for anybody else; deleting it again is what deletes nothing.
    reader.delete(PartKind.KEY_PAIR, alices.made[PartKind.KEY_PAIR], deadline=soon())
    assert alices.adapter.look(PartKind.KEY_PAIR, alices.made[PartKind.KEY_PAIR], deadline=soon()) is not None


def test_a_reader_does_nothing_with_a_machine(reader: OpenStack, alices: Alices) -> None:
    server, image = alices.made[PartKind.SERVER], alices.machine.image
    flavor = next(offer.remote_id for offer in reader.offers(deadline=soon()) if offer.name == ELSE)
    actions: list[Callable[..., object]] = [
        partial(action, server)
        for action in (reader.stop, reader.start, reader.shelve, reader.unshelve, reader.suspend, reader.resume)
    ]
    actions += [partial(reader.resize, server, flavor), partial(reader.rebuild, server, image)]
    actions += [partial(reader.attach, server, alices.loose.id)]
    actions += [partial(reader.detach, server, alices.made[PartKind.VOLUME])]
    for action in actions:
        with pytest.raises(SiteDenied) as refused:
            action(deadline=soon())
        assert refused.value.http_status == 403, action
    seen = wait_for(alices.adapter, server, MachineState.RUNNING)
    assert seen.instance_type == alices.machine.instance_type


# --- what anybody could send -------------------------------------------------------------------------------------


def test_each_service_refuses_each_change(raw: Connection, alices: Alices) -> None:
    """Also those that the adapter has no need of today."""
    server, made = f"/servers/{alices.made[PartKind.SERVER]}", alices.made
    outside = raw.network.find_network("public", ignore_missing=False).id
    nova = [("POST", f"{server}/action", {name: None}) for name in ("confirmResize", "revertResize", "forceDelete")]
    nova += [("POST", f"{server}/action", {name: None}) for name in ("pause", "unpause", "lock", "unlock")]
    nova += [
        ("POST", f"{server}/action", {"reboot": {"type": "SOFT"}}),
        ("PUT", server, {"server": {"name": "mine"}}),
        ("POST", f"{server}/metadata", {"metadata": {"leeway:lease": "mine"}}),
        ("POST", f"{server}/os-interface", {"interfaceAttachment": {"port_id": made[PartKind.PORT]}}),
        ("DELETE", f"{server}/os-interface/{made[PartKind.PORT]}", None),
        ("POST", "/os-server-groups", {"server_group": {"name": "mine", "policies": ["affinity"]}}),
        ("DELETE", f"/os-server-groups/{alices.servers.id}", None),
    ]
    rule = {"security_group_id": alices.group.id, "direction": "ingress", "protocol": "tcp"}
    neutron = [
        ("PUT", f"/ports/{made[PartKind.PORT]}", {"port": {"name": "mine"}}),
        ("PUT", f"/floatingips/{made[PartKind.ADDRESS]}", {"floatingip": {"port_id": None}}),
        ("POST", "/floatingips", {"floatingip": {"floating_network_id": outside}}),
        ("POST", "/security-groups", {"security_group": {"name": "mine"}}),
        ("PUT", f"/security-groups/{alices.group.id}", {"security_group": {"name": "mine"}}),
        ("DELETE", f"/security-groups/{alices.group.id}", None),
        ("POST", "/security-group-rules", {"security_group_rule": rule}),
        ("DELETE", f"/security-group-rules/{alices.group.security_group_rules[0]['id']}", None),
        ("POST", "/networks", {"network": {"name": "mine"}}),
        ("POST", "/routers", {"router": {"name": "mine"}}),
    ]
    loose, backup = f"/volumes/{alices.loose.id}", f"/snapshots/{alices.backup.id}"
    cinder = [
        ("PUT", loose, {"volume": {"name": "mine"}}),
        ("DELETE", loose, None),
        ("POST", f"{loose}/metadata", {"metadata": {"leeway:lease": "mine"}}),
        ("POST", f"{loose}/action", {"os-extend": {"new_size": 2}}),
        ("POST", "/snapshots", {"snapshot": {"volume_id": alices.loose.id, "name": "mine"}}),
        ("DELETE", backup, None),
    ]
    glance = [("POST", "/images", {"name": "mine"})]
    keystone = [("POST", "/projects", {"project": {"name": "mine"}})]
    for service, changes in (
        (raw.compute, nova),
        (raw.network, neutron),
        (raw.block_storage, cinder),
        (raw.image, glance),
        (raw.identity, keystone),
    ):
        for method, path, body in changes:
            answer = service.request(path, method, json=body, raise_exc=False)
            assert answer.status_code == 403, (method, path, body, answer.text)


def test_neutron_lets_a_reader_change_what_leeway_never_sends(raw: Connection) -> None:
    """The owner's rules of Zed ask for the project alone: subnets, tags and address groups. The guide says so."""
    made = raw.network.post("/address-groups", json={"address_group": {"name": "reader", "addresses": []}})
    assert made.status_code == 201, "a newer Neutron refuses it: then the guide is out of date"
    path = f"/address-groups/{made.json()['address_group']['id']}"
    assert raw.network.delete(path).status_code == 204


def test_key_pairs_are_the_users_own(reader: OpenStack, alices: Alices) -> None:
    tags = new_tags()
    machine = replace(alices.machine, ssh_key=PUBLIC_KEY)
    name = reader.make(PartKind.KEY_PAIR, machine, tags=tags, made={}, deadline=soon())
    assert alices.adapter.look(PartKind.KEY_PAIR, name, deadline=soon()) is None
    reader.delete(PartKind.KEY_PAIR, name, deadline=soon())
    assert reader.look(PartKind.KEY_PAIR, name, deadline=soon()) is None


def test_a_reader_hands_on_no_role_that_she_has_not(rita: Connection) -> None:
    path = f"/users/{rita.current_user_id}/application_credentials"
    wanted = {"name": f"more-{uuid.uuid4().hex[:8]}", "roles": [{"name": "member"}]}
    answer = rita.identity.post(path, json={"application_credential": wanted})
    assert (answer.status_code, "unassigned role" in answer.text) == (400, True)


def test_who_may_write_and_not_read_is_told_so(open_as: Open) -> None:
    """An application credential has no role that it was not made with, though a user who is a member reads."""
    alice = connect("leeway-alice")
    path = f"/users/{alice.current_user_id}/application_credentials"
    wanted = {"name": f"member-{uuid.uuid4().hex[:8]}", "roles": [{"name": "member"}]}
    made = alice.identity.post(path, json={"application_credential": wanted}).json()["application_credential"]
    try:
        fields = {"application_credential_id": made["id"], "application_credential_secret": made["secret"]}
        adapter = open_as("leeway-alice", fields=fields)
        steps = {step.step: step for step in adapter.check(deadline=soon())}
        assert {"images", "quotas", "machines", "volumes"} <= {step.step for step in steps.values() if not step.ok}
        assert "`--role member --role reader`" in (steps["machines"].hint or "")
        with pytest.raises(SiteDenied):
            adapter.listing(deadline=soon())
    finally:
        assert alice.identity.delete(f"{path}/{made['id']}").status_code == 204
        alice.close()


# --- an observed site --------------------------------------------------------------------------------------------


@pytest.fixture
def line(monkeypatch: pytest.MonkeyPatch) -> Iterator[Wire]:
    """Every request of the test goes through it."""
    for name in ("no_proxy", "NO_PROXY", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with wire() as made:
        monkeypatch.setenv("http_proxy", made.url)
        yield made


def test_an_observed_site_has_all_it_needs_and_only_looks(observing: OpenStack, alices: Alices, line: Wire) -> None:
    listing = observing.listing(deadline=soon())
    project = alices.by_hand.current_project_id
    assert not listing.unread
    machine = next(one for one in listing.machines if one.remote_id == alices.made[PartKind.SERVER])
    assert (machine.project, machine.tags) == (project, alices.tags)
    things = {thing.remote_id: thing for thing in listing.things}
    for kind, remote_id in (
        (ThingKind.VOLUME, alices.loose.id),
        (ThingKind.VOLUME_SNAPSHOT, alices.backup.id),
        (ThingKind.VOLUME, alices.made[PartKind.VOLUME]),
        (ThingKind.ADDRESS, alices.made[PartKind.ADDRESS]),
        (ThingKind.SNAPSHOT, alices.made[PartKind.SNAPSHOT]),
    ):
        assert (things[remote_id].kind, things[remote_id].project) == (kind, project)
    resources = {quota.resource for quota in observing.quotas(deadline=soon())}
    assert {"instances", "cores", "memory_mib", "floating_ips", "ports", "volumes", "volume_gib"} <= resources
    assert observing.offers(deadline=soon())
    assert observing.images(deadline=soon())
    assert [step for step in observing.check(deadline=soon()) if not step.ok] == []
    for kind, remote_id in alices.made.items():
        if kind is not PartKind.KEY_PAIR:
            assert observing.look(kind, remote_id, deadline=soon()) is not None
    for act in (observing.stop, observing.shelve, observing.suspend):
        with pytest.raises(SiteDenied, match="only observes"):
            act(alices.made[PartKind.SERVER], deadline=soon())
    for kind, remote_id in alices.made.items():
        with pytest.raises(SiteDenied, match="only observes"):
            observing.delete(kind, remote_id, deadline=soon())
    sent = {(method, path) for method, path in line.seen if method != "GET"}
    assert sent == {("POST", "/v3/auth/tokens")}
    assert len(line.seen) > 20
