"""A failure in the middle of an export leaves no object and no open multipart upload."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any
from unittest.mock import MagicMock
from uuid import UUID

import asyncpg
import pytest
from minio.error import S3Error

from stream_app.datasets.models import Dataset
from stream_app.exports.columns import Column
from stream_app.exports.formats.base import CopySelect, Document, Tally
from stream_app.exports.formats.csv import CsvFormat
from stream_app.exports.formats.parquet import writer
from stream_app.exports.formats.registry import FORMATS
from stream_app.exports.pipeline import Exporter
from stream_app.exports.plugins import PluginFailed
from stream_app.exports.sources.source import Source
from stream_app.exports.task import ExportProgress, ExportTask
from stream_app.settings import Settings
from stream_app.storage import object_store
from stream_app.storage.object_removal import ABORTS
from stream_app.storage.object_store import ObjectStore
from streaming_exporter.errors import Rejected, Retryable
from streaming_exporter.events import ExportRequest, Options, Split
from tests.integration.exports.conftest import task_for
from tests.waiting import patient, until_async

ROWS = 60_000
"""Rows of several parts of a multipart upload, each of :data:`PART` bytes."""

PART = 2**20

Build = Callable[..., Exporter]


@pytest.fixture
async def large(database: asyncpg.Connection, schema: str, monkeypatch: pytest.MonkeyPatch) -> Dataset:
    """Views: a long one, one whose last row fails, and one that never ends.

    Parts of uploads are small, and Parquet writes rows before it has several of them.
    """
    monkeypatch.setattr(object_store, "PART_SIZE", PART)
    monkeypatch.setattr(writer, "ROW_GROUP_BYTES", PART)
    await database.execute(
        f"""
        CREATE VIEW large AS SELECT n AS id, md5(n::text) || md5((-n)::text) || md5((n / 7.0)::text) AS text
        FROM generate_series(1, {ROWS}) n;
        CREATE VIEW broken AS SELECT id, text, 1 / ({ROWS} - id) AS boom FROM large;
        CREATE VIEW slow AS
        SELECT id, text, pg_sleep(CASE id WHEN {ROWS} THEN 60 ELSE 0 END)::text AS s FROM large;
        """
    )
    return Dataset(name="large", table=f"{schema}.large")


def task_of(name: str) -> ExportTask:
    return task_for(ExportRequest(user_id="u", export_type="large", format=name, scope="all"))


def other(dataset: Dataset, view: str) -> Dataset:
    assert dataset.table is not None
    return dataset.model_copy(update={"table": dataset.table.replace("large", view)})


def leftovers(storage: ObjectStore, task: ExportTask) -> list[str]:
    prefix = f"jobs/{task.name}/"
    return [*objects(storage, prefix), *(item.key for item in storage.listing.open_uploads(UUID(task.name)))]


def objects(storage: ObjectStore, prefix: str) -> list[str]:
    found = storage._client.list_objects(storage.bucket, prefix=prefix, recursive=True)
    return [str(item.object_name) for item in found]


@pytest.mark.parametrize("name", sorted(FORMATS.keys() - {"pdf"}))
async def test_a_source_that_fails(
    exporter_of: Build, storage: ObjectStore, large: Dataset, name: str
) -> None:
    task = task_of(name)
    with pytest.raises(Rejected, match="division by zero"):
        await exporter_of(other(large, "broken")).run(task, ExportProgress())
    assert leftovers(storage, task) == []


@pytest.mark.parametrize("name", sorted(FORMATS.keys() - {"pdf"}))
async def test_a_cancelled_export(
    exporter_of: Build, storage: ObjectStore, large: Dataset, database: asyncpg.Connection, name: str
) -> None:
    task = task_of(name)
    progress = ExportProgress()
    running = asyncio.create_task(exporter_of(other(large, "slow")).run(task, progress))
    await _until_uploading(storage, task, running)
    running.cancel()
    await asyncio.wait({running}, timeout=patient(30))
    assert running.cancelled()
    assert leftovers(storage, task) == []
    ended = "SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name = $1"
    await until_async(lambda: database.fetchval(ended, f"exporter {task.name}"))


class ExitingFormat(CsvFormat):
    def frame(self, chunks: Iterator[bytes], document: Document, tally: Tally) -> Iterator[bytes]:
        raise SystemExit(3)


class EndedFormat(CsvFormat):
    def frame(self, chunks: Iterator[bytes], document: Document, tally: Tally) -> Iterator[bytes]:
        raise StopIteration


class ExitingProcess(ExitingFormat):
    own_process = True


class ExitingSelect(CsvFormat):
    def copy_select(self, columns: Sequence[Column], options: Options) -> CopySelect:
        raise SystemExit(3)


class EndedSelect(CsvFormat):
    def copy_select(self, columns: Sequence[Column], options: Options) -> CopySelect:
        return next(iter(()))


@pytest.mark.parametrize(
    "broken",
    [ExitingFormat, EndedFormat, ExitingProcess, ExitingSelect, EndedSelect],
    ids=lambda it: it.__name__,
)
async def test_a_format_of_another_package_that_ends_itself(
    exporter_of: Build, storage: ObjectStore, large: Dataset, broken: type[CsvFormat]
) -> None:
    """Its own job fails. The worker goes on, and no task waits for the thread that has ended."""
    task = task_of("csv")
    exporter = replace(exporter_of(large), formats={"csv": broken()})
    async with asyncio.timeout(patient(20)):
        with pytest.raises(PluginFailed, match=r"SystemExit|StopIteration"):
            await exporter.run(task, ExportProgress())
    assert leftovers(storage, task) == []


@pytest.mark.parametrize("ending", ["error", "cancellation"])
async def test_several_files_are_removed_with_the_attempt(
    exporter_of: Build, storage: ObjectStore, large: Dataset, ending: str
) -> None:
    """Whether it fails or is cancelled after some of its files are complete."""
    request = ExportRequest(
        user_id="u", export_type="large", format="csv", scope="all", split=Split(rows=ROWS // 8)
    )
    task = task_for(request)
    view = other(large, "broken" if ending == "error" else "slow")
    running = asyncio.create_task(exporter_of(view).run(task, ExportProgress()))
    if ending == "error":
        with pytest.raises(Rejected, match="division by zero"):
            await running
    else:
        await until_async(lambda: asyncio.to_thread(lambda: len(objects(storage, f"jobs/{task.name}/")) >= 5))
        running.cancel()
        await asyncio.wait({running}, timeout=patient(30))
        assert running.cancelled()
    assert leftovers(storage, task) == []


class Failing(ObjectStore):
    """A store that is unavailable after the first part."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        original = self._client._upload_part

        def part(*arguments: Any) -> str:
            if arguments[-1] > 1:
                raise OSError("the store is gone")
            return original(*arguments)

        vars(self._client)["_upload_part"] = part


