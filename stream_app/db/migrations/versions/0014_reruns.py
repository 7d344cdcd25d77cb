"""Jobs that repeat the request of another job"""

from alembic import op

from stream_app.db.migrations.steps import alter_table

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    alter_table(
        "export_jobs",
        "ADD COLUMN IF NOT EXISTS rerun_of uuid",
        "ADD COLUMN IF NOT EXISTS rights_at timestamptz",
    )


def downgrade() -> None:
    op.drop_column("export_jobs", "rights_at")
    op.drop_column("export_jobs", "rerun_of")
