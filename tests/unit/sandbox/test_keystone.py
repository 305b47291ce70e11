"""Keystone as the sandbox speaks it: who gets in, for what, for how long."""

from datetime import timedelta
from typing import Any

import pytest

from tests.unit.sandbox.wire_client import password


def _credential(client: Any, **fields: Any) -> Any:
    body = {"application_credential": {"name": "leeway"} | fields}
    answer = client("POST", f"/v3/users/{client.user_id}/application_credentials", body)
    assert answer.status_code == 201, answer.text
    return answer.json()["application_credential"]


def _by_credential(made: Any) -> dict[str, Any]:
    return {
        "methods": ["application_credential"],
        "application_credential": {"id": made["id"], "secret": made["secret"]},
    }


def test_discovery_needs_no_token(client: Any) -> None:
    del client.session.headers["X-Auth-Token"]
    root = client("GET", "/")
    assert root.status_code == 300
    assert root.json()["versions"]["values"][0]["links"][0]["href"] == client.cloud.auth_url + "/"
    assert client.get("/v3")["version"]["status"] == "stable"


def test_a_token_names_user_project_roles_and_services(client: Any) -> None:
    token = client.log_in(password("alice"), "leeway").json()["token"]
    assert (token["user"]["name"], token["project"]["name"]) == ("alice", "leeway")
    assert {role["name"] for role in token["roles"]} == {"member", "reader"}
    assert {entry["type"] for entry in token["catalog"]} == {
        "identity",
        "compute",
        "image",
        "network",
        "volumev3",
    }
    assert {point["region"] for entry in token["catalog"] for point in entry["endpoints"]} == {"aurora-1"}
    assert (token["issued_at"], token["expires_at"]) == ("2026-11-21T08:00:00.000000Z", "2026-11-21T12:00:00.000000Z")
    assert client.get("/v3/auth/catalog")["catalog"] == token["catalog"]


@pytest.mark.parametrize(
    ("identity", "project"),
    [
        (password("alice", "wrong"), "leeway"),
        (password("nobody"), "leeway"),
        (password("alice"), "none"),
        (password("leeway"), "physics"),
        ({"methods": ["kerberos"], "kerberos": {}}, None),
        ({"methods": ["password"], "password": {}}, None),
        ({"methods": ["password"], "password": {"user": {"name": "alice", "password": "sandbox"}}}, None),
    ],
)
def test_all_failures_to_log_in_look_the_same(client: Any, identity: dict[str, Any], project: str | None) -> None:
    answer = client.log_in(identity, project)
    assert answer.status_code == 401
    assert answer.json() == {
        "error": {
            "code": 401,
            "message": "The request you have made requires authentication.",
            "title": "Unauthorized",
        }
    }


def test_malformed_requests_are_400(client: Any) -> None:
    bodies: list[Any] = [None, {}, {"auth": {}}]
    bodies += [{"auth": {"identity": {"methods": methods}}} for methods in ("password", ["token"])]
    for body in bodies:
        assert client("POST", "/v3/auth/tokens", body).status_code == 400


def test_scope_by_id_and_rescoping_by_token(client: Any) -> None:
    unscoped = client.log_in(password("alice"))
    assert "project" not in unscoped.json()["token"]
    client.use(unscoped)
    projects = {item["name"]: item["id"] for item in client.get("/v3/auth/projects")["projects"]}
    assert set(projects) == {"leeway", "physics"}
    identity = {"methods": ["token"], "token": {"id": unscoped.headers["X-Subject-Token"]}}
    body = {"auth": {"identity": identity, "scope": {"project": {"id": projects["physics"]}}}}
    scoped = client("POST", "/v3/auth/tokens", body)
    assert scoped.json()["token"]["project"]["name"] == "physics"
    assert client("GET", "/compute/v2.1/servers").status_code == 403  # the unscoped one opens nothing
    assert client.get(f"/v3/users/{client.user_id}/projects")["projects"]
    assert client.get(f"/v3/projects/{projects['leeway']}")["project"]["name"] == "leeway"


def test_a_token_made_by_a_token_ends_with_it_and_names_it(client: Any, clock: Any) -> None:
    first = client.log_in(password("alice"))
    clock.pass_by(3600)
    identity = {"methods": ["token"], "token": {"id": first.headers["X-Subject-Token"]}}
    second = client.log_in(identity, "physics").json()["token"]
    assert second["expires_at"] == first.json()["token"]["expires_at"]
    assert second["methods"] == ["token", "password"]
    assert second["audit_ids"][1:] == first.json()["token"]["audit_ids"]
    assert "project" not in client.log_in(identity).json()["token"]
    assert client.log_in(identity, "none").status_code == 401
    clock.pass_by(3 * 3600)
    assert client.log_in(identity, "physics").status_code == 404


