"""NOTIFY on every change of a job that its user can see, whoever makes it."""

from sqlalchemy import DDL, FromClause, event

CHANGES_CHANNEL = "exporter_changes"
"""NOTIFY channel: the payload is the job's id, a space, and its user's id."""

_VISIBLE = "status, attempt, row_count, estimated_rows, cancel_requested_at, expires_at, error_message"


def _row(name: str) -> str:
    return "(" + ", ".join(f"{name}.{column}" for column in _VISIBLE.split(", ")) + ")"


# One trigger for each statement, not each row: an admission inserts thousands.
CREATE = (
    f"""
    CREATE FUNCTION export_jobs_tell() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF TG_OP = 'INSERT' THEN
            PERFORM pg_notify('{CHANGES_CHANNEL}', after.id || ' ' || after.user_id) FROM after;
        ELSE
            PERFORM pg_notify('{CHANGES_CHANNEL}', after.id || ' ' || after.user_id)
            FROM after JOIN before USING (id)
            WHERE {_row("after")} IS DISTINCT FROM {_row("before")};
        END IF;
        RETURN NULL;
    END $$
    """,
    """
    CREATE TRIGGER export_jobs_inserted AFTER INSERT ON export_jobs
    REFERENCING NEW TABLE AS after FOR EACH STATEMENT EXECUTE FUNCTION export_jobs_tell()
    """,
    """
    CREATE TRIGGER export_jobs_updated AFTER UPDATE ON export_jobs
    REFERENCING OLD TABLE AS before NEW TABLE AS after
    FOR EACH STATEMENT EXECUTE FUNCTION export_jobs_tell()
    """,
)


def tell_from(table: FromClause) -> None:
    """Have the triggers made together with ``table``."""
    for statement in CREATE:
        event.listen(table, "after_create", DDL(statement))  # type: ignore[no-untyped-call]
