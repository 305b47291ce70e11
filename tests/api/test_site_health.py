"""A site's health through the API: what was noted, what it says, and that a quote heeds it."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import func, update

from broker.errors import SiteError
from broker.models.federation import Site
from tests.api.federation import Federation
from web.clock import write_contacts
from web.worker import observe_site


def health_of(federation: Federation, query: str = "") -> dict[str, Any]:
    """As the API says it, once this process has written what it noted."""
    with federation.services.sessions.begin() as session:
        write_contacts(session, federation.services)
    answer = federation.client.get(f"/api/v1/sites/aurora/health{query}")
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def fail_listings(federation: Federation, times: int) -> None:
    site_id = UUID(federation.client.get("/api/v1/sites/aurora").json()["id"])
    federation.cloud.faults.add("500", path="/servers", times=times)
    for _ in range(times):
        with federation.services.sessions.begin() as session:
            session.execute(update(Site).values(next_listing_at=func.clock_timestamp()))
        with pytest.raises(SiteError):
            observe_site(federation.services, site_id)


def test_a_site_that_was_checked_and_listed(federation: Federation) -> None:
    shown = health_of(federation)
    assert (shown["state"], shown["reason"]) == ("healthy", None)
    assert {kind["kind"] for kind in shown["kinds"]} == {"auth", "list", "quota"}
    assert {hour["kind"] for hour in shown["hours"]} == {"auth", "list", "quota"}
    assert all(0 <= hour["latency_mean_ms"] <= hour["latency_max_ms"] for hour in shown["hours"])
    assert all(kind["failures"] == 0 and kind["error"] is None and kind["ok_at"] for kind in shown["kinds"])


def test_failures_are_told_and_keep_quotes_away(federation: Federation) -> None:
    fail_listings(federation, 6)
    shown = health_of(federation, "?hours=1")
    assert shown["state"] == "failing"
    assert shown["kinds"][0]["kind"] == "list"
    assert shown["kinds"][0]["error"] == "site_unknown"
    assert "failed (list: site_unknown)" in shown["reason"]
    (verdict,) = federation.quote()["verdicts"]
    assert verdict["rank"] is None
    assert shown["reason"] in verdict["summary"]


def test_what_is_asked_for_wrongly(federation: Federation) -> None:
    assert federation.client.get("/api/v1/sites/nowhere/health").status_code == 404
    for query in ("hours=0", "hours=721", "days=1"):
        answer = federation.client.get(f"/api/v1/sites/aurora/health?{query}")
        assert answer.status_code == 422, query
