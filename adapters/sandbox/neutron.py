"""Neutron v2.0: versions, extensions, networks, subnets, quotas, tags, and the table of all its paths."""

from typing import Any

from adapters.sandbox import neutron_floating_ips, neutron_groups, neutron_ports
from adapters.sandbox.entities import FloatingIp, Network, Port, Project, SecurityGroup, Subnet
from adapters.sandbox.neutron_rest import SERVICE, Document, checked_tags, collection, not_found
from adapters.sandbox.wire import ApiError, Call, Handler, Reply, stamp

__all__ = ["SERVICE", "TABLE"]

_EXTENSIONS = ("external-net", "quotas", "quota_details", "router", "security-group", "standard-attr-tag")


def show_versions(call: Call) -> Reply:
    version = {
        "id": "v2.0",
        "status": "CURRENT",
        "links": [{"rel": "self", "href": f"{call.base_url}/network/v2.0/"}],
    }
    return Reply(200, {"versions": [version]})


def list_resources(call: Call) -> Reply:
    """What a GET of the version's root shows."""
    names = ("networks", "subnets", "ports", "security-groups", "security-group-rules", "floatingips", "quotas")
    resources = [
        {"name": name, "collection": name, "links": [{"rel": "self", "href": f"{call.base_url}/network/v2.0/{name}"}]}
        for name in names
    ]
    return Reply(200, {"resources": resources})


def _extension_document(alias: str) -> Document:
    return {"alias": alias, "name": alias, "description": "", "links": [], "updated": "2017-01-01T00:00:00-00:00"}


def list_extensions(call: Call) -> Reply:
    _ = call.project
    return Reply(200, {"extensions": [_extension_document(alias) for alias in _EXTENSIONS]})


def show_extension(call: Call) -> Reply:
    _ = call.project
    alias = call.params["alias"]
    if alias not in _EXTENSIONS:
        raise ApiError(404, f"Extension with alias {alias} does not exist", "ExtensionNotFound")
    return Reply(200, {"extension": _extension_document(alias)})


def _is_shown(call: Call, network: Network) -> bool:
    return network.shared or network.external or network.project_id == call.project.id


def _network_document(network: Network) -> Document:
    default = {"is_default": False} if network.external else {}
    return {
        "id": network.id,
        "name": network.name,
        "tenant_id": network.project_id,
        "project_id": network.project_id,
        "status": "ACTIVE",
        "admin_state_up": True,
        "shared": network.shared,
        "router:external": network.external,
        "subnets": list(network.subnet_ids),
        "mtu": 1450,
        "port_security_enabled": True,
        "availability_zones": ["nova"],
        "availability_zone_hints": [],
        "ipv4_address_scope": None,
        "ipv6_address_scope": None,
        "qos_policy_id": None,
        "description": "",
        "tags": list(network.tags),
        "revision_number": 1,
        "created_at": stamp(network.created),
        "updated_at": stamp(network.created),
        **default,
    }


def list_networks(call: Call) -> Reply:
    shown = [_network_document(network) for network in call.cloud.networks.values() if _is_shown(call, network)]
    return collection(call, "networks", shown)


def _network(call: Call, identifier: str) -> Network:
    network = call.cloud.networks.get(identifier)
    if network is None or not _is_shown(call, network):
        raise not_found("NetworkNotFound", "Network", identifier)
    return network


def show_network(call: Call) -> Reply:
    return Reply(200, {"network": _network_document(_network(call, call.params["id"]))})


def _subnet_document(subnet: Subnet) -> Document:
    last = subnet.cidr.network_address + max(2, subnet.cidr.num_addresses - 2)
    return {
        "id": subnet.id,
        "name": subnet.name,
        "network_id": subnet.network_id,
        "tenant_id": subnet.project_id,
        "project_id": subnet.project_id,
        "cidr": str(subnet.cidr),
        "ip_version": 4,
        "gateway_ip": subnet.gateway,
        "enable_dhcp": True,
        "allocation_pools": [{"start": str(subnet.cidr.network_address + 2), "end": str(last)}],
        "dns_nameservers": [],
        "host_routes": [],
        "ipv6_address_mode": None,
        "ipv6_ra_mode": None,
        "subnetpool_id": None,
        "service_types": [],
        "description": "",
        "tags": list(subnet.tags),
        "revision_number": 0,
        "created_at": stamp(subnet.created),
        "updated_at": stamp(subnet.created),
    }


def _subnet_is_shown(call: Call, subnet: Subnet) -> bool:
    """Subnets of the external network belong to the operator; members see only those of their own networks."""
    network = call.cloud.networks[subnet.network_id]
    return _is_shown(call, network) and not network.external


def list_subnets(call: Call) -> Reply:
    shown = [_subnet_document(subnet) for subnet in call.cloud.subnets.values() if _subnet_is_shown(call, subnet)]
    return collection(call, "subnets", shown)


