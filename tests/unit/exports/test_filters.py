"""Filters: every value is checked, quoted, and compared as the type of its column."""

from collections.abc import Sequence
from contextlib import suppress
from itertools import product
from time import process_time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select

from stream_app.exports.columns import Column, DataType, Kind
from stream_app.exports.filters.conditions import conditions, operators
from stream_app.exports.filters.value_parts import MAX_VALUE
from stream_app.exports.queries.row_query import reference
from stream_app.exports.queries.sql_text import render
from streaming_exporter.errors import Rejected
from tests.rows import each_row

LOCAL = DataType("timestamp", Kind.TIMESTAMP)
DAYS = DataType("datemultirange", bounds=DataType("date", Kind.DATE), is_multirange=True)
VISIT = DataType(
    "visit",
    fields=(
        ("note", DataType("text", Kind.TEXT)),
        ("at", LOCAL),
        ("ended", DataType("timestamptz", Kind.TIMESTAMPTZ)),
        ("days", DAYS),
        ("hours", DataType("hours", bounds=DataType("time", Kind.TIME))),
        ("times", DataType("_timestamp", Kind.ARRAY, element=LOCAL)),
    ),
)
"""A composite type with a range of its own."""

COLUMNS = {
    column.name: column
    for column in (
        Column("id", "bigint", "int8", Kind.INTEGER),
        Column("small", "smallint", "int2", Kind.INTEGER),
        Column("kind", "text", "text", Kind.TEXT),
        Column("amount", "numeric(18,6)", "numeric", Kind.NUMERIC, cast="pg_catalog.numeric"),
        Column("sealed", "boolean", "bool", Kind.BOOLEAN),
        Column("created_at", "timestamp with time zone", "timestamptz", Kind.TIMESTAMPTZ),
        Column("day", "date", "date", Kind.DATE),
        Column("subject", "uuid", "uuid", Kind.UUID),
        Column("payload", "jsonb", "jsonb", Kind.JSON),
        Column("status", "device_status", "device_status", Kind.ENUM, labels=("active", "revoked")),
        Column("tags", "text[]", "text", Kind.ARRAY),
        Column("address", "inet", "inet", Kind.OTHER),
        Column("shift", "tsrange", "tsrange", Kind.OTHER, shape=DataType("tsrange", bounds=LOCAL)),
        Column("days", "datemultirange", "datemultirange", Kind.OTHER, shape=DAYS),
        Column("visit", "visit", "visit", Kind.OTHER, shape=VISIT),
        Column("clock", "timetz", "timetz", Kind.OTHER),
        Column("length", "interval", "interval", Kind.INTERVAL),
    )
}


def where(filters: dict[str, Any]) -> str:
    statement = select(reference("id")).where(*conditions(filters, COLUMNS, reference))
    return render(statement).partition("WHERE ")[2]


