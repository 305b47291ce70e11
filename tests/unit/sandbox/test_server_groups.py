"""Nova's server groups: as each microversion shows them, who is in them, and where their servers are placed."""

import dataclasses
from typing import Any

import pytest

GROUPS, SERVERS = "/compute/v2.1/os-server-groups", "/compute/v2.1/servers"
GONE = "0b3c7f5e-0000-4000-8000-000000000000"


def make(client: Any, policy: str = "anti-affinity", version: str = "2.15", **more: Any) -> Any:
    field = {"policy": policy} if version >= "2.64" else {"policies": [policy]}
    body = {"server_group": {"name": "g"} | field | more}
    return client("POST", GROUPS, body, **{"OpenStack-API-Version": f"compute {version}"})


def made(client: Any, *arguments: Any, **named: Any) -> str:
    answer = make(client, *arguments, **named)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["server_group"]["id"])


def create(client: Any, group: Any, name: str = "m") -> Any:
    return client("POST", SERVERS, client.server_request(name) | {"os:scheduler_hints": {"group": group}})


def refusal(answer: Any) -> tuple[int, str]:
    ((_, content),) = answer.json().items()
    return answer.status_code, content["message"]


def test_each_microversion_shows_them_its_way(client: Any) -> None:
    group = made(client, version="2.64", rules={"max_server_per_host": 2})
    own = {"project_id": client.project_id, "user_id": client.user_id}
    old = {"id": group, "name": "g", "policies": ["anti-affinity"], "metadata": {}, "members": []}
    new = {
        "policy": "anti-affinity",
        "rules": {"max_server_per_host": 2},
        "id": group,
        "name": "g",
        "members": [],
    } | own
    for version, document in (("2.1", old), ("2.13", old | own), ("2.64", new)):
        header = {"OpenStack-API-Version": f"compute {version}"}
        assert client.get(f"{GROUPS}/{group}", **header)["server_group"] == document
        assert client.get(GROUPS, **header)["server_groups"] == [document]


@pytest.mark.parametrize(
    ("policy", "version", "more", "words"),
    [
        ("soft-affinity", "2.1", {}, "is not one of ['anti-affinity', 'affinity']"),
        ("nonsense", "2.64", {}, "'nonsense' is not one of"),
        ("affinity", "2.64", {"rules": {"max_server_per_host": 2}}, "Only anti-affinity"),
        ("anti-affinity", "2.64", {"rules": {"max_server_per_host": 0}}, "rules"),
        ("anti-affinity", "2.64", {"rules": {"most": 1}}, "rules"),
        ("affinity", "2.1", {"policies": ["affinity", "affinity"]}, "policies"),
        ("affinity", "2.1", {"name": ""}, "is too short"),
    ],
)
def test_bad_groups_are_refused(client: Any, *, policy: str, version: str, more: dict[str, Any], words: str) -> None:
    status, text = refusal(make(client, policy, version, **more))
    assert status == 400
    assert words in text


def test_a_list_goes_by_offset_and_a_project_has_ten(client: Any) -> None:
    every = [made(client) for _ in range(10)]
    assert refusal(make(client)) == (403, "Quota exceeded, too many server groups.")
    listed: list[str] = []
    while page := client.get(f"{GROUPS}?limit=4&offset={len(listed)}")["server_groups"]:
        assert len(page) <= 3, "the cloud's own limit"
        listed += [group["id"] for group in page]
    assert listed == every
    assert client("GET", f"{GROUPS}?limit=x").status_code == 400


def test_servers_are_in_it_until_they_are_gone(client: Any, clock: Any) -> None:
    group = made(client)
    server = create(client, group).json()["server"]["id"]
    assert client.get(f"{GROUPS}/{group}")["server_group"]["members"] == [server]
    header = {"OpenStack-API-Version": "compute 2.71"}
    assert client.get(f"{SERVERS}/{server}", **header)["server"]["server_groups"] == [group]
    client("DELETE", f"{SERVERS}/{server}")
    clock.pass_by(10)
    assert client.get(f"{GROUPS}/{group}")["server_group"]["members"] == []


def test_a_group_goes_and_its_servers_stay(client: Any) -> None:
    group = made(client)
    server = create(client, group).json()["server"]["id"]
    assert client("DELETE", f"{GROUPS}/{group}").status_code == 204
    for method in ("GET", "DELETE"):
        assert refusal(client(method, f"{GROUPS}/{group}")) == (404, f"Instance group {group} could not be found.")
    header = {"OpenStack-API-Version": "compute 2.71"}
    assert client.get(f"{SERVERS}/{server}", **header)["server"]["server_groups"] == []


def test_hints_that_name_no_group_are_refused(client: Any, new_client: Any) -> None:
    assert refusal(create(client, GONE)) == (400, f"Instance group {GONE} could not be found.")
    assert "is not a 'uuid'" in refusal(create(client, "nonsense"))[1]
    theirs = made(new_client(project="physics"))
    assert refusal(create(client, theirs)) == (400, f"Instance group {theirs} could not be found.")
    assert client("GET", f"{GROUPS}/{theirs}").status_code == 404


def hosts(client: Any, clock: Any, group: str, count: int) -> list[str]:
    """The hosts of so many new servers of the group, none where there was none."""
    servers = [create(client, group).json()["server"]["id"] for _ in range(count)]
    clock.pass_by(10)
    return [client.server(server)["hostId"] for server in servers]


@pytest.mark.parametrize(
    ("policy", "different"), [("anti-affinity", 3), ("soft-anti-affinity", 3), ("affinity", 1), ("soft-affinity", 1)]
)
def test_policies_are_kept(
    client: Any, clock: Any, cloud: Any, monkeypatch: pytest.MonkeyPatch, *, policy: str, different: int
) -> None:
    monkeypatch.setattr(cloud.cloud, "config", dataclasses.replace(cloud.cloud.config, hosts=3))
    group = made(client, policy)
    placed = hosts(client, clock, group, 3)
    assert "" not in placed
    assert len(set(placed)) == different


@pytest.mark.parametrize(("policy", "status"), [("anti-affinity", "ERROR"), ("soft-anti-affinity", "ACTIVE")])
def test_where_there_is_one_host_a_strict_group_finds_none_and_a_soft_one_does(
    client: Any, clock: Any, cloud: Any, monkeypatch: pytest.MonkeyPatch, *, policy: str, status: str
) -> None:
    monkeypatch.setattr(cloud.cloud, "config", dataclasses.replace(cloud.cloud.config, hosts=1))
    group = made(client, policy)
    servers = [create(client, group).json()["server"]["id"] for _ in range(2)]
    clock.pass_by(10)
    assert [client.server(server)["status"] for server in servers] == ["ACTIVE", status]
