"""Cinder v3: versions, volumes, snapshots of volumes, quotas, and the table of all its paths."""

import re
from datetime import timedelta
from typing import Any

from adapters.sandbox import cinder_limits, cinder_rest, volumes
from adapters.sandbox.cinder_limits import TYPE, type_id
from adapters.sandbox.cinder_rest import (
    BASE,
    SERVICE,
    Document,
    checked_description,
    checked_metadata,
    checked_name,
    collection,
    find,
    links,
    moment,
    own_project,
)
from adapters.sandbox.entities import Image
from adapters.sandbox.faults import FaultKind
from adapters.sandbox.state import new_id
from adapters.sandbox.volume_entities import Volume, VolumeSnapshot
from adapters.sandbox.wire import ApiError, Call, Handler, Reply

__all__ = ["SERVICE", "TABLE"]

_NOT_MODELLED = ("imageRef", "source_volid", "backup_id", "consistencygroup_id", "multiattach")

_MALFORMED = "The server could not comply with the request since it is either malformed or otherwise incorrect."


def _version(call: Call) -> Document:
    return {
        "id": "v3.0",
        "status": "CURRENT",
        "version": "3.70",
        "min_version": "3.0",
        "updated": "2022-08-31T00:00:00Z",
        "links": [
            {"rel": "describedby", "type": "text/html", "href": "https://docs.openstack.org/"},
            {"rel": "self", "href": f"{call.base_url}/volume/v3/"},
        ],
        "media-types": [
            {"base": "application/json", "type": "application/vnd.openstack.volume+json;version=3"},
        ],
    }


def show_versions(call: Call) -> Reply:
    return Reply(200 if "/v3" in call.path else 300, {"versions": [_version(call)]})


# --- volumes -----------------------------------------------------------------------------------------------------


def _attachments(volume: Volume) -> list[Document]:
    attachment = volume.attachment
    if attachment is None or volume.status == "reserved":
        return []
    return [
        {
            "id": volume.id,
            "attachment_id": attachment.id,
            "volume_id": volume.id,
            "server_id": attachment.server_id,
            "host_name": None,
            "device": attachment.device,
            "attached_at": moment(attachment.attached_at),
        }
    ]


def _volume_summary(call: Call, volume: Volume) -> Document:
    return {"id": volume.id, "name": volume.name, "links": links(call, "volumes", volume.id)}


def _volume_document(call: Call, volume: Volume, *, changing: bool = False) -> Document:
    """`changing`: the answer to what made or changed it, which does not say whose it is."""
    document = _volume_summary(call, volume) | {
        "status": volume.status,
        "size": volume.size_gib,
        "availability_zone": "nova",
        "created_at": moment(volume.created),
        "updated_at": moment(volume.updated),
        "description": volume.description,
        "volume_type": TYPE,
        "snapshot_id": volume.snapshot_id,
        "source_volid": None,
        "metadata": dict(volume.metadata),
        "user_id": volume.user_id,
        "bootable": "true" if volume.image else "false",
        "encrypted": False,
        "replication_status": None,
        "consistencygroup_id": None,
        "multiattach": False,
        "attachments": _attachments(volume),
    }
    if not changing:
        document["os-vol-tenant-attr:tenant_id"] = volume.project_id
        if volume.image is not None:
            document["volume_image_metadata"] = _image_metadata(volume.image)
    if call.version >= (3, 13):
        document["group_id"] = None
    if call.version >= (3, 48):
        document |= {"service_uuid": call.cloud.config.identifier("service", "volume"), "shared_targets": False}
    if call.version >= (3, 63):
        document["volume_type_id"] = type_id(call)
    if call.version >= (3, 65):
        document["consumes_quota"] = True
    return document


def _image_metadata(image: Image) -> Document:
    """What Cinder remembers of the image that it wrote onto a volume; all of it texts."""
    config = image.config
    return {
        "signature_verified": "False",
        "os_distro": config.os_distro,
        "os_version": config.os_version,
        **config.properties,
        "image_id": image.id,
        "image_name": config.name,
        "container_format": "bare",
        "disk_format": "qcow2",
        "min_disk": str(config.min_disk_gib),
        "min_ram": str(config.min_ram_mib),
        "size": str(config.size_bytes),
    }


def list_volumes(call: Call) -> Reply:
    known = call.cloud.volumes.values()
    return collection(call, "Volume", known, lambda volume: _volume_summary(call, volume))


def list_volumes_in_detail(call: Call) -> Reply:
    known = call.cloud.volumes.values()
    return collection(call, "Volume", known, lambda volume: _volume_document(call, volume))


