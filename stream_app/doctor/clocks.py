"""Checks that the clocks of this machine, of PostgreSQL and of the object store agree."""

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from stream_app.doctor.findings import Finding, FindingFactory
from stream_app.storage.object_store import ObjectStore

AREA = FindingFactory("clocks")

NOTABLE, HARMFUL = timedelta(seconds=5), timedelta(minutes=1)
"""Leases use PostgreSQL's clock only. Signed requests and links fail if clocks differ by 15 minutes."""


async def check_clocks(connection: AsyncConnection, storage: ObjectStore) -> AsyncIterator[Finding]:
    """Yield a finding for each of the other two clocks."""

    async def postgres() -> datetime | None:
        now: datetime | None = await connection.scalar(text("SELECT clock_timestamp()"))
        return now

    async def store() -> datetime | None:
        return await storage.run_in_thread(storage.read_clock)

    yield await _compare("PostgreSQL", postgres)
    yield await _compare("object store", store)


async def _compare(name: str, ask: Callable[[], Awaitable[datetime | None]]) -> Finding:
    before = datetime.now(UTC)
    theirs = await ask()
    ours = before + (datetime.now(UTC) - before) / 2
    if theirs is None:
        return AREA.warning(name, "clock_without_time")
    skew = abs(theirs - ours)
    seconds = round(skew.total_seconds(), 1)
    if skew < NOTABLE:
        return AREA.ok(name, f"the clock differs by {seconds} s from this machine's")
    create = AREA.problem if skew >= HARMFUL else AREA.warning
    return create(name, "wrong_clock", seconds=seconds)
