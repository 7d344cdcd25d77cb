"""Checks whether the state database can be used."""

from functools import cache

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from stream_app.db.engine import autocommitting, outages_are_retryable
from stream_app.db.migrations import missing
from streaming_exporter.errors import Outage

QUEUE_FULL = 0.9
"""Limit of the used share of the notification queue. At 1 every transaction that notifies fails."""


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
                raise Outage("state database: it is a replica, or still recovers")
            if await connection.scalar(text("SELECT current_setting('transaction_read_only')")) == "on":
                raise Outage("state database: it takes no changes, its transactions are read only")
            # Also moves the queue's end up to where all have read, which PostgreSQL does not do by itself
            # once the queue is full: without this it would stay full.
            used = await connection.scalar(text("SELECT pg_notification_queue_usage()"))
            if used is not None and used > QUEUE_FULL:
                raise Outage(
                    f"state database: its queue of notifications is {used:.0%} full, since a session that "
                    "listens stands still in a transaction; end that session (pg_stat_activity)"
                )
            revision = None
            if await connection.scalar(text("SELECT to_regclass('alembic_version') IS NOT NULL")):
                revision = await connection.scalar(text("SELECT max(version_num) FROM alembic_version"))
    if behind := _missing(revision):
        raise Outage(f"state database: run `exporter migrate`, it lacks {', '.join(reversed(behind))}")
