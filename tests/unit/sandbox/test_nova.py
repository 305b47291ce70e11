"""Nova as the sandbox speaks it: versions, states over time, refusals, pages, quotas and usage."""

import base64
from typing import Any

import pytest

V = "/compute/v2.1"


def _create_over(client: Any, **more: Any) -> tuple[int, str]:
    answer = client("POST", f"{V}/servers", client.server_request(**more))
    return answer.status_code, next(iter(answer.json().values())).get("message", "")


def test_microversions_are_negotiated(client: Any) -> None:
    assert client("GET", V + "/flavors").headers["OpenStack-API-Version"] == "compute 2.1"
    client.microversion = "latest"
    assert client("GET", V + "/flavors").headers["X-OpenStack-Nova-API-Version"] == "2.79"
    client.microversion = None
    old = client("GET", V + "/flavors", **{"X-OpenStack-Nova-API-Version": "2.60"})
    assert old.headers["OpenStack-API-Version"] == "compute 2.60"


@pytest.mark.parametrize(("version", "status"), [("2.80", 406), ("1.0", 406), ("two", 400)])
def test_unknown_microversions_are_refused(client: Any, version: str, status: int) -> None:
    client.microversion = version
    answer = client("GET", V + "/flavors")
    assert answer.status_code == status
    assert version in next(iter(answer.json().values()))["message"]


def test_the_microversion_decides_what_is_shown(client: Any) -> None:
    identifier = client.create()
    plain = client.server(identifier)
    assert plain["flavor"]["id"] == client.server_request()["server"]["flavorRef"]
    assert "tags" not in plain
    assert "locked" not in plain
    client.microversion = "2.79"
    rich = client.server(identifier)
    assert rich["flavor"]["original_name"] == "a1.small"
    assert "id" not in rich["flavor"]
    assert (rich["tags"], rich["locked"], rich["server_groups"]) == ([], False, [])
    assert client.get(f"{V}/flavors/detail?limit=1")["flavors"][0]["extra_specs"] is not None


def test_a_server_becomes_active_in_its_time(client: Any, clock: Any) -> None:
    identifier = client.create("m", metadata={"a": "b"}, user_data=base64.b64encode(b"#cloud-config").decode())
    young = client.server(identifier)
    assert (young["status"], young["OS-EXT-STS:task_state"], young["addresses"]) == ("BUILD", "scheduling", {})
    clock.pass_by(2)
    bound = client.server(identifier)
    assert (bound["status"], bound["OS-EXT-STS:task_state"]) == ("BUILD", "spawning")
    assert [item["OS-EXT-IPS:type"] for item in bound["addresses"]["leeway-net"]] == ["fixed"]
    clock.pass_by(7.999)
    assert client.server(identifier)["status"] == "BUILD"
    clock.pass_by(0.001)
    done = client.server(identifier)
    assert (done["status"], done["OS-EXT-STS:vm_state"], done["OS-EXT-STS:power_state"]) == ("ACTIVE", "active", 1)
    assert (done["created"], done["metadata"]) == (young["created"], {"a": "b"})
    assert done["OS-SRV-USG:launched_at"].endswith("000")


def test_stop_start_shelve_unshelve(client: Any, clock: Any) -> None:
    identifier = client.create()
    clock.pass_by(10)
    seen = []
    for action, task, seconds in (
        ("os-stop", "powering-off", 3),
        ("os-start", "powering-on", 3),
        ("shelve", "shelving", 4),
        ("unshelve", "unshelving", 4),
    ):
        assert client.act(identifier, action).status_code == 202
        assert client.server(identifier)["OS-EXT-STS:task_state"] == task
        clock.pass_by(seconds)
        server = client.server(identifier)
        assert server["OS-EXT-STS:task_state"] is None
        seen.append((server["status"], server["OS-EXT-STS:power_state"]))
    assert seen == [("SHUTOFF", 4), ("ACTIVE", 1), ("SHELVED_OFFLOADED", 0), ("ACTIVE", 1)]
    assert client.act(identifier, "reboot", {"type": "HARD"}).status_code == 202
    assert client.server(identifier)["status"] == "HARD_REBOOT"


