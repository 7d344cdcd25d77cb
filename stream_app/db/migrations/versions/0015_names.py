"""Exports and schedules can have a name"""

from alembic import op

from stream_app.db.migrations.steps import alter_table

revision = "0015"
down_revision = "0014"

TABLES = ("export_jobs", "scheduled_exports")


def upgrade() -> None:
    for table in TABLES:
        alter_table(table, "ADD COLUMN IF NOT EXISTS name text")


def downgrade() -> None:
    for table in TABLES:
        op.drop_column(table, "name")