@each_row(
    ("filters", "expected"),
    [
        ({"kind": "proof"}, "\"kind\" = CAST('proof' AS text)"),
        ({"id": 7}, "\"id\" = CAST('7' AS bigint)"),
        ({"id": "9223372036854775807"}, "\"id\" = CAST('9223372036854775807' AS bigint)"),
        ({"kind": None}, '"kind" IS NULL'),
        ({"kind": {"is_null": False}}, '"kind" IS NOT NULL'),
        ({"kind": {"ne": None}}, '"kind" IS NOT NULL'),
        ({"kind": {"ne": "x"}}, "\"kind\" IS DISTINCT FROM CAST('x' AS text)"),
        ({"kind": {"in": ["a", 'b"\\']}}, r""""kind" = ANY (CAST('{"a","b\"\\"}' AS text[]))"""),
        ({"id": {"not_in": [1, 2]}}, """"id" != ALL (CAST('{"1","2"}' AS bigint[])) OR "id" IS NULL"""),
        ({"id": {"in": [1, None]}}, """"id" = ANY (CAST('{"1"}' AS bigint[])) OR "id" IS NULL"""),
        ({"id": {"not_in": [None, 1]}}, """"id" != ALL (CAST('{"1"}' AS bigint[]))"""),
        ({"id": {"in": [None]}}, '"id" IS NULL'),
        (
            {"address": {"in": ["::1", "::2"]}},
            "\"address\" IN (CAST('::1' AS inet), CAST('::2' AS inet))",
        ),
        ({"kind": {"prefix": "50%_"}}, "(CAST(\"kind\" AS TEXT) LIKE '50/%/_' || '%' ESCAPE '/')"),
        ({"sealed": True}, "\"sealed\" = CAST('true' AS boolean)"),
        ({"amount": {"gte": "1.50"}}, "\"amount\" >= CAST('1.50' AS pg_catalog.numeric)"),
        ({"status": "active"}, "\"status\" = CAST('active' AS device_status)"),
        ({"address": "10.0.0.1"}, "\"address\" = CAST('10.0.0.1' AS inet)"),
        (
            {"created_at": {"gte": "2026-01-01", "lt": "2026-02-01T00:00:00Z"}},
            "\"created_at\" >= CAST('2026-01-01T00:00:00+00:00' AS timestamp with time zone) "
            "AND \"created_at\" < CAST('2026-02-01T00:00:00Z' AS timestamp with time zone)",
        ),
    ],
)
def test_the_condition_of_a_filter(filters: dict[str, Any], expected: str) -> None:
    assert where(filters) == expected