def test_orders_that_do_not_fit_are_refused(client: Any, clock: Any) -> None:
    identifier = client.create()
    building = client.act(identifier, "os-stop")
    assert building.status_code == 409
    assert building.json()["conflictingRequest"]["message"].endswith("while it is in vm_state building")
    clock.pass_by(10)
    assert client.act(identifier, "os-start").status_code == 409
    assert client.act(identifier, "os-stop").status_code == 202
    busy = client.act(identifier, "os-stop")
    assert busy.status_code == 409
    assert "task_state powering-off" in busy.text
    clock.pass_by(3)
    assert client.act(identifier, "lock").status_code == 202
    assert client.act(identifier, "os-start").status_code == 409
    assert client("DELETE", f"{V}/servers/{identifier}").status_code == 409
    assert client.act(identifier, "unlock").status_code == 202
    assert client.act(identifier, "os-start").status_code == 202
    assert client.act(identifier, "evaporate").status_code == 400


def test_a_deletion_takes_its_time_and_ends_in_404(client: Any, clock: Any, cloud: Any) -> None:
    port = client.create_port()
    identifier = client.create(networks=[{"port": port["id"]}, {"uuid": client.network_id}])
    clock.pass_by(10)
    assert len(cloud.log.alive("port")) == 2
    assert client("DELETE", f"{V}/servers/{identifier}").status_code == 204
    leaving = client.server(identifier)
    assert (leaving["status"], leaving["OS-EXT-STS:task_state"]) == ("ACTIVE", "deleting")
    assert client("DELETE", f"{V}/servers/{identifier}").status_code == 204
    clock.pass_by(5)
    gone = client("GET", f"{V}/servers/{identifier}")
    assert gone.status_code == 404
    assert gone.json()["itemNotFound"]["code"] == 404
    assert client("DELETE", f"{V}/servers/{identifier}").status_code == 404
    kept = client.get(f"/network/v2.0/ports/{port['id']}")["port"]
    assert (kept["device_id"], kept["device_owner"], kept["status"]) == ("", "", "DOWN")
    assert cloud.log.alive("port") == {port["id"]}


def test_a_deletion_overtakes_the_build(client: Any, clock: Any, cloud: Any) -> None:
    identifier = client.create()
    clock.pass_by(1)
    client("DELETE", f"{V}/servers/{identifier}")
    clock.pass_by(60)
    assert [entry.event for entry in cloud.log.entries(kind="server")] == ["created", "deleting", "deleted"]
    assert cloud.log.alive("port") == set()


def test_the_second_server_on_a_port_is_refused(client: Any, clock: Any) -> None:
    port = client.create_port()
    identifier = client.create(networks=[{"port": port["id"]}])
    clock.pass_by(2)
    assert client.get(f"/network/v2.0/ports/{port['id']}")["port"]["device_id"] == identifier
    status, message = _create_over(client, networks=[{"port": port["id"]}])
    assert (status, message) == (409, f"Port {port['id']} is still in use.")


def test_two_requests_for_a_port_before_it_is_bound_leave_one_server_in_error(client: Any, clock: Any) -> None:
    port = client.create_port()
    winner, loser = (client.create(name, networks=[{"port": port["id"]}]) for name in ("winner", "loser"))
    clock.pass_by(10)
    assert client.server(winner)["status"] == "ACTIVE"
    failed = client.server(loser)
    assert failed["status"] == "ERROR"
    assert f"Port {port['id']} is still in use." in failed["fault"]["message"]
    # Nova's clean-up after the loser lets go of the port, although the winner goes on using it.
    assert client.get(f"/network/v2.0/ports/{port['id']}")["port"]["device_id"] == ""
    assert [item["addr"] for item in client.server(winner)["addresses"]["leeway-net"]] == [
        port["fixed_ips"][0]["ip_address"]
    ]
    client("DELETE", f"{V}/servers/{loser}")
    assert client("GET", f"{V}/servers/{loser}").status_code == 404
    assert client.server(winner)["status"] == "ACTIVE"


def test_the_end_of_a_server_takes_only_the_ports_that_it_has(client: Any, clock: Any, cloud: Any) -> None:
    port = client.create_port()
    first, loser = (client.create(name, networks=[{"port": port["id"]}]) for name in ("first", "loser"))
    clock.pass_by(10)
    third = client.create("third", networks=[{"port": port["id"]}])
    clock.pass_by(10)
    assert client.server(third)["status"] == "ERROR", "Nova knows who has the port, though Neutron does not say it"
    client("DELETE", f"{V}/servers/{first}")
    clock.pass_by(10)
    later = client.create("later", networks=[{"port": port["id"]}])
    clock.pass_by(10)
    assert client.server(later)["status"] == "ACTIVE"
    for identifier in (loser, third):
        client("DELETE", f"{V}/servers/{identifier}")
    clock.pass_by(10)
    assert client.get(f"/network/v2.0/ports/{port['id']}")["port"]["device_id"] == later
    both = client.create("both", networks=[{"uuid": client.network_id}, {"uuid": client.network_id}])
    clock.pass_by(10)
    assert len(cloud.log.alive("port")) == 3
    client("DELETE", f"{V}/servers/{both}")
    clock.pass_by(10)
    assert cloud.log.alive("port") == {port["id"]}


