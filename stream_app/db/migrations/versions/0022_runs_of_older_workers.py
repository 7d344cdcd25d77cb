"""Jobs that workers of an older version plan from schedules keep encryption, claims and all other fields"""

from alembic import op

from stream_app.db.migrations.steps import create_trigger

revision = "0022"
down_revision = "0021"

COMPLETE = "export_jobs_complete_run"


def upgrade() -> None:
    op.execute(
        f"""
        CREATE OR REPLACE FUNCTION {COMPLETE}() RETURNS trigger LANGUAGE plpgsql AS $$
        DECLARE
            schedule scheduled_exports;
        BEGIN
            SELECT * INTO schedule FROM scheduled_exports WHERE id = NEW.schedule_id;
            IF NOT FOUND THEN RETURN NEW; END IF;
            NEW.name = coalesce(NEW.name, schedule.name);
            NEW.split = coalesce(NEW.split, schedule.split);
            NEW.consistency = coalesce(NEW.consistency, schedule.consistency);
            NEW.encrypt = coalesce(NEW.encrypt, schedule.encrypt);
            NEW.destination = coalesce(NEW.destination, schedule.destination);
            NEW.parameters = coalesce(NEW.parameters, nullif(schedule.parameters, '{{}}'));
            NEW.claims = coalesce(NEW.claims, CASE
                WHEN schedule.claims = '{{}}' THEN NULL
                WHEN schedule.claims_until > now() THEN schedule.claims
                WHEN schedule.claims IS NOT NULL THEN '{{}}'
            END);
            RETURN NEW;
        END $$
        """
    )
    create_trigger(
        COMPLETE,
        "export_jobs",
        "BEFORE INSERT ON export_jobs FOR EACH ROW WHEN (NEW.schedule_id IS NOT NULL) "
        f"EXECUTE FUNCTION {COMPLETE}()",
    )


def downgrade() -> None:
    op.execute(f"DROP TRIGGER {COMPLETE} ON export_jobs")
    op.execute(f"DROP FUNCTION {COMPLETE}()")
