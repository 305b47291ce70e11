"""Which copy of the database is this? Rows that come out of a backup must not start or delete anything.

A restored database believes what was true when the backup was made: machines that it does not know may run, and
machines that it would make may be there. So the row of `installations` carries an *imprint* of the living database,
which no copy of the row can carry along:

* the cluster's system identifier (another server, or one that was made anew),
* its timeline (a recovery to a point in time, or a standby that took over and may lack the last commits),
* the database's OID (`CREATE DATABASE ... TEMPLATE`, or dropped and made again),
* the transaction that wrote the row, which PostgreSQL keeps in the row's own `xmin` (any dump that was loaded).

Where the imprint is not the living one, every claim is refused in the statement that would make it; no worker need
notice anything for that. A copy of the files with all of their rows has the same imprint: it is told by the position of
the write-ahead log, of which each process remembers the highest outside the database (`web.installation`).

Only `begin_observing` and `act_again` write the row. Whatever else changes it makes its imprint void, and Leeway
observes until a person says `leeway resume`: that errs on the safe side.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ColumnElement, Select, String, exists, func, literal_column, not_, select, text, update
from sqlalchemy.orm import Session

from broker.errors import Conflict
from broker.models.audit import Event
from broker.models.federation import Installation
from broker.timeline import Concern, close_finding, raise_finding

ONLY_OBSERVING: Final = "only_observing"
# One finding for the whole installation.
_KEY: Final = "installation"
_RESTORED: Final = (
    "the database is not the one that these rows were written in: it was restored or copied, or another server took "
    "over from the one that wrote them"
)
# More claims than one lease can see between a backup and its restore: no worker of that time has such a generation.
LEAP: Final = 1_000_000
HINT: Final = "Once every site was listed, run `leeway resume`."

# Functions that PostgreSQL 14 to 18 let every role call; together about 0.05 ms, once per statement.
_PLACE: Final = (
    "(SELECT CAST(system_identifier AS text) FROM pg_control_system())"
    " || '/' || left(pg_walfile_name(pg_current_wal_flush_lsn()), 8)"
    " || '/' || (SELECT CAST(oid AS text) FROM pg_database WHERE datname = current_database())"
)
# What the row's imprint must be, read together with the row itself.
living_imprint: Final[ColumnElement[str]] = literal_column(
    f"{_PLACE} || '/' || CAST(installations.xmin AS text)", String
)
_IS_LIVING: Final = func.coalesce(Installation.imprint == living_imprint, False)
# Cluster and position; the latter NULL on a standby.
POSITION: Final = (
    "SELECT CAST((SELECT system_identifier FROM pg_control_system()) AS text), CASE WHEN NOT pg_is_in_recovery()"
    " THEN CAST(pg_wal_lsn_diff(pg_current_wal_flush_lsn(), '0/0') AS bigint) END"
)


@dataclass(frozen=True, slots=True)
class Standing:
    """What this copy of the database is allowed. `observing_since` and `reason` are None where Leeway acts."""

    installation: UUID
    observing_since: datetime | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class LogPosition:
    """How far the write-ahead log of a cluster was written, in bytes. It never goes back while the files live."""

    cluster: str
    position: int


def acts() -> ColumnElement[bool]:
    """For WHERE clauses: this is the living database, and nobody said that Leeway only observes."""
    return exists().where(Installation.only_one, Installation.observing_since.is_(None), _IS_LIVING)


def only_observes() -> ColumnElement[bool]:
    """The opposite of `acts`; also where the row is missing."""
    return not_(acts())


def look(session: Session) -> Standing | None:
    """What is known, after noticing a restore that nobody has noticed yet; None before the first start."""
    notice(session)
    row = session.scalars(_row()).one_or_none()
    return None if row is None else Standing(row.installation_id, row.observing_since, row.observing_reason)


def notice(session: Session) -> bool:
    """Write down that the rows come out of a backup, where they do; True where this call has found it out."""
    if session.scalars(select(_IS_LIVING)).one_or_none() is not False:
        return False
    session.scalars(_row().with_for_update(key_share=True)).one()
    if session.scalars(select(_IS_LIVING)).one():  # somebody noticed meanwhile
        return False
    begin_observing(session, _RESTORED)
    return True


def begin_observing(session: Session, reason: str) -> None:
    """Leeway only observes from now on, and says why. The imprint says that this copy has been noticed."""
    _write(session, observing_since=func.clock_timestamp(), observing_reason=reason)
    now = session.scalars(select(func.clock_timestamp())).one()
    concern = Concern(kind=ONLY_OBSERVING, key=_KEY, text=f"Leeway only observes: {reason}", hint=HINT)
    raise_finding(session, concern, now=now)
    session.add(Event(at=now, kind="observe", text=f"Leeway only observes: {reason}", actor="leeway"))


def act_again(session: Session, *, actor: str) -> None:
    """These rows are the living ones: Leeway acts on them. What that takes first is `broker.resuming`."""
    _write(session, observing_since=None, observing_reason=None)
    close_finding(session, ONLY_OBSERVING, _KEY)
    now = session.scalars(select(func.clock_timestamp())).one()
    session.add(Event(at=now, kind="resume", text="Leeway acts again on what these rows say", actor=actor))


def first_imprint(session: Session) -> None:
    """For a row that never had an imprint: it was made just now, or before there were imprints."""
    if session.scalars(select(Installation.imprint)).one() is None:
        _write(session, only_one=True)


def refuse_while_observing(session: Session) -> None:
    """For whatever a person asks that would start or change something.

    Raises:
        Conflict: Leeway only observes; says why.
    """
    if session.scalars(select(acts())).one():
        return
    reason = session.scalars(select(Installation.observing_reason)).one_or_none() or _RESTORED
    raise Conflict(f"Leeway only observes for now: {reason}", hint=HINT)


def log_position(session: Session) -> LogPosition:
    """Where the write-ahead log is now, of the primary that everything else needs, too."""
    cluster, position = session.execute(text(POSITION)).one()
    return LogPosition(cluster, position or 0)


def _row() -> Select[Installation]:
    return select(Installation).execution_options(populate_existing=True)


def _write(session: Session, **values: Any) -> None:
    """Change the row, then its imprint: the second statement reads what the first one left in `xmin`."""
    session.execute(update(Installation).values(**values))
    session.execute(update(Installation).values(imprint=living_imprint))
