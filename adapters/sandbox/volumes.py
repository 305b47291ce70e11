"""The life of volumes and of the snapshots of volumes.

    creating --> available, or error
    available --attach--> reserved --> in-use --detach--> detaching --> available
    available, error --delete--> deleting --> gone

A snapshot has the first and the last line alone. A volume whose server goes away is available again at once.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from adapters.sandbox.entities import Server, Volume, VolumeAttachment, VolumeSnapshot
from adapters.sandbox.state import Cloud, new_id

_ENDING = ("available", "error")


def record(cloud: Cloud, thing: Volume | VolumeSnapshot, event: str, now: datetime, **more: Any) -> None:
    """Write into the log what happened to a volume or a snapshot."""
    kind = "volume" if isinstance(thing, Volume) else "volume_snapshot"
    cloud.record(now, kind, event, thing, metadata=thing.metadata, **more)


def _table(cloud: Cloud, thing: Volume | VolumeSnapshot) -> dict[str, Any]:
    return cloud.volumes if isinstance(thing, Volume) else cloud.volume_snapshots


def _enter(thing: Volume | VolumeSnapshot, status: str, now: datetime) -> None:
    thing.status = status
    thing.updated = now


def _later(
    cloud: Cloud, thing: Volume | VolumeSnapshot, now: datetime, *, seconds: float, step: Callable[[datetime], None]
) -> None:
    """Let `step` happen in `seconds`, unless the thing is gone or in another status by then."""
    status = thing.status

    def if_still_so(due: datetime) -> None:
        if thing.id in _table(cloud, thing) and thing.status == status:
            step(due)

    cloud.plan_after(now, seconds, if_still_so)


def make(
    cloud: Cloud,
    thing: Volume | VolumeSnapshot,
    now: datetime,
    *,
    fails_after: float | None = None,
    request_id: str = "",
) -> None:
    """The thing exists from now on, and is available in `volume_seconds`; with `fails_after` it ends in error."""
    _table(cloud, thing)[thing.id] = thing
    record(cloud, thing, "created", now, request_id=request_id, size_gib=thing.size_gib)

    def finish(due: datetime) -> None:
        status = "available" if fails_after is None else "error"
        _enter(thing, status, due)
        record(cloud, thing, status, due)

    _later(cloud, thing, now, seconds=max(cloud.config.timing.volume_seconds, fails_after or 0.0), step=finish)


def can_go(thing: Volume | VolumeSnapshot) -> bool:
    """Whether its status lets it be deleted."""
    return thing.status in _ENDING


def delete(cloud: Cloud, thing: Volume | VolumeSnapshot, now: datetime, *, request_id: str = "") -> None:
    """Begin to delete what `can_go`."""
    _enter(thing, "deleting", now)
    record(cloud, thing, "deleting", now, request_id=request_id)

    def finish(due: datetime) -> None:
        del _table(cloud, thing)[thing.id]
        record(cloud, thing, "deleted", due)

    _later(cloud, thing, now, seconds=cloud.config.timing.delete_seconds, step=finish)


def attach(
    cloud: Cloud, volume: Volume, server: Server, now: datetime, *, device: str | None = None, at_once: bool = False
) -> VolumeAttachment:
    """Begin to give an available volume to a server, as its next disk unless `device` says which."""
    attachment = volume.attachment = VolumeAttachment(
        id=new_id(), server_id=server.id, device=device or _next_device(cloud, server), attached_at=now
    )
    server.volume_ids.append(volume.id)
    _enter(volume, "reserved", now)

    def finish(due: datetime) -> None:
        if volume.attachment is attachment:
            _enter(volume, "in-use", due)
            record(cloud, volume, "attached", due, server_id=server.id)

    _later(cloud, volume, now, seconds=0.0 if at_once else cloud.config.timing.attach_seconds, step=finish)
    return attachment


def _next_device(cloud: Cloud, server: Server) -> str:
    volumes = (cloud.volumes[volume_id] for volume_id in server.volume_ids)
    taken = {volume.attachment.device for volume in volumes if volume.attachment}
    return next(f"/dev/vd{letter}" for letter in "bcdefghijklmnopqrstuvwxyz" if f"/dev/vd{letter}" not in taken)


def detach(cloud: Cloud, volume: Volume, now: datetime) -> None:
    """Begin to take a volume that is in use away from its server."""
    _enter(volume, "detaching", now)
    _later(
        cloud,
        volume,
        now,
        seconds=cloud.config.timing.attach_seconds,
        step=lambda due: _let_go(cloud, volume, due),
    )


def _let_go(cloud: Cloud, volume: Volume, now: datetime) -> None:
    attachment = volume.attachment
    if attachment is None:
        return
    volume.attachment = None
    server = cloud.servers.get(attachment.server_id)
    if server is not None:
        server.volume_ids.remove(volume.id)
    _enter(volume, "available", now)
    record(cloud, volume, "detached", now, server_id=attachment.server_id)


def release(cloud: Cloud, server: Server, now: datetime) -> None:
    """The server goes away; its volumes stay."""
    for volume_id in list(server.volume_ids):
        _let_go(cloud, cloud.volumes[volume_id], now)
