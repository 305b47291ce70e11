"""Nova's os-server-groups, and the hint in a request for a server that puts it into one."""

import re
from typing import Any

from adapters.sandbox.entities import ServerGroup
from adapters.sandbox.state import is_visible, new_id
from adapters.sandbox.wire import ApiError, Call, Handler, Reply

Document = dict[str, Any]

MOST_GROUPS = MOST_MEMBERS = 10  # Nova's defaults: groups of a project, servers of a group
_POLICIES = ("anti-affinity", "affinity")
_SOFT = ("soft-anti-affinity", "soft-affinity")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_HINTS = ("os:scheduler_hints", "OS-SCH-HNT:scheduler_hints")


def members(call: Call, group: ServerGroup) -> list[str]:
    """The servers of a group that exist and show."""
    return [
        server.id
        for server in call.cloud.servers.values()
        if server.group_id == group.id and is_visible(server, group.project_id, call.now)
    ]


def _document(call: Call, group: ServerGroup) -> Document:
    if call.version >= (2, 64):
        policy: Document = {"policy": group.policy, "rules": dict(group.rules)}
    else:
        policy = {"policies": [group.policy], "metadata": {}}
    document = {"id": group.id, "name": group.name, **policy, "members": members(call, group)}
    if call.version >= (2, 13):
        document |= {"project_id": group.project_id, "user_id": group.user_id}
    return document


def _own(call: Call) -> list[ServerGroup]:
    return [group for group in call.cloud.server_groups.values() if group.project_id == call.project.id]


def list_groups(call: Call) -> Reply:
    """By `limit` and `offset`; a marker, as elsewhere in Nova, is ignored."""
    numbers = []
    for name, default in (("offset", 0), ("limit", call.cloud.config.page_limit)):
        text = call.query.get(name, str(default))
        if not text.isdecimal():
            raise ApiError(400, f"Invalid input for query parameters {name}. Value: {text}.")
        numbers.append(int(text))
    offset, limit = numbers
    chosen = _own(call)[offset : offset + min(limit, call.cloud.config.page_limit)]
    return Reply(200, {"server_groups": [_document(call, group) for group in chosen]})


def create_group(call: Call) -> Reply:
    """A policy in a list below microversion 2.64, alone and with rules from there on; the soft ones from 2.15 on."""
    wanted = call.document("server_group")
    name = wanted.get("name")
    if not isinstance(name, str) or not 1 <= len(name) <= 255:
        raise ApiError(400, f"Invalid input for field/attribute name. Value: {name}. '{name}' is too short")
    policy, rules = _policy(call, wanted)
    if len(_own(call)) >= MOST_GROUPS:
        raise ApiError(403, "Quota exceeded, too many server groups.")
    group = ServerGroup(
        id=new_id(),
        name=name,
        policy=policy,
        rules=rules,
        project_id=call.project.id,
        user_id=call.token.user.id,
    )
    call.cloud.server_groups[group.id] = group
    call.cloud.record(call.now, "server_group", "created", group, request_id=call.request_id)
    return Reply(200, {"server_group": _document(call, group)})


def _policy(call: Call, wanted: Document) -> tuple[str, dict[str, int]]:
    allowed = [*_POLICIES, *(_SOFT if call.version >= (2, 15) else ())]
    if call.version >= (2, 64):
        field, policy = "policy", wanted.get("policy")
    else:
        given = wanted.get("policies")
        if not isinstance(given, list) or len(given) != 1:
            raise ApiError(400, f"Invalid input for field/attribute policies. Value: {given}. Give exactly one.")
        field, policy = "0", given[0]
    if policy not in allowed:
        text = f"Value: {policy}. '{policy}' is not one of {allowed}"
        raise ApiError(400, f"Invalid input for field/attribute {field}. {text}")
    rules = wanted.get("rules", {}) if call.version >= (2, 64) else {}
    most = rules.get("max_server_per_host") if isinstance(rules, dict) else 0
    if not isinstance(rules, dict) or set(rules) - {"max_server_per_host"} or (rules and not _is_count(most)):
        raise ApiError(400, f"Invalid input for field/attribute rules. Value: {rules}.")
    if rules and policy != "anti-affinity":
        raise ApiError(400, "Only anti-affinity policy supports rules.")
    return str(policy), {key: int(value) for key, value in rules.items()}


def _is_count(value: Any) -> bool:
    return isinstance(value, int | str) and str(value).isdecimal() and int(value) > 0


def _group(call: Call) -> ServerGroup:
    group = call.cloud.server_groups.get(call.params["group"])
    if group is None or group.project_id != call.project.id:
        raise ApiError(404, f"Instance group {call.params['group']} could not be found.")
    return group


def show_group(call: Call) -> Reply:
    return Reply(200, {"server_group": _document(call, _group(call))})


def delete_group(call: Call) -> Reply:
    """Its servers stay, in no group."""
    group = _group(call)
    del call.cloud.server_groups[group.id]
    for server in call.cloud.servers.values():
        if server.group_id == group.id:
            server.group_id = ""
    call.cloud.record(call.now, "server_group", "deleted", group, request_id=call.request_id)
    return Reply(204)


def hinted(call: Call) -> str:
    """The id of the group that a request for a server names in its hints; empty where it names none.

    Raises:
        ApiError: 400, it is no id or there is no such group; 403, the group is full.
    """
    body = call.body if isinstance(call.body, dict) else {}
    hints: Any = next((body[name] for name in _HINTS if name in body), {})
    wanted = hints.get("group") if isinstance(hints, dict) else None
    if wanted is None:
        return ""
    if not isinstance(wanted, str) or not _UUID.fullmatch(wanted):
        raise ApiError(400, f"Invalid input for field/attribute group. Value: {wanted}. '{wanted}' is not a 'uuid'")
    group = call.cloud.server_groups.get(wanted)
    if group is None or group.project_id != call.project.id:
        raise ApiError(400, f"Instance group {wanted} could not be found.")
    if len(members(call, group)) >= MOST_MEMBERS:
        raise ApiError(403, "Quota exceeded, too many servers in group")
    return group.id


_GROUPS = "/compute/v2.1/os-server-groups"
TABLE: dict[str, dict[str, Handler]] = {
    _GROUPS: {"GET": list_groups, "POST": create_group},
    _GROUPS + "/{group}": {"GET": show_group, "DELETE": delete_group},
}
