"""Operators: each offered operator works, and those of one type agree."""

from base64 import b64encode
from collections.abc import Callable
from contextlib import suppress
from decimal import Decimal
from itertools import product
from operator import eq, ge, gt, le, lt, ne
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from stream_app.datasets.models import Dataset
from stream_app.exports.columns import Column
from stream_app.exports.filters.conditions import operators
from stream_app.exports.sources.source import Source
from streaming_exporter.errors import Rejected
from tests.integration.exports.selecting import described, selected

VALUES: dict[str, Any] = {
    "bool": True,
    "int2": 1,
    "int4": 1,
    "int8": 1,
    "oid": 1,
    "numeric": "1.5",
    "float4": 1.5,
    "float8": 1.5,
    "uuid": "00000000-0000-0000-0000-00000000000a",
    "date": "2026-01-31",
    "time": "10:00",
    "jsonb": "a",
    "json": "a",
    "timestamp": "2026-01-31T10:00:00",
    "timestamptz": "2026-01-31T10:00:00Z",
    "interval": "1 day",
    "bytea": "\\x41",
    "inet": "10.0.0.1",
    "cidr": "10.0.0.0/8",
    "macaddr": "08:00:2b:01:02:03",
    "macaddr8": "08:00:2b:01:02:03:04:05",
    "point": "(1,2)",
    "lseg": "((1,2),(3,4))",
    "path": "((1,2),(3,4))",
    "box": "((1,2),(3,4))",
    "line": "{1,2,3}",
    "polygon": "((1,2),(3,4),(5,6))",
    "circle": "<(1,2),3>",
    "bit": "1",
    "varbit": "101",
    "tsvector": "a b",
    "tsquery": "a & b",
    "money": "1.50",
    "pg_lsn": "0/1",
    "timetz": "10:00+02",
    "xid": "1",
    "xid8": "1",
    "cid": "1",
    "tid": "(0,1)",
    "int4range": "[1,2)",
    "int8range": "[1,2)",
    "numrange": "[1,2)",
    "daterange": "[2026-01-01,)",
    "tsrange": "[2026-01-01 10:00,)",
    "tstzrange": "[2026-01-01 10:00+02,)",
    "int4multirange": "{[1,2)}",
    "int8multirange": "{[1,2)}",
    "nummultirange": "{[1,2)}",
    "datemultirange": "{[2026-01-01,)}",
    "tsmultirange": "{[2026-01-01,)}",
    "tstzmultirange": "{[2026-01-01,)}",
    "jsonpath": "$.a",
    "int2vector": "1 2",
    "oidvector": "1 2",
    "regclass": "pg_class",
    "regtype": "int4",
    "regproc": "now",
    "regrole": "postgres",
    "regnamespace": "pg_catalog",
    "regoper": "pg_catalog.||/",
    "regoperator": "+(integer,integer)",
    "regprocedure": "now()",
    "regcollation": '"C"',
    "regconfig": "simple",
    "regdictionary": "simple",
    "aclitem": "postgres=r/postgres",
    "pg_snapshot": "10:20:",
    "txid_snapshot": "10:20:",
    "refcursor": "c",
    "gtsvector": None,
    "xml": None,
    "pg_node_tree": None,
    "pg_ndistinct": None,
    "pg_dependencies": None,
    "pg_mcv_list": None,
    "pg_brin_bloom_summary": None,
    "pg_brin_minmax_multi_summary": None,
    "regdatabase": "postgres",
}
"""By type: a value for a filter, and for a row; the default is a text, and None if there is none."""


@pytest.fixture
async def built_in(database: asyncpg.Connection, schema: str) -> list[str]:
    """A table with one row and a column of every built-in type of the server."""
    await database.execute("CREATE TYPE pair AS (n int, p point); CREATE TYPE good AS (n int, t text)")
    names = await database.fetchval(
        """SELECT array_agg(typname::text ORDER BY oid) FROM pg_type
        WHERE typnamespace = 'pg_catalog'::regnamespace AND typtype IN ('b', 'r', 'm')
        AND typcategory <> 'A' AND typname !~ '^_'"""
    )
    columns = []
    for name in names:
        value = VALUES.get(name, "a")
        text = '"a"' if name in ("json", "jsonb") else str(value)
        spelled = "NULL" if value is None else f"'{text}'"
        columns.append(f'{spelled}::pg_catalog."{name}" AS "{name}"')
    await database.execute(
        f"CREATE TABLE built_in AS SELECT 1 AS id, {', '.join(columns)}, "
        "'(1,\"(1,2)\")'::pair AS pair, '(1,a)'::good AS good"
    )
    return list(names)


