"""Orders and what becomes of them: repeated requests, references, lists, power, refusals, explanations."""

from __future__ import annotations

from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import update
from starlette.testclient import TestClient

from broker.database import database_now
from broker.models.workloads import Quote
from tests.api.federation import WORKLOAD, Federation, list_site, site_document
from web.compose import Services
from web.worker import check, settle_lease

API = "/api/v1"


def test_a_preview_is_the_quote_without_its_keeping(federation: Federation) -> None:
    made = federation.client.post(f"{API}/quotes?preview=true", json={"document": WORKLOAD})
    assert made.status_code == 200
    preview, quote = made.json(), federation.quote()
    for key in ("id", "workload_id", "made_at", "expires_at"):
        assert preview.pop(key) is None
        assert quote.pop(key) is not None
    assert preview == quote
    assert federation.client.get(f"{API}/workloads").json() == {"items": [], "next": None}


def test_a_stored_quote_is_shown_as_it_was_made(federation: Federation) -> None:
    quote = federation.quote()
    assert federation.client.get(f"{API}/quotes/{quote['id']}").json() == quote
    assert quote["made_at"].endswith("Z")
    lines = quote["offers"][0]["lines"]
    assert sum(Decimal(line["amount"]) for line in lines) == Decimal(quote["offers"][0]["total"]["value"])


def test_what_fits_nowhere_says_what_to_change(federation: Federation) -> None:
    quote = federation.quote(resources={"cores": 64, "memory": "1 TiB"})
    assert quote["offers"] == []
    verdict = quote["verdicts"][0]
    assert verdict["rank"] is None
    assert {reason["clause"] for reason in verdict["reasons"]} >= {"cores"}
    assert all(reason["hint"] for reason in verdict["reasons"])
    refused = federation.client.post(f"{API}/orders", json={"quote_id": quote["id"]})
    assert (refused.status_code, refused.json()["code"]) == (422, "no_offer")


def test_the_same_key_is_the_same_order(federation: Federation) -> None:
    client, quote = federation.client, federation.quote()
    body = {"quote_id": quote["id"]}
    first, again = (client.post(f"{API}/orders", json=body, headers={"Idempotency-Key": "k1"}) for _ in range(2))
    assert first.status_code == again.status_code == 201
    assert first.json()["order"]["id"] == again.json()["order"]["id"]
    assert len(client.get(f"{API}/workloads").json()["items"]) == 1
    other = client.post(f"{API}/orders", json={"quote_id": federation.quote()["id"]}, headers={"Idempotency-Key": "k1"})
    assert (other.status_code, other.json()["code"]) == (409, "conflict")
    without = client.post(f"{API}/orders", json=body)
    assert without.json()["order"]["id"] != first.json()["order"]["id"]
    assert client.post(f"{API}/orders", json=body, headers={"Idempotency-Key": ""}).status_code == 422


def test_another_rank_is_another_offer(federation: Federation) -> None:
    quote = federation.quote()
    placed = federation.client.post(f"{API}/orders", json={"quote_id": quote["id"], "rank": 2}).json()
    assert placed["offer"]["name"] == quote["offers"][1]["offer"] == "a1.medium"
    refused = federation.client.post(f"{API}/orders", json={"quote_id": quote["id"], "rank": 99})
    assert refused.json()["code"] == "no_offer"


def test_an_old_quote_is_refused(federation: Federation) -> None:
    quote = federation.quote()
    with federation.services.sessions.begin() as session:
        session.execute(update(Quote).values(expires_at=database_now(session)))
    refused = federation.client.post(f"{API}/orders", json={"quote_id": quote["id"]})
    assert (refused.status_code, refused.json()["code"]) == (409, "quote_expired")


