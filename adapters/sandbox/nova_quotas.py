"""What a project may use, and uses: limits and quota sets."""

from typing import Any

from adapters.sandbox.entities import Project
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


_QUOTAS = "/compute/v2.1/os-quota-sets/{project}"
TABLE: dict[str, dict[str, Handler]] = {
    "/compute/v2.1/limits": {"GET": show_limits},
    _QUOTAS: {"GET": show_quota_set},
    _QUOTAS + "/detail": {"GET": show_quota_set_in_detail},
    _QUOTAS + "/defaults": {"GET": show_quota_set},
}
