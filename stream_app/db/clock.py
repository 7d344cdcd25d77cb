"""The database's clock: the one by which decisions are made, whatever the clock of a machine says."""

import time
from datetime import UTC, datetime, timedelta

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from stream_app.db.engine import autocommitting, outages_are_retryable
from stream_app.periodic import repeat

FRESH_SECONDS = 10.0
"""How long a reading is counted on from."""


class DatabaseClock:
    """Reads the clock of the state database now and then, and counts on from there.

    A machine's own clock may be wrong, and may jump; how much time has passed it knows.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = autocommitting(engine)
        self._reading: tuple[datetime, float] | None = None

    def now(self) -> datetime:
        """The time, counted on from the last reading; the machine's until there was one."""
        if self._reading is None:
            return datetime.now(UTC)
        read, at = self._reading
        return read + timedelta(seconds=_passed() - at)

    async def read(self) -> datetime:
        """The time, by a reading that is not old.

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
    """Seconds since some moment, those included in which the machine was suspended."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)