@pytest.mark.parametrize("name", sorted(FORMATS.keys() - {"pdf"}))
async def test_a_store_that_fails(
    exporter_of: Build, storage: ObjectStore, large: Dataset, settings: Settings, name: str
) -> None:
    task = task_of(name)
    with pytest.raises(Retryable, match="object store: the store is gone"):
        await exporter_of(large, storage=Failing(settings)).run(task, ExportProgress())
    assert leftovers(storage, task) == []


async def test_objects_of_lost_attempts_are_removed(storage: ObjectStore) -> None:
    job = "00000000-0000-4000-8000-000000000001"
    for attempt in (1, 2, 3):
        key = f"jobs/{job}/{attempt}/f"
        storage.put(key, iter([b"x"]), content_type="text/plain", file_name="f", metadata=dict)
    upload = storage._client._create_multipart_upload(storage.bucket, f"jobs/{job}/2/g", {})
    assert upload
    assert storage.removal.remove_attempts(job, before=3) == 3
    assert objects(storage, f"jobs/{job}/") == [f"jobs/{job}/3/f"]
    assert storage.listing.open_uploads(job) == []


@pytest.mark.parametrize("answer", ["success", "NoSuchUpload"])
async def test_an_upload_that_an_abort_leaves_is_aborted_again(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    """The store takes the abort, or does not find the upload, but a part that was being written keeps it."""
    storage, job, calls = ObjectStore(settings), "00000000-0000-4000-8000-000000000002", []
    abort = storage._client._abort_multipart_upload

    def without_effect_at_first(*arguments: Any) -> None:
        calls.append(arguments)
        if len(calls) > 1:
            abort(*arguments)
        elif answer == "NoSuchUpload":
            raise S3Error(MagicMock(), answer, None, None, None, None)

    monkeypatch.setattr(storage._client, "_abort_multipart_upload", without_effect_at_first)
    storage._client._create_multipart_upload(storage.bucket, f"jobs/{job}/1/f", {})
    assert storage.removal.remove_attempts(job, before=2) == 1
    assert storage.listing.open_uploads(job) == []
    assert len(calls) == 2


async def test_an_upload_that_stays_is_aborted_a_few_times_only(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage, job, calls = ObjectStore(settings), "00000000-0000-4000-8000-000000000003", []
    abort = storage._client._abort_multipart_upload
    upload = storage._client._create_multipart_upload(storage.bucket, f"jobs/{job}/1/f", {})
    monkeypatch.setattr(storage._client, "_abort_multipart_upload", lambda *of: calls.append(of))
    storage.removal.remove_attempts(job, before=2)
    assert len(calls) == ABORTS
    abort(storage.bucket, f"jobs/{job}/1/f", upload)


@pytest.mark.parametrize("statement", ["count", "copy"])
async def test_a_lost_connection_ends_its_statement_at_the_source(
    source: Source, database: asyncpg.Connection, schema: str, statement: str
) -> None:
    """The statement has no row to send yet, so it does not notice the loss by itself."""
    await database.execute("CREATE VIEW asleep AS SELECT pg_sleep(30)::text AS s")
    sql, name = f"SELECT s FROM {schema}.asleep WHERE s IS NOT NULL", f"asleep {statement}"

    async def read() -> None:
        async with source.snapshot(name) as snapshot:
            lost.append(snapshot.connection)
            await (snapshot.count(sql, 10) if statement == "count" else snapshot.copy(sql, {}, sink))

    async def sink(_: bytes) -> None:
        raise AssertionError("there is no row")

    lost: list[asyncpg.pool.PoolConnectionProxy[asyncpg.Record]] = []
    running = asyncio.create_task(read())
    await _until_servers(database, name, 1)
    lost[0]._con._transport.abort()
    await asyncio.wait({running}, timeout=patient(30))
    assert isinstance(running.exception(), Retryable)
    await _until_servers(database, name, 0)


async def _until_servers(database: asyncpg.Connection, name: str, number: int) -> None:
    """Wait until ``number`` servers run a query of the view. The script before it has no ``.asleep``."""
    sql = "SELECT count(*) = $2 FROM pg_stat_activity WHERE application_name = $1 AND query LIKE '%.asleep%'"
    await until_async(lambda: database.fetchval(sql, name, number))


async def _until_uploading(storage: ObjectStore, task: ExportTask, running: "asyncio.Task[object]") -> None:
    """Wait until a multipart upload is open, so that an upload could be left."""

    async def look() -> bool:
        return running.done() or bool(await asyncio.to_thread(storage.listing.open_uploads, task.name))

    await until_async(look)
    assert not running.done(), running
