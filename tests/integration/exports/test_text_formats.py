"""csv, json and ndjson, read by independent libraries."""

import csv
import gzip
import hashlib
import io
import json
from base64 import b64encode
from collections.abc import Callable
from typing import Any

import asyncpg
import pytest
import zstandard

from stream_app.datasets.models import Dataset
from streaming_exporter.errors import Rejected
from tests.integration.exports.conftest import Export

NASTY = [
    "plain", "", None, "comma, and more", 'quote " inside', "line\nbreak", "carriage\r\nreturn", "tab\there",
    "back\\slash", "\\.", "\\N", "<xml> & 'more'", "emoji \U0001f600 é́ ‏עברית‏", "\x01control\x02\x1f", " spaces ",
    "=SUM(A1)", "+1", "-1", "@cmd", "x" * 100_000, "NULL", "001", "12345678901234567890",
]  # fmt: skip


@pytest.fixture
async def nasty(database: asyncpg.Connection, schema: str) -> str:
    await database.execute("CREATE TABLE nasty (id int PRIMARY KEY, value text)")
    await database.executemany("INSERT INTO nasty VALUES ($1, $2)", list(enumerate(NASTY)))
    return f"{schema}.nasty"


def read_csv(content: bytes, **options: Any) -> list[list[str]]:
    return list(csv.reader(io.StringIO(content.decode(), newline=""), strict=True, **options))


@pytest.mark.parametrize("name", ["json", "ndjson"])
async def test_json_keeps_every_text(export: Export, nasty: str, name: str) -> None:
    exported = await export(nasty, name)
    lines = exported.content.decode()
    rows = json.loads(lines) if name == "json" else [json.loads(line) for line in lines.splitlines()]
    assert [row["value"] for row in rows] == NASTY
    assert exported.data.row_count == len(NASTY)


async def test_csv_keeps_every_text_and_distinguishes_null_from_empty(export: Export, nasty: str) -> None:
    exported = await export(nasty, "csv", options={"guard_formulas": False, "null": "\\N"})
    header, *rows = read_csv(exported.content)
    assert header == ["id", "value"]
    assert [value for _, value in rows] == ["\\N" if text is None else text for text in NASTY]
    assert b'\n10,"\\N"\n' in exported.content
    assert b"\n2,\\N\n" in exported.content


async def test_csv_guards_formulas_in_text_and_counts_them(export: Export, nasty: str) -> None:
    exported = await export(nasty, "csv")
    _, *rows = read_csv(exported.content)
    formulas = ("=SUM(A1)", "@cmd")  # "+1" and "-1" are numbers
    expected = ["'" + text if text in formulas else text or "" for text in NASTY]
    assert [value for _, value in rows] == expected
    assert exported.warnings == {"guarded_formulas": 2}


async def test_csv_options(export: Export, database: asyncpg.Connection, schema: str) -> None:
    await database.execute('CREATE TABLE t ("=first" int, "b;c" text); INSERT INTO t VALUES (-1, \'x;y\')')
    exported = await export(f"{schema}.t", "csv", options={"delimiter": ";", "bom": True})
    assert exported.content == '\ufeff\'=first;"b;c"\n-1;"x;y"\n'.encode()
    headless = await export(f"{schema}.t", "csv", options={"header": False, "delimiter": "\t"})
    assert headless.content == b"-1\tx;y\n"


@pytest.mark.parametrize(("name", "expected"), [("csv", b"a\n"), ("json", b"[]\n"), ("ndjson", b"")])
async def test_no_rows(
    export: Export, database: asyncpg.Connection, schema: str, name: str, expected: bytes
) -> None:
    await database.execute("CREATE TABLE t (a int)")
    exported = await export(f"{schema}.t", name)
    assert exported.content == expected
    assert exported.data.row_count == 0


TYPES = """
    CREATE TYPE mood AS ENUM ('sad', 'happy');
    CREATE DOMAIN short AS varchar(5);
    CREATE TABLE types (
        b boolean, i2 smallint, i8 bigint, n numeric, nan numeric, f float8, inf float8, t text, v short, c char(3),
        u uuid, d date, tm time, ts timestamp, tz timestamptz, iv interval, jb jsonb, j json, by bytea, a text[],
        m mood, ip inet, r int4range
    );
    INSERT INTO types VALUES (
        true, -5, 9223372036854775807, 12345678901234567890.0123456789, 'NaN', 0.1, '-Infinity', 'x', 'dom', 'ab',
        'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '2026-01-31', '13:30:00.5', '2026-01-31 13:30:00',
        '2026-01-31 13:30:00.25+02', '1 day 2 hours', '{"k": [1, null, 1.50]}', E'{"a":\n 1,\\t"a": 2}',
        decode(repeat('00ff', 40), 'hex'), ARRAY['a', NULL, 'c,"d'], 'happy', '10.0.0.1', '[1,5)'
    );
    INSERT INTO types DEFAULT VALUES;
"""

