"""POST /servers/{id}/action, and what `os-instance-actions` tells of it.

Nova looks at an action in this order: its form (400), the server (404), a lock and the server's state (409), what it
asks for (400, 403). Only then it is written down, and taken (202).
"""

import re
import secrets
from collections.abc import Callable
from datetime import datetime
from typing import Any

from adapters.sandbox import machines, remaking
from adapters.sandbox.entities import Action, Flavor, Image, Server, VmState
from adapters.sandbox.faults import FaultKind
from adapters.sandbox.machines import ORDERS, Order
from adapters.sandbox.nova_create import check_image, check_quota
from adapters.sandbox.nova_images import create_image
from adapters.sandbox.nova_servers import find_server
from adapters.sandbox.nova_views import host_id, server_document
from adapters.sandbox.wire import ApiError, Call, Handler, Reply

_Act = Callable[[Call, Server, Any], Reply]

# Nova's word in the request -> its word in refusals and in the list of actions.
_SIMPLE = {
    "os-stop": "stop",
    "os-start": "start",
    "suspend": "suspend",
    "resume": "resume",
    "pause": "pause",
    "unpause": "unpause",
    "shelve": "shelve",
    "unshelve": "unshelve",
}
# The administrator's alone, by Nova's own policy.
_NOT_FOR_MEMBERS = {"shelveOffload": "os_compute_api:os-shelve:shelve_offload"}
_MAY_BE_REBUILT = (VmState.ACTIVE, VmState.STOPPED, VmState.ERROR)
_UUID = re.compile(r"[0-9a-f]{8}-?([0-9a-f]{4}-?){3}[0-9a-f]{12}", re.IGNORECASE)


def act_on_server(call: Call) -> Reply:
    """One action: 202, mostly without a word, and the server changes over time."""
    if not isinstance(call.body, dict) or len(call.body) != 1:
        raise ApiError(400, "Malformed request body")
    name, argument = next(iter(call.body.items()))
    if name not in _ACTIONS:
        raise ApiError(400, f"There is no such action: {name}")
    check_form, act = _ACTIONS[name]
    check_form(argument)
    return act(call, find_server(call, hidden_too=True), argument)


def _note(call: Call, server: Server, name: str) -> None:
    machines.note(server, name, call.now, request_id=call.request_id, user_id=call.token.user.id)


def _not_for_members(rule: str) -> _Act:
    def refuse(_call: Call, _server: Server, _argument: Any) -> Reply:
        raise ApiError(403, f"Policy doesn't allow {rule} to be performed.")

    return refuse


def _simple(order: Order, name: str) -> _Act:
    def act(call: Call, server: Server, _argument: Any) -> Reply:
        machines.check(server, name, order.allowed)
        _note(call, server, name)
        machines.give(call.cloud, server, order, call.now)
        return Reply(202)

    return act


def _reboot(call: Call, server: Server, argument: Any) -> Reply:
    order = ORDERS["reboot_hard" if str(argument["type"]).upper() == "HARD" else "reboot"]
    return _simple(order, "reboot")(call, server, None)


def _lock(call: Call, server: Server, argument: Any) -> Reply:
    server.locked = True
    server.locked_reason = argument.get("locked_reason") if isinstance(argument, dict) else None
    return _at_once(call, server, "lock")


def _unlock(call: Call, server: Server, _argument: Any) -> Reply:
    server.locked, server.locked_reason = False, None
    return _at_once(call, server, "unlock")


def _at_once(call: Call, server: Server, name: str) -> Reply:
    _note(call, server, name)
    server.actions[-1].finished = call.now
    return Reply(202)


def _force_delete(call: Call, server: Server, _argument: Any) -> Reply:
    machines.delete(call.cloud, server, call.now)
    return Reply(202)


def _create_image(call: Call, server: Server, argument: Any) -> Reply:
    reply = create_image(call, server, argument)
    _note(call, server, "createImage")
    server.actions[-1].finished = call.now
    return reply


# --- size --------------------------------------------------------------------------------------------------------


