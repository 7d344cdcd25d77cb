"""Notifications of PostgreSQL (LISTEN, NOTIFY) about new work, cancellations and changes of jobs."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

import structlog
from sqlalchemy import DDL, FromClause, event

from stream_app.db.engine import DRIVER_ERRORS, connect_to
from stream_app.settings import Settings
from streaming_exporter.errors import Retryable

WAKE_CHANNEL = "exporter_jobs"
"""NOTIFY channel: an empty payload means new work, a job's id means to cancel the job."""

_KEEP = """
SELECT set_config('idle_session_timeout', '0', false)
WHERE current_setting('idle_session_timeout', true) <> '0'
"""
"""The server must not end the session while nothing happens. PostgreSQL 13 does not have the setting."""

_LOCK = "SELECT pg_try_advisory_lock_shared($1)"

log = structlog.get_logger(__name__)


RETRY_SECONDS = 1.0
"""Seconds until a connection that failed is tried again."""

LOCK_SECONDS = 30.0
"""Seconds until a lock that was not free is tried again."""


async def listen(
    settings: Settings,
    wake: Callable[[str], None],
    *,
    application: str,
    channel: str = WAKE_CHANNEL,
    shared_lock: int | None = None,
) -> None:
    """Call ``wake`` with the payload of each notification on ``channel``. A lost connection is opened again.

    After each new connection it is called with an empty text, because notifications can have been missed.

    Args:
        settings: has the URL of the state database.
        wake: gets the payloads.
        application: the ``application_name`` of the session.
        channel: the channel.
        shared_lock: an advisory lock that the connection holds in shared mode while it is open.
    """
    while True:
        try:
            connection = await connect_to(settings, application=application)
        except (ValueError, OSError, Retryable, *DRIVER_ERRORS) as error:
            # For example, a failover: every server that is reached is still a replica.
            log.warning("listener.connect_failed", error=str(error) or type(error).__name__)
            await asyncio.sleep(RETRY_SECONDS)
            continue
        lost = asyncio.Event()
        try:
            connection.add_termination_listener(lambda _, lost=lost: lost.set())
            await connection.execute(_KEEP)
            await connection.add_listener(channel, lambda *args: wake(str(args[3])))
            wake("")
            while shared_lock is not None and not await connection.fetchval(_LOCK, shared_lock):
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOCK_SECONDS):
                        await lost.wait()
            await lost.wait()
        except (OSError, *DRIVER_ERRORS) as error:
            log.warning("listener.disconnected", error=str(error))
        finally:
            connection.terminate()


CHANGES_CHANNEL = "exporter_changes"
"""NOTIFY channel: the payload is the job's id, a space, and its user's id."""

_VISIBLE = "status, attempt, row_count, estimated_rows, cancel_requested_at, expires_at, error_message"


def _row(name: str) -> str:
    return "(" + ", ".join(f"{name}.{column}" for column in _VISIBLE.split(", ")) + ")"


# The triggers fire once for each statement, not for each row: an admission inserts thousands of rows.
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


def create_triggers_with(table: FromClause) -> None:
    """Create the triggers whenever ``table`` is created."""
    for statement in CREATE:
        event.listen(table, "after_create", DDL(statement))  # type: ignore[no-untyped-call]
