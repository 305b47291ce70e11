"""Every trouble that can be switched on, and that it hits what it names, as often as it says."""

import time
from pathlib import Path
from typing import Any

import pytest
import requests

from adapters.sandbox import ConfigError, FaultKind

SERVERS = "/compute/v2.1/servers"


@pytest.mark.parametrize(
    ("kind", "status", "word"),
    [
        ("401", 401, "authentication"),
        ("403", 403, "Policy"),
        ("404", 404, "found"),
        ("409", 409, "Conflict"),
        ("429", 429, "rate-limited"),
        ("500", 500, "Unexpected"),
    ],
)
def test_refusals_come_in_the_shape_of_the_service(
    client: Any, cloud: Any, *, kind: str, status: int, word: str
) -> None:
    cloud.faults.add(kind, service="compute", times=1, seconds=7)
    answer = client("GET", SERVERS)
    assert answer.status_code == status
    assert word in next(iter(answer.json().values()))["message"]
    assert answer.headers.get("Retry-After") == ("7" if kind == "429" else None)
    assert client("GET", SERVERS).status_code == 200


def test_a_fault_hits_only_what_it_names(client: Any, cloud: Any) -> None:
    fault = cloud.faults.add("500", service="network", method="post", path="/ports$", times=2, skip=1, message="boo")
    assert client("GET", "/network/v2.0/ports").status_code == 200
    assert client("GET", SERVERS).status_code == 200
    body = {"port": {"network_id": client.network_id}}
    statuses = [client("POST", "/network/v2.0/ports", body).status_code for _ in range(4)]
    assert statuses == [201, 500, 500, 201]
    assert cloud.faults.hits(fault) == 2
    assert len(cloud.log.alive("port")) == 2


def test_a_fault_without_times_stays_until_removed(client: Any, cloud: Any) -> None:
    fault = cloud.faults.add("404", path="/servers")
    assert [client("GET", SERVERS).status_code for _ in range(3)] == [404] * 3
    assert cloud.faults.remove(fault)
    assert not cloud.faults.remove(fault)
    assert client("GET", SERVERS).status_code == 200


def test_slow(client: Any, cloud: Any) -> None:
    cloud.faults.add("slow", service="compute", seconds=0.2, times=1)
    begun = time.monotonic()
    assert client("GET", SERVERS).status_code == 200
    assert time.monotonic() - begun >= 0.2
    cloud.faults.add("slow", seconds=0.05, times=1)
    cloud.faults.add("500", times=1)
    assert client("GET", SERVERS).status_code == 500  # slow and then wrong


def test_a_cut_connection_has_done_nothing(client: Any, cloud: Any) -> None:
    body = client.server_request()
    cloud.faults.add("cut", method="POST", path="/servers$", times=1)
    with pytest.raises(requests.ConnectionError):
        client("POST", SERVERS, body)
    assert cloud.log.entries() == []
    assert client("POST", SERVERS, body).status_code == 202


def test_a_lost_answer_has_made_a_server(client: Any, cloud: Any) -> None:
    body = client.server_request("lost", metadata={"leeway:attempt": "1"})
    cloud.faults.add("answer_lost", method="POST", path="/servers$", times=1)
    with pytest.raises(requests.ConnectionError):
        client("POST", SERVERS, body)
    (entry,) = cloud.log.entries(kind="server", event="created")
    assert (entry.name, entry.metadata) == ("lost", {"leeway:attempt": "1"})
    assert [item["id"] for item in client.get(SERVERS)["servers"]] == [entry.id]


def test_what_is_hidden_shows_later(client: Any, cloud: Any, clock: Any) -> None:
    cloud.faults.add("hidden", method="POST", seconds=30)
    identifier = client.create()
    port = client.create_port()
    address = client("POST", "/network/v2.0/floatingips", {"floatingip": {"floating_network_id": client.public_id}})
    floating = address.json()["floatingip"]["id"]
    paths = (f"{SERVERS}/{identifier}", f"/network/v2.0/ports/{port['id']}", f"/network/v2.0/floatingips/{floating}")
    clock.pass_by(29)
    assert [client("GET", path).status_code for path in paths] == [404] * 3
    assert client.get(SERVERS)["servers"] == []
    assert client.get("/network/v2.0/ports?name=p")["ports"] == []
    assert cloud.log.alive("server") == {identifier}
    clock.pass_by(1)
    assert [client("GET", path).status_code for path in paths] == [200] * 3
    assert client.server(identifier)["status"] == "ACTIVE"


