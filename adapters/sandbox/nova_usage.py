"""os-simple-tenant-usage: what a project's servers were, as Nova itself counts it, those that are gone included.

Counted is from `launched_at`, which a resize and a rebuild set anew, to the end, or to now. Below microversion 2.40
Nova stops at `page_limit` servers and does not say so; from 2.40 on it pages, in the order of the servers' ids.
"""

from datetime import UTC, datetime
from typing import Any

from adapters.sandbox.entities import Server, VmState
from adapters.sandbox.paging import page
from adapters.sandbox.wire import ApiError, Call, Handler, Reply


def show_usage(call: Call) -> Reply:
    """The project's servers that ran in the period. Where there are none, an empty object."""
    if call.params["project"] != call.project.id:
        raise ApiError(403, "Policy doesn't allow os_compute_api:os-simple-tenant-usage:show to be performed.")
    start, end = _period(call)
    counted = sorted(_counted(call, start, end), key=lambda server: server.id)
    if call.version < (2, 40):
        chosen, following = counted[: call.cloud.config.page_limit], None
    else:
        marker = call.query.get("marker")
        if marker is not None and not any(server.id == marker for server in counted):
            raise ApiError(400, f"Marker {marker} could not be found.")
        some, following = page(call, counted, lambda server: server.id, default_limit=call.cloud.config.page_limit)
        chosen = list(some)
    body: dict[str, Any] = {"tenant_usage": _usage_document(call, chosen, start, end) if chosen else {}}
    if following is not None:
        body["tenant_usage_links"] = [{"rel": "next", "href": following}]
    return Reply(200, body)


def refuse_list(_call: Call) -> Reply:
    """Every project's usage is for administrators."""
    raise ApiError(403, "Policy doesn't allow os_compute_api:os-simple-tenant-usage:list to be performed.")


def _period(call: Call) -> tuple[datetime, datetime]:
    """`start` and `end` of the query, both by default now; the end is never later than that."""
    start, end = (_moment(call.query.get(name), call.now) for name in ("start", "end"))
    if start >= end and "start" in call.query:
        raise ApiError(400, "Invalid start time. The start time cannot occur after the end time.")
    return start, min(end, call.now)


def _moment(text: str | None, now: datetime) -> datetime:
    """Nova's own three forms, none of which names a zone."""
    if text is None:
        return now
    for form in ("%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S.%f", "%Y-%m-%d %H:%M:%S.%f"):
        try:
            return datetime.strptime(text, form).replace(tzinfo=UTC)
        except ValueError:
            continue
    raise ApiError(400, "Invalid datetime string: Datetime is in invalid format")


def _counted(call: Call, start: datetime, end: datetime) -> list[Server]:
    everything = [*call.cloud.servers.values(), *call.cloud.deleted_servers.values()]
    return [
        server
        for server in everything
        if server.project_id == call.project.id
        and server.launched_at is not None
        and server.launched_at < end
        and (server.terminated_at is None or server.terminated_at > start)
    ]


def _hours(server: Server, start: datetime, end: datetime) -> float:
    """Hours of the server within [start, end); less than none in a period that is still to come, as Nova says it."""
    first = max(server.launched_at or start, start)
    last = min(server.terminated_at or end, end)
    return (last - first).total_seconds() / 3600


def _usage_document(call: Call, servers: list[Server], start: datetime, end: datetime) -> dict[str, Any]:
    rows = [(server, server.flavor.config, _hours(server, start, end)) for server in servers]
    return {
        "tenant_id": call.project.id,
        "start": _written(start),
        "stop": _written(end),
        "total_hours": sum(hours for _, _, hours in rows),
        "total_vcpus_usage": sum(hours * flavor.vcpus for _, flavor, hours in rows),
        "total_memory_mb_usage": sum(hours * flavor.ram_mib for _, flavor, hours in rows),
        "total_local_gb_usage": sum(hours * (flavor.disk_gib + flavor.ephemeral_gib) for _, flavor, hours in rows),
        "server_usages": [
            {
                "instance_id": server.id,
                "name": server.name,
                "tenant_id": server.project_id,
                "flavor": flavor.name,
                "vcpus": flavor.vcpus,
                "memory_mb": flavor.ram_mib,
                "local_gb": flavor.disk_gib + flavor.ephemeral_gib,
                "hours": hours,
                "state": "terminated" if server.vm_state is VmState.DELETED else str(server.vm_state),
                "started_at": server.launched_at and _written(server.launched_at),
                "ended_at": server.terminated_at and _written(server.terminated_at),
                "uptime": int(((server.terminated_at or call.now) - (server.launched_at or call.now)).total_seconds()),
            }
            for server, flavor, hours in rows
        ],
    }


def _written(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%S.%f}"


_ALL = "/compute/v2.1/os-simple-tenant-usage"
TABLE: dict[str, dict[str, Handler]] = {_ALL: {"GET": refuse_list}, _ALL + "/{project}": {"GET": show_usage}}
