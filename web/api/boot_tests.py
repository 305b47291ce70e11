"""Boot tests of a site: one now, or at intervals. What came of them is shown with the site's health."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from fastapi import APIRouter
from pydantic import ConfigDict, Field

from broker.boot_tests import (
    LEAST_INTERVAL,
    MOST_INTERVAL,
    Wanted,
    boot_plan,
    forget_plan,
    plan_boot_tests,
    start_boot_test,
)
from broker.database import database_now
from broker.sites import site_named
from web.api.schemas import Shown, Strict
from web.api.site_health import BootPlan
from web.endpoint import ACTOR, ServicesOf, Transaction

router = APIRouter(prefix="/sites", tags=["sites"])


class BootTestWanted(Strict):
    """Who pays for the machine, and what it starts from."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"project": "operations"}]})

    project: str = Field(max_length=63, description="The project whose grants pay.")
    image: str | None = Field(None, max_length=255, description="An image of the site; the smallest where not given.")


class BootPlanWanted(BootTestWanted):
    """The same at intervals."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"project": "operations", "every_seconds": 86400}]})

    every_seconds: int = Field(
        ge=int(LEAST_INTERVAL.total_seconds()),
        le=int(MOST_INTERVAL.total_seconds()),
        description="From one test to the next.",
    )


class Started(Shown):
    """The order that tests the site."""

    order_id: UUID


@router.post("/{name}/boot-tests", status_code=201, operation_id="start_boot_test")
def post_boot_test(name: str, wanted: BootTestWanted, services: ServicesOf) -> Started:
    """Order a machine to see whether it comes up; it is stopped as soon as that is known."""
    with services.sessions.begin() as session:
        site = site_named(session, name)
        ask = Wanted(wanted.project, wanted.image)
        now = database_now(session)
        test = start_boot_test(session, site, ask, services.ordering, actor=ACTOR, now=now)
        return Started(order_id=test.order_id)


@router.put("/{name}/boot-plan", operation_id="plan_boot_tests")
def put_boot_plan(name: str, wanted: BootPlanWanted, session: Transaction) -> BootPlan:
    """Test the site at intervals, the first time at once."""
    site = site_named(session, name)
    every = timedelta(seconds=wanted.every_seconds)
    ask = Wanted(wanted.project, wanted.image)
    plan_boot_tests(session, site, ask, every=every, now=database_now(session))
    return BootPlan.model_validate(boot_plan(session, site.id))


@router.delete("/{name}/boot-plan", status_code=204, operation_id="forget_boot_plan")
def delete_boot_plan(name: str, session: Transaction) -> None:
    """Test the site at intervals no more."""
    forget_plan(session, site_named(session, name))
