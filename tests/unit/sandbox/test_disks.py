"""Servers that are made with volumes, as Nova and Cinder were seen to treat them: refusals, states over time, ends."""

import json
from typing import Any

import pytest

from tests.unit.sandbox.test_cinder import attach, base, make, volume_of

GONE = "0b3c7f5e-0000-4000-8000-000000000000"
SERVERS = "/compute/v2.1/servers"


def local(client: Any) -> dict[str, Any]:
    """The flavor's own disk as root."""
    image = client.configured("image", "Debian 12")
    return {"boot_index": 0, "uuid": image, "source_type": "image", "destination_type": "local"}


def on_volume(client: Any, size: int = 5, **more: Any) -> dict[str, Any]:
    """A root disk that is a volume, and goes with the server unless told otherwise."""
    kind = {"destination_type": "volume", "volume_size": size, "delete_on_termination": True}
    return local(client) | kind | more


def second(volume: str, **more: Any) -> dict[str, Any]:
    return {"boot_index": -1, "uuid": volume, "source_type": "volume", "destination_type": "volume"} | more


def create(client: Any, *devices: dict[str, Any], **more: Any) -> Any:
    return client("POST", SERVERS, client.server_request(block_device_mapping_v2=list(devices), **more))


def without_image(client: Any, *devices: dict[str, Any]) -> Any:
    request = client.server_request(block_device_mapping_v2=list(devices))
    del request["server"]["imageRef"]
    return client("POST", SERVERS, request)


def refusal(answer: Any) -> str:
    assert answer.status_code == 400, answer.text
    return str(answer.json()["badRequest"]["message"])


@pytest.fixture
def volume(client: Any, clock: Any) -> str:
    """One that is available."""
    identifier = make(client, size=3)
    clock.pass_by(2)
    return identifier


def status(client: Any, volume: str) -> str:
    return str(volume_of(client, volume)["status"])


def test_a_volume_is_promised_at_the_request_and_in_use_when_the_server_runs(
    client: Any, clock: Any, volume: str
) -> None:
    server = create(client, local(client), second(volume)).json()["server"]["id"]
    assert status(client, volume) == "reserved"
    clock.pass_by(9)
    assert status(client, volume) == "reserved"
    clock.pass_by(1)
    seen = volume_of(client, volume)
    assert (seen["status"], seen["attachments"][0]["server_id"]) == ("in-use", server)
    assert client.server(server)["os-extended-volumes:volumes_attached"] == [{"id": volume}]
    assert client.server(server)["image"]["id"] == client.configured("image", "Debian 12")
    client("DELETE", f"{SERVERS}/{server}")
    clock.pass_by(5)
    assert status(client, volume) == "available"


def test_a_volume_may_go_with_its_server(client: Any, clock: Any, volume: str) -> None:
    server = create(client, local(client), second(volume, delete_on_termination=True)).json()["server"]["id"]
    client("DELETE", f"{SERVERS}/{server}")
    clock.pass_by(5)
    assert client("GET", f"{base(client)}/volumes/{volume}").status_code == 404


def test_a_root_disk_on_a_volume_is_nova_s_and_goes_with_the_server(client: Any, clock: Any, cloud: Any) -> None:
    server = without_image(client, on_volume(client)).json()["server"]["id"]
    assert client.get(f"{base(client)}/volumes")["volumes"] == [], "it is made on the host"
    clock.pass_by(10)
    (root,) = client.get(f"{base(client)}/volumes/detail")["volumes"]
    assert (root["status"], root["size"], root["bootable"]) == ("in-use", 5, "true")
    assert (root["name"], root["description"], root["metadata"]) == ("", "", {})
    assert root["volume_image_metadata"]["image_id"] == client.configured("image", "Debian 12")
    seen = client.get(f"{SERVERS}/{server}", **{"OpenStack-API-Version": "compute 2.3"})["server"]
    assert seen["image"] == ""
    assert seen["os-extended-volumes:volumes_attached"] == [{"id": root["id"], "delete_on_termination": True}]
    refused = client("DELETE", f"{SERVERS}/{server}/os-volume_attachments/{root['id']}")
    assert refusal(refused) == "Cannot detach a root device volume"
    client("DELETE", f"{SERVERS}/{server}")
    clock.pass_by(10)
    assert cloud.log.alive("volume") == set()


def test_a_root_disk_may_stay(client: Any, clock: Any, cloud: Any) -> None:
    server = without_image(client, on_volume(client, delete_on_termination=False)).json()["server"]["id"]
    clock.pass_by(10)
    client("DELETE", f"{SERVERS}/{server}")
    clock.pass_by(10)
    (left,) = cloud.log.alive("volume")
    assert status(client, left) == "available"


def test_a_server_that_names_its_image_twice_shows_it(client: Any) -> None:
    server = create(client, on_volume(client)).json()["server"]["id"]
    assert client.server(server)["image"]["id"] == client.configured("image", "Debian 12")


