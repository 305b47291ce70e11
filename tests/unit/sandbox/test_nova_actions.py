"""Nova's actions: what each is answered, in which state, and what becomes of the server. Compared with a Zed."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any

import pytest

from adapters.sandbox import machines

V = "/compute/v2.1"


@pytest.fixture
def server(client: Any, clock: Any) -> str:
    """One that runs."""
    identifier: str = client.create()
    clock.pass_by(10)
    return identifier


def state(client: Any, server: str) -> tuple[str, str, str | None, int]:
    shown = client.server(server)
    return (
        shown["status"],
        shown["OS-EXT-STS:vm_state"],
        shown["OS-EXT-STS:task_state"],
        shown["OS-EXT-STS:power_state"],
    )


def refusal(answer: Any) -> tuple[int, str]:
    ((fault),) = answer.json().values()
    return answer.status_code, fault["message"]


def actions(client: Any, server: str) -> list[tuple[str, str | None]]:
    listed = client.get(f"{V}/servers/{server}/os-instance-actions")["instanceActions"]
    return [(action["action"], action["message"]) for action in listed]


# --- memory ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rest:
    """A way to rest without losing what is in memory."""

    action: str
    task: str
    there: tuple[str, str, str | None, int]
    back: str
    task_back: str


@pytest.mark.parametrize(
    "rest",
    [
        Rest("suspend", "suspending", ("SUSPENDED", "suspended", None, 4), "resume", "resuming"),
        Rest("pause", "pausing", ("PAUSED", "paused", None, 3), "unpause", "unpausing"),
    ],
    ids=lambda rest: rest.action,
)
def test_memory_is_kept_and_goes_on(client: Any, clock: Any, server: str, rest: Rest) -> None:
    refused = f"Cannot '{rest.back}' instance {server} while it is in vm_state active"
    assert refusal(client.act(server, rest.back)) == (409, refused)
    answer = client.act(server, rest.action)
    assert (answer.status_code, answer.content) == (202, b"")
    assert state(client, server) == ("ACTIVE", "active", rest.task, 1)
    assert refusal(client.act(server, rest.action))[1].endswith(f"while it is in task_state {rest.task}")
    clock.pass_by(2)
    assert state(client, server) == rest.there
    for wrong in (rest.action, "os-stop", "os-start"):
        name = wrong.removeprefix("os-")
        refused = f"Cannot '{name}' instance {server} while it is in vm_state {rest.there[1]}"
        assert refusal(client.act(server, wrong)) == (409, refused)
    assert client.act(server, rest.back).status_code == 202
    assert state(client, server)[2] == rest.task_back
    clock.pass_by(2)
    assert state(client, server) == ("ACTIVE", "active", None, 1)


def test_a_suspended_server_is_saved_shelved_and_rebooted_hard_but_not_softly(
    client: Any, clock: Any, server: str
) -> None:
    client.act(server, "suspend")
    clock.pass_by(2)
    assert client.act(server, "createImage", {"name": "disk"}).status_code == 202
    clock.pass_by(6)
    assert client.act(server, "reboot", {"type": "SOFT"}).status_code == 409
    assert client.act(server, "reboot", {"type": "HARD"}).status_code == 202
    clock.pass_by(3)
    assert state(client, server)[0] == "ACTIVE"
    client.act(server, "pause")
    clock.pass_by(2)
    assert client.act(server, "shelve").status_code == 202


# --- size --------------------------------------------------------------------------------------------------------


@pytest.fixture
def medium(client: Any) -> str:
    identifier: str = client.configured("flavor", "a1.medium")
    return identifier


def flavor(client: Any, server: str) -> str:
    identifier: str = client.server(server)["flavor"]["id"]
    return identifier


def cores(client: Any) -> int:
    used: int = client.get(f"{V}/limits")["limits"]["absolute"]["totalCoresUsed"]
    return used


def test_a_resize_waits_and_is_confirmed(client: Any, clock: Any, server: str, medium: str) -> None:
    before = flavor(client, server)
    assert client.act(server, "resize", {"flavorRef": medium}).status_code == 202
    assert state(client, server) == ("RESIZE", "active", "resize_prep", 1)
    assert (flavor(client, server), cores(client)) == (before, 2)
    clock.pass_by(5)
    assert state(client, server) == ("VERIFY_RESIZE", "resized", None, 1)
    assert (flavor(client, server), cores(client)) == (medium, 4)
    for action, argument in (("suspend", None), ("shelve", None), ("resize", {"flavorRef": before})):
        refused = f"Cannot '{action}' instance {server} while it is in vm_state resized"
        assert refusal(client.act(server, action, argument)) == (409, refused)
    answer = client.act(server, "confirmResize")
    assert (answer.status_code, answer.content) == (204, b"")
    assert state(client, server) == ("VERIFY_RESIZE", "resized", None, 1), "a confirmation shows no task"
    for again in ("confirmResize", "revertResize"):
        assert refusal(client.act(server, again)) == (400, "Instance has not been resized.")
    clock.pass_by(5)
    assert state(client, server) == ("ACTIVE", "active", None, 1)
    refused = f"Cannot 'confirmResize' instance {server} while it is in vm_state active"
    assert refusal(client.act(server, "confirmResize")) == (409, refused)
    assert actions(client, server) == [("confirmResize", None), ("resize", None), ("create", None)]


def test_a_resize_is_reverted_and_a_stopped_server_stays_stopped(
    client: Any, clock: Any, server: str, medium: str
) -> None:
    before = flavor(client, server)
    client.act(server, "os-stop")
    clock.pass_by(3)
    client.act(server, "resize", {"flavorRef": medium})
    clock.pass_by(5)
    assert state(client, server) == ("VERIFY_RESIZE", "resized", None, 4)
    assert client.act(server, "revertResize").status_code == 202
    assert state(client, server) == ("REVERT_RESIZE", "resized", "resize_reverting", 4)
    refused = f"Cannot 'confirmResize' instance {server} while it is in task_state resize_reverting"
    assert refusal(client.act(server, "confirmResize")) == (409, refused)
    clock.pass_by(5)
    assert state(client, server) == ("SHUTOFF", "stopped", None, 4)
    assert (flavor(client, server), cores(client)) == (before, 2)


def test_without_room_only_the_list_of_actions_tells(client: Any, clock: Any, cloud: Any, server: str) -> None:
    before, medium = flavor(client, server), client.configured("flavor", "a1.medium")
    cloud.faults.add("no_capacity", path="/action$", times=1)
    assert client.act(server, "resize", {"flavorRef": medium}).status_code == 202
    clock.pass_by(5)
    assert state(client, server) == ("ACTIVE", "active", None, 1)
    assert flavor(client, server) == before
    assert "fault" not in client.server(server)
    assert actions(client, server)[0] == ("resize", "Error")
    listed = client.get(f"{V}/servers/{server}/os-instance-actions")["instanceActions"][0]
    one = f"{V}/servers/{server}/os-instance-actions/{listed['request_id']}"
    assert "events" not in client.get(one)["instanceAction"]
    client.microversion = "2.51"
    events = client.get(one)["instanceAction"]["events"]
    assert {event["result"] for event in events} == {"Error"}
    assert refusal(client("GET", f"{one}x"))[0] == 404


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        (None, "None is not of type 'object'"),
        ({}, "'flavorRef' is a required property"),
        ({"flavorRef": "nope"}, "Flavor nope could not be found."),
    ],
)
def test_a_resize_of_another_form_is_refused(
    client: Any, server: str, argument: dict[str, str] | None, words: str
) -> None:
    said = refusal(client.act(server, "resize", argument))
    assert said[0] == 400
    assert words in said[1]


def test_a_resize_to_the_same_or_over_quota_is_refused(client: Any, server: str) -> None:
    same = client.act(server, "resize", {"flavorRef": flavor(client, server)})
    assert refusal(same) == (400, "When resizing, instances must change flavor!")
    pinned = client.configured("flavor", "a1.pinned")
    words = "Requested 14, 61440, but already used 2, 4096 of 10, 40960 cores, ram"
    over = client.act(server, "resize", {"flavorRef": pinned})
    assert refusal(over) == (403, f"Quota exceeded for cores, ram: {words}")
    assert actions(client, server) == [("create", None)], "what is refused is not written down"


# --- disk --------------------------------------------------------------------------------------------------------


@pytest.fixture
def debian(client: Any) -> str:
    identifier: str = client.configured("image", "Debian 12")
    return identifier


def test_a_rebuild_is_answered_with_the_server_and_a_password(
    client: Any, clock: Any, server: str, debian: str
) -> None:
    before = client.server(server)
    answer = client.act(server, "rebuild", {"imageRef": debian})
    assert answer.status_code == 202
    assert answer.headers["Location"].endswith(f"/servers/{server}")
    document = answer.json()["server"]
    assert (document["id"], document["status"], document["image"]["id"]) == (server, "REBUILD", debian)
    assert document["adminPass"]
    assert not [key for key in document if key.startswith(("OS-EXT", "OS-SRV"))]
    assert state(client, server) == ("REBUILD", "active", "rebuilding", 1)
    assert refusal(client.act(server, "rebuild", {"imageRef": debian}))[0] == 409
    clock.pass_by(6)
    after = client.server(server)
    assert after["OS-SRV-USG:launched_at"] > before["OS-SRV-USG:launched_at"]
    assert (after["created"], after["addresses"]) == (before["created"], before["addresses"])
    client.microversion = "2.79"
    newer = client.act(server, "rebuild", {"imageRef": debian}).json()["server"]
    assert newer["OS-EXT-STS:task_state"] == "rebuilding"
    assert {"user_data", "key_name", "adminPass"} <= newer.keys()


def test_a_rebuild_leaves_what_is_off_off(client: Any, clock: Any, server: str, debian: str) -> None:
    client.act(server, "os-stop")
    clock.pass_by(3)
    client.act(server, "rebuild", {"imageRef": debian})
    assert state(client, server) == ("REBUILD", "stopped", "rebuilding", 4)
    clock.pass_by(6)
    assert state(client, server) == ("SHUTOFF", "stopped", None, 4)


def test_a_rebuild_mends_an_error(client: Any, clock: Any, cloud: Any, server: str) -> None:
    debian = client.configured("image", "Debian 12")
    assert state(client, server)[0] == "ACTIVE"
    with cloud.cloud.lock:
        machines.fail(cloud.cloud, cloud.cloud.servers[server], clock(), "The disk is broken")
    assert state(client, server)[0] == "ERROR"
    assert client.act(server, "rebuild", {"imageRef": debian}).status_code == 202
    clock.pass_by(6)
    assert state(client, server)[0] == "ACTIVE"
    assert "fault" not in client.server(server)


def test_what_never_ran_is_not_rebuilt_nor_stopped(client: Any, clock: Any, cloud: Any, debian: str) -> None:
    cloud.faults.add("no_capacity", path="/servers$", times=1)
    failed = client.create("failed")
    clock.pass_by(10)
    for action, argument in (("rebuild", {"imageRef": debian}), ("os-stop", None)):
        name = action.removeprefix("os-")
        refused = f"Instance {failed} is in an invalid state for '{name}'"
        assert refusal(client.act(failed, action, argument)) == (409, refused)


def test_what_boots_from_a_volume_is_rebuilt_from_the_same_image_only(client: Any, clock: Any, debian: str) -> None:
    ubuntu = client.configured("image", "Ubuntu 24.04")
    disk = {"uuid": ubuntu, "source_type": "image", "destination_type": "volume", "volume_size": 20, "boot_index": 0}
    booted = client.create("volume", imageRef="", block_device_mapping_v2=[disk])
    clock.pass_by(20)
    reason = "Unable to rebuild with a different image for a volume-backed server."
    said = refusal(client.act(booted, "rebuild", {"imageRef": debian}))
    assert said == (400, f"Image {debian} is unacceptable: {reason}")
    assert client.act(booted, "rebuild", {"imageRef": ubuntu}).status_code == 202
    assert client.server(booted)["image"] == ""
    clock.pass_by(6)
    assert state(client, booted)[0] == "ACTIVE"


@pytest.mark.parametrize(
    ("image", "words"),
    [
        ("nope", "'nope' is not a 'uuid'"),
        ("1c05a826-fc67-4e9f-bcc6-4cf5985136fc", "Cannot find image for rebuild"),
        (None, "'imageRef' is a required property"),
    ],
)
def test_a_rebuild_from_no_image_is_refused(client: Any, server: str, image: str | None, words: str) -> None:
    said = refusal(client.act(server, "rebuild", {} if image is None else {"imageRef": image}))
    assert said[0] == 400
    assert words in said[1]
    assert state(client, server)[0] == "ACTIVE"


# --- all of them -------------------------------------------------------------------------------------------------


def test_a_lock_comes_before_the_state_and_the_form_before_both(
    client: Any, server: str, medium: str, debian: str
) -> None:
    client.act(server, "lock")
    for action, argument in (
        ("suspend", None),
        ("resume", None),
        ("pause", None),
        ("resize", {"flavorRef": medium}),
        ("rebuild", {"imageRef": debian}),
    ):
        assert refusal(client.act(server, action, argument)) == (409, f"Instance {server} is locked")
    assert refusal(client.act(server, "resize", {}))[0] == 400
    assert client.act(server, "unlock").status_code == 202
    assert client.act(server, "suspend").status_code == 202


def test_what_is_no_action_and_what_is_no_server(client: Any, server: str, medium: str) -> None:
    assert refusal(client.act(server, "dance")) == (400, "There is no such action: dance")
    bodies: list[Any] = [{}, {"suspend": None, "pause": None}, []]
    for body in bodies:
        answer = client("POST", f"{V}/servers/{server}/action", body)
        assert refusal(answer) == (400, "Malformed request body")
    unknown = str(uuid.uuid4())
    for action, argument in (("suspend", None), ("resize", {"flavorRef": medium}), ("confirmResize", None)):
        said = (404, f"Instance {unknown} could not be found.")
        assert refusal(client.act(unknown, action, argument)) == said
    assert client("GET", f"{V}/servers/{unknown}/os-instance-actions").status_code == 404


def test_the_actions_of_a_deleted_server_are_shown_from_2_21_on(client: Any, clock: Any, server: str) -> None:
    client("DELETE", f"{V}/servers/{server}")
    clock.pass_by(5)
    path = f"{V}/servers/{server}/os-instance-actions"
    assert client("GET", path).status_code == 404
    client.microversion = "2.21"
    assert [action["action"] for action in client.get(path)["instanceActions"]] == ["delete", "create"]