def value_for(column: Column, operator: str) -> object:
    value = {"pair": '(1,"(1,2)")', "good": "(1,a)"}.get(column.base) or VALUES.get(column.base, "a")
    if operator == "is_null":
        return value is None
    return [value] if operator in ("in", "not_in") else value


async def test_every_operator_that_a_type_is_offered_with_works(
    built_in: list[str], schema: str, source: Source
) -> None:
    """V16: for every type of the server. Other operators are refused by name."""
    table = await described(source, Dataset(name="t", table=f"{schema}.built_in", order=("id",)))
    finds = {"eq", "lte", "gte", "in", "prefix", "contains", "is_null"}
    for column in table.columns[1:]:
        offered = operators(column)
        for operator in offered:
            value = value_for(column, operator)
            if value is None or value == [None]:
                continue
            rows = await selected(source, table, filters={column.name: {operator: value}})
            assert rows == ([1] if operator in finds else []), (column, operator)
        for operator in {"eq", "lt", "in", "prefix"} - set(offered):
            with pytest.raises(Rejected, match=f"has no operator '{operator}'"):
                await selected(source, table, filters={column.name: {operator: "x"}})
    offers = {column.name: operators(column) for column in table.columns}
    for name in ("point", "box", "polygon", "path", "circle", "json", "pair"):
        assert "eq" not in offers[name], name
    for name in ("inet", "int4range", "tsmultirange", "money", "good", "varbit", "macaddr8"):
        assert {"eq", "lt", "in"} <= set(offers[name]), name
    assert set(offers["xid"]) == {"eq", "ne", "in", "not_in", "is_null"}


async def test_no_value_that_passes_the_check_is_cut_or_refused_by_postgresql(
    database: asyncpg.Connection, schema: str, source: Source
) -> None:
    """V4, V16: numbers that do not fit their type, and texts that it would cut."""
    await database.execute(
        """CREATE TABLE t (id int PRIMARY KEY, real real, money money, "char" "char");
        INSERT INTO t VALUES (1, 1, 1, 'x'), (2, 3.4028235e38, -100, '\\377')"""
    )
    table = await described(source, Dataset(name="t", table=f"{schema}.t", order=("id",)))
    for column, tests, rows in (
        ("real", {"lte": "3.4028235e38"}, [1, 2]),
        ("real", {"gt": "-3.4028235e38", "ne": "1.4012985e-45"}, [1, 2]),
        ("real", {"gt": 0}, [1, 2]),
        ("money", {"eq": "1.0"}, [1]),
        ("money", {"lt": "1e16", "gte": "-1E2"}, [1, 2]),
        ("money", {"lte": "92233720368547758.07"}, [1, 2]),
        ("char", {"in": ["x", "y"]}, [1]),
        ("char", {"ne": ""}, [1, 2]),
        ("char", {"eq": "\\377"}, [2]),
    ):
        assert await selected(source, table, filters={column: tests}) == rows, (column, tests)
    for column, value in (
        ("real", "1e39"), ("real", "-1e300"), ("real", "1e-46"), ("money", "1.001"), ("money", "1e17"),
        ("char", "xyz"), ("char", "é"), ("char", "\\37"),
    ):  # fmt: skip
        for tests in ({"eq": value}, {"in": [value]}):
            with pytest.raises(Rejected, match=rf"^filters\.{column}\.(eq|in): expected "):
                await selected(source, table, filters={column: tests})


