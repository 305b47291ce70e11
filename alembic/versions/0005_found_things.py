"""Found things: adopted into projects; what changed at a site, how far its listing is; boot tests; boot volumes."""

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
# Names that sites give, which are as long as they like.
NAMES = (
    ("offers", "name"),
    ("site_images", "name"),
    ("rate_card_prices", "sku"),
    ("segments", "sku"),
    ("charges", "sku_id"),
    ("charges", "resource_name"),
)
PROBES = ("auth", "list", "quota", "launch", "machine", "boot")
SIZE = sa.Numeric(28, 9)


# Every new column may be left out by the code of the version before.
def upgrade() -> None:
    for table, column, words, more in WORDS:
        _allow(table, column, (*words, *more))
    for table, column in NAMES:
        op.alter_column(table, column, existing_type=sa.String(200), type_=sa.String(), existing_nullable=False)
    op.add_column("things", sa.Column("project", sa.String(), nullable=True))
    op.add_column("leases", sa.Column("adopted_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("leases", sa.Column("site_project", sa.String(), nullable=True))
    op.add_column("observations", sa.Column("size_gib", SIZE, nullable=True))
    op.add_column("segments", sa.Column("size_gib", SIZE, nullable=True))
    op.alter_column("quote_offers", "offer_id", existing_type=sa.Uuid(), nullable=True)
    op.add_column("quote_offers", sa.Column("boot_volume_gib", sa.Integer(), server_default="0", nullable=False))
    op.add_column("sites", sa.Column("changes_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("sites", sa.Column("full_listing_wanted_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("sites", sa.Column("listing_since", sa.DateTime(timezone=True), nullable=True))
    op.add_column("sites", sa.Column("listing_read", sa.Integer(), nullable=True))
    going = sa.text("state <> 'over'")
    op.create_index("ix_orders_going", "orders", ["state"], unique=False, postgresql_where=going)
    _create_contact_totals()
    _create_boot_tests()


def _create_contact_totals() -> None:
    op.create_table(
        "contact_totals",
        sa.Column("site_id", sa.Uuid(), nullable=False),
        sa.Column(
            "kind", sa.Enum(*PROBES, name="kind", native_enum=False, create_constraint=True, length=30), nullable=False
        ),
        sa.Column("contacts", sa.BigInteger(), nullable=False),
        sa.Column("failures", sa.BigInteger(), nullable=False),
        sa.Column("latency_sum_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["site_id"], ["sites.id"], name=op.f("fk_contact_totals_site_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("site_id", "kind", name=op.f("pk_contact_totals")),
    )
    # They begin with what is known: a total never goes back.
    op.execute(
        "INSERT INTO contact_totals (site_id, kind, contacts, failures, latency_sum_ms)"
        " SELECT site_id, kind, sum(contacts), sum(failures), sum(latency_sum_ms) FROM site_probes GROUP BY 1, 2"
    )


def _create_boot_tests() -> None:
    moment = sa.DateTime(timezone=True)
    op.create_table(
        "boot_tests",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("site_id", sa.Uuid(), nullable=False),
        sa.Column("order_id", sa.Uuid(), nullable=False),
        sa.Column("began_at", moment, nullable=False),
        sa.Column("give_up_at", moment, nullable=False),
        sa.Column("ended_at", moment, nullable=True),
        sa.Column("took_ms", sa.Integer(), nullable=True),
        sa.Column("error_code", sa.String(), nullable=True),
        sa.Column("error", sa.String(), nullable=True),
        sa.ForeignKeyConstraint(["order_id"], ["orders.id"], name=op.f("fk_boot_tests_order_id")),
        sa.ForeignKeyConstraint(["site_id"], ["sites.id"], name=op.f("fk_boot_tests_site_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_boot_tests")),
        sa.UniqueConstraint("order_id", name=op.f("uq_boot_tests_order_id")),
    )
    op.create_index("ix_boot_tests_site_id_began_at", "boot_tests", ["site_id", "began_at"])
    running = sa.text("ended_at IS NULL")
    op.create_index("uq_boot_tests_running", "boot_tests", ["site_id"], unique=True, postgresql_where=running)
    op.create_table(
        "boot_plans",
        sa.Column("site_id", sa.Uuid(), nullable=False),
        sa.Column("project_id", sa.Uuid(), nullable=False),
        sa.Column("image", sa.String(), nullable=True),
        sa.Column("every", sa.Interval(), nullable=False),
        sa.Column("next_at", moment, nullable=False),
        sa.Column("trouble", sa.String(), nullable=True),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_boot_plans_project_id")),
        sa.ForeignKeyConstraint(["site_id"], ["sites.id"], name=op.f("fk_boot_plans_site_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("site_id", name=op.f("pk_boot_plans")),
    )


def _allow(table: str, column: str, words: tuple[str, ...]) -> None:
    name = op.f(f"ck_{table}_{column}")
    op.drop_constraint(name, table, type_="check")
    op.create_check_constraint(name, table, f"{column} IN ({', '.join(repr(word) for word in words)})")


def downgrade() -> None:
    for table in ("boot_plans", "boot_tests", "contact_totals"):
        op.drop_table(table)
    op.drop_index("ix_orders_going", table_name="orders")
    op.execute("DELETE FROM site_probes WHERE kind = 'boot'")
    op.drop_column("sites", "listing_read")
    op.drop_column("sites", "listing_since")
    op.drop_column("sites", "full_listing_wanted_at")
    op.drop_column("sites", "changes_at")
    op.drop_column("quote_offers", "boot_volume_gib")
    # The version before cannot read a spec with words that it does not know.
    op.execute("UPDATE leases SET spec = spec - 'boot_volume_gib' - 'volume_gib'")
    # Fails where something is adopted that is no machine: the version before knows of none.
    op.alter_column("quote_offers", "offer_id", existing_type=sa.Uuid(), nullable=False)
    op.drop_column("segments", "size_gib")
    op.drop_column("observations", "size_gib")
    op.drop_column("leases", "site_project")
    op.drop_column("leases", "adopted_at")
    op.drop_column("things", "project")
    # Fails where a longer name is kept.
    for table, column in NAMES:
        op.alter_column(table, column, existing_type=sa.String(), type_=sa.String(200), existing_nullable=False)
    for table, column, words, _ in WORDS:
        _allow(table, column, words)
