"""Who waits in the database, and who keeps others waiting: as far as the asking role may see."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Final

from sqlalchemy import text
from sqlalchemy.orm import Session

from broker.overdue import Overdue

# A lock is waited for at most 3 s, a statement takes at most 30 s: what is older is another program's, or a migration.
_LONG: Final = timedelta(seconds=60)
_WAITED: Final = timedelta(seconds=2)

_WAITS = text(
    "SELECT waiting.pid, waiting.application_name, waiting.query_start, blocker.pid AS by_pid,"
    " coalesce(nullif(blocker.application_name, ''), 'another program') AS by_name, blocker.state, blocker.usename"
    " FROM pg_stat_activity waiting, unnest(pg_blocking_pids(waiting.pid)) AS by_pid"
    " JOIN pg_stat_activity blocker ON blocker.pid = by_pid"
    " WHERE waiting.datname = current_database() AND waiting.wait_event_type = 'Lock'"
    " AND waiting.query_start < clock_timestamp() - CAST(:waited AS interval)"
    " ORDER BY waiting.query_start LIMIT 20"
)
_TRANSACTIONS = text(
    "SELECT pid, coalesce(nullif(application_name, ''), 'a program') AS name, usename, state, xact_start"
    " FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    " AND backend_type = 'client backend' AND xact_start < clock_timestamp() - CAST(:long AS interval)"
    " ORDER BY xact_start LIMIT 20"
)


def overdue_in_database(session: Session) -> Iterator[Overdue]:
    """Locks that are waited for, and transactions that do not end."""
    for row in session.execute(_WAITS, {"waited": _WAITED}):
        doing = row.state or "something that this role may not see"
        yield Overdue(
            "lock",
            f"database connection {row.pid} ({row.application_name})",
            row.query_start,
            f"it waits for a lock that connection {row.by_pid} holds ({row.by_name}, role {row.usename}: {doing})",
            f"If that one is stuck: SELECT pg_terminate_backend({row.by_pid}).",
        )
    for row in session.execute(_TRANSACTIONS, {"long": _LONG}):
        yield Overdue(
            "transaction",
            f"database connection {row.pid} ({row.name}, role {row.usename})",
            row.xact_start,
            f"its transaction does not end ({row.state})",
            f"Is it a backup or a migration? Else: SELECT pg_terminate_backend({row.pid}).",
        )
