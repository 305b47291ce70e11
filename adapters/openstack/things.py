"""What exists beside the machines, whoever made it: volumes, their snapshots, public addresses, images of the project.

Cinder says who made a thing, and Glance of an image that Nova made; Neutron knows projects only. An owner is an id: the
names of users are an administrator's to see. What a person wrote is not taken over, save the name.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from adapters.cloud import ReadSoFar, foreign, tags_in_metadata, tags_in_text, utc
from adapters.openstack.session import Call, Document, Service, Session, get
from broker.errors import SiteRefused
from broker.remote import Deadline, RemoteSnapshot, RemoteThing, Tags, ThingKind

# What a listing needs of a public address. `port_details` is an extension; without it the port is all that is known.
ADDRESS_FIELDS = (
    "id",
    "description",
    "floating_ip_address",
    "port_id",
    "port_details",
    "status",
    "created_at",
    "project_id",
)
# How Cinder spells the project, of a volume and of a snapshot; to their own project's readers, too.
_PROJECT = ("os-vol-tenant-attr:tenant_id", "os-extended-snapshot-attributes:project_id")

_SNAPSHOTS_SAY_WHOSE = "3.41"  # Queens
_AT_ONCE = timedelta(hours=1)  # the longest call, and clocks that differ by more than a site check forgives


def read_volume(volume: Document) -> RemoteThing:
    """One volume of Cinder.

    Raises:
        SiteUnknown: a field is of another form than Cinder's.
    """
    try:
        holders = [_holder(attachment) for attachment in volume.get("attachments") or ()]
        seen = _thing(ThingKind.VOLUME, volume, attached_to=min(filter(None, holders), default=None))
    except (KeyError, TypeError, AttributeError) as error:
        raise foreign("reading a volume", f"{volume.get('id')} is not as Cinder writes it") from error
    return replace(seen, tags=None) if seen.tags is not None and _is_copy(volume, seen, seen.tags) else seen


def _is_copy(volume: Document, seen: RemoteThing, tags: Tags) -> bool:
    """Whether a volume has our tags because it was made from, or restored after, one of ours.

    Cinder writes a volume's metadata onto what is restored from its backup, and people copy it. Such a volume holds
    what somebody saved, and must never be taken for a leftover of ours: what Leeway makes is empty, and made at once.
    """
    if volume.get("snapshot_id") or volume.get("source_volid"):
        return True
    tried_at = _time_in(tags.attempt)
    return tried_at is not None and seen.created_at is not None and seen.created_at - tried_at > _AT_ONCE


def _time_in(identifier: UUID) -> datetime | None:
    """When an id was made, where it says so (RFC 9562, 5.7: version 7 begins with milliseconds since 1970)."""
    return datetime.fromtimestamp((identifier.int >> 80) / 1000, UTC) if identifier.version == 7 else None


def _holder(attachment: Document) -> str | None:
    """The server that has a volume; of one that a host has without a server, the host, else the attachment itself."""
    return attachment.get("server_id") or attachment.get("host_name") or attachment.get("attachment_id")


def read_volume_snapshot(snapshot: Document) -> RemoteThing:
    """One snapshot of a volume. Its size is the volume's: so much is taken from the quota, and mostly billed.

    Raises:
        SiteUnknown: a field is of another form than Cinder's.
    """
    try:
        return _thing(ThingKind.VOLUME_SNAPSHOT, snapshot)
    except (KeyError, TypeError) as error:
        raise foreign("reading a volume's snapshot", f"{snapshot.get('id')} is not as Cinder writes it") from error


def _thing(kind: ThingKind, document: Document, *, attached_to: str | None = None) -> RemoteThing:
    status, size = document["status"], document["size"]
    if not isinstance(status, str) or not isinstance(size, int):
        raise TypeError("status or size")
    return RemoteThing(
        kind,
        document["id"],
        _text(document.get("name")) or "",
        status,
        owner=_text(document.get("user_id")),
        attached_to=attached_to,
        size_gib=Decimal(size) if size > 0 else None,  # 0 while Cinder takes over a foreign disk
        created_at=utc(document.get("created_at")),
        tags=tags_in_metadata(document.get("metadata")),
        project=next(filter(None, (_text(document.get(name)) for name in _PROJECT)), None),
    )


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def read_address(address: Document) -> RemoteThing:
    """One public address; it has no name, so it is called what it is."""
    details = address.get("port_details")
    device = _text(details.get("device_id")) if isinstance(details, dict) else None
    return RemoteThing(
        ThingKind.ADDRESS,
        address["id"],
        _text(address.get("floating_ip_address")) or "",
        _text(address.get("status")) or "",
        attached_to=device or _text(address.get("port_id")),
        created_at=utc(address.get("created_at")),
        tags=tags_in_text(address.get("description")),
        project=_text(address.get("project_id")),
    )


def read_image(image: Document, seen: RemoteSnapshot) -> RemoteThing | None:
    """An image as something that costs; None for a public one. `seen` is the same image read as a snapshot.

    Of a machine that runs from a volume Nova saves a volume's snapshot and an image that names it: Glance holds none
    of its bytes, and what it says of their size would count them twice.
    """
    if image.get("visibility") == "public":
        return None
    return RemoteThing(
        ThingKind.SNAPSHOT,
        seen.remote_id,
        seen.name,
        seen.raw_status,
        owner=_text(image.get("user_id")),
        size_gib=None if image.get("block_device_mapping") else seen.size_gib,
        created_at=utc(image.get("created_at")),
        tags=seen.tags,
        project=_text(image.get("owner")),
    )


def cinder_things(session: Session, deadline: Deadline, read: ReadSoFar) -> list[RemoteThing]:
    """Every volume of the project and every snapshot of one; none where the region has no Cinder.

    One list after the other: a listing's other requests leave few of the site's places free.
    """
    if not session.has(Service.VOLUME, deadline):
        return []
    volumes = get(Service.VOLUME, "/volumes/detail", "listing the volumes")
    found = session.all(volumes, "volumes", read_volume, deadline, read=read)
    return [*found, *_volume_snapshots(session, deadline, read)]


def _volume_snapshots(session: Session, deadline: Deadline, read: ReadSoFar) -> list[RemoteThing]:
    """A Cinder before Queens does not say whose they are."""
    call = get(Service.VOLUME, "/snapshots/detail", "listing the volumes' snapshots")
    newer = Call(call.service, call.method, call.path, call.doing, microversion=_SNAPSHOTS_SAY_WHOSE)
    try:
        return session.all(newer, "snapshots", read_volume_snapshot, deadline, read=read)
    except SiteRefused as error:
        if error.http_status != 406:
            raise
        return session.all(call, "snapshots", read_volume_snapshot, deadline, read=read)
