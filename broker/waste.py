"""What costs and seems to be of no use: findings about things at a site that no lease of ours accounts for.

They are raised by a complete listing, and closed by the first one after their reason is gone. Nothing else ever comes
of them: things that Leeway did not make are not touched. How long a thing has been so is known from the first listing
on; what was so when it was first seen counts from when it was made, and the finding says that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ColumnElement, and_, func, or_, select, update
from sqlalchemy.orm import Session

from broker.models.audit import Finding
from broker.models.federation import Site
from broker.models.inventory import Thing
from broker.price_lists import price_list
from broker.remote import MachineState, ThingKind
from broker.things import Writing
from broker.timeline import Concern, raise_findings
from broker.tools import Tolerance
from broker.values import Amount
from broker.worth import PriceList

IDLE_MACHINE = "idle_machine"
IDLE_ADDRESS = "idle_address"
ORPHAN_VOLUME = "orphan_volume"
OLD_SNAPSHOT = "old_snapshot"
PAST_END = "past_end"
WASTE: Final = (IDLE_MACHINE, IDLE_ADDRESS, ORPHAN_VOLUME, OLD_SNAPSHOT, PAST_END)

_WORDS: Final[Mapping[ThingKind, str]] = {
    ThingKind.SERVER: "machine",
    ThingKind.VOLUME: "volume",
    ThingKind.ADDRESS: "address",
    ThingKind.SNAPSHOT: "snapshot",
    ThingKind.VOLUME_SNAPSHOT: "snapshot of a volume",
}
_HINTS: Final[Mapping[str, str]] = {
    IDLE_MACHINE: "Ask its owner: delete it, or shelve it, which keeps its disk and gives its place back.",
    IDLE_ADDRESS: "Release it at the site, if nobody waits for it.",
    ORPHAN_VOLUME: "Ask its owner: attach it, or delete it.",
    OLD_SNAPSHOT: "Ask its owner whether anybody would still start from it; else delete it.",
    PAST_END: "Another Leeway made it and wanted it gone by then: tell whoever runs that one.",
}
# Findings of one transaction.
_CHUNK = 500
# An open finding of which nothing changed is written this rarely.
_REFRESH = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Look:
    """By what things are judged: how long they may lie idle, at which moment, and which tags are our own."""

    tolerance: Tolerance
    now: datetime
    installation: UUID


def tell_waste(site_id: UUID, look: Look, *, writing: Writing) -> None:
    """Open, refresh and close a site's findings of the kinds `WASTE`, in transactions that `writing` opens."""
    with writing() as session:
        site = session.get_one(Site, site_id)
        prices = price_list(session, site, now=look.now)
        concerns = {(found.kind, found.key): found for found in _concerns(session, site_id, look, prices)}
        former = {(finding.kind, finding.key): finding for finding in _open(session, site_id)}
    due = [found for key, found in concerns.items() if key not in former or not _is_same(former[key], found)]
    for start in range(0, len(due), _CHUNK):
        with writing() as session:
            raise_findings(session, due[start : start + _CHUNK], now=look.now)
    refreshed = look.now - _REFRESH
    stale = [one.id for key, one in former.items() if key in concerns and one.last_seen_at < refreshed]
    over = [finding.id for key, finding in former.items() if key not in concerns]
    for ids, values in ((stale, {"last_seen_at": look.now}), (over, {"resolved_at": look.now})):
        for start in range(0, len(ids), _CHUNK):
            with writing() as session:
                some = Finding.id.in_(ids[start : start + _CHUNK])
                session.execute(update(Finding).where(some).values(values))


def idle_machines(session: Session, site_id: UUID) -> frozenset[str]:
    """Remote ids of the machines at a site that are told as idle."""
    keys = session.scalars(
        select(Finding.key).where(
            Finding.site_id == site_id, Finding.kind == IDLE_MACHINE, Finding.resolved_at.is_(None)
        )
    )
    return frozenset(key.split(":", 2)[2] for key in keys)


def is_idle() -> ColumnElement[bool]:
    """For SELECT and WHERE: a machine that is stopped, a volume or an address that is attached to nothing."""
    loose = and_(Thing.kind.in_((ThingKind.VOLUME, ThingKind.ADDRESS)), Thing.attached_to.is_(None))
    return or_(and_(Thing.kind == ThingKind.SERVER, Thing.state == MachineState.STOPPED), loose)


