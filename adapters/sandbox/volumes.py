"""The life of volumes and of the snapshots of volumes.

    creating --> available, or error
    available --attach--> reserved --> in-use --detach--> detaching --> available
    available, error --delete--> deleting --> gone

A snapshot has the first and the last line alone. A volume whose server goes away is available again at once, or goes
with it. A server that is made with volumes has them reserved from its request on; its root disk, where that is a volume
too, is made when the server has a host.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from adapters.sandbox.entities import Project, Server
from adapters.sandbox.state import Cloud, new_id
from adapters.sandbox.volume_entities import Volume, VolumeAttachment, VolumeSnapshot
from adapters.sandbox.wiring import WiringError

ROOT_DEVICE = "/dev/vda"
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


def reserve(
    cloud: Cloud,
    volume: Volume,
    server: Server,
    now: datetime,
    *,
    device: str | None = None,
    goes_with_it: bool = False,
) -> VolumeAttachment:
    """Promise a volume to a server, as its next disk unless `device` says which."""
    attachment = volume.attachment = VolumeAttachment(
        id=new_id(),
        server_id=server.id,
        device=device or _next_device(cloud, server),
        attached_at=now,
        goes_with_it=goes_with_it,
    )
    server.volume_ids.append(volume.id)
    _enter(volume, "reserved", now)
    return attachment


def attach(
    cloud: Cloud, volume: Volume, server: Server, now: datetime, *, device: str | None = None, at_once: bool = False
) -> VolumeAttachment:
    """Begin to give an available volume to a server."""
    attachment = reserve(cloud, volume, server, now, device=device)

    def finish(due: datetime) -> None:
        if volume.attachment is attachment:
            _plug_in(cloud, volume, due)

    _later(cloud, volume, now, seconds=0.0 if at_once else cloud.config.timing.attach_seconds, step=finish)
    return attachment


def _plug_in(cloud: Cloud, volume: Volume, now: datetime) -> None:
    _enter(volume, "in-use", now)
    record(cloud, volume, "attached", now, server_id=volume.attachment.server_id if volume.attachment else "")


def make_root(cloud: Cloud, server: Server, now: datetime) -> None:
    """Make the root disk of a server that boots from a volume; Nova gives it neither name nor metadata.

    Raises:
        WiringError: the project's quota of volumes is used up; the server asked for is not refused, but fails.
    """
    wanted = server.root_disk
    if wanted is None:
        return
    refusal = over_quota(cloud, cloud.projects[server.project_id], "volumes", wanted.size_gib)
    if refusal is not None:
        raise WiringError(refusal)
    volume = Volume(
        id=new_id(),
        serial=cloud.serial(),
        name="",
        project_id=server.project_id,
        user_id=server.user_id,
        size_gib=wanted.size_gib,
        created=now,
        description="",
        image=wanted.image,
    )
    cloud.volumes[volume.id] = volume
    record(cloud, volume, "created", now, request_id=server.request_id, size_gib=volume.size_gib)
    reserve(cloud, volume, server, now, device=ROOT_DEVICE, goes_with_it=wanted.goes_with_it)
    server.volume_ids.insert(0, server.volume_ids.pop())  # Nova lists the disks as they were asked for


def plug_in_all(cloud: Cloud, server: Server, now: datetime) -> None:
    """The server boots: it has all that was reserved for it."""
    for volume_id in server.volume_ids:
        if cloud.volumes[volume_id].status == "reserved":
            _plug_in(cloud, cloud.volumes[volume_id], now)


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
    """The server goes away, or was not built; its volumes stay, save those that were to go with it.

    Of one that somebody took a snapshot of, Cinder refuses the deletion: it stays, and belongs to nothing.
    """
    for volume_id in list(server.volume_ids):
        volume = cloud.volumes[volume_id]
        goes = volume.attachment is not None and volume.attachment.goes_with_it
        _let_go(cloud, volume, now)
        if goes and not has_snapshots(cloud, volume):
            delete(cloud, volume, now)


def has_snapshots(cloud: Cloud, volume: Volume) -> bool:
    """Whether there are snapshots of it, without which it cannot go."""
    return any(snapshot.volume_id == volume.id for snapshot in cloud.volume_snapshots.values())


# --- quotas ------------------------------------------------------------------------------------------------------


def used(cloud: Cloud, project_id: str) -> dict[str, int]:
    """What the project's volumes and snapshots use, in Cinder's words: both take gigabytes."""
    sizes = [volume.size_gib for volume in cloud.volumes.values() if volume.project_id == project_id]
    saved = [snapshot.size_gib for snapshot in cloud.volume_snapshots.values() if snapshot.project_id == project_id]
    return {"volumes": len(sizes), "snapshots": len(saved), "gigabytes": sum(sizes) + sum(saved)}


def limits(project: Project) -> dict[str, int]:
    """What it may use."""
    quota = project.quota
    return {"volumes": quota.volumes, "snapshots": quota.volume_snapshots, "gigabytes": quota.volume_gib}


def over_quota(cloud: Cloud, project: Project, kind: str, size: int, *, is_full: bool = False) -> str | None:
    """Cinder's refusal of one more of `kind`, volumes or snapshots, of so many GiB; None where there is room.

    With `is_full` it is as if the project had used up all there is.
    """
    now_used = used(cloud, project.id)
    allowed = now_used if is_full else limits(project)
    if 0 <= allowed["gigabytes"] < now_used["gigabytes"] + size:
        return (
            "VolumeSizeExceedsAvailableQuota: Requested volume or snapshot exceeds allowed gigabytes quota. "
            f"Requested {size}G, quota is {allowed['gigabytes']}G and {now_used['gigabytes']}G has been consumed."
        )
    if 0 <= allowed[kind] <= now_used[kind]:
        name = "VolumeLimitExceeded" if kind == "volumes" else "SnapshotLimitExceeded"
        return f"{name}: Maximum number of {kind} allowed ({allowed[kind]}) exceeded for quota '{kind}'."
    return None
