"""What is done to a server of a real Nova, and what Nova itself counted of it."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import requests

from adapters.openstack.adapter import OpenStack
from adapters.registry import Registry
from broker.errors import SiteConflict, SiteDenied, SiteRefused
from broker.remote import MachineSpec, MachineState, PartKind, RemoteMachine, Secret
from broker.values import Period
from tests.peers.openstack.federation import PEER, SECONDS, address_and_secret
from tests.peers.openstack.test_adapter import launch, new_tags, remove, soon, spec, wait_for

pytestmark = PEER


@pytest.fixture(scope="module")
def alice() -> Iterator[OpenStack]:
    registry = Registry()
    adapter = registry.open(*address_and_secret("leeway-alice"))
    assert isinstance(adapter, OpenStack)
    yield adapter
    registry.close()


@pytest.fixture(scope="module")
def machine(alice: OpenStack) -> MachineSpec:
    return replace(spec(alice), name="Actions", public_address=False, ssh_key=None)


@pytest.fixture
def server(alice: OpenStack, machine: MachineSpec) -> Iterator[str]:
    """The id of a server that runs."""
    made = launch(alice, machine, new_tags())
    try:
        wait_for(alice, made[PartKind.SERVER], MachineState.RUNNING)
        yield made[PartKind.SERVER]
    finally:
        remove(alice, machine, made)


def until(adapter: OpenStack, server: str, status: str) -> RemoteMachine:
    """Look until Nova shows the status."""
    limit = time.monotonic() + SECONDS
    while True:
        seen = adapter.look(PartKind.SERVER, server, deadline=soon())
        assert isinstance(seen, RemoteMachine)
        if seen.raw_status == status:
            return seen
        assert time.monotonic() < limit, f"still {seen.raw_status} after {SECONDS:.0f} s"
        time.sleep(0.5)


def confirm(adapter: OpenStack, server: str) -> None:
    limit = time.monotonic() + SECONDS
    while not adapter.confirm_resize(server, deadline=soon()):
        assert time.monotonic() < limit, f"not confirmed after {SECONDS:.0f} s"
        time.sleep(0.5)


def flavors(adapter: OpenStack) -> dict[str, str]:
    return {offer.name: offer.remote_id for offer in adapter.offers(deadline=soon())}


def test_suspended_and_resumed_twice_and_started_out_of_it(alice: OpenStack, server: str) -> None:
    alice.suspend(server, deadline=soon())
    alice.suspend(server, deadline=soon())
    assert until(alice, server, "SUSPENDED").state is MachineState.STOPPED
    alice.suspend(server, deadline=soon())
    with pytest.raises(SiteConflict):
        alice.resize(server, flavors(alice)["m1.small"], deadline=soon())
    alice.resume(server, deadline=soon())
    alice.resume(server, deadline=soon())
    until(alice, server, "ACTIVE")
    alice.suspend(server, deadline=soon())
    until(alice, server, "SUSPENDED")
    alice.start(server, deadline=soon())
    until(alice, server, "ACTIVE")
    alice.stop(server, deadline=soon())
    until(alice, server, "SHUTOFF")
    for change in (alice.suspend, alice.resume):
        with pytest.raises(SiteConflict):
            change(server, deadline=soon())


def test_resized_reverted_and_resized_for_good(alice: OpenStack, machine: MachineSpec, server: str) -> None:
    small = flavors(alice)["m1.small"]
    assert alice.confirm_resize(server, deadline=soon())
    alice.resize(server, machine.instance_type, deadline=soon())
    for _ in range(2):
        alice.resize(server, small, deadline=soon())
    assert until(alice, server, "VERIFY_RESIZE").instance_type == small
    alice.resize(server, small, deadline=soon())
    with pytest.raises(SiteConflict):
        alice.resize(server, machine.instance_type, deadline=soon())
    for _ in range(2):
        alice.revert_resize(server, deadline=soon())
    until(alice, server, "ACTIVE")
    alice.revert_resize(server, deadline=soon())
    assert alice.confirm_resize(server, deadline=soon())

    alice.resize(server, small, deadline=soon())
    until(alice, server, "VERIFY_RESIZE")
    for _ in range(2):  # Nova says 400 to the second, while it confirms
        alice.confirm_resize(server, deadline=soon())
    confirm(alice, server)
    assert until(alice, server, "ACTIVE").instance_type == small
    with pytest.raises(SiteConflict):
        alice.revert_resize(server, deadline=soon())


def test_a_resize_without_a_host_is_accepted_and_told_by_its_confirmation(
    alice: OpenStack, machine: MachineSpec, server: str
) -> None:
    alice.resize(server, flavors(alice)["x1.nowhere"], deadline=soon())
    with pytest.raises(SiteRefused, match="failed"):
        confirm(alice, server)
    seen = until(alice, server, "ACTIVE")
    assert (seen.instance_type, seen.fault) == (machine.instance_type, None), "Nova itself does not say it"
    alice.revert_resize(server, deadline=soon())


def test_rebuilt_it_keeps_all_but_its_disk(alice: OpenStack, machine: MachineSpec, server: str) -> None:
    before = until(alice, server, "ACTIVE")
    alice.rebuild(server, machine.image, deadline=soon())
    alice.rebuild(server, machine.image, deadline=soon())
    after = until(alice, server, "ACTIVE")
    assert replace(after, launched_at=before.launched_at) == before
    for image in (str(uuid.uuid4()), "none"):
        with pytest.raises(SiteRefused):
            alice.rebuild(server, image, deadline=soon())


def test_what_is_not_there_is_refused(alice: OpenStack, machine: MachineSpec) -> None:
    unknown = str(uuid.uuid4())
    for change in (
        lambda: alice.suspend(unknown, deadline=soon()),
        lambda: alice.resize(unknown, machine.instance_type, deadline=soon()),
        lambda: alice.confirm_resize(unknown, deadline=soon()),
        lambda: alice.revert_resize(unknown, deadline=soon()),
        lambda: alice.rebuild(unknown, machine.image, deadline=soon()),
    ):
        with pytest.raises(SiteRefused, match=unknown):
            change()


def test_novas_own_account_has_the_living_and_the_dead(alice: OpenStack, machine: MachineSpec) -> None:
    begun = datetime.now(UTC) - timedelta(minutes=5)
    today = Period(begun, datetime.now(UTC) + timedelta(hours=1))
    made = launch(alice, machine, new_tags())
    try:
        running = wait_for(alice, made[PartKind.SERVER], MachineState.RUNNING)
        time.sleep(1)  # its database rounds to whole seconds, so that what began now may begin half a second from now
        row = next(row for row in alice.usage(today, deadline=soon()) if row.remote_id == made[PartKind.SERVER])
        assert (row.name, row.instance_type, row.raw_status) == (running.name, "m1.tiny", "active")
        assert (row.cores, row.memory_mib, row.disk_gib) == (1, 512, 1)
        assert (row.started_at, row.ended_at) == (running.launched_at, None)
        assert row.hours >= 0
    finally:
        remove(alice, machine, made)
    row = next(row for row in alice.usage(today, deadline=soon()) if row.remote_id == made[PartKind.SERVER])
    assert row.raw_status == "terminated"
    assert row.ended_at is not None
    long_ago = Period(begun - timedelta(days=3650), begun - timedelta(days=3649))
    assert alice.usage(long_ago, deadline=soon()) == []
    to_come = Period(begun + timedelta(days=3650), begun + timedelta(days=3651))
    assert alice.usage(to_come, deadline=soon()) == []


def test_a_token_opens_another_project_and_one_that_is_none_says_so(alice: OpenStack) -> None:
    address, secret = address_and_secret("leeway-alice")
    user = {"name": secret["username"], "password": secret["password"], "domain": {"name": "Default"}}
    auth = {"identity": {"methods": ["password"], "password": {"user": user}}, "scope": "unscoped"}
    login = requests.post(
        f"{address.endpoint.removesuffix('/v3')}/v3/auth/tokens", json={"auth": auth}, timeout=SECONDS
    )
    registry = Registry()

    def scope(token: str) -> str:
        fields = {"token": token, "project_name": "genomes"}
        return registry.open(address, Secret(fields)).scope(deadline=soon())

    try:
        assert scope(login.headers["X-Subject-Token"]) != alice.scope(deadline=soon())
        for unknown in ("garbage", f"{login.headers['X-Subject-Token'][:-8]}AAAAAAAA"):
            with pytest.raises(SiteDenied, match="give the site a new one"):
                scope(unknown)
    finally:
        registry.close()
