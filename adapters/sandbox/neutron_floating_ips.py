"""Floating addresses: they stay allocated, and count against the quota, until they are deleted."""

from datetime import timedelta

from adapters.sandbox.entities import FloatingIp
from adapters.sandbox.faults import FaultKind
from adapters.sandbox.neutron_ports import find_port, shown_device
from adapters.sandbox.neutron_rest import Document, check_quota, checked_tags, collection, not_found, over_quota
from adapters.sandbox.state import is_visible, new_id, visible
from adapters.sandbox.wire import ApiError, Call, Handler, Reply, stamp
from adapters.sandbox.wiring import point_floating_ip


def _document(call: Call, floating: FloatingIp) -> Document:
    port = call.cloud.ports.get(floating.port_id or "")
    device_id, device_owner = shown_device(call, port) if port else ("", "")
    return {
        "id": floating.id,
        "floating_ip_address": floating.address,
        "floating_network_id": floating.network_id,
        "tenant_id": floating.project_id,
        "project_id": floating.project_id,
        "port_id": floating.port_id,
        "fixed_ip_address": port.address if port else None,
        "router_id": None,
        "status": "ACTIVE" if port else "DOWN",
        "description": floating.description,
        "qos_policy_id": None,
        "port_details": port
        and {
            "name": port.name,
            "network_id": port.network_id,
            "mac_address": port.mac_address,
            "admin_state_up": port.admin_state_up,
            "status": "ACTIVE" if device_id else "DOWN",
            "device_id": device_id,
            "device_owner": device_owner,
        },
        "tags": list(floating.tags),
        "revision_number": 1,
        "created_at": stamp(floating.created),
        "updated_at": stamp(floating.updated),
    }


def list_floating_ips(call: Call) -> Reply:
    shown = visible(call.cloud.floating_ips.values(), call.project.id, call.now)
    return collection(call, "floatingips", [_document(call, floating) for floating in shown])


def create_floating_ip(call: Call) -> Reply:
    wanted = call.document("floatingip")
    cloud, project = call.cloud, call.project
    identifier = str(wanted.get("floating_network_id"))
    network = cloud.networks.get(identifier)
    if network is None:
        raise not_found("NetworkNotFound", "Network", identifier)
    if not network.external:
        text = f"Bad floatingip request: Network {identifier} is not a valid external network."
        raise ApiError(400, text, "BadRequest")
    if call.effect(FaultKind.QUOTA):
        raise over_quota("floatingip")
    used = sum(floating.project_id == project.id for floating in cloud.floating_ips.values())
    check_quota("floatingip", project.quota.floating_ips, used)
    port_id = _target(call, wanted.get("port_id"))
    tags = checked_tags(wanted.get("tags", []))
    subnet = cloud.subnets[network.subnet_ids[0]]
    address = subnet.allocate()
    if address is None:
        raise ApiError(409, f"No more IP addresses available on network {identifier}.", "IpAddressGenerationFailure")
    floating = FloatingIp(
        id=new_id(),
        address=address,
        network_id=network.id,
        subnet_id=subnet.id,
        project_id=project.id,
        created=call.now,
        updated=call.now,
        description=str(wanted.get("description") or ""),
        tags=tags,
    )
    hidden = call.effect(FaultKind.HIDDEN)
    if hidden is not None:
        floating.visible_at = call.now + timedelta(seconds=hidden.seconds)
    cloud.floating_ips[floating.id] = floating
    cloud.record(call.now, "floating_ip", "created", floating, request_id=call.request_id, address=address)
    point_floating_ip(cloud, floating, port_id, call.now)
    return Reply(201, {"floatingip": _document(call, floating)})


def _target(call: Call, port_id: object) -> str | None:
    """The port a floating address is to lead to; a port takes one."""
    if port_id is None:
        return None
    port = find_port(call, str(port_id), hidden_too=True)
    for other in call.cloud.floating_ips.values():
        if other.port_id == port.id and other.id != call.params.get("id"):
            text = (
                f"Cannot associate floating IP with port {port.id} using fixed IP {port.address}, "
                f"as that fixed IP already has a floating IP on external network {other.network_id}."
            )
            raise ApiError(409, text, "FloatingIPPortAlreadyAssociated")
    return port.id


def _find(call: Call, *, hidden_too: bool = False) -> FloatingIp:
    project_id, identifier = call.project.id, call.params["id"]
    floating = call.cloud.floating_ips.get(identifier)
    gone = floating is None or floating.project_id != project_id
    if floating is None or gone or not (hidden_too or is_visible(floating, project_id, call.now)):
        raise ApiError(404, f"Floating IP {identifier} could not be found", "FloatingIPNotFound")
    return floating


def show_floating_ip(call: Call) -> Reply:
    return Reply(200, {"floatingip": _document(call, _find(call))})


def update_floating_ip(call: Call) -> Reply:
    """Without `port_id` in the request the address leads nowhere afterwards: so does Neutron's."""
    floating = _find(call, hidden_too=True)
    wanted = call.document("floatingip")
    if "description" in wanted:
        floating.description = str(wanted["description"] or "")
    if "port_id" in wanted or "description" not in wanted:
        point_floating_ip(call.cloud, floating, _target(call, wanted.get("port_id")), call.now)
    return Reply(200, {"floatingip": _document(call, floating)})


def delete_floating_ip(call: Call) -> Reply:
    cloud, floating = call.cloud, _find(call, hidden_too=True)
    del cloud.floating_ips[floating.id]
    cloud.subnets[floating.subnet_id].release(floating.address)
    cloud.record(call.now, "floating_ip", "deleted", floating, request_id=call.request_id)
    return Reply(204)


_ADDRESSES = "/network/v2.0/floatingips"
TABLE: dict[str, dict[str, Handler]] = {
    _ADDRESSES: {"GET": list_floating_ips, "POST": create_floating_ip},
    _ADDRESSES + "/{id}": {"GET": show_floating_ip, "PUT": update_floating_ip, "DELETE": delete_floating_ip},
}
