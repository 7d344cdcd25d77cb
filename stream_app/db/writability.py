"""Finds out why the state database cannot be written, although it answers."""

from contextlib import suppress
from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from stream_app.db.engine import autocommitting, outages_are_retryable
from streaming_exporter.errors import Outage, Retryable

QUEUE_FULL = 0.9
"""Limit of the used share of the notification queue. At 1, every transaction with a NOTIFY fails."""

# Asking for the queue also frees the entries that all listeners have read. PostgreSQL does not free them by
# itself when the queue is full, so without the call the queue would stay full.
_STATE = text(
    """
    SELECT pg_is_in_recovery() AS is_replica,
           current_setting('transaction_read_only') = 'on' AS is_read_only,
           CASE WHEN pg_is_in_recovery() THEN 0 ELSE pg_notification_queue_usage() END AS queue
    """
)


@dataclass(frozen=True, slots=True)
class WriteFault:
    """Why nothing can be written: a code for programs, and a text. ``percent`` is how full the queue is."""

    code: str
    text: str
    percent: int = 0


async def find_write_fault(connection: AsyncConnection) -> WriteFault | None:
    """Return why the state database cannot be written, or ``None`` if it can be."""
    row = (await connection.execute(_STATE)).one()
    if row.is_replica:
        return WriteFault("replica", "it is a replica, or it is still in recovery")
    if row.is_read_only:
        return WriteFault("read_only", "its transactions are read only")
    if row.queue > QUEUE_FULL:
        percent = round(100 * row.queue)
        return WriteFault(
            "full_notifications",
            f"its queue of notifications is {percent}% full, because a listening session has a transaction "
            "open; end that session (pg_stat_activity)",
            percent,
        )
    return None


async def check_writable(engine: AsyncEngine) -> None:
    """Return if the state database can be written, or does not answer, which is the fault of another check.

    Raises:
        Outage: it answers and cannot be written.
    """
    fault = None
    with suppress(Retryable), outages_are_retryable():
        async with autocommitting(engine).connect() as connection:
            fault = await find_write_fault(connection)
    if fault is not None:
        raise Outage(f"state database: {fault.text}")
