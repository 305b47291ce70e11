"""A federation behind the API, and a worker's hands."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import func, update
from starlette.testclient import TestClient

from adapters.sandbox import SandboxCloud
from adapters.sandbox.profiles import DEMO_PASSWORD
from broker.models.federation import Site
from broker.models.leases import Lease
from web.compose import Services
from web.worker import check, observe_site, reconcile_lease

RATES = """
kind: rate-card
name: aurora-internal
provider: aurora
currency: EUR
valid_from: 2020-01-01T00:00:00Z
bills: openstack
prices:
  a1.small: {unit: hour, unit_price: "0.04"}
  a1.medium: {unit: hour, unit_price: "0.08"}
  a1.large: {unit: hour, unit_price: "0.20"}
"""
WORKLOAD: dict[str, Any] = {
    "kind": "machine",
    "name": "trial",
    "project": "climate",
    "resources": {"cores": 2, "memory": "4 GiB"},
    "image": "ubuntu-24.04",
    "duration": "2 hours",
}


@dataclass(frozen=True)
class Federation:
    """One project with a grant, one priced site that was listed; all of it made through the API."""

    client: TestClient
    services: Services
    cloud: SandboxCloud

    def quote(self, **changes: Any) -> dict[str, Any]:
        """Quote the test's workload with some keys changed."""
        answer = self.client.post("/api/v1/quotes", json={"document": WORKLOAD | changes})
        assert answer.status_code == 201, answer.text
        return dict(answer.json())

    def order(self, **changes: Any) -> dict[str, Any]:
        """Quote and order the first offer."""
        answer = self.client.post("/api/v1/orders", json={"quote_id": self.quote(**changes)["id"]})
        assert answer.status_code == 201, answer.text
        return dict(answer.json())

    def show(self, ref: str) -> dict[str, Any]:
        """The workload now."""
        answer = self.client.get(f"/api/v1/workloads/{ref}")
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def work(self, ref: str) -> dict[str, Any]:
        """One pass of a worker over each machine of a workload."""
        for machine in self.show(ref)["machines"]:
            with self.services.sessions.begin() as session:
                due = update(Lease).where(Lease.id == UUID(machine["lease_id"]))
                session.execute(due.values(next_look_at=func.clock_timestamp()))
            reconcile_lease(self.services, UUID(machine["lease_id"]))
        return self.show(ref)

    def work_until(self, ref: str, **wanted: str) -> dict[str, Any]:
        """Passes until the order (`order="over"`) or every machine (`machines="running"`) is so far."""
        deadline = time.monotonic() + 15
        while True:
            shown = self.work(ref)
            states = {machine["state"] for machine in shown["machines"] if machine["gone_at"] is None}
            if wanted.get("order") == shown["order"]["state"] or states == {wanted.get("machines")}:
                return shown
            assert time.monotonic() < deadline, (shown["order"], shown["machines"], shown["events"])
            time.sleep(0.02)


def site_document(cloud: SandboxCloud, **changes: Any) -> dict[str, Any]:
    """What POST /sites takes to connect a sandbox cloud."""
    return {
        "name": cloud.config.name,
        "provider": cloud.config.name,
        "adapter": "sandbox",
        "endpoint": cloud.auth_url,
        "region": cloud.config.region,
        "jurisdiction": "EE",
        "credential": {
            "username": "leeway",
            "password": DEMO_PASSWORD,
            "project_name": cloud.config.projects[0].name,
            "user_domain_name": "Default",
            "project_domain_name": "Default",
        },
    } | changes


def list_site(services: Services, site_id: UUID) -> None:
    """A worker's visit, due or not: the credential checked, machines, quota and offers listed."""
    check(services, site_id)
    with services.sessions.begin() as session:
        session.execute(update(Site).where(Site.id == site_id).values(next_listing_at=func.clock_timestamp()))
    observe_site(services, site_id)
