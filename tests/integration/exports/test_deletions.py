"""Runs with a window write the rows that are not deleted and, beside them, those deleted in the window."""

import asyncio
import csv
import gzip
import io
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import asyncpg
import pytest

from stream_app.datasets.models import Dataset
from stream_app.exports.pipeline import Exporter
from stream_app.exports.reading.row_reader import ParallelReading, RowReader
from stream_app.exports.sources import session as source_session
from stream_app.exports.sources.source import Source
from stream_app.exports.task import ExportLimits, ExportProgress, ExportResult
from stream_app.settings import Settings
from stream_app.storage.object_store import ObjectStore, StoredObject
from streaming_exporter.errors import Rejected, Retryable
from streaming_exporter.events import ExportRequest
from tests.integration.exports.conftest import task_for
from tests.waiting import patient

WINDOW = {
    "column": "placed_at",
    "from": "2026-01-02T00:00:00+01:00",
    "to": "2026-01-03T00:00:00+01:00",
    "timezone": "Europe/Berlin",
}
IN_WINDOW = {"placed_at": {"gte": "2026-01-01T23:00:00Z", "lt": "2026-01-02T23:00:00Z"}}


@pytest.fixture
async def table(schema: str, database: asyncpg.Connection, request: pytest.FixtureRequest) -> str:
    """Orders: what has become of each is its name. The times are in UTC."""
    await database.execute(
        f"""
        SET timezone TO 'UTC';
        CREATE TABLE "{schema}".orders (
            id int PRIMARY KEY, name text, owner text, email text,
            placed_at timestamptz, removed_on {getattr(request, "param", "timestamptz")}
        );
        INSERT INTO "{schema}".orders VALUES
            (1, 'lives', 'ada', 'a@x', '2026-01-02 12:00', NULL),
            (2, 'older', 'ada', 'b@x', '2026-01-01 12:00', NULL),
            (3, 'new and gone', 'ada', 'c@x', '2026-01-02 12:00', '2026-01-02 13:00'),
            (4, 'old and gone', 'ada', 'd@x', '2025-01-01 12:00', '2026-01-01 23:00'),
            (5, 'gone before', 'ada', 'e@x', '2026-01-02 12:00', '2026-01-01 22:59:59'),
            (6, 'gone at the end', 'ada', 'f@x', '2026-01-02 12:00', '2026-01-02 23:00'),
            (7, 'of eve, gone', 'eve', 'g@x', '2026-01-02 12:00', '2026-01-02 13:00'),
            (8, 'of eve', 'eve', 'h@x', '2026-01-02 12:00', NULL);
        """
    )
    return f"{schema}.orders"


class Orders:
    """Exports the orders of a window."""

    def __init__(self, exporter_of: Callable[..., Exporter], storage: ObjectStore, table: str) -> None:
        self.storage = storage
        self.exporter_of = exporter_of
        self.dataset = Dataset(
            name="orders",
            table=table,
            owner="owner",
            time="placed_at",
            deleted_at="removed_on",
            order=("id",),
        )

    async def run(
        self,
        *,
        window: dict[str, Any] | None = WINDOW,
        limits: ExportLimits | None = None,
        dataset: dict[str, Any] | None = None,
        parts: dict[str, Any] | None = None,
        **changes: Any,
    ) -> ExportResult:
        wanted = {"user_id": "ada", "export_type": "orders", "format": "csv", "scope": "all"}
        filters = (IN_WINDOW if window else {}) | changes.pop("filters", {})
        request = ExportRequest.parse({**wanted, "filters": filters, **changes})
        entry = Dataset.model_validate(self.dataset.model_dump(exclude_none=True) | (dataset or {}))
        parts = {**(parts or {}), **({} if limits is None else {"limits": limits})}
        self.task = replace(task_for(request), window=window)
        return await self.exporter_of(entry, **parts).run(self.task, ExportProgress())

    async def ids(self, result: ExportResult) -> dict[str, list[int]]:
        """Return the ids in the files by the kind of file."""
        found: dict[str, list[int]] = {}
        for file in result.files:
            content = await asyncio.to_thread(self.storage.read, file.key)
            text = gzip.decompress(content) if file.key.endswith(".gz") else content
            rows = list(csv.DictReader(io.StringIO(text.decode())))
            assert len(rows) == file.row_count
            found.setdefault(file.content or "?", []).extend(int(row["id"]) for row in rows)
        return found

    def keys(self) -> list[str]:
        folder = self.task.target("x").rpartition("/")[0]
        return [key for page in self.storage.listing.keys_in(folder) for key in page]


@pytest.fixture
def orders(exporter_of: Callable[..., Exporter], storage: ObjectStore, table: str) -> Orders:
    return Orders(exporter_of, storage, table)


@pytest.mark.parametrize("table", ["timestamptz", "timestamp"], indirect=True)
async def test_rows_and_deletions_of_a_window_are_two_files(orders: Orders) -> None:
    result = await orders.run()
    assert await orders.ids(result) == {"rows": [1, 8], "deletions": [3, 4, 7]}
    day = f"{result.as_of:%Y-%m-%d}"
    assert [file.file_name for file in result.files] == [f"orders-{day}.csv", f"orders-{day}-deleted.csv"]
    assert [file.number for file in result.files] == [1, 2]
    manifest = json.loads(await asyncio.to_thread(orders.storage.read, result.key))
    assert [(item["kind"], item["rows"]) for item in manifest["files"]] == [("rows", 2), ("deletions", 3)]
    assert (manifest["rows"], manifest["deletions"], manifest["file_count"]) == (5, 3, 2)
    assert "split" not in manifest
    assert (result.row_count, result.file_size) == (5, sum(file.file_size for file in result.files))
    assert {file.key for file in result.files} | {result.key} == set(orders.keys())


