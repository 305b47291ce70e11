"""The operations of the services beside Nova: Keystone, Glance, Neutron and Cinder."""

from __future__ import annotations

from openstack.connection import Connection

from tests.unit.sandbox.operations.operation import Operation, gone, there


def _own(connection: Connection) -> dict[str, str]:
    return {"X-Subject-Token": connection.auth_token}


_CREDENTIALS = "/v3/users/{user}/application_credentials"
IDENTITY = (
    Operation(
        "POST /v3/auth/tokens",
        "token issue",
        lambda c, _: (c.session.invalidate(), c.session.get_project_id()),
        "{project}",
    ),
    Operation(
        "GET /v3/auth/tokens", "", lambda c, _: c.identity.get("/auth/tokens", headers=_own(c)).json(), "climate"
    ),
    Operation(
        "DELETE /v3/auth/tokens",
        "token revoke {token}",
        None,
        so=lambda cloud, ids: ids["token"] not in cloud.tokens,
    ),
    Operation("GET /v3/auth/catalog", "", lambda c, _: c.identity.get("/auth/catalog").json(), "keystone"),
    Operation("GET /v3/auth/projects", "", lambda c, _: c.identity.get("/auth/projects").json(), "climate"),
    Operation("GET /v3/projects", "", None),
    Operation(
        "GET /v3/projects/{project}",
        "project show {project}",
        lambda c, i: c.identity.get_project(i["project"]),
        "climate",
    ),
    Operation(
        "GET /v3/users/{user}/projects",
        "project list --my-projects",
        lambda c, i: c.identity.user_projects(i["user"]),
        "climate",
    ),
    Operation(
        f"GET {_CREDENTIALS}",
        "application credential list",
        lambda c, i: c.identity.application_credentials(i["user"]),
        "robot",
    ),
    Operation(
        f"POST {_CREDENTIALS}",
        "application credential create fresh",
        lambda c, i: c.identity.create_application_credential(user=i["user"], name="fresh"),
        so=there("app_credentials"),
    ),
    Operation(
        f"GET {_CREDENTIALS}/{{credential}}",
        "application credential show {robot}",
        lambda c, i: c.identity.get_application_credential(i["user"], i["robot"]),
        "robot",
    ),
    Operation(
        f"DELETE {_CREDENTIALS}/{{credential}}",
        "application credential delete {robot}",
        lambda c, i: c.identity.delete_application_credential(i["user"], i["robot"]),
        so=gone("app_credentials", "robot"),
    ),
)

_I = "/image/v2/images"
IMAGES = (
    Operation(f"GET {_I}", "image list", lambda c, _: c.image.images(), "cirros"),
    Operation(f"GET {_I}/{{image}}", "image show {image}", lambda c, i: c.image.get_image(i["image"]), "cirros"),
    Operation(
        f"DELETE {_I}/{{image}}",
        "image delete own",
        lambda c, _: c.image.delete_image(c.image.find_image("own", ignore_missing=False)),
        so=lambda cloud, _: all(image.config.name != "own" for image in cloud.images.values()),
        first=("server image create --name own box",),
    ),
)

