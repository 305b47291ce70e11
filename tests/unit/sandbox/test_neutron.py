"""Neutron and Glance as the sandbox speaks them."""

import uuid
from typing import Any

import pytest

V = "/network/v2.0"


def _error(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["NeutronError"]["type"]


def test_one_sees_one_s_own_and_the_public_networks(client: Any, new_client: Any) -> None:
    networks = client.get(V + "/networks")["networks"]
    assert [(item["name"], item["router:external"]) for item in networks] == [("public", True), ("leeway-net", False)]
    external = client.get(V + "/networks?router:external=True")["networks"]
    assert [item["name"] for item in external] == ["public"]
    assert [item["cidr"] for item in client.get(V + "/subnets")["subnets"]] == ["10.64.0.0/16"]
    own = networks[1]["id"]
    assert client.get(f"{V}/networks/{own}")["network"]["name"] == "leeway-net"
    assert _error(client("GET", f"{V}/networks/none")) == (404, "NetworkNotFound")
    assert _error(new_client(project="physics")("GET", f"{V}/networks/{own}")) == (404, "NetworkNotFound")


def test_a_port_is_made_changed_and_deleted(client: Any, cloud: Any) -> None:
    port = client.create_port("fence", tags=["leeway", "x"], description="d")
    assert (port["status"], port["device_id"], port["fixed_ips"][0]["ip_address"]) == ("DOWN", "", "10.64.0.2")
    assert len(port["security_groups"]) == 1
    one = f"{V}/ports/{port['id']}"
    changed = client("PUT", one, {"port": {"name": "renamed", "security_groups": []}}).json()["port"]
    assert (changed["name"], changed["security_groups"], changed["revision_number"]) == ("renamed", [], 2)
    assert client("DELETE", one).status_code == 204
    assert _error(client("DELETE", one)) == (404, "PortNotFound")
    assert [entry.event for entry in cloud.log.entries(id=port["id"])] == ["created", "deleted"]


def test_ports_are_filtered(client: Any, clock: Any) -> None:
    named, tagged = client.create_port("a"), client.create_port("b", tags=["one", "two"])
    identifier = client.create(networks=[{"port": named["id"]}])
    clock.pass_by(2)

    def found(query: str) -> list[str]:
        return [port["name"] for port in client.get(f"{V}/ports?{query}")["ports"]]

    assert found(f"device_id={identifier}") == ["a"]
    assert found("device_id=") == ["b"]
    assert found("name=a&name=b") == ["a", "b"]
    assert found("tags=one,two") == ["b"]
    assert found("tags=one,three") == []
    assert found("tags-any=one,three") == ["b"]
    assert found("not-tags=one") == ["a"]
    assert found(f"fixed_ips=ip_address%3D{tagged['fixed_ips'][0]['ip_address']}") == ["b"]
    assert found("status=ACTIVE") == ["a"]
    assert found("sort_key=name&sort_dir=desc") == ["b", "a"]
    assert client.get(f"{V}/ports?fields=id&name=a")["ports"] == [{"id": named["id"]}]
    first = client.get(f"{V}/ports?limit=1")
    link = first["ports_links"][0]
    assert link["rel"] == "next"
    second = client.get(link["href"].removeprefix(client.cloud.url))
    assert {first["ports"][0]["name"], second["ports"][0]["name"]} == {"a", "b"}


@pytest.mark.parametrize(
    ("fields", "status", "kind"),
    [
        ({"network_id": "none"}, 404, "NetworkNotFound"),
        ({"security_groups": ["none"]}, 400, "HTTPBadRequest"),
        ({"security_groups": [str(uuid.uuid4())]}, 404, "SecurityGroupNotFound"),
        ({"security_groups": 5}, 400, "HTTPBadRequest"),
        ({"fixed_ips": [{"ip_address": "10.99.0.1"}]}, 400, "InvalidIpForNetwork"),
        ({"fixed_ips": [{"ip_address": "nonsense"}]}, 400, "InvalidIpForNetwork"),
        ({"fixed_ips": [{}, {}]}, 400, "HTTPBadRequest"),
        ({"name": 5}, 400, "HTTPBadRequest"),
        ({"tags": "x"}, 400, "HTTPBadRequest"),
    ],
)
def test_bad_ports_are_refused(client: Any, cloud: Any, *, fields: dict[str, Any], status: int, kind: str) -> None:
    body = {"port": {"network_id": client.network_id} | fields}
    assert _error(client("POST", V + "/ports", body)) == (status, kind)
    assert cloud.log.entries() == []


def test_an_address_is_given_once(client: Any) -> None:
    client.create_port(fixed_ips=[{"ip_address": "10.64.0.9"}])
    body = {"port": {"network_id": client.network_id, "fixed_ips": [{"ip_address": "10.64.0.9"}]}}
    assert _error(client("POST", V + "/ports", body)) == (409, "IpAddressGenerationFailure")


def test_quotas_of_the_network(client: Any) -> None:
    for _ in range(6):
        client.create_port()
    refused = client("POST", V + "/ports", {"port": {"network_id": client.network_id}})
    assert _error(refused) == (409, "OverQuota")
    assert "['port']" in refused.text
    assert client.get(f"{V}/quotas/{client.project_id}")["quota"]["floatingip"] == 2
    details = client.get(f"{V}/quotas/{client.project_id}/details.json")["quota"]
    assert details["port"] == {"limit": 6, "used": 6, "reserved": 0}
    assert client("GET", f"{V}/quotas/other").status_code == 403


def test_floating_ips_lead_to_ports_and_stay_when_they_go(client: Any, clock: Any, cloud: Any) -> None:
    identifier = client.create()
    clock.pass_by(10)
    port = client.get(f"{V}/ports?device_id={identifier}")["ports"][0]
    body = {"floatingip": {"floating_network_id": client.public_id, "port_id": port["id"], "tags": ["t"]}}
    made = client("POST", V + "/floatingips", body).json()["floatingip"]
    assert (made["fixed_ip_address"], made["status"], made["port_details"]["device_id"]) == (
        port["fixed_ips"][0]["ip_address"],
        "ACTIVE",
        identifier,
    )
    listed = client.server(identifier)["addresses"]["leeway-net"]
    assert [item["OS-EXT-IPS:type"] for item in listed] == ["fixed", "floating"]
    assert listed[1]["addr"] == made["floating_ip_address"]
    assert _error(client("POST", V + "/floatingips", body)) == (409, "FloatingIPPortAlreadyAssociated")

    client("DELETE", f"/compute/v2.1/servers/{identifier}")
    clock.pass_by(5)
    left = client.get(f"{V}/floatingips/{made['id']}")["floatingip"]
    assert (left["port_id"], left["status"]) == (None, "DOWN")
    del body["floatingip"]["port_id"]
    assert client("POST", V + "/floatingips", body).status_code == 201
    assert _error(client("POST", V + "/floatingips", body)) == (409, "OverQuota")
    assert [item["id"] for item in client.get(f"{V}/floatingips?status=DOWN&tags=t")["floatingips"]][:1] == [made["id"]]
    assert client("DELETE", f"{V}/floatingips/{made['id']}").status_code == 204
    assert _error(client("GET", f"{V}/floatingips/{made['id']}")) == (404, "FloatingIPNotFound")
    assert len(cloud.log.alive("floating_ip")) == 1


def test_floating_ips_are_moved(client: Any) -> None:
    port = client.create_port()
    body = {"floatingip": {"floating_network_id": client.public_id}}
    one = f"{V}/floatingips/{client('POST', V + '/floatingips', body).json()['floatingip']['id']}"
    led = client("PUT", one, {"floatingip": {"port_id": port["id"]}}).json()["floatingip"]
    assert led["fixed_ip_address"] == port["fixed_ips"][0]["ip_address"]
    assert client("PUT", one, {"floatingip": {"port_id": None}}).json()["floatingip"]["port_id"] is None
    assert _error(client("PUT", one, {"floatingip": {"port_id": "none"}})) == (404, "PortNotFound")
    inside = {"floatingip": {"floating_network_id": client.network_id}}
    assert _error(client("POST", V + "/floatingips", inside)) == (400, "BadRequest")


def test_security_groups(client: Any) -> None:
    group = client("POST", V + "/security-groups", {"security_group": {"name": "ssh"}}).json()["security_group"]
    assert [rule["direction"] for rule in group["security_group_rules"]] == ["egress", "egress"]
    rule = {"security_group_id": group["id"], "direction": "ingress", "protocol": "tcp", "port_range_min": 22}
    made = client("POST", V + "/security-group-rules", {"security_group_rule": rule})
    assert made.status_code == 201
    again = client("POST", V + "/security-group-rules", {"security_group_rule": rule})
    assert _error(again) == (409, "SecurityGroupRuleExists")
    one = f"{V}/security-groups/{group['id']}"
    assert len(client.get(one)["security_group"]["security_group_rules"]) == 3
    rule_address = f"{V}/security-group-rules/{made.json()['security_group_rule']['id']}"
    assert client.get(rule_address)["security_group_rule"]["port_range_min"] == 22
    port = client.create_port(security_groups=[group["id"]])
    assert _error(client("DELETE", one)) == (409, "SecurityGroupInUse")
    client("DELETE", f"{V}/ports/{port['id']}")
    assert client("DELETE", rule_address).status_code == 204
    assert client("PUT", one, {"security_group": {"description": "d"}}).json()["security_group"]["description"] == "d"
    assert client("DELETE", one).status_code == 204
    names = [item["name"] for item in client.get(V + "/security-groups")["security_groups"]]
    assert names == ["default"]
    default = client.first(V + "/security-groups", "security_groups", "default")
    assert client("DELETE", f"{V}/security-groups/{default}").status_code == 409
    assert len(client.get(V + "/security-group-rules")["security_group_rules"]) == 4


def test_tags_of_a_port(client: Any) -> None:
    tags = f"{V}/ports/{client.create_port()['id']}/tags"
    assert client("PUT", tags, {"tags": ["b", "a"]}).json() == {"tags": ["a", "b"]}
    assert client("PUT", tags + "/c").status_code == 201
    assert client("DELETE", tags + "/a").status_code == 204
    assert _error(client("DELETE", tags + "/a")) == (404, "TagNotFound")
    assert client.get(tags) == {"tags": ["b", "c"]}
    assert _error(client("PUT", f"{V}/ports/none/tags", {"tags": []})) == (404, "TagResourceNotFound")


def test_a_full_network_fails_the_build(new_client: Any, clock: Any) -> None:
    other = new_client(project="physics")
    other("PUT", "/_control/quotas/physics", {"ports": -1})
    network = other.first(V + "/networks", "networks", "physics-net")
    for _ in range(253):
        assert other("POST", V + "/ports", {"port": {"network_id": network}}).status_code == 201
    assert _error(other("POST", V + "/ports", {"port": {"network_id": network}})) == (409, "IpAddressGenerationFailure")
    body = {
        "name": "m",
        "networks": [{"uuid": network}],
        "flavorRef": other.configured("flavor", "a1.small"),
        "imageRef": other.configured("image", "Debian 12"),
    }
    identifier = other("POST", "/compute/v2.1/servers", {"server": body}).json()["server"]["id"]
    clock.pass_by(10)
    assert "Failed to allocate the network" in other.server(identifier)["fault"]["message"]


def test_versions_and_extensions(client: Any) -> None:
    assert client.get("/network/")["versions"][0]["id"] == "v2.0"
    assert {item["name"] for item in client.get(V)["resources"]} >= {"ports", "floatingips"}
    assert "standard-attr-tag" in {item["alias"] for item in client.get(V + "/extensions")["extensions"]}
    assert client.get(V + "/extensions/quotas")["extension"]["alias"] == "quotas"
    assert client("GET", V + "/extensions/none").status_code == 404
    assert client("GET", V + "/nothing").json()["NeutronError"]["type"] == "HTTPNotFound"


def test_images_are_paged_and_refusals_are_web_pages(client: Any) -> None:
    first = client.get("/image/v2/images?limit=1")
    assert len(first["images"]) == 1
    second = client.get("/image" + first["next"])
    assert {first["images"][0]["name"], second["images"][0]["name"]} == {"Ubuntu 24.04", "Debian 12"}
    image = first["images"][0]
    assert client.get(f"/image/v2/images/{image['id']}") == image
    assert client.get("/image/v2/images?os_distro=debian")["images"][0]["os_version"] == "12"
    assert len(client.get("/image/v2/images?name=in:Debian 12,Ubuntu 24.04")["images"]) == 2
    missing = client("GET", "/image/v2/images/none")
    assert (missing.status_code, missing.headers["content-type"].split(";")[0]) == (404, "text/html")
    assert client("GET", "/image/").status_code == 300
    assert client("GET", "/image/versions").status_code == 200
