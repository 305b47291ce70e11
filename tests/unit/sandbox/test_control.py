"""The control interface, and the log: the cloud's own truth."""

import json
from datetime import timedelta
from typing import Any

import pytest


def _control(client: Any, method: str, path: str, body: Any = None) -> Any:
    del client.session.headers["X-Auth-Token"]  # no token opens it, and none is needed
    return client(method, f"/_control/{path}", body)


def test_faults_by_http(client: Any, cloud: Any) -> None:
    token = client.session.headers["X-Auth-Token"]
    made = _control(client, "POST", "faults", {"kind": "500", "path": "/servers", "times": 1})
    assert made.status_code == 201
    client.session.headers["X-Auth-Token"] = token
    assert client("GET", "/compute/v2.1/servers").status_code == 500
    (listed,) = client.get("/_control/faults")["faults"]
    assert (listed["id"], listed["kind"], listed["hits"], listed["left"]) == (made.json()["id"], "500", 1, 0)
    assert client("DELETE", f"/_control/faults/{listed['id']}").status_code == 204
    assert client("DELETE", f"/_control/faults/{listed['id']}").status_code == 404
    cloud.faults.add("500")
    assert client("DELETE", "/_control/faults").status_code == 204
    assert client.get("/_control/faults") == {"faults": []}


def test_faults_do_not_hit_the_control(client: Any, cloud: Any) -> None:
    cloud.faults.add("cut")
    assert client.get("/_control")["auth_url"] == cloud.auth_url


def test_the_log_tells_names_times_and_requests(client: Any, clock: Any) -> None:
    begun = clock()
    answer = client("POST", "/compute/v2.1/servers", client.server_request("m", metadata={"a": "b"}))
    identifier = answer.json()["server"]["id"]
    clock.pass_by(3600)
    entries = _control(client, "GET", f"log?id={identifier}").json()["entries"]
    assert [(entry["event"], entry["at"]) for entry in entries] == [
        ("created", begun.isoformat(timespec="microseconds")),
        ("active", (begun + timedelta(seconds=10)).isoformat(timespec="microseconds")),  # though nobody looked then
    ]
    assert entries[0]["request_id"] == answer.headers["X-Openstack-Request-Id"]
    assert (entries[0]["name"], entries[0]["metadata"]) == ("m", {"a": "b"})
    assert entries[0]["detail"]["flavor"] == "a1.small"


def test_the_log_is_in_the_order_of_time(client: Any, cloud: Any, clock: Any) -> None:
    for number in range(4):
        client.create(f"m{number}")
        clock.pass_by(3)
    for identifier in sorted(cloud.log.alive("server"))[:2]:
        client("DELETE", f"/compute/v2.1/servers/{identifier}")
    clock.pass_by(100)
    moments = [entry.at for entry in cloud.log.entries()]
    assert moments == sorted(moments)
    assert len(cloud.log.alive("server")) == len(client.get("/compute/v2.1/servers")["servers"]) == 2
    assert cloud.log.most_at_once("server") == 4


def test_most_at_once_counts_overlap_not_total(client: Any, cloud: Any, clock: Any) -> None:
    for attempt in ("1", "2", "2"):
        identifier = client.create(metadata={"attempt": attempt})
        client("DELETE", f"/compute/v2.1/servers/{identifier}")
        clock.pass_by(10)
    client.create(metadata={"attempt": "2"})
    client.create(metadata={"attempt": "2"})
    assert cloud.log.most_at_once("server", attempt="1") == 1
    assert cloud.log.most_at_once("server", attempt="2") == 2
    assert cloud.log.most_at_once("server") == 2


def test_the_log_is_read_on_from_where_it_was_read_to(client: Any, clock: Any) -> None:
    first = client.create("a")
    answer = client.get("/_control/log?since=0")
    assert ([entry["id"] for entry in answer["entries"]], answer["next"]) == ([first], 1)
    clock.pass_by(10)
    answer = client.get(f"/_control/log?since={answer['next']}&kind=server")
    assert [(entry["id"], entry["event"]) for entry in answer["entries"]] == [(first, "active")]
    assert answer["next"] == 3, "its port was made in between"
    assert client.get("/_control/log?since=3") == {"entries": [], "next": 3}
    assert client("GET", "/_control/log?since=-1").status_code == 400


def test_the_log_names_what_carries_a_description_only(client: Any, cloud: Any) -> None:
    client.create_port(description="leeway:lease=1")
    wanted = {"floating_network_id": client.public_id, "description": "leeway:lease=1"}
    address = client("POST", "/network/v2.0/floatingips", {"floatingip": wanted}).json()["floatingip"]["id"]
    client("DELETE", f"/network/v2.0/floatingips/{address}")
    for kind in ("port", "floating_ip"):
        for entry in cloud.log.entries(kind=kind):
            assert entry.metadata == {"description": "leeway:lease=1"}


