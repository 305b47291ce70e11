"""The spine: every row of the path from a request to a charge, and what the database itself promises about them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from broker.schema import install_queue, remove_queue, revoke_changes

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


# Expand, backfill, contract: the code of the version before must still work on these tables. The connection gives up
# on a lock after 3 s; the application's role may read and write new tables unless `revoke_changes` says otherwise.
def upgrade() -> None:
    op.create_table(
        "accounts",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column(
            "kind",
            sa.Enum(
                "grant", "provider", "overdraft", name="kind", native_enum=False, create_constraint=True, length=30
            ),
            nullable=False,
        ),
        sa.Column("key", sa.String(length=200), nullable=False),
        sa.Column("title", sa.String(length=200), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_accounts")),
        sa.UniqueConstraint("key", name=op.f("uq_accounts_key")),
    )
    op.create_table(
        "clock_slots",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("slot", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", "slot", name=op.f("pk_clock_slots")),
    )
    op.create_table(
        "entries",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("key", sa.String(length=200), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("text", sa.String(), nullable=False),
        sa.Column("posted_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_entries")),
        sa.UniqueConstraint("key", name=op.f("uq_entries_key")),
    )
    op.create_table(
        "installations",
        sa.Column("only_one", sa.Boolean(), nullable=False),
        sa.Column("installation_id", sa.Uuid(), nullable=False),
        sa.Column("made_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("only_one", name=op.f("ck_installations_only_one")),
        sa.PrimaryKeyConstraint("only_one", name=op.f("pk_installations")),
    )
    op.create_table(
        "institutions",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("title", sa.String(length=200), nullable=False),
        sa.Column("jurisdiction", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_institutions")),
        sa.UniqueConstraint("name", name=op.f("uq_institutions_name")),
    )
    op.create_table(
        "persons",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("email", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_persons")),
    )
    op.create_table(
        "providers",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("title", sa.String(length=200), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_providers")),
        sa.UniqueConstraint("name", name=op.f("uq_providers_name")),
    )
    op.create_table(
        "balances",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("commodity", sa.String(), nullable=False),
        sa.Column("posted", sa.Numeric(precision=28, scale=9), nullable=False),
        sa.Column("held", sa.Numeric(precision=28, scale=9), nullable=False),
        sa.Column("ceiling", sa.Numeric(precision=28, scale=9), nullable=True),
        sa.CheckConstraint(
            "ceiling IS NULL OR ceiling - posted - held >= 0", name=op.f("ck_balances_never_over_committed")
        ),
        sa.CheckConstraint("held >= 0", name=op.f("ck_balances_held_not_negative")),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_balances_account_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_balances")),
        sa.UniqueConstraint("account_id", "commodity", name=op.f("uq_balances_account_id_commodity")),
    )
    op.create_table(
        "postings",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("entry_id", sa.Uuid(), nullable=False),
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("commodity", sa.String(), nullable=False),
        sa.Column("amount", sa.Numeric(precision=28, scale=9), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_postings_account_id")),
        sa.ForeignKeyConstraint(["entry_id"], ["entries.id"], name=op.f("fk_postings_entry_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_postings")),
    )
    op.create_index(op.f("ix_postings_account_id"), "postings", ["account_id"], unique=False)
    op.create_index(op.f("ix_postings_entry_id"), "postings", ["entry_id"], unique=False)
    op.create_table(
        "projects",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("title", sa.String(length=200), nullable=False),
        sa.Column("institution_id", sa.Uuid(), nullable=False),
        sa.Column("pi_id", sa.Uuid(), nullable=True),
        sa.ForeignKeyConstraint(["institution_id"], ["institutions.id"], name=op.f("fk_projects_institution_id")),
        sa.ForeignKeyConstraint(["pi_id"], ["persons.id"], name=op.f("fk_projects_pi_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_projects")),
        sa.UniqueConstraint("name", name=op.f("uq_projects_name")),
    )
    op.create_table(
        "rate_card_versions",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("provider_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("currency", sa.String(), nullable=False),
        sa.Column("valid_from", sa.DateTime(timezone=True), nullable=False),
        sa.Column("valid_to", sa.DateTime(timezone=True), nullable=True),
        sa.Column("bills", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("made_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["provider_id"], ["providers.id"], name=op.f("fk_rate_card_versions_provider_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rate_card_versions")),
        sa.UniqueConstraint("provider_id", "number", name=op.f("uq_rate_card_versions_provider_id_number")),
        sa.UniqueConstraint("provider_id", "valid_from", name=op.f("uq_rate_card_versions_provider_id_valid_from")),
    )
    op.create_index(
        "uq_rate_card_versions_open",
        "rate_card_versions",
        ["provider_id"],
        unique=True,
        postgresql_where=sa.text("valid_to IS NULL"),
    )
    op.create_table(
        "sites",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("provider_id", sa.Uuid(), nullable=False),
        sa.Column("adapter", sa.String(), nullable=False),
        sa.Column("endpoint", sa.String(), nullable=False),
        sa.Column("region", sa.String(), nullable=True),
        sa.Column("jurisdiction", sa.String(), nullable=True),
        sa.Column("settings", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("observe_only", sa.Boolean(), nullable=False),
        sa.Column("is_enabled", sa.Boolean(), nullable=False),
        sa.Column("next_listing_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("listing_generation", sa.Integer(), nullable=False),
        sa.Column("listing_claim_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("listed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("refreshed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("trouble", sa.String(), nullable=True),
        sa.Column("check_wanted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("checked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("diagnosis", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["provider_id"], ["providers.id"], name=op.f("fk_sites_provider_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sites")),
        sa.UniqueConstraint("name", name=op.f("uq_sites_name")),
    )
    op.create_table(
        "catalogue_versions",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("site_id", sa.Uuid(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("made_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("superseded_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["site_id"], ["sites.id"], name=op.f("fk_catalogue_versions_site_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_catalogue_versions")),
    )
    op.create_index(
        "uq_catalogue_versions_current",
        "catalogue_versions",
        ["site_id"],
        unique=True,
        postgresql_where=sa.text("superseded_at IS NULL"),
    )
    op.create_table(
        "grants",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("project_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("commodity", sa.String(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("starts_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ends_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("ends_at > starts_at", name=op.f("ck_grants_ends_after_start")),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_grants_account_id")),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_grants_project_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_grants")),
        sa.UniqueConstraint("account_id", name=op.f("uq_grants_account_id")),
        sa.UniqueConstraint("project_id", "name", name=op.f("uq_grants_project_id_name")),
        sa.UniqueConstraint("project_id", "position", name=op.f("uq_grants_project_id_position")),
    )
    op.create_table(
        "quota_pools",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("site_id", sa.Uuid(), nullable=False),
        sa.Column("resource", sa.String(), nullable=False),
        sa.Column("quota", sa.Numeric(precision=28, scale=9), nullable=True),
        sa.Column("used", sa.Numeric(precision=28, scale=9), nullable=False),
        sa.Column("as_of", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["site_id"], ["sites.id"], name=op.f("fk_quota_pools_site_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_quota_pools")),
        sa.UniqueConstraint("site_id", "resource", name=op.f("uq_quota_pools_site_id_resource")),
    )
    op.create_table(
        "rate_card_prices",
        sa.Column("version_id", sa.Uuid(), nullable=False),
        sa.Column("sku", sa.String(length=200), nullable=False),
        sa.Column("above", sa.Numeric(precision=28, scale=9), nullable=False),
        sa.Column("unit", sa.String(), nullable=False),
        sa.Column("unit_price", sa.Numeric(precision=19, scale=9), nullable=False),
        sa.Column("minimum_seconds", sa.Integer(), nullable=False),
        sa.Column("increment_seconds", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["version_id"], ["rate_card_versions.id"], name=op.f("fk_rate_card_prices_version_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("version_id", "sku", "above", name=op.f("pk_rate_card_prices")),
    )
    op.create_table(
        "site_credentials",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("site_id", sa.Uuid(), nullable=False),
        sa.Column("person_id", sa.Uuid(), nullable=True),
        sa.Column("key_id", sa.String(), nullable=False),
        sa.Column("ciphertext", sa.LargeBinary(), nullable=False),
        sa.Column("stored_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["person_id"], ["persons.id"], name=op.f("fk_site_credentials_person_id")),
        sa.ForeignKeyConstraint(
            ["site_id"], ["sites.id"], name=op.f("fk_site_credentials_site_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_site_credentials")),
    )
    op.create_index(
        "uq_site_credentials_site_id_person_id",
        "site_credentials",
        ["site_id", "person_id"],
        unique=True,
        postgresql_nulls_not_distinct=True,
    )
    op.create_table(
        "site_listings",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("site_id", sa.Uuid(), nullable=False),
        sa.Column("scope", sa.String(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("machines", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["site_id"], ["sites.id"], name=op.f("fk_site_listings_site_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_site_listings")),
    )
    op.create_index("ix_site_listings_site_id_started_at", "site_listings", ["site_id", "started_at"], unique=False)
    op.create_table(
        "workloads",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("project_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("document", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("made_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_workloads_project_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_workloads")),
    )
    op.create_index(op.f("ix_workloads_project_id"), "workloads", ["project_id"], unique=False)
    op.create_table(
        "offers",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("catalogue_version_id", sa.Uuid(), nullable=False),
        sa.Column("site_id", sa.Uuid(), nullable=False),
        sa.Column("remote_id", sa.String(), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("cores", sa.Integer(), nullable=False),
        sa.Column("memory_mib", sa.Integer(), nullable=False),
        sa.Column("disk_gib", sa.Integer(), nullable=False),
        sa.Column("gpus", sa.Integer(), nullable=False),
        sa.Column("gpu_model", sa.String(), nullable=True),
        sa.Column("arch", sa.String(), nullable=True),
        sa.Column("traits", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.ForeignKeyConstraint(
            ["catalogue_version_id"],
            ["catalogue_versions.id"],
            name=op.f("fk_offers_catalogue_version_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(["site_id"], ["sites.id"], name=op.f("fk_offers_site_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_offers")),
        sa.UniqueConstraint("catalogue_version_id", "remote_id", name=op.f("uq_offers_catalogue_version_id_remote_id")),
    )
    op.create_table(
        "quotes",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("workload_id", sa.Uuid(), nullable=False),
        sa.Column("made_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("catalogue_digest", sa.String(), nullable=False),
        sa.Column("facts_digest", sa.String(), nullable=False),
        sa.Column("assumptions", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("verdicts", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("eliminated", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("relaxations", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.ForeignKeyConstraint(["workload_id"], ["workloads.id"], name=op.f("fk_quotes_workload_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_quotes")),
    )
    op.create_index(op.f("ix_quotes_workload_id"), "quotes", ["workload_id"], unique=False)
    op.create_table(
        "site_images",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("catalogue_version_id", sa.Uuid(), nullable=False),
        sa.Column("site_id", sa.Uuid(), nullable=False),
        sa.Column("remote_id", sa.String(), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("logical", sa.String(), nullable=True),
        sa.Column("min_disk_gib", sa.Integer(), nullable=False),
        sa.Column("min_memory_mib", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["catalogue_version_id"],
            ["catalogue_versions.id"],
            name=op.f("fk_site_images_catalogue_version_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(["site_id"], ["sites.id"], name=op.f("fk_site_images_site_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_site_images")),
        sa.UniqueConstraint(
            "catalogue_version_id", "remote_id", name=op.f("uq_site_images_catalogue_version_id_remote_id")
        ),
    )
    op.create_table(
        "quote_offers",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("quote_id", sa.Uuid(), nullable=False),
        sa.Column("rank", sa.Integer(), nullable=False),
        sa.Column("site_id", sa.Uuid(), nullable=False),
        sa.Column("offer_id", sa.Uuid(), nullable=False),
        sa.Column("rate_card_version_id", sa.Uuid(), nullable=False),
        sa.Column("image_remote_id", sa.String(), nullable=False),
        sa.Column("commodity", sa.String(), nullable=False),
        sa.Column("total", sa.Numeric(precision=28, scale=9), nullable=False),
        sa.Column("hold", sa.Numeric(precision=28, scale=9), nullable=False),
        sa.Column("hourly", sa.Numeric(precision=28, scale=9), nullable=False),
        sa.Column("lines", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.ForeignKeyConstraint(["offer_id"], ["offers.id"], name=op.f("fk_quote_offers_offer_id")),
        sa.ForeignKeyConstraint(["quote_id"], ["quotes.id"], name=op.f("fk_quote_offers_quote_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(
            ["rate_card_version_id"], ["rate_card_versions.id"], name=op.f("fk_quote_offers_rate_card_version_id")
        ),
        sa.ForeignKeyConstraint(["site_id"], ["sites.id"], name=op.f("fk_quote_offers_site_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_quote_offers")),
        sa.UniqueConstraint("quote_id", "rank", name=op.f("uq_quote_offers_quote_id_rank")),
    )
    op.create_table(
        "orders",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("workload_id", sa.Uuid(), nullable=False),
        sa.Column("quote_id", sa.Uuid(), nullable=False),
        sa.Column("quote_offer_id", sa.Uuid(), nullable=False),
        sa.Column("project_id", sa.Uuid(), nullable=False),
        sa.Column(
            "state",
            sa.Enum(
                "placed",
                "active",
                "returned",
                "stopping",
                "over",
                name="state",
                native_enum=False,
                create_constraint=True,
                length=30,
            ),
            nullable=False,
        ),
        sa.Column("members", sa.Integer(), nullable=False),
        sa.Column("duration", sa.Interval(), nullable=False),
        sa.Column("placed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("reason", sa.String(), nullable=True),
        sa.Column("idempotency_key", sa.String(), nullable=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.CheckConstraint("members > 0", name=op.f("ck_orders_members_positive")),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_orders_project_id")),
        sa.ForeignKeyConstraint(["quote_id"], ["quotes.id"], name=op.f("fk_orders_quote_id")),
        sa.ForeignKeyConstraint(["quote_offer_id"], ["quote_offers.id"], name=op.f("fk_orders_quote_offer_id")),
        sa.ForeignKeyConstraint(["workload_id"], ["workloads.id"], name=op.f("fk_orders_workload_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_orders")),
    )
    op.create_index(op.f("ix_orders_project_id"), "orders", ["project_id"], unique=False)
    op.create_index(op.f("ix_orders_workload_id"), "orders", ["workload_id"], unique=False)
    op.create_index(
        "uq_orders_idempotency_key",
        "orders",
        ["project_id", "idempotency_key"],
        unique=True,
        postgresql_where=sa.text("idempotency_key IS NOT NULL"),
    )
    op.create_table(
        "leases",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("order_id", sa.Uuid(), nullable=False),
        sa.Column("member", sa.Integer(), nullable=False),
        sa.Column("site_id", sa.Uuid(), nullable=False),
        sa.Column("quote_offer_id", sa.Uuid(), nullable=False),
        sa.Column("project", sa.String(), nullable=False),
        sa.Column("spec", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column(
            "desired",
            sa.Enum(
                "running",
                "stopped",
                "shelved",
                "gone",
                name="desired",
                native_enum=False,
                create_constraint=True,
                length=30,
            ),
            nullable=False,
        ),
        sa.Column(
            "state",
            sa.Enum(
                "pending",
                "building",
                "running",
                "stopped",
                "shelved",
                "error",
                "deleting",
                "unknown",
                "gone",
                name="state",
                native_enum=False,
                create_constraint=True,
                length=30,
            ),
            nullable=False,
        ),
        sa.Column("addresses", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("made_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ends_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("gone_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("stop_reason", sa.String(), nullable=True),
        sa.Column("failure", sa.String(), nullable=True),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("claim_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("next_look_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("trouble", sa.String(), nullable=True),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("missing_since", sa.DateTime(timezone=True), nullable=True),
        sa.Column("is_missing", sa.Boolean(), nullable=False),
        sa.Column("settled_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["order_id"], ["orders.id"], name=op.f("fk_leases_order_id")),
        sa.ForeignKeyConstraint(["quote_offer_id"], ["quote_offers.id"], name=op.f("fk_leases_quote_offer_id")),
        sa.ForeignKeyConstraint(["site_id"], ["sites.id"], name=op.f("fk_leases_site_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_leases")),
    )
    op.create_index(
        "ix_leases_due", "leases", ["next_look_at"], unique=False, postgresql_where=sa.text("next_look_at IS NOT NULL")
    )
    op.create_index("ix_leases_live", "leases", ["site_id"], unique=False, postgresql_where=sa.text("gone_at IS NULL"))
    op.create_index(op.f("ix_leases_order_id"), "leases", ["order_id"], unique=False)
    op.create_index(
        "uq_leases_member", "leases", ["order_id", "member"], unique=True, postgresql_where=sa.text("gone_at IS NULL")
    )
    op.create_table(
        "money_holds",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("order_id", sa.Uuid(), nullable=False),
        sa.Column("balance_id", sa.Uuid(), nullable=False),
        sa.Column("amount", sa.Numeric(precision=28, scale=9), nullable=False),
        sa.Column("remaining", sa.Numeric(precision=28, scale=9), nullable=False),
        sa.Column("made_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("until", sa.DateTime(timezone=True), nullable=False),
        sa.Column("released_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("remaining >= 0 AND remaining <= amount", name=op.f("ck_money_holds_remaining_within")),
        sa.ForeignKeyConstraint(["balance_id"], ["balances.id"], name=op.f("fk_money_holds_balance_id")),
        sa.ForeignKeyConstraint(["order_id"], ["orders.id"], name=op.f("fk_money_holds_order_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_money_holds")),
    )
    op.create_index(op.f("ix_money_holds_balance_id"), "money_holds", ["balance_id"], unique=False)
    op.create_index(op.f("ix_money_holds_order_id"), "money_holds", ["order_id"], unique=False)
    op.create_index(
        "uq_money_holds_open",
        "money_holds",
        ["order_id", "balance_id"],
        unique=True,
        postgresql_where=sa.text("released_at IS NULL"),
    )
    op.create_table(
        "events",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("text", sa.String(), nullable=False),
        sa.Column("actor", sa.String(), nullable=False),
        sa.Column("workload_id", sa.Uuid(), nullable=True),
        sa.Column("order_id", sa.Uuid(), nullable=True),
        sa.Column("lease_id", sa.Uuid(), nullable=True),
        sa.Column("site_id", sa.Uuid(), nullable=True),
        sa.Column("data", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.ForeignKeyConstraint(["lease_id"], ["leases.id"], name=op.f("fk_events_lease_id")),
        sa.ForeignKeyConstraint(["order_id"], ["orders.id"], name=op.f("fk_events_order_id")),
        sa.ForeignKeyConstraint(["site_id"], ["sites.id"], name=op.f("fk_events_site_id"), ondelete="SET NULL"),
        sa.ForeignKeyConstraint(["workload_id"], ["workloads.id"], name=op.f("fk_events_workload_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_events")),
    )
    op.create_index("ix_events_lease_id_at", "events", ["lease_id", "at"], unique=False)
    op.create_index("ix_events_workload_id_at", "events", ["workload_id", "at"], unique=False)
    op.create_table(
        "findings",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("text", sa.String(), nullable=False),
        sa.Column("hint", sa.String(), nullable=False),
        sa.Column("site_id", sa.Uuid(), nullable=True),
        sa.Column("lease_id", sa.Uuid(), nullable=True),
        sa.Column("per_day", sa.Numeric(precision=28, scale=9), nullable=True),
        sa.Column("commodity", sa.String(), nullable=True),
        sa.Column("first_seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("resolved_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["lease_id"], ["leases.id"], name=op.f("fk_findings_lease_id")),
        sa.ForeignKeyConstraint(["site_id"], ["sites.id"], name=op.f("fk_findings_site_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_findings")),
    )
    op.create_index(
        "uq_findings_open", "findings", ["kind", "key"], unique=True, postgresql_where=sa.text("resolved_at IS NULL")
    )
    op.create_table(
        "observations",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("lease_id", sa.Uuid(), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column(
            "state",
            sa.Enum(
                "pending",
                "building",
                "running",
                "stopped",
                "shelved",
                "error",
                "deleting",
                "unknown",
                "gone",
                name="state",
                native_enum=False,
                create_constraint=True,
                length=30,
            ),
            nullable=False,
        ),
        sa.Column("raw_status", sa.String(), nullable=False),
        sa.Column("instance_type", sa.String(), nullable=True),
        sa.Column("since", sa.DateTime(timezone=True), nullable=True),
        sa.Column("is_estimated", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["lease_id"], ["leases.id"], name=op.f("fk_observations_lease_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_observations")),
        sa.UniqueConstraint("lease_id", "seen_at", name=op.f("uq_observations_lease_id_seen_at")),
    )
    op.create_table(
        "parts",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("lease_id", sa.Uuid(), nullable=False),
        sa.Column(
            "kind",
            sa.Enum(
                "key_pair",
                "port",
                "server",
                "address",
                name="kind",
                native_enum=False,
                create_constraint=True,
                length=30,
            ),
            nullable=False,
        ),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column(
            "fence",
            sa.Enum(
                "name", "token", "part", "none", name="fence", native_enum=False, create_constraint=True, length=30
            ),
            nullable=False,
        ),
        sa.Column("is_harmless", sa.Boolean(), nullable=False),
        sa.Column("remote_id", sa.String(), nullable=True),
        sa.Column("made_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("gone_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "gone_at IS NULL OR made_at IS NULL OR remote_id IS NOT NULL", name=op.f("ck_parts_gone_after_made")
        ),
        sa.ForeignKeyConstraint(["lease_id"], ["leases.id"], name=op.f("fk_parts_lease_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_parts")),
        sa.UniqueConstraint("lease_id", "kind", name=op.f("uq_parts_lease_id_kind")),
    )
    op.create_index("ix_parts_remote", "parts", ["kind", "remote_id"], unique=False)
    op.create_table(
        "quota_holds",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("pool_id", sa.Uuid(), nullable=False),
        sa.Column("lease_id", sa.Uuid(), nullable=False),
        sa.Column("amount", sa.Numeric(precision=28, scale=9), nullable=False),
        sa.Column("counted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("released_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("amount >= 0", name=op.f("ck_quota_holds_amount_not_negative")),
        sa.ForeignKeyConstraint(["lease_id"], ["leases.id"], name=op.f("fk_quota_holds_lease_id")),
        sa.ForeignKeyConstraint(
            ["pool_id"], ["quota_pools.id"], name=op.f("fk_quota_holds_pool_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_quota_holds")),
        sa.UniqueConstraint("lease_id", "pool_id", name=op.f("uq_quota_holds_lease_id_pool_id")),
    )
    op.create_index(
        "ix_quota_holds_open",
        "quota_holds",
        ["pool_id"],
        unique=False,
        postgresql_where=sa.text("released_at IS NULL AND counted_at IS NULL"),
    )
    op.create_table(
        "segments",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("lease_id", sa.Uuid(), nullable=False),
        sa.Column("starts_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ends_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "state",
            sa.Enum(
                "pending",
                "building",
                "running",
                "stopped",
                "shelved",
                "error",
                "deleting",
                "unknown",
                "gone",
                name="state",
                native_enum=False,
                create_constraint=True,
                length=30,
            ),
            nullable=False,
        ),
        sa.Column("sku", sa.String(length=200), nullable=False),
        sa.Column("rate_card_version_id", sa.Uuid(), nullable=True),
        sa.Column("is_estimated", sa.Boolean(), nullable=False),
        sa.CheckConstraint("ends_at IS NULL OR ends_at > starts_at", name=op.f("ck_segments_ends_after_start")),
        sa.ForeignKeyConstraint(["lease_id"], ["leases.id"], name=op.f("fk_segments_lease_id")),
        sa.ForeignKeyConstraint(
            ["rate_card_version_id"], ["rate_card_versions.id"], name=op.f("fk_segments_rate_card_version_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_segments")),
        sa.UniqueConstraint("lease_id", "starts_at", name=op.f("uq_segments_lease_id_starts_at")),
    )
    op.create_index(
        "uq_segments_open", "segments", ["lease_id"], unique=True, postgresql_where=sa.text("ends_at IS NULL")
    )
    op.create_table(
        "charges",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("segment_id", sa.Uuid(), nullable=False),
        sa.Column("entry_id", sa.Uuid(), nullable=False),
        sa.Column("lease_id", sa.Uuid(), nullable=False),
        sa.Column("project_id", sa.Uuid(), nullable=False),
        sa.Column(
            "state",
            sa.Enum(
                "provisional", "matched", "closed", name="state", native_enum=False, create_constraint=True, length=30
            ),
            nullable=False,
        ),
        sa.Column("charge_category", sa.String(), nullable=False),
        sa.Column("charge_class", sa.String(), nullable=True),
        sa.Column("charge_description", sa.String(), nullable=False),
        sa.Column("charge_period_start", sa.DateTime(timezone=True), nullable=False),
        sa.Column("charge_period_end", sa.DateTime(timezone=True), nullable=False),
        sa.Column("billing_period_start", sa.DateTime(timezone=True), nullable=False),
        sa.Column("billing_period_end", sa.DateTime(timezone=True), nullable=False),
        sa.Column("billing_currency", sa.String(), nullable=False),
        sa.Column("service_category", sa.String(), nullable=False),
        sa.Column("service_name", sa.String(), nullable=False),
        sa.Column("service_provider_name", sa.String(length=200), nullable=False),
        sa.Column("region_id", sa.String(), nullable=True),
        sa.Column("resource_id", sa.String(), nullable=False),
        sa.Column("resource_name", sa.String(length=200), nullable=False),
        sa.Column("resource_type", sa.String(), nullable=False),
        sa.Column("sku_id", sa.String(length=200), nullable=False),
        sa.Column("sku_price_id", sa.String(), nullable=False),
        sa.Column("pricing_category", sa.String(), nullable=False),
        sa.Column("pricing_quantity", sa.Numeric(precision=28, scale=9), nullable=False),
        sa.Column("pricing_unit", sa.String(), nullable=False),
        sa.Column("consumed_quantity", sa.Numeric(precision=28, scale=9), nullable=False),
        sa.Column("consumed_unit", sa.String(), nullable=False),
        sa.Column("list_unit_price", sa.Numeric(precision=19, scale=9), nullable=False),
        sa.Column("contracted_unit_price", sa.Numeric(precision=19, scale=9), nullable=False),
        sa.Column("list_cost", sa.Numeric(precision=28, scale=9), nullable=False),
        sa.Column("contracted_cost", sa.Numeric(precision=28, scale=9), nullable=False),
        sa.Column("billed_cost", sa.Numeric(precision=28, scale=9), nullable=False),
        sa.Column("effective_cost", sa.Numeric(precision=28, scale=9), nullable=False),
        sa.Column("x_machine_state", sa.String(), nullable=False),
        sa.Column("x_share", sa.Numeric(precision=28, scale=9), nullable=False),
        sa.Column("x_estimated", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["entry_id"], ["entries.id"], name=op.f("fk_charges_entry_id")),
        sa.ForeignKeyConstraint(["lease_id"], ["leases.id"], name=op.f("fk_charges_lease_id")),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_charges_project_id")),
        sa.ForeignKeyConstraint(["segment_id"], ["segments.id"], name=op.f("fk_charges_segment_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_charges")),
        sa.UniqueConstraint("segment_id", "sku_price_id", name=op.f("uq_charges_segment_id_sku_price_id")),
    )
    op.create_index(op.f("ix_charges_lease_id"), "charges", ["lease_id"], unique=False)
    op.create_index(op.f("ix_charges_project_id"), "charges", ["project_id"], unique=False)
    op.create_table(
        "launch_attempts",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("lease_id", sa.Uuid(), nullable=False),
        sa.Column("part_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column(
            "fence",
            sa.Enum(
                "name", "token", "part", "none", name="fence", native_enum=False, create_constraint=True, length=30
            ),
            nullable=False,
        ),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("give_up_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("remote_id", sa.String(), nullable=True),
        sa.Column(
            "outcome",
            sa.Enum(
                "prepared",
                "unknown",
                "created",
                "refused",
                "absent",
                "discard",
                "gone",
                name="outcome",
                native_enum=False,
                create_constraint=True,
                length=30,
            ),
            nullable=False,
        ),
        sa.Column("error_code", sa.String(), nullable=True),
        sa.Column("error", sa.String(), nullable=True),
        sa.Column("resolved_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["lease_id"], ["leases.id"], name=op.f("fk_launch_attempts_lease_id")),
        sa.ForeignKeyConstraint(["part_id"], ["parts.id"], name=op.f("fk_launch_attempts_part_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_launch_attempts")),
        sa.UniqueConstraint("part_id", "number", name=op.f("uq_launch_attempts_part_id_number")),
    )
    op.create_index("ix_launch_attempts_lease_id", "launch_attempts", ["lease_id"], unique=False)
    op.create_index(
        "uq_launch_attempts_open",
        "launch_attempts",
        ["part_id"],
        unique=True,
        postgresql_where=sa.text("outcome IN ('prepared', 'unknown')"),
    )
    _promise()
    install_queue(op)


def downgrade() -> None:
    remove_queue(op)
    op.drop_index(
        "uq_launch_attempts_open",
        table_name="launch_attempts",
        postgresql_where=sa.text("outcome IN ('prepared', 'unknown')"),
    )
    op.drop_index("ix_launch_attempts_lease_id", table_name="launch_attempts")
    op.drop_table("launch_attempts")
    op.drop_index(op.f("ix_charges_project_id"), table_name="charges")
    op.drop_index(op.f("ix_charges_lease_id"), table_name="charges")
    op.drop_table("charges")
    op.drop_index("uq_segments_open", table_name="segments", postgresql_where=sa.text("ends_at IS NULL"))
    op.drop_table("segments")
    op.drop_index(
        "ix_quota_holds_open",
        table_name="quota_holds",
        postgresql_where=sa.text("released_at IS NULL AND counted_at IS NULL"),
    )
    op.drop_table("quota_holds")
    op.drop_index("ix_parts_remote", table_name="parts")
    op.drop_table("parts")
    op.drop_table("observations")
    op.drop_index("uq_findings_open", table_name="findings", postgresql_where=sa.text("resolved_at IS NULL"))
    op.drop_table("findings")
    op.drop_index("ix_events_workload_id_at", table_name="events")
    op.drop_index("ix_events_lease_id_at", table_name="events")
    op.drop_table("events")
    op.drop_index("uq_money_holds_open", table_name="money_holds", postgresql_where=sa.text("released_at IS NULL"))
    op.drop_index(op.f("ix_money_holds_order_id"), table_name="money_holds")
    op.drop_index(op.f("ix_money_holds_balance_id"), table_name="money_holds")
    op.drop_table("money_holds")
    op.drop_index("uq_leases_member", table_name="leases", postgresql_where=sa.text("gone_at IS NULL"))
    op.drop_index(op.f("ix_leases_order_id"), table_name="leases")
    op.drop_index("ix_leases_live", table_name="leases", postgresql_where=sa.text("gone_at IS NULL"))
    op.drop_index("ix_leases_due", table_name="leases", postgresql_where=sa.text("next_look_at IS NOT NULL"))
    op.drop_table("leases")
    op.drop_index(
        "uq_orders_idempotency_key", table_name="orders", postgresql_where=sa.text("idempotency_key IS NOT NULL")
    )
    op.drop_index(op.f("ix_orders_workload_id"), table_name="orders")
    op.drop_index(op.f("ix_orders_project_id"), table_name="orders")
    op.drop_table("orders")
    op.drop_table("quote_offers")
    op.drop_table("site_images")
    op.drop_index(op.f("ix_quotes_workload_id"), table_name="quotes")
    op.drop_table("quotes")
    op.drop_table("offers")
    op.drop_index(op.f("ix_workloads_project_id"), table_name="workloads")
    op.drop_table("workloads")
    op.drop_index("ix_site_listings_site_id_started_at", table_name="site_listings")
    op.drop_table("site_listings")
    op.drop_index(
        "uq_site_credentials_site_id_person_id", table_name="site_credentials", postgresql_nulls_not_distinct=True
    )
    op.drop_table("site_credentials")
    op.drop_table("rate_card_prices")
    op.drop_table("quota_pools")
    op.drop_table("grants")
    op.drop_index(
        "uq_catalogue_versions_current",
        table_name="catalogue_versions",
        postgresql_where=sa.text("superseded_at IS NULL"),
    )
    op.drop_table("catalogue_versions")
    op.drop_table("sites")
    op.drop_index(
        "uq_rate_card_versions_open", table_name="rate_card_versions", postgresql_where=sa.text("valid_to IS NULL")
    )
    op.drop_table("rate_card_versions")
    op.drop_table("projects")
    op.drop_index(op.f("ix_postings_entry_id"), table_name="postings")
    op.drop_index(op.f("ix_postings_account_id"), table_name="postings")
    op.drop_table("postings")
    op.drop_table("balances")
    op.drop_table("providers")
    op.drop_table("persons")
    op.drop_table("institutions")
    op.drop_table("installations")
    op.drop_table("entries")
    op.drop_table("clock_slots")
    op.drop_table("accounts")
    for function in ("refuse_change", "entry_sums_to_zero", "segment_overlaps_none"):
        op.execute(f"DROP FUNCTION {function}()")


def _promise() -> None:
    """What must hold whatever the code does: append-only books that sum to zero, and segments that do not overlap."""
    for statement in PROMISES:
        op.execute(statement)
    for table in APPEND_ONLY:
        op.execute(
            f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
        )
    revoke_changes(op, *APPEND_ONLY)


APPEND_ONLY = ("postings", "entries", "events", "observations")

PROMISES = (
    """
    CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RAISE EXCEPTION '% is append-only: correct it by a new row', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
    END $$
    """,
    """
    CREATE FUNCTION entry_sums_to_zero() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF EXISTS (SELECT FROM postings WHERE entry_id = NEW.entry_id GROUP BY commodity HAVING sum(amount) <> 0) THEN
            RAISE EXCEPTION 'postings of entry % do not sum to zero', NEW.entry_id USING ERRCODE = 'check_violation';
        END IF;
        RETURN NULL;
    END $$
    """,
    """
    CREATE CONSTRAINT TRIGGER postings_sum_to_zero AFTER INSERT ON postings
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION entry_sums_to_zero()
    """,
    """
    CREATE FUNCTION segment_overlaps_none() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        -- Writers of one lease take turns, so that two of them cannot both find the place free.
        PERFORM FROM leases WHERE id = NEW.lease_id FOR NO KEY UPDATE;
        IF EXISTS (
            SELECT FROM segments
            WHERE lease_id = NEW.lease_id AND id <> NEW.id
              AND tstzrange(starts_at, ends_at) && tstzrange(NEW.starts_at, NEW.ends_at)
        ) THEN
            RAISE EXCEPTION 'segments of lease % overlap', NEW.lease_id USING ERRCODE = 'exclusion_violation';
        END IF;
        RETURN NEW;
    END $$
    """,
    """
    CREATE TRIGGER segments_overlap_none BEFORE INSERT OR UPDATE OF starts_at, ends_at ON segments
    FOR EACH ROW EXECUTE FUNCTION segment_overlaps_none()
    """,
)
