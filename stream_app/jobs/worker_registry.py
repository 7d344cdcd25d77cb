"""The list of workers: each reports itself every few seconds, and learns what is paused."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncEngine

from stream_app.db.engine import autocommitting, outages_are_retryable
from stream_app.jobs.claim_pauses import PausedClaims
from stream_app.jobs.models import WorkerRecord

SILENT = timedelta(seconds=15)
"""A worker that has not reported for so long is stopped, frozen or cut off."""

_REPORT = text(
    """
    WITH seen AS (
        INSERT INTO workers (name, slots, running, version, started_at, seen_at)
        VALUES (:name, :slots, :running, :version, :started_at, now())
        ON CONFLICT (name) DO UPDATE SET slots = excluded.slots, running = excluded.running,
            version = excluded.version, started_at = excluded.started_at, seen_at = excluded.seen_at
    ), gone AS (
        DELETE FROM workers WHERE name = ANY (array(
            SELECT name FROM workers WHERE seen_at < now() - interval '1 hour' AND name <> :name
            FOR UPDATE SKIP LOCKED
        ))
    )
    SELECT scope FROM claim_pauses
    """
)
_LEAVE = text("DELETE FROM workers WHERE name = :name")


class WorkerRegistry:
    """Reads and writes the list of workers.

    Every method raises :class:`~streaming_exporter.errors.Retryable` while the database is unavailable.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._autocommit = autocommitting(engine)

    async def report(
        self, name: str, *, slots: int, running: int, version: str, started_at: datetime
    ) -> PausedClaims:
        """Write that the worker runs; return what is paused."""
        values = {
            "name": name,
            "slots": slots,
            "running": running,
            "version": version,
            "started_at": started_at,
        }
        with outages_are_retryable():
            async with self._autocommit.connect() as connection:
                return PausedClaims(frozenset((await connection.scalars(_REPORT, values)).all()))

    async def leave(self, name: str) -> None:
        """Remove a worker that stops."""
        with outages_are_retryable():
            async with self._autocommit.connect() as connection:
                await connection.execute(_LEAVE, {"name": name})

    async def all(self) -> tuple[Sequence[WorkerRecord], datetime]:
        """Return the workers of the last hour by name, and the time by the database's clock."""
        with outages_are_retryable():
            async with self._autocommit.connect() as connection:
                now: datetime = (await connection.execute(select(func.now()))).scalar_one()
                rows = await connection.execute(select(WorkerRecord.__table__).order_by(WorkerRecord.name))
                return [WorkerRecord(**row._mapping) for row in rows], now
