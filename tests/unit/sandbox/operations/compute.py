"""The operations of Nova."""

from __future__ import annotations

from tests.unit.sandbox.operations.operation import Operation, gone, status_is, there
from tests.unit.sandbox.wire_client import PUBLIC_KEY

_V = "/compute/v2.1"
_S = _V + "/servers/{server}"
_ACT = f"POST {_S}/action"
_RESIZED = ("server resize --flavor m1.small box",)
_INGRESS = {"direction": "ingress", "protocol": "tcp", "port_range_min": 22, "port_range_max": 22}

SERVERS = (
    Operation(f"GET {_V}/servers/detail", "server list", lambda c, _: c.compute.servers(), "box"),
    Operation(f"GET {_V}/servers", "", lambda c, _: c.compute.servers(details=False), "box"),
    Operation(
        f"POST {_V}/servers",
        "server create --flavor m1.tiny --image cirros --network climate-net --key-name key --property c=d fresh",
        lambda c, i: c.compute.create_server(
            name="fresh", flavor_id=i["flavor"], image_id=i["image"], networks=[{"uuid": i["network"]}]
        ),
        so=there("servers"),
    ),
    Operation(f"GET {_S}", "server show box", lambda c, i: c.compute.get_server(i["box"]), "ACTIVE"),
    Operation(
        f"PUT {_S}",
        "server set --name fresh box",
        lambda c, i: c.compute.update_server(i["box"], name="fresh"),
        so=there("servers"),
    ),
    Operation(
        f"DELETE {_S}",
        "server delete --wait box",
        lambda c, i: c.compute.delete_server(i["box"]),
        so=gone("servers", "box"),
    ),
    Operation(f"GET {_S}/metadata", "", lambda c, i: c.compute.fetch_server_metadata(i["box"]), "'a': 'b'"),
    Operation(
        f"POST {_S}/metadata",
        "server set --property c=d box",
        lambda c, i: c.compute.set_server_metadata(i["box"], c="d"),
        so=lambda cloud, ids: cloud.servers[ids["box"]].metadata == {"a": "b", "c": "d"},
    ),
    Operation(f"PUT {_S}/metadata", "", None),
    Operation(
        f"DELETE {_S}/metadata/{{key}}",
        "server unset --property a box",
        lambda c, i: c.compute.delete_server_metadata(i["box"], ["a"]),
        so=lambda cloud, ids: cloud.servers[ids["box"]].metadata == {},
    ),
    Operation(f"GET {_S}/tags", "", lambda c, i: c.compute.get_server(i["box"]).fetch_tags(c.compute), "tags"),
    Operation(
        f"PUT {_S}/tags",
        "",
        lambda c, i: c.compute.get_server(i["box"]).set_tags(c.compute, ["new"]),
        so=lambda cloud, ids: cloud.servers[ids["box"]].tags == ["new"],
    ),
    Operation(f"GET {_S}/os-interface", "", lambda c, i: c.compute.server_interfaces(i["box"]), "fixed_ips"),
    Operation(
        f"GET {_S}/os-security-groups",
        "",
        lambda c, i: c.compute.fetch_server_security_groups(i["box"]).security_groups,
        "web",
    ),
    Operation(
        f"GET {_S}/os-instance-actions",
        "server event list box",
        lambda c, i: c.compute.server_actions(i["box"]),
        "create",
    ),
    Operation(
        f"GET {_S}/os-instance-actions/{{request}}",
        "",
        lambda c, i: c.compute.get_server_action(next(c.compute.server_actions(i["box"])).request_id, i["box"]),
        "create",
    ),
    Operation(
        f"{_ACT} os-stop", "server stop box", lambda c, i: c.compute.stop_server(i["box"]), so=status_is("SHUTOFF")
    ),
    Operation(
        f"{_ACT} os-start",
        "server start box",
        lambda c, i: c.compute.start_server(i["box"]),
        so=status_is("ACTIVE"),
        first=("server stop box",),
    ),
    Operation(
        f"{_ACT} reboot",
        "server reboot --hard box",
        lambda c, i: c.compute.reboot_server(i["box"], "HARD"),
        so=status_is("ACTIVE"),
    ),
    Operation(
        f"{_ACT} suspend",
        "server suspend box",
        lambda c, i: c.compute.suspend_server(i["box"]),
        so=status_is("SUSPENDED"),
    ),
    Operation(
        f"{_ACT} resume",
        "server resume box",
        lambda c, i: c.compute.resume_server(i["box"]),
        so=status_is("ACTIVE"),
        first=("server suspend box",),
    ),
    Operation(
        f"{_ACT} pause", "server pause box", lambda c, i: c.compute.pause_server(i["box"]), so=status_is("PAUSED")
    ),
    Operation(
        f"{_ACT} unpause",
        "server unpause box",
        lambda c, i: c.compute.unpause_server(i["box"]),
        so=status_is("ACTIVE"),
        first=("server pause box",),
    ),
    Operation(
        f"{_ACT} shelve",
        "server shelve box",
        lambda c, i: c.compute.shelve_server(i["box"]),
        so=status_is("SHELVED_OFFLOADED"),
    ),
    Operation(
        f"{_ACT} unshelve",
        "server unshelve box",
        lambda c, i: c.compute.unshelve_server(i["box"]),
        so=status_is("ACTIVE"),
        first=("server shelve box",),
    ),
    Operation(
        f"{_ACT} lock",
        "server lock --reason why box",
        lambda c, i: c.compute.lock_server(i["box"], "why"),
        so=lambda cloud, ids: cloud.servers[ids["box"]].locked,
    ),
    Operation(
        f"{_ACT} unlock",
        "server unlock box",
        lambda c, i: c.compute.unlock_server(i["box"]),
        so=lambda cloud, ids: not cloud.servers[ids["box"]].locked,
        first=("server lock box",),
    ),
    Operation(
        f"{_ACT} resize",
        "server resize --flavor m1.small box",
        lambda c, i: c.compute.resize_server(i["box"], i["larger"]),
        so=status_is("VERIFY_RESIZE"),
    ),
    Operation(
        f"{_ACT} confirmResize",
        "server resize confirm box",
        lambda c, i: c.compute.confirm_server_resize(i["box"]),
        so=status_is("ACTIVE"),
        first=_RESIZED,
    ),
    Operation(
        f"{_ACT} revertResize",
        "server resize revert box",
        lambda c, i: c.compute.revert_server_resize(i["box"]),
        so=status_is("ACTIVE"),
        first=_RESIZED,
    ),
    Operation(
        f"{_ACT} rebuild",
        "server rebuild --image ubuntu-22.04 box",
        lambda c, i: c.compute.rebuild_server(i["box"], image=c.image.find_image("ubuntu-22.04").id),
        so=lambda cloud, ids: cloud.images[cloud.servers[ids["box"]].image_id].config.name == "ubuntu-22.04",
    ),
    Operation(
        f"{_ACT} createImage",
        "server image create --name fresh box",
        lambda c, i: c.compute.create_server_image(i["box"], "fresh"),
        so=lambda cloud, _: any(image.config.name == "fresh" for image in cloud.images.values()),
    ),
    Operation(
        f"{_ACT} forceDelete",
        "server delete --force --wait box",
        lambda c, i: c.compute.delete_server(i["box"], force=True),
        so=gone("servers", "box"),
    ),
    Operation(f"{_ACT} shelveOffload", "", None),
    Operation(
        f"GET {_S}/os-volume_attachments",
        "server volume list box",
        lambda c, i: c.compute.volume_attachments(i["box"]),
        "{used}",
    ),
    Operation(
        f"POST {_S}/os-volume_attachments",
        "server add volume box disk",
        lambda c, i: c.compute.create_volume_attachment(i["box"], i["disk"]),
        so=lambda cloud, ids: ids["disk"] in cloud.servers[ids["box"]].volume_ids,
    ),
    Operation(
        f"GET {_S}/os-volume_attachments/{{volume}}",
        "",
        lambda c, i: c.compute.get_volume_attachment(i["box"], i["used"]),
        "{used}",
    ),
    Operation(
        f"DELETE {_S}/os-volume_attachments/{{volume}}",
        "server remove volume box used",
        lambda c, i: c.compute.delete_volume_attachment(i["box"], i["used"]),
        so=lambda cloud, ids: ids["used"] not in cloud.servers[ids["box"]].volume_ids,
    ),
)

