"""Check that the clocks of this machine, of PostgreSQL and of the object store agree."""

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
        return await storage.call(storage.time)

    yield await _compare("PostgreSQL", postgres)
    yield await _compare("object store", store)


async def _compare(name: str, ask: Callable[[], Awaitable[datetime | None]]) -> Finding:
    before = datetime.now(UTC)
    theirs = await ask()
    ours = before + (datetime.now(UTC) - before) / 2
    if theirs is None:
        return AREA.warning(name, "its answers have no time", "compare its clock with this machine's")
    skew = abs(theirs - ours)
    what = f"the clock differs by {skew.total_seconds():.1f} s from this machine's"
    advice = "synchronize the clocks (NTP): expiry times, links and signatures depend on them"
    if skew >= HARMFUL:
        return AREA.problem(name, what, advice)
    return AREA.warning(name, what, advice) if skew >= NOTABLE else AREA.ok(name, what)
