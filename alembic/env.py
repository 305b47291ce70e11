"""What Alembic runs for each command: the models it compares with, and the connection it works on.

Leeway's own commands hand over a connection (`broker/schema.py`). From Alembic's command line, for developers:

    python -m alembic -x data_dir=.leeway/development revision --autogenerate -m "what changes"

takes an embedded server; `-x application_url=... -x migration_url=...` names another.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alembic import context
from alembic.util import CommandError
from sqlalchemy import Connection

import accounting.models
import broker.models
from broker.database import resolve
from broker.schema import QUEUE_PREFIX, migrating

# To import these packages is to register their rows, all on one Base.
ROWS = (broker.models, accounting.models)
METADATA = broker.models.Base.metadata


def is_ours(name: str | None, kind: str, _parents: object) -> bool:
    """Leave out of comparisons what Procrastinate's SQL has made."""
    return not (kind == "table" and name is not None and name.startswith(QUEUE_PREFIX))


def run(connection: Connection) -> None:
    """Run the command that Alembic was called with."""
    context.configure(
        connection=connection,
        target_metadata=METADATA,
        include_name=is_ours,
        compare_type=True,
        compare_server_default=True,
        transaction_per_migration=True,  # a long history must not hold the locks of its first step to the end
    )
    with context.begin_transaction():
        context.run_migrations()


def main() -> None:
    """Use the connection that was handed over, else one made from the command line."""
    if context.is_offline_mode():
        raise CommandError("Leeway's migrations need a database: they look at it. Leave out --sql.")
    attributes: dict[str, Any] = context.config.attributes
    if "connection" in attributes:
        run(attributes["connection"])
        return
    arguments = context.get_x_argument(as_dictionary=True)
    if not arguments:
        raise CommandError("Say which database: -x data_dir=DIRECTORY, or -x application_url=... -x migration_url=...")
    data_dir = Path(arguments.get("data_dir", ".leeway/development"))
    with (
        resolve(arguments.get("application_url"), arguments.get("migration_url"), data_dir) as database,
        migrating(database) as (connection, application_role),
    ):
        attributes["application_role"] = application_role
        connection.commit()
        run(connection)


main()
