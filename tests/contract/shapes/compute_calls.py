"""The calls to Nova, in the order in which they are made, and those to other services that need a server's state."""

from __future__ import annotations

from typing import Any

from tests.contract.shapes.asks import (
    NOWHERE,
    PUBLIC_KEY,
    VOLUME,
    Ask,
    Until,
    compute,
    identity,
    image,
    network,
    volume,
)

_SERVER = "/v2.1/servers/{server}"
_MADE = {"name": "{name}", "flavorRef": "{flavor}", "imageRef": "{image}", "key_name": "{name}", "metadata": {"a": "b"}}
_ON_PORT = {"server": {**_MADE, "networks": [{"port": "{port}"}]}}
_LARGE = {"server": {"name": "{name}", "flavorRef": "{large}", "imageRef": "{image}", "networks": "none"}}
_NO_FLAVOR = {"server": {**_MADE, "flavorRef": NOWHERE, "networks": "none"}}
_NO_IMAGE = {"server": {**_MADE, "imageRef": NOWHERE, "networks": "none"}}
_NO_NETWORK = {"server": {**_MADE, "networks": [{"uuid": NOWHERE}]}}
_LOST = {"server": {"name": "nowhere-{name}", "flavorRef": "{unplaceable}", "imageRef": "{image}", "networks": "none"}}


_ROOT = {
    "boot_index": 0,
    "uuid": "{image}",
    "source_type": "image",
    "destination_type": "volume",
    "volume_size": 1,
    "delete_on_termination": True,
}
_WITHOUT_IMAGE = {"name": "volume-{name}", "flavorRef": "{flavor}", "networks": "none"}
_ON_VOLUME = {"server": {**_WITHOUT_IMAGE, "block_device_mapping_v2": [_ROOT]}}
_NO_DISK = {"server": _WITHOUT_IMAGE}


def _gone(server: str) -> Until:
    return Until(service="compute", path=f"/v2.1/servers/{{{server}}}")


def _is(status: str, server: str = "server") -> Until:
    return Until(service="compute", path=f"/v2.1/servers/{{{server}}}", at="server.status", value=status)


def _act(name: str, document: dict[str, Any], *, until: Until | None = None) -> Ask:
    return compute(f"server.{name}", f"POST {_SERVER}/action", document, until=until)


_GROUP = {"server_group": {"name": "{name}", "policy": "soft-anti-affinity"}}
FLAVORS_AND_LIMITS = (
    compute("versions", "GET /", who="", version=""),
    compute("version", "GET /v2.1/", who="", version=""),
    compute("flavor.list", "GET /v2.1/flavors"),
    compute("flavor.detail", "GET /v2.1/flavors/detail"),
    compute("flavor.detail, 2.1", "GET /v2.1/flavors/detail", version=""),
    compute("flavor.show", "GET /v2.1/flavors/{flavor}"),
    compute("flavor.show, unknown", f"GET /v2.1/flavors/{NOWHERE}"),
    compute("flavor.list, one of more", "GET /v2.1/flavors?limit=1"),
    compute("extra specs", "GET /v2.1/flavors/{with_specs}/os-extra_specs"),
    compute("limits", "GET /v2.1/limits"),
    compute("quota", "GET /v2.1/os-quota-sets/{project}"),
    compute("quota in detail", "GET /v2.1/os-quota-sets/{project}/detail"),
    compute("quota in detail, 2.1", "GET /v2.1/os-quota-sets/{project}/detail", version=""),
    compute("quota, defaults", "GET /v2.1/os-quota-sets/{project}/defaults"),
    compute("zones", "GET /v2.1/os-availability-zone"),
    compute("zones in detail", "GET /v2.1/os-availability-zone/detail"),
    compute("flavor.list, without token", "GET /v2.1/flavors", who=""),
    compute("flavor.list, version too new", "GET /v2.1/flavors", version="2.999"),
    compute("flavor.list, no version", "GET /v2.1/flavors", version="newest"),
    compute("no such path", "GET /v2.1/nothing"),
    compute(
        "keypair.create",
        "POST /v2.1/os-keypairs",
        {"keypair": {"name": "{name}", "public_key": PUBLIC_KEY, "type": "ssh"}},
    ),
    compute(
        "keypair.create, same name", "POST /v2.1/os-keypairs", {"keypair": {"name": "{name}", "public_key": PUBLIC_KEY}}
    ),
    compute(
        "keypair.create, no key", "POST /v2.1/os-keypairs", {"keypair": {"name": "other-{name}", "public_key": "none"}}
    ),
    compute("keypair.list", "GET /v2.1/os-keypairs"),
    compute("keypair.list, 2.1", "GET /v2.1/os-keypairs", version=""),
    compute("keypair.show", "GET /v2.1/os-keypairs/{name}"),
    compute("keypair.show, unknown", "GET /v2.1/os-keypairs/nothing"),
    compute(
        "group.create",
        "POST /v2.1/os-server-groups",
        _GROUP,
        keep={"server_group": "server_group.id"},
    ),
    compute(
        "group.create, no policy", "POST /v2.1/os-server-groups", {"server_group": {"name": "{name}", "policy": "none"}}
    ),
    compute("group.list", "GET /v2.1/os-server-groups"),
    compute("group.show", "GET /v2.1/os-server-groups/{server_group}"),
    compute("group.delete", "DELETE /v2.1/os-server-groups/{server_group}"),
    compute("group.show, gone", "GET /v2.1/os-server-groups/{server_group}"),
)

