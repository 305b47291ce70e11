"""Who may do what. The refusals are those of a real OpenStack (Zed, new role defaults), word for word."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from adapters.sandbox import SandboxCloud, running
from adapters.sandbox.config import CloudConfig, UserConfig
from adapters.sandbox.profiles import DEMO_PASSWORD
from tests.unit.sandbox.wire_client import PUBLIC_KEY, Client, Clock, password

NOVA, NEUTRON, GLANCE = "/compute/v2.1", "/network/v2.0", "/image/v2"


@pytest.fixture(scope="module")
def running_cloud(config: CloudConfig, clock: Clock) -> Iterator[SandboxCloud]:
    """With rita, who only reads in one project and is a member of another."""
    rita = UserConfig(name="rita", password=DEMO_PASSWORD, projects=("physics",), reader_of=("leeway",))
    with running(dataclasses.replace(config, users=(*config.users, rita)), clock=clock) as cloud:
        yield cloud


@pytest.fixture
def reader(new_client: Callable[..., Client]) -> Client:
    return new_client(user="rita")


def _roles(document: Any) -> list[str]:
    return [role["name"] for role in document["roles"]]


def _credential(client: Client, *roles: str) -> Any:
    wanted = {"name": "c", **({"roles": [{"name": role} for role in roles]} if roles else {})}
    path = f"/v3/users/{client.user_id}/application_credentials"
    return client("POST", path, {"application_credential": wanted})


def _log_in_with(client: Client, made: Any) -> Any:
    credential = made.json()["application_credential"]
    identity = {"id": credential["id"], "secret": credential["secret"]}
    return client.log_in({"methods": ["application_credential"], "application_credential": identity})


# --- tokens ------------------------------------------------------------------------------------------------------


def test_a_token_says_the_roles_in_its_project(reader: Client) -> None:
    assert _roles(reader.log_in(password("rita"), "leeway").json()["token"]) == ["reader"]
    assert _roles(reader.log_in(password("rita"), "physics").json()["token"]) == ["member", "reader"]
    assert "roles" not in reader.log_in(password("rita")).json()["token"]
    assert {project["name"] for project in reader.get("/v3/auth/projects")["projects"]} == {"leeway", "physics"}


@pytest.mark.parametrize("roles", [("reader",), ("member",), ("member", "reader"), ()])
def test_an_application_credential_carries_the_roles_it_was_made_with(client: Client, roles: tuple[str, ...]) -> None:
    made = _credential(client, *roles)
    wanted = list(roles) or ["member", "reader"]
    assert _roles(made.json()["application_credential"]) == wanted
    assert _roles(_log_in_with(client, made).json()["token"]) == wanted


def test_nobody_hands_on_a_role_that_he_does_not_have(reader: Client) -> None:
    refused = _credential(reader, "reader", "member")
    assert (refused.status_code, refused.json()["error"]["message"]) == (
        400,
        "Invalid application credential: Cannot create an application credential with unassigned role",
    )
    unknown = _credential(reader, "nobody")
    assert (unknown.status_code, unknown.json()["error"]["message"]) == (404, "Role nobody is not defined")
    assert _roles(_log_in_with(reader, _credential(reader)).json()["token"]) == ["reader"]


def test_who_lost_a_role_loses_tokens_and_credentials_with_it(cloud: SandboxCloud, reader: Client) -> None:
    made = _credential(reader)
    elsewhere = reader.log_in(password("rita"), "physics").headers["X-Subject-Token"]
    cloud.take_roles("rita", "leeway")
    assert reader("GET", f"{NOVA}/servers").status_code == 401
    assert _log_in_with(reader, made).status_code == 404
    assert reader.log_in(password("rita"), "leeway").status_code == 401
    reader.session.headers["X-Auth-Token"] = elsewhere
    assert [project["name"] for project in reader.get("/v3/auth/projects")["projects"]] == ["physics"]


# --- a reader ----------------------------------------------------------------------------------------------------


def _message(answer: Any) -> str:
    document = answer.json()
    if set(document) == {"code", "title", "message"}:  # Glance
        return str(document["message"]).partition("<br")[0]
    (fault,) = document.values()
    return str(fault["message"])


def test_a_reader_changes_nothing_and_is_told_the_rule(client: Client, reader: Client, clock: Clock) -> None:
    server = client.create()
    clock.pass_by(20)
    port = client.create_port()["id"]
    volume_root = f"/volume/v3/{client.project_id}"
    volume = client("POST", f"{volume_root}/volumes", {"volume": {"size": 1, "name": "v"}}).json()["volume"]["id"]
    clock.pass_by(20)
    saved = client("POST", f"{volume_root}/snapshots", {"snapshot": {"volume_id": volume}}).json()["snapshot"]["id"]
    address = client("POST", f"{NEUTRON}/floatingips", {"floatingip": {"floating_network_id": client.public_id}})
    group = client("POST", f"{NEUTRON}/security-groups", {"security_group": {"name": "g"}}).json()["security_group"]
    image = client.act(server, "createImage", {"name": "i"}).headers["Location"].rpartition("/")[2]
    one, attach = f"{NOVA}/servers/{server}", {"volumeAttachment": {"volumeId": volume}}
    for method, path, body, rule in (
        ("POST", f"{NOVA}/servers", client.server_request(), "os_compute_api:servers:create"),
        ("PUT", one, {"server": {"name": "x"}}, "os_compute_api:servers:update"),
        ("DELETE", one, None, "os_compute_api:servers:delete"),
        ("POST", f"{one}/metadata", {"metadata": {"a": "b"}}, "os_compute_api:server-metadata:create"),
        ("DELETE", f"{one}/metadata/a", None, "os_compute_api:server-metadata:delete"),
        ("POST", f"{one}/os-volume_attachments", attach, "os_compute_api:os-volumes-attachments:create"),
        ("POST", f"{NEUTRON}/ports", {"port": {"network_id": client.network_id}}, "create_port"),
        ("PUT", f"{NEUTRON}/ports/{port}", {"port": {"name": "x"}}, "update_port"),
        ("DELETE", f"{NEUTRON}/ports/{port}", None, "delete_port"),
        ("POST", f"{NEUTRON}/floatingips", {"floatingip": {}}, "create_floatingip"),
        ("DELETE", f"{NEUTRON}/floatingips/{address.json()['floatingip']['id']}", None, "delete_floatingip"),
        ("POST", f"{NEUTRON}/security-groups", {"security_group": {"name": "h"}}, "create_security_group"),
        ("DELETE", f"{NEUTRON}/security-groups/{group['id']}", None, "delete_security_group"),
        ("POST", f"{NEUTRON}/security-group-rules", {"security_group_rule": {}}, "create_security_group_rule"),
        ("POST", f"{volume_root}/volumes", {"volume": {"size": 1}}, "volume:create"),
        ("PUT", f"{volume_root}/volumes/{volume}", {"volume": {"name": "x"}}, "volume:update"),
        ("DELETE", f"{volume_root}/volumes/{volume}", None, "volume:delete"),
        ("POST", f"{volume_root}/snapshots", {"snapshot": {"volume_id": volume}}, "volume:create_snapshot"),
        ("DELETE", f"{volume_root}/snapshots/{saved}", None, "volume:delete_snapshot"),
        ("DELETE", f"{GLANCE}/images/{image}", None, "delete_image"),
    ):
        answer = reader(method, path, body, Accept="application/json")
        wording = {
            NEUTRON: f"rule:{rule} is disallowed by policy",
            GLANCE: f"You are not authorized to complete {rule} action.",
        }
        wanted = next((text for root, text in wording.items() if path.startswith(root)), None)
        wanted = wanted or f"Policy doesn't allow {rule} to be performed."
        assert (answer.status_code, _message(answer)) == (403, wanted), (method, path)


@pytest.mark.parametrize(
    ("action", "argument", "rule"),
    [
        ("os-stop", None, "servers:stop"),
        ("os-start", None, "servers:start"),
        ("reboot", {"type": "SOFT"}, "servers:reboot"),
        ("resize", {"flavorRef": "x"}, "servers:resize"),
        ("confirmResize", None, "servers:confirm_resize"),
        ("revertResize", None, "servers:revert_resize"),
        ("rebuild", {"imageRef": "x"}, "servers:rebuild"),
        ("createImage", {"name": "x"}, "servers:create_image"),
        ("shelve", None, "os-shelve:shelve"),
        ("unshelve", None, "os-shelve:unshelve"),
        ("shelveOffload", None, "os-shelve:shelve_offload"),
        ("suspend", None, "os-suspend-server:suspend"),
        ("resume", None, "os-suspend-server:resume"),
        ("pause", None, "os-pause-server:pause"),
        ("lock", None, "os-lock-server:lock"),
        ("forceDelete", None, "os-deferred-delete:force"),
    ],
)
def test_a_reader_acts_on_no_server(client: Client, reader: Client, *, action: str, argument: Any, rule: str) -> None:
    answer = reader.act(client.create(), action, argument)
    assert (answer.status_code, _message(answer)) == (
        403,
        f"Policy doesn't allow os_compute_api:{rule} to be performed.",
    )


def test_what_is_not_there_is_no_matter_of_roles(reader: Client) -> None:
    nothing = "5dcc2406-d164-437b-a871-6d3559f8fdc5"
    for method, path in (
        ("DELETE", f"{NOVA}/servers/{nothing}"),
        ("DELETE", f"{NEUTRON}/ports/{nothing}"),
        ("DELETE", f"/volume/v3/{reader.project_id}/volumes/{nothing}"),
        ("DELETE", f"{GLANCE}/images/{nothing}"),
    ):
        assert reader(method, path).status_code == 404
    assert reader.act(nothing, "os-stop").status_code == 404


def test_a_key_pair_is_the_users_own(reader: Client) -> None:
    made = reader("POST", f"{NOVA}/os-keypairs", {"keypair": {"name": "k", "public_key": PUBLIC_KEY}})
    assert made.status_code == 200
    assert reader("DELETE", f"{NOVA}/os-keypairs/k").status_code == 202


def test_reading_takes_the_role_reader(client: Client) -> None:
    """A member's own login has it; an application credential of his may lack it."""
    client.use(_log_in_with(client, _credential(client, "member")))
    volume_root = f"/volume/v3/{client.project_id}"
    for path, status in (
        (f"{NOVA}/servers/detail", 403),
        (f"{NOVA}/os-quota-sets/{client.project_id}/detail", 403),
        (f"{NOVA}/flavors/detail", 200),
        (f"{NOVA}/os-keypairs", 200),
        (f"{volume_root}/volumes/detail", 403),
        (f"{volume_root}/snapshots/detail", 403),
        (f"{GLANCE}/images", 403),
        (f"{NEUTRON}/networks", 200),
    ):
        assert client("GET", path).status_code == status, path
    assert client("POST", f"{volume_root}/volumes", {"volume": {"size": 1}}).status_code == 202
