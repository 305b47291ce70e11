"""Who may change things: members. A reader is refused as by services of Zed with `[oslo_policy] enforce_new_defaults`.

With these, reading needs the role reader as well, which every member has, but not every application credential of one:
its lists are refused here. (Real ones go further: to such a credential Neutron shows empty lists, and what it asks for
by id is not there for Neutron, Cinder and Glance.) Key pairs are the user's own, whatever the role.

What is not there is a 404, and no matter of roles. A malformed request of a reader is refused here for the role, which
Nova refuses for its form first.
"""

from collections.abc import Callable, Mapping

from adapters.sandbox.entities import MEMBER, READER
from adapters.sandbox.wire import ApiError, Call, Handler, Reply

Table = Mapping[str, Mapping[str, Handler]]

_VERBS = {"POST": "create", "PUT": "update", "PATCH": "update", "DELETE": "delete"}


def guarded(service: str, table: Table) -> Table:
    """The table with handlers that ask for the role first; a service without roles as it is."""
    if service not in _RULES:
        return table
    return {
        path: {method: _guard(service, method, path, table) for method in handlers} for path, handlers in table.items()
    }


def _guard(service: str, method: str, path: str, table: Table) -> Handler:
    handler, look = table[path][method], _look(path, table)
    needed = READER if method == "GET" else MEMBER
    words = _literals(path)

    def guard(call: Call) -> Reply:
        token = call.known_token
        if token is None or token.project is None or needed in token.roles:
            return handler(call)
        rule = _READING.get((service, "/".join(words[1:]))) if needed == READER else _RULES[service](call, words)
        if rule is None:
            return handler(call)
        if needed == MEMBER and look is not None:
            look(call)
        raise ApiError(403, _TEXTS[service].format(rule))

    return guard


def _look(path: str, table: Table) -> Handler | None:
    """What shows the thing that a path is about: the longest beginning of the path that names one."""
    while "}" in path:
        path = path[: path.rindex("}") + 1]
        if "GET" in table.get(path, ()):
            return table[path]["GET"]
        path = path[: path.rindex("{")]
    return None


def _literals(path: str) -> list[str]:
    """The words of a path that are the same for everybody, after those of service and version."""
    words = [word for word in path.split("/") if word and not word.startswith("{")]
    return words[1:]


# --- the rules' names --------------------------------------------------------------------------------------------

_TEXTS = {
    "compute": "Policy doesn't allow {} to be performed.",
    "network": "rule:{} is disallowed by policy",
    "image": "You are not authorized to complete {} action.",
    "volume": "Policy doesn't allow {} to be performed.",
}
_NOVA = {
    "metadata": "server-metadata",
    "tags": "os-server-tags",
    "os-volume_attachments": "os-volumes-attachments",
    "os-interface": "os-attach-interfaces",
}
_NOVA_ACTIONS = {
    "os-stop": "servers:stop",
    "os-start": "servers:start",
    "confirmResize": "servers:confirm_resize",
    "revertResize": "servers:revert_resize",
    "createImage": "servers:create_image",
    "shelve": "os-shelve:shelve",
    "shelveOffload": "os-shelve:shelve_offload",
    "unshelve": "os-shelve:unshelve",
    "suspend": "os-suspend-server:suspend",
    "resume": "os-suspend-server:resume",
    "pause": "os-pause-server:pause",
    "unpause": "os-pause-server:unpause",
    "lock": "os-lock-server:lock",
    "unlock": "os-lock-server:unlock",
    "forceDelete": "os-deferred-delete:force",
}
_GLANCE = {"POST": "add_image", "PATCH": "modify_image", "DELETE": "delete_image"}
# Service and the path's words -> the rule for reading it; others need no role.
_READING = {
    ("compute", "servers"): "os_compute_api:servers:index",
    ("compute", "servers/detail"): "os_compute_api:servers:detail",
    ("compute", "flavors/os-extra_specs"): "os_compute_api:os-flavor-extra-specs:index",
    ("compute", "os-quota-sets"): "os_compute_api:os-quota-sets:show",
    ("compute", "os-quota-sets/detail"): "os_compute_api:os-quota-sets:detail",
    ("compute", "os-server-groups"): "os_compute_api:os-server-groups:index",
    ("compute", "os-simple-tenant-usage"): "os_compute_api:os-simple-tenant-usage:show",
    ("image", "images"): "get_images",
    ("volume", "volumes"): "volume:get_all",
    ("volume", "volumes/detail"): "volume:get_all",
    ("volume", "snapshots"): "volume:get_all_snapshots",
    ("volume", "snapshots/detail"): "volume:get_all_snapshots",
    ("volume", "types"): "volume_extension:type_get_all",
    ("volume", "os-quota-sets"): "volume_extension:quotas:show",
}


def _nova(call: Call, words: list[str]) -> str | None:
    noun = words[-1]
    if noun == "os-keypairs":
        return None
    if noun == "action":
        name = _action(call)
        return f"os_compute_api:{_NOVA_ACTIONS.get(name, f'servers:{name}')}"
    verb = "update_all" if call.method == "PUT" and noun in ("metadata", "tags") else _VERBS[call.method]
    return f"os_compute_api:{_NOVA.get(noun, noun)}:{verb}"


def _neutron(call: Call, words: list[str]) -> str | None:
    return f"{_VERBS[call.method]}_{words[-1].removesuffix('s').replace('-', '_')}"


def _glance(call: Call, _words: list[str]) -> str | None:
    return _GLANCE.get(call.method, "modify_image")


def _cinder(call: Call, words: list[str]) -> str | None:
    noun = words[-1]
    if noun == "action":
        name = _action(call).removeprefix("os-")
        return "volume:extend" if name == "extend" else f"volume_extension:volume_actions:{name}"
    ending = {"volumes": "", "snapshots": "_snapshot", "metadata": "_volume_metadata"}.get(noun, f"_{noun}")
    return f"volume:{_VERBS[call.method]}{ending}"


def _action(call: Call) -> str:
    return next(iter(call.body), "") if isinstance(call.body, dict) else ""


_RULES: Mapping[str, Callable[[Call, list[str]], str | None]] = {
    "compute": _nova,
    "network": _neutron,
    "image": _glance,
    "volume": _cinder,
}