SERVERS = (
    compute("server.create", "POST /v2.1/servers", _ON_PORT, keep={"server": "server.id"}, until=_is("ACTIVE")),
    compute("server.create, over quota", "POST /v2.1/servers", _LARGE, who="tim"),
    compute("server.create, port in use", "POST /v2.1/servers", _ON_PORT),
    compute("server.create, unknown flavor", "POST /v2.1/servers", _NO_FLAVOR),
    compute("server.create, unknown image", "POST /v2.1/servers", _NO_IMAGE),
    compute("server.create, unknown network", "POST /v2.1/servers", _NO_NETWORK),
    compute("server.create, no name", "POST /v2.1/servers", {"server": {"flavorRef": "{flavor}", "networks": "none"}}),
    compute(
        "server.create, for nowhere",
        "POST /v2.1/servers",
        _LOST,
        keep={"lost": "server.id"},
        until=_is("ERROR", "lost"),
    ),
    compute("server.show, in error", "GET /v2.1/servers/{lost}"),
    compute("server.detail, in error", "GET /v2.1/servers/detail?name=nowhere-{name}"),
    compute(
        "server.delete, in error",
        "DELETE /v2.1/servers/{lost}",
        until=Until(service="compute", path="/v2.1/servers/{lost}"),
    ),
    compute("server.create, by a reader", "POST /v2.1/servers", _ON_PORT, who="rita"),
    # The recorded OpenStack's fake volumes take no image, so what becomes of it is not asked.
    compute("server.create, from a volume", "POST /v2.1/servers", _ON_VOLUME, keep={"on_volume": "server.id"}),
    compute("server.delete, from a volume", "DELETE /v2.1/servers/{on_volume}", until=_gone("on_volume")),
    compute("server.create, no disk", "POST /v2.1/servers", _NO_DISK),
    compute("server.list", "GET /v2.1/servers?name=^{name}"),
    compute("server.show, by a reader", f"GET {_SERVER}", who="rita"),
    compute("server.delete, by a reader", f"DELETE {_SERVER}", who="rita"),
    compute("server.stop, by a reader", f"POST {_SERVER}/action", {"os-stop": None}, who="rita"),
    compute("group.create, by a reader", "POST /v2.1/os-server-groups", _GROUP, who="rita"),
    compute("server.detail", "GET /v2.1/servers/detail?name=^{name}"),
    compute("server.detail, 2.1", "GET /v2.1/servers/detail?name=^{name}", version=""),
    compute("server.detail, one of more", "GET /v2.1/servers/detail?name=^{name}&limit=1"),
    compute("server.detail, bad limit", "GET /v2.1/servers/detail?limit=many"),
    compute("server.detail, unknown marker", f"GET /v2.1/servers/detail?marker={NOWHERE}"),
    compute("server.detail, all projects", "GET /v2.1/servers/detail?all_tenants=1"),
    compute("server.show", f"GET {_SERVER}"),
    compute("server.show, 2.1", f"GET {_SERVER}", version=""),
    compute("server.show, unknown", f"GET /v2.1/servers/{NOWHERE}"),
    compute("server.update", f"PUT {_SERVER}", {"server": {"name": "{name}"}}),
    compute("server.interfaces", f"GET {_SERVER}/os-interface"),
    compute("server.actions", f"GET {_SERVER}/os-instance-actions", keep={"request": "instanceActions.0.request_id"}),
    compute("server.action", f"GET {_SERVER}/os-instance-actions/{{request}}"),
    compute("server.action, unknown", f"GET {_SERVER}/os-instance-actions/req-{NOWHERE}"),
    compute("server.groups", f"GET {_SERVER}/os-security-groups"),
    compute("server.metadata", f"GET {_SERVER}/metadata"),
    compute("server.metadata, add", f"POST {_SERVER}/metadata", {"metadata": {"c": "d"}}),
    compute("server.metadata, replace", f"PUT {_SERVER}/metadata", {"metadata": {"c": "d"}}),
    compute("server.metadata, delete", f"DELETE {_SERVER}/metadata/c"),
    compute("server.metadata, unknown", f"DELETE {_SERVER}/metadata/c"),
    compute("server.tags, replace", f"PUT {_SERVER}/tags", {"tags": ["leeway"]}),
    compute("server.tags", f"GET {_SERVER}/tags"),
    compute("usage", "GET /v2.1/os-simple-tenant-usage/{project}?start={yesterday}&end={tomorrow}&limit=1"),
    compute("usage, 2.1", "GET /v2.1/os-simple-tenant-usage/{project}?start={yesterday}&end={tomorrow}", version=""),
    compute("usage of all", "GET /v2.1/os-simple-tenant-usage"),
    compute("usage, backwards", "GET /v2.1/os-simple-tenant-usage/{project}?start={tomorrow}&end={yesterday}"),
    compute(
        "volume.attach",
        f"POST {_SERVER}/os-volume_attachments",
        {"volumeAttachment": {"volumeId": "{volume}"}},
        until=Until(service="volume", path=VOLUME, at="volume.status", value="in-use"),
    ),
    volume("volume.show, attached", f"GET {VOLUME}"),
    volume("volume.delete, attached", f"DELETE {VOLUME}"),
    compute(
        "volume.attach, twice", f"POST {_SERVER}/os-volume_attachments", {"volumeAttachment": {"volumeId": "{volume}"}}
    ),
    compute(
        "volume.attach, unknown", f"POST {_SERVER}/os-volume_attachments", {"volumeAttachment": {"volumeId": NOWHERE}}
    ),
    compute("server.volumes", f"GET {_SERVER}/os-volume_attachments"),
    compute("server.volume", f"GET {_SERVER}/os-volume_attachments/{{volume}}"),
    compute("server.show, with a volume", f"GET {_SERVER}"),
)

