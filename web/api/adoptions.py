"""Adoptions: what was at a site before Leeway knew of it, charged to a project from now on."""

from __future__ import annotations

from uuid import UUID

from fastapi import APIRouter
from pydantic import AwareDatetime, ConfigDict, Field

from broker.adoption import MOST, Wish, adopt
from broker.database import database_now
from web.api.schemas import Shown, Strict
from web.api.workloads import Workload, in_detail
from web.endpoint import ACTOR, ServicesOf

router = APIRouter(prefix="/sites", tags=["inventory"])


class AdoptionWanted(Strict):
    """Which things of a site, by their ids in its inventory, which project is to pay for them, and until when."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"project": "climate", "things": ["01938e5a-7f3e-7c4a-9d2b-5a1c3e7f9b2d"]}],
        }
    )

    project: str = Field(max_length=200)
    things: list[UUID] = Field(min_length=1, max_length=MOST)
    until: AwareDatetime | None = Field(None, description="When somebody looks at it again; null: in 366 days.")


class Adopted(Shown):
    """One workload for each thing, in the order in which they were named."""

    workloads: list[Workload]


@router.post("/{name}/adoptions", status_code=201, operation_id="adopt_things")
def post_adoption(name: str, wanted: AdoptionWanted, services: ServicesOf) -> Adopted:
    """Adopt all of them or none: money is set aside, and they are charged from now on. Twice is once.

    Nothing changes at the site, now or later: stopping such a workload ends its charging and leaves the thing there.
    """
    with services.sessions.begin() as session:
        orders = adopt(
            session,
            Wish(name, wanted.project, wanted.things, wanted.until),
            services.funding,
            assumed=services.quoting.assumptions,
            actor=ACTOR,
            now=database_now(session),
        )
        order_ids = [order.id for order in orders]
    with services.sessions() as session:
        return Adopted(workloads=[in_detail(session, order_id) for order_id in order_ids])