def _find_volume(call: Call, *, hidden_too: bool = False) -> Volume:
    return find(call, "Volume", call.cloud.volumes, call.params["volume"], hidden_too=hidden_too)


def show_volume(call: Call) -> Reply:
    return Reply(200, {"volume": _volume_document(call, _find_volume(call))})


def create_volume(call: Call) -> Reply:
    """202; empty, or from a snapshot of a volume."""
    own_project(call)
    wanted = call.document("volume")
    for field in _NOT_MODELLED:
        if wanted.get(field):
            raise ApiError(400, f"The sandbox does not model '{field}': volumes are empty, or made of a snapshot.")
    source = _source(call, wanted.get("snapshot_id"))
    size = _size(wanted.get("size"), source)
    _check_type(call, wanted.get("volume_type"))
    _check_quota(call, "volumes", size)
    volume = Volume(
        id=new_id(),
        serial=call.cloud.serial(),
        name=checked_name(wanted.get("name")),
        project_id=call.project.id,
        user_id=call.token.user.id,
        size_gib=size,
        created=call.now,
        description=checked_description(wanted.get("description")),
        metadata=checked_metadata(wanted.get("metadata") or {}),
        snapshot_id=source.id if source else None,
    )
    _begin(call, volume)
    return Reply(202, {"volume": _volume_document(call, volume, changing=True)})


def _check_type(call: Call, wanted: Any) -> None:
    """The only type, by name or id; none is the only one too.

    Raises:
        ApiError: 404, with a name's text for a name and an id's for an id.
    """
    if wanted not in (None, "", TYPE, type_id(call)):
        by_name = "" if re.fullmatch(r"[0-9a-f-]{36}", str(wanted)) else "with name "
        raise ApiError(404, f"Volume type {by_name}{wanted} could not be found.")


def _source(call: Call, snapshot_id: Any) -> VolumeSnapshot | None:
    if snapshot_id is None:
        return None
    snapshot = find(call, "Snapshot", call.cloud.volume_snapshots, str(snapshot_id))
    if snapshot.status != "available":
        raise ApiError(400, "Invalid snapshot: Originating snapshot status must be one of 'available' values")
    return snapshot


def _size(given: Any, source: VolumeSnapshot | None) -> int:
    """GiB; of a volume made of a snapshot at least the snapshot's."""
    least = source.size_gib if source else 1
    size = int(given) if isinstance(given, str) and given.isdecimal() else given
    if size is None and source:
        return least
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise ApiError(400, _MALFORMED if given is None else f"Invalid input for field/attribute size. Value: {given}.")
    if size < least:
        text = f"Volume size '{size}'GB cannot be smaller than the snapshot size {least}GB. They must be >= original"
        raise ApiError(400, f"Invalid input received: {text} snapshot size.")
    return size


def _check_quota(call: Call, kind: str, size: int) -> None:
    is_full = call.effect(FaultKind.QUOTA) is not None
    refusal = volumes.over_quota(call.cloud, call.project, kind, size, is_full=is_full)
    if refusal is not None:
        raise ApiError(413, refusal)


def _begin(call: Call, thing: Volume | VolumeSnapshot) -> None:
    hidden, failing = call.effect(FaultKind.HIDDEN), call.effect(FaultKind.NO_CAPACITY)
    if hidden is not None:
        thing.visible_at = call.now + timedelta(seconds=hidden.seconds)
    fails_after = None if failing is None else failing.seconds
    volumes.make(call.cloud, thing, call.now, fails_after=fails_after, request_id=call.request_id)


def update_volume(call: Call) -> Reply:
    volume = _find_volume(call, hidden_too=True)
    cinder_rest.update(call, volume, call.document("volume"))
    return Reply(200, {"volume": _volume_document(call, volume, changing=True)})


def delete_volume(call: Call) -> Reply:
    volume = _find_volume(call, hidden_too=True)
    if volumes.has_snapshots(call.cloud, volume) or not volumes.can_go(volume):
        text = (
            "Invalid volume: Volume status must be available or error or error_restoring or error_extending or "
            "error_managing and must not be migrating, attached, belong to a group, have snapshots, awaiting a "
            "transfer, or be disassociated from snapshots after volume transfer."
        )
        raise ApiError(400, text)
    volumes.delete(call.cloud, volume, call.now, request_id=call.request_id)
    return Reply(202)


# --- snapshots ---------------------------------------------------------------------------------------------------


