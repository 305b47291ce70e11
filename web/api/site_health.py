"""How well a site answers: now, and per hour."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import Field

from broker.boot_tests import boot_plan, boot_tests
from broker.database import database_now
from broker.health import history, site_health
from broker.models.health import ProbeKind
from broker.sites import site_named
from web.api.schemas import Shown, Strict
from web.endpoint import ServicesOf, Transaction

router = APIRouter(prefix="/sites", tags=["sites"])


class HealthQuery(Strict):
    """How far back the history goes."""

    hours: int = Field(24, ge=1, le=720, description="Hours of history; contacts are kept for 30 days.")


class KindHealth(Shown):
    """One kind of contact over the last hour. `share`: of failures, weighted, 0 to 1. `error`: code of the last one."""

    kind: ProbeKind
    state: str
    share: float
    contacts: int
    failures: int
    last_at: datetime
    ok_at: datetime | None
    error: str | None


class HourOfContacts(Shown):
    """All contacts of one kind in the hour that begins at `at`. Milliseconds, of good and bad contacts alike."""

    at: datetime
    kind: ProbeKind
    contacts: int
    failures: int
    latency_mean_ms: int
    latency_max_ms: int


class BootTest(Shown):
    """`outcome`: under way, ok, failed or stopped. `seconds`: from the order until the machine ran."""

    order_id: UUID
    began_at: datetime
    ended_at: datetime | None
    outcome: str
    seconds: float | None
    error: str | None


class BootPlan(Shown):
    """Boot tests at intervals. `trouble`: why the last one could not be ordered."""

    project: str
    image: str | None
    every_seconds: int
    next_at: datetime
    trouble: str | None


class SiteHealth(Shown):
    """`state`: unknown, healthy, shaky or failing; `reason` says why it is one of the last two.

    `boot_tests`: the newest ten, the newest first. `boot_plan`: null where there are none at intervals.
    """

    state: str
    reason: str | None
    kinds: list[KindHealth]
    hours: list[HourOfContacts]
    boot_tests: list[BootTest]
    boot_plan: BootPlan | None


@router.get("/{name}/health", operation_id="show_site_health")
def get_health(
    name: str, session: Transaction, services: ServicesOf, query: Annotated[HealthQuery, Query()]
) -> SiteHealth:
    """What the contacts of the last hour say, the worst kind first, and the history, the newest hour first."""
    site, now = site_named(session, name), database_now(session)
    plan = boot_plan(session, site.id)
    health = site_health(session, site.id, now=now, half_life=services.settings.health_half_life)
    return SiteHealth(
        state=health.state.name.lower(),
        reason=health.reason,
        kinds=[
            KindHealth(
                kind=one.kind,
                state=one.state.name.lower(),
                share=round(one.share, 4),
                contacts=one.contacts,
                failures=one.failures,
                last_at=one.last_at,
                ok_at=one.ok_at,
                error=one.error,
            )
            for one in health.kinds
        ],
        hours=[
            HourOfContacts.model_validate(hour)
            for hour in history(session, site.id, since=now - timedelta(hours=query.hours))
        ],
        boot_tests=[BootTest.model_validate(test) for test in boot_tests(session, site.id)],
        boot_plan=None if plan is None else BootPlan.model_validate(plan),
    )
