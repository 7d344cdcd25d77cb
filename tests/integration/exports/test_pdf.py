"""PDF files through the whole pipeline, framed by another process."""

import io
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import asyncpg
import psutil
import pytest
from pypdf import PdfReader

from stream_app.datasets.models import Dataset
from stream_app.exports.formats.framing_process import end_idle
from stream_app.exports.pipeline import Exporter
from stream_app.exports.task import ExportLimits, ExportProgress
from stream_app.settings import Settings
from stream_app.storage.object_store import ObjectStore, StoredObject
from streaming_exporter.errors import Rejected, Retryable
from streaming_exporter.events import ExportRequest
from tests.integration.exports.conftest import Export, task_for

PROCESS = "stream_app.exports.formats.framing_process"


def squeezed(text: str) -> str:
    return "".join(text.split())


def text_of(content: bytes) -> str:
    return "\n".join(page.extract_text() for page in PdfReader(io.BytesIO(content), strict=True).pages)


def framing() -> int:
    found = 0
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # it has ended since the list was made
            found += PROCESS in process.cmdline()
    return found


TYPES = """
    CREATE TYPE mood AS ENUM ('sad', 'happy');
    CREATE TABLE types (
        id int PRIMARY KEY, b boolean, i8 bigint, n numeric, f float8, t text, c char(4), u uuid, d date,
        tm time,
        ts timestamp, tz timestamptz, iv interval, jb jsonb, j json, by bytea, a text[], m mood, ip inet,
        r int4range
    );
    INSERT INTO types VALUES (
        1, true, 9223372036854775807, 12345678901234567890.0123456789, '-Infinity', 'Grüße', 'ab',
        'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '2026-01-31', '13:30:00.5', '2026-01-31 13:30',
        '2026-01-31 13:30+02',
        '1 day 2 hours', '{"k": [1, null, 1.50]}', '{"a":  1}', '\\x00ff', ARRAY['a', NULL], 'happy',
        '10.0.0.1',
        '[1,5)'
    );
    INSERT INTO types (id) VALUES (2);
"""
SHOWN = [
    "true", "9223372036854775807", "12345678901234567890.0123456789", "-Infinity", "Grüße", "ab",
    "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "2026-01-31", "13:30:00.5", "2026-01-3113:30:00",
    "2026-01-3111:30:00", "P1DT2H", '{"k":[1,null,1.50]}', '{"a":1}', "AP8=", '["a",null]', "happy",
    "10.0.0.1",
    "[1,5)",
]  # fmt: skip


async def test_every_type(export: Export, database: asyncpg.Connection, schema: str) -> None:
    await database.execute(TYPES)
    text = squeezed(text_of((await export(f"{schema}.types", "pdf")).content))
    assert [value for value in SHOWN if value not in text] == []
    assert text.count("—") == len(SHOWN)


async def test_the_values_of_each_column_in_their_order(
    export: Export, database: asyncpg.Connection, schema: str
) -> None:
    await database.execute(
        "CREATE TABLE many AS SELECT n AS id, md5(n::text) AS hash, repeat(md5(n::text), n % 5) AS long"
        " FROM generate_series(1, 40) AS n; ALTER TABLE many ADD PRIMARY KEY (id)"
    )
    exported = await export(
        f"{schema}.many", "pdf", filters={"id": {"lte": 15}}, options={"title": "Many things"}
    )
    rows = await database.fetch("SELECT * FROM many WHERE id <= 15 ORDER BY id")
    text = squeezed(text_of(exported.content))
    assert "15rows" in text
    assert "id<=15" in text
    for column in ("id", "hash", "long"):
        assert "".join(str(row[column]) for row in rows) in text
    assert exported.data.row_count == 15


async def test_characters_without_a_glyph_are_in_the_manifest(
    export: Export, database: asyncpg.Connection, schema: str
) -> None:
    await database.execute("CREATE TABLE t (a text)")
    await database.execute("INSERT INTO t VALUES ($1), ($2)", "\U0001f600 \x01", "ગુજ")
    exported = await export(f"{schema}.t", "pdf")
    assert exported.warnings == {"replaced_characters": 5}
    assert "\\u{1f600}\\u{1}\\u{a97}\\u{ac1}\\u{a9c}" in squeezed(text_of(exported.content))


async def test_no_rows(export: Export, database: asyncpg.Connection, schema: str) -> None:
    await database.execute("CREATE TABLE t (a int, b text)")
    exported = await export(f"{schema}.t", "pdf")
    assert "0 rows" in text_of(exported.content)
    assert exported.data.content_type == "application/pdf"


async def test_a_source_that_fails_leaves_no_process(
    export: Export, database: asyncpg.Connection, schema: str
) -> None:
    await database.execute(
        "CREATE VIEW failing AS SELECT n, repeat('x', 1000) AS long, 1 / (5000 - n) AS ratio"
        " FROM generate_series(1, 6000) AS n"
    )
    with pytest.raises(Rejected, match="division by zero"):
        await export(f"{schema}.failing", "pdf")
    assert framing() == 0


class Gone(ObjectStore):
    """A store that is unavailable after some bytes."""

    def put(self, key: str, chunks: Iterator[bytes], **known: Any) -> StoredObject:
        next(chunks)
        raise Retryable("the store is gone")


async def test_a_store_that_fails_leaves_no_process(
    exporter_of: Callable[..., Exporter], settings: Settings, database: asyncpg.Connection, schema: str
) -> None:
    """This holds also while the error, which refers to the generator, is handled."""
    await database.execute("CREATE TABLE t AS SELECT repeat('x', 500) AS a FROM generate_series(1, 2000)")
    end_idle()
    exporter = exporter_of(Dataset(name="things", table=f"{schema}.t"), storage=Gone(settings))
    request = {"user_id": "u", "export_type": "things", "format": "pdf", "scope": "all"}
    with pytest.raises(Retryable, match="the store is gone") as caught:
        await exporter.run(task_for(ExportRequest.parse(request)), ExportProgress())
    assert framing() == 0
    assert caught.tb


async def test_more_bytes_than_allowed(
    exporter_of: Callable[..., Exporter], settings: Settings, database: asyncpg.Connection, schema: str
) -> None:
    """V11: the limit is on bytes as well as on rows."""
    await database.execute("CREATE TABLE t AS SELECT repeat('x', 100000) AS a FROM generate_series(1, 20)")
    limited = settings.model_copy(update={"pdf_max_bytes": 1_000_000})
    exporter = exporter_of(Dataset(name="things", table=f"{schema}.t"), limits=ExportLimits.of(limited))
    request = {"user_id": "u", "export_type": "things", "format": "pdf", "scope": "all"}
    with pytest.raises(Rejected, match="more than 1,000,000 bytes") as caught:
        await exporter.run(task_for(ExportRequest.parse(request)), ExportProgress())
    assert caught.value.code == "too_many_bytes"
    assert framing() == 0
