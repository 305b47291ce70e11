"""What other people in the project have beside their servers: some of it in use, some of it forgotten.

Everything is old. The first volume and the first address are attached to nothing, the second ones to a foreign server,
and so on in turns.
"""

import dataclasses
from datetime import datetime, timedelta

from adapters.sandbox import images, volumes
from adapters.sandbox.entities import FloatingIp, Image, Server
from adapters.sandbox.errors import ConfigError
from adapters.sandbox.state import Cloud, new_id
from adapters.sandbox.volume_entities import Volume, VolumeSnapshot
from adapters.sandbox.wiring import point_floating_ip

_AGE = timedelta(days=200)
_SIZES_GIB = (20, 100, 500)


def add_foreign_things(cloud: Cloud, servers: list[Server], now: datetime) -> None:
    """As many as the configuration says, for the people who have these servers; nobody has none.

    Raises:
        ConfigError: no address is left for so many.
    """
    if not servers:
        return
    config = cloud.config
    if config.has_volumes:
        made = [_add_volume(cloud, servers, index, now) for index in range(config.foreign_volumes)]
        for index in range(config.foreign_volume_snapshots if made else 0):
            _add_volume_snapshot(cloud, made[index % len(made)], now)
    for index in range(config.foreign_addresses):
        _add_address(cloud, servers, index, now)
    for index in range(config.foreign_images):
        _add_image(cloud, servers[index % len(servers)], now)


def _user(servers: list[Server], index: int) -> Server | None:
    """The server that has a thing; None for every other thing."""
    return servers[index // 2 % len(servers)] if index % 2 else None


def _add_volume(cloud: Cloud, servers: list[Server], index: int, now: datetime) -> Volume:
    owner, serial = servers[index % len(servers)], cloud.serial()
    volume = Volume(
        id=new_id(),
        serial=serial,
        name=f"foreign-data-{serial}",
        project_id=owner.project_id,
        user_id=owner.user_id,
        size_gib=_SIZES_GIB[index % len(_SIZES_GIB)],
        created=now - _AGE,
        status="available",
    )
    cloud.volumes[volume.id] = volume
    volumes.record(cloud, volume, "created", now, size_gib=volume.size_gib)
    server = _user(servers, index)
    if server is not None:
        volumes.attach(cloud, volume, server, now, at_once=True)
    return volume


def _add_volume_snapshot(cloud: Cloud, volume: Volume, now: datetime) -> None:
    serial = cloud.serial()
    snapshot = VolumeSnapshot(
        id=new_id(),
        serial=serial,
        name=f"foreign-backup-{serial}",
        project_id=volume.project_id,
        user_id=volume.user_id,
        volume_id=volume.id,
        size_gib=volume.size_gib,
        created=now - _AGE,
        status="available",
    )
    cloud.volume_snapshots[snapshot.id] = snapshot
    volumes.record(cloud, snapshot, "created", now, size_gib=snapshot.size_gib)


def _add_address(cloud: Cloud, servers: list[Server], index: int, now: datetime) -> None:
    network = next((network for network in cloud.networks.values() if network.external), None)
    subnet = cloud.subnets[network.subnet_ids[0]] if network else None
    address = subnet.allocate() if subnet else None
    if network is None or subnet is None or address is None:
        raise ConfigError(f"foreign_addresses: no address is left after {index}; use a larger external network")
    floating = FloatingIp(
        id=new_id(),
        address=address,
        network_id=network.id,
        subnet_id=subnet.id,
        project_id=servers[0].project_id,
        created=now - _AGE,
        updated=now,
    )
    cloud.floating_ips[floating.id] = floating
    cloud.record(now, "floating_ip", "created", floating, address=address)
    server = _user(servers, index)
    taken = {other.port_id for other in cloud.floating_ips.values()}
    port_id = next((port_id for port_id in server.port_ids if port_id not in taken), None) if server else None
    point_floating_ip(cloud, floating, port_id, now)


def _add_image(cloud: Cloud, server: Server, now: datetime) -> None:
    base = server.image_config
    more = {"image_type": "snapshot", "instance_uuid": server.id, "user_id": server.user_id}
    config = dataclasses.replace(base, name=f"foreign-image-{cloud.serial()}", properties={**base.properties, **more})
    image = Image(id=new_id(), config=config, created=now - _AGE, updated=now - _AGE, project_id=server.project_id)
    cloud.images[image.id] = image
    images.record(cloud, image, "created", now)
