"""Indexes for claims that do not slow down with the backlog"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

WAITING = sa.text("status = 'pending' AND outcome IS NULL")
RUNNING = sa.text("status = 'processing' AND outcome IS NULL")


def upgrade() -> None:
    op.drop_index("export_jobs_waiting", table_name="export_jobs")
    op.create_index(
        "export_jobs_waiting", "export_jobs", ["priority", "created_at"], postgresql_where=WAITING
    )
    op.create_index(
        "export_jobs_user_waiting",
        "export_jobs",
        ["user_id", "priority", "created_at", "id"],
        postgresql_where=WAITING,
    )
    op.create_index("export_jobs_running", "export_jobs", ["user_id"], postgresql_where=RUNNING)


def downgrade() -> None:
    op.drop_index("export_jobs_running", table_name="export_jobs")
    op.drop_index("export_jobs_user_waiting", table_name="export_jobs")
    op.drop_index("export_jobs_waiting", table_name="export_jobs")
    op.create_index(
        "export_jobs_waiting",
        "export_jobs",
        ["priority", "created_at"],
        postgresql_where=sa.text("status IN ('pending', 'processing')"),
    )
