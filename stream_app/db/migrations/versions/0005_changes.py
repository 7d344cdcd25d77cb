"""Notifications of changes"""

from alembic import op

revision = "0005"
down_revision = "0004"

_VISIBLE = (
    "status",
    "attempt",
    "row_count",
    "estimated_rows",
    "cancel_requested_at",
    "expires_at",
    "error_message",
)


def _row(name: str) -> str:
    return "(" + ", ".join(f"{name}.{column}" for column in _VISIBLE) + ")"


def upgrade() -> None:
    op.execute(
        f"""
        CREATE FUNCTION export_jobs_tell() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF TG_OP = 'INSERT' THEN
                PERFORM pg_notify('exporter_changes', after.id || ' ' || after.user_id) FROM after;
            ELSE
                PERFORM pg_notify('exporter_changes', after.id || ' ' || after.user_id)
                FROM after JOIN before USING (id)
                WHERE {_row("after")} IS DISTINCT FROM {_row("before")};
            END IF;
            RETURN NULL;
        END $$
        """
    )
    op.execute(
        """
        CREATE TRIGGER export_jobs_inserted AFTER INSERT ON export_jobs
        REFERENCING NEW TABLE AS after FOR EACH STATEMENT EXECUTE FUNCTION export_jobs_tell()
        """
    )
    op.execute(
        """
        CREATE TRIGGER export_jobs_updated AFTER UPDATE ON export_jobs
        REFERENCING OLD TABLE AS before NEW TABLE AS after
        FOR EACH STATEMENT EXECUTE FUNCTION export_jobs_tell()
        """
    )


def downgrade() -> None:
    op.execute("DROP FUNCTION export_jobs_tell() CASCADE")
