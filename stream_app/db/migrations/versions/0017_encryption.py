"""Exports can be encrypted, and older workers do not claim such jobs"""

from alembic import op

from stream_app.db.migrations.steps import alter_table, create_trigger

revision = "0017"
down_revision = "0016"

TABLES = ("export_jobs", "scheduled_exports")
GUARD = "export_jobs_guard_encryption"


def upgrade() -> None:
    for table in TABLES:
        alter_table(table, "ADD COLUMN IF NOT EXISTS encrypt jsonb")
    alter_table("export_jobs", "ADD COLUMN IF NOT EXISTS password_shown_at timestamptz")
    create_trigger(
        GUARD,
        "export_jobs",
        "BEFORE UPDATE ON export_jobs FOR EACH ROW "
        "WHEN (OLD.encrypt IS NOT NULL AND NEW.status = 'processing' AND NEW.attempt > OLD.attempt) "
        "EXECUTE FUNCTION export_jobs_guard_claim()",
    )


def downgrade() -> None:
    op.execute(f"DROP TRIGGER {GUARD} ON export_jobs")
    for table in TABLES:
        op.drop_column(table, "encrypt")
    op.drop_column("export_jobs", "password_shown_at")
