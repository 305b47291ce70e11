"""The fences of the sandbox: what keeps a second request from making a second server, and what does not."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest

from adapters.sandbox import running
from adapters.sandbox.config import CloudConfig, ServerFence
from tests.unit.sandbox.wire_client import Client, Clock

SERVERS = "/compute/v2.1/servers"
LIFE = 600.0  # seconds


@pytest.fixture
def own_clock() -> Clock:
    return Clock()


@pytest.fixture
def fenced(request: pytest.FixtureRequest, config: CloudConfig, own_clock: Clock) -> Iterator[Client]:
    """A client of a cloud with the fence that the test names."""
    changed = dataclasses.replace(config, fence=request.param, token_life_seconds=LIFE)
    with running(changed, clock=own_clock) as cloud:
        client = Client(cloud)
        yield client
        client.session.close()


def ask(client: Client, body: Any, **headers: str) -> tuple[int, str]:
    """Status, and the server's id or the refusal's words."""
    answer = client("POST", SERVERS, body, **headers)
    document = answer.json()
    return answer.status_code, document["server"]["id"] if answer.ok else next(iter(document.values()))["message"]


@pytest.mark.parametrize("fenced", [ServerFence.PART, ServerFence.NONE], indirect=True)
def test_without_a_port_nothing_keeps_a_second_server_from_being_made(fenced: Client) -> None:
    body = fenced.server_request("twin")
    answers = [ask(fenced, body, **{"Client-Token": "t"}) for _ in range(2)]
    assert [status for status, _ in answers] == [202, 202]
    assert fenced.cloud.log.most_at_once("server") == 2


@pytest.mark.parametrize("fenced", [ServerFence.NAME], indirect=True)
def test_a_taken_name_is_refused_as_long_as_its_server_exists(fenced: Client, own_clock: Clock) -> None:
    fenced.cloud.faults.add("hidden", method="POST", path="/servers$", times=1, seconds=60)
    fenced.cloud.faults.add("no_capacity", method="POST", path="/servers$", times=1)
    body = fenced.server_request("one")
    status, first = ask(fenced, body)
    assert status == 202
    refused = (409, "Instance one already exists.")
    assert fenced.get(SERVERS)["servers"] == [], "it is hidden"
    assert ask(fenced, body) == refused
    own_clock.pass_by(60)
    assert fenced.server(first)["status"] == "ERROR"
    assert ask(fenced, body) == refused
    assert ask(fenced, fenced.server_request("two"))[0] == 202
    fenced("DELETE", f"{SERVERS}/{first}")
    assert ask(fenced, body)[0] == 202


@pytest.mark.parametrize("fenced", [ServerFence.NAME], indirect=True)
def test_a_name_is_taken_while_its_server_is_deleted_and_only_in_its_project(fenced: Client, own_clock: Clock) -> None:
    body = fenced.server_request("one")
    _, first = ask(fenced, body)
    own_clock.pass_by(10)
    fenced("DELETE", f"{SERVERS}/{first}")
    assert ask(fenced, body)[0] == 409
    other = Client(fenced.cloud, project="physics")
    physics = {"networks": [{"uuid": other.configured("network", "physics-net")}]}
    assert ask(other, other.server_request("one", **physics))[0] == 202
    other.session.close()
    own_clock.pass_by(5)
    assert ask(fenced, body)[0] == 202


@pytest.mark.parametrize("fenced", [ServerFence.NAME], indirect=True)
def test_a_taken_name_is_said_before_a_full_quota(fenced: Client) -> None:
    for number in range(4):
        assert ask(fenced, fenced.server_request(f"m{number}"))[0] == 202
    assert ask(fenced, fenced.server_request("m0"))[0] == 409
    assert ask(fenced, fenced.server_request("m4"))[0] == 403


@pytest.mark.parametrize("fenced", [ServerFence.TOKEN], indirect=True)
def test_a_token_gives_the_first_answer_again_for_its_life(fenced: Client, own_clock: Clock) -> None:
    body = fenced.server_request("one")
    token = {"Client-Token": "7c1f"}
    status, first = ask(fenced, body, **token)
    assert status == 202
    own_clock.pass_by(LIFE - 1)
    assert ask(fenced, body, **token) == (202, first)
    assert len(fenced.cloud.log.entries(kind="server", event="created")) == 1
    fenced("DELETE", f"{SERVERS}/{first}")
    assert ask(fenced, body, **token) == (202, first), "whatever became of it"
    own_clock.pass_by(5)
    status, second = ask(fenced, body, **token)
    assert status == 202
    assert second != first
    assert len(fenced.cloud.log.entries(kind="server", event="created")) == 2


@pytest.mark.parametrize("fenced", [ServerFence.TOKEN], indirect=True)
def test_a_token_with_another_body_is_refused(fenced: Client) -> None:
    token = {"Client-Token": "7c1f"}
    ask(fenced, fenced.server_request("one", metadata={"attempt": "1"}), **token)
    status, words = ask(fenced, fenced.server_request("one", metadata={"attempt": "2"}), **token)
    assert (status, "client token" in words) == (409, True)
    assert ask(fenced, fenced.server_request("one", metadata={"attempt": "2"}), **{"Client-Token": "8"})[0] == 202
    assert ask(fenced, fenced.server_request("one", metadata={"attempt": "2"}))[0] == 202


@pytest.mark.parametrize("fenced", [ServerFence.TOKEN], indirect=True)
def test_a_refused_request_leaves_its_token_free(fenced: Client) -> None:
    token = {"Client-Token": "7c1f"}
    fenced.cloud.faults.add("quota", method="POST", path="/servers$", times=1)
    assert ask(fenced, fenced.server_request("one"), **token)[0] == 403
    fenced.cloud.faults.add("no_capacity", method="POST", path="/servers$", times=1)
    status, first = ask(fenced, fenced.server_request("other"), **token)
    assert status == 202
    assert ask(fenced, fenced.server_request("other"), **token) == (202, first), "also where the first one fails"


@pytest.mark.parametrize("fenced", [ServerFence.TOKEN], indirect=True)
def test_a_reset_forgets_the_tokens(fenced: Client) -> None:
    token = {"Client-Token": "7c1f"}
    first = ask(fenced, fenced.server_request("one"), **token)
    fenced.cloud.reset(keep_identity=True)
    assert ask(fenced, fenced.server_request("one"), **token) != first
