"""Databases with another encoding than UTF-8: the file is UTF-8, or the export is refused."""

import csv
import io
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any
from uuid import uuid4

import asyncpg
import pyarrow.parquet as pq
import pytest
from openpyxl import load_workbook
from pydantic import SecretStr
from pypdf import PdfReader

from stream_app.datasets.models import ColumnSettings, Dataset, Parameter
from stream_app.exports.pipeline import Exporter
from stream_app.exports.queries.encodings import CODECS, is_lacking
from stream_app.exports.sources.source import Source
from stream_app.exports.tables.catalog import Catalog
from stream_app.settings import Settings
from stream_app.storage.object_store import ObjectStore
from streaming_exporter.errors import Rejected
from tests.integration.exports.conftest import exported_by

TEXTS = {
    "EUC_JP": "日本語 カナ",
    "EUC_KR": "한국어",
    "EUC_TW": "中文",
    "EUC_CN": "中文",
    "LATIN1": "Größe",
    "WIN1251": "Привет",
    "KOI8R": "Привет",
    "SQL_ASCII": "plain",
}

DATASET = Dataset(name="things", table="things")


READERS: dict[str, Callable[[bytes], str]] = {
    "csv": lambda content: list(csv.reader(io.StringIO(content.decode())))[1][1],
    "json": lambda content: str(json.loads(content)[0]["v"]),
    "ndjson": lambda content: str(json.loads(content)["v"]),
    "excel": lambda content: str(load_workbook(io.BytesIO(content)).worksheets[0].cell(2, 2).value),
    "parquet": lambda content: str(pq.read_table(io.BytesIO(content)).to_pylist()[0]["v"]),
}


@asynccontextmanager
async def table_of(encoding: str, text: str, source_dsn: str, settings: Settings) -> AsyncIterator[Source]:
    """Create a database with that encoding and one table for the block."""
    server = source_dsn.rpartition("/")[0]
    name = f"test_{uuid4().hex[:12]}"
    admin = await asyncpg.connect(source_dsn)
    await admin.execute(f"CREATE DATABASE {name} ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0")
    url = settings.source_dsn.rpartition("/")[0] + f"/{name}"
    source = Source(settings.model_copy(update={"source_database_url": SecretStr(url)}), connections=1)
    try:
        inside = await asyncpg.connect(f"{server}/{name}")
        await inside.execute(
            "CREATE TABLE things (id int PRIMARY KEY, v text, n numeric DEFAULT 1234567.5,"
            " d date DEFAULT '2026-01-31', b boolean DEFAULT true, j jsonb DEFAULT '{}');"
            "GRANT SELECT ON things TO PUBLIC"
        )
        await inside.execute(f"INSERT INTO things VALUES (1, {text})")
        await inside.close()
        yield source
    finally:
        await source.close()
        await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
        await admin.close()


@pytest.mark.parametrize("encoding", TEXTS)
async def test_every_format_is_utf_8(
    encoding: str,
    source_dsn: str,
    settings: Settings,
    storage: ObjectStore,
    exporter_of: Callable[..., Exporter],
) -> None:
    """P6."""
    text = TEXTS[encoding]
    async with table_of(encoding, f"'{text}'", source_dsn, settings) as source:
        exporter = exporter_of(DATASET, sources=source, catalog=Catalog(source))
        for name, read in READERS.items():
            exported = await exported_by(exporter, storage, DATASET, name)
            assert read(exported.content) == text, name
        filtered = await exported_by(exporter, storage, DATASET, "csv", filters={"v": {"prefix": text}})
        assert filtered.data.row_count == 1


async def test_bytes_that_are_no_utf_8_are_refused(
    source_dsn: str, settings: Settings, storage: ObjectStore, exporter_of: Callable[..., Exporter]
) -> None:
    """P6: a database without an encoding can hold any bytes, but a file cannot."""
    async with table_of("SQL_ASCII", "convert_from('\\xe9', 'SQL_ASCII')", source_dsn, settings) as source:
        exporter = exporter_of(DATASET, sources=source, catalog=Catalog(source))
        for name in READERS:
            with pytest.raises(Rejected, match="cannot be calculated or converted"):
                await exported_by(exporter, storage, DATASET, name)


