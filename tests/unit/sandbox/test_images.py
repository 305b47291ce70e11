"""Images that the sandbox makes of servers: time, states, refusals, filters, the log."""

from typing import Any

import pytest

V = "/compute/v2.1"
G = "/image/v2/images"
TAGS = {"leeway:lease": "1", "note": "2"}


@pytest.fixture
def server(client: Any, clock: Any) -> str:
    """A running one."""
    identifier = client.create("m")
    clock.pass_by(10)
    return str(identifier)


def save(client: Any, server: str, name: str = "disk", **more: Any) -> str:
    answer = client.act(server, "createImage", {"name": name, **more})
    assert answer.status_code == 202, answer.text
    return str(answer.headers["Location"].rpartition("/images/")[2])


def states(client: Any, server: str, image: str) -> tuple[str, str | None]:
    return client.get(f"{G}/{image}")["status"], client.server(server)["OS-EXT-STS:task_state"]


def test_an_image_is_queued_saved_and_active_while_the_server_has_a_task(client: Any, clock: Any, server: str) -> None:
    image = save(client, server, metadata=TAGS)
    assert states(client, server, image) == ("queued", "image_snapshot_pending")
    assert client.get(f"{G}/{image}")["size"] is None
    assert client.server(server)["status"] == "ACTIVE"
    clock.pass_by(1.5)
    assert states(client, server, image) == ("saving", "image_uploading")
    refused = client.act(server, "createImage", {"name": "second"})
    assert refused.status_code == 409
    assert "task_state image_uploading" in refused.json()["conflictingRequest"]["message"]
    clock.pass_by(4.5)
    assert states(client, server, image) == ("active", None)
    document = client.get(f"{G}/{image}")
    assert {key: document[key] for key in TAGS} == TAGS
    assert (document["owner"], document["visibility"]) == (client.project_id, "private")
    assert (document["image_type"], document["instance_uuid"]) == ("snapshot", server)
    assert (document["min_disk"], document["size"] > 0) == (20, True)


def test_from_2_45_on_the_body_has_the_id(client: Any, server: str) -> None:
    client.microversion = "2.45"
    answer = client.act(server, "createImage", {"name": "disk"})
    assert "Location" not in answer.headers
    assert client.get(f"{G}/{answer.json()['image_id']}")["name"] == "disk"


def test_a_server_that_is_off_has_a_disk_too_but_not_one_that_is_built_or_shelved(client: Any, clock: Any) -> None:
    server = client.create("m")
    assert client.act(server, "createImage", {"name": "disk"}).status_code == 409
    clock.pass_by(10)
    client.act(server, "os-stop")
    clock.pass_by(3)
    save(client, server)
    clock.pass_by(6)
    assert client.server(server)["status"] == "SHUTOFF"
    client.act(server, "shelve")
    clock.pass_by(4)
    assert client.act(server, "createImage", {"name": "disk"}).status_code == 409


@pytest.mark.parametrize(
    "argument",
    [None, {}, {"name": ""}, {"name": "d", "metadata": {"a/b": "c"}}, {"name": "d", "metadata": {"a": "x" * 256}}],
)
def test_what_nova_refuses_is_refused(client: Any, server: str, argument: Any) -> None:
    assert client.act(server, "createImage", argument).status_code == 400


def test_the_image_goes_with_a_server_that_goes_before_it_is_saved(cloud: Any, client: Any, clock: Any) -> None:
    server = client.create("m")
    clock.pass_by(10)
    image = save(client, server, metadata=TAGS)
    client("DELETE", f"{V}/servers/{server}")
    clock.pass_by(6)
    assert client("GET", f"{G}/{image}").status_code == 404
    assert cloud.log.alive("snapshot") == set()


def test_a_saved_image_outlives_its_server(cloud: Any, client: Any, clock: Any, server: str) -> None:
    image = save(client, server, metadata=TAGS)
    clock.pass_by(6)
    client("DELETE", f"{V}/servers/{server}")
    clock.pass_by(6)
    assert client.get(f"{G}/{image}")["status"] == "active"
    assert client.create("child", imageRef=image)
    assert cloud.log.most_at_once("snapshot", **{"leeway:lease": "1"}) == 1
    assert client("DELETE", f"{G}/{image}").status_code == 204
    assert client("DELETE", f"{G}/{image}").status_code == 404
    entries = cloud.log.entries(kind="snapshot", id=image)
    assert [entry.event for entry in entries] == ["created", "active", "deleted"]
    assert all(entry.metadata == TAGS for entry in entries)
    assert (entries[0].name, entries[0].detail["server_id"]) == ("disk", server)


