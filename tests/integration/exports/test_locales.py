"""Locales in every format: what a reader with the locale's rules finds is what the database has."""

import csv
import io
import json
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any

import asyncpg
import pyarrow.parquet as pq
import pytest
from babel import Locale
from babel.dates import parse_date
from babel.localedata import locale_identifiers
from babel.numbers import get_decimal_symbol, get_group_symbol, parse_decimal
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openpyxl import load_workbook
from pypdf import PdfReader
from sqlalchemy import select

from stream_app.datasets.models import ColumnSettings, Dataset
from stream_app.exports.columns import Column, Kind
from stream_app.exports.formats.base import ROWS
from stream_app.exports.formats.localized import printed_text
from stream_app.exports.queries.sql_text import render
from stream_app.locales import find_locale
from streaming_exporter.errors import Rejected
from tests.integration.exports.conftest import Export

LOCALES = [
    "de-DE",
    "fr-FR",
    "en-GB",
    "en-US",
    "pt-BR",
    "hi-IN",
    "de-CH",
    "sv-SE",
    "hu-HU",
    "ar-EG",
    "bg",
    "zh-TW",
]

COLUMNS = {
    "id": "int",
    "big": "bigint",
    "exact": "numeric",
    "price": "numeric(20,2)",
    "rough": "float8",
    "day": "date",
    "clock": "time",
    "local": "timestamp",
    "at": "timestamptz",
    "note": "text",
    "amounts": "numeric[]",
    "span": "numrange",
}

EDGES: list[tuple[Any, ...]] = [
    (2**63 - 1, "12345678901234567890.0123456789", "1234567.80", "1.5e300", "2026-07-01", "13:30:00.25"),
    (-(2**63), "-0.00000000000000000001", "-1234.50", "-Infinity", "infinity", "00:00:00"),
    (0, "NaN", "0", "NaN", "0044-03-15 BC", "24:00:00"),
    (999, "999", "999.99", "1e-7", "10000-01-01", "23:59:59.999999"),
    (1000, "1000.0", "1000", "0.1", "0001-01-01", "12:00:00"),
    (-100000, "-100000.50", "100000", "123456.789", "9999-12-31", "01:02:03"),
    (None, None, None, None, None, None),
]


def locale_of(tag: str) -> Locale:
    return Locale.parse(tag, sep="-")


async def fill(database: asyncpg.Connection, rows: list[tuple[Any, ...]]) -> None:
    columns = ", ".join(f"{name} {kind}" for name, kind in COLUMNS.items())
    await database.execute(
        f"SET TimeZone = 'UTC'; DROP TABLE IF EXISTS local; CREATE TABLE local ({columns})"
    )
    await database.executemany(
        "INSERT INTO local VALUES ($1, $2::text::bigint, $3::text::numeric, $4::text::numeric,"
        " $5::text::float8, $6::text::date, $7::text::time, $6::text::timestamp + interval '13:30:00.25',"
        " $6::text::timestamptz, 'a;b,c',"
        " ARRAY[$3::text::numeric], numrange(1.5, 2.5))",
        [
            (number, *(None if value is None else str(value) for value in row))
            for number, row in enumerate(rows)
        ],
    )


def number(text: str, tag: str) -> str:
    """Read a number as a program with the locale does: without groups, with the locale's separator."""
    symbol = get_decimal_symbol(locale_of(tag))
    assert symbol == "." or "." not in text
    return text.replace(symbol, ".")


async def plain_rows(export: Export, table: str) -> list[list[str]]:
    rows = list(csv.reader(io.StringIO((await export(table, "csv")).content.decode())))
    return rows[1:]


@pytest.mark.parametrize("tag", LOCALES)
async def test_csv_has_every_digit_and_the_order_of_the_locale(
    export: Export, database: asyncpg.Connection, schema: str, tag: str
) -> None:
    await fill(database, EDGES)
    exported = await export(f"{schema}.local", "csv", options={"locale": tag})
    check_csv(exported.content, await plain_rows(export, f"{schema}.local"), tag)