@pytest.mark.parametrize("encoding", ["LATIN1", "WIN1251", "EUC_JP"])
async def test_what_the_service_writes_itself_needs_no_character_of_the_encoding(
    encoding: str,
    source_dsn: str,
    settings: Settings,
    storage: ObjectStore,
    exporter_of: Callable[..., Exporter],
) -> None:
    """P6: separators, dates, truth values and labels, none of which the encoding has completely."""
    # The second label is longer than a name in PostgreSQL.
    labels = {"j": ColumnSettings(label="Łódź 中文"), "v": ColumnSettings(label="x" * 99)}
    dataset = Dataset(name="things", table="things", column_settings=labels)
    async with table_of(encoding, "'plain'", source_dsn, settings) as source:
        exporter = exporter_of(dataset, sources=source, catalog=Catalog(source))

        async def export(output: str, *columns: str, **options: Any) -> bytes:
            wanted = {"options": options, "columns": list(columns)}
            return (await exported_by(exporter, storage, dataset, output, **wanted)).content

        printed = await export("pdf", "n", "d", "b", locale="fr-FR", language="ru")
        shown = PdfReader(io.BytesIO(printed)).pages[0].extract_text()
        assert {"1\u202f234\u202f567,5", "31/01/2026", "да"} <= set(shown.splitlines())
        written = await export("csv", "n", "d", locale="bg")
        assert written.decode().splitlines()[1] == "1234567,5;31.01.2026\u202fг."
        (keyed,) = json.loads(await export("json", "j", "v", headers="labels"))
        assert keyed == {"Łódź 中文": {}, "x" * 99: "plain"}
        assert json.loads(await export("json", "j", headers="labels")) == [{"Łódź 中文": {}}]
        for test in ("eq", "contains"):
            with pytest.raises(Rejected, match=rf"filters.v.{test}: expected only characters .* '😀'"):
                await exported_by(exporter, storage, dataset, "csv", filters={"v": {test: "😀"}})


@pytest.mark.parametrize(("encoding", "text"), [("LATIN1", "漢"), ("WIN1251", "Größe"), ("SQL_ASCII", "漢")])
async def test_a_character_that_the_encoding_lacks_is_no_value_of_it(
    encoding: str,
    text: str,
    source_dsn: str,
    settings: Settings,
    storage: ObjectStore,
    exporter_of: Callable[..., Exporter],
) -> None:
    """P6, S4: a user with such an id owns no rows, and an error names such a value of a parameter."""
    own = Dataset(name="own", table="things", owner="v", order=("id",))
    asked = Dataset(
        name="asked", query="SELECT * FROM things WHERE v = :v", parameters={"v": Parameter(type="text")}
    )
    async with table_of(encoding, "'plain'", source_dsn, settings) as source:
        exporter = exporter_of(own, asked, sources=source, catalog=Catalog(source))
        for user, rows in ((text, 0), ("plain", 1)):
            exported = await exported_by(exporter, storage, own, "csv", scope="own", user_id=user)
            assert exported.data.row_count == rows
        if encoding == "SQL_ASCII":  # it has all bytes
            exported = await exported_by(exporter, storage, asked, "csv", parameters={"v": text})
            assert exported.data.row_count == 0
            return
        with pytest.raises(
            Rejected, match=rf"^parameters\.v: expected only .* encoding .* '{text}'"
        ) as error:
            await exported_by(exporter, storage, asked, "csv", parameters={"v": text})
        assert error.value.code == "bad_parameter_value"


async def test_the_codecs_have_each_character_that_postgresql_has(database: asyncpg.Connection) -> None:
    """S4: otherwise a user would lose rows."""
    for encoding in CODECS:
        try:
            characters = await database.fetchval(
                "SELECT convert_from($1, $2)", bytes(range(128, 256)), encoding
            )
        except asyncpg.PostgresError:  # a byte is no character
            characters = ""
            for byte in range(128, 256):
                with suppress(asyncpg.PostgresError):
                    characters += await database.fetchval(
                        "SELECT convert_from($1, $2)", bytes([byte]), encoding
                    )
        assert [one for one in characters if is_lacking(encoding, one)] == [], encoding
        assert len(characters) > 70
    assert is_lacking("LATIN1", "a漢")
    assert not is_lacking("EUC_JP", "漢"), "only PostgreSQL knows"
