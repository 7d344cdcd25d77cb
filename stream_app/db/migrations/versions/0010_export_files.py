"""Exports of several files: the request, the list of the files, and a guard against older workers"""

import sqlalchemy as sa
from alembic import op

from stream_app.db.migrations.steps import alter_table, create_trigger

revision = "0010"
down_revision = "0009"

GUARD = "export_jobs_guard_claim"


def upgrade() -> None:
    op.create_table(
        "export_files",
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("bucket", sa.Text(), nullable=False),
        sa.Column("file_name", sa.Text(), nullable=False),
        sa.Column("content_type", sa.Text(), nullable=False),
        sa.Column("row_count", sa.BigInteger(), nullable=False),
        sa.Column("file_size", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("job_id", "number", "key"),
        if_not_exists=True,
    )
    alter_table(
        "export_jobs",
        "ADD COLUMN IF NOT EXISTS split jsonb",
        "ADD COLUMN IF NOT EXISTS file_count integer",
    )
    alter_table("scheduled_exports", "ADD COLUMN IF NOT EXISTS split jsonb")
    # Workers of version 0.1 do not read the new column: a job that has it is left out of their claims.
    op.execute(
        f"""
        CREATE OR REPLACE FUNCTION {GUARD}() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF current_setting('exporter.reads', true) = 'split' THEN RETURN NEW; END IF;
            RETURN NULL;
        END $$
        """
    )
    create_trigger(
        GUARD,
        "export_jobs",
        "BEFORE UPDATE ON export_jobs FOR EACH ROW "
        "WHEN (OLD.split IS NOT NULL AND NEW.status = 'processing' AND NEW.attempt > OLD.attempt) "
        f"EXECUTE FUNCTION {GUARD}()",
    )


def downgrade() -> None:
    op.execute(f"DROP FUNCTION {GUARD}() CASCADE")
    op.drop_column("scheduled_exports", "split")
    op.drop_column("export_jobs", "file_count")
    op.drop_column("export_jobs", "split")
    op.drop_table("export_files")