async def test_a_domain_has_the_operators_of_the_type_below(
    database: asyncpg.Connection, schema: str, source: Source
) -> None:
    """V10, V16: also a domain over a domain over an enum, and as owner of rows."""
    keys = [str(UUID(int=number)) for number in (1, 2)]
    values = {
        "small": ("mood", "a", '"b,c"'), "smaller": ("small", "a", '"b,c"'), "key": ("uuid", *keys),
        "span": ("int4range", "[1,2)", "[2,3)"), "host": ("inet", "10.0.0.1", "10.0.0.2"),
        "amount": ("numeric(9,2)", "1.50", "2.50"), "flag": ("bit(3)", "001", "101"),
        "word": ("varchar(9)", "a", "b"),
    }  # fmt: skip
    await database.execute("CREATE TYPE mood AS ENUM ('a', '\"b,c\"')")
    for name, (base, _, _) in values.items():
        await database.execute(f"CREATE DOMAIN {name} AS {base}")
    columns = ", ".join(f"v_{name} {name}" for name in values)
    await database.execute(f"CREATE TABLE t (id int PRIMARY KEY, {columns})")
    for number in (1, 2):
        row = ", ".join(f"'{value[number]}'" for value in values.values())
        await database.execute(f"INSERT INTO t VALUES ({number}, {row})")
    plain = Dataset(name="t", table=f"{schema}.t", order=("id",))
    table = await described(source, plain)
    for name, (_, low, high) in values.items():
        column = next(item for item in table.columns if item.name == f"v_{name}")
        offered = set(operators(column)) - {"prefix", "contains"}
        assert offered == {"eq", "ne", "lt", "lte", "gt", "gte", "in", "not_in", "is_null"}, name
        for tests, rows in (
            ({"eq": low}, [1]), ({"ne": low}, [2]), ({"lt": high}, [1]), ({"lte": high}, [1, 2]),
            ({"gt": low}, [2]), ({"gte": low}, [1, 2]), ({"in": [high, None]}, [2]),
            ({"not_in": [high]}, [1]),
        ):  # fmt: skip
            assert await selected(source, table, filters={column.name: tests}) == rows, (name, tests)
        wanted = await described(source, plain.model_copy(update={"owner": column.name}))
        shown = f"{high}/32" if name == "host" else high  # the owner's text is the user's id
        assert await selected(source, wanted, shown, scope="own") == [2], name


TEXTS = ["ab", "AB", "ab ", "ab  ", "abc", "b", "", " ", "ÄB", "äb", "%b", "a_"]


async def test_the_operators_of_a_text_type_agree(
    database: asyncpg.Connection, schema: str, source: Source
) -> None:
    """V20, V8: equal texts begin with and contain each other; ``ne`` and ``not_in`` are the opposites."""
    await database.execute("CREATE EXTENSION IF NOT EXISTS citext SCHEMA public")
    kinds = ["text", "varchar(10)", "char(6)", "public.citext", "name"]
    for number, kind in enumerate(kinds):
        await database.execute(f"CREATE TABLE t{number} (id int PRIMARY KEY, v {kind})")
        await database.executemany(f"INSERT INTO t{number} VALUES ($1, $2)", list(enumerate([*TEXTS, None])))
        table = await described(source, Dataset(name="t", table=f"{schema}.t{number}"))
        everything = set(range(len(TEXTS) + 1))
        for value in TEXTS:
            found = {
                name: set(await selected(source, table, filters={"v": {name: tests}}))
                for name, tests in (
                    ("eq", value), ("ne", value), ("in", [value]), ("not_in", [value]), ("prefix", value),
                    ("contains", value),
                )
            }  # fmt: skip
            assert found["eq"], (kind, value)
            assert found["in"] == found["eq"], (kind, value)
            assert found["ne"] == found["not_in"] == everything - found["eq"], (kind, value)
            assert found["eq"] <= found["prefix"] <= found["contains"], (kind, value, found)


async def test_null_is_treated_equally_by_all_operators(
    database: asyncpg.Connection, schema: str, source: Source
) -> None:
    """V8, V16: two forms of one filter have one result, also of values with parts that are NULL."""
    await database.execute(
        "CREATE TYPE pair AS (n int, t text); CREATE DOMAIN couple AS pair;"
        "CREATE TABLE t (id int PRIMARY KEY, note text, n int, ip inet, pair pair, couple couple);"
        "INSERT INTO t VALUES (1, 'n1', 1, '10.0.0.1', '(1,)', '(1,)');"
        "INSERT INTO t VALUES (2); INSERT INTO t VALUES (3, 'n3', 3, '10.0.0.3', '(,)', '(,)')"
    )
    table = await described(source, Dataset(name="t", table=f"{schema}.t"))
    for column, value in (("note", "n1"), ("n", 1), ("ip", "10.0.0.1"), ("pair", "(1,)"), ("couple", "(1,)")):
        for tests, rows in (
            ({"eq": value}, [1]),
            ({"in": [value]}, [1]),
            ({"ne": value}, [2, 3]),
            ({"not_in": [value]}, [2, 3]),
            ({"eq": None}, [2]),
            ({"in": [None]}, [2]),
            ({"ne": None}, [1, 3]),
            ({"not_in": [None]}, [1, 3]),
            ({"in": [value, None]}, [1, 2]),
            ({"not_in": [None, value]}, [3]),
            ({"lte": value}, [1]),
            ({"is_null": True}, [2]),
            ({"is_null": False}, [1, 3]),
        ):
            assert await selected(source, table, filters={column: tests}) == rows, (column, tests)


