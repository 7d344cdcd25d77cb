"""Parquet files, read with pyarrow and DuckDB, and compared with the values of the database."""

import io
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import asyncpg
import duckdb
import pyarrow.parquet as pq
import pytest

from tests.integration.exports.conftest import Export

NASTY = [
    "plain", "", None, "comma, and", 'quote " in', "line\nbreak", "carriage\r\nreturn", "tab\there",
    "back\\slash", "\\.", "\\N", "NULL", "N/A", "NaN", "null", "emoji \U0001f600 é́ ‏עברית‏",
    "\x01control\x02", " spaces ",
    "=1+1", "x" * 100_000,
]  # fmt: skip

TYPES = """
    CREATE TYPE mood AS ENUM ('sad', 'happy, "very"');
    CREATE DOMAIN price AS numeric(10,2);
    CREATE TABLE types (
        id int PRIMARY KEY, b boolean, i2 smallint, i4 integer, i8 bigint, o oid, f4 real, f8 float8,
        n numeric, n18 numeric(18,6), n5 numeric(5,-2), n3 numeric(3,5), n50 numeric(50,10), p price,
        v varchar(9), u uuid, d date, t time, ts timestamp, tz timestamptz, iv interval, j json, jb jsonb,
        by bytea, a text[], ia int[], m mood, ip inet, r int4range, "a""b" text, "=x" text, "select" text
    );
    INSERT INTO types (id) VALUES (1);
    INSERT INTO types VALUES (
        2, true, -32768, 2147483647, -9223372036854775808, 4294967295, 1.5, 0.1,
        12345678901234567890.123456789, -999999999999.999999, 12300, 0.00123,
        1234567890123456789012345678901234567890.1, 12.5, 'x',
        'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '2026-01-31', '13:30:00.5', '2026-01-31 13:30',
        '2026-01-31 13:30+02', '1 day 2 hours', '{"a": 1,  "a": 2}', '{"k": [1.50]}', '\\x00ff0a',
        ARRAY['a', NULL, 'c,"d', ''],
        ARRAY[[1, 2], [3, 4]], 'happy, "very"', '10.0.0.1', '[1,5)', 'q', '=1', 's'
    );
    INSERT INTO types (id, n18, f8, d, t, ts, tz, by, a) VALUES
        (3, 'NaN', 'NaN', 'infinity', '24:00', '-infinity', '20000-01-01 00:00+00', '', '{}'),
        (4, 0, '-Infinity', '0001-01-01', '23:59:59.999999', '9999-12-31 23:59:59.999999',
         '9999-12-31 23:59:59.999999+00', '\\x5c', '{NULL}'),
        (5, 0, 5e-324, '0044-03-15 BC', '0:0', '0001-01-01', '0001-01-01 00:00+00', NULL, NULL);
"""
FULL = {
    "id": 2, "b": True, "i2": -32768, "i4": 2147483647, "i8": -9223372036854775808, "o": 4294967295,
    "f4": 1.5, "f8": 0.1, "n": "12345678901234567890.123456789", "n18": Decimal("-999999999999.999999"),
    "n5": Decimal(12300),
    "n3": Decimal("0.00123"), "n50": "1234567890123456789012345678901234567890.1000000000",
    "p": Decimal("12.50"),
    "v": "x", "u": "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "d": date(2026, 1, 31), "t": time(13, 30, 0,
    500_000),
    "ts": datetime(2026, 1, 31, 13, 30), "tz": datetime(2026, 1, 31, 11, 30, tzinfo=UTC), "iv": "P1DT2H",
    "j": '{"a": 1,  "a": 2}', "jb": '{"k": [1.50]}', "by": b"\x00\xff\n", "a": ["a", None, 'c,"d', ""],
    "ia": ['["1", "2"]', '["3", "4"]'], "m": 'happy, "very"', "ip": "10.0.0.1", "r": "[1,5)", 'a"b': "q",
    "=x": "=1", "select": "s",
}  # fmt: skip


def row_query(content: bytes) -> list[dict[str, Any]]:
    return pq.read_table(io.BytesIO(content)).to_pylist()  # type: ignore[no-any-return]