async def test_filters_scope_columns_and_masks_hold_for_both(orders: Orders) -> None:
    masked = {"column_settings": {"email": {"mask": "null"}, "name": {"label": "Name"}}}
    result = await orders.run(
        scope="own",
        filters={"id": {"gt": 3}, "removed_on": {"is_null": False}},
        columns=["id", "email"],
        options={"compression": "gzip"},
        dataset=masked,
    )
    assert await orders.ids(result) == {"rows": [], "deletions": [4]}
    gone = gzip.decompress(await asyncio.to_thread(orders.storage.read, result.files[1].key)).decode()
    assert gone.splitlines()[0] == "id,email"
    assert "d@x" not in gone


async def test_split_files_of_both_kinds_are_numbered_one_after_the_other(orders: Orders) -> None:
    result = await orders.run(split={"rows": 1})
    assert await orders.ids(result) == {"rows": [1, 8], "deletions": [3, 4, 7]}
    assert [file.number for file in result.files] == [1, 2, 3, 4, 5]
    names = [file.file_name.partition(f"{result.as_of:%Y-%m-%d}")[2] for file in result.files]
    assert names[:2] == ["-00001.csv", "-00002.csv"]
    assert names[2:] == ["-deleted-00001.csv", "-deleted-00002.csv", "-deleted-00003.csv"]


@pytest.mark.parametrize("format_name", ["ndjson", "excel", "pdf"])
async def test_other_formats_have_both_files(orders: Orders, format_name: str) -> None:
    result = await orders.run(format=format_name)
    assert [(file.content, file.row_count) for file in result.files] == [("rows", 2), ("deletions", 3)]


async def test_without_a_window_all_rows_are_exported(orders: Orders) -> None:
    result = await orders.run(window=None)
    assert (result.row_count, result.files) == (8, ())
    alive = await orders.run(window=None, filters={"removed_on": {"is_null": True}})
    assert alive.row_count == 3


async def test_a_failure_leaves_no_file_of_either_kind(orders: Orders, database: asyncpg.Connection) -> None:
    with pytest.raises(Rejected, match="more than 2 rows"):
        await orders.run(limits=ExportLimits(max_rows=2))
    assert orders.keys() == []
    # The deletions are complete when the rows fail.
    name = orders.dataset.table
    await database.execute(f"CREATE VIEW {name}_view AS SELECT *, 1 / (id - 8) AS part FROM {name}")
    with pytest.raises((Rejected, Retryable)):
        await orders.run(dataset={"table": f"{orders.dataset.table}_view"})
    assert orders.keys() == []


async def test_a_slow_upload_of_the_deletions_does_not_end_the_snapshot(
    orders: Orders, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The transaction has no statement until the first file is complete."""
    monkeypatch.setattr(source_session, "IDLE_SECONDS", int(patient(1)))
    put = ObjectStore.put

    def slowly(store: ObjectStore, key: str, chunks: Iterator[bytes], **options: Any) -> StoredObject:
        if "-deleted" in key:
            time.sleep(patient(1) + 0.5)
        return put(store, key, chunks, **options)

    monkeypatch.setattr(ObjectStore, "put", slowly)
    assert await orders.ids(await orders.run()) == {"rows": [1, 8], "deletions": [3, 4, 7]}


async def test_many_deletions_leave_the_snapshot_open_for_the_rows(
    orders: Orders, database: asyncpg.Connection, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several connections for the deletions would end the transaction before the rows are read."""
    name = orders.dataset.table
    await database.execute(
        f"""
        INSERT INTO {name} SELECT n, repeat('x', 40), 'ada', 'z@x', '2025-01-01', '2026-01-02 13:00'
        FROM generate_series(100, 6000) n;
        ANALYZE {name};
        """
    )
    read = RowReader.read

    async def read_and_insert(reader: RowReader, *arguments: Any) -> int:
        count = await read(reader, *arguments)
        await database.execute(
            f"INSERT INTO {name} VALUES (9, 'late', 'ada', '', '2026-01-02 12:00') ON CONFLICT DO NOTHING"
        )
        return count

    monkeypatch.setattr(RowReader, "read", read_and_insert)
    source = Source(settings, connections=8)
    try:
        reading = ParallelReading(3, min_bytes=0, range_bytes=60_000)
        result = await orders.run(parts={"sources": source, "reading": reading})
    finally:
        await source.close()
    assert await orders.ids(result) == {"rows": [1, 8], "deletions": [3, 4, 7, *range(100, 6001)]}


async def test_who_does_not_see_the_column_cannot_export_a_window(orders: Orders) -> None:
    hidden = {"column_settings": {"removed_on": {"roles": ["auditor"]}}}
    with pytest.raises(Rejected, match="cannot see the column that tells when"):
        await orders.run(dataset=hidden)
    everything = await orders.run(dataset=hidden, window=None)
    assert everything.row_count == 8
    seen = await orders.run(dataset=hidden, claims={"roles": ["auditor"]})
    assert await orders.ids(seen) == {"rows": [1, 8], "deletions": [3, 4, 7]}


async def test_a_column_without_times_is_refused(orders: Orders) -> None:
    with pytest.raises(Rejected, match="cannot tell when rows were deleted"):
        await orders.run(dataset={"deleted_at": "name"})


def test_deletions_need_a_time_column() -> None:
    with pytest.raises(ValueError, match="deleted_at needs time"):
        Dataset(name="orders", table="orders", deleted_at="removed_on")
    with pytest.raises(ValueError, match="must be two columns"):
        Dataset(name="orders", table="orders", time="at", deleted_at="at")