def test_neither_money_nor_quota_is_promised_twice(federation: Federation) -> None:
    client = federation.client
    dear = federation.quote(resources={"cores": 8, "memory": "32 GiB"}, duration="366 days", count=4)
    refused = client.post(f"{API}/orders", json={"quote_id": dear["id"]})
    assert (refused.status_code, refused.json()["code"]) == (409, "grant_exhausted")
    assert refused.json()["free"] == "100"
    assert client.get(f"{API}/workloads").json()["items"] == []
    many = federation.quote(count=30)
    assert client.post(f"{API}/orders", json={"quote_id": many["id"]}).status_code == 201
    # The second quote was made before the first order took its share.
    second = federation.quote(count=10)
    third = federation.quote(count=10)
    assert client.post(f"{API}/orders", json={"quote_id": second["id"]}).status_code == 201
    late = client.post(f"{API}/orders", json={"quote_id": third["id"]})
    assert (late.status_code, late.json()["code"]) == (409, "quota_exhausted")
    assert late.json()["resource"] == "instances"


def test_a_workload_answers_to_its_ids_their_beginnings_and_its_name(federation: Federation) -> None:
    placed = federation.order()
    other = federation.order(name="other")
    order = placed["order"]["id"]
    for ref in (placed["id"], order, order.upper(), order.replace("-", ""), order[:-2], placed["id"][:-3], "trial"):
        assert federation.show(ref)["order"]["id"] == order, ref
    shared = next(number for number in range(36, 0, -1) if len({order[:number], other["order"]["id"][:number]}) == 1)
    assert shared > 8, "both were made in the same minute"
    several = federation.client.get(f"{API}/workloads/{order[:shared]}")
    assert (several.status_code, several.json()["code"]) == (409, "conflict")
    newer = federation.order()
    assert federation.show("trial")["order"]["id"] == newer["order"]["id"], "of one name, the newest is meant"


def test_lists_come_page_by_page_newest_first(federation: Federation) -> None:
    made = [federation.order(name=f"trial-{number}")["order"]["id"] for number in range(5)]
    seen: list[str] = []
    params: dict[str, Any] = {"limit": 2}
    for _ in range(3):
        page = federation.client.get(f"{API}/workloads", params=params).json()
        seen += [item["order"]["id"] for item in page["items"]]
        params["cursor"] = page["next"]
    assert params["cursor"] is None
    assert seen == made[::-1]
    assert "events" not in page["items"][0]
    assert "parts" not in page["items"][0]["machines"][0]
    for filters, count in (
        ({"name": "trial-3"}, 1),
        ({"project": "climate"}, 5),
        ({"project": "none"}, 0),
        ({"state": "placed"}, 5),
        ({"state": "over"}, 0),
    ):
        assert len(federation.client.get(f"{API}/workloads", params=filters).json()["items"]) == count, filters


def test_stopped_shelved_started_and_ended(federation: Federation) -> None:
    client = federation.client
    federation.order()
    federation.work_until("trial", machines="running")
    for path, body, state in (("stop", {"how": "stop"}, "stopped"), ("start", None, "running")):
        answer = client.post(f"{API}/workloads/trial/{path}", json=body)
        assert answer.status_code == 202, answer.text
        federation.work_until("trial", machines=state)
    assert client.post(f"{API}/workloads/trial/stop", json={"how": "shelve"}).status_code == 202
    federation.work_until("trial", machines="shelved")
    assert client.post(f"{API}/workloads/trial/start").status_code == 202
    federation.work_until("trial", machines="running")
    assert client.post(f"{API}/workloads/trial/stop").status_code == 202, "no body ends the order"
    over = federation.work_until("trial", order="over")
    assert client.post(f"{API}/workloads/trial/stop").status_code == 202, "twice is fine"
    refused = client.post(f"{API}/workloads/trial/start")
    assert (refused.status_code, refused.json()["code"]) == (409, "conflict")
    assert Decimal(over["money"]["spent"]["value"]) > 0
    spend = client.get(f"{API}/spend").json()["items"][0]
    assert spend["grants"][0]["spent"] == over["money"]["spent"]
    assert spend["workloads"][0]["charged"] == [over["money"]["spent"]]


def test_what_a_site_refused_is_in_the_explanation(federation: Federation) -> None:
    federation.cloud.faults.add("no_capacity", service="compute", method="POST", path="/servers$")
    federation.order()
    returned = federation.work_until("trial", order="returned")
    assert returned["order"]["reason"]
    explained = federation.client.get(f"{API}/workloads/trial/explanation").json()
    assert explained["order_state"] == "returned"
    assert explained["quote"]["verdicts"][0]["site"] == "aurora"
    assert [event["kind"] for event in explained["refusals"]][-1] == "returned"
    outcomes = {attempt["outcome"] for machine in returned["machines"] for attempt in machine["attempts"]}
    assert "gone" in outcomes or "created" in outcomes