def _resize(call: Call, server: Server, argument: Any) -> Reply:
    machines.check(server, "resize", (VmState.ACTIVE, VmState.STOPPED))
    flavor = _flavor(call, str(argument["flavorRef"]))
    if flavor.id == server.flavor.id:
        raise ApiError(400, "When resizing, instances must change flavor!")
    check_quota(call, call.project, flavor, former=server.flavor)
    full = call.effect(FaultKind.NO_CAPACITY)
    _note(call, server, "resize")
    remaking.resize(call.cloud, server, flavor, call.now, no_room_after=None if full is None else full.seconds)
    return Reply(202)


def _flavor(call: Call, reference: str) -> Flavor:
    flavor = call.cloud.flavors.get(reference.rpartition("/")[2])
    if flavor is None:
        raise ApiError(400, f"Flavor {reference} could not be found.")
    return flavor


def _confirm_resize(call: Call, server: Server, _argument: Any) -> Reply:
    _check_resized(server, "confirmResize")
    _note(call, server, "confirmResize")
    remaking.confirm(call.cloud, server, call.now)
    return Reply(204)


def _revert_resize(call: Call, server: Server, _argument: Any) -> Reply:
    _check_resized(server, "revertResize")
    if server.former is not None:
        check_quota(call, call.project, server.former.flavor, former=server.flavor)
    _note(call, server, "revertResize")
    remaking.revert(call.cloud, server, call.now)
    return Reply(202)


def _check_resized(server: Server, name: str) -> None:
    machines.check(server, name, (VmState.RESIZED,))
    if remaking.is_being_confirmed(server):
        raise ApiError(400, "Instance has not been resized.")


# --- disk --------------------------------------------------------------------------------------------------------


def _rebuild(call: Call, server: Server, argument: Any) -> Reply:
    machines.check(server, "rebuild", _MAY_BE_REBUILT)
    image = _image(call, str(argument["imageRef"]))
    root = server.root_disk
    if root is not None and root.image.id != image.id:
        reason = "Unable to rebuild with a different image for a volume-backed server."
        raise ApiError(400, f"Image {image.id} is unacceptable: {reason}")
    check_image(server.flavor, image)
    _note(call, server, "rebuild")
    remaking.rebuild(call.cloud, server, image, call.now)
    where = f"{call.base_url}/compute/v2.1/servers/{server.id}"
    return Reply(202, {"server": _rebuilt_document(call, server)}, {"Location": where})


def _image(call: Call, identifier: str) -> Image:
    image = call.cloud.images.get(identifier)
    if image is None or image.project_id not in ("", call.project.id):
        raise ApiError(400, "Cannot find image for rebuild")
    return image


def _rebuilt_document(call: Call, server: Server) -> dict[str, Any]:
    """The server with a new password. Before 2.75 it shows less than a GET does."""
    document = server_document(call, server, alone=True)
    if call.version < (2, 75):
        hidden = ("OS-EXT-", "OS-SRV-USG:", "os-extended-volumes:", "config_drive", "security_groups", "key_name")
        document = {key: value for key, value in document.items() if not key.startswith(hidden)}
    if call.version >= (2, 54):
        document["key_name"] = server.key_name
    if call.version >= (2, 57):
        document["user_data"] = server.user_data
    return document | {"adminPass": secrets.token_urlsafe(9)}


# --- the table ---------------------------------------------------------------------------------------------------


def _any_form(_argument: Any) -> None:
    """Nova looks at no argument of these."""


def _with(action: str, key: str) -> Callable[[Any], None]:
    def check(argument: Any) -> None:
        wrong = f"Invalid input for field/attribute {action}. Value: {argument}."
        if not isinstance(argument, dict):
            raise ApiError(400, f"{wrong} {argument} is not of type 'object'")
        if key not in argument:
            raise ApiError(400, f"{wrong} '{key}' is a required property")

    return check


def _with_image(argument: Any) -> None:
    _with("rebuild", "imageRef")(argument)
    image = argument["imageRef"]
    if not isinstance(image, str) or not _UUID.fullmatch(image):
        raise ApiError(400, f"Invalid input for field/attribute imageRef. Value: {image}. '{image}' is not a 'uuid'")


