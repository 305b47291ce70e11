"""Found things: adopted into projects; what changed at a site, and how far its listing is."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

STATES = ("pending", "building", "running", "stopped", "shelved", "error", "deleting", "unknown", "gone", "snapshot")
# Columns that say more from now on, what they said before, and what is new.
WORDS = (
    ("leases", "state", STATES, ("present",)),
    ("observations", "state", STATES, ("present",)),
    ("segments", "state", STATES, ("present",)),
    ("parts", "kind", ("key_pair", "port", "server", "address", "snapshot"), ("volume", "volume_snapshot")),
    ("site_probes", "kind", ("auth", "list", "quota", "launch", "machine"), ("boot",)),
)
SIZE = sa.Numeric(28, 9)


# Every new column may be left out by the code of the version before.
def upgrade() -> None:
    for table, column, words, more in WORDS:
        _allow(table, column, (*words, *more))
    op.add_column("things", sa.Column("project", sa.String(), nullable=True))
    op.add_column("leases", sa.Column("adopted_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("observations", sa.Column("size_gib", SIZE, nullable=True))
    op.add_column("segments", sa.Column("size_gib", SIZE, nullable=True))
    op.alter_column("quote_offers", "offer_id", existing_type=sa.Uuid(), nullable=True)
    op.add_column("sites", sa.Column("changes_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("sites", sa.Column("listing_since", sa.DateTime(timezone=True), nullable=True))
    op.add_column("sites", sa.Column("listing_read", sa.Integer(), nullable=True))


def _allow(table: str, column: str, words: tuple[str, ...]) -> None:
    name = op.f(f"ck_{table}_{column}")
    op.drop_constraint(name, table, type_="check")
    op.create_check_constraint(name, table, f"{column} IN ({', '.join(repr(word) for word in words)})")


def downgrade() -> None:
    op.drop_column("sites", "listing_read")
    op.drop_column("sites", "listing_since")
    op.drop_column("sites", "changes_at")
    # Fails where something is adopted that is no machine: the version before knows of none.
    op.alter_column("quote_offers", "offer_id", existing_type=sa.Uuid(), nullable=False)
    op.drop_column("segments", "size_gib")
    op.drop_column("observations", "size_gib")
    op.drop_column("leases", "adopted_at")
    op.drop_column("things", "project")
    for table, column, words, _ in WORDS:
        _allow(table, column, words)