def _concerns(session: Session, site_id: UUID, look: Look, prices: PriceList) -> Iterator[Concern]:
    age = func.coalesce(Thing.created_at, Thing.first_seen_at)
    old = and_(
        Thing.kind.in_((ThingKind.SNAPSHOT, ThingKind.VOLUME_SNAPSHOT)), age < look.now - look.tolerance.snapshot
    )
    others = and_(Thing.installation != look.installation, Thing.until < look.now)
    nobodys = and_(Thing.installation.is_(None), or_(is_idle(), old))
    things = session.scalars(
        select(Thing)
        .where(Thing.site_id == site_id, Thing.gone_at.is_(None), Thing.lease_id.is_(None), or_(nobodys, others))
        .execution_options(yield_per=_CHUNK)
    )
    for thing in things:
        # What is known to cost nothing while it is stopped may stay so; an unknown price is a reason to look.
        cost = prices.hourly(thing.kind, state=thing.state, instance_type=thing.instance_type, size_gib=thing.size_gib)
        kind_and_what = _judge(thing, look, is_free=cost is not None and not cost.value)
        if kind_and_what is not None:
            kind, what = kind_and_what
            yield _concern(thing, kind, what, cost)


def _judge(thing: Thing, look: Look, *, is_free: bool) -> tuple[str, str] | None:
    """The kind of the finding and what is wrong; None where it is not long enough so, or is none."""
    since = thing.changed_at or thing.created_at or thing.first_seen_at
    tolerance = look.tolerance
    if thing.installation is not None:
        return PAST_END, f"of installation {thing.installation} was to end {_day(thing.until)}, and is still there"
    match thing.kind:
        case ThingKind.SERVER if since <= look.now - tolerance.machine and not is_free:
            return IDLE_MACHINE, f"has been stopped{_since(thing)}, and keeps its place ({thing.raw_status})"
        case ThingKind.ADDRESS:
            return IDLE_ADDRESS, f"has led to nothing{_since(thing)}"
        case ThingKind.VOLUME if since <= look.now - tolerance.volume:
            return ORPHAN_VOLUME, f"has been attached to nothing{_since(thing)} ({thing.raw_status})"
        case ThingKind.SNAPSHOT | ThingKind.VOLUME_SNAPSHOT:
            said = thing.created_at is not None
            return OLD_SNAPSHOT, f"was made {_day(thing.created_at)}" if said else f"is older than {_day(since)}"
        case _:
            return None


def _since(thing: Thing) -> str:
    if thing.changed_at is not None:
        return f" since {_day(thing.changed_at)}"
    made = f", made {_day(thing.created_at)}" if thing.created_at is not None else ""
    return f" since before {_day(thing.first_seen_at)}{made}"


def _day(moment: datetime | None) -> str:
    return "at a time that is not said" if moment is None else f"{moment:%Y-%m-%d}"


def _concern(thing: Thing, kind: str, what: str, cost: Amount | None) -> Concern:
    size = f" of {thing.size_gib.normalize():f} GiB" if thing.size_gib is not None else ""
    owner = f" of {thing.owner}" if thing.owner else ""
    return Concern(
        kind=kind,
        key=f"{thing.site_id}:{thing.kind}:{thing.remote_id}",
        text=f"{_WORDS[thing.kind]} {thing.name or thing.remote_id}{size}{owner} {what}",
        hint=_HINTS[kind],
        site_id=thing.site_id,
        per_day=None if cost is None else cost.times(24).stored(),
    )


def _open(session: Session, site_id: UUID) -> Sequence[Any]:
    columns = (Finding.id, Finding.kind, Finding.key, Finding.text, Finding.per_day, Finding.commodity)
    return session.execute(
        select(*columns, Finding.last_seen_at).where(
            Finding.site_id == site_id, Finding.kind.in_(WASTE), Finding.resolved_at.is_(None)
        )
    ).all()


def _is_same(former: Any, concern: Concern) -> bool:
    cost = concern.per_day
    price = (None, None) if cost is None else (cost.value, cost.commodity.code)
    return (former.text, former.per_day, former.commodity) == (concern.text, *price)
