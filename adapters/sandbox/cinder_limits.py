"""What a project may use of Cinder: types of volumes, of which there is one, quotas, and limits with what is used."""

from adapters.sandbox import volumes
from adapters.sandbox.cinder_rest import BASE, Document, own_project
from adapters.sandbox.wire import ApiError, Call, Handler, Reply

TYPE = "standard"


def type_id(call: Call) -> str:
    """The id of the type, the same at every start."""
    return call.cloud.config.identifier("volume_type", TYPE)


def _type_document(call: Call) -> Document:
    return {
        "id": type_id(call),
        "name": TYPE,
        "is_public": True,
        "description": None,
        "extra_specs": {},
        "os-volume-type-access:is_public": True,
    }


def list_types(call: Call) -> Reply:
    own_project(call)
    return Reply(200, {"volume_types": [_type_document(call)]})


def show_type(call: Call) -> Reply:
    own_project(call)
    if call.params["type"] != type_id(call):
        raise ApiError(404, f"Volume type {call.params['type']} could not be found.")
    return Reply(200, {"volume_type": _type_document(call)})


# What nobody can make here, as Cinder limits it by default.
_UNUSED = {
    "backups": 10,
    "backup_gigabytes": 1000,
    "groups": 10,
    "per_volume_gigabytes": -1,
    **{
        f"{resource}_{kind}": -1 for resource in ("volumes", "gigabytes", "snapshots") for kind in (TYPE, "__DEFAULT__")
    },
}


def show_quota(call: Call) -> Reply:
    """Limits, and with `usage=True` what is in use."""
    own_project(call)
    if call.params["target"] != call.project.id:
        raise ApiError(403, "Policy doesn't allow volume_extension:quotas:show to be performed.")
    limits, used = volumes.limits(call.project) | _UNUSED, volumes.used(call.cloud, call.project.id)
    rows: Document = dict(limits)
    if call.query.get("usage", "false").lower() in ("true", "1"):
        rows = {name: {"limit": limit, "in_use": used.get(name, 0), "reserved": 0} for name, limit in limits.items()}
    return Reply(200, {"quota_set": {"id": call.project.id, **rows}})


def show_limits(call: Call) -> Reply:
    own_project(call)
    limits, used = volumes.limits(call.project), volumes.used(call.cloud, call.project.id)
    absolute = {
        "maxTotalVolumes": limits["volumes"],
        "maxTotalSnapshots": limits["snapshots"],
        "maxTotalVolumeGigabytes": limits["gigabytes"],
        "maxTotalBackups": _UNUSED["backups"],
        "maxTotalBackupGigabytes": _UNUSED["backup_gigabytes"],
        "totalVolumesUsed": used["volumes"],
        "totalSnapshotsUsed": used["snapshots"],
        "totalGigabytesUsed": used["gigabytes"],
        "totalBackupsUsed": 0,
        "totalBackupGigabytesUsed": 0,
    }
    return Reply(200, {"limits": {"rate": [], "absolute": absolute}})


TABLE: dict[str, dict[str, Handler]] = {
    BASE + "/types": {"GET": list_types},
    BASE + "/types/{type}": {"GET": show_type},
    BASE + "/limits": {"GET": show_limits},
    BASE + "/os-quota-sets/{target}": {"GET": show_quota},
}
