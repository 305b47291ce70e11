"""A lister's turn at a site: the fence that every write of it goes through, and how far its listing is.

A claim (`broker.inventory.take_turn`) raises the site's `listing_generation`; who finds another one there has lost the
site to a later lister, and stops.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ColumnElement, func, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from broker.errors import Fenced
from broker.models.federation import Site
from broker.tools import Tools

# A listing's progress is written at most this often.
PROGRESS_SECONDS: Final = 2.0
# What the row says once no listing is under way.
_OVER: Final[dict[str, Any]] = {"listing_claim_until": None, "listing_since": None, "listing_read": None}

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Turn:
    """One lister's right to a site until it is claimed again: `generation` fences a slow one.

    Attributes:
        started_at: by the database's clock, before the first request.
        changed_since: what the site changed from then on is all that need be asked for, where the adapter can; None:
            the listing has to be a complete one.
        refresh: offers and images are due.
    """

    site_id: UUID
    generation: int
    started_at: datetime
    changed_since: datetime | None
    refresh: bool


@contextmanager
def writing(tools: Tools, turn: Turn) -> Iterator[Session]:
    """A transaction during which nobody else can take the site's turn; raises `Fenced` where somebody has."""
    with tools.sessions.begin() as session:
        mine = select(Site.id).where(Site.id == turn.site_id, Site.listing_generation == turn.generation)
        if session.scalars(mine.with_for_update(read=True)).one_or_none() is None:
            raise _fenced(turn)
        yield session


def claim_length(tools: Tools) -> timedelta:
    """For so long a lister that died keeps its site from others: not much longer than its visit could last."""
    return tools.pace.call * 1.25


def go_on(session: Session, tools: Tools, turn: Turn) -> None:
    """The visit is over, and writing it down may take as long again: a large site would never be done otherwise."""
    _write(session, turn, {"listing_claim_until": func.clock_timestamp() + claim_length(tools)})


def list_soon(session: Session, which: ColumnElement[bool], *, now: datetime) -> None:
    """Have sites listed completely as soon as a lister is free: something that findings rest on has changed.

    Not under a lease's lock: a lister has the site's row when it asks for leases.
    """
    soon = {"full_listing_wanted_at": now, "next_listing_at": func.least(Site.next_listing_at, now)}
    session.execute(update(Site).where(which).values(soon))


def end_turn(session: Session, turn: Turn, **values: Any) -> None:
    """Give the site back with what became of the listing; nothing where somebody else has it."""
    _write(session, turn, _OVER | values)


def give_up(tools: Tools, turn: Turn, trouble: str) -> None:
    """Keep the reason in the row, and come back later, the later the more often it failed (at most 16 intervals)."""
    wait = tools.pace.listing * func.power(2, func.least(Site.failures, 4))
    with tools.sessions.begin() as session:
        end_turn(
            session,
            turn,
            failures=Site.failures + 1,
            trouble=trouble[:2000],
            next_listing_at=func.clock_timestamp() + wait,
        )


def _write(session: Session, turn: Turn, values: dict[str, Any]) -> bool:
    """The site's row, only while the turn is ours. `version` is people's and is not raised."""
    written = session.execute(
        update(Site)
        .where(Site.id == turn.site_id, Site.listing_generation == turn.generation)
        .values(values)
        .returning(Site.id)
    ).one_or_none()
    return written is not None


def _fenced(turn: Turn) -> Fenced:
    return Fenced(f"site {turn.site_id} has another lister since generation {turn.generation}")


class Progress:
    """Told how many things a listing has read, by any thread; writes that down at once, and then now and then.

    People look at it, and nothing else does: where the database cannot take it, the listing goes on without.
    """

    def __init__(
        self, sessions: sessionmaker[Session], turn: Turn, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Nothing is read yet. `clock`: seconds, monotonic."""
        self._sessions = sessions
        self._turn = turn
        self._clock = clock
        self._writing = threading.Lock()
        self._written_at: float | None = None

    def __call__(self, read: int) -> None:
        """So many things were read so far.

        Raises:
            Fenced: the site has another lister, and nobody waits for the rest of this listing.
        """
        if not self._writing.acquire(blocking=False):
            return  # another thread is at it
        try:
            now = self._clock()
            if self._written_at is not None and now - self._written_at < PROGRESS_SECONDS:
                return
            self._written_at = now
            self._note(read)
        finally:
            self._writing.release()

    def _note(self, read: int) -> None:
        try:
            with self._sessions.begin() as session:
                is_mine = _write(session, self._turn, {"listing_read": read})
        except SQLAlchemyError as error:  # the row is locked, or the database is away
            log.info("a listing's progress was not written", extra={"detail": str(error)})
            return
        if not is_mine:
            raise _fenced(self._turn)
