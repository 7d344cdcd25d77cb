"""Several files: each is complete in itself, and together they have the rows of the single file."""

import asyncio
import gzip
import hashlib
import io
import json
import re
from collections.abc import Callable
from typing import Any

import asyncpg
import fastexcel
import pytest
import zstandard
from pypdf import PdfReader

from stream_app.datasets.models import Dataset
from stream_app.exports.formats.registry import FORMATS
from stream_app.exports.pipeline import Exporter
from stream_app.exports.task import ExportedFile, ExportLimits, ExportProgress, ExportResult, FileLimits
from stream_app.storage.object_store import ObjectStore
from streaming_exporter.errors import Rejected
from streaming_exporter.events import ExportRequest
from tests.integration.exports.conftest import task_for
from tests.integration.exports.test_conformance import READINGS, Table

MIB = 2**20


def read_pdf(content: bytes) -> Table:
    """The ids, which are at the start of the values, after a ``v``."""
    texts = (page.extract_text() for page in PdfReader(io.BytesIO(content)).pages)
    return [], [(int(found),) for text in texts for found in re.findall(r"^v(\d+)\b", text, re.MULTILINE)]


READ: dict[str, Callable[[bytes], Table]] = {name: reading.read for name, reading in READINGS.items()}
READ["pdf"] = read_pdf


class Splits:
    """Exports a table in several files."""

    def __init__(self, exporter_of: Callable[..., Exporter], storage: ObjectStore, table: str) -> None:
        self.dataset = Dataset(name="things", table=table)
        self._exporter_of = exporter_of
        self.storage = storage

    async def run(
        self, format_name: str, limits: ExportLimits | None = None, **request: Any
    ) -> tuple[ExportResult, ExportProgress]:
        wanted = ExportRequest.parse(
            {"user_id": "u", "export_type": "things", "format": format_name, "scope": "all", **request}
        )
        parts = {} if limits is None else {"limits": limits}
        progress = ExportProgress()
        exporter = self._exporter_of(self.dataset, **parts)
        return await exporter.run(task_for(wanted), progress), progress

    async def content(self, file: ExportedFile) -> bytes:
        content = await asyncio.to_thread(self.storage.read, file.key)
        assert len(content) == file.file_size
        assert hashlib.sha256(content).hexdigest() == file.sha256
        return content

    async def keys(self, result: ExportResult) -> list[str]:
        folder = result.key.rpartition("/")[0]
        return [key for page in self.storage.listing.keys_in(folder) for key in page]


async def fill(database: asyncpg.Connection, rows: int, value: str) -> None:
    await database.execute("CREATE TABLE things (id int PRIMARY KEY, value text)")
    await database.execute(f"INSERT INTO things SELECT n, {value} FROM generate_series(1, {rows}) AS n")


@pytest.fixture
def splits(exporter_of: Callable[..., Exporter], storage: ObjectStore, schema: str) -> Splits:
    return Splits(exporter_of, storage, f"{schema}.things")


def rows_of(format_name: str, content: bytes) -> list[tuple[Any, ...]]:
    _, rows = READ[format_name](content)
    return [(int(row[0]), *row[1:]) for row in rows]


def ids_of(format_name: str, content: bytes) -> list[int]:
    """Return the first column, of a large workbook too."""
    if format_name == "excel":
        sheet = fastexcel.read_excel(content).load_sheet(0, use_columns=[0])
        return [int(value) for value in sheet.to_arrow().column(0).to_pylist()]
    return [row[0] for row in rows_of(format_name, content)]


LINES = "CASE n % 3 WHEN 0 THEN E'a\\n\"b' WHEN 1 THEN '=1+1' END"


