"""The window of a run limits the rows by the type that the time column has when they are read."""

import csv
import io
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import asyncpg
import pytest

from stream_app.datasets.models import Dataset
from stream_app.exports.part_planner import PartPlanner
from stream_app.exports.pipeline import Exporter
from stream_app.exports.sources.source import Source
from stream_app.exports.task import ExportProgress, ExportTask
from stream_app.storage.object_store import ObjectStore
from streaming_exporter.events import ExportRequest
from tests.integration.exports.conftest import Exported, bundle_of, opened, task_for

WINDOW = {"from": "2026-07-02T00:00:00+02:00", "to": "2026-07-03T00:00:00+02:00", "timezone": "Europe/Berlin"}
WRITTEN = {
    "as days": {"gte": "2026-07-02", "lt": "2026-07-03"},
    "as moments": {"gte": "2026-07-01T22:00:00Z", "lt": "2026-07-02T22:00:00Z"},
}
ROWS = {
    "date": "(1, '2026-07-01'), (2, '2026-07-02'), (3, '2026-07-03')",
    "timestamp": "(1, '2026-07-01 21:59:59'), (2, '2026-07-01 22:00'), (3, '2026-07-02 22:00')",
    "timestamptz": "(1, '2026-07-01 21:59:59Z'), (2, '2026-07-01 22:00Z'), (3, '2026-07-02 22:00Z')",
}
"""The second row is in the window. Times without a zone are those of UTC."""

Build = Callable[..., Exporter]

pytestmark = [pytest.mark.parametrize("kind", list(ROWS)), pytest.mark.parametrize("written", list(WRITTEN))]


@pytest.fixture
async def visits(schema: str, database: asyncpg.Connection, kind: str) -> Dataset:
    await database.execute(
        f"CREATE TABLE visits (id int PRIMARY KEY, at {kind}); INSERT INTO visits VALUES {ROWS[kind]}"
    )
    return Dataset(name="visits", table=f"{schema}.visits", time="at", order=("id",))


def task(export_type: str, filters: dict[str, Any], window: dict[str, Any]) -> ExportTask:
    """Return the task of a run whose schedule was saved when the column possibly had another type."""
    wanted = {"user_id": "u", "export_type": export_type, "format": "csv", "scope": "all"}
    return replace(task_for(ExportRequest.parse({**wanted, "filters": filters})), window=WINDOW | window)


def ids(content: bytes) -> list[str]:
    return [row["id"] for row in csv.DictReader(io.StringIO(content.decode()))]


async def test_of_a_dataset(visits: Dataset, exporter_of: Build, storage: ObjectStore, written: str) -> None:
    run = task("visits", {"at": WRITTEN[written]}, {"column": "at"})
    result = await exporter_of(visits).run(run, ExportProgress())
    assert ids(storage.read(str(result.key))) == ["2"]


async def test_of_a_bundle(visits: Dataset, exporter_of: Build, storage: ObjectStore, written: str) -> None:
    bundle = bundle_of(visits)
    columns = {"column": None, "columns": {"visits": "at"}}
    run = task(bundle.name, {"visits": {"at": WRITTEN[written]}}, columns)
    result = await exporter_of(bundle).run(run, ExportProgress())
    archive = opened(Exported(storage.read(str(result.key)), result))
    (name,) = [name for name in archive.namelist() if name.endswith(".csv")]
    assert ids(archive.read(name)) == ["2"]


async def test_of_the_parts_of_a_dataset(
    visits: Dataset,
    exporter_of: Build,
    source: Source,
    kind: str,
    written: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    planned: list[ExportRequest] = []

    async def remember(*arguments: Any) -> None:
        planned.extend(item for item in arguments if isinstance(item, ExportRequest))

    monkeypatch.setattr(PartPlanner, "_plan_in", remember)
    run = task("visits", {"at": WRITTEN[written]}, {"column": "at"})
    async with PartPlanner(exporter_of(visits), source, 0).open(run) as plan:
        assert plan is None
    assert [request.filters for request in planned] == [
        {"at": WRITTEN["as days" if kind == "date" else "as moments"]}
    ]