@each_row(
    ("filters", "complaint"),
    [
        ({"colour": 1}, "filters.colour: the dataset has no column 'colour'; allowed: id, small, kind"),
        (
            {"kind": {"like": "x"}},
            "filters.kind: a column of type text has no operator 'like'; allowed: eq, ne",
        ),
        ({"sealed": {"lt": True}}, "filters.sealed: a column of type boolean has no operator 'lt'"),
        ({"sealed": 1}, "filters.sealed: expected true or false, got 1"),
        ({"id": "seven"}, "filters.id: expected a whole number, got 'seven'"),
        ({"id": True}, "filters.id: expected a whole number, got True"),
        ({"id": {"gt": 1.5}}, "filters.id.gt: expected a whole number, got 1.5"),
        ({"small": 40_000}, "filters.small: expected a whole number from -32768 to 32767, got 40000"),
        ({"amount": "NaN"}, "filters.amount: expected a finite number"),
        ({"amount": [1]}, "filters.amount: expected a number"),
        ({"created_at": "yesterday"}, "filters.created_at: expected a time such as 2026-01-31T13:30:00Z"),
        ({"day": "2026-02-30"}, "filters.day: expected a date such as 2026-01-31, got '2026-02-30'"),
        ({"subject": "x"}, "filters.subject: expected a UUID"),
        ({"status": "gone"}, "filters.status: the column has no value 'gone'; allowed: active, revoked"),
        ({"kind": {"in": "ab"}}, "filters.kind.in: expected a list of 1 to 10000 values, got 'ab'"),
        ({"kind": {"in": []}}, "filters.kind.in: expected a list"),
        ({"kind": {"prefix": 5}}, "filters.kind.prefix: expected a text, got 5"),
        ({"kind": {"is_null": "yes"}}, "filters.kind.is_null: expected true or false"),
        (
            {"tags": {"eq": "a"}},
            "filters.tags: a column of type text[] has no operator 'eq'; allowed: is_null",
        ),
        ({"kind": 5}, "filters.kind: expected a text, got 5"),
        (
            {"shift": "[2026-01-01 08:00:00+02,)"},
            "filters.shift: expected a tsrange without offsets, because its times have no zone",
        ),
        (
            {"days": "{[2026-01-01 10:00,)}"},
            "filters.days: expected a datemultirange of dates, without",
        ),
    ],
)
def test_the_error_of_a_bad_filter_names_place_and_allowed_values(
    filters: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(Rejected) as caught:
        where(filters)
    assert str(caught.value).startswith(complaint)


def test_every_operator_of_every_column_is_accepted() -> None:
    values = {"in": ["x"], "not_in": ["x"], "is_null": True}
    for column in COLUMNS.values():
        for operator in operators(column):
            try:
                where({column.name: {operator: values.get(operator, "x")}})
            except Rejected as error:
                assert error.code != "unknown_operator"


@each_row(
    ("column", "value", "refused"),
    [
        (
            "visit",
            '("10:00+02, ""x""",2026-01-31 10:00,2026-01-31 10:00+02,"{[2026-01-31,)}","[10:00,)")',
            "",
        ),
        ("visit", "(,,,,)", ""),
        ("visit", "(no composite value", ""),
        ("visit", "(a,2026-01-31 10:00 BC,2026-01-31 10:00:00.123456000Z,{},empty)", ""),
        ("visit", "(a,2026-01-31 10:00+02,,,)", "without offsets"),
        ("visit", "(a,2026-01-31Z,,,)", "without offsets"),
        ("visit", '(a,"2026-01-31 10:00 Europe/Berlin",,,)', "without offsets"),
        ("visit", '("a, b","2026-01-31 10:00:00.1234561",,,)', "six digits"),
        ("visit", "(a,,2026-01-31 10:00:00.1234560001Z,,)", "six digits"),
        ("visit", '(a,,,"{[2026-01-31,2026-02-01),(2026-02-01 10:00,)}",)', "without times of day"),
        ("visit", '(a,,,"{[2026-01-31,""2026-02-01 +02"")}",)', "without times of day"),
        ("visit", '(a,,,,"[10:00,""20:00 +02"")")', "without dates or offsets"),
        ("visit", "(a,,,,'[10:00\\,20:00\\+02)')", "without dates or offsets"),
        ("visit", '(a,,,,"[10:00,23:59:59.9999999]")', "six digits"),
        ("shift", "[2026-01-31,2026-01-31 23:59:59.9999999]", "six digits"),
        ("shift", "[2026-01-31+02,)", "without offsets"),
        ("shift", '["2026-01-31 10:00\\+02",)', "without offsets"),
        ("shift", "[-infinity,2026-01-31T10:00:00.1234560)", ""),
        ("clock", "23:59:59.9999999+02", "six digits"),
        ("clock", "23:59:59.999999+02", ""),
        ("length", "0.9999999 s ago", "six digits"),
        ("length", "PT0.9999999S", "six digits"),
        ("length", "P0.1234567D", ""),
        ("length", "1:2:3.9999999 -1 day", "six digits"),
        ("length", "00:00:01.1234567 1 day", "six digits"),
        ("length", "1 day 0.9999999sec ago", "six digits"),
        ("length", "0.1234 ms", "six digits"),
        ("length", "0.5 us", "six digits"),
        ("length", "0.1234567 day 0.123 ms 1:2:3.1234560", ""),
        ("days", "{[20260131T235959,)}", "without times of day"),
        ("days", "{[2026-01-30,2026-01-31),[2026-01-31T235959,)}", "without times of day"),
        ("days", '{["2026-01-31 235959",)}', "without times of day"),
        ("days", '{empty,[20260131,2026.02.28),[2026-060,"10000-01-31"),["0044-03-15 BC",infinity]}', ""),
        ("shift", '["2026-01-31 101500-05",)', "without offsets"),
        ("shift", '["2026-01-31 101500.5-08",)', "without offsets"),
        ("shift", '["2026-01-31 10:00 PM -05",)', "without offsets"),
        ("shift", '["2026-01-31 10:00 PM CET",)', "without offsets"),
        ("shift", '["31 Jan 2026 EST",)', "without offsets"),
        ("shift", "[2026-01-31x10:00,)", "without offsets"),
        ("shift", '["2026-01-31 101500","20260131T10:30:00.5 BC"]', ""),
        ("shift", '["2026-01-31 10:00 PM","2026-01-31 24:00")', ""),
        ("shift", "[today,infinity]", ""),
        ("shift", " Empty ", ""),
        ("shift", f"[2026-01-31{' ' * 300}10:00,)", "at most 256 characters"),
        ("shift", "[" + "1" * MAX_VALUE, "at most 100,000 characters"),
        ("visit", "(,,,,[10:00:00.123456000,10:00:00.00000000])", ""),
        ("visit", '(,,,,,"{""2026-01-31 10:00+02""}")', "without offsets"),
        ("visit", '(,,,,,"[0:1]={{2026-01-31,""2026-01-31 10:00:00.1234567""}}")', "six digits"),
        ("visit", '(,,,,,"[0:1]={{2026-01-31 10:00 , NULL} , {""2026-01-31"",null}}")', ""),
        ("address", "[20260131T235959,)", ""),
    ],
)
def test_a_time_within_a_value_is_not_rounded_and_no_part_of_it_is_ignored(
    column: str, value: str, refused: str
) -> None:
    """V4: PostgreSQL alone reads these values."""
    for tests in (value, {"lte": value}, {"not_in": ["x", value]}):
        if refused:
            with pytest.raises(
                Rejected, match=rf"^filters\.{column}(\.\w+)?: expected an? .*{refused}.*, got"
            ):
                where({column: tests})
        else:
            where({column: tests})


REPEATED = ("1", ".", ".1", " ", "1:", '"', "\\", "[", "(,", '[""', '{"', "],", "},", "[1,2],")


@each_row("column", ["length", "clock", "shift", "days", "visit"])
@each_row(("length", "repeated"), [(20_000, REPEATED), (MAX_VALUE - 8, ("[1,2],", '{"'))])
def test_the_time_of_the_check_grows_with_the_length_alone(
    column: str, length: int, repeated: Sequence[str]
) -> None:
    """V4: a pattern that goes back needs hours for such values, and no other thread runs meanwhile.

    Of the longest values that are read, those are examined of which most parts are read.
    """
    began = process_time()
    for start, text in product(("", "{", "[", '(,"'), repeated):
        with suppress(Rejected):
            where({column: start + text * (length // len(text)) + "x"})
    assert process_time() - began < 5


BEFORE, AFTER = "2026-01-31T23:59:59.999999Z", "2026-01-31T23:59:59.9999999Z"


@each_row(
    ("tests", "expected"),
    [
        ({"lte": AFTER}, f"<= CAST('{BEFORE}' AS timestamp with time zone)"),
        ({"lt": AFTER}, f"<= CAST('{BEFORE}' AS timestamp with time zone)"),
        ({"gt": AFTER}, f"> CAST('{BEFORE}' AS timestamp with time zone)"),
        ({"gte": AFTER}, f"> CAST('{BEFORE}' AS timestamp with time zone)"),
        ({"lt": BEFORE.replace("Z", "000Z")}, f"< CAST('{BEFORE}' AS timestamp with time zone)"),
        (
            {"gte": AFTER.replace("Z", "[Asia/Tokyo]")},
            "> CAST('2026-01-31T14:59:59.999999+00:00' AS timestamp",
        ),
        ({"eq": AFTER}, "false"),
        ({"ne": AFTER}, "true"),
        ({"in": [AFTER, AFTER]}, "false"),
        ({"in": [AFTER, None]}, "IS NULL"),
        ({"not_in": [AFTER]}, "true"),
        ({"not_in": [AFTER, None]}, "IS NOT NULL"),
        ({"in": [AFTER, BEFORE]}, f"""= ANY (CAST('{{"{BEFORE}"}}' AS timestamp with time zone[]))"""),
    ],
)
def test_a_time_between_two_microseconds(tests: dict[str, Any], expected: str) -> None:
    """V4: .NET ends a day with seven digits, Java with nine. PostgreSQL would make it the next day."""
    found = where({"created_at": tests})
    assert found.removeprefix('"created_at" ').startswith(expected)


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_a_text_never_leaves_its_quotes(value: str) -> None:
    inside = where({"kind": value}).removeprefix('"kind" = CAST(\'').removesuffix("' AS text)")
    assert "'" not in inside.replace("''", "")
    assert inside.replace("''", "'") == value
