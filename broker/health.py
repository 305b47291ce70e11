"""How well a site answers: a score that decays, made of what every contact with it left behind (`broker.contacts`).

Per kind of contact, over the last hour in slots of five minutes::

    share = sum(w * failures / contacts) / (sum(w) + DOUBT),    w = 2 ** (-age / half_life)

`age` is the time since the slot's last contact. A slot counts by its share, not by its number of contacts: a site that
fails is asked less often, and a busy hour before would hide that. `DOUBT` is the weight of a success that nobody saw:
without new contacts the share sinks to zero, so that a site which is no longer asked is tried again.

A kind is *failing* while its share is above one half, its last contact failed, and three or more failed in the hour. So
one success makes it no worse than *shaky*, which it is from a fifth on, and one hiccup takes nothing away. Contacts
about single machines are never failing: a machine that cannot be looked at, again and again, may be the only one that
is looked at. A site is what its worst kind is: one that lists well and cannot start a machine is failing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from itertools import groupby
from typing import Final
from uuid import UUID

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from broker.models.federation import Site
from broker.models.health import ProbeKind, SiteProbe

HALF_LIFE: Final = timedelta(minutes=10)
WINDOW: Final = timedelta(hours=1)
KEPT: Final = timedelta(days=30)
DOUBT: Final = 0.25
FAILING: Final = 0.5
SHAKY: Final = 0.2
# Fewer failures in the hour than this are a hiccup; so are fewer failed listings in a row.
HICCUPS: Final = 3
_SLOT: Final = timedelta(minutes=5)
# The newest contacts that are told of, rounded up to whole slots.
_TOLD: Final = 9


class HealthState(IntEnum):
    """From best to worst. `UNKNOWN`: nobody asked within the hour."""

    UNKNOWN = 0
    HEALTHY = 1
    SHAKY = 2
    FAILING = 3


@dataclass(frozen=True, slots=True)
class Slot:
    """Contacts of one kind with one site in five minutes; `last_ok_at` or `last_failed_at` is there, or both are."""

    kind: ProbeKind
    contacts: int
    failures: int
    last_ok_at: datetime | None
    last_failed_at: datetime | None
    error: str | None = None

    @property
    def last_at(self) -> datetime:
        """Of its last contact."""
        return max(moment for moment in (self.last_ok_at, self.last_failed_at) if moment is not None)


@dataclass(frozen=True, slots=True)
class KindHealth:
    """One kind of contact with a site over the last hour.

    Attributes:
        share: of failures, weighted; 0 to 1.
        recent: failures among the newest contacts, and how many those are.
        ok_at: the last contact that went well, None where none did within the hour.
        error: the code of the last failure.
    """

    kind: ProbeKind
    state: HealthState
    share: float
    contacts: int
    failures: int
    recent: tuple[int, int]
    last_at: datetime
    ok_at: datetime | None
    error: str | None

    def __str__(self) -> str:
        """`failing since 14:02 UTC: 7 of the last 9 contacts failed (list: site_unknown)`."""
        failures, contacts = self.recent
        what = f"{failures} of the last {contacts} contacts failed ({self.kind}: {self.error})"
        if self.state is not HealthState.FAILING:
            return f"{self.state.name.lower()}: {what}"
        since = (
            ", not once well within the hour"
            if self.ok_at is None
            else f" since {self.ok_at.astimezone(UTC):%H:%M} UTC"
        )
        return f"failing{since}: {what}"


@dataclass(frozen=True, slots=True)
class Health:
    """A site, with its kinds of contact, the worst first."""

    kinds: tuple[KindHealth, ...] = ()

    @property
    def state(self) -> HealthState:
        """What its worst kind is."""
        return self.kinds[0].state if self.kinds else HealthState.UNKNOWN

    @property
    def reason(self) -> str | None:
        """Why it is not well, None where it is or where nothing is known."""
        return str(self.kinds[0]) if self.state >= HealthState.SHAKY else None


# --- the score ---------------------------------------------------------------------------------------------------


def judge(slots: Iterable[Slot], *, now: datetime, half_life: timedelta = HALF_LIFE) -> Health:
    """What a site's contacts of the last hour say of it at `now`; older ones are left out."""
    fresh = sorted((slot for slot in slots if slot.last_at > now - WINDOW), key=lambda slot: (slot.kind, slot.last_at))
    ok_at = max((slot.last_ok_at for slot in fresh if slot.last_ok_at is not None), default=None)
    kinds = [
        _judge(kind, [*some], now=now, half_life=half_life, any_ok_at=ok_at)
        for kind, some in groupby(fresh, key=lambda slot: slot.kind)
    ]
    return Health(tuple(sorted(kinds, key=lambda one: (-one.state, -one.share, one.kind))))


