"""`leeway ledger verify` on a database of its own."""

from __future__ import annotations

import sqlalchemy as sa

from broker.database import Database
from tests.unit.cli.conftest import Leeway


def test_the_books_agree_or_it_is_told_where_not(leeway: Leeway, own_database: Database) -> None:
    here = {"LEEWAY_DATABASE_URL": own_database.application_url}
    done = leeway("ledger", "verify", environment=here)
    assert (done.exit_code, done.stdout) == (0, "The books agree: balances, holds, entries and charges.\n")
    bind = sa.create_engine(own_database.application_url, poolclass=sa.NullPool)
    with bind.begin() as connection:
        connection.execute(sa.text("UPDATE balances SET posted = posted + 1"))
    done = leeway("ledger", "verify", "--json", environment=here)
    assert done.exit_code == 1
    assert '"the books differ in balance and its postings of grant:' in done.stdout
    assert "The books do not agree: the books differ" in done.stderr
    with bind.begin() as connection:
        connection.execute(sa.text("UPDATE balances SET posted = posted - 1"))
