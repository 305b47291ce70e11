"""The life of images that are made of servers.

    queued --> saving --> active, or killed            what createImage makes
    active                                             what shelving makes, `<name>-shelved`, until the server is back

Both inherit the properties of the image that the server was started from, and both are their project's alone. An image
whose server goes away before it is saved goes with it.
"""

import dataclasses
from datetime import datetime
from typing import Any

from adapters.sandbox.entities import Image, Server
from adapters.sandbox.state import Cloud, new_id

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


def keep_shelved(cloud: Cloud, server: Server, now: datetime) -> None:
    """What Nova saves of a server that it shelves, and starts it from later."""
    image = _add(cloud, server, f"{server.name}-shelved", now, given=None)
    server.shelved_image_id = image.id
    record(cloud, image, "created", now, server_id=server.id)


def drop_shelved(cloud: Cloud, server: Server, now: datetime) -> None:
    """The server is back, or gone for good."""
    image = cloud.images.get(server.shelved_image_id)
    server.shelved_image_id = ""
    if image is not None:
        remove(cloud, image, now)
