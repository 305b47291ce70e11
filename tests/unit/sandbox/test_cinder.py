"""Volumes and their snapshots: states over time, pages, refusals, quotas, what servers have of them, the log."""

import dataclasses
from typing import Any

import pytest

from adapters.sandbox import profile, running
from tests.unit.sandbox.wire_client import Client

GONE = "0b3c7f5e-0000-4000-8000-000000000000"


def base(client: Any) -> str:
    return f"/volume/v3/{client.project_id}"


def make(client: Any, name: str = "v", size: int = 1, **more: Any) -> str:
    answer = client("POST", f"{base(client)}/volumes", {"volume": {"name": name, "size": size, **more}})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["volume"]["id"])


def save(client: Any, volume: str, **more: Any) -> str:
    answer = client("POST", f"{base(client)}/snapshots", {"snapshot": {"volume_id": volume, "name": "s", **more}})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["snapshot"]["id"])


def volume_of(client: Any, identifier: str) -> Any:
    return client.get(f"{base(client)}/volumes/{identifier}")["volume"]


def attach(client: Any, server: str, volume: str, **more: Any) -> Any:
    path = f"/compute/v2.1/servers/{server}/os-volume_attachments"
    return client("POST", path, {"volumeAttachment": {"volumeId": volume, **more}})


def refusal(answer: Any) -> tuple[int, str, str]:
    ((kind, content),) = answer.json().items()
    assert content["code"] == answer.status_code
    return answer.status_code, kind, content["message"]


@pytest.fixture
def server(client: Any, clock: Any) -> str:
    """A running one."""
    identifier = client.create("m")
    clock.pass_by(10)
    return str(identifier)


def test_a_volume_is_made_used_and_deleted(client: Any, clock: Any, cloud: Any, server: str) -> None:
    volume = make(client, size=3, metadata={"leeway:lease": "1"}, description="d")
    made = volume_of(client, volume)
    assert (made["status"], made["size"], made["metadata"]) == ("creating", 3, {"leeway:lease": "1"})
    assert (made["user_id"], made["os-vol-tenant-attr:tenant_id"]) == (client.user_id, client.project_id)
    assert attach(client, server, volume).status_code == 400, "it is not there yet"
    clock.pass_by(2)
    answer = attach(client, server, volume)
    assert answer.status_code == 200, answer.text
    attachment = {"id": volume, "volumeId": volume, "serverId": server, "device": "/dev/vdb"}
    assert answer.json()["volumeAttachment"] == attachment
    assert (volume_of(client, volume)["status"], volume_of(client, volume)["attachments"]) == ("reserved", [])
    clock.pass_by(1)
    used = volume_of(client, volume)
    assert used["status"] == "in-use"
    assert [item["server_id"] for item in used["attachments"]] == [server]
    assert client.server(server)["os-extended-volumes:volumes_attached"] == [{"id": volume}]
    path = f"/compute/v2.1/servers/{server}/os-volume_attachments"
    assert client.get(path) == {"volumeAttachments": [attachment]}
    assert client.get(f"{path}/{volume}") == {"volumeAttachment": attachment}
    assert client("DELETE", f"{base(client)}/volumes/{volume}").status_code == 400, "it is in use"
    assert client("DELETE", f"{path}/{volume}").status_code == 202
    assert volume_of(client, volume)["status"] == "detaching"
    clock.pass_by(1)
    assert (volume_of(client, volume)["status"], volume_of(client, volume)["attachments"]) == ("available", [])
    assert client("DELETE", f"{path}/{volume}").status_code == 404
    assert client("DELETE", f"{base(client)}/volumes/{volume}").status_code == 202
    assert volume_of(client, volume)["status"] == "deleting"
    clock.pass_by(5)
    assert client("GET", f"{base(client)}/volumes/{volume}").status_code == 404
    entries = cloud.log.entries(kind="volume", id=volume)
    events = ["created", "available", "attached", "detached", "deleting", "deleted"]
    assert [entry.event for entry in entries] == events
    assert entries[2].detail == {"server_id": server}
    assert entries[0].metadata == {"leeway:lease": "1"}


@pytest.mark.parametrize("end", ["delete", "vanish"])
def test_a_server_that_goes_leaves_its_volumes(client: Any, clock: Any, server: str, end: str) -> None:
    first, second = make(client), make(client)
    clock.pass_by(2)
    assert attach(client, server, first).json()["volumeAttachment"]["device"] == "/dev/vdb"
    assert attach(client, server, second).json()["volumeAttachment"]["device"] == "/dev/vdc"
    clock.pass_by(1)
    if end == "vanish":
        client.cloud.vanish(server)
    else:
        client("DELETE", f"/compute/v2.1/servers/{server}")
        clock.pass_by(5)
    assert {volume_of(client, volume)["status"] for volume in (first, second)} == {"available"}


