"""Workers that run, pauses of claims, the stages of running jobs, and handled dead letters"""

import sqlalchemy as sa
from alembic import op

from stream_app.db.migrations.steps import alter_table

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    alter_table("export_jobs", "ADD COLUMN IF NOT EXISTS stages jsonb")
    op.create_table(
        "workers",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("slots", sa.Integer(), nullable=False),
        sa.Column("running", sa.Integer(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name"),
        if_not_exists=True,
    )
    op.create_table(
        "claim_pauses",
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("paused_by", sa.Text(), nullable=False),
        sa.Column("paused_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.PrimaryKeyConstraint("scope"),
        if_not_exists=True,
    )
    op.create_table(
        "handled_dead_letters",
        sa.Column("partition", sa.Integer(), nullable=False),
        sa.Column("offset", sa.BigInteger(), nullable=False),
        sa.Column("written_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("handled_by", sa.Text(), nullable=False),
        sa.Column("handled_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.PrimaryKeyConstraint("partition", "offset", "written_at"),
        if_not_exists=True,
    )


def downgrade() -> None:
    op.drop_table("handled_dead_letters")
    op.drop_table("claim_pauses")
    op.drop_table("workers")
    op.drop_column("export_jobs", "stages")
