"""What Leeway's rows say at the end, as plain values: the counting compares them with the clouds' logs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Session

from accounting.ledger import verify
from accounting.models.charges import Charge
from accounting.models.grants import MoneyHold
from accounting.models.ledger import Entry, Posting
from broker.models.audit import Event, Finding
from broker.models.federation import Site
from broker.models.holds import QuotaHold
from broker.models.leases import LaunchAttempt, Lease, LeaseState, Part
from broker.models.messages import Message
from broker.models.workloads import Order, OrderState
from broker.remote import PartKind


@dataclass(frozen=True, slots=True)
class PartRow:
    """A part that was made."""

    kind: PartKind
    remote_id: str
    gone_at: datetime | None


@dataclass(frozen=True, slots=True)
class LeaseRow:
    """A lease. `starts_by`: its end date had it never run; `ends_at`: the one it has.

    `lapsed_at`: when its grace was over and a snapshot was to be taken. `failure`: the site could not give it. `keep`:
    how long a snapshot is kept, None: not at all. `gave_up`: its project was told why there is no snapshot.
    """

    id: UUID
    order_id: UUID
    member: int
    site: str
    gone_at: datetime | None
    settled_at: datetime | None
    parts: tuple[PartRow, ...] = ()
    starts_by: datetime | None = None
    ends_at: datetime | None = None
    lapsed_at: datetime | None = None
    failure: str | None = None
    keep: timedelta | None = None
    gave_up: bool = False

    @property
    def machine(self) -> str | None:
        """The remote id of its server."""
        return self.part(PartKind.SERVER)

    def part(self, kind: PartKind) -> str | None:
        """The remote id of its part of a kind."""
        return next((part.remote_id for part in self.parts if part.kind is kind), None)


@dataclass(frozen=True, slots=True)
class ChargeRow:
    """A charge: of what lease and machine, for what over [start, end), at what price and share."""

    lease_id: UUID
    resource: str
    sku: str
    state: LeaseState
    share: Decimal
    start: datetime
    end: datetime
    cost: Decimal
    entry: str
    is_estimated: bool = False


@dataclass(frozen=True, slots=True)
class HoldRow:
    """Money of an order, or quota of a lease, that is still set aside."""

    what: str
    order_id: UUID
    lease_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class FindingRow:
    """An open finding."""

    kind: str
    key: str
    text: str
    lease_id: UUID | None = None
    site: str | None = None


@dataclass(frozen=True, slots=True)
class Rows:
    """All of it, of one moment."""

    orders: dict[UUID, OrderState]
    leases: Sequence[LeaseRow]
    charges: Sequence[ChargeRow]
    holds: Sequence[HoldRow]
    findings: Sequence[FindingRow]
    differences: Sequence[str] = ()
    posted: dict[str, Decimal] = field(default_factory=dict)  # by entry: what was posted to whoever pays


def read_rows(session: Session) -> Rows:
    """One consistent reading, in a transaction of its own."""
    session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
    sites = dict(session.execute(sa.select(Site.id, Site.name)).all())
    return Rows(
        orders=dict(session.execute(sa.select(Order.id, Order.state)).all()),
        leases=_leases(session, sites),
        charges=_charges(session),
        holds=_holds(session),
        findings=open_findings(session),
        differences=[f"{row.what}: {row.key} {row.kept} {row.summed}" for row in verify(session)],
        posted=dict(
            session.execute(
                sa.select(Entry.key, sa.func.sum(Posting.amount))
                .join(Posting, Posting.entry_id == Entry.id)
                .where(Posting.amount > 0)
                .group_by(Entry.key)
            ).all()
        ),
    )


def open_findings(session: Session) -> list[FindingRow]:
    """What a person should look at now."""
    rows = session.execute(
        sa.select(Finding, Site.name)
        .join(Site, Site.id == Finding.site_id, isouter=True)
        .where(Finding.resolved_at.is_(None))
        .order_by(Finding.first_seen_at)
    ).all()
    return [FindingRow(row.kind, row.key, row.text, row.lease_id, site) for row, site in rows]


def _leases(session: Session, sites: dict[UUID, str]) -> list[LeaseRow]:
    parts: dict[UUID, list[PartRow]] = {}
    for part in session.scalars(sa.select(Part).where(Part.remote_id.is_not(None)).order_by(Part.position)):
        assert part.remote_id is not None
        parts.setdefault(part.lease_id, []).append(PartRow(part.kind, part.remote_id, part.gone_at))
    durations = dict(session.execute(sa.select(Order.id, Order.duration)).all())
    told = set(session.scalars(sa.select(Message.key).where(Message.kind == "snapshot_lost")))
    return [
        LeaseRow(
            row.id,
            row.order_id,
            row.member,
            sites[row.site_id],
            row.gone_at,
            row.settled_at,
            tuple(parts.get(row.id, ())),
            starts_by=row.made_at + durations[row.order_id],
            ends_at=row.ends_at,
            lapsed_at=row.lapsed_at,
            failure=row.failure,
            keep=row.keep,
            gave_up=f"snapshot_lost:{row.id}" in told,
        )
        for row in session.scalars(sa.select(Lease).order_by(Lease.id))
    ]


def _charges(session: Session) -> list[ChargeRow]:
    rows = session.execute(sa.select(Charge, Entry.key).join(Entry, Entry.id == Charge.entry_id)).all()
    return [
        ChargeRow(
            lease_id=charge.lease_id,
            resource=charge.resource_id,
            sku=charge.sku_id,
            state=LeaseState(charge.x_machine_state),
            share=charge.x_share,
            start=charge.charge_period_start,
            end=charge.charge_period_end,
            cost=charge.billed_cost,
            entry=key,
            is_estimated=charge.x_estimated,
        )
        for charge, key in rows
    ]


def _holds(session: Session) -> list[HoldRow]:
    money = session.scalars(sa.select(MoneyHold.order_id).where(MoneyHold.released_at.is_(None)))
    quota = session.execute(
        sa.select(Lease.order_id, Lease.id)
        .join(QuotaHold, QuotaHold.lease_id == Lease.id)
        .where(QuotaHold.released_at.is_(None))
        .distinct()
    )
    return [HoldRow("money", order_id) for order_id in money] + [HoldRow("quota", *row) for row in quota]


def story(session: Session, lease_id: UUID) -> list[str]:
    """All that a developer needs to know of a lease, a line each."""
    lease = session.get(Lease, lease_id)
    if lease is None:
        return [f"there is no lease {lease_id}"]
    lines = [f"lease {_columns(lease)}", f"order {_columns(session.get_one(Order, lease.order_id))}"]
    for model, order in ((Part, Part.position), (LaunchAttempt, LaunchAttempt.started_at)):
        rows = session.scalars(sa.select(model).where(model.lease_id == lease_id).order_by(order))
        lines += [f"{model.__tablename__} {_columns(row)}" for row in rows]
    events = session.scalars(sa.select(Event).where(Event.lease_id == lease_id).order_by(Event.at))
    return lines + [f"{row.at:%H:%M:%S.%f} {row.kind}: {row.text}" for row in events]


def _columns(row: Any) -> str:
    shown = {name: getattr(row, name) for name in row.__table__.columns.keys() if name not in ("spec", "id")}  # noqa: SIM118 - a collection of columns
    return " ".join(f"{name}={_short(value)}" for name, value in shown.items() if value not in (None, [], {}))


def _short(value: object) -> str:
    return f"{value:%H:%M:%S.%f}" if isinstance(value, datetime) else str(value)
