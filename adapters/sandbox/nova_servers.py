"""Servers: lists, one of them, changes to its name, metadata and tags, its interfaces, its end."""

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from adapters.sandbox import machines
from adapters.sandbox.entities import Server
from adapters.sandbox.nova_create import checked_tags, create_server, metadata
from adapters.sandbox.nova_views import groups_of, server_document, server_summary, status
from adapters.sandbox.paging import page
from adapters.sandbox.state import is_visible, visible
from adapters.sandbox.wire import ApiError, Call, Reply


def _chosen(call: Call) -> list[Server]:
    """The servers the query asks for, newest first."""
    query, cloud = call.query, call.cloud
    if query.get("all_tenants", "0") not in ("0", "false", "False"):
        raise ApiError(403, "Policy doesn't allow os_compute_api:servers:detail:get_all_tenants to be performed.")
    servers: Iterable[Server] = visible(cloud.servers.values(), call.project.id, call.now)
    changes_since = query.get("changes-since")
    if changes_since is not None:
        since = _moment(changes_since)
        both = [*servers, *visible(cloud.deleted_servers.values(), call.project.id, call.now)]
        servers = [server for server in both if server.updated.replace(microsecond=0) >= since]
    if "name" in query:
        try:
            pattern = re.compile(query["name"])
        except re.error as error:
            raise ApiError(400, f"Invalid filter field: name: {error}") from error
        servers = [server for server in servers if pattern.search(server.name)]
    if "status" in query:
        wanted = {text.upper() for text in query.getlist("status")}
        servers = [server for server in servers if status(server) in wanted]
    if "flavor" in query:
        servers = [server for server in servers if server.flavor.id == query["flavor"]]
    if "image" in query:
        servers = [server for server in servers if server.image_id == query["image"]]
    if "tags" in query and call.version >= (2, 26):
        tags = set(query["tags"].split(","))
        servers = [server for server in servers if tags <= set(server.tags)]
    return _sorted(call, servers)


_SORT_KEYS = {
    "created_at": lambda server: server.serial,
    "updated_at": lambda server: server.updated,
    "display_name": lambda server: server.name,
    "uuid": lambda server: server.id,
}


def _sorted(call: Call, servers: Iterable[Server]) -> list[Server]:
    """By creation, newest first, unless asked otherwise; only the first sort key counts here."""
    key = _SORT_KEYS.get(call.query.get("sort_key", "created_at"))
    if key is None:
        raise ApiError(400, "Invalid input for query parameters sort_key.")
    ordered = sorted(servers, key=lambda server: server.serial, reverse=True)
    return sorted(ordered, key=key, reverse=call.query.get("sort_dir", "desc") == "desc")


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise ApiError(400, f"Invalid filter field: changes-since. {text} is not an ISO 8601 time") from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _list(call: Call, *, detail: bool) -> Reply:
    chosen, following = page(call, _chosen(call), lambda server: server.id, default_limit=call.cloud.config.page_limit)
    documents = [
        server_document(call, server, alone=False) if detail else server_summary(call, server) for server in chosen
    ]
    body: dict[str, Any] = {"servers": documents}
    if following is not None:
        body["servers_links"] = [{"rel": "next", "href": following}]
    return Reply(200, body)


def list_servers(call: Call) -> Reply:
    return _list(call, detail=False)


def list_servers_in_detail(call: Call) -> Reply:
    return _list(call, detail=True)


def find_server(call: Call, *, hidden_too: bool = False) -> Server:
    """The server of the path. A server the fault `hidden` hides still takes orders, but is not shown.

    Raises:
        ApiError: 404.
    """
    project_id = call.project.id
    server = call.cloud.servers.get(call.params["server"])
    if (
        server is None
        or server.project_id != project_id
        or not (hidden_too or is_visible(server, project_id, call.now))
    ):
        raise ApiError(404, f"Instance {call.params['server']} could not be found.")
    return server


def show_server(call: Call) -> Reply:
    return Reply(200, {"server": server_document(call, find_server(call), alone=True)})


def update_server(call: Call) -> Reply:
    server = find_server(call, hidden_too=True)
    wanted = call.document("server")
    if isinstance(wanted.get("name"), str) and wanted["name"].strip():
        server.name = wanted["name"].strip()
    if "description" in wanted and call.version >= (2, 19):
        server.description = wanted["description"]
    server.updated = call.now
    return Reply(200, {"server": server_document(call, server, alone=True)})


def delete_server(call: Call) -> Reply:
    server = find_server(call, hidden_too=True)
    machines.delete(call.cloud, server, call.now)
    machines.note(server, "delete", call.now, request_id=call.request_id, user_id=call.token.user.id)
    return Reply(204)


def show_metadata(call: Call) -> Reply:
    return Reply(200, {"metadata": dict(find_server(call).metadata)})


def update_metadata(call: Call) -> Reply:
    """POST adds to the metadata, PUT replaces all."""
    server = find_server(call, hidden_too=True)
    given = metadata(call.document("metadata"))
    server.metadata = given if call.method == "PUT" else server.metadata | given
    server.updated = call.now
    return Reply(200, {"metadata": dict(server.metadata)})


def delete_metadata_item(call: Call) -> Reply:
    server = find_server(call, hidden_too=True)
    if server.metadata.pop(call.params["key"], None) is None:
        raise ApiError(404, "Metadata item was not found")
    server.updated = call.now
    return Reply(204)


def _require_tags_version(call: Call) -> None:
    if call.version < (2, 26):
        raise ApiError(404, "The resource could not be found.")


def show_tags(call: Call) -> Reply:
    _require_tags_version(call)
    return Reply(200, {"tags": list(find_server(call).tags)})


def replace_tags(call: Call) -> Reply:
    _require_tags_version(call)
    server = find_server(call, hidden_too=True)
    server.tags = checked_tags(call.body.get("tags") if isinstance(call.body, dict) else None)
    server.updated = call.now
    return Reply(200, {"tags": list(server.tags)})


def list_interfaces(call: Call) -> Reply:
    ports = [call.cloud.ports[port_id] for port_id in find_server(call).port_ids]
    documents = [
        {
            "port_id": port.id,
            "net_id": port.network_id,
            **({"tag": None} if call.version >= (2, 70) else {}),
            "mac_addr": port.mac_address,
            "port_state": "ACTIVE",
            "fixed_ips": [{"subnet_id": port.subnet_id, "ip_address": port.address}],
        }
        for port in ports
    ]
    return Reply(200, {"interfaceAttachments": documents})


def list_security_groups(call: Call) -> Reply:
    groups = [
        {
            "id": group.id,
            "name": group.name,
            "description": group.description,
            "tenant_id": group.project_id,
            "rules": [],
        }
        for group in groups_of(call, find_server(call))
    ]
    return Reply(200, {"security_groups": groups})


_BASE = "/compute/v2.1/servers"
_ONE = _BASE + "/{server}"
TABLE = {
    _BASE: {"GET": list_servers, "POST": create_server},
    _BASE + "/detail": {"GET": list_servers_in_detail},
    _ONE: {"GET": show_server, "PUT": update_server, "DELETE": delete_server},
    _ONE + "/metadata": {"GET": show_metadata, "POST": update_metadata, "PUT": update_metadata},
    _ONE + "/metadata/{key}": {"DELETE": delete_metadata_item},
    _ONE + "/tags": {"GET": show_tags, "PUT": replace_tags},
    _ONE + "/os-interface": {"GET": list_interfaces},
    _ONE + "/os-security-groups": {"GET": list_security_groups},
}
