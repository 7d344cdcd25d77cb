"""Requests have parameters and claims, schedules keep them, and older workers do not claim such jobs"""

from alembic import op

from stream_app.db.migrations.steps import alter_table, create_trigger

revision = "0013"
down_revision = "0012"

TABLES = ("export_jobs", "scheduled_exports")
GUARD = "export_jobs_guard_rights"


def upgrade() -> None:
    for table in TABLES:
        alter_table(
            table, "ADD COLUMN IF NOT EXISTS parameters jsonb", "ADD COLUMN IF NOT EXISTS claims jsonb"
        )
    alter_table("scheduled_exports", "ADD COLUMN IF NOT EXISTS claims_until timestamptz")
    create_trigger(
        GUARD,
        "export_jobs",
        "BEFORE UPDATE ON export_jobs FOR EACH ROW "
        "WHEN ((OLD.parameters IS NOT NULL OR OLD.claims IS NOT NULL) "
        "AND NEW.status = 'processing' AND NEW.attempt > OLD.attempt) "
        "EXECUTE FUNCTION export_jobs_guard_claim()",
    )


def downgrade() -> None:
    op.execute(f"DROP TRIGGER {GUARD} ON export_jobs")
    for table in TABLES:
        op.drop_column(table, "parameters")
        op.drop_column(table, "claims")
    op.drop_column("scheduled_exports", "claims_until")