CSV_TYPES = {
    "b": "true", "i2": "-5", "i8": "9223372036854775807", "n": "12345678901234567890.0123456789", "nan": "NaN",
    "f": "0.1", "inf": "-Infinity", "t": "x", "v": "dom", "c": "ab", "u": "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
    "d": "2026-01-31", "tm": "13:30:00.5", "ts": "2026-01-31T13:30:00", "tz": "2026-01-31T11:30:00.25+00:00",
    "iv": "P1DT2H", "jb": '{"k": [1, null, 1.50]}', "j": '{"a":\n 1,\t"a": 2}', "by": b64encode(b"\x00\xff" * 40).decode(),
    "a": '["a",null,"c,\\"d"]', "m": "happy", "ip": "10.0.0.1", "r": "[1,5)",
}  # fmt: skip
JSON_TYPES = CSV_TYPES | {
    "b": True, "i2": -5, "i8": 9223372036854775807, "n": 12345678901234567890.0123456789, "f": 0.1,
    "jb": {"k": [1, None, 1.5]}, "j": {"a": 2}, "a": ["a", None, 'c,"d'],
}  # fmt: skip


async def test_every_type_in_csv(export: Export, database: asyncpg.Connection, schema: str) -> None:
    await database.execute(TYPES)
    header, full, empty = read_csv((await export(f"{schema}.types", "csv")).content)
    assert dict(zip(header, full, strict=True)) == CSV_TYPES
    assert empty == [""] * len(header)


async def test_every_type_in_json(export: Export, database: asyncpg.Connection, schema: str) -> None:
    await database.execute(TYPES)
    content = (await export(f"{schema}.types", "ndjson")).content.decode()
    full, empty = map(json.loads, content.splitlines())
    assert full == JSON_TYPES
    assert '"n":12345678901234567890.0123456789,' in content
    assert set(empty.values()) == {None}
    assert list(full) == list(CSV_TYPES)


async def test_names_that_look_like_sql(export: Export, database: asyncpg.Connection, schema: str) -> None:
    names = ['a"; DROP TABLE x; --', "select", "$1", "%s", ":name", "Ünï", "rows", "row", "a b", "'q'"]
    columns = ", ".join('"' + name.replace('"', '""') + '" int' for name in names)
    await database.execute(f'CREATE TABLE "we""ird" ({columns}); INSERT INTO "we""ird" VALUES (1)')
    exported = await export(f'{schema}.we"ird', "json", filters={"$1": {"is_null": True}})
    assert json.loads(exported.content) == [dict.fromkeys(names, None) | {names[0]: 1}]
    header, _ = read_csv((await export(f'{schema}.we"ird', "csv")).content)
    assert header == names


async def test_three_hundred_columns(export: Export, database: asyncpg.Connection, schema: str) -> None:
    await database.execute(f"CREATE TABLE wide ({', '.join(f'c{number} int' for number in range(300))})")
    await database.execute(f"INSERT INTO wide VALUES ({', '.join(map(str, range(300)))})")
    assert json.loads((await export(f"{schema}.wide", "json")).content) == [{f"c{n}": n for n in range(300)}]


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
async def test_compressed_files_have_the_type_of_their_suffix(
    export: Export, nasty: str, compression: str
) -> None:
    plain = await export(nasty, "ndjson")
    packed = await export(nasty, "ndjson", options={"compression": compression})
    suffix, media_type = {"gzip": (".gz", "application/gzip"), "zstd": (".zst", "application/zstd")}[
        compression
    ]
    unpack: dict[str, Callable[[bytes], bytes]] = {
        "gzip": gzip.decompress,
        "zstd": lambda data: zstandard.ZstdDecompressor().decompressobj().decompress(data),
    }
    assert (packed.data.file_name or "").endswith(f".ndjson{suffix}")
    assert packed.data.content_type == media_type
    assert unpack[compression](packed.content) == plain.content


async def test_the_manifest_describes_the_file(export: Export, nasty: str) -> None:
    exported = await export(nasty, "csv", filters={"id": {"lt": 5}}, columns=["value", "id"])
    manifest = exported.data.manifest
    assert manifest is not None
    assert manifest["rows"] == exported.data.row_count == 5
    assert manifest["bytes"] == exported.data.file_size == len(exported.content)
    assert manifest["sha256"] == exported.data.sha256 == hashlib.sha256(exported.content).hexdigest()
    assert manifest["columns"] == [{"name": "value", "type": "text"}, {"name": "id", "type": "integer"}]
    assert manifest["filters"] == {"id": {"lt": 5}}


async def test_own_scope(export: Export, database: asyncpg.Connection, schema: str) -> None:
    await database.execute("CREATE TABLE t (id int PRIMARY KEY, owner text)")
    await database.execute("INSERT INTO t VALUES (1, 'u'), (2, 'other'), (3, 'u')")
    dataset = Dataset(name="t", table=f"{schema}.t", owner="owner", columns=("id",))
    exported = await export("", "csv", dataset=dataset, scope="own")
    assert exported.content == b"id\n1\n3\n"
    with pytest.raises(Rejected, match=r"scope: dataset 't' has no owner column.*allowed: all"):
        await export("", "csv", dataset=Dataset(name="t", table=f"{schema}.t"), scope="own")
