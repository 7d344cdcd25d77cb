"""`/readyz` checks the parts at most once a second, for any number of calls (S11)."""

import asyncio

from api.operations.readiness import Readiness
from streaming_exporter.errors import Retryable


async def test_concurrent_calls_share_one_check() -> None:
    asked = 0

    async def database() -> None:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0.01)

    readiness = Readiness({"database": database, "feed": database})
    found = await asyncio.gather(*(readiness.parts() for _ in range(100)))
    assert found == [{"database": "ok"}] * 100
    assert asked == 2


async def test_a_part_of_the_api_itself_is_shown_when_it_fails() -> None:
    """Q9"""

    async def broken() -> None:
        raise Retryable("a fault")

    assert await Readiness({"feed": broken}).parts() == {"feed": "unavailable"}
