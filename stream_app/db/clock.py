"""The clock of the state database. All decisions about time use it."""

import time
from datetime import UTC, datetime, timedelta

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from stream_app.db.engine import autocommitting, outages_are_retryable
from stream_app.periodic import repeat

FRESH_SECONDS = 10.0
"""How long one reading of the clock is used."""


class DatabaseClock:
    """Reads the clock of the state database every few seconds, and adds the time that has passed since.

    The clock of a machine can be wrong and can jump, but it measures the time that has passed correctly.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = autocommitting(engine)
        self._reading: tuple[datetime, float] | None = None

    def now(self) -> datetime:
        """Return the time, from the last reading. Before the first reading it is the machine's time."""
        if self._reading is None:
            return datetime.now(UTC)
        read, at = self._reading
        return read + timedelta(seconds=_passed() - at)

    async def read(self) -> datetime:
        """Return the time, from a reading that is not older than :data:`FRESH_SECONDS`.

        Raises:
            Retryable: the database is away.
        """
        if self._reading is None or _passed() - self._reading[1] > FRESH_SECONDS:
            await self._read()
        return self.now()

    async def run(self) -> None:
        """Read the clock every :data:`FRESH_SECONDS`."""
        await repeat("clock_reading", self._read, FRESH_SECONDS, first=0)

    async def _read(self) -> None:
        with outages_are_retryable():
            async with self._engine.connect() as connection:
                asked = _passed()
                found: datetime = await connection.scalar(text("SELECT clock_timestamp()"))
                self._reading = found, (asked + _passed()) / 2


def _passed() -> float:
    """Return elapsed seconds, including the time in which the machine was suspended."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)
