"""The workers that share the parts of an export."""

from collections.abc import AsyncIterator
from uuid import uuid4

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from stream_app.datasets.models import Dataset
from stream_app.exports.reading import ranges
from stream_app.settings import Settings
from tests.integration.jobs.jobs import Jobs
from tests.integration.worker.parts_fleet import (
    ROW_BYTES,
    ROWS,
    SMALLEST_RANGE,
    Fleet,
)


@pytest.fixture
async def fleet(
    engine: AsyncEngine, own_settings: Settings, source_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Fleet]:
    """No worker yet, and a table of one megabyte."""
    monkeypatch.setattr(ranges, "SMALLEST_RANGE", SMALLEST_RANGE)
    name = f"test_{uuid4().hex[:12]}"
    database = await asyncpg.connect(source_dsn)
    await database.execute(f"CREATE SCHEMA {name}; GRANT USAGE ON SCHEMA {name} TO PUBLIC")
    await database.execute(
        f"""
        CREATE TABLE {name}.things (id int PRIMARY KEY, value text);
        INSERT INTO {name}.things
        SELECT n, repeat('x', {ROW_BYTES}) FROM generate_series(1, {ROWS}) AS n;
        GRANT SELECT ON {name}.things TO PUBLIC;
        ANALYZE {name}.things
        """
    )
    dataset = Dataset(name="ledger", table=f"{name}.things", order=("id",))
    made = Fleet(Jobs(engine), own_settings, dataset, database)
    yield made
    for worker in made.workers:
        await worker.stop()
    await database.execute(f"DROP SCHEMA {name} CASCADE")
    await database.close()
