"""openstacksdk, which nobody here wrote, takes the sandbox for an OpenStack."""

import base64
import dataclasses
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import openstack
import pytest
from openstack import exceptions
from openstack.connection import Connection

from adapters.sandbox import CloudConfig, SandboxCloud, profile, running
from adapters.sandbox.config import NetworkConfig, ProjectConfig, QuotaConfig, Timing
from adapters.sandbox.profiles import DEMO_PASSWORD
from tests.unit.sandbox.wire_client import PUBLIC_KEY

# The SDK warns of its own next major version wherever it is used.
pytestmark = [
    pytest.mark.filterwarnings("ignore::openstack.warnings.RemovedInSDK50Warning"),
    pytest.mark.filterwarnings("ignore::openstack.warnings.RemovedInSDK60Warning"),
    pytest.mark.filterwarnings("ignore::openstack.warnings.RemovedFieldWarning"),
]
POLL_SECONDS = 0.02
Connect = Callable[..., Connection]


def _sdk_config() -> CloudConfig:
    """Real time, quickly; pages of two; two projects."""
    return dataclasses.replace(
        profile("borealis"),
        projects=(
            ProjectConfig(name="climate", quota=QuotaConfig(instances=20, cores=80, floating_ips=4)),
            ProjectConfig(name="other"),
        ),
        networks=(
            NetworkConfig(name="internet", cidr="198.51.100.0/24", external=True),
            NetworkConfig(name="climate-net", cidr="10.80.0.0/16", project="climate"),
        ),
        timing=Timing(
            build_seconds=0.1, bind_seconds=0.02, stop_seconds=0.03, shelve_seconds=0.03, delete_seconds=0.05
        ),
        capacity=None,
        page_limit=2,
        foreign_servers=0,
    )


@pytest.fixture(scope="module")
def sdk_cloud() -> Iterator[SandboxCloud]:
    with running(_sdk_config()) as cloud:
        yield cloud


@pytest.fixture
def connect(sdk_cloud: SandboxCloud) -> Iterator[Connect]:
    """Connections to the cloud as just started, closed at the end."""
    sdk_cloud.reset()
    made: list[Connection] = []

    def open_connection(**auth: str) -> Connection:
        by_password = {
            "username": "leeway",
            "password": DEMO_PASSWORD,
            "project_name": "climate",
            "user_domain_name": "Default",
            "project_domain_name": "Default",
        }
        kind = "v3applicationcredential" if auth else "password"
        made.append(
            openstack.connect(
                load_yaml_config=False,
                load_envvars=False,
                auth_type=kind,
                auth={"auth_url": sdk_cloud.auth_url} | (auth or by_password),
                region_name="north",
            )
        )
        return made[-1]

    yield open_connection
    for connection in made:
        connection.session.session.close()
        connection.close()


def _by_app_credential(connection: Connection) -> dict[str, str]:
    user_id = connection.current_user_id
    made = connection.identity.create_application_credential(user=user_id, name="leeway")
    return {"application_credential_id": made.id, "application_credential_secret": made.secret}


def _launch(connection: Connection, port_id: str) -> Any:
    flavor = connection.compute.find_flavor("std.2c4g", ignore_missing=False)
    image = connection.image.find_image("Ubuntu 24.04", ignore_missing=False)
    return connection.compute.create_server(
        name="sdk",
        flavor_id=flavor.id,
        image_id=image.id,
        key_name="leeway",
        user_data=base64.b64encode(b"#cloud-config\n").decode(),
        metadata={"leeway:lease": "1"},
        networks=[{"port": port_id}],
    )


@pytest.mark.parametrize("credential", ["password", "application credential"])
def test_a_full_life_cycle(connect: Connect, sdk_cloud: SandboxCloud, credential: str) -> None:
    connection = connect()
    if credential != "password":
        connection = connect(**_by_app_credential(connection))
    compute, network = connection.compute, connection.network

    compute.create_keypair(name="leeway", public_key=PUBLIC_KEY)
    tenant = network.find_network("climate-net", ignore_missing=False)
    port = network.create_port(network_id=tenant.id, name="leeway-1")
    server = compute.wait_for_server(_launch(connection, port.id), interval=POLL_SECONDS)
    assert (server.status, server.key_name, server.metadata) == ("ACTIVE", "leeway", {"leeway:lease": "1"})
    assert server.addresses["climate-net"][0]["addr"] == port.fixed_ips[0]["ip_address"]
    assert network.get_port(port.id).device_id == server.id

    for act, status in (
        (compute.stop_server, "SHUTOFF"),
        (compute.start_server, "ACTIVE"),
        (compute.shelve_server, "SHELVED_OFFLOADED"),
        (compute.unshelve_server, "ACTIVE"),
    ):
        act(server)
        server = compute.wait_for_server(server, status=status, interval=POLL_SECONDS)

    outside = network.find_network("internet", ignore_missing=False)
    assert outside.is_router_external
    address = network.create_ip(floating_network_id=outside.id, port_id=port.id)
    kinds = [item["OS-EXT-IPS:type"] for item in compute.get_server(server.id).addresses["climate-net"]]
    assert kinds == ["fixed", "floating"]

    compute.delete_server(server)
    compute.wait_for_delete(server, interval=POLL_SECONDS)
    with pytest.raises(exceptions.NotFoundException):
        compute.get_server(server.id)
    assert network.get_port(port.id).device_id == ""
    network.delete_ip(address)
    network.delete_port(port)
    compute.delete_keypair("leeway")
    for kind in ("server", "port", "floating_ip", "key_pair"):
        assert sdk_cloud.log.alive(kind) == set()
    events = [entry.event for entry in sdk_cloud.log.entries(kind="server")]
    life = ["created", "active", "stopped", "active", "shelved", "offloaded", "active", "deleting", "deleted"]
    assert events == life


