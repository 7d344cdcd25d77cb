"""How long an export will be is found out beside it, where it takes its time."""

from collections.abc import Callable

import asyncpg
import pytest

from stream_app.events import ExportRequest
from stream_app.exports import run
from stream_app.exports.datasets.base import Dataset
from stream_app.exports.run import Exporter, Gauge
from tests.integration.exports.conftest import claim_for

ROWS = 40


@pytest.fixture
async def slow(database: asyncpg.Connection, schema: str) -> Dataset:
    """A second of rows."""
    await database.execute(
        f"""CREATE VIEW "{schema}".slow AS
        SELECT n, pg_sleep(1.0 / {ROWS})::text AS pause FROM generate_series(1, {ROWS}) AS n"""
    )
    return Dataset(name="slow", table=f"{schema}.slow")


async def estimated(exporter: Exporter) -> int | None:
    gauge = Gauge()
    request = ExportRequest(user_id="u", export_type="slow", format="csv", scope="all")
    data = await exporter.run(claim_for(request), gauge)
    assert data.row_count == ROWS
    return gauge.estimated_rows


async def test_an_export_that_takes_its_time_is_estimated(
    slow: Dataset, exporter_of: Callable[..., Exporter]
) -> None:
    assert await estimated(exporter_of(slow)) == ROWS


async def test_a_short_one_asks_for_no_estimate(
    slow: Dataset, exporter_of: Callable[..., Exporter], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "ESTIMATE_AFTER", 60)
    assert await estimated(exporter_of(slow)) is None


async def test_an_estimate_that_takes_too_long_is_given_up(
    slow: Dataset, exporter_of: Callable[..., Exporter], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "ESTIMATE_AFTER", 0)
    monkeypatch.setattr(run, "ESTIMATE_SECONDS", 0)
    exporter = exporter_of(slow)
    assert await estimated(exporter) is None
    assert not exporter.estimates.locked()
