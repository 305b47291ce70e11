"""Whom messages about a project go to: given with it, changed later, and never anything but addresses."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.testclient import TestClient

HOME = {"name": "home", "jurisdiction": "EE"}


def make(client: TestClient, **more: Any) -> Any:
    return client.post("/api/v1/projects", json={"name": "climate", "institution": HOME} | more)


def change(client: TestClient, **wanted: Any) -> Any:
    return client.post("/api/v1/projects/climate/contacts", json=wanted)


def test_contacts_are_given_with_the_project_and_changed_later(client: TestClient) -> None:
    made = make(client, contacts=["pi@example.org", "PI@example.org"])
    assert made.status_code == 201
    assert made.json()["contacts"] == ["pi@example.org"], "one address is kept once"
    assert change(client, add=["b@example.org", "c@example.org"]).json()["contacts"] == [
        "pi@example.org",
        "b@example.org",
        "c@example.org",
    ]
    changed = change(client, remove=["B@example.org", "pi@example.org"], add=["b@example.net"])
    assert changed.status_code == 200
    assert changed.json()["contacts"] == ["c@example.org", "b@example.net"]
    assert client.get("/api/v1/projects").json()["items"][0]["contacts"] == ["c@example.org", "b@example.net"]
    assert change(client).json()["contacts"] == ["c@example.org", "b@example.net"], "nothing wanted, nothing changed"


@pytest.mark.parametrize("address", ["pi", "pi@example.org\r\nBcc: x@y.org", "a@b.org,c@d.org", "PI <pi@example.org>"])
def test_what_is_no_address_is_refused_and_nothing_is_kept(client: TestClient, address: str) -> None:
    refused = make(client, contacts=["fine@example.org", address])
    assert (refused.status_code, refused.json()["field"]) == (422, "contacts.1")
    assert "pi@example.org" in refused.json()["hint"]
    assert make(client).json()["contacts"] == []
    refused = change(client, add=["fine@example.org", address])
    assert (refused.status_code, refused.json()["field"]) == (422, "add.1")
    assert change(client).json()["contacts"] == []


def test_too_many_contacts_are_refused(client: TestClient) -> None:
    assert make(client, contacts=[f"{n}@example.org" for n in range(21)]).status_code == 422
    assert make(client, contacts=[f"{n}@example.org" for n in range(20)]).status_code == 201
    refused = change(client, add=["one-more@example.org"])
    assert (refused.status_code, refused.json()["field"]) == (422, "add")
    assert "mailing list" in refused.json()["hint"]
    assert change(client, add=["one-more@example.org"], remove=["0@example.org"]).status_code == 200


def test_who_is_no_contact_cannot_be_removed_and_the_answer_says_who_is(client: TestClient) -> None:
    make(client, contacts=["pi@example.org"])
    refused = change(client, remove=["ip@example.org"])
    assert (refused.status_code, refused.json()["field"]) == (422, "remove.0")
    assert "pi@example.org" in refused.json()["hint"]


def test_an_unknown_project_is_not_found(client: TestClient) -> None:
    make(client)
    missing = client.post("/api/v1/projects/climat/contacts", json={})
    assert missing.status_code == 404
    assert "climate" in missing.json()["hint"]
