"""What a project may use, uses and has used: limits, quota sets, and simple tenant usage."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from adapters.sandbox.entities import Project, Server, VmState
from adapters.sandbox.paging import page
from adapters.sandbox.wire import ApiError, Call, Handler, Reply


def show_limits(call: Call) -> Reply:
    quota, usage = call.project.quota, call.cloud.usage[call.project.id]
    absolute = {
        "maxTotalInstances": quota.instances,
        "maxTotalCores": quota.cores,
        "maxTotalRAMSize": quota.ram_mib,
        "maxTotalKeypairs": quota.key_pairs,
        "maxServerMeta": 128,
        "maxServerGroups": 10,
        "maxServerGroupMembers": 10,
        "totalInstancesUsed": usage.instances,
        "totalCoresUsed": usage.cores,
        "totalRAMUsed": usage.ram_mib,
        "totalServerGroupsUsed": 0,
    }
    if call.version < (2, 57):
        absolute |= {"maxPersonality": 5, "maxPersonalitySize": 10240, "maxImageMeta": 128}
    if call.version < (2, 36):
        absolute |= {"maxSecurityGroups": -1, "maxSecurityGroupRules": -1, "maxTotalFloatingIps": -1}
    return Reply(200, {"limits": {"rate": [], "absolute": absolute}})


def _own_project(call: Call) -> Project:
    if call.params["project"] != call.project.id:
        raise ApiError(403, "Policy doesn't allow os_compute_api:os-quota-sets:show to be performed.")
    return call.project


def _rows(call: Call, project: Project) -> dict[str, tuple[int, int]]:
    """Resource -> (limit, in use), as this microversion knows them."""
    quota, usage = project.quota, call.cloud.usage[project.id]
    rows = {
        "instances": (quota.instances, usage.instances),
        "cores": (quota.cores, usage.cores),
        "ram": (quota.ram_mib, usage.ram_mib),
        "key_pairs": (quota.key_pairs, 0),  # Nova counts them per user and says 0 here
        "metadata_items": (128, 0),
        "server_groups": (10, 0),
        "server_group_members": (10, 0),
    }
    if call.version < (2, 57):
        rows |= {
            "injected_files": (5, 0),
            "injected_file_content_bytes": (10240, 0),
            "injected_file_path_bytes": (255, 0),
        }
    if call.version < (2, 36):
        rows |= dict.fromkeys(("floating_ips", "fixed_ips", "security_groups", "security_group_rules"), (-1, 0))
    return rows


def show_quota_set(call: Call) -> Reply:
    project = _own_project(call)
    limits: dict[str, Any] = {name: limit for name, (limit, _) in _rows(call, project).items()}
    return Reply(200, {"quota_set": {"id": project.id, **limits}})


def show_quota_set_in_detail(call: Call) -> Reply:
    project = _own_project(call)
    rows: dict[str, Any] = {
        name: {"limit": limit, "in_use": used, "reserved": 0} for name, (limit, used) in _rows(call, project).items()
    }
    return Reply(200, {"quota_set": {"id": project.id, **rows}})


def show_usage(call: Call) -> Reply:
    """Hours between launch and end within [start, end).

    Below microversion 2.40 Nova stops at `page_limit` servers and does not say so; from 2.40 on it pages.
    """
    project = _own_project(call)
    start, end = _period(call)
    cloud = call.cloud
    everything = [*cloud.servers.values(), *cloud.deleted_servers.values()]
    counted = [
        server for server in everything if server.project_id == project.id and _hours(server, start, end, call.now)
    ]
    counted.sort(key=lambda server: server.serial)
    if call.version >= (2, 40):
        counted_page, following = page(call, counted, lambda server: server.id, default_limit=cloud.config.page_limit)
        counted = list(counted_page)
    else:
        counted, following = counted[: cloud.config.page_limit], None
    body: dict[str, Any] = {"tenant_usage": _usage_document(call, counted, start, end) if counted else {}}
    if following is not None:
        body["tenant_usage_links"] = [{"rel": "next", "href": following}]
    return Reply(200, body)


def _period(call: Call) -> tuple[datetime, datetime]:
    """`start` and `end` of the query, both by default now, as in Nova."""
    moments = []
    for name in ("start", "end"):
        text = call.query.get(name)
        try:
            moment = call.now if text is None else datetime.fromisoformat(text)
        except ValueError as error:
            raise ApiError(
                400, f"Invalid {name} time. Use YYYY-MM-DDTHH:MM:SS.ffffff, not {urlencode({name: text})}"
            ) from error
        moments.append(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
    if moments[1] < moments[0]:
        raise ApiError(400, "Invalid start time. The start time cannot occur after the end time.")
    return moments[0], moments[1]


def _hours(server: Server, start: datetime, end: datetime, now: datetime) -> float:
    """Hours of the server within [start, end); nothing in it that has not happened yet."""
    if server.launched_at is None:
        return 0.0
    first = max(server.launched_at, start)
    last = min(server.terminated_at or now, end, now)
    return max(0.0, (last - first).total_seconds() / 3600)


_USAGE_STATES: Mapping[VmState, str] = {VmState.DELETED: "terminated"}


def _usage_document(call: Call, servers: list[Server], start: datetime, end: datetime) -> dict[str, Any]:
    rows = [(server, server.flavor.config, _hours(server, start, end, call.now)) for server in servers]
    document: dict[str, Any] = {
        "tenant_id": call.project.id,
        "start": f"{start:%Y-%m-%dT%H:%M:%S.%f}",
        "stop": f"{end:%Y-%m-%dT%H:%M:%S.%f}",
        "total_hours": sum(hours for _, _, hours in rows),
        "total_vcpus_usage": sum(hours * flavor.vcpus for _, flavor, hours in rows),
        "total_memory_mb_usage": sum(hours * flavor.ram_mib for _, flavor, hours in rows),
        "total_local_gb_usage": sum(hours * (flavor.disk_gib + flavor.ephemeral_gib) for _, flavor, hours in rows),
    }
    document["server_usages"] = [
        {
            "instance_id": server.id,
            "name": server.name,
            "tenant_id": server.project_id,
            "flavor": flavor.name,
            "vcpus": flavor.vcpus,
            "memory_mb": flavor.ram_mib,
            "local_gb": flavor.disk_gib + flavor.ephemeral_gib,
            "hours": hours,
            "state": _USAGE_STATES.get(server.vm_state, str(server.vm_state)),
            "started_at": server.launched_at and f"{server.launched_at:%Y-%m-%dT%H:%M:%S.%f}",
            "ended_at": server.terminated_at and f"{server.terminated_at:%Y-%m-%dT%H:%M:%S.%f}",
            "uptime": int(((server.terminated_at or call.now) - (server.launched_at or call.now)).total_seconds()),
        }
        for server, flavor, hours in rows
    ]
    return document


_QUOTAS = "/compute/v2.1/os-quota-sets/{project}"
TABLE: dict[str, dict[str, Handler]] = {
    "/compute/v2.1/limits": {"GET": show_limits},
    _QUOTAS: {"GET": show_quota_set},
    _QUOTAS + "/detail": {"GET": show_quota_set_in_detail},
    _QUOTAS + "/defaults": {"GET": show_quota_set},
    "/compute/v2.1/os-simple-tenant-usage/{project}": {"GET": show_usage},
}