_N = "/network/v2.0"
_TAG = "/{kind}/{id}/tags/{tag}"
NETWORK = (
    Operation(f"GET {_N}/extensions", "extension list --network", lambda c, _: c.network.extensions(), "quota_details"),
    Operation(
        f"GET {_N}/extensions/{{alias}}",
        "extension show quotas",
        lambda c, _: c.network.find_extension("quotas"),
        "quotas",
    ),
    Operation(f"GET {_N}/networks", "network list", lambda c, _: c.network.networks(), "climate-net"),
    Operation(
        f"GET {_N}/networks/{{id}}",
        "network show {network}",
        lambda c, i: c.network.get_network(i["network"]),
        "climate-net",
    ),
    Operation(f"GET {_N}/subnets", "subnet list", lambda c, _: c.network.subnets(), "{subnet}"),
    Operation(
        f"GET {_N}/subnets/{{id}}",
        "subnet show {subnet}",
        lambda c, i: c.network.get_subnet(i["subnet"]),
        "10.10.0.0/24",
    ),
    Operation(f"GET {_N}/ports", "port list --server box", lambda c, i: c.network.ports(device_id=i["box"]), "plug"),
    Operation(
        f"POST {_N}/ports",
        "port create --network climate-net --security-group web fresh",
        lambda c, i: c.network.create_port(network_id=i["network"], name="fresh"),
        so=there("ports"),
    ),
    Operation(f"GET {_N}/ports/{{id}}", "port show {port}", lambda c, i: c.network.get_port(i["port"]), "plug"),
    Operation(
        f"PUT {_N}/ports/{{id}}",
        "port set --name fresh plug",
        lambda c, i: c.network.update_port(i["port"], name="fresh"),
        so=there("ports"),
    ),
    Operation(
        f"DELETE {_N}/ports/{{id}}",
        "port delete plug",
        lambda c, i: c.network.delete_port(i["port"]),
        so=gone("ports", "port"),
    ),
    Operation(f"GET {_N}/floatingips", "floating ip list", lambda c, _: c.network.ips(), "{address_text}"),
    Operation(
        f"POST {_N}/floatingips",
        "floating ip create --port plug public",
        lambda c, i: c.network.create_ip(floating_network_id=i["outside"], port_id=i["port"]),
        so=lambda cloud, ids: any(item.port_id == ids["port"] for item in cloud.floating_ips.values()),
    ),
    Operation(
        f"GET {_N}/floatingips/{{id}}",
        "floating ip show {address}",
        lambda c, i: c.network.get_ip(i["address"]),
        "{address_text}",
    ),
    Operation(
        f"PUT {_N}/floatingips/{{id}}",
        "server add floating ip box {address_text}",
        lambda c, i: c.network.update_ip(i["address"], port_id=i["port"]),
        so=lambda cloud, ids: cloud.floating_ips[ids["address"]].port_id == ids["port"],
    ),
    Operation(
        f"DELETE {_N}/floatingips/{{id}}",
        "floating ip delete {address}",
        lambda c, i: c.network.delete_ip(i["address"]),
        so=gone("floating_ips", "address"),
    ),
    Operation(f"GET {_N}/security-groups", "security group list", lambda c, _: c.network.security_groups(), "web"),
    Operation(
        f"POST {_N}/security-groups",
        "security group create fresh",
        lambda c, _: c.network.create_security_group(name="fresh"),
        so=there("security_groups"),
    ),
    Operation(
        f"GET {_N}/security-groups/{{id}}",
        "security group show {group}",
        lambda c, i: c.network.get_security_group(i["group"]),
        "web",
    ),
    Operation(
        f"PUT {_N}/security-groups/{{id}}",
        "security group set --name fresh web",
        lambda c, i: c.network.update_security_group(i["group"], name="fresh"),
        so=there("security_groups"),
    ),
    Operation(
        f"DELETE {_N}/security-groups/{{id}}",
        "security group delete web",
        lambda c, i: c.network.delete_security_group(i["group"]),
        so=gone("security_groups", "group"),
        first=("port delete plug",),
    ),
    Operation(
        f"GET {_N}/security-group-rules",
        "security group rule list web",
        lambda c, _: c.network.security_group_rules(),
        "{rule}",
    ),
    Operation(
        f"POST {_N}/security-group-rules",
        "security group rule create --protocol tcp --dst-port 22 web",
        lambda c, i: c.network.create_security_group_rule(
            security_group_id=i["group"], direction="ingress", protocol="tcp"
        ),
        so=lambda cloud, _: any(rule.protocol == "tcp" for rule in cloud.security_group_rules.values()),
    ),
    Operation(
        f"GET {_N}/security-group-rules/{{id}}",
        "security group rule show {rule}",
        lambda c, i: c.network.get_security_group_rule(i["rule"]),
        "udp",
    ),
    Operation(
        f"DELETE {_N}/security-group-rules/{{id}}",
        "security group rule delete {rule}",
        lambda c, i: c.network.delete_security_group_rule(i["rule"]),
        so=gone("security_group_rules", "rule"),
    ),
    Operation(f"GET {_N}/quotas", "", None),
    Operation(
        f"GET {_N}/quotas/{{project}}", "quota show --network", lambda c, i: c.network.get_quota(i["project"]), "port"
    ),
    Operation(
        f"GET {_N}/quotas/{{project}}/details",
        "quota show --network --usage",
        lambda c, i: c.network.get_quota(i["project"], details=True),
        "port",
    ),
    Operation(
        f"PUT {_N}/{{kind}}/{{id}}/tags",
        "network set --tag new climate-net",
        lambda c, i: c.network.set_tags(c.network.get_network(i["network"]), ["new"]),
        so=lambda cloud, ids: cloud.networks[ids["network"]].tags == ["new"],
    ),
    Operation(
        f"PUT {_N}{_TAG}",
        "",
        lambda c, i: c.network.get_network(i["network"]).add_tag(c.network, "new"),
        so=lambda cloud, ids: cloud.networks[ids["network"]].tags == ["new"],
    ),
    Operation(f"GET {_N}/{{kind}}/{{id}}/tags", "", None),
    Operation(
        f"DELETE {_N}{_TAG}",
        "",
        lambda c, i: c.network.get_network(i["network"]).remove_tag(c.network, "old"),
        so=lambda cloud, ids: not cloud.networks[ids["network"]].tags,
        first=("network set --tag old climate-net",),
    ),
)

