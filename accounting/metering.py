"""From what was seen to intervals of unchanged use. Pure, and level-triggered: the same sightings give the same uses.

    sightings   seen_at, state, type, the site's own word for when the state began
       |        each change starts when the site says, where that can be; else when it was first seen; an end that
       |        was estimated gives way to the site's word, however late that comes
    intervals   [change, next change), the last one open; none once nothing is left
       |        cut at price changes, months, ends of grants, and where an address came or went
    uses        what the segments of the lease should be

Three rules keep a use from being altered after it was charged, save by the site's word for its end
(`accounting.corrections`): a change never starts before the former change; whether the site's word can be is judged by
when it was seen, not by when this runs; and what still runs is cut only up to `known_until`, the last moment at which
the machine was seen, because an end that is estimated is never before that.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import takewhile, zip_longest
from uuid import UUID

from broker.meters import SNAPSHOT_SKU
from broker.models.leases import LeaseState
from broker.values import Period, month_starts

# States in which there is nothing to pay for.
_NOTHING = frozenset({LeaseState.PENDING, LeaseState.GONE})
# States that end something: the machine (of which a snapshot may be left), or all.
_ENDS = (LeaseState.SNAPSHOT, LeaseState.GONE)
# Nova gives its times in whole seconds, cut off: what began at 37.9 is said to have begun at 37.
WHOLE_SECOND = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Sighting:
    """A change that was seen. `since` is the site's own word for when it was, `instance_type` None: not said.

    `size_gib`: of what is billed by its size, None where it has none or it is not said.
    """

    seen_at: datetime
    state: LeaseState
    instance_type: str | None = None
    since: datetime | None = None
    is_estimated: bool = False
    size_gib: Decimal | None = None


@dataclass(frozen=True, slots=True)
class CardSpan:
    """When a rate card version is in force: [valid_from, valid_to)."""

    version_id: UUID
    valid_from: datetime
    valid_to: datetime | None

    def contains(self, moment: datetime) -> bool:
        """True where it is in force at the moment."""
        return self.valid_from <= moment and (self.valid_to is None or moment < self.valid_to)


@dataclass(frozen=True, slots=True)
class Meter:
    """What a lease's sightings are read with.

    Attributes:
        made_at: of the lease; nothing of it began earlier, whatever a site says.
        sku: what the ordered type is priced as, or what is no machine.
        skus: what other types are; a type without an entry is its own SKU (which a rate card may not know).
        cards: the provider's rate card versions.
        cuts: other moments to cut at: starts and ends of grants.
        known_until: when it was last seen; what still goes on is cut only before that.
        machine_cuts: moments to cut the machine's use at: an address came or went.
    """

    made_at: datetime
    sku: str
    skus: Mapping[str, str]
    cards: Sequence[CardSpan]
    cuts: Collection[datetime]
    known_until: datetime
    machine_cuts: Collection[datetime] = ()


@dataclass(frozen=True, slots=True)
class Use:
    """What a segment should be. `version_id` None: no rate card was in force, and the price is unknown."""

    starts_at: datetime
    ends_at: datetime | None
    state: LeaseState
    sku: str
    version_id: UUID | None
    is_estimated: bool
    size_gib: Decimal | None = None


@dataclass(frozen=True, slots=True)
class _Change:
    """From `start` on the machine is so. `has_estimated_start` belongs to the end of what was before."""

    start: datetime
    state: LeaseState
    instance_type: str | None
    size_gib: Decimal | None
    is_guess: bool
    has_estimated_start: bool

    @property
    def what(self) -> tuple[object, ...]:
        """What is used; another is a change."""
        return self.state, self.instance_type, self.size_gib, self.is_guess


def meter(sightings: Iterable[Sighting], by: Meter) -> list[Use]:
    """The uses that the sightings, in any order, amount to: from the first sight on, without gap or overlap.

    A status that cannot be read is neither free nor gone: the last known state goes on (running, where none is known),
    marked as estimated.
    """
    changes = list(_changes(_in_order(sightings), by.made_at))
    uses: list[Use] = []
    for change, following in zip_longest(changes, changes[1:]):
        end = following.start if following else None
        if change.state in _NOTHING or change.start == end:
            continue
        pieces = list(_cut(change, end, by))
        if following is not None and following.has_estimated_start:
            pieces[-1] = replace(pieces[-1], is_estimated=True)
        uses.extend(pieces)
    return uses


@dataclass(frozen=True, slots=True)
class Ends:
    """When the machine and its snapshot ended by the site's own word; None while one is there, or has no such end."""

    machine: datetime | None
    snapshot: datetime | None

    def of(self, state: LeaseState) -> datetime | None:
        """The end of what is used in the state."""
        return self.snapshot if state is LeaseState.SNAPSHOT else self.machine


