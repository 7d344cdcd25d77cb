"""Types of extensions and types of users have one rendering in all formats."""

import csv
import io
import json
from base64 import b64encode
from decimal import Decimal
from typing import Any

import asyncpg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from openpyxl import load_workbook

from stream_app.datasets.models import Dataset
from stream_app.exports.columns import KIND_OF_TYPE
from stream_app.exports.filters.conditions import operators
from stream_app.exports.sources.source import Source
from tests.integration.exports.conftest import Export
from tests.integration.exports.selecting import described

FORMATS = ("csv", "ndjson", "excel", "parquet")


def first_row(name: str, content: bytes) -> dict[str, Any]:
    """Return the first row with the values of the format."""
    match name:
        case "csv":
            return next(csv.DictReader(io.StringIO(content.decode(), newline="")))
        case "ndjson":
            return dict(json.loads(content.split(b"\n")[0], parse_float=Decimal))
        case "excel":
            names, row, *_ = load_workbook(io.BytesIO(content)).worksheets[0].iter_rows(values_only=True)
            return dict(zip(map(str, names), row, strict=True))
    return dict(pq.read_table(io.BytesIO(content)).to_pylist()[0])


async def test_texts_are_the_same_in_all_formats(
    export: Export, database: asyncpg.Connection, schema: str
) -> None:
    """V20: padding, extensions, names of objects."""
    for name in ("hstore", "citext"):  # another test can have created them in another schema
        await database.execute(f"CREATE EXTENSION IF NOT EXISTS {name} SCHEMA public")
    found = await database.fetch("SELECT extname, extnamespace::regnamespace::text AS at FROM pg_extension")
    place = {row["extname"]: row["at"] for row in found}
    await database.execute(
        f"CREATE TABLE t (c char(6), h {place['hstore']}.hstore, ci {place['citext']}.citext,"
        " o regclass, b bytea);"
        " INSERT INTO t VALUES ('ab', 'a=>\"1\", b=>NULL', 'Ab', 't', '\\x00ff')"
    )
    try:
        for name in FORMATS:
            row = first_row(name, (await export(f"{schema}.t", name)).content)
            hstore = row.pop("h")
            assert (hstore if isinstance(hstore, dict) else json.loads(hstore)) == {"a": "1", "b": None}
            data = row.pop("b")
            assert data == (b"\x00\xff" if name == "parquet" else b64encode(b"\x00\xff").decode())
            assert row == {"c": "ab", "ci": "Ab", "o": f"{schema}.t"}, name
    finally:
        await database.execute("DROP TABLE t")


async def test_money_is_a_number(export: Export, database: asyncpg.Connection, schema: str) -> None:
    """V7."""
    await database.execute(
        "CREATE TABLE t (m money, a money[]); INSERT INTO t VALUES (-1234.5, ARRAY[0.1, NULL]::money[])"
    )
    expected = {
        "csv": "-1234.50",
        "ndjson": Decimal("-1234.50"),
        "excel": -1234.5,
        "parquet": Decimal("-1234.50"),
    }
    for name in FORMATS:
        exported = await export(f"{schema}.t", name)
        row = first_row(name, exported.content)
        assert row["m"] == expected[name]
        array = row["a"] if name == "parquet" else json.dumps(row["a"], default=str).replace(" ", "")
        assert array in (["0.10", None], '"[0.10,null]"', '["0.10",null]'), name
        assert exported.warnings == {}


async def test_domains_are_written_like_their_base_types(
    export: Export, database: asyncpg.Connection, schema: str
) -> None:
    """V10: with precision and length, also for domains over domains."""
    await database.execute("""
        CREATE DOMAIN price AS numeric(12,2); CREATE DOMAIN fee AS price CHECK (value > 0);
        CREATE DOMAIN code AS char(4); CREATE DOMAIN codes AS code[]; CREATE DOMAIN day AS date;
        CREATE TABLE t (p price, f fee, c code, cs codes, d day, ps price[]);
        INSERT INTO t VALUES (1234567890.5, 0.25, 'ab', ARRAY['x', 'yz'], '2026-01-31', ARRAY[1, 2.5])
    """)
    content = (await export(f"{schema}.t", "parquet")).content
    types = pq.read_schema(io.BytesIO(content))
    assert [types.field(name).type for name in ("p", "f", "c", "d")] == [
        pa.decimal128(12, 2), pa.decimal128(12, 2), pa.string(), pa.date32()
    ]  # fmt: skip
    row = first_row("parquet", content)
    assert (row["p"], row["c"], row["cs"], row["ps"]) == (
        Decimal("1234567890.50"), "ab", ["x", "yz"], ["1.00", "2.50"]
    )  # fmt: skip
    row = first_row("ndjson", (await export(f"{schema}.t", "ndjson")).content)
    assert row == {"p": Decimal("1234567890.50"), "f": Decimal("0.25"), "c": "ab", "cs": ["x", "yz"],
                   "d": "2026-01-31", "ps": [Decimal("1.00"), Decimal("2.50")]}  # fmt: skip
    book = load_workbook(io.BytesIO((await export(f"{schema}.t", "excel")).content)).worksheets[0]
    forms = [book.cell(2, column).number_format for column in (1, 2, 5)]
    assert forms == ["#,##0.00", "#,##0.00", "yyyy-mm-dd"]
    assert book.cell(2, 1).value == 1234567890.5


