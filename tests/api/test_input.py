"""Bad input to every endpoint: the answer names the field, the reason and the way out, and nothing is changed."""

from __future__ import annotations

import json
from typing import Any

import pytest
import sqlalchemy as sa
from starlette.testclient import TestClient

from adapters.sandbox import SandboxCloud
from adapters.sandbox.profiles import DEMO_PASSWORD
from tests.api.federation import RATES, WORKLOAD, Federation, site_document
from web.compose import Services

API = "/api/v1"
CSV = "sku,unit,unit_price\na1.small,hour,0.04\n"
GRANT = {"project": "climate", "name": "second", "amount": "1 EUR", "ends_at": "2100-01-01T00:00:00Z"}
PROJECT = {"name": "physics", "institution": {"name": "home"}}


def without(document: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in document.items() if name != key}


BAD: list[tuple[str, Any, str, str]] = [
    # path, body, field, words of reason or hint
    ("projects", without(PROJECT, "name"), "name", "Add name"),
    ("projects", PROJECT | {"nam": "x"}, "nam", "Did you mean name?"),
    ("projects", PROJECT | {"name": "Climate Change"}, "name", "a-z"),
    ("projects", PROJECT | {"name": 7}, "name", "is not text"),
    ("projects", PROJECT | {"institution": "home"}, "institution", "table"),
    ("projects", PROJECT | {"institution": {}}, "institution.name", "is missing"),
    (
        "projects",
        PROJECT | {"institution": {"name": "new", "jurisdiction": "Estonia"}},
        "institution.jurisdiction",
        "EE",
    ),
    (
        "projects",
        PROJECT | {"institution": {"name": "home", "jurisdiction": "NO"}},
        "institution.jurisdiction",
        "known",
    ),
    ("projects", PROJECT | {"institution": {"name": "home", "titel": "x"}}, "institution.titel", "Did you mean title?"),
    ("projects", PROJECT | {"title": "half \ud800"}, "body", "half a character"),
    ("projects", PROJECT | {"title": "nul \x00"}, "body", "NUL"),
    ("grants", GRANT | {"amount": "1"}, "amount", "12.50 EUR"),
    ("grants", GRANT | {"amount": "1e999999999 EUR"}, "amount", "too large"),
    ("grants", GRANT | {"amount": "-1 EUR"}, "amount", "not more than nothing"),
    ("grants", GRANT | {"amount": "1 euro"}, "amount", "EUR"),
    ("grants", GRANT | {"amount": 1}, "amount", "is not text"),
    ("grants", GRANT | {"ends_at": "2100-01-01T00:00:00"}, "ends_at", "timezone"),
    ("grants", GRANT | {"ends_at": "2001-01-01T00:00:00Z"}, "ends_at", "later end"),
    ("grants", GRANT | {"ends_at": "soon"}, "ends_at", "datetime"),
    ("grants", GRANT | {"name": " "}, "name", "characters"),
    ("quotes", {}, "document", "Add document"),
    ("quotes", {"document": 5}, "document.str", "is not text"),
    ("quotes", {"documents": {}}, "documents", "Did you mean document?"),
    ("quotes", {"document": json.dumps(WORKLOAD | {"nam": "x"})}, "nam", "Did you mean name?"),
    ("quotes", {"document": "a: [b"}, "workload", "YAML"),
    ("quotes", {"document": WORKLOAD | {"resources": {"cores": 2, "memory": "32"}}}, "resources.memory", "GiB"),
    ("quotes", {"document": WORKLOAD | {"resources": {"cpu": 2, "memory": "4 GiB"}}}, "resources.cpu", "cores"),
    ("quotes", {"document": WORKLOAD | {"kind": "cluster"}}, "kind", "later"),
    ("quotes", {"document": WORKLOAD | {"count": 1.5}}, "count", "exact"),
    ("orders", {"quote_id": "x"}, "quote_id", "is not an id"),
    ("orders", {"quote_id": "01938e5a-7f3e-7c4a-9d2b-5a1c3e7f9b2d", "rank": 0}, "rank", "greater than or equal to 1"),
    ("orders", {"quote": "x"}, "quote", "Did you mean quote_id?"),
    ("rate-cards", {"document": RATES}, "format", "Add format"),
    ("rate-cards", {"document": RATES, "format": "xml"}, "format", "'yaml' or 'csv'"),
    ("rate-cards", {"document": RATES, "format": "yaml", "provider": "aurora"}, "provider", "Leave it out"),
    ("rate-cards", {"document": "prices: {}", "format": "yaml"}, "name", "missing"),
    (
        "rate-cards",
        {"document": RATES + "  a1.huge: {unit: moon, unit_price: 1}", "format": "yaml"},
        "prices.a1.huge.unit",
        "moon",
    ),
    ("rate-cards", {"document": CSV, "format": "csv", "name": "a"}, "provider", "send provider"),
    ("workloads/trial/stop", {"how": "burn"}, "how", "'end', 'stop' or 'shelve'"),
    ("workloads/trial/stop", {"reson": "x"}, "reson", "Did you mean reason?"),
]