@pytest.mark.parametrize(
    ("kind", "value", "wanted"),
    [
        ("timestamp", "2026-01-31T02:00:00+02:00", "2026-01-31 00:00"),
        ("timestamp", "2026-01-31T00:00:00Z", "2026-01-31 00:00"),
        ("timestamp", "2026-01-30T19:00:00.1234560-05:00", "2026-01-31 00:00:00.123456"),
        ("timestamp", "2026-W05-6T00:00:00", "2026-01-31 00:00"),
        ("timestamp", "2026-01-31", "2026-01-31 00:00"),
        ("timestamptz", "2026-01-31T02:00:00+02:00", "2026-01-31 00:00+00"),
        ("timestamptz", "2026-01-31T00:00:00,5", "2026-01-31 00:00:00.5+00"),
        ("timestamptz", "2026-01-31", "2026-01-31 00:00+00"),
        ("timestamptz", "2026-01-31T00", "2026-01-31 00:00+00"),
        ("timestamptz", "2026-01-31T16:30:00.1234560+16:30", "2026-01-31 00:00:00.123456+00"),
        ("timestamptz", "2026-01-30T00:01-23:59", "2026-01-31 00:00+00"),
        ("timestamptz", "2026-01-31T00:00:30+00:00:30", "2026-01-31 00:00+00"),
        ("timestamptz", "2026-01-31T00:00:30+00:00:30.5", None),
        ("timestamp", "2026-01-31T00", "2026-01-31 00:00"),
        ("timestamp", "2026-01-31x000030,5", "2026-01-31 00:00:30.5"),
        ("timestamp", "2026-01-31T23+23", "2026-01-31 00:00"),
        ("time", "10", "10:00"),
        ("time", "T10:00:00,5", "10:00:00.5"),
        ("date", "2026-W05-6", "2026-01-31"),
        ("date", "2026-01-31T00:00:00+02:00", None),
        ("time", "10:00:00.5", "10:00:00.5"),
        ("time", "10:00:00+02:00", None),
        ("time", "10:00Z", None),
        ("timetz", "10:00:00+02:00", "10:00+02"),
        ("tsrange", "[2026-01-31 00:00,)", "[2026-01-31,)"),
        ("tsrange", "[2026-01-31 00:00+02,)", None),
        ("tsrange", "[2026-01-31T00:00Z,)", None),
        ("tsmultirange", "{[2026-01-31 00:00 Europe/Berlin,)}", None),
        ("tstzrange", "[2026-01-31 02:00+02,)", "[2026-01-31 00:00+00,)"),
        ("daterange", "[2026-01-31,)", "[2026-01-31,)"),
        ("daterange", "[2026-01-31 10:00,)", None),
    ],
)
async def test_no_part_of_a_time_is_dropped(
    database: asyncpg.Connection, schema: str, source: Source, kind: str, value: str, wanted: str | None
) -> None:
    """V4: the value is converted, or refused with the reason (``None``)."""
    await database.execute(f"SET timezone = 'UTC'; CREATE TABLE t (id int PRIMARY KEY, at {kind})")
    if wanted is not None:
        await database.execute(f"INSERT INTO t VALUES (1, '{wanted}')")
    table = await described(source, Dataset(name="t", table=f"{schema}.t"))
    if wanted is None:
        with pytest.raises(Rejected, match=r"filters\.at: expected"):
            await selected(source, table, filters={"at": value})
    else:
        assert await selected(source, table, filters={"at": value}) == [1]


HOLDS: dict[str, Callable[[Any, Any], bool]] = {
    "eq": eq, "ne": ne, "lt": lt, "lte": le, "gt": gt, "gte": ge,
    "in": lambda row, values: row in values, "not_in": lambda row, values: row not in values,
}  # fmt: skip


