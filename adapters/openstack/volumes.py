"""Giving volumes to servers that are there, and taking them away: Nova's os-volume_attachments.

Both take a moment at the site after its answer. Nova refuses with a 400 what is so already, or under way, so what its
refusal means is read from the volume.
"""

from __future__ import annotations

from urllib.parse import quote

from adapters.openstack import disks, things
from adapters.openstack.faults import says_gone
from adapters.openstack.session import Call, Service, Session, get
from broker.errors import SiteBusy, SiteConflict, SiteRefused, SiteUnknown
from broker.remote import Deadline, RemoteThing

_GIVEN, _TAKEN = frozenset({200, 202}), frozenset({202, 404})


def attach(session: Session, server_id: str, volume_id: str, deadline: Deadline) -> None:
    """Give a volume to a server; that it has it, or is being given it, is fine.

    Raises:
        SiteConflict: another server has the volume, or the server's state does not allow it.
        SiteBusy: the volume is still being made, or taken away.
        SiteRefused: the site has no Cinder, or one of the two is not there.
    """
    doing = f"attaching volume {volume_id} to server {server_id}"
    disks.require_cinder(session, doing, deadline)
    body = {"volumeAttachment": {"volumeId": volume_id}}
    try:
        session.send(Call(Service.COMPUTE, "POST", _path(server_id), doing, body=body, expect=_GIVEN), deadline)
    except SiteRefused as error:
        if error.http_status not in (400, 409):
            raise
        seen = _look(session, volume_id, deadline)
        if seen.raw_status in ("creating", "downloading", "detaching"):
            raise SiteBusy(f"{error.detail}; it is {seen.raw_status}", http_status=error.http_status) from error
        if seen.raw_status not in ("reserved", "attaching", "in-use"):
            raise
        if not _has(session, server_id, volume_id, deadline):
            raise SiteConflict(error.detail, http_status=error.http_status) from error


def detach(session: Session, server_id: str, volume_id: str, deadline: Deadline) -> None:
    """Take a volume away from a server; that it has it no more, or is losing it, is fine.

    Raises:
        SiteConflict: the server's state does not allow it.
        SiteBusy: the volume is still being given to it.
        SiteRefused: the server is not there, or the volume is its root disk.
    """
    doing = f"detaching volume {volume_id} from server {server_id}"
    disks.require_cinder(session, doing, deadline)
    call = Call(Service.COMPUTE, "DELETE", _path(server_id, volume_id), doing, expect=_TAKEN)
    try:
        answer = session.send(call, deadline)
    except SiteRefused as error:
        if error.http_status not in (400, 409):
            raise
        status = _look(session, volume_id, deadline).raw_status
        if status in ("reserved", "attaching"):
            raise SiteBusy(f"{error.detail}; it is {status}", http_status=error.http_status) from error
        # For a moment Cinder has it back, and Nova still counts it among the server's.
        if status not in ("detaching", "available") and _has(session, server_id, volume_id, deadline):
            raise
        return
    # "Instance ... is not attached to volume ...", or "Volume ... could not be found."; of the server alone it is none.
    if answer.status == 404 and not says_gone(answer.body, volume_id):
        if says_gone(answer.body, server_id):
            raise SiteRefused(f"{doing}: there is no such server", http_status=404)
        raise SiteUnknown(f"{doing}: a 404 that speaks of neither", http_status=404)


def _path(server_id: str, volume_id: str | None = None) -> str:
    path = f"/servers/{quote(server_id, safe='')}/os-volume_attachments"
    return path if volume_id is None else f"{path}/{quote(volume_id, safe='')}"


def _look(session: Session, volume_id: str, deadline: Deadline) -> RemoteThing:
    call = get(Service.VOLUME, f"/volumes/{quote(volume_id, safe='')}", f"looking at volume {volume_id}")
    return things.read_volume(session.one(call, "volume", deadline))


def _has(session: Session, server_id: str, volume_id: str, deadline: Deadline) -> bool:
    """Whether Nova counts the volume among the server's, from the request to attach it until it is detached."""
    doing = f"looking whether server {server_id} has volume {volume_id}"
    call = Call(Service.COMPUTE, "GET", _path(server_id, volume_id), doing, expect=frozenset({200, 404}))
    answer = session.send(call, deadline)
    if answer.status == 404 and not says_gone(answer.body, volume_id):
        raise SiteUnknown(f"{doing}: a 404 that does not speak of it", http_status=404)
    return answer.status == 200
