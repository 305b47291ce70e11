"""Ports: made by users before a server (the fence of a launch) or by Nova with one."""

import ipaddress
import re
from datetime import timedelta
from typing import Any

from adapters.sandbox.entities import Network, Port, Subnet
from adapters.sandbox.faults import FaultKind
from adapters.sandbox.neutron_rest import Document, check_quota, checked_tags, collection, not_found, over_quota
from adapters.sandbox.state import is_visible, visible
from adapters.sandbox.wire import ApiError, Call, Handler, Reply, stamp
from adapters.sandbox.wiring import add_port, default_groups, delete_port, make_port


def shown_device(call: Call, port: Port) -> tuple[str, str]:
    """Id and owner of what has the port; nothing as long as that is a server that does not show yet."""
    server = call.cloud.servers.get(port.device_id)
    if server is not None and not is_visible(server, server.project_id, call.now):
        return "", ""
    return port.device_id, port.device_owner


def port_document(call: Call, port: Port) -> Document:
    device_id, device_owner = shown_device(call, port)
    return {
        "id": port.id,
        "name": port.name,
        "description": port.description,
        "network_id": port.network_id,
        "tenant_id": port.project_id,
        "project_id": port.project_id,
        "status": "ACTIVE" if device_id else "DOWN",
        "admin_state_up": port.admin_state_up,
        "mac_address": port.mac_address,
        "fixed_ips": [{"subnet_id": port.subnet_id, "ip_address": port.address}],
        "device_id": device_id,
        "device_owner": device_owner,
        "security_groups": list(port.security_group_ids),
        "allowed_address_pairs": [],
        "extra_dhcp_opts": [],
        "port_security_enabled": True,
        "binding:vnic_type": "normal",
        "qos_policy_id": None,
        "qos_network_policy_id": None,
        "tags": list(port.tags),
        "revision_number": port.revision,
        "created_at": stamp(port.created),
        "updated_at": stamp(port.updated),
    }


def list_ports(call: Call) -> Reply:
    device_id = call.query.get("device_id")  # the usual question; asked first, so that few documents are made
    shown = visible(call.cloud.ports.values(), call.project.id, call.now)
    fitting = [port for port in shown if device_id in (None, port.device_id, "")]
    return collection(call, "ports", [port_document(call, port) for port in fitting])


def find_port(call: Call, identifier: str, *, hidden_too: bool = False) -> Port:
    """The project's port of that id.

    Raises:
        ApiError: 404 PortNotFound.
    """
    project_id = call.project.id
    port = call.cloud.ports.get(identifier)
    if port is None or port.project_id != project_id or not (hidden_too or is_visible(port, project_id, call.now)):
        raise not_found("PortNotFound", "Port", identifier)
    return port


_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def create_port(call: Call) -> Reply:
    wanted = call.document("port")
    cloud, project = call.cloud, call.project
    network = cloud.networks.get(str(wanted.get("network_id")))
    if network is None or not (network.shared or network.project_id == project.id):
        raise not_found("NetworkNotFound", "Network", str(wanted.get("network_id")))
    if call.effect(FaultKind.QUOTA):
        raise over_quota("port")
    check_quota("port", project.quota.ports, sum(port.project_id == project.id for port in cloud.ports.values()))
    subnet, address = _fixed_ip(call, network, wanted.get("fixed_ips"))
    groups = _groups(call, wanted.get("security_groups"))
    tags = checked_tags(wanted.get("tags", []))
    port = make_port(call.now, project_id=project.id, subnet=subnet, name=_name(wanted), address=address)
    if port is None:
        text = f"No more IP addresses available on network {network.id}."
        if address:
            text = f"IP address {address} already allocated in subnet {subnet.id}"
        raise ApiError(409, text, "IpAddressGenerationFailure")
    port.description = str(wanted.get("description") or "")
    port.device_id = str(wanted.get("device_id") or "")
    port.device_owner = str(wanted.get("device_owner") or "")
    port.admin_state_up = wanted.get("admin_state_up", True) is True
    port.security_group_ids = groups
    port.tags = tags
    hidden = call.effect(FaultKind.HIDDEN)
    if hidden is not None:
        port.visible_at = call.now + timedelta(seconds=hidden.seconds)
    add_port(cloud, port, call.now, call.request_id)
    return Reply(201, {"port": port_document(call, port)})


