"""Leeway's core on the rig: a real database, the real adapter, a project with a grant, and the cloud's own word."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import yaml
from openstack.config import OpenStackConfig
from openstack.connection import Connection
from sqlalchemy.orm import Session, sessionmaker

from adapters.registry import Registry
from adapters.sandbox.profiles import aurora
from broker import ratecards
from broker.catalogue import import_rate_card
from broker.database import database_now
from broker.meters import VOLUME_SKU
from broker.models.leases import Lease
from broker.models.workloads import Order
from broker.remote import Secret, SiteAddress
from broker.sites import Doors, NewSite, add_site
from broker.tools import Timing
from tests.world import RATES, World, make_world, quick
from web.identity.vault import SealedVault

HOME = Path(os.environ.get("LEEWAY_PEERS_HOME") or "/var/lib/leeway-peers") / "openstack"
CLOUDS = HOME / "clouds.yaml"
# The marks of every test against it.
PEER = [
    pytest.mark.peer,
    pytest.mark.skipif(
        not CLOUDS.exists(),
        reason=f"NO REAL OPENSTACK: {CLOUDS} does not exist; start it as root with tests/peers/openstack/up",
    ),
    pytest.mark.filterwarnings("ignore::openstack.warnings.RemovedInSDK50Warning"),  # of the SDK to itself
    pytest.mark.filterwarnings("ignore::openstack.warnings.RemovedInSDK60Warning"),
]
SECONDS = 180.0  # a busy machine takes a minute for what takes three seconds on an idle one
PAUSE = 0.4
SITE = "real"
PUBLIC_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEqMzsk6JNBVqz0LBgtBtAv2YfGrV7sQRuFI5MI2Xgtw alice@laptop"
DOCUMENT: dict[str, Any] = {
    "resources": {"cores": 1, "memory": "512 MiB"},
    "image": "cirros-0.6",
    "ssh_key": PUBLIC_KEY,  # Nova takes real keys only
}
TIMING = Timing(
    call=timedelta(seconds=60),
    claim=timedelta(seconds=150),
    first_look=timedelta(milliseconds=100),
    last_look=timedelta(seconds=1),
    # Nova's API shows a server before it answers the request for it.
    settle=timedelta(seconds=1),
)


def address_and_secret(entry: str) -> tuple[SiteAddress, Secret]:
    """A site as an entry of clouds.yaml describes it."""
    cloud: dict[str, Any] = yaml.safe_load(CLOUDS.read_text(encoding="utf-8"))["clouds"][entry]
    fields = {name: value for name, value in cloud["auth"].items() if name != "auth_url"}
    endpoint = cloud["auth"]["auth_url"]
    address = SiteAddress(uuid.uuid4(), entry, "openstack", endpoint, cloud["region_name"], uuid.uuid4(), {})
    return address, Secret(fields)


@contextmanager
def federation(sessions: sessionmaker[Session]) -> Iterator[World]:
    """A federation without a site yet; project `climate` has a grant."""
    registry = Registry()
    doors = Doors(sessions, registry, SealedVault(b"k" * 32), uuid.uuid4())
    try:
        # The sandbox is not connected; a world has one.
        with make_world(sessions, quick(aurora()), doors=doors) as world:
            world.tools = replace(world.tools, timing=TIMING)
            yield world
    finally:
        registry.close()


def connect(world: World, *, prices: dict[str, str], fields: dict[str, str] | None = None) -> UUID:
    """Add the rig as a site with alice's credential (some fields changed), or replace it; list it once."""
    address, secret = address_and_secret("leeway-alice")
    new = NewSite(
        name=SITE,
        provider=SITE,
        adapter="openstack",
        endpoint=address.endpoint,
        region=address.region,
        secret=Secret({**secret.reveal(), **(fields or {})}),
        jurisdiction="EE",
        observe_only=False,
    )
    card = RATES.format(provider=SITE) + "".join(
        f"  {sku}: {{unit: {'GiB-hour' if sku == VOLUME_SKU else 'hour'}, unit_price: '{price}'}}\n"
        for sku, price in prices.items()
    )
    with world.sessions.begin() as session:
        site_id = add_site(session, new, world.doors, jobs=world.jobs, actor="tests").id
        if prices:
            import_rate_card(session, ratecards.parse(card), now=database_now(session))
    return site_id