def test_a_volume_that_was_taken_back_early_is_not_in_use_for_its_old_server(client: Any, clock: Any) -> None:
    servers = [client.create(name) for name in "ab"]
    volume = make(client)
    clock.pass_by(10)
    attach(client, servers[0], volume)
    clock.pass_by(0.5)
    client.cloud.vanish(servers[0])
    attach(client, servers[1], volume)
    clock.pass_by(0.5)
    assert volume_of(client, volume)["status"] == "reserved"
    clock.pass_by(0.5)
    assert [item["server_id"] for item in volume_of(client, volume)["attachments"]] == [servers[1]]


def test_lists_come_in_pages_newest_first(client: Any, clock: Any) -> None:
    made = [make(client, f"v{number}") for number in range(5)]
    clock.pass_by(2)
    first = client.get(f"{base(client)}/volumes/detail")
    assert [item["id"] for item in first["volumes"]] == made[:1:-1], "three are a page"
    (link,) = first["volumes_links"]
    assert link["rel"] == "next"
    rest = client.get(link["href"].removeprefix(client.cloud.url))
    assert [item["id"] for item in rest["volumes"]] == made[1::-1]
    assert "volumes_links" not in rest
    short = client.get(f"{base(client)}/volumes?limit=1")["volumes"]
    assert [set(item) for item in short] == [{"id", "name", "links"}]
    assert [item["name"] for item in client.get(f"{base(client)}/volumes?name=v2")["volumes"]] == ["v2"]
    assert client.get(f"{base(client)}/volumes/detail?status=error") == {"volumes": []}
    answer = client("GET", f"{base(client)}/volumes/detail?marker={GONE}")
    assert refusal(answer) == (404, "itemNotFound", f"Volume {GONE} could not be found.")


def test_a_snapshot_keeps_its_volume_and_makes_another(client: Any, clock: Any, server: str) -> None:
    volume = make(client, size=4)
    clock.pass_by(2)
    attach(client, server, volume)
    clock.pass_by(1)
    refused = client("POST", f"{base(client)}/snapshots", {"snapshot": {"volume_id": volume}})
    assert refused.status_code == 400, "in use, and not forced"
    snapshot = save(client, volume, force=True)
    from_it = {"volume": {"snapshot_id": snapshot}}
    assert client("POST", f"{base(client)}/volumes", from_it).status_code == 400, "it is not there yet"
    clock.pass_by(2)
    (listed,) = client.get(f"{base(client)}/snapshots/detail")["snapshots"]
    assert (listed["id"], listed["volume_id"], listed["size"], listed["status"]) == (snapshot, volume, 4, "available")
    assert "user_id" not in listed
    newer = client.get(f"{base(client)}/snapshots/{snapshot}", **{"OpenStack-API-Version": "volume 3.41"})
    assert newer["snapshot"]["user_id"] == client.user_id
    client("DELETE", f"/compute/v2.1/servers/{server}/os-volume_attachments/{volume}")
    clock.pass_by(1)
    assert client("DELETE", f"{base(client)}/volumes/{volume}").status_code == 400, "it has a snapshot"
    child = client("POST", f"{base(client)}/volumes", from_it).json()["volume"]
    assert (child["size"], child["snapshot_id"]) == (4, snapshot)
    assert client("POST", f"{base(client)}/volumes", {"volume": {**from_it["volume"], "size": 3}}).status_code == 400
    assert client("DELETE", f"{base(client)}/snapshots/{snapshot}").status_code == 202
    clock.pass_by(5)
    assert client.get(f"{base(client)}/snapshots") == {"snapshots": []}
    assert client("DELETE", f"{base(client)}/volumes/{volume}").status_code == 202


@pytest.mark.parametrize(
    "wanted",
    [
        {},
        {"size": 0},
        {"size": "many"},
        {"size": True},
        {"size": 1, "name": "x" * 256},
        {"size": 1, "metadata": {"a": 1}},
        {"size": 1, "imageRef": GONE},
    ],
)
def test_what_cinder_refuses_is_refused(client: Any, wanted: dict[str, Any]) -> None:
    assert refusal(client("POST", f"{base(client)}/volumes", {"volume": wanted}))[:2] == (400, "badRequest")


def test_the_quota_counts_volumes_and_snapshots(client: Any, clock: Any, cloud: Any) -> None:
    client("PUT", "/_control/quotas/leeway", {"volumes": 2, "volume_gib": 10, "volume_snapshots": 1})
    volume = make(client, size=3)
    clock.pass_by(2)
    save(client, volume)
    path = f"{base(client)}/os-quota-sets/{client.project_id}"
    assert client.get(path)["quota_set"]["gigabytes"] == 10
    rows = client.get(f"{path}?usage=True")["quota_set"]
    used = {name: (rows[name]["limit"], rows[name]["in_use"]) for name in ("volumes", "snapshots", "gigabytes")}
    assert used == {"volumes": (2, 1), "snapshots": (1, 1), "gigabytes": (10, 6)}
    answer = client("POST", f"{base(client)}/volumes", {"volume": {"size": 5}})
    assert refusal(answer)[:2] == (413, "overLimit")
    assert answer.headers["Retry-After"] == "0"
    assert "quota is 10G and 6G has been consumed" in answer.text
    answer = client("POST", f"{base(client)}/snapshots", {"snapshot": {"volume_id": volume}})
    assert "SnapshotLimitExceeded" in answer.text
    make(client)
    assert "VolumeLimitExceeded" in client("POST", f"{base(client)}/volumes", {"volume": {"size": 1}}).text
    cloud.faults.add("quota", service="volume", times=1)
    client("PUT", "/_control/quotas/leeway", {"volumes": -1, "volume_gib": -1})
    assert client("POST", f"{base(client)}/volumes", {"volume": {"size": 1}}).status_code == 413
    make(client)


