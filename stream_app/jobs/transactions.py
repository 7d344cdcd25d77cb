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
        self._lease = lease
        self._user_slots = user_slots
        self._max_attempts = max_attempts

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that the caller can extend over a publication."""
        with outages_are_retryable():
            async with self._engine.begin() as connection:
                yield connection

    def _until(self) -> Any:
        return func.now() + self._lease
