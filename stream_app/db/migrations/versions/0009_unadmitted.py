"""Requests that are still to be admitted, and windows that are in no file"""

import sqlalchemy as sa
from alembic import op

from stream_app.db.migrations.steps import create_index

revision = "0009"
down_revision = "0008"

UNADMITTED = "status = 'pending' AND outcome IS NULL AND admitted_at IS NULL"


def upgrade() -> None:
    op.create_table(
        "schedule_gaps",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("schedule_id", sa.Uuid(), nullable=False),
        sa.Column("window_start", sa.DateTime(timezone=True), nullable=False),
        sa.Column("window_end", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("schedule_id", "window_start", "window_end", name="schedule_gaps_once"),
        if_not_exists=True,
    )
    create_index(
        "export_jobs_unadmitted",
        "export_jobs",
        ["lease_until"],
        postgresql_where=sa.text(UNADMITTED),
    )


def downgrade() -> None:
    op.drop_index("export_jobs_unadmitted", table_name="export_jobs")
    op.drop_table("schedule_gaps")