def check_csv(content: bytes, plain: list[list[str]], tag: str) -> None:
    rules = find_locale(tag)
    names, *rows = csv.reader(io.StringIO(content.decode()), delimiter=rules.delimiter)
    assert names == list(COLUMNS)
    assert rules.delimiter == (";" if get_decimal_symbol(locale_of(tag)) == "," else ",")
    for row, usual in zip(rows, plain, strict=True):
        found, expected = dict(zip(names, row, strict=True)), dict(zip(names, usual, strict=True))
        for name in ("id", "big", "exact", "price", "rough"):
            assert number(found[name], tag) == expected[name]
        for name in ("note", "amounts", "span"):
            assert found[name] == expected[name], "values with parts and texts are for programs"
        assert found["clock"].replace(rules.decimal, ".") == expected["clock"]
        for name in ("day", "local", "at"):
            check_time(found[name], expected[name], tag)


def check_time(found: str, expected: str, tag: str) -> None:
    try:
        moment = datetime.fromisoformat(expected)
    except ValueError:
        assert found == expected  # infinity, BC and distant years
        return
    if not date(1, 1, 2) <= moment.date() < date(9999, 12, 31):
        assert found == expected
        return
    clock = expected[11:]
    if clock:
        assert found.endswith(" " + clock.replace(".", find_locale(tag).decimal))
        found = found[: -len(clock) - 1]
    assert parse_date(found, locale=locale_of(tag), format="short") == moment.date()


async def test_postgresql_and_python_write_the_same_in_every_locale(database: asyncpg.Connection) -> None:
    """The words around the rows, such as those of mails, are written in Python."""
    shown = [Column("n", "numeric", "numeric", Kind.NUMERIC), Column("d", "date", "date", Kind.DATE)]
    compared = set()
    for name in locale_identifiers():
        rules = find_locale(name) if name != "root" else None
        key = rules and (rules.decimal, rules.group, rules.groups, rules.date_parts)
        if rules is None or key in compared:
            continue
        compared.add(key)
        select_values = render(select(*(printed_text(item, rules) for item in shown)).select_from(ROWS))
        row = await database.fetchrow(
            f"WITH rows AS (SELECT -1234567.125::numeric AS n, date '2026-03-05' AS d) {select_values}"
        )
        assert row is not None
        assert tuple(row) == (rules.number_text(Decimal("-1234567.125")), rules.date_text(date(2026, 3, 5)))
    assert len(compared) > 50


DAYS = st.dates(date(1, 1, 1), date(9999, 12, 31)).map(date.isoformat)
NUMBERS = st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**25), max_value=10**25)


@settings(
    max_examples=20,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    tag=st.sampled_from(LOCALES),
    rows=st.lists(
        st.tuples(
            st.integers(-(2**63), 2**63 - 1),
            NUMBERS.map(lambda value: f"{value:f}"),
            st.decimals(-(10**15), 10**15, places=2).map(str),
            st.floats().map(lambda value: repr(value).replace("inf", "Infinity")),
            DAYS,
            st.times().map(time.isoformat),
        ),
        min_size=1,
        max_size=20,
    ),
)
async def test_any_values_are_read_back(
    export: Export, database: asyncpg.Connection, schema: str, tag: str, rows: list[tuple[Any, ...]]
) -> None:
    await fill(database, rows)
    exported = await export(f"{schema}.local", "csv", options={"locale": tag})
    check_csv(exported.content, await plain_rows(export, f"{schema}.local"), tag)
    stored = await database.fetch("SELECT exact, price, rough, day FROM local ORDER BY id")
    content = csv.reader(io.StringIO(exported.content.decode()), delimiter=find_locale(tag).delimiter)
    for row, record in zip(list(content)[1:], stored, strict=True):
        found = dict(zip(COLUMNS, row, strict=True))
        assert parse_decimal(found["exact"], locale=locale_of(tag)) == record["exact"]
        assert parse_decimal(found["price"], locale=locale_of(tag)) == record["price"]
        assert repr(float(number(found["rough"], tag))) == repr(record["rough"])


