"""Ports and addresses: who makes them, which server takes them, and what is left when it is gone."""

import secrets
from datetime import datetime

from adapters.sandbox.entities import FloatingIp, Port, Server, Subnet
from adapters.sandbox.state import Cloud, new_id


class WiringError(Exception):
    """The network part of a build failed; the text is what Nova puts into the server's fault."""


def default_groups(cloud: Cloud, project_id: str, names: list[str]) -> list[str]:
    """The ids of the project's security groups of these names or ids."""
    return [
        group.id
        for group in cloud.security_groups.values()
        if group.project_id == project_id and (group.name in names or group.id in names)
    ]


def make_port(
    now: datetime, *, project_id: str, subnet: Subnet, name: str = "", address: str | None = None
) -> Port | None:
    """A port with an address of the subnet; None when the address, or the last one, is taken."""
    if address is None:
        address = subnet.allocate()
    elif not subnet.claim(address):
        address = None
    if address is None:
        return None
    return Port(
        id=new_id(),
        name=name,
        project_id=project_id,
        network_id=subnet.network_id,
        subnet_id=subnet.id,
        address=address,
        mac_address="fa:16:3e:" + ":".join(f"{byte:02x}" for byte in secrets.token_bytes(3)),
        created=now,
        updated=now,
    )


def add_port(cloud: Cloud, port: Port, now: datetime, request_id: str = "") -> None:
    cloud.ports[port.id] = port
    cloud.record(
        now, "port", "created", port, request_id=request_id, network_id=port.network_id, device_id=port.device_id
    )


def bind_ports(cloud: Cloud, server: Server, now: datetime) -> None:
    """Give the server what it asked for: its owner's ports, and new ones of Nova's.

    Raises:
        WiringError: a port is gone or another server has it, or a network is full. Nothing stays bound: Nova's clean-up
            empties the `device_id` of every port that was asked for, also of one that another server goes on using.
            (That server keeps it: a third one on the port fails like the second. Seen with Nova of Zed.)
    """
    try:
        for nic in server.nics:
            port = _make_for(cloud, server, nic.network_id, now) if nic.port_id is None else _take(cloud, nic.port_id)
            port.device_id = port.holder = server.id
            port.device_owner = f"compute:{server.availability_zone}"
            port.updated = now
            port.revision += 1
            server.port_ids.append(port.id)
            if port.made_by_nova:
                add_port(cloud, port, now, server.request_id)
            else:
                cloud.record(now, "port", "bound", port, device_id=server.id)
    except WiringError:
        release_ports(cloud, server, now)
        for nic in server.nics:
            wanted = cloud.ports.get(nic.port_id or "")
            if wanted is not None:
                _unbind(cloud, wanted, now)
        raise


def _take(cloud: Cloud, port_id: str) -> Port:
    port = cloud.ports.get(port_id)
    if port is None:
        raise WiringError(f"Port {port_id} could not be found.")
    if port.device_id or port.holder:
        raise WiringError(f"Port {port_id} is still in use.")
    return port


def _make_for(cloud: Cloud, server: Server, network_id: str, now: datetime) -> Port:
    subnet = cloud.subnets[cloud.networks[network_id].subnet_ids[0]]
    port = make_port(now, project_id=server.project_id, subnet=subnet)
    if port is None:
        raise WiringError("Failed to allocate the network(s), not rescheduling.")
    port.made_by_nova = True
    port.visible_at = server.visible_at
    port.security_group_ids = default_groups(cloud, server.project_id, server.security_groups)
    return port


def release_ports(cloud: Cloud, server: Server, now: datetime) -> None:
    """Let go of the owner's ports, delete Nova's own."""
    for port_id in list(server.port_ids):
        port = cloud.ports.get(port_id)
        if port is None:
            continue
        port.holder = ""
        if port.made_by_nova:
            delete_port(cloud, port, now)
        elif port.device_id == server.id:
            _unbind(cloud, port, now)
    server.port_ids.clear()


def _unbind(cloud: Cloud, port: Port, now: datetime) -> None:
    if port.device_id:
        cloud.record(now, "port", "unbound", port, device_id=port.device_id)
    port.device_id = port.device_owner = ""
    port.updated = now
    port.revision += 1


def delete_port(cloud: Cloud, port: Port, now: datetime, request_id: str = "") -> None:
    """The port is gone: its address is free, its server has one fewer, a floating IP on it stays but points nowhere."""
    del cloud.ports[port.id]
    subnet = cloud.subnets.get(port.subnet_id)
    if subnet is not None:
        subnet.release(port.address)
    server = cloud.servers.get(port.holder)
    if server is not None and port.id in server.port_ids:
        server.port_ids.remove(port.id)
    for floating in cloud.floating_ips.values():
        if floating.port_id == port.id:
            point_floating_ip(cloud, floating, None, now)
    cloud.record(now, "port", "deleted", port, request_id=request_id)


def point_floating_ip(cloud: Cloud, floating: FloatingIp, port_id: str | None, now: datetime) -> None:
    """Let a floating IP lead to a port, or nowhere."""
    if floating.port_id == port_id:
        return
    floating.port_id = port_id
    floating.updated = now
    cloud.record(now, "floating_ip", "pointed" if port_id else "unpointed", floating, port_id=port_id)