_KEYS = f"{_V}/os-keypairs"
_GROUPS = f"{_V}/os-server-groups"
COMPUTE = (
    Operation(f"GET {_GROUPS}", "server group list", lambda c, _: c.compute.server_groups(), "apart"),
    Operation(
        f"POST {_GROUPS}",
        "server group create --policy anti-affinity fresh",
        lambda c, _: c.compute.create_server_group(name="fresh", policy="anti-affinity"),
        so=there("server_groups"),
    ),
    Operation(
        f"GET {_GROUPS}/{{group}}",
        "server group show apart",
        lambda c, i: c.compute.get_server_group(i["apart"]),
        "soft-anti-affinity",
    ),
    Operation(
        f"DELETE {_GROUPS}/{{group}}",
        "server group delete apart",
        lambda c, i: c.compute.delete_server_group(i["apart"]),
        so=gone("server_groups", "apart"),
    ),
    Operation(f"GET {_V}/flavors", "", lambda c, _: c.compute.flavors(details=False), "m1.tiny"),
    Operation(f"GET {_V}/flavors/detail", "flavor list", lambda c, _: c.compute.flavors(), "m1.tiny"),
    Operation(
        f"GET {_V}/flavors/{{flavor}}",
        "flavor show {flavor}",
        lambda c, i: c.compute.get_flavor(i["flavor"]),
        "m1.tiny",
    ),
    Operation(
        f"GET {_V}/flavors/{{flavor}}/os-extra_specs",
        "",
        lambda c, i: c.compute.fetch_flavor_extra_specs(c.compute.get_flavor(i["flavor"])),
        "extra_specs",
    ),
    Operation(f"GET {_KEYS}", "keypair list", lambda c, _: c.compute.keypairs(), "key"),
    Operation(
        f"POST {_KEYS}",
        "keypair create --public-key {public_key_file} fresh",
        lambda c, _: c.compute.create_keypair(name="fresh", public_key=PUBLIC_KEY),
        so=there("key_pairs"),
    ),
    Operation(f"GET {_KEYS}/{{name}}", "keypair show key", lambda c, _: c.compute.get_keypair("key"), "fingerprint"),
    Operation(
        f"DELETE {_KEYS}/{{name}}",
        "keypair delete key",
        lambda c, _: c.compute.delete_keypair("key"),
        so=lambda cloud, _: not cloud.key_pairs,
    ),
    Operation(
        f"GET {_V}/os-availability-zone",
        "availability zone list --compute",
        lambda c, _: c.compute.availability_zones(),
        "nova",
    ),
    Operation(f"GET {_V}/limits", "limits show --absolute", lambda c, _: c.compute.get_limits(), "51200"),
    Operation(
        f"GET {_V}/os-quota-sets/{{project}}",
        "quota show --compute",
        lambda c, i: c.compute.get_quota_set(i["project"]),
        "instances",
    ),
    Operation(
        f"GET {_V}/os-quota-sets/{{project}}/detail",
        "quota show --compute --usage",
        lambda c, i: c.compute.get_quota_set(i["project"], usage=True),
        "instances",
    ),
    Operation(
        f"GET {_V}/os-quota-sets/{{project}}/defaults",
        "quota show --compute --default",
        lambda c, i: c.compute.get_quota_set_defaults(i["project"]),
        "instances",
    ),
    Operation(
        f"GET {_V}/os-simple-tenant-usage/{{project}}",
        "usage show --start 2026-01-01 --end 2026-12-31",
        lambda c, i: c.compute.get_usage(i["project"]),
        "",
    ),
    Operation(f"GET {_V}/os-simple-tenant-usage", "", None),
    Operation(f"GET {_V}/os-availability-zone/detail", "availability zone list --compute", None, "nova"),
)
