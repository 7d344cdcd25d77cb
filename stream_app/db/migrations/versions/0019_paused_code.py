"""Why the service has paused a schedule, as a code for programs and for texts in other languages"""

from alembic import op

from stream_app.db.migrations.steps import alter_table

revision = "0019"
down_revision = "0018"


def upgrade() -> None:
    alter_table("scheduled_exports", "ADD COLUMN IF NOT EXISTS paused_code text")


def downgrade() -> None:
    op.drop_column("scheduled_exports", "paused_code")
