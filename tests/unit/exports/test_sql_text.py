"""Statements of a known form: their text is the one that SQLAlchemy writes for them alone."""

from functools import cache
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sqlalchemy import Text, cast, func, literal, select

from stream_app.datasets.models import Dataset
from stream_app.exports.columns import Column, Kind, kind_of
from stream_app.exports.filters.conditions import LISTS, operators
from stream_app.exports.queries import sql_text
from stream_app.exports.queries.row_query import reference, row_query
from stream_app.exports.queries.sql_text import MAX_VALUES, quoted, render, rendered
from stream_app.exports.tables.source_table import SourceTable
from streaming_exporter.errors import Rejected
from streaming_exporter.events import ExportRequest
from tests.integration.exports.type_shapes import SCALARS

COLUMNS = (
    *(Column(f"a {base}", base, base, kind_of(base, b"b"), cast=f"pg_catalog.{base}") for base in SCALARS),
    Column("citext", "citext", "citext", Kind.TEXT),
    Column("status", "device_status", "device_status", Kind.ENUM, labels=("active", "it's")),
    Column("tags", "text[]", "text", Kind.ARRAY),
    Column('quote"d', "text", "text", Kind.TEXT, deterministic=False),
)
OWNERS = [item.name for item in COLUMNS]
TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
ODD = st.sampled_from(["'", "''", "\\'", "%s", "%%(a)s", ":a", "$1", "\\", "/", "_", "{}", "active", "it's"])
DAYS = st.sampled_from(["2026-01-31", "2026-02-01[Europe/Berlin]", "9999-12-31", "2026-01-31T10:00:00"])


def table(owner: str) -> SourceTable:
    return SourceTable(
        dataset=Dataset(name="d", table="public.d", owner=owner),
        schema="public",
        name="d",
        columns=COLUMNS,
        all_columns={item.name: item for item in COLUMNS},
        primary_key=(),
    )


@cache  # hypothesis would examine a new one for each example
def values(column: Column) -> st.SearchStrategy[Any]:
    known = SCALARS.get(column.base)
    texts = TEXTS | ODD | DAYS
    return (texts if known is None else known | texts) | st.none() | st.booleans() | st.integers(-9, 9)


@cache
def several_values(column: Column) -> st.SearchStrategy[list[Any]]:
    return st.lists(values(column), min_size=1, max_size=30)


@cache
def some_operators(column: Column) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(operators(column)), min_size=1, max_size=2)


some_columns = st.lists(st.sampled_from(COLUMNS), max_size=3, unique=True)


@st.composite
def filters(draw: st.DrawFn) -> dict[str, Any]:
    """Filters with any operators of columns of all types. Some of their values are refused."""
    wanted: dict[str, Any] = {}
    for column in draw(some_columns):
        tests = {}
        for operator in draw(some_operators(column)):
            tests[operator] = draw((several_values if operator in LISTS else values)(column))
        if "is_null" in tests:
            tests["is_null"] = draw(st.booleans())
        wanted[column.name] = tests
    return wanted


def statement(wanted: dict[str, Any], owner: str, user: str, scope: str) -> Any:
    request = ExportRequest(user_id=user, export_type="d", format="csv", filters=wanted, scope=scope)
    return row_query(table(owner), request).select


@pytest.mark.unmeasured  # the tests of filters reach the same lines
@given(filters(), st.sampled_from(OWNERS), TEXTS.filter(bool) | ODD, st.sampled_from(["own", "all"]))
def test_the_text_of_a_form_with_values_is_the_text_by_sqlalchemy(
    wanted: dict[str, Any], owner: str, user: str, scope: str
) -> None:
    try:
        first = statement(wanted, owner, user, scope)
    except Rejected:
        assume(False)
    assert render(first) == rendered(first)
    assert render(statement(wanted, owner, user, scope)) == rendered(first), "now its form is known"


@given(st.data(), st.sampled_from([item for item in COLUMNS if operators(item)]))
def test_two_values_of_one_form_each_have_their_own_text(data: st.DataObject, column: Column) -> None:
    operator = data.draw(st.sampled_from(operators(column)))
    for value in data.draw(st.lists(values(column), min_size=2, max_size=6)):
        try:
            found = statement(
                {column.name: {operator: [value] if operator in LISTS else value}}, "tags", "u", "all"
            )
        except Rejected:
            continue
        assert render(found) == rendered(found)


def known_value(column: Column, number: int) -> Any:
    """Return a value that a filter on ``column`` takes, another one for each number below 32 where it can."""
    match column.kind:
        case Kind.BOOLEAN:
            return number % 2 == 0
        case Kind.INTEGER | Kind.FLOAT | Kind.NUMERIC:
            return number
        case Kind.DATE | Kind.TIMESTAMP | Kind.TIMESTAMPTZ:
            return f"2026-01-{number:02}"
        case Kind.TIME:
            return f"10:{number:02}"
        case Kind.UUID:
            return f"4f1c0de0-0000-4000-8000-{number:012}"
        case Kind.BYTES:
            return f"\\x{number:02}"
        case Kind.ENUM:
            return column.labels[number % 2]
    if column.base == "char":
        return "'\\%:$/_{}()a"[number % 12]
    return f"it's {number}" if number % 2 else f"%s:a {number}"


def test_every_operator_of_every_column_has_the_text_by_sqlalchemy() -> None:
    """All operators of a column stand in one statement: each has its own value in the text."""
    for column in COLUMNS:

        def with_values(first: int, column: Column = column) -> Any:
            tests: dict[str, Any] = {}
            for number, operator in enumerate(operators(column), first):
                value = known_value(column, number)
                tests[operator] = [value] if operator in LISTS else value
            return statement({column.name: tests | {"is_null": True}}, "tags", "u", "all")

        render(with_values(1))
        found = with_values(13)  # its form is known by now
        assert render(found) == rendered(found), column


@given(TEXTS | ODD)
def test_a_constant_is_quoted_as_sqlalchemy_quotes_it(value: str) -> None:
    assert quoted(value) == rendered(literal(value, Text))


def test_a_known_form_is_not_compiled_again(monkeypatch: pytest.MonkeyPatch) -> None:
    column = COLUMNS[OWNERS.index("a text")].name
    wanted = {column: {"in": ["a"], "prefix": "b", "contains": "c", "ne": "d"}}
    expected = rendered(statement(wanted, column, "u", "own"))
    render(statement({column: {"in": ["1"], "prefix": "2", "contains": "3", "ne": "4"}}, column, "v", "own"))

    def refuse(*_: object) -> str:
        raise AssertionError("compiled")

    monkeypatch.setattr(sql_text, "rendered", refuse)
    monkeypatch.setattr(sql_text, "_form_of", refuse)
    assert render(statement(wanted, column, "u", "own")) == expected


@pytest.mark.parametrize("number", [1, MAX_VALUES, MAX_VALUES + 1])
def test_a_form_with_many_values_is_not_kept(number: int) -> None:
    before = set(sql_text._forms)
    texts = [f"t{place}" for place in range(number)]
    found = select(reference("x")).where(reference("x").in_([cast(literal(text), Text) for text in texts]))
    assert render(found) == rendered(found)
    assert (set(sql_text._forms) == before) is (number > MAX_VALUES)


def test_values_that_are_no_texts_are_written_by_sqlalchemy() -> None:
    for number in (1, 2):
        found = select(reference("x")).where(func.abs(reference("x")) == number).limit(number)
        assert render(found) == rendered(found)