@pytest.mark.parametrize("name", ["json", "ndjson"])
async def test_json_within_other_types_breaks_no_line(
    export: Export, database: asyncpg.Connection, schema: str, name: str
) -> None:
    """V2: arrays and composite types with json, and the results of JSON functions."""
    await database.execute(r"""
        CREATE TYPE item AS (id int, data json, more json[]);
        CREATE VIEW v AS SELECT n AS id, j AS plain, ARRAY[j, NULL, j] AS several,
            ROW(1, j, ARRAY[j])::item AS one, ARRAY[ROW(2, j, ARRAY[[j], [j]])::item] AS items,
            (SELECT json_agg(x) FROM (SELECT j AS a, 'b' || chr(10) AS b FROM generate_series(1, 2)) x) made
        FROM generate_series(1, 2) n, (SELECT E'{"a":\n\t[1,\r\n2.50], "t": "x\\ty\\u0001"}'::json AS j) AS s
    """)
    content = (await export(f"{schema}.v", name)).content
    lines = content.decode().split("\n")
    assert not set(content) & ({*range(32)} - {10})
    objects = (
        json.loads(content, parse_float=Decimal)
        if name == "json"
        else [json.loads(line, parse_float=Decimal) for line in lines[:-1]]
    )
    assert len(lines) == (5 if name == "json" else 3)
    value = {"a": [1, Decimal("2.50")], "t": "x\ty\x01"}
    made = [{"a": value, "b": "b\n"}] * 2
    for number, found in enumerate(objects, 1):
        assert found == {
            "id": number, "plain": value, "several": [value, None, value],
            "one": {"id": 1, "data": value, "more": [value]},
            "items": [{"id": 2, "data": value, "more": [[value], [value]]}], "made": made,
        }  # fmt: skip


async def test_bytes_are_base64_at_every_depth(
    export: Export, database: asyncpg.Connection, schema: str
) -> None:
    """V9: they are rendered like a single bytea."""
    await database.execute("""
        CREATE TYPE pair AS (name text, data bytea);
        CREATE TYPE bytes AS RANGE (subtype = bytea, multirange_type_name = several_bytes);
        CREATE TABLE t (a bytea[], p pair, ps pair[], r bytes, m several_bytes);
        INSERT INTO t VALUES (ARRAY['\\x00ff', NULL]::bytea[], ('n', '\\x01'), ARRAY[('m', '\\x02')::pair],
            bytes('\\x00', '\\x01'), several_bytes(bytes(NULL, '\\x01', '(]')))
    """)
    expected = {"a": ["AP8=", None], "p": {"name": "n", "data": "AQ=="},
                "ps": [{"name": "m", "data": "Ag=="}],
                "r": "[AA==,AQ==)", "m": "{(,AQ==]}"}  # fmt: skip
    assert first_row("ndjson", (await export(f"{schema}.t", "ndjson")).content) == expected
    for name in ("csv", "excel"):
        row = first_row(name, (await export(f"{schema}.t", name)).content)
        assert {key: json.loads(row[key]) if key in ("a", "p", "ps") else row[key] for key in row} == expected
    row = first_row("parquet", (await export(f"{schema}.t", "parquet")).content)
    assert row["a"] == ["AP8=", None]
    assert json.loads(row["p"]) == expected["p"]
    assert [json.loads(item) for item in row["ps"]] == expected["ps"]


OWN_TYPES = {
    "enum": ("AS ENUM ('a', 'b')", "'b'"),
    "composite": ("AS (n int, note text)", '\'(3,"two ""T""")\''),
    "range": ('AS RANGE (subtype = text, multirange_type_name = "several {name}")', "'[-a,b c)'"),
}
"""By kind: the definition of a type, and a value."""


@pytest.mark.parametrize("kind", OWN_TYPES)
async def test_an_own_type_can_have_the_name_of_a_built_in_one(
    export: Export, database: asyncpg.Connection, schema: str, source: Source, kind: str
) -> None:
    """V2, V16, V20: of any type of the server. It is written and filtered as with any other name."""
    definition, value = OWN_TYPES[kind]
    found = await database.fetch(
        """SELECT typname FROM pg_type WHERE typtype IN ('b', 'r', 'm') AND typname !~ '^_'
        AND typnamespace = 'pg_catalog'::regnamespace"""
    )
    names = sorted({row["typname"] for row in found} | {"citext", "hstore", "regcollation", "regdatabase"})
    assert KIND_OF_TYPE.keys() <= set(names)
    for name in ("unlike others", *names):
        await database.execute(f'CREATE TYPE "{schema}"."{name}" {definition.format(name=name)}')
    for table, chosen in (("every", ["unlike others", *names]), ("alone", ["interval"])):
        values = ", ".join(f'{value}::"{schema}"."{name}" AS "{name}"' for name in chosen)
        await database.execute(f"CREATE TABLE {table} AS SELECT {values}")
    columns = (await described(source, Dataset(name="t", table=f"{schema}.every"))).columns
    assert {(item.kind, item.labels, operators(item)) for item in columns} == {
        (columns[0].kind, columns[0].labels, operators(columns[0]))
    }
    for file_format in FORMATS:
        row = first_row(file_format, (await export(f"{schema}.every", file_format)).content)
        usual = row["unlike others"]
        assert row == dict.fromkeys(["unlike others", *names], usual), file_format
        alone = await export(f"{schema}.alone", file_format)
        assert first_row(file_format, alone.content) == {"interval": usual}