def test_a_port_that_was_taken_from_its_winner_can_be_deleted(client: Any, clock: Any) -> None:
    port = client.create_port()
    winner, _ = (client.create(name, networks=[{"port": port["id"]}]) for name in ("winner", "loser"))
    clock.pass_by(10)
    assert client("DELETE", f"/network/v2.0/ports/{port['id']}").status_code == 204
    assert client.server(winner)["addresses"] == {}


@pytest.mark.parametrize(
    ("more", "status", "words"),
    [
        ({"imageRef": "none"}, 400, "requested image"),
        ({"flavorRef": "none"}, 400, "Flavor none could not be found."),
        ({"key_name": "none"}, 400, "key_name"),
        ({"user_data": "not base64!"}, 400, "base64"),
        ({"user_data": "A" * 65536}, 400, "65535"),
        ({"name": ""}, 400, "name"),
        ({"name": None}, 400, "name"),
        ({"metadata": {"a": 1}}, 400, "metadata"),
        ({"metadata": {"a": "b" * 256}}, 400, "metadata"),
        ({"availability_zone": "moon"}, 400, "availability zone"),
        ({"security_groups": [{"name": "none"}]}, 400, "name or id 'none'"),
        ({"security_groups": "default"}, 400, "security_groups"),
        ({"networks": [{"uuid": "none"}]}, 400, "Network none"),
        ({"networks": [{"port": "none"}]}, 400, "Port id none"),
        ({"networks": "some"}, 400, "networks"),
        ({"networks": ["x"]}, 400, "networks"),
        ({"min_count": 2}, 400, "min_count"),
        ({"block_device_mapping_v2": [{}]}, 400, "Boot sequence"),
        ({"tags": ["x"]}, 400, "tags"),
    ],
)
def test_bad_requests_are_refused_and_make_nothing(
    client: Any, cloud: Any, *, more: dict[str, Any], status: int, words: str
) -> None:
    answered, message = _create_over(client, **more)
    assert (answered, words in message) == (status, True), message
    assert cloud.log.entries() == []


def test_broken_bodies_are_refused(client: Any) -> None:
    for body in (None, [], {"server": []}, "text"):
        assert client("POST", f"{V}/servers", body).status_code == 400
    raw = client.session.post(f"{client.cloud.url}{V}/servers", data=b"{", timeout=10)
    assert raw.status_code == 400
    assert client("PATCH", f"{V}/servers").status_code == 405
    assert client("GET", f"{V}/nothing").status_code == 404


def test_networks_none_auto_and_external(client: Any, clock: Any) -> None:
    assert _create_over(client, networks=[{"uuid": client.public_id}])[0] == 403
    client.microversion = "2.37"
    body = client.server_request()
    del body["server"]["networks"]
    assert client("POST", f"{V}/servers", body).status_code == 400
    lonely, wired = client.create(networks="none"), client.create(networks="auto")
    clock.pass_by(10)
    assert client.server(lonely)["addresses"] == {}
    assert list(client.server(wired)["addresses"]) == ["leeway-net"]


def test_tags_come_with_2_52(client: Any) -> None:
    client.microversion = "2.52"
    identifier = client.create(tags=["b", "a"])
    assert client.server(identifier)["tags"] == ["a", "b"]
    assert [item["id"] for item in client.get(f"{V}/servers?tags=a,b")["servers"]] == [identifier]
    assert client.get(f"{V}/servers?tags=c")["servers"] == []


def test_quotas_are_nova_s_with_nova_s_words(client: Any, clock: Any) -> None:
    identifiers = [client.create() for _ in range(4)]
    assert _create_over(client) == (
        403,
        "Quota exceeded for instances: Requested 1, but already used 4 of 4 instances",
    )
    clock.pass_by(10)
    for identifier in identifiers[:2]:
        client("DELETE", f"{V}/servers/{identifier}")
    assert _create_over(client)[0] == 403
    clock.pass_by(5)
    client.create()
    big = client.first(f"{V}/flavors", "flavors", "a1.large")
    _, message = _create_over(client, flavorRef=big)
    assert message == (
        "Quota exceeded for cores, ram: Requested 8, 32768, but already used 6, 12288 of 10, 40960 cores, ram"
    )
    detail = client.get(f"{V}/os-quota-sets/{client.project_id}/detail")["quota_set"]
    assert detail["cores"] == {"limit": 10, "in_use": 6, "reserved": 0}
    assert client.get(f"{V}/os-quota-sets/{client.project_id}")["quota_set"]["instances"] == 4
    limits = client.get(f"{V}/limits")["limits"]["absolute"]
    assert (limits["maxTotalInstances"], limits["totalInstancesUsed"], limits["totalRAMUsed"]) == (4, 3, 12288)
    assert client("GET", f"{V}/os-quota-sets/other").status_code == 403