_RESIZE = {"resize": {"flavorRef": "{larger}"}}
ACTIONS = (
    compute(
        "volume.detach",
        f"DELETE {_SERVER}/os-volume_attachments/{{volume}}",
        until=Until(service="volume", path=VOLUME, at="volume.status", value="available"),
    ),
    compute("volume.detach, not attached", f"DELETE {_SERVER}/os-volume_attachments/{{volume}}"),
    _act("start, running", {"os-start": None}),
    _act("no such action", {"leap": None}),
    _act("shelve offload", {"shelveOffload": None}),
    _act("stop", {"os-stop": None}, until=_is("SHUTOFF")),
    compute("server.show, stopped", f"GET {_SERVER}"),
    _act("stop, stopped", {"os-stop": None}),
    _act("start", {"os-start": None}, until=_is("ACTIVE")),
    _act("reboot", {"reboot": {"type": "SOFT"}}, until=_is("ACTIVE")),
    _act("reboot, no type", {"reboot": {}}),
    _act("suspend", {"suspend": None}, until=_is("SUSPENDED")),
    compute("server.show, suspended", f"GET {_SERVER}"),
    _act("suspend, suspended", {"suspend": None}),
    _act("resume", {"resume": None}, until=_is("ACTIVE")),
    _act("resume, running", {"resume": None}),
    _act("pause", {"pause": None}, until=_is("PAUSED")),
    _act("unpause", {"unpause": None}, until=_is("ACTIVE")),
    _act("unpause, running", {"unpause": None}),
    _act("lock", {"lock": {"locked_reason": "shapes"}}),
    compute("server.show, locked", f"GET {_SERVER}"),
    _act("unlock", {"unlock": None}),
    _act("resize", _RESIZE, until=_is("VERIFY_RESIZE")),
    compute("server.show, resized", f"GET {_SERVER}"),
    _act("resize, resized", _RESIZE),
    _act("resize.revert", {"revertResize": None}, until=_is("ACTIVE")),
    _act("resize again", _RESIZE, until=_is("VERIFY_RESIZE")),
    _act("resize.confirm", {"confirmResize": None}, until=_is("ACTIVE")),
    _act("resize.confirm, not resized", {"confirmResize": None}),
    _act("resize, unknown flavor", {"resize": {"flavorRef": NOWHERE}}),
    _act("resize, same flavor", _RESIZE),
    _act("rebuild", {"rebuild": {"imageRef": "{image}"}}, until=_is("ACTIVE")),
    _act("rebuild, unknown image", {"rebuild": {"imageRef": NOWHERE}}),
    _act("shelve", {"shelve": None}, until=_is("SHELVED_OFFLOADED")),
    compute("server.show, shelved", f"GET {_SERVER}"),
    _act("unshelve", {"unshelve": None}, until=_is("ACTIVE")),
    _act("unshelve, running", {"unshelve": None}),
    compute(
        "server.create image",
        f"POST {_SERVER}/action",
        {"createImage": {"name": "{name}", "metadata": {"a": "b"}}},
        keep={"saved": "image_id"},
    ),
    image("image.show, queued", "GET /v2/images/{saved}"),
    image("image.delete", "DELETE /v2/images/{saved}"),
    image("image.show, gone", "GET /v2/images/{saved}"),
    image("image.delete, gone", "DELETE /v2/images/{saved}"),
)