@pytest.mark.parametrize(("path", "body", "field", "words"), BAD, ids=lambda value: str(value)[:40])
def test_a_bad_body_is_told_field_by_field(
    federation: Federation, path: str, body: Any, *, field: str, words: str
) -> None:
    before = _counts(federation.services)
    content = json.dumps(body).encode()  # ASCII: half characters as their escapes
    answer = federation.client.post(f"{API}/{path}", content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422, answer.text
    problem = answer.json()
    assert problem["code"] == "invalid_input"
    assert problem["field"] == field, problem
    assert words in f"{problem['reason']} {problem['hint']}", problem
    assert _counts(federation.services) == before


def test_a_bad_site_is_told_field_by_field(federation: Federation, cloud: SandboxCloud) -> None:
    bad: list[tuple[dict[str, Any], str, str]] = [
        ({"name": "No Good"}, "name", "a-z"),
        ({"adapter": "openstak"}, "adapter", "openstack"),
        ({"endpoint": "keystone.example.org"}, "endpoint", "https://"),
        ({"jurisdiction": "Estonia"}, "jurisdiction", "match"),
        ({"credential": {"username": "x"}}, "credential", ""),
        ({"credentials": {}}, "credentials", "Did you mean credential?"),
        ({"provider": "x" * 300}, "provider", "63"),
        ({"settings": {"colour": "red"}}, "settings", ""),
    ]
    before = _counts(federation.services)
    for changes, field, words in bad:
        answer = federation.client.post(f"{API}/sites", json=site_document(cloud, **{"name": "second"} | changes))
        assert answer.status_code == 422, (changes, answer.text)
        problem = answer.json()
        assert problem["field"].startswith(field), problem
        assert words in f"{problem['reason']} {problem['hint']}", problem
    assert _counts(federation.services) == before


def test_a_site_is_only_looked_at_unless_it_is_said_otherwise(federation: Federation, cloud: SandboxCloud) -> None:
    wanted = site_document(cloud, name="second", adapter="openstack")
    for said, observed in (({}, True), ({"observe_only": False}, False), ({"observe_only": None}, False)):
        answer = federation.client.post(f"{API}/sites", json=wanted | said)
        assert answer.status_code == 201, answer.text
        assert answer.json()["observe_only"] is observed, said
    sandbox = federation.client.post(f"{API}/sites", json=site_document(cloud, name="third"))
    assert sandbox.json()["observe_only"] is False


def test_a_credential_is_never_repeated(federation: Federation, cloud: SandboxCloud) -> None:
    for credential in ({"username": "u", "password": 17171717}, {"username": "u", "pasword": "s3cr3t-value"}):
        answer = federation.client.post(f"{API}/sites", json=site_document(cloud, name="second", credential=credential))
        assert answer.status_code == 422
        assert "17171717" not in answer.text
        assert "s3cr3t" not in answer.text
    listed = federation.client.get(f"{API}/sites").text
    assert DEMO_PASSWORD not in listed.replace('"adapter":"sandbox"', "")


@pytest.mark.parametrize(
    ("path", "field", "words"),
    [
        ("sites?limit=0", "limit", "1"),
        ("sites?limit=201", "limit", "200"),
        ("sites?limit=many", "limit", "whole number"),
        ("sites?cursor=x", "cursor", "next"),
        ("sites?cursor=%C3%BC", "cursor", "next"),
        ("sites?page=2", "page", "limit, cursor"),
        ("workloads?stat=over", "stat", "Did you mean state?"),
        ("workloads?state=done", "state", "placed"),
        ("grants?projct=x", "projct", "Did you mean project?"),
        ("quotes/x", "quote_id", "an id"),
    ],
)
def test_a_bad_query_is_told(client: TestClient, path: str, field: str, words: str) -> None:
    problem = client.get(f"{API}/{path}").json()
    assert (problem["status"], problem["field"]) == (422, field), problem
    assert words in f"{problem['reason']} {problem['hint']}", problem


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"{", "application/json"),
        (b"", "application/json"),
        (b"[]", "application/json"),
        (b"null", "application/json"),
        (b"kind: machine", "application/yaml"),
        (b'{"document": "x"}', "text/plain"),
        (b"\xff\xfe", "application/json"),
    ],
)
def test_what_is_no_json_object_is_told(client: TestClient, content: bytes, kind: str) -> None:
    answer = client.post(f"{API}/quotes", content=content, headers={"Content-Type": kind})
    assert answer.status_code == 422, answer.text
    assert answer.json()["field"] in ("body", "request"), answer.text
    assert answer.json()["hint"]


