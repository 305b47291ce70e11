"""The life of images that are made of servers.

    queued --> saving --> active, or killed            what createImage makes
    active                                             what shelving makes, `<name>-shelved`, until the server is back
    active                                             what createImage makes of a server that boots from a volume

All inherit the properties of the image that the server was started from, and all are their project's alone. An image
whose server goes away before it is saved goes with it.
"""

import dataclasses
import json
from datetime import datetime
from typing import Any

from adapters.sandbox import volumes
from adapters.sandbox.entities import Image, Server
from adapters.sandbox.state import Cloud, new_id
from adapters.sandbox.volume_entities import VolumeSnapshot

_QUEUED_SHARE = 0.25  # of the time that a snapshot takes, before its bytes begin to be sent


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """A snapshot as it was asked for. With `fails_after` it is killed after so many seconds, or when all is sent."""

    name: str
    given: dict[str, str]
    fails_after: float | None = None
    request_id: str = ""


def _add(cloud: Cloud, server: Server, name: str, now: datetime, *, given: dict[str, str] | None) -> Image:
    """`given` None: it was shelving that made it."""
    base = server.image_config
    properties = {
        **base.properties,
        "instance_uuid": server.id,
        "user_id": server.user_id,
        "image_type": "snapshot",
        "base_image_ref": server.image_id,
        **(given or {}),
    }
    config = dataclasses.replace(
        base,
        name=name,
        status="active" if given is None else "queued",
        min_disk_gib=max(base.min_disk_gib, server.flavor.config.disk_gib),
        properties=properties,
    )
    image = Image(
        id=new_id(),
        config=config,
        created=now,
        updated=now,
        project_id=server.project_id,
        given=given or {},
        log_kind="shelved_image" if given is None else "snapshot",
    )
    cloud.images[image.id] = image
    return image


def _enter(image: Image, now: datetime, status: str) -> None:
    image.config = dataclasses.replace(image.config, status=status)
    image.updated = now


def record(cloud: Cloud, image: Image, event: str, now: datetime, **more: Any) -> None:
    """Write into the log what happened to an image."""
    cloud.record(now, image.log_kind, event, image, metadata=image.given, **more)


def remove(cloud: Cloud, image: Image, now: datetime, *, event: str = "deleted", request_id: str = "") -> None:
    """The image is gone."""
    del cloud.images[image.id]
    record(cloud, image, event, now, request_id=request_id)


def take_snapshot(cloud: Cloud, server: Server, wish: Wish, now: datetime) -> Image:
    """Begin to save the server's disk. The server has a task until the end, and does nothing meanwhile but go away."""
    image = _add(cloud, server, wish.name, now, given=wish.given)
    record(cloud, image, "created", now, request_id=wish.request_id, server_id=server.id)
    server.epoch += 1
    server.task_state = "image_snapshot_pending"
    server.updated = now
    epoch, seconds = server.epoch, cloud.config.timing.snapshot_seconds

    def is_wanted(due: datetime) -> bool:
        server_is_there = server.epoch == epoch and server.id in cloud.servers
        if image.id not in cloud.images:  # deleted before it was saved: the server is free again
            if server_is_there:
                server.task_state = None
            return False
        if not server_is_there:
            remove(cloud, image, due)
        return server_is_there

    def send(due: datetime) -> None:
        if is_wanted(due):
            _enter(image, due, "saving")
            server.task_state = "image_uploading"
            cloud.plan_after(due, max(seconds * (1 - _QUEUED_SHARE), wish.fails_after or 0.0), finish)

    def finish(due: datetime) -> None:
        if is_wanted(due):
            failed = wish.fails_after is not None
            _enter(image, due, "killed" if failed else "active")
            record(cloud, image, "error" if failed else "active", due)
            server.task_state = None

    cloud.plan_after(now, seconds * _QUEUED_SHARE, send)
    return image


def save_volumes(cloud: Cloud, server: Server, wish: Wish, now: datetime) -> Image:
    """Save a server that boots from a volume: snapshots of its volumes in Cinder, and an image of no bytes naming them.

    Nobody deletes the snapshots with the image, and while there is one the volume cannot go with its server.
    """
    image = _add(cloud, server, wish.name, now, given=wish.given)
    devices = []
    for index, volume_id in enumerate(server.volume_ids):
        volume = cloud.volumes[volume_id]
        snapshot = VolumeSnapshot(
            id=new_id(),
            serial=cloud.serial(),
            name=f"snapshot for {wish.name}",
            project_id=server.project_id,
            user_id=server.user_id,
            volume_id=volume.id,
            size_gib=volume.size_gib,
            created=now,
            description="",
        )
        volumes.make(cloud, snapshot, now, request_id=wish.request_id)
        devices.append(
            {
                "boot_index": 0 if index == 0 else None,
                "source_type": "snapshot",
                "destination_type": "volume",
                "snapshot_id": snapshot.id,
                "volume_size": volume.size_gib,
                "delete_on_termination": volume.attachment is not None and volume.attachment.goes_with_it,
            }
        )
    named = {"block_device_mapping": json.dumps(devices), "bdm_v2": "True", "root_device_name": volumes.ROOT_DEVICE}
    properties = {**image.config.properties, **named}
    image.config = dataclasses.replace(image.config, status="active", size_bytes=0, properties=properties)
    record(cloud, image, "created", now, request_id=wish.request_id, server_id=server.id)
    return image


def keep_shelved(cloud: Cloud, server: Server, now: datetime) -> None:
    """What Nova saves of a server that it shelves, and starts it from later: nothing where its disk is a volume."""
    if server.root_disk is not None:
        return
    image = _add(cloud, server, f"{server.name}-shelved", now, given=None)
    server.shelved_image_id = image.id
    record(cloud, image, "created", now, server_id=server.id)


def drop_shelved(cloud: Cloud, server: Server, now: datetime) -> None:
    """The server is back, or gone for good."""
    image = cloud.images.get(server.shelved_image_id)
    server.shelved_image_id = ""
    if image is not None:
        remove(cloud, image, now)