def test_faults_reach_volumes(client: Any, clock: Any, cloud: Any) -> None:
    cloud.faults.add("hidden", service="volume", method="POST", seconds=5, times=1)
    cloud.faults.add("no_capacity", service="volume", method="POST", skip=1, times=1)
    hidden, failed = make(client), make(client)
    assert client("GET", f"{base(client)}/volumes/{hidden}").status_code == 404
    clock.pass_by(2)
    assert volume_of(client, failed)["status"] == "error"
    clock.pass_by(3)
    assert volume_of(client, hidden)["status"] == "available"
    assert client("DELETE", f"{base(client)}/volumes/{failed}").status_code == 202


def test_another_projects_volumes_are_not_there(client: Any, new_client: Any) -> None:
    volume = make(client)
    other = new_client(project="physics")
    assert other.get(f"{base(other)}/volumes") == {"volumes": []}
    assert other("GET", f"{base(other)}/volumes/{volume}").status_code == 404
    assert refusal(other("GET", f"{base(client)}/volumes"))[2] == "Malformed request url"
    assert other("GET", f"{base(other)}/os-quota-sets/{client.project_id}").status_code == 403
    del other.session.headers["X-Auth-Token"]
    assert other("GET", f"{base(other)}/volumes").status_code == 401


def test_versions_and_microversions(client: Any) -> None:
    assert client("GET", "/volume/").status_code == 300
    (version,) = client.get("/volume/v3/")["versions"]
    assert (version["min_version"], version["version"]) == ("3.0", "3.70")
    volume = make(client)
    answer = client("GET", f"{base(client)}/volumes/{volume}", **{"OpenStack-API-Version": "volume latest"})
    assert answer.headers["OpenStack-API-Version"] == "volume 3.70"
    assert "volume_type_id" in answer.json()["volume"]
    assert "volume_type_id" not in volume_of(client, volume)
    for text, status in (("volume 3.99", 406), ("volume three", 400), ("compute 2.79", 200)):
        got = client("GET", f"{base(client)}/volumes", **{"OpenStack-API-Version": text})
        assert got.status_code == status, text


def test_names_and_metadata_may_be_changed(client: Any, clock: Any) -> None:
    volume = make(client)
    clock.pass_by(2)
    snapshot = save(client, volume)
    change = {"name": "new", "description": "d", "metadata": {"a": "b"}}
    for kind, identifier in (("volume", volume), ("snapshot", snapshot)):
        changed = client("PUT", f"{base(client)}/{kind}s/{identifier}", {kind: change}).json()[kind]
        assert {key: changed[key] for key in change} == change


def test_foreign_things_are_partly_in_use(config: Any) -> None:
    config = dataclasses.replace(
        config, foreign_servers=2, foreign_volumes=4, foreign_volume_snapshots=1, foreign_addresses=3, foreign_images=2
    )
    with running(config) as cloud:
        client = Client(cloud)
        servers = {item["id"] for item in client.get("/compute/v2.1/servers")["servers"]}
        volumes = client.get(f"{base(client)}/volumes/detail?limit=9")["volumes"]
        volumes += client.get(f"{base(client)}/volumes/detail?marker={volumes[-1]['id']}")["volumes"]
        holders = [[item["server_id"] for item in volume["attachments"]] for volume in volumes]
        assert sorted(map(len, holders)) == [0, 0, 1, 1]
        assert {holder[0] for holder in holders if holder} == servers
        addresses = client.get("/network/v2.0/floatingips")["floatingips"]
        assert sorted(item["status"] for item in addresses) == ["ACTIVE", "DOWN", "DOWN"]
        owned = client.get(f"/image/v2/images?owner={client.project_id}")["images"]
        assert [item["visibility"] for item in owned] == ["private", "private"]
        assert len(client.get(f"{base(client)}/snapshots")["snapshots"]) == 1
        cloud.reset(keep_identity=True)
        assert len(cloud.log.alive("volume")) == 4
        client.session.close()


@pytest.mark.parametrize("change", [{"foreign_servers": 0}, {"has_volumes": False}])
def test_without_people_or_cinder_there_are_no_foreign_volumes(change: dict[str, Any]) -> None:
    with running(dataclasses.replace(profile("borealis"), **change)) as cloud:
        assert cloud.log.alive("volume") == set()
        assert bool(cloud.log.alive("floating_ip")) == ("has_volumes" in change)


def test_a_cloud_without_cinder_does_not_name_it(config: Any) -> None:
    with running(dataclasses.replace(config, has_volumes=False)) as cloud:
        client = Client(cloud)
        assert "volumev3" not in {entry["type"] for entry in client.get("/v3/auth/catalog")["catalog"]}
        client.session.close()
