"""Images that Nova makes of a server's disk, as Glance shows them. Their tags are properties of the image.

A machine hands the properties of the image it was started from on to every image that is made of it, by whoever makes
it: a person, or Nova itself, which shelves a machine into an image `<name>-shelved`. So an image with our tags may be a
descendant of our snapshot. Ours says in one more property which machine it was made of; Nova says the same in
`instance_uuid`, and of a descendant it says something else.
"""

from __future__ import annotations

from decimal import ROUND_UP, Decimal
from typing import Any
from uuid import UUID

from adapters.cloud import foreign, lease_in, tags_as_metadata, tags_in_metadata
from adapters.openstack.session import Document, Service, Session, get
from broker.remote import Deadline, PartKind, RemoteSnapshot, SnapshotState, Tags

_MACHINE = "leeway:machine"

# Glance's `status`. A word that is not here may become an image yet: SAVING never makes anybody give up or start.
_STATES = {
    "active": SnapshotState.READY,
    "killed": SnapshotState.FAILED,
    "deactivated": SnapshotState.FAILED,  # by the site's operator, who may undo it
    "error": SnapshotState.FAILED,
}
_GONE = frozenset({"deleted", "pending_delete"})
_GIB = 1024**3


def snapshot_properties(tags: Tags, server_id: str) -> dict[str, str]:
    """What a snapshot of ours carries. Nova and Glance both allow colons in names, and values of 255 characters."""
    return tags_as_metadata(tags) | {_MACHINE: server_id}


def read_snapshot(image: Document) -> RemoteSnapshot | None:
    """One image, whosever it is; None for one that is being thrown away.

    Raises:
        SiteUnknown: a field is of another form than Glance's.
    """
    status, name = image.get("status"), image.get("name") or ""
    if not isinstance(status, str) or not isinstance(name, str):
        raise foreign("reading an image", f"{image.get('id')} is not as Glance writes it")
    if status in _GONE:
        return None
    state = _STATES.get(status, SnapshotState.SAVING)
    size = _size(image) if state is SnapshotState.READY else None
    return RemoteSnapshot(PartKind.SNAPSHOT, image["id"], name, _own_tags(image, name), state, status, size)


def _own_tags(image: Document, name: str) -> Tags | None:
    tags = tags_in_metadata(image)
    if tags is None or lease_in(name) == tags.lease:
        return tags
    made_of = image.get("instance_uuid")
    return tags if made_of is None or made_of == image.get(_MACHINE) else None


def _size(image: Document) -> Decimal | None:
    """GiB that it takes in Glance, else of the disk that it unpacks to; None where Glance says neither."""
    sizes = [_whole(image.get("size")), _whole(image.get("virtual_size")), _whole(image.get("min_disk")) * _GIB]
    size = next((size for size in sizes if size), None)
    # Up, so that the smallest is not nothing.
    return None if size is None else (Decimal(size) / _GIB).quantize(Decimal("0.001"), rounding=ROUND_UP)


def _whole(value: Any) -> int:
    return value if isinstance(value, int) and value > 0 else 0


def read_owned_image(image: Document, owner: str) -> RemoteSnapshot | None:
    """As `read_snapshot`; None for an image of another project, as an old Glance or an administrator's view shows."""
    return read_snapshot(image) if image.get("owner") == owner else None


def snapshots(session: Session, deadline: Deadline, *, doing: str, lease: UUID) -> list[RemoteSnapshot]:
    """Every snapshot with the name or tags of a lease.

    Glance is asked for all images that the project owns, whatever their visibility, and for nobody else's. It could be
    asked for those with a certain tag, but would not then tell of one whose tags a person took away. A project has few
    images, mostly one page. One that a person hid (`os_hidden`) is not among them.
    """
    owner = session.token(deadline).project_id

    def if_its(image: Document) -> RemoteSnapshot | None:
        found = read_owned_image(image, owner)
        if found is None:
            return None
        return found if lease in (lease_in(found.name), found.tags.lease if found.tags else None) else None

    return session.all(get(Service.IMAGE, "/v2/images", doing, owner=owner), "images", if_its, deadline)
