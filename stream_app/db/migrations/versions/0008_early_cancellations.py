"""Cancellations that came before their requests, by their time"""

from alembic import op

from stream_app.db.migrations.steps import create_index

revision = "0008"
down_revision = "0007"

INDEX, TABLE = "early_cancellations_requested", "early_cancellations"


def upgrade() -> None:
    create_index(INDEX, TABLE, ["requested_at"])


def downgrade() -> None:
    op.drop_index(INDEX, table_name=TABLE)
