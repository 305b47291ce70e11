"""What a person and the administrator do at the rig by themselves, past the front: look, wait, clear away."""

from __future__ import annotations

import time
from typing import Any
from uuid import UUID

import requests
from openstack.config import OpenStackConfig
from openstack.connection import Connection

from broker.remote import PartKind, ThingKind
from tests.peers.openstack.federation import CLOUDS

LENA = "leeway-lena"
SECONDS = 60.0
PAUSE = 0.2
# Of a volume and its snapshots; reserved is one whose machine found no host.
RESTING = {"available", "in-use", "reserved", "error", "error_deleting"}
WITHOUT_PORT = "2.37"  # Nova's microversion from which "networks": "none" is known


def connect(entry: str) -> Connection:
    """The SDK's, which asks no proxy."""
    connection = Connection(config=OpenStackConfig(config_files=[str(CLOUDS)], load_envvars=False).get_one(entry))
    connection.session.session = requests.Session()
    connection.session.session.trust_env = False
    return connection


class Hand:
    """Lena, whose project is hers alone, and the administrator."""

    def __init__(self) -> None:
        """Log in at the first request."""
        self.lena: Any = connect(LENA)
        self.admin: Any = connect("leeway-admin")
        self.rest = 0.0  # seconds to wait once the cloud is done
        self.lost = False  # whether the cloud may be making what nobody was told of
        self._quota_changed = False

    def close(self) -> None:
        """Close both."""
        self.lena.close()
        self.admin.close()

    # --- looking -------------------------------------------------------------------------------------------------

    def servers(self) -> list[Any]:
        """Every server of the project."""
        return list(self.lena.compute.servers())

    def disks(self) -> list[Any]:
        """Every volume and every snapshot of one."""
        return [*self.lena.block_storage.volumes(), *self.lena.block_storage.snapshots()]

    def images(self) -> list[Any]:
        """Every image that the project owns."""
        return list(self.lena.image.images(owner=self.lena.current_project_id, visibility="private"))

    def ports(self) -> list[Any]:
        """Every port that is not the network's own."""
        ports = self.lena.network.ports(project_id=self.lena.current_project_id)
        return [port for port in ports if not port.device_owner.startswith("network:")]

    def existing(self, kind: PartKind, lease: UUID) -> int:
        """How many parts of the kind carry the lease's name, by the cloud's own account."""
        texts = {
            PartKind.SERVER: lambda: [server.name for server in self.servers()],
            PartKind.PORT: lambda: [port.name for port in self.ports()],
            PartKind.ADDRESS: lambda: [address.description for address in self.lena.network.ips()],
            PartKind.KEY_PAIR: lambda: [pair.name for pair in self.lena.compute.keypairs()],
            PartKind.SNAPSHOT: lambda: [image.name for image in self.images()],
            PartKind.VOLUME: lambda: [volume.name for volume in self.lena.block_storage.volumes()],
        }[kind]()
        return sum(lease.hex in (text or "") for text in texts)

    def everything(self, kind: ThingKind) -> set[str]:
        """The ids of what the project has."""
        found = {
            ThingKind.SERVER: self.servers,
            ThingKind.ADDRESS: self.lena.network.ips,
            ThingKind.SNAPSHOT: self.images,
            ThingKind.VOLUME: self.lena.block_storage.volumes,
            ThingKind.VOLUME_SNAPSHOT: self.lena.block_storage.snapshots,
        }[kind]()
        return {thing.id for thing in found}

    def flavor(self, name: str) -> str:
        """Its id."""
        return str(self.lena.compute.find_flavor(name, ignore_missing=False).id)

    # --- waiting -------------------------------------------------------------------------------------------------

    def settle(self) -> None:
        """Wait until the cloud has done what it was asked for; what is being deleted is gone then."""
        limit = time.monotonic() + SECONDS
        while moving := self._moving():
            assert time.monotonic() < limit, f"still at work: {moving}"
            time.sleep(PAUSE)
        time.sleep(self.rest)

    def wait_for_address(self, server_id: str) -> None:
        """Wait until Nova knows of the floating IP that Neutron told it of."""
        limit = time.monotonic() + SECONDS
        while "floating" not in str(self.lena.compute.get_server(server_id).addresses):
            assert time.monotonic() < limit, "Nova shows no floating IP"
            time.sleep(PAUSE)

    def _moving(self) -> list[tuple[str, str, str]]:
        servers = [(one.id, one.status, one.task_state or "") for one in self.servers()]
        disks = [(one.id, one.status, "") for one in self.disks()]
        return [
            *(one for one in servers if one[1] in ("BUILD", "DELETED") or one[2]),
            *(one for one in disks if one[1] not in RESTING),
        ]

    # --- doing ---------------------------------------------------------------------------------------------------

    def add_servers(self, count: int) -> None:
        """Servers of nobody's lease, without a port; they run when this returns."""
        wanted = {
            "name": "stranger",
            "flavorRef": self.flavor("m1.tiny"),
            "imageRef": self.lena.image.find_image("cirros").id,
            "networks": "none",
            "min_count": count,
        }
        answer = self.lena.compute.post("/servers", json={"server": wanted}, microversion=WITHOUT_PORT)
        assert answer.status_code == 202, answer.text
        self.settle()

    def furnish(self) -> None:
        """One thing of each kind that is nobody's lease's: a volume, a snapshot of it, an image and an address."""
        volume = self.lena.block_storage.create_volume(name="data", size=1)
        self.settle()
        self.lena.block_storage.create_snapshot(volume_id=volume.id, name="backup")
        body = {"name": "own", "visibility": "private", "disk_format": "qcow2", "container_format": "bare"}
        assert self.lena.image.post("/images", json=body).status_code == 201
        self.lena.network.create_ip(floating_network_id=self.lena.network.find_network("public").id)
        self.settle()

    def allow_servers(self, number: int) -> None:
        """Set the project's quota; -1 is no limit."""
        path = f"/os-quota-sets/{self.lena.current_project_id}"
        answer = self.admin.compute.put(path, json={"quota_set": {"instances": number, "force": True}})
        assert answer.status_code == 200, answer.text
        self._quota_changed = number != -1

    def calm(self) -> None:
        """Take back what was told to the cloud."""
        if self._quota_changed:
            self.allow_servers(-1)

    def clear(self) -> None:
        """Delete everything that the project has, save its network."""
        self.calm()
        network, storage = self.lena.network, self.lena.block_storage
        for server in self.servers():
            self.lena.compute.delete_server(server)
        limit = time.monotonic() + SECONDS
        while self.servers():
            assert time.monotonic() < limit, "servers are still there"
            time.sleep(PAUSE)
        for address in network.ips():
            network.delete_ip(address)
        for port in self.ports():
            network.delete_port(port)
        for pair in self.lena.compute.keypairs():
            self.lena.compute.delete_keypair(pair)
        for image in self.images():
            self.lena.image.delete_image(image)
        self.settle()
        for snapshot in storage.snapshots():
            storage.delete_snapshot(snapshot)
        self.settle()
        for volume in storage.volumes():
            storage.delete_volume(volume)
        self.settle()
        user = self.lena.current_user_id
        for credential in self.lena.identity.application_credentials(user):
            self.lena.identity.delete_application_credential(user, credential)