def test_every_fault_of_a_body_is_listed(client: TestClient) -> None:
    problem = client.post(f"{API}/grants", json={"project": 5, "amount": None}).json()
    assert {error["field"] for error in problem["errors"]} == {"project", "name", "amount", "ends_at"}


def test_what_is_not_there_is_told_with_what_is_near(federation: Federation) -> None:
    client = federation.client
    federation.order()
    missing = {
        f"{API}/sites/auror": "aurora",
        f"{API}/workloads/trail": "Did you mean trial?",
        f"{API}/workloads/0193aaaa": "leeway ps",
        f"{API}/quotes/01938e5a-7f3e-7c4a-9d2b-5a1c3e7f9b2d": "new quote",
        f"{API}/spend?project=climat": "Did you mean climate?",
    }
    for path, words in missing.items():
        answer = client.get(path)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), path
        assert words in answer.json()["hint"], answer.text
    quote = client.post(f"{API}/quotes", json={"document": WORKLOAD | {"project": "nobody"}})
    assert quote.status_code == 404
    grant = client.post(f"{API}/grants", json=GRANT | {"project": "climat"})
    assert "climate" in grant.json()["hint"]


def test_what_is_there_already_is_a_conflict(federation: Federation, cloud: SandboxCloud) -> None:
    client = federation.client
    assert client.post(f"{API}/projects", json=PROJECT | {"name": "climate"}).status_code == 409
    elsewhere = site_document(cloud) | {"endpoint": "http://127.0.0.1:9/v3"}
    assert client.post(f"{API}/sites", json=elsewhere).status_code == 409
    assert client.post(f"{API}/grants", json=GRANT | {"name": "first"}).status_code == 409
    changed = RATES.replace("0.04", "0.05")
    assert client.post(f"{API}/rate-cards", json={"document": changed, "format": "yaml"}).status_code == 409


def _counts(services: Services) -> dict[str, int]:
    """How many rows each table has."""
    with services.sessions() as session:
        tables = session.scalars(
            sa.text("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1")
        ).all()
        return {table: session.scalar(sa.text(f'SELECT count(*) FROM "{table}"')) or 0 for table in tables}  # noqa: S608 - names from the catalogue
