"""Files know the manifest that lists them"""

from alembic import op

from stream_app.db.migrations.steps import alter_table

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    alter_table("export_files", "ADD COLUMN IF NOT EXISTS result text")


def downgrade() -> None:
    op.drop_column("export_files", "result")