def test_an_image_deleted_too_early_frees_its_server(client: Any, clock: Any, server: str) -> None:
    client("DELETE", f"{G}/{save(client, server)}")
    clock.pass_by(6)
    assert client.server(server)["OS-EXT-STS:task_state"] is None


def test_nobody_elses_images_are_shown_started_or_deleted(
    new_client: Any, client: Any, clock: Any, server: str
) -> None:
    image = save(client, server)
    clock.pass_by(6)
    other = new_client(project="physics")
    assert image not in {item["id"] for item in other.get(G)["images"]}
    assert other("GET", f"{G}/{image}").status_code == 404
    assert other("DELETE", f"{G}/{image}").status_code == 404
    wanted = other.server_request(imageRef=image, networks=[{"uuid": other.configured("network", "physics-net")}])
    assert other("POST", f"{V}/servers", wanted).status_code == 400
    public = client.first(G, "images", "Debian 12")
    assert client("DELETE", f"{G}/{public}").status_code == 403


def test_a_protected_image_stays(cloud: Any, client: Any, server: str) -> None:
    image = save(client, server)
    cloud.cloud.images[image].protected = True
    refused = client("DELETE", f"{G}/{image}", Accept="application/json")
    assert (refused.status_code, refused.json()["title"]) == (403, "Forbidden")
    assert "protected" in refused.json()["message"]
    assert client.get(f"{G}/{image}")["protected"] is True


def test_the_list_is_filtered_and_paged(client: Any, clock: Any, server: str) -> None:
    made = []
    for number in range(4):
        made.append(save(client, server, f"disk-{number}", metadata={"round": str(number % 2)}))
        clock.pass_by(6)

    def ids(query: str) -> list[str]:
        return [item["id"] for item in client.get(f"{G}?{query}")["images"]]

    own = f"owner={client.project_id}"
    assert ids(f"{own}&limit=3") == made[:0:-1], "the newest first"
    assert ids(f"{own}&limit=3&marker={made[1]}") == made[:1]
    assert ids(f"{own}&round=1") == [made[3], made[1]]
    assert ids("visibility=private&name=disk-2") == [made[2]]
    assert ids(f"{own}&status=queued") == []
    assert ids("os_hidden=true") == []
    assert set(ids("visibility=public")).isdisjoint(made)
    assert ids("owner=nobody") == []


def test_shelving_keeps_an_image_until_the_server_is_back(cloud: Any, client: Any, clock: Any, server: str) -> None:
    for ending in ("unshelve", "delete"):
        client.act(server, "shelve")
        clock.pass_by(4)
        (shelved,) = client.get(f"{G}?name=m-shelved")["images"]
        assert shelved["instance_uuid"] == server
        if ending == "unshelve":
            client.act(server, ending)
        else:
            client("DELETE", f"{V}/servers/{server}")
        clock.pass_by(5)
        assert client.get(f"{G}?name=m-shelved")["images"] == []
    assert cloud.log.alive("shelved_image") == set()
    assert len(cloud.log.entries(kind="shelved_image", event="created")) == 2


@pytest.mark.parametrize(
    ("kind", "events"), [("no_capacity", ["created", "error"]), ("vanish", ["created", "vanished"])]
)
def test_a_making_can_fail_late(
    cloud: Any, client: Any, clock: Any, server: str, *, kind: str, events: list[str]
) -> None:
    cloud.faults.add(kind, path="/action$", times=1, seconds=2)
    image = save(client, server)
    assert client.get(f"{G}/{image}")["status"] == "queued"
    clock.pass_by(6)
    assert [entry.event for entry in cloud.log.entries(kind="snapshot", id=image)] == events
    assert client.server(server)["OS-EXT-STS:task_state"] is None
    if kind == "no_capacity":
        assert client.get(f"{G}/{image}")["status"] == "killed"


def test_a_making_can_be_refused_for_a_quota(cloud: Any, client: Any, server: str) -> None:
    cloud.faults.add("quota", path="/action$", times=1)
    refused = client.act(server, "createImage", {"name": "disk"})
    assert (refused.status_code, "Quota exceeded" in refused.text) == (403, True)
    assert cloud.log.alive("snapshot") == set()
