"""Nova's JSON for servers and flavors, as each microversion shows them."""

import hashlib
from typing import Any

from adapters.sandbox.entities import Flavor, SecurityGroup, Server, VmState
from adapters.sandbox.wire import Call, stamp

_STATUS = {
    VmState.BUILDING: "BUILD",
    VmState.ACTIVE: "ACTIVE",
    VmState.STOPPED: "SHUTOFF",
    VmState.PAUSED: "PAUSED",
    VmState.SUSPENDED: "SUSPENDED",
    VmState.RESIZED: "VERIFY_RESIZE",
    VmState.SHELVED: "SHELVED",
    VmState.SHELVED_OFFLOADED: "SHELVED_OFFLOADED",
    VmState.ERROR: "ERROR",
    VmState.DELETED: "DELETED",
}
_TASK_STATUS = {
    "rebooting": "REBOOT",
    "rebooting_hard": "HARD_REBOOT",
    "rebuilding": "REBUILD",
    "resize_prep": "RESIZE",
    "resize_reverting": "REVERT_RESIZE",
}
_WITH_PROGRESS = frozenset({"ACTIVE", "BUILD", "REBUILD", "RESIZE", "VERIFY_RESIZE", "REVERT_RESIZE"})


def status(server: Server) -> str:
    """Nova's `status`: these tasks show, others do not."""
    return _TASK_STATUS.get(server.task_state or "", _STATUS[server.vm_state])


def links(call: Call, kind: str, identifier: str) -> list[dict[str, str]]:
    return [
        {"rel": "self", "href": f"{call.base_url}/compute/v2.1/{kind}/{identifier}"},
        {"rel": "bookmark", "href": f"{call.base_url}/compute/{kind}/{identifier}"},
    ]


def flavor_document(call: Call, flavor: Flavor) -> dict[str, Any]:
    config = flavor.config
    document: dict[str, Any] = {
        "id": flavor.id,
        "name": config.name,
        "vcpus": config.vcpus,
        "ram": config.ram_mib,
        "disk": config.disk_gib,
        "swap": 0 if call.version >= (2, 75) else "",
        "rxtx_factor": 1.0,
        "OS-FLV-EXT-DATA:ephemeral": config.ephemeral_gib,
        "OS-FLV-DISABLED:disabled": False,
        "os-flavor-access:is_public": True,
        "links": links(call, "flavors", flavor.id),
    }
    if call.version >= (2, 55):
        document["description"] = None
    if call.version >= (2, 61):
        document["extra_specs"] = dict(config.extra_specs)
    return document


def _embedded_flavor(call: Call, flavor: Flavor) -> dict[str, Any]:
    """From 2.47 on a server shows its flavor as it was, without the id."""
    if call.version < (2, 47):
        return {"id": flavor.id, "links": links(call, "flavors", flavor.id)[1:]}
    config = flavor.config
    return {
        "original_name": config.name,
        "vcpus": config.vcpus,
        "ram": config.ram_mib,
        "disk": config.disk_gib,
        "ephemeral": config.ephemeral_gib,
        "swap": 0,
        "extra_specs": dict(config.extra_specs),
    }


def addresses(call: Call, server: Server) -> dict[str, list[dict[str, Any]]]:
    """By network name: the fixed address of each port and the floating ones that lead to it."""
    cloud = call.cloud
    found: dict[str, list[dict[str, Any]]] = {}
    for port_id in server.port_ids:
        port = cloud.ports[port_id]
        mac = port.mac_address
        listed = found.setdefault(cloud.networks[port.network_id].name, [])
        listed.append(_address(port.address, "fixed", mac))
        listed.extend(
            _address(floating.address, "floating", mac)
            for floating in cloud.floating_ips.values()
            if floating.port_id == port_id
        )
    return found


def _address(text: str, kind: str, mac: str) -> dict[str, Any]:
    return {"version": 4, "addr": text, "OS-EXT-IPS:type": kind, "OS-EXT-IPS-MAC:mac_addr": mac}


def server_summary(call: Call, server: Server) -> dict[str, Any]:
    return {"id": server.id, "name": server.name, "links": links(call, "servers", server.id)}


def server_document(call: Call, server: Server, *, alone: bool) -> dict[str, Any]:
    """One server; `alone` is the answer to a GET by id, which says more than a list."""
    document = server_summary(call, server) | {
        "status": status(server),
        "tenant_id": server.project_id,
        "user_id": server.user_id,
        "metadata": {} if server.vm_state is VmState.DELETED else dict(server.metadata),
        "hostId": host_id(server),
        "image": {"id": server.image_id, "links": links(call, "images", server.image_id)[1:]}
        if server.image_id
        else "",
        "flavor": _embedded_flavor(call, server.flavor),
        "created": stamp(server.created),
        "updated": stamp(server.updated),
        "addresses": addresses(call, server),
        "accessIPv4": "",
        "accessIPv6": "",
        "OS-DCF:diskConfig": "MANUAL",
        "OS-EXT-AZ:availability_zone": server.availability_zone if server.host else "",
        "config_drive": "",
        "key_name": server.key_name,
        "OS-SRV-USG:launched_at": server.launched_at and f"{server.launched_at:%Y-%m-%dT%H:%M:%S.%f}",
        "OS-SRV-USG:terminated_at": server.terminated_at and f"{server.terminated_at:%Y-%m-%dT%H:%M:%S.%f}",
        "OS-EXT-STS:task_state": server.task_state,
        "OS-EXT-STS:vm_state": str(server.vm_state),
        "OS-EXT-STS:power_state": server.power_state,
        "os-extended-volumes:volumes_attached": [_attached(call, volume_id) for volume_id in server.volume_ids],
    }
    if server.port_ids:
        document["security_groups"] = [{"name": group.name} for group in groups_of(call, server)]
    if status(server) in _WITH_PROGRESS:
        document["progress"] = 0
    _add_by_version(call, server, document, alone=alone)
    if alone and server.fault is not None:
        fault = server.fault
        document["fault"] = {"code": fault.code, "created": stamp(fault.created), "message": fault.message}
    return document


def groups_of(call: Call, server: Server) -> list[SecurityGroup]:
    """The security groups of the server's ports, each once."""
    cloud = call.cloud
    ids = [group_id for port_id in server.port_ids for group_id in cloud.ports[port_id].security_group_ids]
    return [cloud.security_groups[group_id] for group_id in dict.fromkeys(ids)]


def _attached(call: Call, volume_id: str) -> dict[str, Any]:
    if call.version < (2, 3):
        return {"id": volume_id}
    attachment = call.cloud.volumes[volume_id].attachment
    return {"id": volume_id, "delete_on_termination": attachment is not None and attachment.goes_with_it}


def _add_by_version(call: Call, server: Server, document: dict[str, Any], *, alone: bool) -> None:
    version = call.version
    if version >= (2, 9):
        document["locked"] = server.locked
    if version >= (2, 19):
        document["description"] = server.description
    if version >= (2, 26):
        document["tags"] = [] if server.vm_state is VmState.DELETED else list(server.tags)
    if version >= (2, 63):
        document["trusted_image_certificates"] = None
    if version >= (2, 71) and alone:
        document["server_groups"] = [server.group_id] if server.group_id else []
    if version >= (2, 73):
        document["locked_reason"] = server.locked_reason


def host_id(server: Server) -> str:
    """Nova shows members a hash of the project and the host, so that hosts can be told apart but not named."""
    return hashlib.sha224(f"{server.project_id}{server.host}".encode()).hexdigest() if server.host else ""
