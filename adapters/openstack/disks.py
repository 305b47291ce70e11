"""Disks of their own: volumes as parts of a lease, and how Nova is told which disks a machine has.

A machine's second disk is a volume that is made before it and deleted after it: a part. Its root disk may be a volume
too, but that one Nova makes itself, and takes away with the machine. Nobody has tagged it; it is known by its machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from uuid import UUID

from adapters.cloud import foreign, lease_in, part_name, tags_as_metadata
from adapters.openstack import things
from adapters.openstack.session import Call, Document, Service, Session, get, json_object
from broker.errors import SiteBusy, SiteConflict, SiteError, SiteRefused
from broker.remote import Deadline, MachineSpec, PartKind, RemotePart, RemoteThing, Tags

VOLUME_TYPE = "volume_type"  # the setting


# --- asking for them ---------------------------------------------------------------------------------------------


def require_cinder(session: Session, doing: str, deadline: Deadline) -> None:
    """Go on only where the site has volumes.

    Raises:
        SiteRefused: its catalogue names no Cinder; nothing was sent.
    """
    if not session.has(Service.VOLUME, deadline):
        where = f"region {session.site.region}" if session.site.region else "its region"
        hint = "Ask for machines without volumes there, or have the site's operator say where its Cinder is."
        raise SiteRefused(f"{doing}: the site has no volumes (no Cinder in the catalogue of {where})", hint=hint)


def volume(machine: MachineSpec, tags: Tags, volume_type: str | None) -> Document:
    """The second disk as Cinder is asked for it: empty, of the site's usual type unless the setting names one."""
    document: Document = {
        "name": part_name(tags.lease),
        "size": machine.volume_gib,
        "metadata": tags_as_metadata(tags),
    }
    return document | ({"volume_type": volume_type} if volume_type else {})


def boots_from(machine: MachineSpec, volume_id: str | None) -> Document:
    """The fields of a server that say what it boots from, and which other disk it has.

    Nova wants the image among the disks as soon as there is a list of them (else "Boot sequence ... is not valid"), and
    `imageRef` only where the root disk is the flavor's own.
    """
    if not machine.boot_volume_gib and volume_id is None:
        return {"imageRef": machine.image}
    root: Document = {
        "boot_index": 0,
        "uuid": machine.image,
        "source_type": "image",
        "destination_type": "local",
        "delete_on_termination": True,
    }
    if machine.boot_volume_gib:
        root |= {"destination_type": "volume", "volume_size": machine.boot_volume_gib}
    fields: Document = {} if machine.boot_volume_gib else {"imageRef": machine.image}
    second: Document = {
        "boot_index": -1,
        "uuid": volume_id,
        "source_type": "volume",
        "destination_type": "volume",
        "delete_on_termination": False,
    }
    return fields | {"block_device_mapping_v2": [root] if volume_id is None else [root, second]}


def why_refused(session: Session, volume_id: str, refusal: SiteRefused, deadline: Deadline) -> SiteError:
    """What Nova's 400 for a server with a volume means, by how the volume looks now.

    `SiteBusy` where it is still being made; `SiteConflict` where a machine has it, perhaps that of an earlier request,
    which is then looked for; else the refusal, with a hint where the volume is the reason.
    """
    doing = f"looking at volume {volume_id}"
    call = Call(Service.VOLUME, "GET", f"/volumes/{volume_id}", doing, expect=frozenset({200, 404}))
    answer = session.send(call, deadline)
    if answer.status == 404:
        refusal.hint = "Somebody deleted the machine's disk before the machine was made: order it again."
        return refusal
    document = json_object(answer.body, doing).get("volume")
    if not isinstance(document, dict):
        return foreign(doing, "no volume")
    seen = things.read_volume(document)
    said = f"{refusal.detail}; it is {seen.raw_status}"
    if seen.raw_status.startswith("error"):
        refusal.hint = f"Cinder could not make the machine's disk (it is {seen.raw_status}); ask the site's operator."
        return refusal
    if seen.raw_status in ("creating", "downloading", "detaching"):
        return SiteBusy(said, http_status=refusal.http_status)
    if seen.raw_status != "available":
        return SiteConflict(f"{said}: a machine has it", http_status=refusal.http_status)
    # It was not, a moment ago.
    return SiteBusy(said, http_status=refusal.http_status) if "Invalid volume" in refusal.detail else refusal


# --- seeing them -------------------------------------------------------------------------------------------------


def as_part(thing: RemoteThing) -> RemotePart:
    """A volume, or a snapshot of one, as a part."""
    return RemotePart(PartKind(thing.kind.value), thing.remote_id, thing.name, thing.tags)


def read_volume(document: Document) -> RemotePart:
    """One volume of Cinder; raises as `things.read_volume`."""
    return as_part(things.read_volume(document))


def read_volume_snapshot(document: Document) -> RemotePart:
    """One snapshot of a volume; raises as `things.read_volume_snapshot`."""
    return as_part(things.read_volume_snapshot(document))


def find_volumes(session: Session, kind: PartKind, *, lease: UUID, deadline: Deadline) -> list[RemotePart]:
    """Every volume (or snapshot of one) with the name or the tags of a lease, whatever a person did to the other.

    Two short lists instead of a long one: a Cinder that ignores a filter gives everything, which is as good.
    """
    path, key, read = (
        ("/volumes/detail", "volumes", read_volume)
        if kind is PartKind.VOLUME
        else ("/snapshots/detail", "snapshots", read_volume_snapshot)
    )
    doing = f"searching the {kind} of {lease}"
    found: dict[str, RemotePart] = {}
    for query in ({"name": part_name(lease)}, {"metadata": str({"leeway:lease": str(lease)})}):
        for part in session.all(get(Service.VOLUME, path, doing, **query), key, read, deadline):
            if lease in (lease_in(part.name), part.tags.lease if part.tags else None):
                found[part.remote_id] = part
    return list(found.values())


# --- taking them away --------------------------------------------------------------------------------------------


def why_it_stays(kind: PartKind, document: Document | None, refusal: SiteError) -> SiteError | None:
    """What Cinder's refusal to delete means, by how the thing looks now; None where it is going, or gone, already.

    Cinder says the same 400 for every state but `available` and the errors.
    """
    if document is None:
        return None
    status = document.get("status")
    if not isinstance(status, str):
        raise foreign(f"deleting the {kind}", "it has no status")
    if status == "deleting":
        return None
    said = f"deleting {kind} {document.get('id')}: it is {status}"
    if kind is PartKind.VOLUME and status in ("in-use", "reserved", "attaching", "detaching"):
        holder = things.read_volume(document).attached_to
        return SiteConflict(
            f"{said}, still attached" + (f" to {holder}" if holder else ""), http_status=refusal.http_status
        )
    if kind is PartKind.VOLUME and status in ("available", "error"):
        hint = "Somebody made snapshots of it, or gives it to another project: that has to end first."
        return SiteRefused(f"{said}, and Cinder keeps it", hint=hint, http_status=refusal.http_status)
    return SiteBusy(said, http_status=refusal.http_status)


def made_volume(machine: MachineSpec, made: Mapping[PartKind, str]) -> str | None:
    """The second disk that a machine is to be made with; None where it has none.

    Raises:
        SiteRefused: it has one, but that was not made.
    """
    if not machine.volume_gib:
        return None
    if PartKind.VOLUME not in made:
        raise SiteRefused("making the server: there is no volume yet; make the parts in the plan's order")
    return made[PartKind.VOLUME]
