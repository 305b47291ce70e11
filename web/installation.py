"""What lies outside the database, so that a copy of the database can be told from the living one.

Two files in the data directory: `installation` holds the installation's id, `position` how far the database's
write-ahead log was seen to have come, and the number (inode) of that very file, which no copy of it has. Where a file
and the database disagree, or the file is a copy, the database may be one too, and Leeway only observes until
`leeway resume` (`broker.restored`).
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg
from sqlalchemy import Engine, event, func, select
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session, sessionmaker

from broker.database import single_use_engine
from broker.errors import SetupError
from broker.models.federation import Installation
from broker.restored import POSITION, LogPosition, begin_observing, first_imprint, log_position, look
from web.private import write_once

_LOCK_NOT_AVAILABLE = "55P03"
# A process that froze here holds the lock until PostgreSQL ends its transaction, after 10 s.
_PATIENCE_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Marks:
    """The two files of one data directory. Every process on every machine has its own."""

    folder: Path

    @property
    def id_file(self) -> Path:
        """Whose data directory this is."""
        return self.folder / "installation"

    @property
    def position_file(self) -> Path:
        """How far the database's log had come when last looked at."""
        return self.folder / "position"

    def establish(self, sessions: sessionmaker[Session]) -> UUID:
        """At a start: make what is missing, and observe only where file and database disagree.

        Returns:
            The installation's id, as the database has it.

        Raises:
            SetupError: a file cannot be read or written or holds no id, or another process stays at this very place.
        """
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while True:
            try:
                return self._establish(sessions)
            except OperationalError as error:
                if getattr(error.orig, "sqlstate", None) != _LOCK_NOT_AVAILABLE:
                    raise
                if time.monotonic() > deadline:
                    raise SetupError(
                        f"another process of Leeway has been in the midst of its start for {_PATIENCE_SECONDS} seconds",
                        hint="Stop it, and start again.",
                    ) from error

    def _establish(self, sessions: sessionmaker[Session]) -> UUID:
        with sessions.begin() as session:
            # Two first starts at once: the second waits, and finds the row.
            session.execute(select(func.pg_advisory_xact_lock(func.hashtext("installation"))))
            known = self._read_id()
            if session.get(Installation, True) is None:
                made = Installation(only_one=True, installation_id=known or uuid4(), made_at=func.clock_timestamp())
                session.add(made)
                session.flush()
            first_imprint(session)
            found = look(session)
            assert found is not None, "the row was made above"
            if known is None:
                _write_first(self.id_file, f"{found.installation}\n")
            elif known != found.installation and found.observing_since is None:
                begin_observing(
                    session,
                    f"the database belongs to installation {found.installation}, and {self.id_file} says {known}: it "
                    "is another's, or was brought back from a backup of another. If it is the wrong database or data "
                    "directory, correct LEEWAY_DATABASE_URL or LEEWAY_DATA_DIR before you resume",
                )
            self.keep_position(session)
            return found.installation

    def keep_position(self, session: Session) -> None:
        """Remember how far the log has come; where it has gone back, the database's files were replaced by a copy.

        While Leeway only observes, nothing new can come of it, and every machine's file catches up.
        """
        # The file first: another process of this directory may write it at any moment.
        seen = self._read_position()
        found = log_position(session)
        standing = look(session)
        acts = standing is not None and standing.observing_since is None
        if not acts or seen is None:
            pass
        elif isinstance(seen, str):
            begin_observing(session, seen)
        elif seen.cluster == found.cluster and seen.position > found.position:
            begin_observing(
                session,
                f"the database's log ends {seen.position - found.position} bytes before the place that it had reached "
                f"({self.position_file}): its files were replaced by an older copy",
            )
        _write(self.position_file, lambda inode: f"{found.cluster} {found.position} {inode}\n")

    def is_ahead_of(self, connection: psycopg.Connection[Any]) -> bool:
        """Whether this server's log ends before the place that the file has seen. False where nothing can be said."""
        seen = self._read_position()
        if not isinstance(seen, LogPosition):
            return False  # a reason is told by the next minute's look
        before, connection.autocommit = connection.autocommit, True
        try:
            found = connection.execute(POSITION).fetchone()
        finally:
            connection.autocommit = before
        return found is not None and found[0] == seen.cluster and found[1] is not None and found[1] < seen.position

    def take_id(self, installation: UUID) -> None:
        """A person says that this database is the one: from now on the file says so too."""
        if self._read_id() != installation:
            _write(self.id_file, lambda _: f"{installation}\n")

    def _read_id(self) -> UUID | None:
        try:
            return UUID(self.id_file.read_bytes().decode(errors="replace").strip())
        except FileNotFoundError:
            return None
        except (OSError, ValueError):
            raise SetupError(
                f"{self.id_file} holds no installation id", hint="Restore the file from a backup."
            ) from None

    def _read_position(self) -> LogPosition | str | None:
        """What the file says; None where there is none, and a reason where it cannot be told."""
        try:
            with self.position_file.open(encoding="ascii") as file:
                cluster, position, inode = file.read().split()
                seen, own = LogPosition(cluster, int(position)), os.fstat(file.fileno()).st_ino
            is_copy = int(inode) != own
        except FileNotFoundError:
            return None
        except OSError as error:
            raise SetupError(
                f"{self.position_file} cannot be read: {error.strerror}", hint="Give it to the account of Leeway."
            ) from None
        except ValueError:
            return (
                f"{self.position_file} is damaged, so that nobody can tell whether the database's files are the newest"
            )
        if is_copy:
            return f"{self.position_file} is a copy: the data directory was brought back or copied from elsewhere"
        return seen


def watch(bind: Engine, marks: Marks) -> None:
    """Look at the log's position whenever a connection is made: who replaces a server's files ends the connections.

    So a worker that lived through it finds out before it claims anything, and not at the next minute.
    """

    def compare(connection: psycopg.Connection[Any], _record: object) -> None:
        if marks.is_ahead_of(connection):
            with Session(single_use_engine(url, application_name="leeway")) as session, session.begin():
                marks.keep_position(session)

    url = bind.url.render_as_string(hide_password=False)
    event.listen(bind, "connect", compare)


def _write_first(path: Path, text: str) -> None:
    """Give a file its content, unless it exists."""
    try:
        write_once(path, text)
    except OSError as error:
        raise _not_written(path, error) from None


def _write(path: Path, text: Callable[[int], str]) -> None:
    """Write over a file, at once: a kill leaves the old or the new one. `text` is told the new file's number."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
            out.write(text(os.fstat(out.fileno()).st_ino))
            out.flush()
            os.fsync(out.fileno())
        draft.replace(path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise _not_written(path, error) from None


def _not_written(path: Path, error: OSError) -> SetupError:
    return SetupError(
        f"{path} cannot be written: {error.strerror}",
        hint="Free some disk space, or give the directory to the account that runs Leeway.",
    )