@pytest.mark.parametrize(
    ("token", "words"), [("garbage", "Could not recognize Fernet token"), ("gAAAAAB", "Failed to validate token")]
)
def test_an_unknown_token_is_a_404(client: Any, token: str, words: str) -> None:
    answer = client.log_in({"methods": ["token"], "token": {"id": token}})
    assert (answer.status_code, answer.json()["error"]["message"]) == (404, words)


@pytest.mark.parametrize(
    "path", ["/compute/v2.1/servers", "/network/v2.0/ports", "/image/v2/images", "/v3/auth/projects"]
)
def test_no_service_answers_without_a_valid_token(client: Any, clock: Any, path: str) -> None:
    assert client("GET", path).status_code == 200
    clock.pass_by(timedelta(hours=4).total_seconds())
    assert client("GET", path).status_code == 401
    del client.session.headers["X-Auth-Token"]
    answer = client("GET", path)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"].startswith("Keystone uri=")


def test_tokens_are_checked_and_revoked(client: Any) -> None:
    other = client.log_in(password("alice"), "physics").headers["X-Subject-Token"]
    subject = {"X-Subject-Token": other}
    assert client.get("/v3/auth/tokens", **subject)["token"]["project"]["name"] == "physics"
    assert client("DELETE", "/v3/auth/tokens", **subject).status_code == 204
    assert client("GET", "/v3/auth/tokens", **subject).status_code == 404
    foreign = client.log_in(password("leeway")).headers["X-Subject-Token"]
    assert client("GET", "/v3/auth/tokens", **{"X-Subject-Token": foreign}).status_code == 403


def test_an_application_credential_logs_in_until_it_is_deleted(client: Any) -> None:
    made = _credential(client)
    assert made["project_id"] == client.project_id
    listed = client.get(f"/v3/users/{client.user_id}/application_credentials")["application_credentials"]
    assert [item["id"] for item in listed] == [made["id"]]
    assert "secret" not in listed[0]
    address = f"/v3/users/{client.user_id}/application_credentials/{made['id']}"
    assert client.get(address)["application_credential"] == listed[0]

    answer = client.log_in(_by_credential(made))
    token = answer.json()["token"]
    assert (token["project"]["id"], token["application_credential"]["restricted"]) == (client.project_id, True)
    assert client.log_in(_by_credential(made | {"secret": "x"})).status_code == 401
    by_name = {"name": "leeway", "user": {"id": client.user_id}, "secret": made["secret"]}
    named = client.log_in({"methods": ["application_credential"], "application_credential": by_name})
    assert named.status_code == 201

    assert client("DELETE", address).status_code == 204
    lost = client.log_in(_by_credential(made))
    assert (lost.status_code, lost.json()["error"]["message"].startswith("Could not find")) == (404, True)
    client.session.headers["X-Auth-Token"] = answer.headers["X-Subject-Token"]
    assert client("GET", "/compute/v2.1/servers").status_code == 401


def test_what_an_application_credential_may_not(client: Any, clock: Any) -> None:
    ends = clock() + timedelta(hours=1)
    made = _credential(client, expires_at=ends.isoformat(), roles=[{"name": "reader"}])
    assert [role["name"] for role in made["roles"]] == ["reader"]
    path = f"/v3/users/{client.user_id}/application_credentials"
    for fields, status in (
        ({"name": "leeway"}, 409),
        ({}, 400),
        ({"name": "x", "roles": [{"name": "admin"}]}, 400),
        ({"name": "x", "roles": "reader"}, 400),
        ({"name": "x", "expires_at": "soon"}, 400),
        ({"name": "x", "expires_at": "2020-01-01T00:00:00Z"}, 400),
    ):
        assert client("POST", path, {"application_credential": fields}).status_code == status, fields
    assert client("GET", "/v3/users/someone/application_credentials").status_code == 403
    token = client.log_in(_by_credential(made))
    assert token.json()["token"]["expires_at"] == "2026-11-21T09:00:00.000000Z"  # not later than the credential itself
    assert client.log_in(_by_credential(made), "leeway").status_code == 401  # it has its scope already
    client.use(token)
    assert client("POST", path, {"application_credential": {"name": "child"}}).status_code == 403
    rescoping = {"methods": ["token"], "token": {"id": token.headers["X-Subject-Token"]}}
    assert client.log_in(rescoping, "physics").status_code == 403
    clock.pass_by(3600)
    assert client("GET", "/compute/v2.1/servers").status_code == 401
    assert client.log_in(_by_credential(made)).status_code == 401