def _snapshot_document(call: Call, snapshot: VolumeSnapshot, *, changing: bool = False) -> Document:
    document: Document = {
        "id": snapshot.id,
        "name": snapshot.name,
        "status": snapshot.status,
        "size": snapshot.size_gib,
        "created_at": moment(snapshot.created),
        "updated_at": moment(snapshot.updated),
        "description": snapshot.description,
        "volume_id": snapshot.volume_id,
        "metadata": dict(snapshot.metadata),
    }
    if not changing:
        document |= {
            "os-extended-snapshot-attributes:progress": "100%" if snapshot.status == "available" else "0%",
            "os-extended-snapshot-attributes:project_id": snapshot.project_id,
        }
    if call.version >= (3, 14):
        document["group_snapshot_id"] = None
    if call.version >= (3, 41):
        document["user_id"] = snapshot.user_id
    if call.version >= (3, 65):
        document["consumes_quota"] = True
    return document


_SUMMARY = ("id", "name", "status", "size", "created_at", "updated_at", "description", "volume_id", "metadata")


def list_snapshots(call: Call) -> Reply:
    def show(snapshot: VolumeSnapshot) -> Document:
        document = _snapshot_document(call, snapshot)
        return {field: document[field] for field in _SUMMARY}

    return collection(call, "Snapshot", call.cloud.volume_snapshots.values(), show)


def list_snapshots_in_detail(call: Call) -> Reply:
    known = call.cloud.volume_snapshots.values()
    return collection(call, "Snapshot", known, lambda snapshot: _snapshot_document(call, snapshot))


def _find_snapshot(call: Call, *, hidden_too: bool = False) -> VolumeSnapshot:
    return find(call, "Snapshot", call.cloud.volume_snapshots, call.params["snapshot"], hidden_too=hidden_too)


def show_snapshot(call: Call) -> Reply:
    return Reply(200, {"snapshot": _snapshot_document(call, _find_snapshot(call))})


def create_snapshot(call: Call) -> Reply:
    """202; of a volume that is available, or with `force` of one that is in use."""
    wanted = call.document("snapshot")
    volume = find(call, "Volume", call.cloud.volumes, str(wanted.get("volume_id")), hidden_too=True)
    forced = str(wanted.get("force", False)).lower() in ("true", "1") or call.version >= (3, 66)
    if volume.status not in ("available", "in-use") or (volume.status == "in-use" and not forced):
        text = f"Invalid volume: Volume {volume.id} status must be available, but current status is: {volume.status}."
        raise ApiError(400, text)
    _check_quota(call, "snapshots", volume.size_gib)
    snapshot = VolumeSnapshot(
        id=new_id(),
        serial=call.cloud.serial(),
        name=checked_name(wanted.get("name")),
        project_id=call.project.id,
        user_id=call.token.user.id,
        volume_id=volume.id,
        size_gib=volume.size_gib,
        created=call.now,
        description=checked_description(wanted.get("description")),
        metadata=checked_metadata(wanted.get("metadata") or {}),
    )
    _begin(call, snapshot)
    return Reply(202, {"snapshot": _snapshot_document(call, snapshot, changing=True)})


def update_snapshot(call: Call) -> Reply:
    snapshot = _find_snapshot(call, hidden_too=True)
    cinder_rest.update(call, snapshot, call.document("snapshot"))
    return Reply(200, {"snapshot": _snapshot_document(call, snapshot, changing=True)})


def delete_snapshot(call: Call) -> Reply:
    snapshot = _find_snapshot(call, hidden_too=True)
    if not volumes.can_go(snapshot):
        text = "Invalid snapshot: Snapshot status must be available or error and must not be part of a group."
        raise ApiError(400, text)
    volumes.delete(call.cloud, snapshot, call.now, request_id=call.request_id)
    return Reply(202)


TABLE: dict[str, dict[str, Handler]] = {
    "/volume": {"GET": show_versions},
    "/volume/": {"GET": show_versions},
    "/volume/v3": {"GET": show_versions},
    "/volume/v3/": {"GET": show_versions},
    BASE + "/volumes": {"GET": list_volumes, "POST": create_volume},
    BASE + "/volumes/detail": {"GET": list_volumes_in_detail},
    BASE + "/volumes/{volume}": {"GET": show_volume, "PUT": update_volume, "DELETE": delete_volume},
    BASE + "/snapshots": {"GET": list_snapshots, "POST": create_snapshot},
    BASE + "/snapshots/detail": {"GET": list_snapshots_in_detail},
    BASE + "/snapshots/{snapshot}": {"GET": show_snapshot, "PUT": update_snapshot, "DELETE": delete_snapshot},
    **cinder_limits.TABLE,
}