@pytest.mark.parametrize(
    ("options", "delimiter"),
    [
        ({"locale": "de-DE", "delimiter": ","}, ","),
        ({"locale": "de-DE", "delimiter": "\t"}, "\t"),
        ({"locale": "en-GB", "delimiter": ";"}, ";"),
        ({"locale": "de-DE"}, ";"),
        ({"locale": "en-GB"}, ","),
    ],
)
async def test_the_requester_can_choose_another_delimiter(
    export: Export, database: asyncpg.Connection, schema: str, options: dict[str, str], delimiter: str
) -> None:
    await fill(database, EDGES[:1])
    exported = await export(f"{schema}.local", "csv", options=options)
    names, row = csv.reader(io.StringIO(exported.content.decode()), delimiter=delimiter)
    assert names == list(COLUMNS)
    assert number(row[3], options["locale"]) == "1234567.80"


@pytest.mark.parametrize("zone", ["Europe/Berlin", "Asia/Kolkata"])
async def test_csv_with_locale_and_zone(
    export: Export, database: asyncpg.Connection, schema: str, zone: str
) -> None:
    await fill(database, EDGES)
    table = f"{schema}.local"
    zoned = [
        json.loads(line)["at"]
        for line in (await export(table, "ndjson", options={"timezone": zone})).content.splitlines()
    ]
    exported = await export(table, "csv", options={"timezone": zone, "locale": "de-DE"})
    rows = list(csv.DictReader(io.StringIO(exported.content.decode()), delimiter=";"))
    for row, expected in zip(rows, zoned, strict=True):
        check_time(row["at"], expected or "", "de-DE")


@pytest.mark.parametrize("name", ["json", "ndjson", "parquet"])
async def test_formats_for_programs_have_no_locale(
    export: Export, database: asyncpg.Connection, schema: str, name: str
) -> None:
    await fill(database, EDGES)
    usual, local = [
        (await export(f"{schema}.local", name, options=options)).content
        for options in ({}, {"locale": "de-DE", "language": "de"})
    ]
    if name == "parquet":
        first, second = (pq.read_table(io.BytesIO(content)) for content in (usual, local))
        assert repr(first.to_pydict()) == repr(second.to_pydict())  # NaN is not equal to itself
    else:
        assert local == usual


@pytest.mark.parametrize(
    ("tag", "day", "moment"),
    [
        ("de-DE", r"dd\.mm\.yyyy", r"dd\.mm\.yyyy hh:mm:ss"),
        ("en-US", r"m\/d\/yyyy", r"m\/d\/yyyy hh:mm:ss"),
        ("sv-SE", r"yyyy\-mm\-dd", r"yyyy\-mm\-dd hh:mm:ss"),
    ],
)
async def test_excel_has_the_formats_of_the_locale(
    export: Export, database: asyncpg.Connection, schema: str, tag: str, day: str, moment: str
) -> None:
    await fill(database, EDGES)
    usual, local = [
        sheet_of((await export(f"{schema}.local", "excel", options=options)).content)
        for options in ({}, {"locale": tag})
    ]
    assert list(local.iter_rows(values_only=True)) == list(usual.iter_rows(values_only=True))
    formats = {name: local.cell(4, column).number_format for column, name in enumerate(COLUMNS, 1)}
    at = list(COLUMNS).index
    formats |= {name: local.cell(2, at(name) + 1).number_format for name in ("day", "local", "at")}
    assert (formats["id"], formats["big"]) == ("0", "#,##0")
    assert formats["price"] == "#,##0.00"
    assert formats["day"] == day
    assert formats["local"] == formats["at"] == moment
    assert local.cell(2, 6).is_date
    assert local.cell(2, 6).value == datetime(2026, 7, 1)