def ordered(world: World, **changes: Any) -> tuple[Order, UUID]:
    """An order of one machine, and its lease."""
    order = world.order(**(DOCUMENT | changes))
    (lease_id,) = world.leases(order)
    return order, lease_id


def until(world: World, lease_id: UUID, met: Callable[[Lease], bool]) -> Lease:
    """Pass over a lease until a condition holds; fails with what is known of it."""
    limit = time.monotonic() + SECONDS
    while True:
        lease = world.work(lease_id).lease
        if met(lease):
            return lease
        if time.monotonic() > limit:
            tries = [(attempt.outcome, attempt.remote_id, attempt.error) for attempt in lease.attempts]
            raise AssertionError(f"{lease.state} {lease.desired} {lease.stop_reason} {lease.trouble} {tries}")
        time.sleep(PAUSE)


# --- the cloud's own word ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Life:
    """One server from its making to its end. `launched_at` is None for one that never ran."""

    remote_id: str
    flavor: str
    status: str
    created_at: datetime
    launched_at: datetime | None
    ended_at: datetime | None


class Cloud:
    """What the services say, through a client that nobody here wrote."""

    def __init__(self) -> None:
        """Log in as a member, and as the administrator, who also sees the servers that are gone."""
        self.alice = _connection("leeway-alice")
        self.admin = _connection("leeway-admin")

    def close(self) -> None:
        """Close both."""
        self.alice.close()
        self.admin.close()

    def lives(self, lease_id: UUID) -> list[Life]:
        """Every server that was ever made for a lease, in the order of their making."""
        found: dict[str, Life] = {}
        for is_deleted in ("false", "true"):
            query = {"all_tenants": "true", "deleted": is_deleted, "name": lease_id.hex}
            answer = self.admin.compute.get("/servers/detail", params=query)
            answer.raise_for_status()
            found.update({server["id"]: _life(server) for server in answer.json()["servers"]})
        return sorted(found.values(), key=lambda life: life.created_at)

    def left(self, lease_id: UUID) -> set[tuple[str, str]]:
        """Kind and id of everything at the cloud that carries the lease's name or tags."""
        name = lease_id.hex
        return {
            *(("server", server.id) for server in self.alice.compute.servers() if name in server.name),
            *(("port", port.id) for port in self.alice.network.ports() if name in port.name),
            *(("address", address.id) for address in self.alice.network.ips() if name in (address.description or "")),
            *(("key pair", pair.name) for pair in self.alice.compute.keypairs() if name in pair.name),
            *(("volume", volume.id) for volume in self.alice.block_storage.volumes() if name in volume.name),
        }

    def disks(self, server_id: str) -> dict[str, int]:
        """GiB of each volume that a server has."""
        return {
            volume.id: volume.size
            for volume in self.alice.block_storage.volumes()
            if any(attachment["server_id"] == server_id for attachment in volume.attachments)
        }

    def volumes(self) -> set[str]:
        """Every volume of the project."""
        return {volume.id for volume in self.alice.block_storage.volumes()}

    def clear(self, lease_id: UUID) -> None:
        """Delete what a failed test left."""
        # A server first: it has the others.
        for kind, remote_id in sorted(self.left(lease_id), key=lambda one: one[0] != "server"):
            if kind == "server":
                server = self.alice.compute.get_server(remote_id)
                self.alice.compute.delete_server(server)
                self.alice.compute.wait_for_delete(server, wait=int(SECONDS))
            elif kind == "port":
                self.alice.network.delete_port(remote_id)
            elif kind == "volume":
                self.alice.block_storage.delete_volume(remote_id)
            elif kind == "address":
                self.alice.network.delete_ip(remote_id)
            else:
                self.alice.compute.delete_keypair(remote_id)


def _connection(entry: str) -> Connection:
    config = OpenStackConfig(config_files=[str(CLOUDS)], load_envvars=False)
    return Connection(config=config.get_one(entry))


def _life(server: dict[str, Any]) -> Life:
    def moment(name: str) -> datetime | None:
        text = server.get(name)
        return datetime.fromisoformat(text).replace(tzinfo=UTC) if text else None

    return Life(
        server["id"],
        server["flavor"]["id"],
        server["status"],
        datetime.fromisoformat(server["created"]),
        moment("OS-SRV-USG:launched_at"),
        moment("OS-SRV-USG:terminated_at"),
    )
