"""Jobs and schedules can have a destination, and completed jobs get a delivery to it"""

from alembic import op

from stream_app.db.migrations.steps import alter_table, create_trigger

revision = "0018"
down_revision = "0017"

TABLES = ("export_jobs", "scheduled_exports")
PLAN = "export_jobs_plan_destination"


def upgrade() -> None:
    for table in TABLES:
        alter_table(table, "ADD COLUMN IF NOT EXISTS destination text")
    alter_table("deliveries", "ADD COLUMN IF NOT EXISTS progress jsonb")
    op.execute(
        f"""
        CREATE OR REPLACE FUNCTION {PLAN}() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO deliveries (job_id, channel, address, event, topic, user_id, host, give_up_at)
            VALUES (NEW.id, 'destination', NEW.destination, NEW.status,
                    coalesce('schedule:' || NEW.schedule_id, 'user:' || NEW.user_id), NEW.user_id,
                    'destination:' || NEW.destination, now() + interval '1 day')
            ON CONFLICT DO NOTHING;
            RETURN NULL;
        END $$
        """
    )
    create_trigger(
        PLAN,
        "export_jobs",
        "AFTER UPDATE ON export_jobs FOR EACH ROW "
        "WHEN (NEW.destination IS NOT NULL AND NEW.status = 'completed' AND OLD.status <> 'completed' "
        f"AND OLD.outcome IS NOT NULL) EXECUTE FUNCTION {PLAN}()",
    )


def downgrade() -> None:
    op.execute(f"DROP TRIGGER {PLAN} ON export_jobs")
    op.execute(f"DROP FUNCTION {PLAN}()")
    for table in TABLES:
        op.drop_column(table, "destination")
    op.drop_column("deliveries", "progress")