_ACTIONS: dict[str, tuple[Callable[[Any], None], _Act]] = {
    **{word: (_any_form, _simple(ORDERS[order], word.removeprefix("os-"))) for word, order in _SIMPLE.items()},
    **{word: (_any_form, _not_for_members(rule)) for word, rule in _NOT_FOR_MEMBERS.items()},
    "reboot": (_with("reboot", "type"), _reboot),
    "lock": (_any_form, _lock),
    "unlock": (_any_form, _unlock),
    "forceDelete": (_any_form, _force_delete),
    "createImage": (_any_form, _create_image),
    "resize": (_with("resize", "flavorRef"), _resize),
    "confirmResize": (_any_form, _confirm_resize),
    "revertResize": (_any_form, _revert_resize),
    "rebuild": (_with_image, _rebuild),
}

# --- os-instance-actions -----------------------------------------------------------------------------------------

# What the compute node does for an action, in the order in which it is listed: the last step first.
_EVENTS = {
    "create": ("compute__do_build_and_run_instance",),
    "lock": ("api_lock",),
    "unlock": ("api_unlock",),
    "rebuild": ("compute_rebuild_instance", "rebuild_server"),
    "resize": (
        "compute_finish_resize",
        "compute_resize_instance",
        "compute_prep_resize",
        "cold_migrate",
        "conductor_migrate_server",
    ),
    "confirmResize": ("compute_confirm_resize",),
    "revertResize": ("compute_finish_revert_resize", "compute_revert_resize"),
    "createImage": ("compute_snapshot_instance",),
    "delete": ("compute_terminate_instance",),
}
_FAILED_RESIZE = ("cold_migrate", "conductor_migrate_server")


def _acted_on(call: Call) -> Server:
    """The server of the path; from 2.21 on also one that is deleted."""
    server = call.cloud.deleted_servers.get(call.params["server"])
    if call.version >= (2, 21) and server is not None and server.project_id == call.project.id:
        return server
    return find_server(call)


def list_actions(call: Call) -> Reply:
    server = _acted_on(call)
    documents = [_action_document(call, server, action) for action in reversed(server.actions)]
    return Reply(200, {"instanceActions": documents})


def show_action(call: Call) -> Reply:
    server = _acted_on(call)
    for action in server.actions:
        if action.request_id == call.params["request"]:
            document = _action_document(call, server, action)
            host = {"hostId": host_id(server)} if call.version >= (2, 62) else {}
            if call.version >= (2, 51):
                document["events"] = [event | host for event in _events(action)]
            return Reply(200, {"instanceAction": document})
    raise ApiError(404, f"Action {call.params['request']} not found")


def _moment(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%S.%f}"


def _action_document(call: Call, server: Server, action: Action) -> dict[str, Any]:
    document = {
        "action": action.name,
        "instance_uuid": server.id,
        "request_id": action.request_id,
        "user_id": action.user_id,
        "project_id": server.project_id,
        "start_time": _moment(action.started),
        "message": "Error" if action.failed else None,
    }
    return document | ({"updated_at": _moment(action.finished or action.started)} if call.version >= (2, 58) else {})


def _events(action: Action) -> list[dict[str, Any]]:
    names = _EVENTS.get(action.name, (f"compute_{action.name}_instance",))
    if action.failed and action.name == "resize":
        names = _FAILED_RESIZE
    finished = action.finished and _moment(action.finished)
    result = ("Error" if action.failed else "Success") if finished else None
    return [
        {"event": name, "start_time": _moment(action.started), "finish_time": finished, "result": result}
        for name in names
    ]


_ONE = "/compute/v2.1/servers/{server}"
TABLE: dict[str, dict[str, Handler]] = {
    _ONE + "/action": {"POST": act_on_server},
    _ONE + "/os-instance-actions": {"GET": list_actions},
    _ONE + "/os-instance-actions/{request}": {"GET": show_action},
}
