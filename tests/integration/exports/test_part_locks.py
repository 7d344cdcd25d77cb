"""The holder of a shared snapshot sees that parts wait for a lock that they cannot have before it ends."""

import asyncio

import asyncpg
import pytest

from stream_app.exports.part_planner import OpenPlan
from stream_app.exports.sources.source import Source
from streaming_exporter.errors import Retryable
from tests.waiting import until_async


async def test_a_part_that_begins_later_is_seen_too(
    schema: str, database: asyncpg.Connection, source: Source, source_dsn: str
) -> None:
    """In a transaction the list of sessions stays as it was when it was read first."""
    await database.execute("CREATE TABLE things AS SELECT 1 AS id")
    table, changing = f"{schema}.things", await asyncpg.connect(source_dsn)
    async with source.snapshot("exporter 1 parts") as snapshot:
        await snapshot.fetch(f"SELECT FROM {table}")
        plan = OpenPlan((), shared=await snapshot.export(), snapshot=snapshot, name="1")
        await plan.keep_alive()

        async def read_a_part() -> None:
            async with source.snapshot("exporter 1 part 1", shared=plan.shared) as part:
                await part.fetch(f"SELECT FROM {table}")

        change = asyncio.create_task(changing.execute(f"ALTER TABLE {table} ADD COLUMN late int"))
        await until_async(lambda: database.fetchval("SELECT bool_or(NOT granted) FROM pg_locks"))
        reading = asyncio.create_task(read_a_part())
        both = "SELECT count(*) = 2 FROM pg_locks WHERE NOT granted"
        await until_async(lambda: database.fetchval(both))
        with pytest.raises(Retryable) as raised:
            await plan.keep_alive()
        assert raised.value.code == "table_locked"
    await change
    await reading
    await changing.close()