def ends_by_word(sightings: Iterable[Sighting], made_at: datetime) -> Ends:
    """The ends that are no estimates. Without a snapshot, both are that of the machine."""
    changes = list(_changes(_in_order(sightings), made_at))
    ends = list(takewhile(lambda change: change.state in _ENDS, reversed(changes)))
    if not ends:
        return Ends(None, None)
    last, first = ends[0], ends[-1]
    return Ends(
        machine=None if first.has_estimated_start else first.start,
        snapshot=last.start if last.state is LeaseState.GONE and not last.has_estimated_start else None,
    )


def _in_order(sightings: Iterable[Sighting]) -> list[Sighting]:
    """By time; where the site says only later when something ended, that is what was seen when it was seen gone."""
    found = sorted(sightings, key=lambda sighting: sighting.seen_at)
    for state in _ENDS:
        _believe(found, state)
    return found


def _believe(found: list[Sighting], state: LeaseState) -> None:
    """The first sighting of an end, if it is an estimate, becomes the last word that came for it."""
    first = next((number for number, one in enumerate(found) if one.state is state), None)
    if first is None or not found[first].is_estimated:
        return
    words = [one.since for one in found[first:] if one.state is state and not one.is_estimated and one.since]
    if words:
        found[first] = replace(found[first], since=words[-1], is_estimated=False)


def _changes(sightings: Sequence[Sighting], made_at: datetime) -> Iterator[_Change]:
    """The sightings that differ from the one before, with the moment from which each holds."""
    last: _Change | None = None
    known = LeaseState.RUNNING  # the last state that could be read
    for number, sighting in enumerate(sightings):
        is_guess = sighting.state is LeaseState.UNKNOWN
        state = known if is_guess else sighting.state
        if state not in _NOTHING:
            known = state
        kind = sighting.instance_type or (last.instance_type if last else None)
        size = sighting.size_gib if sighting.size_gib is not None else (last.size_gib if last else None)
        found = _Change(sighting.seen_at, state, kind, size, is_guess, has_estimated_start=sighting.is_estimated)
        if last is not None and last.what == found.what:
            continue
        if state in _ENDS and not is_guess:
            start = _end(sighting, last.start if last else made_at, sightings[:number])
        else:
            start = _start(sighting, last.start if last else made_at)
        last = replace(found, start=start)
        yield last


def _start(sighting: Sighting, former: datetime) -> datetime:
    """When the state began: by the site's word where it lies after the former change and was not of the future."""
    if sighting.since is not None and former - WHOLE_SECOND < sighting.since <= sighting.seen_at:
        return max(sighting.since, former)
    return sighting.seen_at


def _end(sighting: Sighting, former: datetime, before: Sequence[Sighting]) -> datetime:
    """When something ended: by the site's word, else when it was last seen if that is an estimate, else as seen."""
    word = sighting.since
    if word is None:
        word = before[-1].seen_at if sighting.is_estimated and before else sighting.seen_at
    return min(max(word, former), sighting.seen_at)


def _cut(change: _Change, end: datetime | None, by: Meter) -> Iterator[Use]:
    """The interval's pieces; of one that is still open, the last one is open too."""
    known = max(change.start, by.known_until) if end is None else end
    within = Period(change.start, known)
    moments = {*by.cuts, *month_starts(within)}
    if change.state is not LeaseState.SNAPSHOT:
        moments |= set(by.machine_cuts)
    moments |= {moment for card in by.cards for moment in (card.valid_from, card.valid_to) if moment is not None}
    pieces = list(within.split(moments))
    sku = _sku(change, by)
    for piece in pieces:
        yield Use(
            starts_at=piece.start,
            ends_at=None if end is None and piece is pieces[-1] else piece.end,
            state=change.state,
            sku=sku,
            version_id=next((card.version_id for card in by.cards if card.contains(piece.start)), None),
            is_estimated=change.is_guess,
            size_gib=change.size_gib,
        )


def _sku(change: _Change, by: Meter) -> str:
    """What is priced: the snapshot, or the machine as its type."""
    if change.state is LeaseState.SNAPSHOT:
        return SNAPSHOT_SKU
    return by.sku if change.instance_type is None else by.skus.get(change.instance_type, change.instance_type)


def outside(uses: Iterable[Use], charged: Iterable[Period]) -> list[Use]:
    """What is left of the uses outside the charged periods, which stay as they are (a correction is another matter)."""
    left = list(uses)
    for period in charged:
        left = [piece for use in left for piece in _without(use, period)]
    return left


def _without(use: Use, period: Period) -> Iterator[Use]:
    if period.end <= use.starts_at or (use.ends_at is not None and use.ends_at <= period.start):
        yield use
        return
    if use.starts_at < period.start:
        yield replace(use, ends_at=period.start)
    if use.ends_at is None or period.end < use.ends_at:
        yield replace(use, starts_at=period.end)
