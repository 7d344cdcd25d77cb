"""Delivery"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def _time(name: str, *, nullable: bool = True, default: str | None = None) -> sa.Column[object]:
    return sa.Column(
        name,
        sa.DateTime(timezone=True),
        server_default=sa.text(default) if default else None,
        nullable=nullable,
    )


def upgrade() -> None:
    op.add_column("export_jobs", sa.Column("webhook", sa.Text(), nullable=True))
    op.create_table(
        "deliveries",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("channel", sa.Text(), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("event", sa.Text(), nullable=False),
        sa.Column("topic", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), server_default="pending", nullable=False),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        _time("not_before", nullable=False, default="now()"),
        _time("give_up_at", nullable=False),
        sa.Column("worker", sa.Text(), nullable=True),
        _time("lease_until"),
        sa.Column("reason", sa.Text(), nullable=True),
        _time("created_at", nullable=False, default="now()"),
        _time("finished_at"),
        _time("revoked_at"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("job_id", "channel", "address", name="deliveries_once"),
    )
    op.create_index(
        "deliveries_due",
        "deliveries",
        ["channel", "not_before"],
        postgresql_where=sa.text("status = 'pending'"),
    )
    op.create_index(
        "deliveries_sending",
        "deliveries",
        ["lease_until"],
        postgresql_where=sa.text("status = 'sending'"),
    )
    op.create_table(
        "suppressed_addresses",
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        _time("created_at", nullable=False, default="now()"),
        sa.PrimaryKeyConstraint("address"),
    )
    op.create_table(
        "unsubscriptions",
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("topic", sa.Text(), nullable=False),
        _time("created_at", nullable=False, default="now()"),
        sa.PrimaryKeyConstraint("address", "topic"),
    )


def downgrade() -> None:
    op.drop_table("unsubscriptions")
    op.drop_table("suppressed_addresses")
    op.drop_table("deliveries")
    op.drop_column("export_jobs", "webhook")
