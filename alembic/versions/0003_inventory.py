"""What exists at sites, whoever made it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

KINDS = ("server", "volume", "address", "snapshot", "volume_snapshot")
STATES = ("building", "running", "stopped", "shelved", "error", "deleting", "unknown")


def upgrade() -> None:
    op.create_table(
        "things",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("site_id", sa.Uuid(), nullable=False),
        sa.Column("kind", _words("kind", KINDS), nullable=False),
        sa.Column("remote_id", sa.String(collation="C"), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("owner", sa.String(), nullable=True),
        sa.Column("size_gib", sa.Numeric(28, 9), nullable=True),
        sa.Column("instance_type", sa.String(), nullable=True),
        sa.Column("state", _words("state", STATES), nullable=True),
        sa.Column("raw_status", sa.String(), nullable=False),
        sa.Column("attached_to", sa.String(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("first_seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_seen_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("gone_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("lease_id", sa.Uuid(), nullable=True),
        sa.Column("installation", sa.Uuid(), nullable=True),
        sa.Column("until", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["site_id"], ["sites.id"], name=op.f("fk_things_site_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["lease_id"], ["leases.id"], name=op.f("fk_things_lease_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_things")),
    )
    op.create_index(
        "uq_things_living",
        "things",
        ["site_id", "kind", "remote_id"],
        unique=True,
        postgresql_where=sa.text("gone_at IS NULL"),
    )


def _words(name: str, words: tuple[str, ...]) -> sa.Enum:
    return sa.Enum(*words, name=name, native_enum=False, create_constraint=True, length=30)


def downgrade() -> None:
    op.drop_index("uq_things_living", table_name="things", postgresql_where=sa.text("gone_at IS NULL"))
    op.drop_table("things")