@pytest.mark.parametrize("tag", ["de-DE", "fr-FR", "hi-IN", "en-US", "de-CH"])
async def test_pdf_has_groups_and_every_digit(
    export: Export, database: asyncpg.Connection, schema: str, tag: str
) -> None:
    await fill(database, EDGES)
    exported = await export(
        f"{schema}.local", "pdf", columns=["big", "exact", "price", "rough"], options={"locale": tag}
    )
    text = squeezed(page_text(exported.content))
    group, decimal = (squeezed(symbol(locale_of(tag))) for symbol in (get_group_symbol, get_decimal_symbol))
    for row in EDGES[:-1]:
        for value in (row[0], row[1], Decimal(row[2]).quantize(Decimal("0.01"))):
            assert f"{value}".replace(".", decimal) in text.replace(group, ""), value
    shown = {"hi-IN": "12,34,567.80", "de-DE": "1.234.567,80", "fr-FR": "1234567,80", "en-US": "1,234,567.80"}
    assert shown.get(tag, "1'234'567.80") in text
    assert not exported.warnings


async def test_pdf_has_dates_of_the_locale(export: Export, database: asyncpg.Connection, schema: str) -> None:
    await fill(database, EDGES)
    options = {"locale": "de-DE", "timezone": "Europe/Berlin"}
    exported = await export(f"{schema}.local", "pdf", columns=["id", "day", "local", "at"], options=options)
    text = " ".join(page_text(exported.content).split())
    for shown in ("01.07.2026", "01.07.2026 13:30:00", "01.07.2026 02:00:00", "0044-03-15 BC", "infinity"):
        assert shown in text
    assert ",25" not in text.replace(" 13:30:00.25", "")  # locales have no form for some years
    assert "Zeiten in Europe/Berlin, auf die Sekunde" in text
    now = datetime.now(UTC)
    assert f"Stand {now:%d.%m.%Y} " in text or now.hour in (22, 23)


FORMAT = {"exact": "#,##0.00", "price": "0", "big": "0", "rough": "[Red]0.0"}


async def test_formats_of_columns(export: Export, database: asyncpg.Connection, schema: str) -> None:
    """The file's own number format is that of the cells, and adds groups and zeros in PDF, never rounds."""
    await fill(database, [(1234567, "1234567.5", "1234.5", "0.5", "2026-07-01", "12:00"), *EDGES[:2]])
    dataset = Dataset(
        name="things",
        table=f"{schema}.local",
        column_settings={name: ColumnSettings(format=text) for name, text in FORMAT.items()},
    )
    sheet = sheet_of((await export("", "excel", dataset=dataset)).content)
    places = {name: number for number, name in enumerate(COLUMNS, 1)}
    assert {name: sheet.cell(2, places[name]).number_format for name in FORMAT} == FORMAT
    columns = ["big", "exact", "price", "rough"]
    exported = await export("", "pdf", dataset=dataset, columns=columns)
    text = squeezed(page_text(exported.content))
    for shown in ("1234567", "1,234,567.50", "1234.50", "0.5", "12,345,678,901,234,567,890.0123456789"):
        assert shown in text
    local = await export("", "pdf", dataset=dataset, columns=columns, options={"locale": "de-DE"})
    assert "12.345.678.901.234.567.890,0123456789" in squeezed(page_text(local.content))


def sheet_of(content: bytes) -> Any:
    return load_workbook(io.BytesIO(content)).active


def page_text(content: bytes) -> str:
    return "\n".join(page.extract_text() for page in PdfReader(io.BytesIO(content)).pages)


def squeezed(text: str) -> str:
    return "".join(text.split())


@pytest.mark.parametrize("tag", ["de-XX", "xx", "deutsch"])
async def test_unknown_locales_get_a_clear_error(
    export: Export, database: asyncpg.Connection, schema: str, tag: str
) -> None:
    await fill(database, [])
    with pytest.raises(Rejected, match=r"options.locale") as error:
        await export(f"{schema}.local", "csv", options={"locale": tag})
    assert error.value.code in ("unknown_locale", "invalid_request")