def test_what_is_done_to_a_server_and_counted_of_it(connect: Connect, sdk_cloud: SandboxCloud) -> None:
    connection: Any = connect()
    compute = connection.compute
    (identifier,) = sdk_cloud.add_foreign_servers(1)
    server = compute.get_server(identifier)
    larger = next(flavor for flavor in compute.flavors() if flavor.name != server.flavor.name)
    image = next(image for image in connection.image.images() if image.id != server.image.id)
    for act, status in (
        (compute.suspend_server, "SUSPENDED"),
        (compute.resume_server, "ACTIVE"),
        (compute.pause_server, "PAUSED"),
        (compute.unpause_server, "ACTIVE"),
        (lambda server: compute.resize_server(server, larger), "VERIFY_RESIZE"),
        (compute.revert_server_resize, "ACTIVE"),
        (lambda server: compute.resize_server(server, larger), "VERIFY_RESIZE"),
        (compute.confirm_server_resize, "ACTIVE"),
        (lambda server: compute.rebuild_server(server, image=image), "ACTIVE"),
    ):
        act(server)
        server = compute.wait_for_server(server, status=status, interval=POLL_SECONDS)
    assert (server.flavor.name, server.image.id) == (larger.name, image.id)
    done = [action.action for action in compute.server_actions(server)]
    back = ["resume", "suspend"]
    assert done == ["rebuild", "confirmResize", "resize", "revertResize", "resize", "unpause", "pause", *back]
    usage = compute.get_usage(connection.current_project_id, start=datetime(2026, 1, 1))  # noqa: DTZ001 - Nova's are without zones
    assert [row.instance_id for row in usage.server_usages] == [identifier]


def test_lists_are_followed_to_their_end(connect: Connect, sdk_cloud: SandboxCloud) -> None:
    connection = connect()
    made = set(sdk_cloud.add_foreign_servers(5))
    assert {server.id for server in connection.compute.servers()} == made
    assert {server.id for server in connection.compute.servers(details=False, limit=2)} == made
    assert len(list(connection.compute.flavors())) == 4
    assert len(list(connection.image.images())) == 2
    assert len(list(connection.network.ports(limit=2))) == 5


def test_what_a_project_may_use(connect: Connect) -> None:
    connection = connect()
    gpu = connection.compute.find_flavor("gpu.8c64g", ignore_missing=False)
    specs = connection.compute.fetch_flavor_extra_specs(gpu).extra_specs
    assert specs["trait:CUSTOM_GPU_NVIDIA_A100"] == "required"
    assert connection.compute.get_limits().absolute.total_cores == 80
    project_id = connection.current_project_id
    assert connection.compute.get_quota_set(project_id, usage=True).instances == 20
    assert connection.network.get_quota(project_id, details=True).floating_ips["limit"] == 4
    assert [zone.name for zone in connection.compute.availability_zones()] == ["nova"]


