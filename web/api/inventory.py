"""What exists at sites, whoever made it: sums with their price, and the things one by one."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Self
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import Field, PlainSerializer

from broker.database import database_now
from broker.remote import MachineState, ThingKind
from broker.sites import site_named
from broker.thing_views import Inventory as View
from broker.thing_views import Sums, Wanted, inventory, list_things
from broker.values import plain
from web.api.schemas import Items, Money, PageQuery, Shown
from web.endpoint import Transaction

router = APIRouter(prefix="/sites", tags=["inventory"])

Number = Annotated[Decimal, PlainSerializer(plain, return_type=str)]


class Sum(Shown):
    """Things added up. `per_hour` is of those whose price is known (null: of none); `unknown` counts the others."""

    count: int
    idle: int
    size_gib: Number
    per_hour: Money | None
    unknown: int


class OfKind(Sum):
    kind: ThingKind


class OfOwner(Sum):
    """`owner` is the site's id of a user; null where the site does not say."""

    owner: str | None


class OfProject(Sum):
    """`project` is the site's id of one of its own projects; null where it does not say."""

    project: str | None


class Inventory(Shown):
    """All that the last complete listing of a site showed. `owners` and `projects`: those with most things first."""

    site: str
    listed_at: datetime | None
    total: Sum
    kinds: list[OfKind]
    owners: list[OfOwner]
    projects: list[OfProject]

    @classmethod
    def of(cls, found: View) -> Self:
        """From the read model."""

        def shown(sums: Sums, **more: object) -> dict[str, object]:
            return {name: getattr(sums, name) for name in Sum.model_fields} | more

        def by_count(sums: dict[str | None, Sums]) -> list[tuple[str | None, Sums]]:
            return sorted(sums.items(), key=lambda item: (-item[1].count, item[0] or ""))

        return cls(
            site=found.site,
            listed_at=found.listed_at,
            total=Sum.model_validate(found.total),
            kinds=[OfKind.model_validate(shown(found.kinds[kind], kind=kind)) for kind in sorted(found.kinds)],
            owners=[OfOwner.model_validate(shown(sums, owner=owner)) for owner, sums in by_count(found.owners)],
            projects=[OfProject.model_validate(shown(sums, project=one)) for one, sums in by_count(found.projects)],
        )


class Thing(Shown):
    """One thing. `changed_at`: when its status was seen to change; null: it was so when it was first seen."""

    id: UUID
    site: str
    kind: ThingKind
    remote_id: str
    name: str
    owner: str | None
    project: str | None
    size_gib: Number | None
    instance_type: str | None
    state: MachineState | None
    status: str
    attached_to: str | None
    created_at: datetime | None
    first_seen_at: datetime
    changed_at: datetime | None
    seen_at: datetime | None
    lease_id: UUID | None
    installation: UUID | None
    until: datetime | None
    per_hour: Money | None


class ThingQuery(PageQuery):
    """Which things are wanted."""

    kind: ThingKind | None = Field(None, description="Only of this kind.")
    owner: str | None = Field(None, max_length=255, description="Only this user's, by the site's id.")
    project_id: str | None = Field(None, max_length=255, description="Only of this project of the site's, by its id.")
    idle: bool = Field(default=False, description="Only what is stopped, or attached to nothing.")


@router.get("/{name}/inventory", operation_id="show_inventory")
def get_inventory(name: str, session: Transaction) -> Inventory:
    """What is at a site, by kind, owner and the site's projects, with what it costs per hour by the rate card."""
    return Inventory.of(inventory(session, site_named(session, name), now=database_now(session)))


@router.get("/{name}/things", operation_id="list_things")
def get_things(name: str, session: Transaction, query: Annotated[ThingQuery, Query()]) -> Items[Thing]:
    """The things at a site, those that were first seen last first."""
    wanted = Wanted(query.kind, query.owner, query.project_id, query.idle)
    site = site_named(session, name)
    found = list_things(session, site, wanted, query.page(), now=database_now(session))
    return Items[Thing].of([Thing.model_validate(thing) for thing in found.items], found.next)