@pytest.mark.parametrize(
    ("format_name", "rows"),
    [*((name, rows) for name in FORMATS for rows in (0, 20)), ("csv", 7), ("excel", 7)],
)
async def test_rows_are_divided_exactly(
    splits: Splits, database: asyncpg.Connection, format_name: str, rows: int
) -> None:
    await fill(database, rows, "'v' || n" if format_name == "pdf" else LINES)
    options = {"null": "<not-a-text>", "guard_formulas": False} if format_name == "csv" else {}
    single, _ = await splits.run(format_name, options=options)
    result, progress = await splits.run(format_name, options=options, split={"rows": 7})
    extension = FORMATS[format_name].extension
    names = [
        f"things-{result.as_of:%Y-%m-%d}-{n:05}.{extension}" for n in range(1, max(1, -(-rows // 7)) + 1)
    ]
    assert [file.file_name for file in result.files] == names
    assert [file.number for file in result.files] == list(range(1, len(names) + 1))
    assert [file.row_count for file in result.files] == [
        min(7, rows - at) for at in range(0, max(rows, 1), 7)
    ]
    assert result.row_count == rows
    assert progress.tally.rows == rows or format_name == "csv"  # which counts lines
    pieces = [rows_of(format_name, await splits.content(file)) for file in result.files]
    assert [len(piece) for piece in pieces] == [file.row_count for file in result.files]
    whole = rows_of(format_name, await asyncio.to_thread(splits.storage.read, single.key))
    assert [row for piece in pieces for row in piece] == whole


async def test_the_manifest_lists_the_files(splits: Splits, database: asyncpg.Connection) -> None:
    await fill(database, 10, "'x'")
    result, _ = await splits.run("csv", split={"rows": 4}, options={"compression": "gzip"})
    content = await asyncio.to_thread(splits.storage.read, result.key)
    assert (result.file_name, result.content_type) == ("manifest.json", "application/json")
    assert hashlib.sha256(content).hexdigest() == result.sha256
    manifest = json.loads(content)
    assert manifest["rows"] == 10
    assert manifest["bytes"] == result.file_size == sum(file.file_size for file in result.files)
    assert (manifest["dataset"], manifest["format"], manifest["file_count"]) == ("things", "csv", 3)
    assert manifest["split"] == {"rows": 4}
    assert manifest["as_of"] == result.as_of.isoformat()
    assert manifest["job_id"] == result.key.split("/")[-3]
    url = f"s3://{result.bucket}/"
    assert [entry["url"] for entry in manifest["entries"]] == [url + file.key for file in result.files]
    assert manifest["entries"][0] == {
        "url": url + result.files[0].key,
        "mandatory": True,
        "meta": {"content_length": result.files[0].file_size},
    }
    assert [
        (item["rows"], item["bytes"], item["sha256"], item["file_name"]) for item in manifest["files"]
    ] == [(file.row_count, file.file_size, file.sha256, file.file_name) for file in result.files]
    assert "files" not in result.manifest
    assert result.manifest["file_count"] == 3
    assert sorted(await splits.keys(result)) == sorted([result.key, *(file.key for file in result.files)])


VARIED = "'v' || n || '-' || repeat(md5(n::text), 1 + n % 3)"
"""SQL of texts that are compressed to half of their size."""

BYTE_CASES = [
    *((name, "none", MIB) for name in FORMATS if name != "pdf"),
    ("pdf", "none", MIB // 2),  # less than a request can ask for, because it takes long
    ("csv", "gzip", MIB),
    ("csv", "zstd", MIB),
    ("json", "gzip", MIB),
    ("ndjson", "zstd", MIB),
]


@pytest.mark.parametrize(("format_name", "compression", "size"), BYTE_CASES)
async def test_no_file_is_larger_than_asked_and_none_is_much_smaller(
    splits: Splits, database: asyncpg.Connection, format_name: str, compression: str, size: int
) -> None:
    await fill(database, 6_000 if format_name == "pdf" else 50_000, VARIED)
    options = {"compression": compression}
    if size < MIB:
        result, _ = await splits.run(format_name, ExportLimits(file_bytes=size), options=options)
    else:
        result, _ = await splits.run(format_name, split={"bytes": size}, options=options)
    sizes = [file.file_size for file in result.files]
    assert len(sizes) >= 2
    assert max(sizes) <= size
    least = 0.2 if format_name == "pdf" else 0.5 if FORMATS[format_name].holds_rows else 0.95
    assert min(sizes[:-1]) >= least * size
    ids: list[int] = []
    for file in result.files:
        content = await splits.content(file)
        if compression == "gzip":
            content = gzip.decompress(content)
        elif compression == "zstd":
            content = zstandard.ZstdDecompressor().decompressobj().decompress(content)
        found = ids_of(format_name, content)
        assert len(found) == file.row_count
        ids += found
    assert sorted(ids) == list(range(1, len(ids) + 1))
    assert len(ids) == result.row_count


GROWING = {
    "csv": "repeat(';=', 300)",  # each formula is guarded
    "json": "repeat(chr(1), 600)",  # each character becomes six
    "ndjson": "repeat(chr(1), 600)",
}


@pytest.mark.parametrize("format_name", GROWING)
async def test_values_that_grow_where_nothing_grew_before_exceed_no_file(
    splits: Splits, database: asyncpg.Connection, format_name: str
) -> None:
    noise = "md5(n::text) || md5((-n)::text)"
    grown = f"{GROWING[format_name]} || {noise}"
    await fill(database, 8_000, f"CASE WHEN n % 4000 < 2500 THEN {noise} ELSE {grown} END")
    result, _ = await splits.run(format_name, split={"bytes": MIB})
    assert len(result.files) > 1
    assert max(file.file_size for file in result.files) <= MIB


@pytest.mark.parametrize("compression", ["none", "gzip"])
async def test_a_row_that_is_larger_than_a_file_is_a_file_of_its_own(
    splits: Splits, database: asyncpg.Connection, compression: str
) -> None:
    blob = "(SELECT string_agg(md5((n * 100000 + k)::text), '') FROM generate_series(1, 100000) AS k)"
    await fill(database, 4, f"CASE WHEN n = 2 THEN {blob} ELSE 'x' END")
    result, _ = await splits.run("csv", split={"bytes": MIB}, options={"compression": compression})
    assert [file.row_count for file in result.files] == [1, 1, 2]
    assert result.files[1].file_size > MIB


@pytest.mark.parametrize("format_name", ["csv", "parquet"])
async def test_a_file_that_would_be_too_large_for_the_store_is_divided_by_itself(
    splits: Splits, database: asyncpg.Connection, format_name: str
) -> None:
    await fill(database, 60_000, VARIED)
    result, _ = await splits.run(format_name, ExportLimits(file_bytes=MIB))
    assert len(result.files) > 1
    assert max(file.file_size for file in result.files) <= MIB
    assert result.row_count == sum(file.row_count for file in result.files) == 60_000
    for file in result.files:
        assert len(rows_of(format_name, await splits.content(file))) == file.row_count
    assert result.manifest["split"] == {"bytes": MIB, "automatic": True}
    assert result.manifest["warnings"]["split_automatically"] == len(result.files)
    counted = [splits.storage._client.stat_object(result.bucket, file.key).metadata for file in result.files]
    expected = [None, *(str(file.row_count) for file in result.files[1:])]
    assert [(found or {}).get("x-amz-meta-rows") for found in counted] == expected
    assert [file.file_name.split("-")[-1].split(".")[0] for file in result.files][:2] == ["00001", "00002"]


async def test_an_export_that_fits_is_one_file_without_a_number(
    splits: Splits, database: asyncpg.Connection
) -> None:
    await fill(database, 100, "'x'")
    result, _ = await splits.run("csv", ExportLimits(file_bytes=MIB))
    assert result.files == ()
    assert result.file_name == f"things-{result.as_of:%Y-%m-%d}.csv"
    assert await splits.keys(result) == [result.key]
    stored = splits.storage._client.stat_object(result.bucket, result.key)
    assert stored.metadata is not None
    assert stored.metadata["x-amz-meta-rows"] == "100"


async def test_too_many_files_are_refused_and_none_is_left(
    splits: Splits, database: asyncpg.Connection
) -> None:
    await fill(database, 100, "'x'")
    before = {item.key for page in splits.storage.listing.pages() for item in page}
    with pytest.raises(
        Rejected, match=r"split: the export has more than 5 files .* EXPORTER_SPLIT_MAX_FILES"
    ):
        await splits.run("csv", ExportLimits(max_files=5), split={"rows": 10})
    after = {item.key for page in splits.storage.listing.pages() for item in page}
    assert after - before == set()


async def test_a_small_disk_for_large_parts_divides_the_export(
    splits: Splits, database: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the first part that would not fit: what was sent would be lost with the attempt."""
    await fill(database, 3_000, "repeat('x', 1000)")
    monkeypatch.setattr("stream_app.exports.pipeline.largest_file_on", lambda _: MIB)
    result, _ = await splits.run("csv", ExportLimits(file_bytes=2**40))
    assert len(result.files) > 2
    assert max(file.file_size for file in result.files) <= MIB
    assert result.manifest["split"] == {"bytes": MIB, "automatic": True}


async def test_the_limits_of_a_pdf_hold_for_each_file(splits: Splits, database: asyncpg.Connection) -> None:
    await fill(database, 25, "'x'")
    limits = ExportLimits(formats={"pdf": FileLimits(max_rows=10)})
    with pytest.raises(Rejected, match=r"more than 10 rows.*divide it into several files"):
        await splits.run("pdf", limits)
    result, _ = await splits.run("pdf", limits, split={"rows": 100})
    assert [file.row_count for file in result.files] == [10, 10, 5]


@pytest.mark.parametrize("compression", ["none", "zstd"])
async def test_rows_that_become_shorter_make_no_file_larger_than_asked(
    splits: Splits, database: asyncpg.Connection, compression: str
) -> None:
    """The names in a JSON object can be much longer than its values, and PostgreSQL does not send them."""
    name = "a_very_long_name_of_a_column_that_is_mostly_null_"
    columns = ", ".join(f"{name}{number} text" for number in range(8))
    await database.execute(f"CREATE TABLE things (id int PRIMARY KEY, {columns})")
    values = ", ".join("CASE WHEN n < 2000 THEN md5(n::text) END" for _ in range(8))
    await database.execute(f"INSERT INTO things SELECT n, {values} FROM generate_series(1, 12000) AS n")
    result, _ = await splits.run("json", split={"bytes": MIB}, options={"compression": compression})
    sizes = [file.file_size for file in result.files]
    assert max(sizes) <= MIB
    assert min(sizes[:-1], default=MIB) >= 0.9 * MIB
    assert result.row_count == 12_000
