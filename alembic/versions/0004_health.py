"""How well sites answer: contacts per site, kind and five minutes."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

KINDS = ("auth", "list", "quota", "launch", "machine")


def upgrade() -> None:
    op.create_table(
        "site_probes",
        sa.Column("site_id", sa.Uuid(), nullable=False),
        sa.Column(
            "kind", sa.Enum(*KINDS, name="kind", native_enum=False, create_constraint=True, length=30), nullable=False
        ),
        sa.Column("slot", sa.DateTime(timezone=True), nullable=False),
        sa.Column("contacts", sa.Integer(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("latency_sum_ms", sa.BigInteger(), nullable=False),
        sa.Column("latency_max_ms", sa.Integer(), nullable=False),
        sa.Column("last_ok_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_failed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("error_code", sa.String(), nullable=True),
        sa.ForeignKeyConstraint(["site_id"], ["sites.id"], name=op.f("fk_site_probes_site_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("site_id", "kind", "slot", name=op.f("pk_site_probes")),
    )
    op.create_index("ix_site_probes_slot", "site_probes", ["slot"], unique=False)


def downgrade() -> None:
    op.drop_index("ix_site_probes_slot", table_name="site_probes")
    op.drop_table("site_probes")