def test_most_active_counts_each_lease_apart(client: Any, clock: Any) -> None:
    lease = {"metadata": {"leeway:lease": "a"}}
    first, second = client.create(**lease), client.create(**lease)
    client.create(metadata={"leeway:lease": "b"})
    client.create()
    assert client.get("/_control/most-active?by=leeway:lease") == {"most": {}}, "nothing is active yet"
    clock.pass_by(9)
    client("DELETE", f"/compute/v2.1/servers/{second}")
    clock.pass_by(1)
    assert client.get("/_control/most-active?by=leeway:lease") == {"most": {"a": 1, "b": 1}}
    clock.pass_by(100)
    client.act(first, "os-stop")
    clock.pass_by(100)
    client.create(**lease)
    clock.pass_by(10)
    assert client.get("/_control/most-active?by=leeway:lease") == {"most": {"a": 2, "b": 1}}
    assert client("GET", "/_control/most-active").status_code == 400


def test_foreign_servers(client: Any, cloud: Any) -> None:
    token = client.session.headers["X-Auth-Token"]
    added = _control(client, "POST", "servers", {"count": 5, "flavor": "a1.medium"})
    assert len(added.json()["ids"]) == 5
    client.session.headers["X-Auth-Token"] = token
    server = client.server(added.json()["ids"][0])
    assert (server["status"], server["user_id"] == client.user_id, list(server["addresses"])) == (
        "ACTIVE",
        False,
        ["leeway-net"],
    )
    limits = client.get("/compute/v2.1/limits")["limits"]["absolute"]
    assert (limits["totalInstancesUsed"], limits["totalCoresUsed"]) == (5, 20)
    assert client("DELETE", f"/_control/servers/{server['id']}").status_code == 204
    assert client("GET", f"/compute/v2.1/servers/{server['id']}").status_code == 404
    assert client("DELETE", f"/_control/servers/{server['id']}").status_code == 404
    assert len(cloud.log.alive("server")) == 4


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ({}, "count"),
        ({"count": 0}, "count"),
        ({"count": "5"}, "count"),
        ({"count": 1, "flavor": "none"}, "flavor"),
        ({"count": 1, "project": "none"}, "project"),
        ({"count": 300, "project": "physics"}, "after 253 of 300"),
        ([], "body"),
    ],
)
def test_foreign_servers_that_cannot_be(client: Any, body: Any, word: str) -> None:
    answer = client("POST", "/_control/servers", body)
    assert (answer.status_code, word in answer.json()["error"]) == (400, True), answer.text


def test_quotas_change_while_running(client: Any) -> None:
    assert client("PUT", "/_control/quotas/leeway", {"instances": 0}).json()["quota"]["instances"] == 0
    assert client("POST", "/compute/v2.1/servers", client.server_request()).status_code == 403
    assert client("PUT", "/_control/quotas/leeway", {"instances": -1, "cores": -1, "ram_mib": -1}).status_code == 200
    client.create()
    for body in ({"instances": -2}, {"instances": "many"}, {"ponies": 1}):
        assert client("PUT", "/_control/quotas/leeway", body).status_code == 400
    assert client("PUT", "/_control/quotas/none", {}).status_code == 404


def test_reset(client: Any, cloud: Any) -> None:
    client.create()
    cloud.faults.add("500", service="compute")
    assert client("POST", "/_control/reset", {"keep_identity": True}).status_code == 204
    assert client.get("/compute/v2.1/servers") == {"servers": []}
    assert cloud.log.entries() == []
    assert client("POST", "/_control/reset").status_code == 204
    assert client("GET", "/compute/v2.1/servers").status_code == 401


def test_only_loopback_controls(cloud: Any) -> None:
    import asyncio

    from adapters.sandbox.app import Application

    sent: list[Any] = []

    async def ask(client: tuple[str, int] | None) -> int:
        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "method": "GET",
            "path": "/_control",
            "root_path": "",
            "query_string": b"",
            "headers": [(b"host", b"cloud")],
            "client": client,
        }
        await Application(cloud.cloud)(scope, receive, send)
        return int(sent[-2]["status"])

    assert asyncio.run(ask(("192.0.2.1", 9))) == 403
    assert "loopback" in json.loads(sent[-1]["body"])["error"]
    assert asyncio.run(ask(None)) == 403
    assert asyncio.run(ask(("127.0.0.1", 9))) == 200
