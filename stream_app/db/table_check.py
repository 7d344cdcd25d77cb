"""Checks whether the state database can be used."""

from functools import cache

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from stream_app.db.engine import autocommitting, outages_are_retryable
from stream_app.db.migrations import missing
from streaming_exporter.errors import Outage

QUEUE_FULL = 0.9
"""Limit of the used share of the notification queue. At 1, every transaction with a NOTIFY fails."""


@cache
def _missing(revision: str | None) -> list[str]:
    return missing(revision)


async def check_tables(engine: AsyncEngine) -> None:
    """Return if the tables exist, are up to date and can be written.

    Raises:
        Retryable: they are not, or the database is away.
    """
    with outages_are_retryable():
        async with autocommitting(engine).connect() as connection:
            if await connection.scalar(text("SELECT pg_is_in_recovery()")):
                raise Outage("state database: it is a replica, or it is still in recovery")
            if await connection.scalar(text("SELECT current_setting('transaction_read_only')")) == "on":
                raise Outage("state database: its transactions are read only")
            # This call also frees the entries that all listeners have read. PostgreSQL does not free them by
            # itself when the queue is full, so without the call the queue would stay full.
            used = await connection.scalar(text("SELECT pg_notification_queue_usage()"))
            if used is not None and used > QUEUE_FULL:
                raise Outage(
                    f"state database: its queue of notifications is {used:.0%} full, because a listening "
                    "session has a transaction open; end that session (pg_stat_activity)"
                )
            revision = None
            if await connection.scalar(text("SELECT to_regclass('alembic_version') IS NOT NULL")):
                revision = await connection.scalar(text("SELECT max(version_num) FROM alembic_version"))
    if behind := _missing(revision):
        raise Outage(f"state database: run `exporter migrate`; it lacks {', '.join(reversed(behind))}")
