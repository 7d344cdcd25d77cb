"""What every statement about jobs needs: a transaction, and how long a lease is."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from typing import Any

from sqlalchemy import func
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from stream_app.jobs.clock import DatabaseClock
from stream_app.jobs.database import outages_are_retryable, transaction, without_transactions

WAKE_CHANNEL = "exporter_jobs"
"""NOTIFY channel: an empty payload means new work, a job id means that it is to be cancelled."""


class Transactions:
    """Base of the parts of :class:`~stream_app.jobs.store.JobStore`."""

    def __init__(self, engine: AsyncEngine, *, lease: timedelta, user_slots: int, max_attempts: int) -> None:
        self.clock = DatabaseClock(engine)
        self._autocommit = without_transactions(engine)
        self._lease = lease
        self._user_slots = user_slots
        self._max_attempts = max_attempts

    def transaction(self, beginning: str = "") -> AbstractAsyncContextManager[AsyncConnection]:
        """A transaction with its limits, which may begin with a script: see :func:`database.transaction`."""
        return transaction(self._autocommit, beginning)

    @asynccontextmanager
    async def statement(self) -> AsyncIterator[AsyncConnection]:
        """A connection whose every statement is a transaction: one round trip in place of three."""
        with outages_are_retryable():
            async with self._autocommit.connect() as connection:
                yield connection

    def _until(self) -> Any:
        return func.now() + self._lease
