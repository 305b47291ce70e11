"""The named calls whose answers are compared: one walk through a project, told in the order in which it is gone.

A call knows its state by what stands before it: `server.show` after `server.create` is of a server that runs. What a
call makes is deleted by a later one. Placeholders are what earlier answers held (`keep`), or what the cloud is known to
have (`asking.Place`).
"""

from __future__ import annotations

from typing import Any

from tests.contract.shapes.asks import NOWHERE, VOLUME, Until, identity, image, network, volume
from tests.contract.shapes.compute_calls import ACTIONS, ENDS, FLAVORS_AND_LIMITS, SERVERS


def _login(secret: str, scope: Any, **user: Any) -> dict[str, Any]:
    named = {"name": "{user_name}", "domain": {"name": "Default"}, "password": secret, **user}
    method = {"methods": ["password"], "password": {"user": named}}
    return {"auth": {"identity": method} | ({"scope": scope} if scope else {})}


_HERE = {"project": {"name": "{project_name}", "domain": {"name": "Default"}}}
_ELSEWHERE = {"project": {"name": "no-such-project", "domain": {"name": "Default"}}}
_CREDENTIALS = "/v3/users/{user}/application_credentials"


def _by_credential(secret: str) -> dict[str, Any]:
    given = {"id": "{credential}", "secret": secret}
    return {"auth": {"identity": {"methods": ["application_credential"], "application_credential": given}}}


IDENTITY = (
    identity("versions", "GET /", who=""),
    identity("version", "GET /v3", who=""),
    identity("token.create", "POST /v3/auth/tokens", _login("{password}", _HERE), who=""),
    identity("token.create, unscoped", "POST /v3/auth/tokens", _login("{password}", "unscoped"), who=""),
    identity("token.create, wrong password", "POST /v3/auth/tokens", _login("wrong", _HERE), who=""),
    identity("token.create, unknown project", "POST /v3/auth/tokens", _login("{password}", _ELSEWHERE), who=""),
    identity("token.create, no method", "POST /v3/auth/tokens", {"auth": {}}, who=""),
    identity("token.show", "GET /v3/auth/tokens", headers={"X-Subject-Token": "{token}"}),
    identity("token.show, unknown", "GET /v3/auth/tokens", headers={"X-Subject-Token": "garbage"}),
    identity("catalog", "GET /v3/auth/catalog"),
    identity("projects", "GET /v3/auth/projects"),
    identity("projects, without token", "GET /v3/auth/projects", who=""),
    identity("projects of the user", "GET /v3/users/{user}/projects"),
    identity("projects of all", "GET /v3/projects"),
    identity("project.show", "GET /v3/projects/{project}"),
    identity(
        "credential.create",
        f"POST {_CREDENTIALS}",
        {"application_credential": {"name": "{name}"}},
        keep={"credential": "application_credential.id", "secret": "application_credential.secret"},
    ),
    identity("credential.create, same name", f"POST {_CREDENTIALS}", {"application_credential": {"name": "{name}"}}),
    identity("credential.list", f"GET {_CREDENTIALS}?name={{name}}"),
    identity("credential.show", f"GET {_CREDENTIALS}/{{credential}}"),
    identity("token.create, credential", "POST /v3/auth/tokens", _by_credential("{secret}"), who=""),
    identity("token.create, credential, wrong secret", "POST /v3/auth/tokens", _by_credential("wrong"), who=""),
    identity("credential.delete", f"DELETE {_CREDENTIALS}/{{credential}}"),
    identity("credential.show, gone", f"GET {_CREDENTIALS}/{{credential}}"),
    identity("token.create, credential gone", "POST /v3/auth/tokens", _by_credential("{secret}"), who=""),
)

IMAGES = (
    image("versions", "GET /", who=""),
    image("versions by name", "GET /versions", who=""),
    image("image.list", "GET /v2/images?name={image_name}", keep={"image": "images.0.id"}),
    image("image.list, one of more", "GET /v2/images?name={image_name}&limit=1"),
    image("image.show", "GET /v2/images/{image}"),
    image("image.show, unknown", f"GET /v2/images/{NOWHERE}"),
    image("image.delete, not ours", "DELETE /v2/images/{image}"),
    image("image.list, without token", "GET /v2/images", who=""),
    image("schema of an image", "GET /v2/schemas/image"),
    image("schema of images", "GET /v2/schemas/images"),
)