def test_ports_made_by_nova_count_too(client: Any, clock: Any) -> None:
    for number in range(5):
        client.create_port(f"p{number}")
    client.create()
    clock.pass_by(2)
    assert _create_over(client) == (403, "Maximum number of ports exceeded")


def _pages(client: Any, path: str) -> list[list[str]]:
    pages = []
    while path:
        body = client.get(path)
        pages.append([server["name"] for server in body["servers"]])
        links = body.get("servers_links", [{}])
        path = links[0].get("href", "").removeprefix(client.cloud.url)
    return pages


def test_lists_are_paged_newest_first(client: Any, cloud: Any) -> None:
    cloud.add_foreign_servers(6)
    pages = _pages(client, f"{V}/servers/detail?limit=1000")
    assert [len(page) for page in pages] == [3, 3, 0]  # a full last page has a next link, as in Nova
    names = [name for page in pages for name in page]
    assert len(set(names)) == 6
    assert names == sorted(names, key=lambda name: -int(name.split("-")[1]))
    assert [len(page) for page in _pages(client, f"{V}/servers?limit=2")] == [2, 2, 2, 0]
    assert client("GET", f"{V}/servers?marker=none").status_code == 400
    assert client("GET", f"{V}/servers?limit=many").status_code == 400


def test_lists_are_filtered(client: Any, clock: Any) -> None:
    alpha, beta = client.create("alpha"), client.create("beta")
    clock.pass_by(10)
    client.act(beta, "os-stop")
    clock.pass_by(3)

    def names(query: str) -> list[str]:
        return [server["name"] for server in client.get(f"{V}/servers/detail?{query}")["servers"]]

    assert names("name=^al") == ["alpha"]
    assert names("name=a$") == ["beta", "alpha"]
    assert names("status=SHUTOFF") == ["beta"]
    assert names("status=active") == ["alpha"]
    assert client("GET", f"{V}/servers?name=[").status_code == 400
    assert client("GET", f"{V}/servers/detail?all_tenants=1").status_code == 403
    assert names("changes-since=2026-11-21T08:00:13Z")[:1] == ["beta"]
    clock.pass_by(60)
    since = client.server(alpha)["updated"]
    client("DELETE", f"{V}/servers/{alpha}")
    clock.pass_by(5)
    changed = client.get(f"{V}/servers/detail?changes-since={since}")["servers"]
    assert {server["id"]: server["status"] for server in changed}[alpha] == "DELETED"
    assert names("") == ["beta"]


def test_other_projects_see_nothing(client: Any, new_client: Any) -> None:
    identifier = client.create()
    other = new_client(project="physics")
    assert other.get(f"{V}/servers")["servers"] == []
    assert other("GET", f"{V}/servers/{identifier}").status_code == 404
    assert other("DELETE", f"{V}/servers/{identifier}").status_code == 404


