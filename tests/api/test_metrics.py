"""What Prometheus reads: every metric, from rows, in its own format, for who shows the token."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import delete, update
from starlette.testclient import TestClient

from broker.database import database_now
from broker.models.audit import ClockSlot
from broker.models.federation import Site
from broker.models.leases import SiteListing
from broker.timeline import Concern, raise_findings
from broker.values import Amount
from tests.api.federation import Federation
from tests.api.test_site_health import fail_listings
from web.clock import write_contacts
from web.metrics import FAMILIES


def read(federation: Federation) -> dict[tuple[str, tuple[str, ...]], float]:
    """Name and values of labels -> value, as Prometheus' own parser reads it."""
    with federation.services.sessions.begin() as session:
        write_contacts(session, federation.services)
    answer = federation.client.get("/metrics")
    assert answer.status_code == 200, answer.text
    samples = [sample for family in text_string_to_metric_families(answer.text) for sample in family.samples]
    found = {
        (sample.name, tuple(sample.labels[label] for label in FAMILIES[sample.name].labels)): sample.value
        for sample in samples
    }
    assert len(found) == len(samples), "no sample twice"
    return found


def test_every_metric_is_told_and_no_other(federation: Federation) -> None:
    federation.order()
    with federation.services.sessions.begin() as session:
        now = database_now(session)
        session.add(ClockSlot(name="sweep", slot=now - timedelta(seconds=7)))
        concern = Concern(kind="idle_machine", key="1", text="x", hint="y", per_day=Amount.parse("2.40 EUR"))
        raise_findings(session, [concern], now=now)
    found = read(federation)
    assert {name for name, _ in found} == set(FAMILIES)
    assert found["leeway_site_up", ("aurora",)] == 1
    assert found["leeway_orders", ("placed",)] == 1
    assert found["leeway_orders", ("returned",)] == 0
    assert found["leeway_leases", ("aurora", "pending")] == 1
    assert found["leeway_leases", ("aurora", "running")] == 0
    assert found["leeway_leases_due", ()] == 1
    assert found["leeway_queue_waiting", ()] >= 1
    assert found["leeway_workers", ()] == 0
    assert 7 <= found["leeway_sweep_age_seconds", ()] < 60
    assert 0 <= found["leeway_site_listing_age_seconds", ("aurora",)] < 60
    assert found["leeway_site_machines", ("aurora",)] == 0
    assert found["leeway_site_contacts_total", ("aurora", "quota")] == 1
    assert found["leeway_site_contacts_total", ("aurora", "boot")] == 0
    assert found["leeway_findings", ("idle_machine",)] == 1
    assert found["leeway_observing", ()] == 0


def test_a_site_that_fails(federation: Federation) -> None:
    before = read(federation)
    fail_listings(federation, 4)
    found = read(federation)
    assert found["leeway_site_up", ("aurora",)] == 0
    assert found["leeway_site_listing_failures", ("aurora",)] == 4
    failures = ("leeway_site_contact_failures_total", ("aurora", "list"))
    assert found[failures] - before[failures] == 4
    assert found["leeway_site_failure_ratio", ("aurora", "list")] > 0
    seconds = ("leeway_site_contact_seconds_total", ("aurora", "list"))
    assert found[seconds] > before[seconds]


def test_findings_are_added_up_and_an_unknown_cost_is_no_zero(federation: Federation) -> None:
    prices: list[Any] = [Amount.parse("2.40 EUR"), Amount.parse("1 EUR"), Amount.parse("3 SEK"), None]
    concerns = [
        Concern(kind="idle_machine", key=str(number), text="x", hint="y", per_day=price)
        for number, price in enumerate(prices)
    ]
    concerns.append(Concern(kind="idle_address", key="a", text="x", hint="y"))
    with federation.services.sessions.begin() as session:
        raise_findings(session, concerns, now=database_now(session))
    found = {key: value for key, value in read(federation).items() if key[0].startswith("leeway_findings")}
    assert found == {
        ("leeway_findings", ("idle_machine",)): 4,
        ("leeway_findings", ("idle_address",)): 1,
        ("leeway_findings_cost_per_day", ("idle_machine", "EUR")): 3.4,
        ("leeway_findings_cost_per_day", ("idle_machine", "SEK")): 3,
        ("leeway_findings_cost_unknown", ("idle_machine",)): 1,
        ("leeway_findings_cost_unknown", ("idle_address",)): 1,
    }


def test_what_is_not_known_has_no_value(federation: Federation) -> None:
    with federation.services.sessions.begin() as session:
        session.execute(delete(SiteListing))
        session.execute(update(Site).values(listed_at=None))
    found = read(federation)
    assert found["leeway_site_up", ("aurora",)] == 0
    for name in ("listing_age_seconds", "listing_duration_seconds", "machines"):
        assert (f"leeway_site_{name}", ("aurora",)) not in found
    assert ("leeway_sweep_age_seconds", ()) not in found


def test_sites_that_are_switched_off_are_not_told(federation: Federation) -> None:
    with federation.services.sessions.begin() as session:
        session.execute(update(Site).values(is_enabled=False))
    assert not any("aurora" in labels for _, labels in read(federation))


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("", "text/plain; version=0.0.4"),
        ("application/openmetrics-text;version=1.0.0", "application/openmetrics-text; version=1.0.0"),
    ],
)
def test_the_format_is_what_was_asked_for(federation: Federation, accept: str, media_type: str) -> None:
    answer = federation.client.get("/metrics", headers={"Accept": accept})
    assert answer.headers["content-type"].startswith(media_type)


def test_nobody_reads_them_without_the_token(anonymous: TestClient) -> None:
    assert anonymous.get("/metrics").status_code == 401