_PORT = {"network_id": "{network}", "name": "{name}"}
_TAKEN = {"network_id": "{network}", "fixed_ips": [{"ip_address": "{address}"}]}
_RULE = {"direction": "ingress", "protocol": "tcp", "port_range_min": 22, "port_range_max": 22}
_ADDRESS = {"floatingip": {"floating_network_id": "{outside}", "description": "{name}"}}
NETWORK = (
    network("versions", "GET /", who=""),
    network("resources", "GET /v2.0/"),
    network("extensions", "GET /v2.0/extensions"),
    network("extension", "GET /v2.0/extensions/quotas"),
    network("extension, unknown", "GET /v2.0/extensions/nothing"),
    network("network.list", "GET /v2.0/networks?name={network_name}", keep={"network": "networks.0.id"}),
    network("network.list, external", "GET /v2.0/networks?name={outside_name}", keep={"outside": "networks.0.id"}),
    network("network.show", "GET /v2.0/networks/{network}"),
    network("network.show, unknown", f"GET /v2.0/networks/{NOWHERE}"),
    network("subnet.list", "GET /v2.0/subnets?network_id={network}", keep={"subnet": "subnets.0.id"}),
    network("subnet.show", "GET /v2.0/subnets/{subnet}"),
    network(
        "group.create",
        "POST /v2.0/security-groups",
        {"security_group": {"name": "{name}"}},
        keep={"group": "security_group.id"},
    ),
    network("group.list", "GET /v2.0/security-groups?name={name}"),
    network("group.show", "GET /v2.0/security-groups/{group}"),
    network("group.update", "PUT /v2.0/security-groups/{group}", {"security_group": {"description": "shapes"}}),
    network("group.show, unknown", f"GET /v2.0/security-groups/{NOWHERE}"),
    network(
        "rule.create",
        "POST /v2.0/security-group-rules",
        {"security_group_rule": {"security_group_id": "{group}", **_RULE}},
        keep={"rule": "security_group_rule.id"},
    ),
    network(
        "rule.create, twice",
        "POST /v2.0/security-group-rules",
        {"security_group_rule": {"security_group_id": "{group}", **_RULE}},
    ),
    network("rule.list", "GET /v2.0/security-group-rules?security_group_id={group}"),
    network("rule.show", "GET /v2.0/security-group-rules/{rule}"),
    network("rule.delete", "DELETE /v2.0/security-group-rules/{rule}"),
    network(
        "port.create",
        "POST /v2.0/ports",
        {"port": {**_PORT, "security_groups": ["{group}"]}},
        keep={"port": "port.id", "address": "port.fixed_ips.0.ip_address"},
    ),
    network("port.create, address taken", "POST /v2.0/ports", {"port": _TAKEN}),
    network("port.create, unknown network", "POST /v2.0/ports", {"port": {"network_id": NOWHERE}}),
    network("port.create, no document", "POST /v2.0/ports", {"wrong": {}}),
    network("port.create, by a reader", "POST /v2.0/ports", {"port": _PORT}, who="rita"),
    network("port.delete, by a reader", "DELETE /v2.0/ports/{port}", who="rita"),
    network("port.show, by a reader", "GET /v2.0/ports/{port}", who="rita"),
    network("port.list", "GET /v2.0/ports?name={name}"),
    network("port.list, one of more", "GET /v2.0/ports?name={name}&limit=1"),
    network("port.show", "GET /v2.0/ports/{port}"),
    network("port.update", "PUT /v2.0/ports/{port}", {"port": {"description": "{name}"}}),
    network("port.tag", "PUT /v2.0/ports/{port}/tags", {"tags": ["leeway"]}),
    network("port.tags", "GET /v2.0/ports/{port}/tags"),
    network("port.tag, one", "PUT /v2.0/ports/{port}/tags/more"),
    network("port.tag, remove", "DELETE /v2.0/ports/{port}/tags/more"),
    network("port.tag, remove unknown", "DELETE /v2.0/ports/{port}/tags/more"),
    network("group.delete, in use", "DELETE /v2.0/security-groups/{group}"),
    network("address.create", "POST /v2.0/floatingips", _ADDRESS, keep={"floating": "floatingip.id"}),
    network(
        "address.create, inner network", "POST /v2.0/floatingips", {"floatingip": {"floating_network_id": "{network}"}}
    ),
    network("address.point", "PUT /v2.0/floatingips/{floating}", {"floatingip": {"port_id": "{port}"}}),
    network("address.list", "GET /v2.0/floatingips?port_id={port}"),
    network("address.show", "GET /v2.0/floatingips/{floating}"),
    network("address.show, unknown", f"GET /v2.0/floatingips/{NOWHERE}"),
    network(
        "address.create, small project", "POST /v2.0/floatingips", _ADDRESS, who="tim", keep={"small": "floatingip.id"}
    ),
    network("address.create, over quota", "POST /v2.0/floatingips", _ADDRESS, who="tim"),
    network("address.delete, small project", "DELETE /v2.0/floatingips/{small}", who="tim"),
    network("quota", "GET /v2.0/quotas/{project}"),
    network("quota.list", "GET /v2.0/quotas"),
    network("quota in detail", "GET /v2.0/quotas/{project}/details.json"),
    network("quota, not ours", f"GET /v2.0/quotas/{NOWHERE}"),
    network("network.list, without token", "GET /v2.0/networks", who=""),
)

