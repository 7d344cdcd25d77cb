"""Exports over several connections: the same bytes, bounded, and ended with the first error."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any

import asyncpg
import pytest

from stream_app.exports import pipeline
from stream_app.exports.datasets import Dataset
from stream_app.exports.formats.base import Document
from stream_app.exports.pipeline import Exporter
from stream_app.exports.row_reader import ParallelReading
from stream_app.exports.source import Source
from stream_app.settings import Settings
from stream_app.storage.object_store import ObjectStore
from tests.integration.exports.conftest import exported_by

TINY = 20_000
"""Bytes of a range, so that few rows have many ranges."""

MAKE = """
    CREATE TABLE things (
        gone text, id int PRIMARY KEY, lead int, n numeric(12,3), t text, at timestamptz, ok boolean, j jsonb,
        b bytea, tags text[]
    );
    INSERT INTO things SELECT
        'x', i, CASE WHEN i % 10 > 0 THEN i / 100 END, i / 7.0,
        CASE i % 13 WHEN 0 THEN NULL WHEN 1 THEN '' WHEN 2 THEN E'a "b"\\n,\\t\\\\ \\r' WHEN 3 THEN '=1+1'
            ELSE repeat('xyz ', i % 40) END,
        CASE i % 501 WHEN 0 THEN 'infinity' ELSE '2026-01-01'::timestamptz + i * interval '1 s' END,
        i % 3 = 0, jsonb_build_object('i', i, 't', E'a\\n"b"'), decode(md5(i::text), 'hex'), ARRAY['a', NULL, i::text]
    FROM generate_series(1, 12000) AS i;
    ALTER TABLE things DROP COLUMN gone;
    DELETE FROM things WHERE id % 7 = 0 OR id BETWEEN 3000 AND 5000;
    UPDATE things SET t = 'moved' WHERE id % 11 = 0;
    CREATE INDEX ON things (lead, id);
    ANALYZE things
"""


@pytest.fixture
async def many(settings: Settings) -> AsyncIterator[Source]:
    """A source with connections for several streams."""
    source = Source(settings, connections=8)
    yield source
    await source.close()


@pytest.fixture
def reading(
    exporter_of: Callable[..., Exporter], many: Source, storage: ObjectStore
) -> Callable[..., Any]:
    """Export a table over so many streams."""

    async def run(dataset: Dataset, format_name: str, streams: int, **request: Any) -> Any:
        parts = ParallelReading(streams, min_bytes=0, range_bytes=TINY)
        exporter = exporter_of(dataset, source=many, reading=parts)
        return await exported_by(exporter, storage, dataset, format_name, **request)

    return run


@pytest.fixture
def same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """All files have the same time of their snapshot: it is part of a workbook and of a Parquet file."""

    def document(**facts: Any) -> Document:
        return Document(**{**facts, "as_of": datetime(2026, 11, 26, tzinfo=UTC)})

    monkeypatch.setattr(pipeline, "Document", document)


@pytest.mark.parametrize("order", [(), ("id",), ("lead", "id")], ids=["pages", "key", "ties and NULL"])
@pytest.mark.parametrize("format_name", ["csv", "json", "ndjson", "excel", "parquet"])
async def test_the_file_is_that_of_one_copy(
    schema: str,
    database: asyncpg.Connection,
    reading: Callable[..., Any],
    same_time: None,
    format_name: str,
    order: tuple[str, ...],
) -> None:
    """By hash, for 1 to 4 streams, with and without a filter."""
    await database.execute(MAKE)
    dataset = Dataset(name="things", table=f"{schema}.things", order=order)
    for request in ({}, {"filters": {"id": {"gt": 700}, "t": {"ne": "moved"}}}):
        files = [await reading(dataset, format_name, streams, **request) for streams in (1, 2, 3, 4)]
        assert {file.data.row_count for file in files} == {files[0].data.row_count}
        assert len({hashlib.sha256(file.content).hexdigest() for file in files}) == 1
        assert files[0].data.row_count > 5000