def test_nothing_tells_of_a_hidden_server_though_it_runs_and_counts(client: Any, cloud: Any, clock: Any) -> None:
    port = client.create_port()
    address = {"floating_network_id": client.public_id, "port_id": port["id"]}
    assert client("POST", "/network/v2.0/floatingips", {"floatingip": address}).status_code == 201
    cloud.faults.add("hidden", method="POST", path="/servers$", times=2, seconds=60)
    fixed = client.create("fixed", networks=[{"port": port["id"]}])
    loose = client.create("loose")
    clock.pass_by(59)
    assert [entry.id for entry in cloud.log.entries(event="active")] == [fixed, loose]
    ports = client.get("/network/v2.0/ports")["ports"]
    assert [(item["id"], item["device_id"], item["device_owner"]) for item in ports] == [(port["id"], "", "")]
    (floating,) = client.get("/network/v2.0/floatingips")["floatingips"]
    assert floating["port_details"]["device_id"] == ""
    for identifier in (fixed, loose):
        assert client.get(f"/network/v2.0/ports?device_id={identifier}")["ports"] == []
    used = client.get(f"/compute/v2.1/os-quota-sets/{client.project_id}/detail")["quota_set"]["instances"]["in_use"]
    assert used == 2
    taken = client("POST", SERVERS, client.server_request(networks=[{"port": port["id"]}]))
    assert taken.status_code == 409, "the port is taken though it does not look so"
    clock.pass_by(1)
    for identifier in (fixed, loose):
        assert len(client.get(f"/network/v2.0/ports?device_id={identifier}")["ports"]) == 1


def test_chance_is_drawn_from_seeded_dice(client: Any, cloud: Any) -> None:
    def run() -> list[int]:
        fault = cloud.faults.add("429", method="GET", path="/servers$", chance=0.5)
        statuses = [client("GET", SERVERS).status_code for _ in range(40)]
        assert cloud.faults.hits(fault) == statuses.count(429)
        return statuses

    first = run()
    assert 5 < first.count(429) < 35
    cloud.reset(keep_identity=True)
    assert run() == first
    cloud.faults.clear()
    fault = cloud.faults.add("429", method="GET", path="/servers$", chance=0.5, times=2)
    assert [client("GET", SERVERS).status_code for _ in range(40)].count(429) == 2, "the spared ones do not count"
    assert cloud.faults.hits(fault) == 2


def test_a_hidden_server_can_be_deleted(client: Any, cloud: Any, clock: Any) -> None:
    cloud.faults.add("hidden", method="POST", seconds=3600, times=1)
    identifier = client.create()
    assert client("DELETE", f"{SERVERS}/{identifier}").status_code == 204
    clock.pass_by(5)
    assert cloud.log.alive("server") == set()


def test_a_page_may_lose_its_link(client: Any, cloud: Any) -> None:
    cloud.add_foreign_servers(4)
    cloud.faults.add("lost_link", path="/servers/detail", times=1)
    cut = client.get(SERVERS + "/detail")
    assert (len(cut["servers"]), "servers_links" in cut) == (3, False)
    assert "servers_links" in client.get(SERVERS + "/detail")


def test_a_page_may_lose_half_of_its_items(client: Any, cloud: Any) -> None:
    cloud.add_foreign_servers(4)
    whole = client.get(SERVERS)
    cloud.faults.add("short_page", path="/servers$", times=1)
    short = client.get(SERVERS)
    assert short["servers"] == whole["servers"][:1]
    assert short["servers_links"] == whole["servers_links"]
    cloud.faults.add("short_page", path="/ports$", times=1)
    assert len(client.get("/network/v2.0/ports")["ports"]) == 2


def test_an_answer_may_drip_and_may_be_large(client: Any, cloud: Any) -> None:
    cloud.add_foreign_servers(2)
    whole = client.get(SERVERS)
    cloud.faults.add("drip", path="/servers$", seconds=0.001, times=1)
    begun = time.monotonic()
    assert client.get(SERVERS) == whole
    assert time.monotonic() - begun > 0.3, "some 600 bytes"
    cloud.faults.add("large", path="/servers$", times=1)
    large = client("GET", SERVERS)
    assert large.json() == whole
    assert int(large.headers["content-length"]) == len(large.content) > 10 * 1024 * 1024