_SNAPSHOT = "/v3/{project}/snapshots/{snapshot}"
_DATA = {"volume": {"name": "{name}", "size": 1, "metadata": {"leeway": "yes"}}}
_SAVED = {"snapshot": {"volume_id": "{volume}", "name": "{name}"}}
VOLUMES = (
    volume("versions", "GET /", who="", version=""),
    volume("version", "GET /v3/", version=""),
    volume(
        "volume.create",
        "POST /v3/{project}/volumes",
        _DATA,
        keep={"volume": "volume.id"},
        until=Until(service="volume", path=VOLUME, at="volume.status", value="available"),
    ),
    volume("volume.create, by a reader", "POST /v3/{project}/volumes", _DATA, who="rita"),
    volume("volume.delete, by a reader", f"DELETE {VOLUME}", who="rita"),
    volume("volume.show, by a reader", f"GET {VOLUME}", who="rita"),
    volume("volume.create, unknown type", "POST /v3/{project}/volumes", {"volume": {"size": 1, "volume_type": "gold"}}),
    volume("volume.create, over quota", "POST /v3/{project}/volumes", {"volume": {"size": 100}}, who="tim"),
    volume("volume.create, no size", "POST /v3/{project}/volumes", {"volume": {"name": "{name}"}}),
    volume("volume.list", "GET /v3/{project}/volumes?name={name}"),
    volume("volume.detail", "GET /v3/{project}/volumes/detail?name={name}"),
    volume("volume.detail, by metadata", "GET /v3/{project}/volumes/detail?metadata={'leeway': 'yes'}&name={name}"),
    volume("volume.detail, 3.0", "GET /v3/{project}/volumes/detail?name={name}", version=""),
    volume("volume.detail, one of more", "GET /v3/{project}/volumes/detail?name={name}&limit=1"),
    volume("volume.show", f"GET {VOLUME}"),
    volume("volume.show, unknown", f"GET /v3/{{project}}/volumes/{NOWHERE}"),
    volume("volume.show, not our project", f"GET /v3/{'0' * 32}/volumes/{NOWHERE}"),
    volume("volume.update", f"PUT {VOLUME}", {"volume": {"description": "data"}}),
    volume(
        "snapshot.create",
        "POST /v3/{project}/snapshots",
        _SAVED,
        keep={"snapshot": "snapshot.id"},
        until=Until(service="volume", path=_SNAPSHOT, at="snapshot.status", value="available"),
    ),
    volume("snapshot.list", "GET /v3/{project}/snapshots?name={name}"),
    volume("snapshot.detail", "GET /v3/{project}/snapshots/detail?name={name}"),
    volume("snapshot.detail, 3.0", "GET /v3/{project}/snapshots/detail?name={name}", version=""),
    volume("snapshot.show", f"GET {_SNAPSHOT}"),
    volume("snapshot.show, unknown", f"GET /v3/{{project}}/snapshots/{NOWHERE}"),
    volume("snapshot.update", f"PUT {_SNAPSHOT}", {"snapshot": {"description": "data"}}),
    volume("volume.delete, with a snapshot", f"DELETE {VOLUME}"),
    volume("snapshot.delete", f"DELETE {_SNAPSHOT}", until=Until(service="volume", path=_SNAPSHOT)),
    volume("type.list", "GET /v3/{project}/types", keep={"type": "volume_types.0.id"}),
    volume("type.show", "GET /v3/{project}/types/{type}"),
    volume("quota", "GET /v3/{project}/os-quota-sets/{project}"),
    volume("quota in detail", "GET /v3/{project}/os-quota-sets/{project}?usage=True"),
    volume("limits", "GET /v3/{project}/limits"),
    volume("volume.list, without token", "GET /v3/{project}/volumes", who=""),
    volume("volume.list, version too new", "GET /v3/{project}/volumes", version="3.999"),
)

CALLS = (*IDENTITY, *IMAGES, *NETWORK, *VOLUMES, *FLAVORS_AND_LIMITS, *SERVERS, *ACTIONS, *ENDS)
