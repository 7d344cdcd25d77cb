"""The index of jobs that are not admitted is without the lease, so that a heartbeat changes no index"""

import sqlalchemy as sa
from alembic import op

from stream_app.db.migrations.steps import create_index, drop_index

revision = "0021"
down_revision = "0020"

TABLE = "export_jobs"
OLD, NEW = "export_jobs_unadmitted", "export_jobs_unadmitted_since"
UNADMITTED = "status = 'pending' AND outcome IS NULL AND admitted_at IS NULL"


def upgrade() -> None:
    create_index(NEW, TABLE, ["created_at"], postgresql_where=sa.text(UNADMITTED))
    drop_index(OLD, TABLE)


def downgrade() -> None:
    op.create_index(OLD, TABLE, ["lease_until"], postgresql_where=sa.text(UNADMITTED), if_not_exists=True)
    op.drop_index(NEW, table_name=TABLE)