async def test_all_digits_of_a_second_are_compared(
    database: asyncpg.Connection, schema: str, source: Source
) -> None:
    """V4, V8: PostgreSQL rounds a constant to microseconds, and so the end of a day to the next day."""
    seconds = [Decimal(text) for text in ("59.999998", "59.999999", "60", "60.000001")]
    await database.execute(
        "CREATE TABLE t (id int PRIMARY KEY, at timestamp, moment timestamptz, clock time)"
    )
    for number, second in enumerate(seconds, 1):
        at = f"'2026-01-31 23:59'::timestamp + '{second} s'"
        clock = f"23:59:{second}" if second < 60 else "24:00"
        await database.execute(f"INSERT INTO t VALUES ({number}, {at}, {at}, '{clock}')")
    table = await described(source, Dataset(name="t", table=f"{schema}.t", order=("id",)))
    forms = {
        "at": ("2026-01-31T23:59:{}", "2026-02-01T01:59:{}+02:00", "2026-02-01T00:59:{}[Europe/Berlin]"),
        "moment": ("2026-01-31T23:59:{}Z", "2026-02-01T01:59:{}+02", "2026-02-01T00:59:{}[Europe/Berlin]"),
        "clock": ("23:59:{}", "T23:59:{}"),
    }
    for digits in ("59.9999980", "59.9999984", "59.9999989", "59,9999999", "59.999999999"):
        second = Decimal(digits.replace(",", "."))
        for column, operator in product(forms, HOLDS):
            is_list = operator in ("in", "not_in")
            rows = [
                n for n, row in enumerate(seconds, 1) if HOLDS[operator](row, [second] if is_list else second)
            ]
            for form in forms[column]:
                value: Any = form.format(digits)
                tests = {operator: [value] if is_list else value}
                assert await selected(source, table, filters={column: tests}) == rows, (column, tests)


@pytest.mark.parametrize(
    ("kind", "texts"),
    [
        (
            "timestamp",
            [
                "2026-01-31",
                "20260131",
                "2026-01-31 10:00",
                "2026-01-31T10:00:00.5",
                "20260131T100000",
                "2026-01-31 1015",
                "2026/01/31 101500.5",
                "2026-031",
                "2026-1-3 1:2:3",
                "today 24:00",
            ],
        ),
        ("date", ["2026-01-31", "20260131", "2026.1.31", "12026-01-31", "today"]),
        ("time", ["10:00", "10:00:00.5", "100000", "T1015", "10:00:00.123456000", "24:00", "1:2:3"]),
    ],
)
async def test_what_postgresql_ignores_in_a_part_of_a_value_is_refused(
    database: asyncpg.Connection, schema: str, source: Source, kind: str, texts: list[str]
) -> None:
    """V4: in the bounds of own ranges and multiranges, and in the fields of composite types."""
    await database.execute(
        f"CREATE TYPE span AS RANGE (subtype = {kind}, multirange_type_name = spans);"
        f"CREATE TYPE visit AS (note text, at {kind}, during span);"
        "CREATE TABLE t (id int PRIMARY KEY, span span, spans spans, visit visit)"
    )
    table = await described(source, Dataset(name="t", table=f"{schema}.t"))
    ends = ["", "+02", "-05:00", " +0530", "Z", " z", " CET", " Europe/Berlin", " UTC", "T10:00"]
    ends += ["-05", " -0530", "x10:00", " 101500"]
    ends += [] if kind == "time" else [" BC"]
    refused: dict[str, bool] = {}
    for text, end in product(texts, ends):
        with suppress(asyncpg.DataError):
            whole, plain = [
                await database.fetchval(f"SELECT '{each}'::{kind}::text") for each in (text + end, text)
            ]
            refused[text + end] = end != "" and whole == plain
    assert sum(refused.values()) > len(texts) * 4
    for text in refused:
        for column, value in (
            ("span", f'["{text}",)'), ("spans", f'{{(,"{text}")}}'), ("visit", f'(" (,","{text}",)'),
            ("visit", f'(x,,"[,""{text}""]")'),
        ):  # fmt: skip
            if refused[text]:
                with pytest.raises(Rejected, match=rf"^filters\.{column}: expected a .*with"):
                    await selected(source, table, filters={column: value})
            else:
                assert await selected(source, table, filters={column: value}) == []


async def test_bytes_are_found_by_the_text_that_files_have(
    database: asyncpg.Connection, schema: str, source: Source
) -> None:
    contents = [b"", b"\xde\xad\xbe\xef", b"3q2+7w==", b"\\x41", bytes(range(256))]
    await database.execute("CREATE TABLE t (id int PRIMARY KEY, digest bytea)")
    await database.executemany("INSERT INTO t VALUES ($1, $2)", list(enumerate(contents)))
    table = await described(source, Dataset(name="t", table=f"{schema}.t", order=("id",)))
    for number, content in enumerate(contents):
        shown = b64encode(content).decode()
        others = [other for other in range(len(contents)) if other != number]
        for text in (shown, f"\\x{content.hex()}"):
            assert await selected(source, table, filters={"digest": text}) == [number]
            assert await selected(source, table, filters={"digest": {"in": [text]}}) == [number]
            assert await selected(source, table, filters={"digest": {"ne": text}}) == others
            assert await selected(source, table, filters={"digest": {"not_in": [text, None]}}) == others
