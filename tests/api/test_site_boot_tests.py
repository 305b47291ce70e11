"""Boot tests through the API: ordered, judged by the clock's tick, shown with the site's health."""

from __future__ import annotations

from typing import Any

from broker.database import database_now
from tests.api.federation import Federation
from web.clock import judge_boot_tests, start_boot_tests

WANTED = {"project": "climate"}


def health(federation: Federation) -> dict[str, Any]:
    return dict(federation.client.get("/api/v1/sites/aurora/health").json())


def test_one_now(federation: Federation) -> None:
    answer = federation.client.post("/api/v1/sites/aurora/boot-tests", json=WANTED)
    assert answer.status_code == 201, answer.text
    ref = answer.json()["order_id"]
    assert federation.client.post("/api/v1/sites/aurora/boot-tests", json=WANTED).status_code == 409
    (test,) = health(federation)["boot_tests"]
    assert (test["order_id"], test["outcome"], test["ended_at"]) == (ref, "under way", None)
    assert federation.work_until(ref, machines="running")["name"] == "boot-test"
    services = federation.services
    with services.sessions.begin() as session:
        judge_boot_tests(session, services, database_now(session))
    shown = health(federation)
    (test,) = shown["boot_tests"]
    assert (test["outcome"], test["error"]) == ("ok", None)
    assert test["seconds"] >= 0
    assert "boot" in {kind["kind"] for kind in shown["kinds"]}
    assert federation.work_until(ref, order="over")["order"]["reason"].startswith("the boot test is done")


def test_at_intervals(federation: Federation) -> None:
    path = "/api/v1/sites/aurora/boot-plan"
    assert health(federation)["boot_plan"] is None
    answer = federation.client.put(path, json=WANTED | {"every_seconds": 86400, "image": "ubuntu-24.04"})
    assert answer.status_code == 200, answer.text
    assert answer.json() == health(federation)["boot_plan"]
    services = federation.services
    with services.sessions.begin() as session:
        start_boot_tests(session, services, database_now(session))
    assert len(health(federation)["boot_tests"]) == 1
    for _ in range(2):
        assert federation.client.delete(path).status_code == 204
    assert health(federation)["boot_plan"] is None


def test_what_is_asked_for_wrongly(federation: Federation) -> None:
    for path in ("boot-tests", "boot-plan"):
        send = federation.client.post if path == "boot-tests" else federation.client.put
        body = WANTED if path == "boot-tests" else WANTED | {"every_seconds": 86400}
        assert send(f"/api/v1/sites/nowhere/{path}", json=body).status_code == 404
        assert send(f"/api/v1/sites/aurora/{path}", json=body | {"project": "nobody"}).status_code == 404
        assert send(f"/api/v1/sites/aurora/{path}", json={}).status_code == 422
    assert (
        federation.client.put("/api/v1/sites/aurora/boot-plan", json=WANTED | {"every_seconds": 60}).status_code == 422
    )
    answer = federation.client.post("/api/v1/sites/aurora/boot-tests", json=WANTED | {"image": "windows-3.11"})
    assert (answer.status_code, answer.json()["code"]) == (422, "no_offer"), answer.text
    assert "image" in answer.json()["detail"]