def test_200_is_no_proof_of_nova(client: Any, cloud: Any) -> None:
    cloud.faults.add("foreign_json", service="compute", times=1)
    foreign = client("GET", SERVERS)
    assert (foreign.status_code, "servers" in foreign.json()) == (200, False)
    cloud.faults.add("html", service="identity", times=1)
    page = client("GET", "/v3")
    assert (page.status_code, page.headers["content-type"].split(";")[0]) == (200, "text/html")


def test_a_quota_refusal_in_each_service(client: Any, cloud: Any) -> None:
    cloud.faults.add("quota", method="POST")
    server = client("POST", SERVERS, client.server_request())
    assert server.status_code == 403
    assert server.json()["forbidden"]["message"] == (
        "Quota exceeded for cores, instances: Requested 2, 1, but already used 10, 4 of 10, 4 cores, instances"
    )
    port = client("POST", "/network/v2.0/ports", {"port": {"network_id": client.network_id}})
    floating = client("POST", "/network/v2.0/floatingips", {"floatingip": {"floating_network_id": client.public_id}})
    for answer in (port, floating):
        assert (answer.status_code, answer.json()["NeutronError"]["type"]) == (409, "OverQuota")
    assert cloud.log.entries() == []


def test_no_capacity_is_said_only_after_the_202(client: Any, cloud: Any, clock: Any) -> None:
    cloud.faults.add("no_capacity", path="/servers$", times=1)
    identifier = client.create()
    assert client.server(identifier)["status"] == "BUILD"
    clock.pass_by(2)
    failed = client.server(identifier)
    assert (failed["status"], failed["fault"]["code"]) == ("ERROR", 500)
    assert failed["fault"]["message"].startswith("No valid host was found.")
    listed = client.get(SERVERS + "/detail")["servers"][0]
    assert (listed["status"], "fault" in listed) == ("ERROR", False)
    assert (
        client.get(f"/compute/v2.1/os-quota-sets/{client.project_id}/detail")["quota_set"]["instances"]["in_use"] == 1
    )
    client("DELETE", f"{SERVERS}/{identifier}")
    assert client("GET", f"{SERVERS}/{identifier}").status_code == 404
    assert [entry.event for entry in cloud.log.entries(id=identifier)] == ["created", "error", "deleting", "deleted"]


def test_no_capacity_may_be_said_late(client: Any, cloud: Any, clock: Any) -> None:
    cloud.faults.add("no_capacity", path="/servers$", times=1, seconds=25)
    identifier = client.create()
    clock.pass_by(24)
    assert client.server(identifier)["status"] == "BUILD"
    clock.pass_by(1)
    assert client.server(identifier)["status"] == "ERROR"


def test_a_server_vanishes(client: Any, cloud: Any, clock: Any) -> None:
    cloud.faults.add("vanish", path="/servers$", times=1, seconds=20)
    port = client.create_port()
    identifier = client.create(networks=[{"port": port["id"]}])
    clock.pass_by(19)
    since = client.server(identifier)["created"]
    clock.pass_by(1)
    assert client("GET", f"{SERVERS}/{identifier}").status_code == 404
    assert client.get(f"{SERVERS}?changes-since={since}")["servers"] == []
    assert client.get(f"/network/v2.0/ports/{port['id']}")["port"]["device_id"] == ""
    assert cloud.log.entries(kind="server")[-1].event == "vanished"


@pytest.mark.parametrize(
    ("kind", "fields", "word"),
    [
        ("gremlin", {}, "kind"),
        ("500", {"service": "orchestration"}, "service"),
        ("500", {"times": 0}, "times"),
        ("500", {"skip": -1}, "skip"),
        ("500", {"chance": 0}, "chance"),
        ("500", {"chance": 1.5}, "chance"),
        ("500", {"path": "["}, "path"),
        ("500", {"colour": "red"}, "colour"),
    ],
)
def test_faults_that_make_no_sense_are_refused(
    client: Any, cloud: Any, *, kind: str, fields: dict[str, Any], word: str
) -> None:
    with pytest.raises(ConfigError, match=word):
        cloud.faults.add(kind, **fields)
    answer = client("POST", "/_control/faults", {"kind": kind, **fields})
    assert (answer.status_code, word in answer.json()["error"]) == (400, True)


def test_every_kind_of_fault_has_a_test_here() -> None:
    source = Path(__file__).read_text(encoding="utf-8")
    assert [kind for kind in FaultKind if f'"{kind}"' not in source] == []