def _name(wanted: Document) -> str:
    name = wanted.get("name") or ""
    if not isinstance(name, str) or len(name) > 255:
        raise ApiError(400, f"Invalid input for name. Reason: '{name}' exceeds maximum length of 255.")
    return name


def _fixed_ip(call: Call, network: Network, given: Any) -> tuple[Subnet, str | None]:
    """The subnet and, when asked for, the address; one fixed address per port is what the sandbox models."""
    subnet = call.cloud.subnets[network.subnet_ids[0]]
    if not given:
        return subnet, None
    if not isinstance(given, list) or len(given) != 1 or not isinstance(given[0], dict):
        raise ApiError(400, "Invalid input for fixed_ips. Reason: the sandbox gives one address per port.")
    if given[0].get("subnet_id", subnet.id) != subnet.id:
        raise ApiError(400, "Invalid input for fixed_ips. Reason: the subnet is not on this network.", "InvalidInput")
    address = given[0].get("ip_address")
    if address is None:
        return subnet, None
    try:
        inside = ipaddress.IPv4Address(address) in subnet.cidr
    except ValueError:
        inside = False
    if not inside:
        text = f"IP address {address} is not a valid IP for any of the subnets on the specified network."
        raise ApiError(400, text, "InvalidIpForNetwork")
    return subnet, str(address)


def _groups(call: Call, given: Any) -> list[str]:
    if given is None:
        return default_groups(call.cloud, call.project.id, ["default"])
    if not isinstance(given, list):
        raise ApiError(400, f"Invalid input for security_groups. Reason: {given} is not a list.")
    for identifier in given:
        if not _UUID.fullmatch(str(identifier)):
            text = f"Invalid input for security_groups. Reason: '{identifier}' is not a valid UUID."
            raise ApiError(400, text, "HTTPBadRequest")
        group = call.cloud.security_groups.get(str(identifier))
        if group is None or group.project_id != call.project.id:
            raise ApiError(404, f"Security group {identifier} does not exist", "SecurityGroupNotFound")
    return [str(identifier) for identifier in given]


def show_port(call: Call) -> Reply:
    return Reply(200, {"port": port_document(call, find_port(call, call.params["id"]))})


def update_port(call: Call) -> Reply:
    port = find_port(call, call.params["id"], hidden_too=True)
    wanted = call.document("port")
    if "name" in wanted:
        port.name = _name(wanted)
    if "description" in wanted:
        port.description = str(wanted["description"] or "")
    if "security_groups" in wanted:
        port.security_group_ids = _groups(call, wanted["security_groups"])
    if "device_id" in wanted:
        port.device_id = str(wanted["device_id"] or "")
    if "device_owner" in wanted:
        port.device_owner = str(wanted["device_owner"] or "")
    if "admin_state_up" in wanted:
        port.admin_state_up = wanted["admin_state_up"] is True
    port.updated = call.now
    port.revision += 1
    return Reply(200, {"port": port_document(call, port)})


def remove_port(call: Call) -> Reply:
    """Neutron lets a port go even while a server has it; the server then has one interface fewer."""
    delete_port(call.cloud, find_port(call, call.params["id"], hidden_too=True), call.now, call.request_id)
    return Reply(204)


_PORTS = "/network/v2.0/ports"
TABLE: dict[str, dict[str, Handler]] = {
    _PORTS: {"GET": list_ports, "POST": create_port},
    _PORTS + "/{id}": {"GET": show_port, "PUT": update_port, "DELETE": remove_port},
}
