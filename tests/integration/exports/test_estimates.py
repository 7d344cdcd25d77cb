"""The size of a slow export is estimated while it runs."""

import asyncio
from collections.abc import Callable

import asyncpg
import pytest

from stream_app.datasets.models import Dataset
from stream_app.exports.pipeline import Exporter
from stream_app.exports.reading import row_estimate as run
from stream_app.exports.task import ExportProgress
from streaming_exporter.events import ExportRequest
from tests.integration.exports.conftest import task_for
from tests.waiting import until_async

ROWS = 40


@pytest.fixture
async def slow(database: asyncpg.Connection, schema: str) -> Dataset:
    """A view whose rows take a second."""
    await database.execute(
        f"""CREATE VIEW "{schema}".slow AS
        SELECT n, pg_sleep(1.0 / {ROWS})::text AS pause FROM generate_series(1, {ROWS}) AS n"""
    )
    return Dataset(name="slow", table=f"{schema}.slow")


async def estimated(exporter: Exporter) -> int | None:
    progress = ExportProgress()
    request = ExportRequest(user_id="u", export_type="slow", format="csv", scope="all")
    data = await exporter.run(task_for(request), progress)
    assert data.row_count == ROWS
    return progress.estimated_rows


async def estimated_meanwhile(exporter: Exporter, request: ExportRequest) -> int:
    """Return the estimate of an export that does not end by itself."""
    progress = ExportProgress()
    running = asyncio.create_task(exporter.run(task_for(request), progress))
    found = await until_async(lambda: progress.estimated_rows)
    assert not running.done()
    running.cancel()
    await asyncio.wait({running})
    return found


async def test_a_slow_export_is_estimated(
    database: asyncpg.Connection, schema: str, exporter_of: Callable[..., Exporter]
) -> None:
    await database.execute(
        f"""CREATE VIEW "{schema}".endless AS
        SELECT n, pg_sleep(60)::text AS pause FROM generate_series(1, {ROWS}) AS n"""
    )
    request = ExportRequest(user_id="u", export_type="endless", format="csv", scope="all")
    dataset = Dataset(name="endless", table=f"{schema}.endless")
    assert await estimated_meanwhile(exporter_of(dataset), request) == ROWS


async def test_own_rows_are_counted_and_not_estimated(
    database: asyncpg.Connection, schema: str, exporter_of: Callable[..., Exporter]
) -> None:
    """S5: the planner's estimate depends on the rows of all users."""
    await database.execute(
        f"""CREATE FUNCTION "{schema}".nap() RETURNS text STABLE LANGUAGE sql
        AS 'SELECT pg_sleep(60)::text';
        CREATE VIEW "{schema}".shared AS
        SELECT n, CASE WHEN n % 2 = 0 THEN 'u' ELSE 'v' END AS owner, "{schema}".nap() AS pause
        FROM generate_series(1, {2 * ROWS}) AS n"""
    )
    request = ExportRequest(user_id="u", export_type="shared", format="csv")
    dataset = Dataset(name="shared", table=f"{schema}.shared", owner="owner", columns=("n", "pause"))
    assert await estimated_meanwhile(exporter_of(dataset), request) == ROWS


async def test_a_short_export_is_not_estimated(
    slow: Dataset, exporter_of: Callable[..., Exporter], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "ESTIMATE_AFTER", 60)
    assert await estimated(exporter_of(slow)) is None


async def test_a_slow_estimate_times_out(
    slow: Dataset, exporter_of: Callable[..., Exporter], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "ESTIMATE_AFTER", 0)
    monkeypatch.setattr(run, "ESTIMATE_SECONDS", 0)
    exporter = exporter_of(slow)
    assert await estimated(exporter) is None
    assert not exporter.sources.source_for(slow).estimating.locked()