def _judge(
    kind: ProbeKind, slots: Sequence[Slot], *, now: datetime, half_life: timedelta, any_ok_at: datetime | None
) -> KindHealth:
    """`slots` by age, the oldest first. `any_ok_at`: whatever went well has logged in first."""
    weights = [0.5 ** (max(now - slot.last_at, timedelta(0)) / half_life) for slot in slots]
    failed = sum(weight * slot.failures / slot.contacts for weight, slot in zip(weights, slots, strict=True))
    share = failed / (sum(weights) + DOUBT)
    failures = sum(slot.failures for slot in slots)
    ok_at = max((slot.last_ok_at for slot in slots if slot.last_ok_at is not None), default=None)
    good = any_ok_at if kind is ProbeKind.AUTH else ok_at
    failed_at, error = max(
        ((slot.last_failed_at, slot.error) for slot in slots if slot.last_failed_at is not None), default=(None, None)
    )
    state = HealthState.SHAKY if share >= SHAKY else HealthState.HEALTHY
    if share > FAILING and failures >= HICCUPS and kind is not ProbeKind.MACHINE:
        has_failed_last = failed_at is not None and (good is None or failed_at > good)
        state = HealthState.FAILING if has_failed_last else state
    return KindHealth(
        kind=kind,
        state=state,
        share=share,
        contacts=sum(slot.contacts for slot in slots),
        failures=failures,
        recent=_recent(slots),
        last_at=slots[-1].last_at,
        ok_at=good,
        error=error,
    )


def _recent(slots: Sequence[Slot]) -> tuple[int, int]:
    failures = contacts = 0
    for slot in reversed(slots):
        failures += slot.failures
        contacts += slot.contacts
        if contacts >= _TOLD:
            break
    return failures, contacts


def slot_of(moment: datetime) -> datetime:
    """When the five minutes that a moment is in begin."""
    seconds = int(_SLOT.total_seconds())
    return datetime.fromtimestamp(moment.timestamp() // seconds * seconds, tz=UTC)


# --- for quotes ----------------------------------------------------------------------------------------------------


def trouble_of(site: Site, health: Health, *, is_known: bool) -> str | None:
    """Why nothing is to be started at a site now, None where it may be. `is_known`: it has been listed with its wares.

    One failed listing, or two, are no reason. From the third in a row on nobody knows what is left of its quota.
    """
    if site.observe_only:
        return "Leeway only observes this site"
    if not is_known or site.listed_at is None:
        return site.trouble or "the site has not been listed yet"
    if health.state is HealthState.FAILING:
        return health.reason
    if site.failures >= HICCUPS:
        return f"could not be listed {site.failures} times in a row: {site.trouble}"
    return None


def caution_of(site: Site, health: Health) -> str | None:
    """What to know before something is started there."""
    return health.reason or ("its last listing failed" if site.trouble is not None else None)


# --- the rows ------------------------------------------------------------------------------------------------------


def unwell_sites(session: Session, *, now: datetime, half_life: timedelta = HALF_LIFE) -> Mapping[UUID, Health]:
    """Health of the sites where anything failed in the last hour; all others are well, or were not asked."""
    since = slot_of(now - WINDOW)
    failed = select(SiteProbe.site_id).where(SiteProbe.slot >= since, SiteProbe.failures > 0)
    rows = session.scalars(select(SiteProbe).where(SiteProbe.slot >= since, SiteProbe.site_id.in_(failed)))
    slots: dict[UUID, list[Slot]] = {}
    for row in rows:
        slots.setdefault(row.site_id, []).append(_slot(row))
    return {site_id: judge(some, now=now, half_life=half_life) for site_id, some in slots.items()}


def site_healths(session: Session, *, now: datetime, half_life: timedelta = HALF_LIFE) -> Mapping[UUID, Health]:
    """Health of every site that was asked in the last hour."""
    slots: dict[UUID, list[Slot]] = {}
    for row in session.scalars(select(SiteProbe).where(SiteProbe.slot >= slot_of(now - WINDOW))):
        slots.setdefault(row.site_id, []).append(_slot(row))
    return {site_id: judge(some, now=now, half_life=half_life) for site_id, some in slots.items()}


def site_health(session: Session, site_id: UUID, *, now: datetime, half_life: timedelta = HALF_LIFE) -> Health:
    """Health of one site."""
    rows = select(SiteProbe).where(SiteProbe.site_id == site_id, SiteProbe.slot >= slot_of(now - WINDOW))
    return judge([_slot(row) for row in session.scalars(rows)], now=now, half_life=half_life)


def _slot(row: SiteProbe) -> Slot:
    return Slot(row.kind, row.contacts, row.failures, row.last_ok_at, row.last_failed_at, row.error_code)


@dataclass(frozen=True, slots=True)
class HourOfContacts:
    """All contacts of one kind with a site in an hour of UTC. Milliseconds, of good and bad ones alike."""

    at: datetime
    kind: ProbeKind
    contacts: int
    failures: int
    latency_mean_ms: int
    latency_max_ms: int


def history(session: Session, site_id: UUID, *, since: datetime) -> list[HourOfContacts]:
    """Per hour and kind, the newest first; hours without a contact are left out."""
    hour = func.date_trunc("hour", SiteProbe.slot, "UTC")
    rows = session.execute(
        select(
            hour,
            SiteProbe.kind,
            func.sum(SiteProbe.contacts),
            func.sum(SiteProbe.failures),
            func.sum(SiteProbe.latency_sum_ms),
            func.max(SiteProbe.latency_max_ms),
        )
        .where(SiteProbe.site_id == site_id, SiteProbe.slot >= since)
        .group_by(hour, SiteProbe.kind)
        .order_by(hour.desc(), SiteProbe.kind)
    )
    return [
        HourOfContacts(at.astimezone(UTC), kind, contacts, failures, round(total / contacts), longest)
        for at, kind, contacts, failures, total, longest in rows
    ]


def forget_contacts(session: Session, *, now: datetime) -> None:
    """Delete what is older than thirty days."""
    session.execute(delete(SiteProbe).where(SiteProbe.slot < now - KEPT))