ENDS = (
    compute("server.delete", f"DELETE {_SERVER}", until=Until(service="compute", path=_SERVER)),
    compute("server.delete, gone", f"DELETE {_SERVER}"),
    compute("server.show, gone", f"GET {_SERVER}"),
    _act("stop, gone", {"os-stop": None}),
    compute("server.detail, changes", "GET /v2.1/servers/detail?name=^{name}&changes-since={began}"),
    compute("server.detail, bad time", "GET /v2.1/servers/detail?changes-since=lately"),
    compute("keypair.delete", "DELETE /v2.1/os-keypairs/{name}"),
    compute("keypair.delete, gone", "DELETE /v2.1/os-keypairs/{name}"),
    volume("volume.delete", f"DELETE {VOLUME}", until=Until(service="volume", path=VOLUME)),
    volume("volume.delete, gone", f"DELETE {VOLUME}"),
    network("address.delete", "DELETE /v2.0/floatingips/{floating}"),
    network("address.delete, gone", "DELETE /v2.0/floatingips/{floating}"),
    network("port.delete", "DELETE /v2.0/ports/{port}"),
    network("port.delete, gone", "DELETE /v2.0/ports/{port}"),
    network("group.delete", "DELETE /v2.0/security-groups/{group}"),
    network("group.delete, gone", "DELETE /v2.0/security-groups/{group}"),
    identity("token.revoke", "DELETE /v3/auth/tokens", headers={"X-Subject-Token": "{spare}"}),
    identity("token.show, revoked", "GET /v3/auth/tokens", headers={"X-Subject-Token": "{spare}"}),
)