async def test_every_text(export: Export, database: asyncpg.Connection, schema: str) -> None:
    await database.execute("CREATE TABLE nasty (id int PRIMARY KEY, value text)")
    await database.executemany("INSERT INTO nasty VALUES ($1, $2)", list(enumerate(NASTY)))
    exported = await export(f"{schema}.nasty", "parquet")
    assert [row["value"] for row in row_query(exported.content)] == NASTY
    alone = await export(f"{schema}.nasty", "parquet", columns=["value"])
    assert [row["value"] for row in row_query(alone.content)] == NASTY
    assert alone.data.row_count == len(NASTY)


async def test_every_type(export: Export, database: asyncpg.Connection, schema: str) -> None:
    await database.execute(TYPES)
    exported = await export(f"{schema}.types", "parquet")
    empty, full, *odd = row_query(exported.content)
    assert full == FULL
    assert empty == dict.fromkeys(FULL, None) | {"id": 1}
    picked = [[row[name] for name in ("n18", "d", "t", "ts", "tz", "by", "a")] for row in odd]
    last = datetime(9999, 12, 31, 23, 59, 59, 999_999)
    assert picked == [
        [None, None, None, None, None, b"", []],
        [Decimal(0), date(1, 1, 1), last.time(), last, last.replace(tzinfo=UTC), b"\\", [None]],
        [Decimal(0), None, time(0), datetime(1, 1, 1), datetime(1, 1, 1, tzinfo=UTC), None, None],
    ]
    assert str(odd[0]["f8"]) == "nan"
    assert [row["f8"] for row in odd[1:]] == [float("-inf"), 5e-324]
    assert exported.warnings == {"unrepresentable_values": 6}


async def test_duckdb_reads_the_same(
    export: Export, database: asyncpg.Connection, schema: str, tmp_path: Path
) -> None:
    await database.execute(TYPES)
    file = tmp_path / "types.parquet"
    file.write_bytes((await export(f"{schema}.types", "parquet", filters={"id": 2})).content)
    read = duckdb.connect().execute("SET timezone = 'UTC'").execute(f"SELECT * FROM '{file}'")
    types = {str(name): str(kind) for name, kind, *_ in read.description or ()}
    row = dict(zip(types, read.fetchone() or (), strict=True))
    tz = row.pop("tz")
    assert tz.astimezone(UTC) == FULL["tz"]
    assert row == {name: value for name, value in FULL.items() if name != "tz"}
    assert types["n18"] == "DECIMAL(18,6)"
    assert types["tz"] == "TIMESTAMP WITH TIME ZONE"


@pytest.mark.parametrize("rows", [0, 1])
async def test_three_hundred_columns(
    export: Export, database: asyncpg.Connection, schema: str, rows: int
) -> None:
    await database.execute(f"CREATE TABLE wide ({', '.join(f'c{number} int' for number in range(300))})")
    if rows:
        await database.execute(f"INSERT INTO wide VALUES ({', '.join(map(str, range(300)))})")
    exported = await export(f"{schema}.wide", "parquet")
    file = pq.ParquetFile(io.BytesIO(exported.content))
    assert file.schema_arrow.names == [f"c{number}" for number in range(300)]
    assert file.read().to_pylist() == [{f"c{n}": n for n in range(300)}] * rows
    assert exported.data.content_type == "application/vnd.apache.parquet"
    assert (exported.data.file_name or "").endswith(".parquet")


async def test_many_rows_equal_those_of_the_database(
    export: Export, database: asyncpg.Connection, schema: str
) -> None:
    await database.execute(
        "CREATE TABLE many AS SELECT n::bigint AS id, md5(n::text) AS hash, n % 7 = 0 AS seventh,"
        " (n * 1.001)::numeric(18,6) AS amount, timestamptz '2026-01-01' + n * interval '7.123 s' AS at"
        " FROM generate_series(1, 60000) AS n; ALTER TABLE many ADD PRIMARY KEY (id)"
    )
    exported = await export(f"{schema}.many", "parquet")
    wanted = [dict(row) for row in await database.fetch("SELECT * FROM many ORDER BY id")]
    assert row_query(exported.content) == wanted
