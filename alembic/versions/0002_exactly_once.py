"""Exactly once: which copy of the database this is, the stop ladder, rolling holds, messages to people."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


STATES = ("pending", "building", "running", "stopped", "shelved", "error", "deleting", "unknown", "gone")
# Columns that say "snapshot" from now on too, and what they said before.
SNAPSHOTS = (
    ("leases", "desired", ("running", "stopped", "shelved", "gone")),
    ("leases", "state", STATES),
    ("observations", "state", STATES),
    ("segments", "state", STATES),
    ("parts", "kind", ("key_pair", "port", "server", "address")),
)


# Every new column may be left out by the code of the version before.
def upgrade() -> None:
    op.add_column("installations", sa.Column("imprint", sa.String(), nullable=True))
    op.add_column("installations", sa.Column("observing_since", sa.DateTime(timezone=True), nullable=True))
    op.add_column("installations", sa.Column("observing_reason", sa.String(), nullable=True))
    _imprint()
    op.add_column("leases", sa.Column("grace", sa.Interval(), nullable=True))
    op.add_column("leases", sa.Column("scope", sa.String(), nullable=True))
    op.add_column("leases", sa.Column("keep", sa.Interval(), nullable=True))
    op.add_column("leases", sa.Column("snapshot_time", sa.Interval(), nullable=True))
    op.add_column("leases", sa.Column("lapsed_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("parts", sa.Column("ready_at", sa.DateTime(timezone=True), nullable=True))
    for table, column, words in SNAPSHOTS:
        _allow(table, column, (*words, "snapshot"))
    op.add_column("leases", sa.Column("must_find", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.add_column("leases", sa.Column("settle_failures", sa.Integer(), server_default=sa.text("0"), nullable=False))
    op.add_column("leases", sa.Column("settle_trouble", sa.String(), nullable=True))
    op.add_column("orders", sa.Column("held_until", sa.DateTime(timezone=True), nullable=True))
    is_rolling = sa.text("held_until IS NOT NULL AND state IN ('placed', 'active')")
    op.create_index("ix_orders_rolling", "orders", ["held_until"], unique=False, postgresql_where=is_rolling)
    _charges()
    op.add_column(
        "projects",
        sa.Column("contacts", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'[]'"), nullable=False),
    )
    op.create_table(
        "messages",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("key", sa.String(length=200), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("project_id", sa.Uuid(), nullable=True),
        sa.Column("order_id", sa.Uuid(), nullable=True),
        sa.Column("recipients", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("body", sa.String(), nullable=False),
        sa.Column("made_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("next_try_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("sent_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("trouble", sa.String(), nullable=True),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_messages_project_id")),
        sa.ForeignKeyConstraint(["order_id"], ["orders.id"], name=op.f("fk_messages_order_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_messages")),
        sa.UniqueConstraint("key", name=op.f("uq_messages_key")),
    )
    op.create_index(
        "ix_messages_due", "messages", ["next_try_at"], unique=False, postgresql_where=sa.text("sent_at IS NULL")
    )


def _allow(table: str, column: str, words: tuple[str, ...]) -> None:
    """Let a column of text hold these words, and no others."""
    name = op.f(f"ck_{table}_{column}")
    op.drop_constraint(name, table, type_="check")
    op.create_check_constraint(name, table, sa.column(column).in_(words))


def _charges() -> None:
    """A charge says which grant paid it, so one that two grants pay is two rows; and an end may be corrected."""
    op.add_column("segments", sa.Column("counted_until", sa.DateTime(timezone=True), nullable=True))
    op.add_column("charges", sa.Column("x_grant_id", sa.Uuid(), nullable=True))
    op.add_column("charges", sa.Column("x_correction", sa.Integer(), server_default=sa.text("0"), nullable=False))
    op.create_foreign_key(op.f("fk_charges_x_grant_id"), "charges", "grants", ["x_grant_id"], ["id"])
    op.drop_constraint("uq_charges_segment_id_sku_price_id", "charges", type_="unique")
    op.create_unique_constraint(
        op.f("uq_charges_segment_id_sku_price_id_x_correction_x_grant_id"),
        "charges",
        ["segment_id", "sku_price_id", "x_correction", "x_grant_id"],
        postgresql_nulls_not_distinct=True,
    )
    # What one grant paid alone. Of what several paid, the postings know the shares of the whole charge only.
    op.execute("""
        UPDATE charges SET x_grant_id = grants.id
        FROM postings JOIN grants ON grants.account_id = postings.account_id
        WHERE postings.entry_id = charges.entry_id
            AND (SELECT count(*) FROM postings AS line WHERE line.entry_id = charges.entry_id) = 2
    """)


def _imprint() -> None:
    """Say of the database as it is that it is the living one.

    In two steps: the imprint ends with the transaction that wrote the row, which only a row already written knows.
    """
    op.execute("UPDATE installations SET imprint = ''")
    op.execute("""
        UPDATE installations
        SET imprint = (SELECT CAST(system_identifier AS text) FROM pg_control_system())
            || '/' || left(pg_walfile_name(pg_current_wal_flush_lsn()), 8)
            || '/' || (SELECT CAST(oid AS text) FROM pg_database WHERE datname = current_database())
            || '/' || CAST(xmin AS text)
    """)


def downgrade() -> None:
    # Fails while a snapshot is kept: the version before knows of none.
    for table, column, words in SNAPSHOTS:
        _allow(table, column, words)
    op.drop_column("parts", "ready_at")
    op.drop_column("leases", "lapsed_at")
    op.drop_column("leases", "snapshot_time")
    op.drop_column("leases", "keep")
    op.drop_index("ix_messages_due", table_name="messages", postgresql_where=sa.text("sent_at IS NULL"))
    op.drop_table("messages")
    op.drop_column("projects", "contacts")
    op.drop_constraint("uq_charges_segment_id_sku_price_id_x_correction_x_grant_id", "charges", type_="unique")
    # Fails where a charge was split or corrected: the version before cannot tell such rows apart.
    op.create_unique_constraint("uq_charges_segment_id_sku_price_id", "charges", ["segment_id", "sku_price_id"])
    op.drop_constraint("fk_charges_x_grant_id", "charges", type_="foreignkey")
    op.drop_column("charges", "x_correction")
    op.drop_column("charges", "x_grant_id")
    op.drop_column("segments", "counted_until")
    op.drop_index("ix_orders_rolling", table_name="orders")
    op.drop_column("orders", "held_until")
    op.drop_column("leases", "settle_trouble")
    op.drop_column("leases", "settle_failures")
    op.drop_column("leases", "must_find")
    op.drop_column("leases", "scope")
    op.drop_column("leases", "grace")
    op.drop_column("installations", "observing_reason")
    op.drop_column("installations", "observing_since")
    op.drop_column("installations", "imprint")