def test_servers_boot_from_volumes_and_keep_apart(connect: Connect) -> None:
    connection = connect()
    compute: Any = connection.compute
    storage: Any = connection.block_storage
    group = compute.create_server_group(name="apart", policy="anti-affinity")
    data = storage.wait_for_status(storage.create_volume(name="data", size=2), "available", interval=POLL_SECONDS)
    image = connection.image.find_image("Debian 12", ignore_missing=False)
    root = {"boot_index": 0, "uuid": image.id, "source_type": "image", "destination_type": "volume"}
    second = {"boot_index": -1, "uuid": data.id, "source_type": "volume", "destination_type": "volume"}
    server = compute.create_server(
        name="from-volume",
        flavor_id=compute.find_flavor("std.2c4g", ignore_missing=False).id,
        networks=[{"uuid": connection.network.find_network("climate-net", ignore_missing=False).id}],
        block_device_mapping=[root | {"volume_size": 8, "delete_on_termination": True}, second],
        scheduler_hints={"group": group.id},
    )
    compute.wait_for_server(server, interval=POLL_SECONDS)
    assert compute.get_server_group(group).member_ids == [server.id]
    attached = [one.volume_id for one in compute.volume_attachments(server)]
    (of_nova,) = [storage.get_volume(volume) for volume in attached if volume != data.id]
    assert of_nova.is_bootable
    compute.delete_server(server)
    compute.wait_for_delete(server, interval=POLL_SECONDS)
    storage.wait_for_delete(of_nova, interval=POLL_SECONDS)
    assert [volume.id for volume in storage.volumes()] == [data.id]
    compute.delete_server_group(group)
    assert list(compute.server_groups()) == []


def test_security_groups_and_tags(connect: Connect) -> None:
    network = connect().network
    group = network.create_security_group(name="ssh")
    network.create_security_group_rule(
        security_group_id=group.id, direction="ingress", protocol="tcp", port_range_min=22, port_range_max=22
    )
    tenant = network.find_network("climate-net", ignore_missing=False)
    port = network.create_port(network_id=tenant.id, security_group_ids=[group.id])
    network.set_tags(port, ["leeway"])
    assert [item.id for item in network.ports(tags="leeway")] == [port.id]
    assert len(network.get_security_group(group.id).security_group_rules) == 3


def test_refusals_are_the_sdk_s_own_exceptions(connect: Connect, sdk_cloud: SandboxCloud) -> None:
    connection = connect()
    port = connection.network.create_port(
        network_id=connection.network.find_network("climate-net", ignore_missing=False).id
    )
    connection.compute.create_keypair(name="leeway", public_key=PUBLIC_KEY)
    with pytest.raises(exceptions.ConflictException, match="already exists"):
        connection.compute.create_keypair(name="leeway", public_key=PUBLIC_KEY)
    sdk_cloud.faults.add("quota", path="/servers$", times=1)
    with pytest.raises(exceptions.ForbiddenException, match="Quota exceeded for cores, instances"):
        _launch(connection, port.id)
    sdk_cloud.faults.add("no_capacity", path="/servers$", times=1)
    with pytest.raises(exceptions.ResourceFailure, match="ERROR"):
        connection.compute.wait_for_server(_launch(connection, port.id), interval=POLL_SECONDS)
    sdk_cloud.faults.add("html", service="compute", times=1)
    with pytest.raises((exceptions.SDKException, ValueError)):
        list(connection.compute.servers())


def test_volumes_are_listed_made_attached_detached_and_deleted(connect: Connect, sdk_cloud: SandboxCloud) -> None:
    connection = connect()
    storage, compute = connection.block_storage, connection.compute
    (machine,) = sdk_cloud.add_foreign_servers(1)
    made = [storage.create_volume(name=f"data-{number}", size=2, metadata={"a": "b"}) for number in range(3)]
    volume = storage.wait_for_status(made[0], "available", interval=POLL_SECONDS)
    assert (volume.size, volume.metadata, volume.user_id) == (2, {"a": "b"}, connection.current_user_id)
    assert {item.id for item in storage.volumes()} == {item.id for item in made}, "two are a page"
    assert storage.find_volume("data-1").id == made[1].id

    compute.create_volume_attachment(machine, volume.id)
    volume = storage.wait_for_status(volume, "in-use", interval=POLL_SECONDS)
    assert [item["server_id"] for item in volume.attachments] == [machine]
    assert [item.volume_id for item in compute.volume_attachments(machine)] == [volume.id]
    assert [item.id for item in compute.get_server(machine).attached_volumes] == [volume.id]
    with pytest.raises(exceptions.BadRequestException, match="must be available or error"):
        storage.delete_volume(volume)
    compute.delete_volume_attachment(machine, volume.id)
    volume = storage.wait_for_status(volume, "available", interval=POLL_SECONDS)

    snapshot = storage.create_snapshot(volume_id=volume.id, name="backup")
    storage.wait_for_status(snapshot, "available", interval=POLL_SECONDS)
    assert [item.id for item in storage.snapshots()] == [snapshot.id]
    used = storage.get_quota_set(connection.current_project_id, usage=True)
    assert (used.volumes, used.usage["volumes"], used.usage["gigabytes"]) == (10, 3, 8)

    for thing, delete in ((snapshot, storage.delete_snapshot), *((item, storage.delete_volume) for item in made)):
        delete(thing)
        storage.wait_for_delete(thing, interval=POLL_SECONDS)
    assert sdk_cloud.log.alive("volume") == sdk_cloud.log.alive("volume_snapshot") == set()
