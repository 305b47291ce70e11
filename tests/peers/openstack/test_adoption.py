"""Adoption on a real OpenStack, by the commands and with a reader's credential: found, charged, gone, and given up."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest
from openstack.config import OpenStackConfig
from openstack.connection import Connection

from tests.peers.openstack import test_tour
from tests.peers.openstack.test_tour import CLOUD, CLOUDS, Commands

pytestmark = test_tour.pytestmark
leeway = test_tour.leeway

PRICES = """
kind: rate-card
name: home
provider: home
currency: EUR
valid_from: 2020-01-01T00:00:00Z
bills: openstack
prices:
  m1.tiny: {unit: hour, unit_price: '3.60'}
  volume-storage: {unit: GiB-hour, unit_price: '0.36'}
  public-address: {unit: hour, unit_price: '0.72'}
"""


@pytest.fixture
def settings() -> dict[str, str]:
    """All of it is read each time: a deletion is then missed by two listings within seconds."""
    return {"LEEWAY_FULL_LISTING_INTERVAL": "0"}


@pytest.fixture
def made() -> Iterator[dict[str, Any]]:
    """A machine, a volume and an address that a person made in the project; deleted afterwards."""
    alice = Connection(config=OpenStackConfig(config_files=[str(CLOUDS)], load_envvars=False).get_one(CLOUD))
    name = f"by-hand-{uuid4().hex[:8]}"
    image = next(image for image in alice.image.images() if image.name.startswith("cirros"))
    flavor = next(flavor for flavor in alice.compute.flavors() if flavor.name == "m1.tiny")
    server = alice.compute.create_server(name=name, image_id=image.id, flavor_id=flavor.id, networks="none")
    volume = alice.block_storage.create_volume(name=f"{name}-data", size=2)
    outside = alice.network.find_network("public")
    address = alice.network.create_ip(floating_network_id=outside.id)
    try:
        alice.compute.wait_for_server(server, wait=180)
        yield {"alice": alice, "name": name, "server": server, "volume": volume, "address": address}
    finally:
        alice.compute.delete_server(server, ignore_missing=True)
        alice.block_storage.wait_for_status(volume, "available", wait=60)
        alice.block_storage.delete_volume(volume, ignore_missing=True)
        alice.network.delete_ip(address, ignore_missing=True)
        alice.close()


def until(met: Callable[[], bool], *, seconds: float = 150) -> None:
    deadline = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < deadline
        time.sleep(1)


def test_what_people_made_is_charged_to_a_project_by_a_reader(leeway: Commands, made: dict[str, Any]) -> None:
    alice, name = made["alice"], made["name"]
    leeway("site", "add", "real", "--provider", "home", "--from-clouds-yaml", str(CLOUDS), "--cloud", "leeway-rita")
    leeway("project", "add", "climate", "--institution", "home")
    leeway("grant", "add", "first", "--project", "climate", "--amount", "1000 EUR", "--until", "2099-01-01")
    leeway("rate-card", "import", leeway.file("prices.yaml", PRICES))

    found = {thing["remote_id"]: thing for thing in leeway.json("inventory", "real", "--owner", made["server"].user_id)}
    assert found[made["server"].id]["per_hour"] == {"value": "3.6", "commodity": "EUR"}
    assert found[made["volume"].id]["per_hour"] == {"value": "0.72", "commodity": "EUR"}
    addresses = {thing["remote_id"]: thing for thing in leeway.json("inventory", "real", "--kind", "address")}
    assert addresses[made["address"].id]["per_hour"] == {"value": "0.72", "commodity": "EUR"}

    before = _seen(made)
    ids = [made[kind].id for kind in ("server", "volume", "address")]
    adopted = leeway.json("adopt", "real", *ids, "--project", "climate")
    assert [item["machines"][0]["state"] for item in adopted] == ["running", "present", "present"]
    assert _seen(made) == before, "nothing changed at the site"

    time.sleep(2)  # Nova tells the end in whole seconds, cut off: an end within the first one would cost nothing
    alice.compute.delete_server(made["server"])
    until(lambda: leeway.json("show", name)["order"]["state"] == "over")
    said = leeway("show", name)
    assert "vanished at the site" in said
    for item in adopted[1:]:
        leeway("stop", item["order"]["id"])
    (spent,) = leeway.json("spend", "climate")
    assert float(spent["grants"][0]["held"]["value"]) == 0
    assert all(float(line["charged"][0]["value"]) > 0 for line in spent["workloads"])
    assert len(spent["workloads"]) == 3
    assert "The books agree" in leeway("ledger", "verify")
    alice.block_storage.get_volume(made["volume"].id)
    alice.network.get_ip(made["address"].id)


def _seen(made: dict[str, Any]) -> tuple[Any, ...]:
    """What adoption could have touched of these things, as a person sees it."""
    alice = made["alice"]
    server, volume = alice.compute.get_server(made["server"].id), alice.block_storage.get_volume(made["volume"].id)
    address = alice.network.get_ip(made["address"].id)
    return server.status, server.metadata, volume.status, volume.metadata, address.description, address.tags