def show_subnet(call: Call) -> Reply:
    subnet = call.cloud.subnets.get(call.params["id"])
    if subnet is None or not _subnet_is_shown(call, subnet):
        raise not_found("SubnetNotFound", "Subnet", call.params["id"])
    return Reply(200, {"subnet": _subnet_document(subnet)})


def _quota_rows(call: Call, project: Project) -> dict[str, tuple[int, int]]:
    """Resource -> (limit, in use)."""
    quota, cloud = project.quota, call.cloud
    tables: dict[str, tuple[int, dict[str, Any]]] = {
        "network": (quota.networks, cloud.networks),
        "subnet": (quota.subnets, cloud.subnets),
        "port": (quota.ports, cloud.ports),
        "floatingip": (quota.floating_ips, cloud.floating_ips),
        "security_group": (quota.security_groups, cloud.security_groups),
        "security_group_rule": (quota.security_group_rules, cloud.security_group_rules),
    }
    rows = {
        name: (limit, sum(item.project_id == project.id for item in table.values()))
        for name, (limit, table) in tables.items()
    }
    return rows | {
        "router": (10, 0),
        "rbac_policy": (10, 0),
        "subnetpool": (-1, 0),
        "trunk": (-1, 0),
    }  # nobody can make one here


def _others_quotas() -> ApiError:
    return ApiError(403, "rule:get_quota is disallowed by policy", "PolicyNotAuthorized")


def _own_project(call: Call) -> Project:
    if call.params["project"] != call.project.id:
        raise _others_quotas()
    return call.project


def show_quota(call: Call) -> Reply:
    rows = _quota_rows(call, _own_project(call))
    return Reply(200, {"quota": {name: limit for name, (limit, _) in rows.items()}})


def show_quota_in_detail(call: Call) -> Reply:
    rows = _quota_rows(call, _own_project(call))
    return Reply(
        200, {"quota": {name: {"limit": limit, "used": used, "reserved": 0} for name, (limit, used) in rows.items()}}
    )


def list_quotas(call: Call) -> Reply:
    """All quotas are the administrator's to see."""
    _ = call.project
    raise _others_quotas()


def _tagged(call: Call) -> Network | Subnet | Port | SecurityGroup | FloatingIp:
    kinds: dict[str, dict[str, Any]] = {
        "networks": call.cloud.networks,
        "subnets": call.cloud.subnets,
        "ports": call.cloud.ports,
        "security-groups": call.cloud.security_groups,
        "security_groups": call.cloud.security_groups,
        "floatingips": call.cloud.floating_ips,
    }
    thing = kinds.get(call.params["kind"], {}).get(call.params["id"])
    if thing is None or thing.project_id != call.project.id:
        raise not_found("TagResourceNotFound", f"Resource {call.params['kind']}", call.params["id"])
    tagged: Network | Subnet | Port | SecurityGroup | FloatingIp = thing
    return tagged


def show_tags(call: Call) -> Reply:
    return Reply(200, {"tags": list(_tagged(call).tags)})


def replace_tags(call: Call) -> Reply:
    thing = _tagged(call)
    thing.tags = checked_tags(call.body.get("tags") if isinstance(call.body, dict) else None)
    return Reply(200, {"tags": list(thing.tags)})


def add_tag(call: Call) -> Reply:
    thing = _tagged(call)
    thing.tags = checked_tags([*thing.tags, call.params["tag"]])
    return Reply(201, b"null")


def remove_tag(call: Call) -> Reply:
    thing = _tagged(call)
    if call.params["tag"] not in thing.tags:
        raise ApiError(404, f"Tag {call.params['tag']} could not be found.", "TagNotFound")
    thing.tags = [tag for tag in thing.tags if tag != call.params["tag"]]
    return Reply(204)


_V = "/network/v2.0"
TABLE: dict[str, dict[str, Handler]] = {
    "/network": {"GET": show_versions},
    "/network/": {"GET": show_versions},
    _V: {"GET": list_resources},
    _V + "/": {"GET": list_resources},
    _V + "/extensions": {"GET": list_extensions},
    _V + "/extensions/{alias}": {"GET": show_extension},
    _V + "/networks": {"GET": list_networks},
    _V + "/networks/{id}": {"GET": show_network},
    _V + "/subnets": {"GET": list_subnets},
    _V + "/subnets/{id}": {"GET": show_subnet},
    **neutron_ports.TABLE,
    **neutron_floating_ips.TABLE,
    **neutron_groups.TABLE,
    _V + "/quotas": {"GET": list_quotas},
    _V + "/quotas/{project}": {"GET": show_quota},
    _V + "/quotas/{project}.json": {"GET": show_quota},
    _V + "/quotas/{project}/details": {"GET": show_quota_in_detail},
    _V + "/quotas/{project}/details.json": {"GET": show_quota_in_detail},
    _V + "/{kind}/{id}/tags": {"GET": show_tags, "PUT": replace_tags},
    _V + "/{kind}/{id}/tags/{tag}": {"PUT": add_tag, "DELETE": remove_tag},
}
