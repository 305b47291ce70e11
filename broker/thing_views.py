"""What exists at a site, as people are shown it: things one by one, and sums with their price."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from sqlalchemy import case, func, select
from sqlalchemy.orm import Session

from broker.models.federation import Site
from broker.models.inventory import Thing
from broker.paging import Listed, Page, rows_of
from broker.price_lists import price_list
from broker.remote import MachineState, ThingKind
from broker.values import Amount, exact
from broker.waste import is_idle
from broker.worth import PriceList


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which things of a site are wanted; None: whichever. `owner` and `project` are the site's ids."""

    kind: ThingKind | None = None
    owner: str | None = None
    project: str | None = None
    idle: bool = False


@dataclass(frozen=True, slots=True)
class ThingView:
    """One thing that is there. `instance_type` is a name where the site still sells it; `per_hour` None: not known."""

    id: UUID
    site: str
    kind: ThingKind
    remote_id: str
    name: str
    owner: str | None
    project: str | None
    size_gib: Decimal | None
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
    per_hour: Amount | None


@dataclass(slots=True)
class Sums:
    """Things added up. `per_hour` is of those with a known price (None: of none); `unknown` counts the others."""

    count: int = 0
    idle: int = 0
    size_gib: Decimal = Decimal(0)
    per_hour: Amount | None = None
    unknown: int = 0

    def add(self, count: int, *, idle: int, size_gib: Decimal | None, per_hour: Amount | None) -> None:
        """So many more, each of this size and price."""
        self.count += count
        self.idle += idle
        self.size_gib += (size_gib or 0) * count
        if per_hour is None:
            self.unknown += count
        else:
            more = per_hour.times(count)
            self.per_hour = more if self.per_hour is None else self.per_hour + more


@dataclass(frozen=True, slots=True)
class Inventory:
    """All that is at a site, by kind, owner and project of its own (None: it does not say), as of `listed_at`."""

    site: str
    listed_at: datetime | None
    total: Sums = field(default_factory=Sums)
    kinds: dict[ThingKind, Sums] = field(default_factory=dict)
    owners: dict[str | None, Sums] = field(default_factory=dict)
    projects: dict[str | None, Sums] = field(default_factory=dict)


def inventory(session: Session, site: Site, *, now: datetime) -> Inventory:
    """The sums of a site, by the prices in force at `now`. Alike things are counted by the database."""
    prices = price_list(session, site, now=now)
    alike = (Thing.kind, Thing.owner, Thing.project, Thing.state, Thing.instance_type, Thing.size_gib)
    found = Inventory(site.name, site.listed_at)
    rows = session.execute(
        select(*alike, func.count(), func.sum(case((is_idle(), 1), else_=0)))
        .where(Thing.site_id == site.id, Thing.gone_at.is_(None))
        .group_by(*alike)
        .execution_options(yield_per=1000)
    )
    with exact():
        for kind, owner, project, state, instance_type, size_gib, count, idle in rows:
            per_hour = prices.hourly(kind, state=state, instance_type=instance_type, size_gib=size_gib)
            sums = (
                found.total,
                found.kinds.setdefault(kind, Sums()),
                found.owners.setdefault(owner, Sums()),
                found.projects.setdefault(project, Sums()),
            )
            for one in sums:
                one.add(count, idle=idle, size_gib=size_gib, per_hour=per_hour)
    return found


def list_things(session: Session, site: Site, wanted: Wanted, page: Page, *, now: datetime) -> Listed[ThingView]:
    """The things that are there, those that were first seen last first."""
    statement = select(Thing).where(Thing.site_id == site.id, Thing.gone_at.is_(None))
    if wanted.kind is not None:
        statement = statement.where(Thing.kind == wanted.kind)
    if wanted.owner is not None:
        statement = statement.where(Thing.owner == wanted.owner)
    if wanted.project is not None:
        statement = statement.where(Thing.project == wanted.project)
    if wanted.idle:
        statement = statement.where(is_idle())
    things = [row[0] for row in rows_of(session, statement, Thing.id, page)]
    return Listed.cut(_views(things, site, price_list(session, site, now=now)), page, lambda thing: thing.id)


def _last_seen(thing: Thing, site: Site) -> datetime | None:
    """By a complete listing, or by one of changes that was about it."""
    return max(filter(None, (site.listed_at, thing.first_seen_at, thing.changed_at)), default=None)


def _views(things: Iterable[Thing], site: Site, prices: PriceList) -> Sequence[ThingView]:
    return [
        ThingView(
            id=thing.id,
            site=site.name,
            kind=thing.kind,
            remote_id=thing.remote_id,
            name=thing.name,
            owner=thing.owner,
            project=thing.project,
            size_gib=thing.size_gib,
            instance_type=prices.sku(thing.instance_type) or thing.instance_type,
            state=thing.state,
            status=thing.raw_status,
            attached_to=thing.attached_to,
            created_at=thing.created_at,
            first_seen_at=thing.first_seen_at,
            changed_at=thing.changed_at,
            seen_at=_last_seen(thing, site),
            lease_id=thing.lease_id,
            installation=thing.installation,
            until=thing.until,
            per_hour=prices.hourly(
                thing.kind, state=thing.state, instance_type=thing.instance_type, size_gib=thing.size_gib
            ),
        )
        for thing in things
    ]
