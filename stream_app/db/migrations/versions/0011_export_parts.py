"""Parts of large split exports, which any worker can claim"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

from stream_app.db.migrations.steps import alter_table

revision = "0011"
down_revision = "0010"

TABLES = ("export_jobs", "scheduled_exports")


def upgrade() -> None:
    op.create_table(
        "export_parts",
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("range", JSONB(none_as_null=True), nullable=False),
        sa.Column("folder", sa.Text(), nullable=False),
        sa.Column("snapshot", sa.Text(), nullable=True),
        sa.Column("as_of", sa.DateTime(timezone=True), nullable=True),
        sa.Column("status", sa.Text(), server_default="pending", nullable=False),
        sa.Column("part_attempt", sa.Integer(), server_default="0", nullable=False),
        sa.Column("failures", sa.Integer(), server_default="0", nullable=False),
        sa.Column("worker", sa.Text(), nullable=True),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("not_before", sa.DateTime(timezone=True), nullable=True),
        sa.Column("row_count", sa.BigInteger(), nullable=True),
        sa.Column("result", JSONB(none_as_null=True), nullable=True),
        sa.Column("error_code", sa.Text(), nullable=True),
        sa.Column("error_message", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("job_id", "attempt", "number"),
        if_not_exists=True,
    )
    op.create_index(
        "export_parts_waiting",
        "export_parts",
        ["job_id", "number"],
        postgresql_where=sa.text("status = 'pending'"),
        if_not_exists=True,
    )
    op.create_index(
        "export_parts_running",
        "export_parts",
        ["job_id"],
        postgresql_where=sa.text("status = 'processing'"),
        if_not_exists=True,
    )
    for table in TABLES:
        alter_table(table, "ADD COLUMN IF NOT EXISTS consistency text")


def downgrade() -> None:
    for table in TABLES:
        op.drop_column(table, "consistency")
    op.drop_table("export_parts")
