"""Jobs of a user that ended before they started are counted without reading the jobs of other users

The index is built without blocking writers. Workers and APIs of the version before do not notice it.
"""

import sqlalchemy as sa

from stream_app.db.migrations.steps import create_index, drop_index

revision = "0024"
down_revision = "0023"

INDEX, TABLE = "export_jobs_ended_unstarted", "export_jobs"


def upgrade() -> None:
    create_index(
        INDEX, TABLE, ["user_id"], postgresql_where=sa.text("status = 'pending' AND outcome IS NOT NULL")
    )


def downgrade() -> None:
    drop_index(INDEX, TABLE)
