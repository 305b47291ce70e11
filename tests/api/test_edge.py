"""What every request meets around its endpoint: token, Host, size, headers, transaction, problem documents."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import sqlalchemy as sa
from fastapi import FastAPI
from sqlalchemy.orm import Session
from starlette.testclient import TestClient

from broker.database import Database
from broker.errors import tree
from broker.models.people import Project
from tests.api.federation import Federation
from tests.conftest import PostgresForTests
from web.app import make_app
from web.compose import Services
from web.endpoint import Transaction
from web.guard import MOST_BYTES
from web.pages.advice import ADVICE
from web.token import load_token

API = "/api/v1"


@pytest.fixture
def app(services: Services) -> FastAPI:
    """The application, for tests that add an endpoint to it."""
    return make_app(services)


@pytest.fixture
def broken(app: FastAPI, services: Services) -> Iterator[TestClient]:
    """A client that is answered as a program is, also where the server has a fault."""
    token = load_token(services.settings.token_file).value
    headers = {"Authorization": f"Bearer {token}"}
    with TestClient(app, "http://127.0.0.1", headers=headers, raise_server_exceptions=False) as client:
        yield client


# --- who and whence ---------------------------------------------------------------------------------------------------


def test_every_address_but_health_wants_the_token(anonymous: TestClient, services: Services) -> None:
    paths = [path for path, methods in make_app(services).openapi()["paths"].items() if "get" in methods]
    assert len(paths) > 10
    for path in [*paths, "/api/v1/openapi.json", "/api/v1/nothing", "/", "/workloads/trial", "/nothing"]:
        answer = anonymous.get(path)
        assert answer.status_code == (200 if path == f"{API}/health" else 401), path
    assert anonymous.get(f"{API}/health").json()["database"] == "ok"


@pytest.mark.parametrize("shown", ["", "Bearer", "Bearer no", "Basic {token}", "Bearer {token}x", "{token}"])
def test_a_wrong_token_is_a_problem_that_says_how(anonymous: TestClient, services: Services, shown: str) -> None:
    token = load_token(services.settings.token_file).value
    answer = anonymous.get(f"{API}/sites", headers={"Authorization": shown.format(token=token)})
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json()["code"] == "not_authenticated"
    assert "Authorization" in answer.json()["hint"]
    assert token not in answer.text


def test_the_pages_cookie_does_not_open_the_api(client: TestClient, anonymous: TestClient, services: Services) -> None:
    token = load_token(services.settings.token_file)
    del client.headers["Authorization"]
    anonymous.cookies.set("sid", token.page_key)
    assert anonymous.get("/").status_code == 200
    assert anonymous.get(f"{API}/sites").status_code == 401
    assert anonymous.post(f"{API}/workloads/x/stop", json={}).status_code == 401
    bearer = {"Authorization": f"Bearer {token.page_key}"}
    assert anonymous.get(f"{API}/sites", headers=bearer).status_code == 401


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8642", "127.0.0.1.evil.example", "", "[::2]:80", "10.0.0.1"]
)
def test_another_servers_name_is_refused(client: TestClient, host: str) -> None:
    for path in (f"{API}/health", f"{API}/sites", "/"):
        answer = client.get(path, headers={"Host": host})
        assert answer.status_code == 421, path
    assert client.get(f"{API}/sites", headers={"Host": host}).json()["code"] == "wrong_host"


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1:8642", "127.9.9.9", "[::1]:8642", "[::1]"])
def test_this_machines_own_names_are_right(client: TestClient, host: str) -> None:
    assert client.get(f"{API}/sites", headers={"Host": host}).status_code == 200


def test_every_answer_carries_the_headers(client: TestClient) -> None:
    paths = (f"{API}/sites", f"{API}/sites/nothing", "/", "/workloads/nothing", "/problems/busy", "/static/leeway.css")
    seen = set()
    for path in paths:
        headers = client.get(path).headers
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cache-Control"] == ("no-cache" if "static" in path else "no-store")
        seen.add(headers["X-Request-Id"])
    assert len(seen) == len(paths)


# --- problems --------------------------------------------------------------------------------------------------------


def test_a_problem_names_itself_and_its_request(client: TestClient) -> None:
    answer = client.get(f"{API}/sites/nothing")
    assert answer.status_code == 404
    problem = answer.json()
    assert problem["type"] == "/problems/not_found"
    assert problem["instance"] == f"{API}/sites/nothing"
    assert problem["request_id"] == answer.headers["X-Request-Id"]
    assert client.get(problem["type"]).status_code == 200


def test_an_unknown_address_and_a_wrong_method_are_problems(client: TestClient) -> None:
    assert client.get(f"{API}/nothing").json()["code"] == "not_found"
    answer = client.delete(f"{API}/sites")
    assert (answer.status_code, answer.json()["code"]) == (405, "method_not_allowed")
    assert "GET" in answer.headers["Allow"]


def test_too_much_is_refused_with_and_without_a_length(client: TestClient) -> None:
    def parts() -> Iterator[bytes]:
        for _ in range(MOST_BYTES // 1_000_000 + 2):
            yield b" " * 1_000_000

    for content in (b" " * (MOST_BYTES + 1), parts()):
        answer = client.post(f"{API}/quotes", content=content, headers={"Content-Type": "application/json"})
        assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


@pytest.mark.parametrize(
    "path", [f"{API}/workloads/%00abc", f"{API}/sites/a%00", f"{API}/workloads?name=%00", "/workloads/%00"]
)
def test_a_nul_is_no_fault_of_ours(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 422


def test_every_code_has_a_page(client: TestClient) -> None:
    codes = {kind.code for kind in tree()}
    assert codes == set(ADVICE)
    for code in codes:
        page = client.get(f"/problems/{code}")
        assert page.status_code == 200
        assert code in page.text
    assert client.get("/problems/nothing").status_code == 404


def test_a_fault_of_ours_is_told_without_its_insides(app: FastAPI, broken: TestClient) -> None:
    @app.get(f"{API}/fault")
    def fault() -> None:
        raise RuntimeError("the insides")

    answer = broken.get(f"{API}/fault")
    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    assert "insides" not in answer.text
    assert "Traceback" not in answer.text
    assert answer.json()["request_id"] == answer.headers["X-Request-Id"]
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


# --- the transaction --------------------------------------------------------------------------------------------------


def test_a_commit_that_fails_is_never_told_as_done(app: FastAPI, broken: TestClient) -> None:
    # Deferred constraints are checked at the commit and not before.
    @app.post(f"{API}/twice", status_code=201)
    def twice(session: Transaction) -> str:
        session.execute(sa.text("CREATE TEMPORARY TABLE twice (one int UNIQUE DEFERRABLE INITIALLY DEFERRED)"))
        session.execute(sa.text("INSERT INTO twice VALUES (1), (1)"))
        return "made"

    @app.post(f"{API}/broken", status_code=201)
    def broken_at_commit(session: Transaction) -> str:
        session.execute(sa.text("CREATE TEMPORARY TABLE parents (id int PRIMARY KEY)"))
        session.execute(
            sa.text("CREATE TEMPORARY TABLE children (id int REFERENCES parents DEFERRABLE INITIALLY DEFERRED)")
        )
        session.execute(sa.text("INSERT INTO children VALUES (1)"))
        return "made"

    assert broken.post(f"{API}/twice").status_code == 409
    assert broken.post(f"{API}/broken").status_code == 500


def test_an_endpoint_that_fails_leaves_nothing(app: FastAPI, broken: TestClient, services: Services) -> None:
    @app.post(f"{API}/half")
    def half(session: Transaction) -> None:
        session.execute(
            sa.text("INSERT INTO institutions (id, name, title) VALUES (gen_random_uuid(), 'half', 'half')")
        )
        raise RuntimeError

    assert broken.post(f"{API}/half").status_code == 500
    with services.sessions() as session:
        assert session.scalar(sa.text("SELECT count(*) FROM institutions")) == 0


def test_who_waits_too_long_for_a_lock_is_told_to_come_back(federation: Federation) -> None:
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with federation.services.sessions.begin() as session:
            session.execute(sa.select(Project).with_for_update()).all()
            held.set()
            done.wait(8)

    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(5)
    grant = {"project": "climate", "name": "second", "amount": "1 EUR", "ends_at": "2100-01-01T00:00:00Z"}
    answer = federation.client.post(f"{API}/grants", json=grant)
    done.set()
    holder.join()
    assert (answer.status_code, answer.json()["code"]) == (503, "busy")
    assert int(answer.headers["Retry-After"]) > 0
    assert federation.client.post(f"{API}/grants", json=grant).status_code == 201


@contextmanager
def _away(postgres: PostgresForTests, database: Database) -> Iterator[None]:
    name = sa.make_url(database.application_url).database
    with postgres.admin.connect() as connection:
        connection.exec_driver_sql(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
        connection.execute(
            sa.text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name"), {"name": name}
        )
    try:
        yield
    finally:
        with postgres.admin.connect() as connection:
            connection.exec_driver_sql(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')


def test_a_database_that_is_away_is_told_and_found_again(
    client: TestClient, anonymous: TestClient, postgres: PostgresForTests, database: Database
) -> None:
    assert client.get(f"{API}/sites").status_code == 200
    with _away(postgres, database):
        for answer in (client.get(f"{API}/sites"), anonymous.get(f"{API}/health")):
            assert (answer.status_code, answer.json()["code"]) == (503, "database_unavailable")
            assert int(answer.headers["Retry-After"]) > 0
            assert "leeway_" not in answer.text, "names of databases and roles are not for everybody"
        assert client.get("/").status_code == 503
    assert client.get(f"{API}/sites").status_code == 200


# --- the description --------------------------------------------------------------------------------------------------


def test_the_description_is_sound(client: TestClient) -> None:
    document = client.get(f"{API}/openapi.json").json()
    operations = [
        (path, method, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    assert {path for path, _, _ in operations} >= {
        f"{API}/{noun}" for noun in ("sites", "quotes", "orders", "workloads")
    }
    assert all(path.startswith(f"{API}/") for path, _, _ in operations), "pages are no part of the API"
    identifiers = [operation["operationId"] for _, _, operation in operations]
    assert len(identifiers) == len(set(identifiers))
    for path, method, operation in operations:
        assert operation["description"], (path, method)
        for name, schema in ((one, document["components"]["schemas"][one]) for one in _bodies(operation)):
            assert schema["additionalProperties"] is False, name


def _bodies(operation: dict[str, object]) -> Iterator[str]:
    """The names of the schemas of a request's body."""
    body = operation.get("requestBody")
    if isinstance(body, dict):
        schema = body["content"]["application/json"]["schema"]
        for one in schema.get("anyOf", [schema]):
            if "$ref" in one:
                yield one["$ref"].rsplit("/", 1)[-1]


def test_no_session_is_left_open(client: TestClient, services: Services) -> None:
    for path in (f"{API}/health", f"{API}/sites", f"{API}/sites/nothing", "/", "/workloads/nothing"):
        client.get(path)
    bind = services.sessions.kw["bind"]
    assert isinstance(services.sessions(), Session)
    assert bind.pool.checkedout() == 0
