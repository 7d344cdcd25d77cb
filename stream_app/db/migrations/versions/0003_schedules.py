"""Schedules: what runs stand for, how they went"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"

JOBS, SCHEDULES = "export_jobs", "scheduled_exports"
NEWEST = [sa.text("created_at DESC"), sa.text("id DESC")]


def upgrade() -> None:
    op.add_column(JOBS, sa.Column("run_at", sa.DateTime(timezone=True)))
    op.add_column(JOBS, sa.Column("window", postgresql.JSONB(none_as_null=True)))
    op.create_index(
        "export_jobs_runs",
        JOBS,
        ["schedule_id", *NEWEST],
        postgresql_where=sa.text("schedule_id IS NOT NULL"),
    )
    op.alter_column(SCHEDULES, "time_of_day", nullable=True, server_default=None)
    op.add_column(SCHEDULES, sa.Column("catch_up", sa.Text(), server_default="last", nullable=False))
    op.add_column(SCHEDULES, sa.Column("delay", sa.Integer(), server_default=sa.text("0"), nullable=False))
    op.add_column(SCHEDULES, sa.Column("failures", sa.Integer(), server_default=sa.text("0"), nullable=False))
    op.add_column(SCHEDULES, sa.Column("column_kinds", postgresql.JSONB(none_as_null=True)))
    for name in ("window_start", "all_rows_until", "paused_at"):
        op.add_column(SCHEDULES, sa.Column(name, sa.DateTime(timezone=True)))
    for name in ("paused_reason", "webhook"):
        op.add_column(SCHEDULES, sa.Column(name, sa.Text()))
    op.create_index("scheduled_exports_user_newest", SCHEDULES, ["user_id", *NEWEST])
    op.create_index("scheduled_exports_newest", SCHEDULES, NEWEST)


def downgrade() -> None:
    op.drop_index("scheduled_exports_newest", table_name=SCHEDULES)
    op.drop_index("scheduled_exports_user_newest", table_name=SCHEDULES)
    for name in (
        "webhook",
        "paused_reason",
        "paused_at",
        "all_rows_until",
        "window_start",
        "column_kinds",
        "failures",
        "delay",
        "catch_up",
    ):
        op.drop_column(SCHEDULES, name)
    op.execute(f"UPDATE {SCHEDULES} SET time_of_day = '00:00' WHERE time_of_day IS NULL")
    op.alter_column(SCHEDULES, "time_of_day", nullable=False, server_default="00:00")
    op.drop_index("export_jobs_runs", table_name=JOBS)
    op.drop_column(JOBS, "window")
    op.drop_column(JOBS, "run_at")
