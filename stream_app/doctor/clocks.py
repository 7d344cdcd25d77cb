"""Do this machine, PostgreSQL and the object store agree on what time it is."""

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from stream_app.doctor.findings import Area, Finding
from stream_app.storage.object_store import ObjectStore

AREA = Area("clocks")

NOTABLE, HARMFUL = timedelta(seconds=5), timedelta(minutes=1)
"""Leases go by PostgreSQL's clock alone; signed requests and links fail from a quarter of an hour on."""


async def check_clocks(connection: AsyncConnection, storage: ObjectStore) -> AsyncIterator[Finding]:
    """One finding for each of the other two clocks."""

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
        return AREA.warning(name, "does not say what time it is", "compare its clock by hand")
    skew = abs(theirs - ours)
    what = f"{skew.total_seconds():.1f} s apart from this machine"
    advice = "synchronize the clocks (NTP): expiry, links and signatures depend on them"
    if skew >= HARMFUL:
        return AREA.problem(name, what, advice)
    return AREA.warning(name, what, advice) if skew >= NOTABLE else AREA.ok(name, what)
