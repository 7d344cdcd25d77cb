"""A part of an export with a snapshot of its own reads its rows alone, as the plan has cut them."""

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import asyncpg
import pytest

from stream_app.datasets.models import Dataset
from stream_app.exports.part_planner import PartPlanner
from stream_app.exports.pipeline import Exporter
from stream_app.exports.reading.row_reader import ParallelReading
from stream_app.exports.sources.snapshot import Snapshot
from stream_app.exports.sources.source import Source
from stream_app.exports.tables.catalog import Catalog
from stream_app.exports.task import ExportProgress, ExportTask, TaskPart
from stream_app.settings import Settings
from streaming_exporter.errors import Rejected
from streaming_exporter.events import ExportRequest
from tests.integration.exports.conftest import task_for

ROWS = 14_000
REQUEST = ExportRequest.parse(
    {
        "user_id": "u",
        "export_type": "things",
        "format": "csv",
        "scope": "all",
        "split": {"rows": 1_000_000},
        "consistency": "part",
    }
)


@pytest.fixture
async def several(settings: Settings) -> AsyncIterator[Source]:
    source = Source(settings, connections=4)
    yield source
    await source.close()


@pytest.mark.parametrize("streams", [1, 2])
@pytest.mark.parametrize("order", [("at", "id"), ()])
async def test_a_part_reads_only_its_range(
    schema: str,
    database: asyncpg.Connection,
    several: Source,
    exporter_of: Callable[..., Exporter],
    monkeypatch: pytest.MonkeyPatch,
    order: tuple[str, ...],
    streams: int,
) -> None:
    """The planner alone would read the whole table: it expects scattered rows for an index of two columns."""
    await database.execute(f"""
        CREATE TABLE things (id int PRIMARY KEY, at timestamptz, t text);
        INSERT INTO things
        SELECT i, '2026-01-01'::timestamptz + (i + i % 7) * interval '1 s', repeat('x', 250)
        FROM generate_series(1, {ROWS}) AS i;
        CREATE INDEX ON things (at, id); ANALYZE things
    """)
    dataset = Dataset(name="things", table=f"{schema}.things", order=order)
    # One range is all that a part has for its streams.
    reading = ParallelReading(streams, min_bytes=2**40)
    exporter = exporter_of(dataset, sources=several, catalog=Catalog(several), reading=reading)
    nodes: list[frozenset[str]] = []
    copy = Snapshot.copy

    async def explained(snapshot: Snapshot, sql: str, *arguments: Any, **options: Any) -> int:
        nodes.append((await snapshot.explain(sql)).node_types)
        return await copy(snapshot, sql, *arguments, **options)

    monkeypatch.setattr(Snapshot, "copy", explained)
    found = 0
    async with PartPlanner(exporter, several, 0).open(task_for(REQUEST)) as plan:
        assert plan is not None
        assert plan.shared is None
        for one in plan.ranges:
            task: ExportTask = replace(task_for(REQUEST), part=TaskPart(range=one.to_json()))
            found += (await exporter.run(task, ExportProgress())).row_count
    assert found == ROWS
    assert len(nodes) == len(plan.ranges) > 2
    assert not any("Seq Scan" in kinds for kinds in nodes), nodes


CHANGES = {
    "vacuum": "VACUUM FULL things",
    "cluster": "CLUSTER things USING things_pkey",
    "reload": "BEGIN; TRUNCATE things; INSERT INTO things TABLE kept; COMMIT",
    "column": "ALTER TABLE things ALTER COLUMN id TYPE bigint",
    "child": "CREATE TABLE child () INHERITS (things)",
}
"""What moves rows to other pages, or to where no range is, and nothing that others can see."""


@pytest.mark.parametrize(("change", "order"), [*((name, ()) for name in CHANGES), ("child", ("id",))])
async def test_a_part_of_a_table_that_was_rewritten_since_the_plan_fails(
    schema: str,
    database: asyncpg.Connection,
    several: Source,
    exporter_of: Callable[..., Exporter],
    change: str,
    order: tuple[str, ...],
) -> None:
    await database.execute(f"""
        CREATE TABLE things (id int PRIMARY KEY, t text);
        INSERT INTO things SELECT i, repeat('x', 250) FROM generate_series(1, {2 * ROWS}) AS i;
        CREATE TABLE kept AS TABLE things;
        DELETE FROM things WHERE id % 2 = 0;
        ANALYZE things
    """)
    dataset = Dataset(name="things", table=f"{schema}.things", order=order)
    exporter = exporter_of(dataset, sources=several, catalog=Catalog(several))
    async with PartPlanner(exporter, several, 0).open(task_for(REQUEST)) as plan:
        assert plan is not None
        first, second, *_ = (
            replace(task_for(REQUEST), part=TaskPart(range=one.to_json())) for one in plan.ranges
        )
        assert (await exporter.run(first, ExportProgress())).row_count > 0
        await database.execute("INSERT INTO things VALUES (0, 'a usual change')")
        await database.execute("VACUUM ANALYZE things")
        assert (await exporter.run(second, ExportProgress())).row_count > 0
        await database.execute(CHANGES[change])
        with pytest.raises(Rejected, match="request the export again") as raised:
            await exporter.run(second, ExportProgress())
    assert raised.value.code == "table_rewritten"