def test_without_a_host_the_volume_stays_promised_until_the_server_is_gone(
    client: Any, clock: Any, cloud: Any, volume: str
) -> None:
    cloud.faults.add("no_capacity", service="compute", method="POST", path="/servers$", times=1)
    server = create(client, local(client), second(volume)).json()["server"]["id"]
    clock.pass_by(10)
    assert client.server(server)["status"] == "ERROR"
    assert status(client, volume) == "reserved"
    client("DELETE", f"{SERVERS}/{server}")
    assert status(client, volume) == "available"


def test_where_the_host_fails_the_volume_is_free_and_no_root_disk_is_left(
    client: Any, clock: Any, cloud: Any, volume: str
) -> None:
    server = create(client, on_volume(client, size=1000), second(volume)).json()["server"]["id"]
    clock.pass_by(10)
    seen = client.server(server)
    assert seen["status"] == "ERROR"
    assert "VolumeSizeExceedsAvailableQuota" in seen["fault"]["message"]
    assert status(client, volume) == "available"
    assert cloud.log.alive("volume") == {volume}
    assert not client.get(f"/network/v2.0/ports?device_id={server}")["ports"]


def test_what_nova_refuses_makes_nothing_and_promises_nothing(client: Any, cloud: Any, volume: str) -> None:
    root = on_volume(client)
    for answer, words in (
        (create(client, second(volume)), "Boot sequence for the instance"),
        (create(client, local(client), on_volume(client)), "Boot sequence for the instance"),
        (create(client, local(client), second(GONE)), f"Volume {GONE} could not be found."),
        (create(client, {**root, "volume_size": 0}), "need to have a non-zero size"),
        (create(client, {**root, "volume_size": 1}), "Volume is smaller than the minimum size"),
        (create(client, {**root, "uuid": GONE}), f"failed to get image {GONE}."),
        (create(client, {**root, "nonsense": 1}), "'nonsense' was unexpected"),
        (create(client, root, imageRef=GONE), "Can not find requested image"),
        (without_image(client), "Missing imageRef attribute"),
    ):
        assert words in refusal(answer)
    new = make(client)
    early = refusal(create(client, local(client), second(new)))
    assert "must be available or downloading to reserve, but the current status is creating." in early
    many = create(client, local(client), second(volume), flavorRef=client.configured("flavor", "a1.pinned"))
    assert many.status_code == 403, "the quota of cores"
    assert status(client, volume) == "available"
    assert cloud.log.alive("server") == set()


def test_a_volume_is_in_one_server(client: Any, clock: Any, volume: str) -> None:
    first = create(client, local(client), second(volume)).json()["server"]["id"]
    text = refusal(create(client, local(client), second(volume)))
    assert "must be available or downloading to reserve, but the current status is reserved." in text
    clock.pass_by(10)
    other = client.create("other")
    clock.pass_by(10)
    assert refusal(attach(client, other, volume)).endswith(f"is already attached to instances: {first}")


def test_an_image_of_a_server_on_a_volume_is_snapshots_that_stay(client: Any, clock: Any, cloud: Any) -> None:
    server = without_image(client, on_volume(client)).json()["server"]["id"]
    clock.pass_by(10)
    answer = client.act(server, "createImage", {"name": "saved", "metadata": {"mine": "1"}})
    image = client.get(f"/image/v2/images/{answer.headers['Location'].rpartition('/')[2]}")
    assert (image["status"], image["size"], image["base_image_ref"]) == ("active", 0, "")
    (snapshot,) = client.get(f"{base(client)}/snapshots/detail")["snapshots"]
    assert (snapshot["name"], snapshot["metadata"]) == ("snapshot for saved", {})
    (device,) = json.loads(image["block_device_mapping"])
    assert device["snapshot_id"] == snapshot["id"]
    assert client.act(server, "shelve").status_code == 202
    clock.pass_by(10)
    assert [one["name"] for one in client.get("/image/v2/images?visibility=private")["images"]] == ["saved"]
    client("DELETE", f"{SERVERS}/{server}")
    client("DELETE", f"/image/v2/images/{image['id']}")
    clock.pass_by(10)
    assert cloud.log.alive("volume_snapshot") == {snapshot["id"]}
    assert cloud.log.alive("volume") == {snapshot["volume_id"]}


def test_volumes_are_found_by_their_metadata(client: Any) -> None:
    ours = make(client, metadata={"leeway:lease": "1", "more": "2"})
    make(client, metadata={"leeway:lease": "2"})
    path = f"{base(client)}/volumes/detail?metadata="
    assert [one["id"] for one in client.get(path + "{'leeway:lease':'1'}")["volumes"]] == [ours]
    for nothing in ("{'leeway:lease':'3'}", "nonsense"):
        assert client.get(path + nothing)["volumes"] == []


def test_there_is_one_type(client: Any) -> None:
    (only,) = client.get(f"{base(client)}/types")["volume_types"]
    for wanted in (only["id"], only["name"]):
        assert volume_of(client, make(client, volume_type=wanted))["volume_type"] == only["name"]
    for wanted, words in (("fast", "with name fast"), (GONE, f"type {GONE}")):
        body = {"volume": {"size": 1, "volume_type": wanted}}
        answer = client("POST", f"{base(client)}/volumes", body)
        assert answer.status_code == 404
        assert words in answer.json()["itemNotFound"]["message"]
