"""Deliveries that failed or were possibly not sent are counted and listed without reading all others

The index is built without blocking writers. Workers and APIs of the version before do not notice it.
"""

import sqlalchemy as sa
from alembic import op

from stream_app.db.migrations.steps import create_index

revision = "0020"
down_revision = "0019"

INDEX, DELIVERIES = "deliveries_lost", "deliveries"


def upgrade() -> None:
    create_index(
        INDEX,
        DELIVERIES,
        ["status", "finished_at"],
        postgresql_where=sa.text("status IN ('failed', 'ambiguous')"),
    )


def downgrade() -> None:
    op.drop_index(INDEX, table_name=DELIVERIES)