_C = "/volume/v3/{project}"
VOLUMES = (
    Operation(f"GET {_C}/volumes/detail", "volume list", lambda c, _: c.block_storage.volumes(), "disk"),
    Operation(f"GET {_C}/volumes", "", lambda c, _: c.block_storage.volumes(details=False), "disk"),
    Operation(
        f"POST {_C}/volumes",
        "volume create --size 1 fresh",
        lambda c, _: c.block_storage.create_volume(name="fresh", size=1),
        so=there("volumes"),
    ),
    Operation(
        f"GET {_C}/volumes/{{volume}}",
        "volume show disk",
        lambda c, i: c.block_storage.get_volume(i["disk"]),
        "available",
    ),
    Operation(
        f"PUT {_C}/volumes/{{volume}}",
        "volume set --name fresh disk",
        lambda c, i: c.block_storage.update_volume(i["disk"], name="fresh"),
        so=there("volumes"),
    ),
    Operation(
        f"DELETE {_C}/volumes/{{volume}}",
        "volume delete fresh",
        lambda c, _: c.block_storage.delete_volume(c.block_storage.find_volume("fresh", ignore_missing=False)),
        so=lambda cloud, _: all(volume.name != "fresh" for volume in cloud.volumes.values()),
        first=("volume create --size 1 fresh",),
    ),
    Operation(f"GET {_C}/snapshots/detail", "volume snapshot list", lambda c, _: c.block_storage.snapshots(), "copy"),
    Operation(f"GET {_C}/snapshots", "", lambda c, _: c.block_storage.snapshots(details=False), "copy"),
    Operation(
        f"POST {_C}/snapshots",
        "volume snapshot create --volume disk fresh",
        lambda c, i: c.block_storage.create_snapshot(volume_id=i["disk"], name="fresh"),
        so=there("volume_snapshots"),
    ),
    Operation(
        f"GET {_C}/snapshots/{{snapshot}}",
        "volume snapshot show copy",
        lambda c, i: c.block_storage.get_snapshot(i["copy"]),
        "available",
    ),
    Operation(
        f"PUT {_C}/snapshots/{{snapshot}}",
        "volume snapshot set --name fresh copy",
        lambda c, i: c.block_storage.update_snapshot(i["copy"], name="fresh"),
        so=there("volume_snapshots"),
    ),
    Operation(
        f"DELETE {_C}/snapshots/{{snapshot}}",
        "volume snapshot delete copy",
        lambda c, i: c.block_storage.delete_snapshot(i["copy"]),
        so=gone("volume_snapshots", "copy"),
    ),
    Operation(f"GET {_C}/types", "volume type list", lambda c, _: c.block_storage.types(), "standard"),
    Operation(
        f"GET {_C}/types/{{type}}",
        "volume type show {type}",
        lambda c, i: c.block_storage.get_type(i["type"]),
        "standard",
    ),
    Operation(f"GET {_C}/limits", "limits show --absolute", lambda c, _: c.block_storage.get_limits(), "1000"),
    Operation(
        f"GET {_C}/os-quota-sets/{{target}}",
        "quota show --volume --usage",
        lambda c, i: c.block_storage.get_quota_set(i["project"], usage=True),
        "gigabytes",
    ),
)
