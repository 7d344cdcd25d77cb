"""Deliveries in turn: by user and by host; addresses found fast

Columns have constant defaults, so that adding them rewrites no table; workers of the version before fill in
none of them and go on working.
"""

import sqlalchemy as sa
from alembic import op

from stream_app.db.migrations.steps import alter_table, create_index

revision = "0007"
down_revision = "0006"

DELIVERIES, HOSTS = "deliveries", "receiver_hosts"


def upgrade() -> None:
    op.create_table(
        HOSTS,
        sa.Column("host", sa.Text(), primary_key=True),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("not_before", sa.DateTime(timezone=True), nullable=False),
        if_not_exists=True,
    )
    alter_table(
        DELIVERIES,
        "ADD COLUMN IF NOT EXISTS user_id text DEFAULT '' NOT NULL",
        "ADD COLUMN IF NOT EXISTS host text DEFAULT '' NOT NULL",
    )
    create_index(
        "deliveries_in_turn",
        DELIVERIES,
        ["channel", "user_id", "host", "not_before"],
        postgresql_where=sa.text("status = 'pending'"),
    )
    create_index(
        "deliveries_mails",
        DELIVERIES,
        ["user_id", "created_at"],
        postgresql_where=sa.text("channel = 'mail'"),
    )
    create_index("deliveries_address", DELIVERIES, [sa.text("lower(address)")])


def downgrade() -> None:
    op.drop_table(HOSTS)
    for index in ("deliveries_address", "deliveries_mails", "deliveries_in_turn"):
        op.drop_index(index, table_name=DELIVERIES)
    for column in ("host", "user_id"):
        op.drop_column(DELIVERIES, column)