def test_a_price_that_is_not_known_is_not_shown_as_nothing(
    federation: Federation, client: TestClient, services: Services
) -> None:
    federation.order()
    shown = federation.work_until("trial", machines="running")
    lease = UUID(shown["machines"][0]["lease_id"])
    # The site resizes the machine to a type that no rate card has.
    server = next(iter(federation.cloud.cloud.servers.values()))
    flavor = next(one for one in federation.cloud.cloud.flavors.values() if one.config.name == "a1.pinned")
    server.flavor = flavor
    site = client.get(f"{API}/sites/aurora").json()
    list_site(services, UUID(site["id"]))
    settle_lease(services, lease)
    assert federation.show("trial")["money"]["accrued"] is None
    assert client.get(f"{API}/spend").json()["items"][0]["workloads"][0]["accrued"] is None
    assert "not known" in client.get("/").text


def test_sites_show_quota_offers_and_the_check(federation: Federation, services: Services) -> None:
    client = federation.client
    site = client.get(f"{API}/sites").json()["items"][0]
    assert site["offers"] == 4
    assert "ubuntu-24.04" in site["images"]
    quota = {pool["resource"]: pool for pool in site["quota"]}
    assert quota["instances"] == {"resource": "instances", "limit": "40", "used": "0", "free": "40"}
    assert site["check_pending"] is False
    assert all(step["ok"] for step in site["diagnosis"])
    asked = client.post(f"{API}/sites/aurora/checks")
    assert (asked.status_code, asked.json()["check_pending"]) == (202, True)
    federation.cloud.faults.add("401", service="identity")
    check(services, UUID(site["id"]))
    checked = client.get(f"{API}/sites/aurora").json()
    assert checked["check_pending"] is False
    assert not all(step["ok"] for step in checked["diagnosis"])
    assert any(step["hint"] for step in checked["diagnosis"] if not step["ok"])
    federation.order()
    assert {pool["resource"]: pool["free"] for pool in client.get(f"{API}/sites/aurora").json()["quota"]}[
        "instances"
    ] == "39"


def test_prices_projects_grants_and_findings_are_listed(federation: Federation, services: Services) -> None:
    client = federation.client
    card = client.get(f"{API}/rate-cards").json()["items"][0]
    assert (card["provider"], card["number"], card["skus"], card["valid_to"]) == ("aurora", 1, 3, None)
    again = client.get(f"{API}/rate-cards").json()
    assert client.get(f"{API}/projects").json()["items"][0]["institution"]["jurisdiction"] == "EE"
    grant = client.get(f"{API}/grants", params={"project": "climate"}).json()["items"][0]
    assert grant["amount"] == grant["free"] == {"value": "100", "commodity": "EUR"}
    assert client.get(f"{API}/grants", params={"project": "other"}).json()["items"] == []
    federation.cloud.add_foreign_servers(1)
    site = client.get(f"{API}/sites/aurora").json()
    list_site(services, UUID(site["id"]))
    finding = client.get(f"{API}/findings").json()["items"][0]
    assert (finding["kind"], finding["site"]) == ("unknown_machine", "aurora")
    assert finding["per_day"] == {"value": "0.96", "commodity": "EUR"}, "of the card's 0.04 an hour"
    assert finding["hint"] in client.get("/").text
    csv = "sku,unit,unit_price\na1.small,hour,0.05\n"
    beside = {"name": "later", "provider": "aurora", "currency": "EUR", "bills": "openstack"}
    made = client.post(
        f"{API}/rate-cards", json={"document": csv, "format": "csv", "valid_from": "2090-01-01T00:00:00Z"} | beside
    )
    assert (made.status_code, made.json()["number"]) == (201, 2), made.text
    listed = client.get(f"{API}/rate-cards").json()["items"]
    assert [one["valid_to"] for one in listed] == [None, "2090-01-01T00:00:00Z"]
    assert again["items"][0]["id"] == listed[1]["id"]
    assert site_document(federation.cloud)["name"] == "aurora"
