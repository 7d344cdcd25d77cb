"""Cancellations that came before their requests, by their time"""

from alembic import op

revision = "0008"
down_revision = "0007"

INDEX, TABLE = "early_cancellations_requested", "early_cancellations"


def upgrade() -> None:
    # Concurrently, so that nobody who writes waits for it.
    with op.get_context().autocommit_block():
        op.create_index(INDEX, TABLE, ["requested_at"], postgresql_concurrently=True, if_not_exists=True)


def downgrade() -> None:
    op.drop_index(INDEX, table_name=TABLE)
