"""What every statement about jobs needs: a transaction, and how long a lease is."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

from sqlalchemy import func
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from stream_app.jobs.database import outages_are_retryable

WAKE_CHANNEL = "exporter_jobs"
"""NOTIFY channel: an empty payload means new work, a job id means that it is to be cancelled."""


class Transactions:
    """Base of the parts of :class:`~stream_app.jobs.store.JobStore`."""

    def __init__(self, engine: AsyncEngine, *, lease: timedelta, user_slots: int, max_attempts: int) -> None:
        self._engine = engine
        self._autocommit = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._lease = lease
        self._user_slots = user_slots
        self._max_attempts = max_attempts

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that the caller can extend over a publication."""
        with outages_are_retryable():
            async with self._engine.begin() as connection:
                yield connection

    @asynccontextmanager
    async def transaction_after(self, beginning: str) -> AsyncIterator[AsyncConnection]:
        """A transaction that begins with a script, which has no parameters: one round trip for all of it."""
        async with self.statement() as connection:
            raw: Any = (await connection.get_raw_connection()).driver_connection
            try:
                await raw.execute(beginning)
                yield connection
                await raw.execute("COMMIT")
            except BaseException:
                raw.terminate()  # the pool does not know that a transaction is open
                raise

    @asynccontextmanager
    async def statement(self) -> AsyncIterator[AsyncConnection]:
        """A connection whose every statement is a transaction: one round trip in place of three."""
        with outages_are_retryable():
            async with self._autocommit.connect() as connection:
                yield connection

    def _until(self) -> Any:
        return func.now() + self._lease
