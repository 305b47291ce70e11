"""One workload through the API, from the quote to the last cent."""

from __future__ import annotations

from decimal import Decimal

from tests.api.federation import Federation


def test_from_quote_to_charge(federation: Federation) -> None:
    quote = federation.quote()
    assert [offer["offer"] for offer in quote["offers"]] == ["a1.small", "a1.medium", "a1.large"]
    assert quote["offers"][0]["total"] == {"value": "0.08", "commodity": "EUR"}
    assert quote["verdicts"][0]["rank"] == 1

    placed = federation.client.post("/api/v1/orders", json={"quote_id": quote["id"]})
    assert placed.status_code == 201, placed.text
    shown = placed.json()
    assert shown["order"]["state"] == "placed"
    assert shown["id"] == quote["workload_id"]
    assert Decimal(shown["money"]["held"]["value"]) > Decimal("0.08")
    assert shown["machines"][0]["state"] == "pending"

    running = federation.work_until("trial", machines="running")
    assert running["order"]["state"] == "active"
    assert running["machines"][0]["addresses"]
    assert {part["kind"] for part in running["machines"][0]["parts"]} >= {"port", "server"}
    assert all(attempt["outcome"] == "created" for attempt in running["machines"][0]["attempts"])

    spend = federation.client.get("/api/v1/spend", params={"project": "climate"}).json()["items"][0]
    assert Decimal(spend["grants"][0]["held"]["value"]) > 0
    assert Decimal(spend["workloads"][0]["accrued"][0]["value"]) > 0

    stopping = federation.client.post("/api/v1/workloads/trial/stop", json={"reason": "done"})
    assert stopping.status_code == 202, stopping.text
    assert stopping.json()["order"]["state"] == "stopping"
    over = federation.work_until("trial", order="over")
    assert Decimal(over["money"]["spent"]["value"]) > 0
    assert over["money"]["held"] == over["money"]["accrued"] == {"value": "0", "commodity": "EUR"}
    assert [event["kind"] for event in over["events"]][:2] == ["order", "hold"]
    assert over["events"][-1]["kind"] == "settled"
    assert federation.cloud.cloud.servers == {}
