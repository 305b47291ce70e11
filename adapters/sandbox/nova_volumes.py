"""Nova's os-volume_attachments: which volumes a server has. Giving and taking is Cinder's work (`volumes`)."""

from typing import Any

from adapters.sandbox import volumes
from adapters.sandbox.entities import Server, VmState
from adapters.sandbox.nova_servers import find_server
from adapters.sandbox.paging import page
from adapters.sandbox.state import is_visible
from adapters.sandbox.volume_entities import Volume, VolumeAttachment
from adapters.sandbox.wire import ApiError, Call, Handler, Reply

_HOLDING = (
    VmState.ACTIVE,
    VmState.PAUSED,
    VmState.STOPPED,
    VmState.RESIZED,
    VmState.SHELVED,
    VmState.SHELVED_OFFLOADED,
)
_GIVING_BACK = (*_HOLDING, VmState.SUSPENDED)


def _document(call: Call, volume: Volume, attachment: VolumeAttachment) -> dict[str, Any]:
    document: dict[str, Any] = {
        "id": volume.id,
        "volumeId": volume.id,
        "serverId": attachment.server_id,
        "device": attachment.device,
    }
    if call.version >= (2, 70):
        document["tag"] = None
    if call.version >= (2, 79):
        document["delete_on_termination"] = attachment.goes_with_it
    return document


def _attached(call: Call, server: Server) -> list[tuple[Volume, VolumeAttachment]]:
    known = (call.cloud.volumes[volume_id] for volume_id in server.volume_ids)
    return [(volume, volume.attachment) for volume in known if volume.attachment]


def list_attachments(call: Call) -> Reply:
    pairs, _ = page(call, _attached(call, find_server(call)), lambda pair: pair[0].id)
    return Reply(200, {"volumeAttachments": [_document(call, *pair) for pair in pairs]})


def _find(call: Call) -> tuple[Server, Volume, VolumeAttachment]:
    server = find_server(call)
    for volume, attachment in _attached(call, server):
        if volume.id == call.params["volume"]:
            return server, volume, attachment
    raise ApiError(404, f"Instance {server.id} is not attached to volume {call.params['volume']}")


def show_attachment(call: Call) -> Reply:
    _, volume, attachment = _find(call)
    return Reply(200, {"volumeAttachment": _document(call, volume, attachment)})


def _check_server(server: Server, what: str, allowed: tuple[VmState, ...]) -> None:
    if server.locked:
        raise ApiError(409, f"Instance {server.id} is locked")
    if server.vm_state not in allowed:
        raise ApiError(409, f"Cannot '{what}' instance {server.id} while it is in vm_state {server.vm_state}")


def is_known(call: Call, identifier: str) -> bool:
    """Whether the project has a volume of this id."""
    volume = call.cloud.volumes.get(identifier)
    return volume is not None and is_visible(volume, call.project.id, call.now)


def attach_volume(call: Call) -> Reply:
    server = find_server(call)
    wanted = call.document("volumeAttachment")
    identifier = str(wanted.get("volumeId"))
    _check_server(server, "attach_volume", _HOLDING)
    if not is_known(call, identifier):
        raise ApiError(404, f"Volume {identifier} could not be found.")
    volume = call.cloud.volumes[identifier]
    if volume.attachment is not None:
        text = f"volume {volume.id} is already attached to instances: {volume.attachment.server_id}"
        raise ApiError(400, f"Invalid volume: {text}")
    if volume.status != "available":
        text = f"volume '{volume.id}' status must be 'available'. Currently in '{volume.status}'"
        raise ApiError(400, f"Invalid volume: {text}")
    device = wanted.get("device")
    if device is not None and not isinstance(device, str):
        raise ApiError(400, f"Invalid input for field/attribute device. Value: {device}.")
    attachment = volumes.attach(call.cloud, volume, server, call.now, device=device)
    return Reply(200, {"volumeAttachment": _document(call, volume, attachment)})


def detach_volume(call: Call) -> Reply:
    if not is_known(call, call.params["volume"]):
        raise ApiError(404, f"Volume {call.params['volume']} could not be found.")
    server, volume, attachment = _find(call)
    _check_server(server, "detach_volume", _GIVING_BACK)
    if attachment.device == volumes.ROOT_DEVICE:
        raise ApiError(400, "Cannot detach a root device volume")
    if volume.status != "in-use":
        text = "Invalid volume: Invalid input received: Unable to detach volume. Volume status must be 'in-use'"
        raise ApiError(400, f"{text} and attach_status must be 'attached' to detach.")
    volumes.detach(call.cloud, volume, call.now)
    return Reply(202)


_BASE = "/compute/v2.1/servers/{server}/os-volume_attachments"
TABLE: dict[str, dict[str, Handler]] = {
    _BASE: {"GET": list_attachments, "POST": attach_volume},
    _BASE + "/{volume}": {"GET": show_attachment, "DELETE": detach_volume},
}