def test_key_pairs(client: Any) -> None:
    key = {"keypair": {"name": "k", "public_key": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5 x"}}
    made = client("POST", f"{V}/os-keypairs", key)
    assert (made.status_code, made.json()["keypair"]["fingerprint"].count(":")) == (200, 15)
    again = client("POST", f"{V}/os-keypairs", key)
    assert (again.status_code, again.json()["conflictingRequest"]["message"]) == (409, "Key pair 'k' already exists.")
    client.microversion = "2.2"
    key["keypair"]["name"] = "l"
    assert client("POST", f"{V}/os-keypairs", key).status_code == 201
    key["keypair"]["name"] = "m"
    assert (
        client("POST", f"{V}/os-keypairs", key).json()["forbidden"]["message"] == "Quota exceeded, too many key pairs."
    )
    assert [item["keypair"]["name"] for item in client.get(f"{V}/os-keypairs")["keypairs"]] == ["k", "l"]
    assert client.get(f"{V}/os-keypairs/k")["keypair"]["user_id"] == client.user_id
    assert client("DELETE", f"{V}/os-keypairs/k").status_code == 204
    assert client("GET", f"{V}/os-keypairs/k").status_code == 404
    key["keypair"] |= {"name": "n", "public_key": "nonsense"}
    assert client("POST", f"{V}/os-keypairs", key).status_code == 400


def test_flavors(client: Any) -> None:
    pinned = client.first(f"{V}/flavors?limit=3&minRam=60000", "flavors", "a1.pinned")
    assert client.get(f"{V}/flavors/{pinned}/os-extra_specs") == {"extra_specs": {"hw:cpu_policy": "dedicated"}}
    assert client.get(f"{V}/flavors/{pinned}")["flavor"]["ram"] == 65536
    first = client.get(f"{V}/flavors/detail?limit=3")
    rest = client.get(first["flavors_links"][0]["href"].removeprefix(client.cloud.url))
    assert len(first["flavors"]) + len(rest["flavors"]) == 4
    assert client("GET", f"{V}/flavors/none").status_code == 404


def test_changes_to_a_server(client: Any) -> None:
    client.microversion = "2.26"
    one = f"{V}/servers/{client.create('m', metadata={'a': '1', 'b': '2'})}"
    assert client("PUT", one, {"server": {"name": "renamed"}}).json()["server"]["name"] == "renamed"
    assert client("POST", one + "/metadata", {"metadata": {"b": "3"}}).json() == {"metadata": {"a": "1", "b": "3"}}
    assert client("DELETE", one + "/metadata/a").status_code == 204
    assert client("DELETE", one + "/metadata/a").status_code == 404
    assert client("PUT", one + "/metadata", {"metadata": {"c": "4"}}).status_code == 200
    assert client.get(one + "/metadata") == {"metadata": {"c": "4"}}
    assert client("PUT", one + "/tags", {"tags": ["t"]}).json() == {"tags": ["t"]}
    assert client.get(one + "/tags") == {"tags": ["t"]}
    assert client("PUT", one + "/tags", {"tags": ["a/b"]}).status_code == 400


def test_interfaces_and_groups_of_a_server(client: Any, clock: Any) -> None:
    port = client.create_port()
    one = f"{V}/servers/{client.create(networks=[{'port': port['id']}])}"
    assert client.get(one + "/os-interface") == {"interfaceAttachments": []}
    clock.pass_by(2)
    attached = client.get(one + "/os-interface")["interfaceAttachments"]
    assert [(item["port_id"], item["fixed_ips"]) for item in attached] == [(port["id"], port["fixed_ips"])]
    assert [group["name"] for group in client.get(one + "/os-security-groups")["security_groups"]] == ["default"]


def test_usage_is_counted_from_launch_to_end(client: Any, clock: Any) -> None:
    identifier = client.create()
    clock.pass_by(10)
    started = clock()
    clock.pass_by(3600)
    client("DELETE", f"{V}/servers/{identifier}")
    clock.pass_by(3600)
    period = f"start={started:%Y-%m-%dT%H:%M:%S}&end={clock():%Y-%m-%dT%H:%M:%S}"
    usage = client.get(f"{V}/os-simple-tenant-usage/{client.project_id}?{period}")["tenant_usage"]
    hours = (3600 + 5) / 3600
    assert usage["total_hours"] == pytest.approx(hours)
    assert usage["total_vcpus_usage"] == pytest.approx(2 * hours)
    assert usage["server_usages"][0]["state"] == "terminated"
    assert client.get(f"{V}/os-simple-tenant-usage/{client.project_id}") == {"tenant_usage": {}}


def test_usage_below_2_40_stops_at_the_page_limit_and_does_not_say_so(client: Any, clock: Any, cloud: Any) -> None:
    cloud.add_foreign_servers(5)
    started = clock()
    clock.pass_by(3600)
    path = f"{V}/os-simple-tenant-usage/{client.project_id}?start={started:%Y-%m-%dT%H:%M:%S}&end=2027-01-01T00:00:00"
    assert client.get(path)["tenant_usage"]["total_hours"] == pytest.approx(3)
    client.microversion = "2.40"
    total, pages = 0.0, 0
    while path:
        body = client.get(path)
        total += body["tenant_usage"].get("total_hours", 0)
        pages += 1
        path = body.get("tenant_usage_links", [{"href": ""}])[0]["href"].removeprefix(cloud.url)
    assert (total, pages) == (pytest.approx(5), 2)


def test_zones_and_versions(client: Any) -> None:
    assert client.get(f"{V}/os-availability-zone")["availabilityZoneInfo"][0]["zoneName"] == "nova"
    assert [item["version"] for item in client.get("/compute/")["versions"]] == ["", "2.79"]
    assert client.get(f"{V}/")["version"]["min_version"] == "2.1"
