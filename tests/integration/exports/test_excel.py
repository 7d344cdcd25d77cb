"""Workbooks rendered by a real PostgreSQL and read by two independent libraries."""

import asyncio
import io
import re
from base64 import b64encode
from collections.abc import Callable
from datetime import datetime, time, timedelta
from typing import Any
from zipfile import ZipFile

import asyncpg
import fastexcel
import urllib3
from openpyxl import load_workbook
from pypdf import PdfReader

from stream_app.datasets.models import Dataset
from stream_app.exports.formats.excel.format import ExcelFormat
from stream_app.exports.pipeline import Exporter
from stream_app.exports.task import ExportProgress
from stream_app.storage.object_store import ObjectStore
from streaming_exporter.events import ExportRequest
from tests.integration.exports.conftest import Export, task_for
from tests.integration.exports.test_text_formats import NASTY, TYPES


def by_openpyxl(content: bytes) -> list[tuple[Any, ...]]:
    with ZipFile(io.BytesIO(content)) as archive:
        assert archive.testzip() is None
    return list(load_workbook(io.BytesIO(content)).worksheets[0].iter_rows(values_only=True))


def by_calamine(content: bytes) -> list[tuple[Any, ...]]:
    sheet = fastexcel.read_excel(content).load_sheet(0, header_row=None, dtypes="string")
    return [tuple(row.values()) for row in sheet.to_arrow().to_pylist()]


async def table(database: asyncpg.Connection, schema: str, columns: str, *rows: str) -> str:
    await database.execute(f"CREATE TABLE t ({columns})")
    for row in rows:
        await database.execute(f"INSERT INTO t VALUES ({row})")
    return f"{schema}.t"


async def test_every_text(export: Export, database: asyncpg.Connection, schema: str) -> None:
    await database.execute("CREATE TABLE t (id int PRIMARY KEY, value text)")
    await database.executemany("INSERT INTO t VALUES ($1, $2)", list(enumerate(NASTY)))
    exported = await export(f"{schema}.t", "excel")

    expected = [text[:32_767] if text else None for text in NASTY]
    assert [row[1] or None for row in by_calamine(exported.content)[1:]] == expected
    as_escaped = str.maketrans({"\x01": "_x0001_", "\x02": "_x0002_", "\x1f": "_x001F_"})
    escaped = [text and text.translate(as_escaped) for text in expected]
    assert [row[1] or None for row in by_openpyxl(exported.content)[1:]] == escaped
    assert exported.warnings == {"cut_cells": 1, "escaped_characters": 3}
    assert exported.data.row_count == len(NASTY)


async def test_every_type(export: Export, database: asyncpg.Connection, schema: str) -> None:
    await database.execute(TYPES)
    content = (await export(f"{schema}.types", "excel")).content

    header, full = by_openpyxl(content)
    assert dict(zip(header, full, strict=True)) == {
        "b": True, "i2": -5, "i8": "9223372036854775807", "n": "12345678901234567890.0123456789",
        "nan": "NaN", "f": 0.1, "inf": "-Infinity", "t": "x", "v": "dom", "c": "ab",
        "u": "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
        "d": datetime(2026, 1, 31), "tm": time(13, 30, 0, 500_000), "ts": datetime(2026, 1, 31, 13, 30),
        "tz": datetime(2026, 1, 31, 11, 30, 0, 250_000), "iv": "P1DT2H", "jb": '{"k": [1, null, 1.50]}',
        "j": '{"a":\n 1,\t"a": 2}', "by": b64encode(b"\x00\xff" * 40).decode(), "a": '["a",null,"c,\\"d"]',
        "m": "happy", "ip": "10.0.0.1", "r": "[1,5)",
    }  # fmt: skip


async def test_numbers_keep_their_digits(export: Export, database: asyncpg.Connection, schema: str) -> None:
    cases: list[tuple[str, Any]] = [
        ("999999999999999", 999999999999999), ("-999999999999999", -999999999999999),
        ("1000000000000000", 10**15), ("1000000000000001", "1000000000000001"),
        ("-1234567890123456", "-1234567890123456"), ("9007199254740993", "9007199254740993"), ("0", 0),
        ("9223372036854775807", "9223372036854775807"), ("1200000000000000000", 1_200_000_000_000_000_000),
    ]  # fmt: skip
    source = await table(database, schema, "value bigint", *(case for case, _ in cases))
    assert [row[0] for row in by_openpyxl((await export(source, "excel")).content)[1:]] == [
        value for _, value in cases
    ]


async def test_decimals_keep_their_digits(export: Export, database: asyncpg.Connection, schema: str) -> None:
    cases: list[tuple[str, Any]] = [
        ("123456789.123456", 123456789.123456), ("-123456789.123456", -123456789.123456),
        ("1234567890.123456", "1234567890.123456"), ("999999999999.000000", 999999999999),
        ("999999999999.999999", "999999999999.999999"), ("'NaN'", "NaN"), ("0.000001", 0.000001),
    ]  # fmt: skip
    rows = (f"{case}, {case}" for case, _ in cases)
    source = await table(database, schema, "a numeric(18,6), b numeric", *rows)
    await database.execute(
        "INSERT INTO t (b) VALUES ('Infinity'), (1e200), (1e301), (0.1234567890123456), (1e-20), (-0.5),"
        "('1e-299'), ('-1e-301'), (round(0, 400))"
    )
    read = by_openpyxl((await export(source, "excel")).content)[1:]
    assert [row[0] for row in read[: len(cases)]] == [value for _, value in cases]
    assert [row[1] for row in read] == [
        *(value for _, value in cases),
        "Infinity", 10**200, "1" + "0" * 301, "0.1234567890123456", 1e-20, -0.5,
        1e-299, "-0." + "0" * 300 + "1", 0,
    ]  # fmt: skip


async def test_times_inside_and_outside_of_the_range_of_a_workbook(
    export: Export, database: asyncpg.Connection, schema: str
) -> None:
    source = await table(
        database,
        schema,
        "d date, ts timestamp, tz timestamptz, tm time, f float4",
        "'1900-03-01', '1900-03-01', '1900-03-01 00:00Z', '00:00', 0.1",
        "'1900-02-28', '1900-02-28 23:59:59', '1900-02-28 23:59:59Z', '23:59:59', 'NaN'",
        "'9999-12-31', '9999-12-31 23:59:59', '9999-12-31 23:59:59Z', '24:00', 'Infinity'",
        "'infinity', 'infinity', '-infinity', '12:00', 1e30",
        "'10000-01-01', '10000-01-01', '10000-01-01Z', NULL, -1.5",
        "'0044-03-15 BC', '0044-03-15 12:00 BC', '2026-07-01 12:00:00.125+02', NULL, NULL",
    )
    first, last = datetime(1900, 3, 1), datetime(9999, 12, 31, 23, 59, 59)
    assert by_openpyxl((await export(source, "excel")).content)[1:] == [
        (first, first, first, time(0), 0.1),
        ("1900-02-28", "1900-02-28T23:59:59", "1900-02-28T23:59:59+00:00", time(23, 59, 59), "NaN"),
        (datetime(9999, 12, 31), last, last, "24:00:00", "Infinity"),
        ("infinity", "infinity", "-infinity", time(12), 1e30),
        ("10000-01-01", "10000-01-01T00:00:00", "10000-01-01T00:00:00+00:00", None, -1.5),
        ("0044-03-15 BC", "0044-03-15T12:00:00 BC", datetime(2026, 7, 1, 10, 0, 0, 125_000), None, None),
    ]


async def test_names_of_all_kinds(export: Export, database: asyncpg.Connection, schema: str) -> None:
    names = ["=1+1", 'a"b', "two\nlines", "select", "<&>", "Ünï", " x "]
    columns = ", ".join('"' + name.replace('"', '""') + '" int' for name in names)
    source = await table(database, schema, columns, "1, 2, 3, 4, 5, 6, 7")
    content = (await export(source, "excel")).content
    assert by_calamine(content)[0] == tuple(names)
    assert by_openpyxl(content) == [tuple(names), (1, 2, 3, 4, 5, 6, 7)]


async def test_rows_roll_over(
    exporter_of: Callable[..., Exporter], storage: ObjectStore, database: asyncpg.Connection, schema: str
) -> None:
    source = await table(database, schema, "id int PRIMARY KEY, note text")
    await database.execute(
        "INSERT INTO t SELECT n, nullif('row ' || n, 'row 7') FROM generate_series(1, 2500) n"
    )
    exporter = exporter_of(
        Dataset(name="things", table=source), formats={"excel": ExcelFormat(last_row=1000)}
    )
    request = ExportRequest.parse(
        {"user_id": "u", "export_type": "things", "format": "excel", "scope": "all"}
    )
    data = await exporter.run(task_for(request), ExportProgress())
    link = storage.presigned_url(data.key or "", data.file_name or "", data.content_type or "")

    response = await asyncio.to_thread(urllib3.request, "GET", link)
    sheets = load_workbook(io.BytesIO(response.data)).worksheets
    assert [sheet.max_row for sheet in sheets] == [1000, 1000, 503]
    read = [row for sheet in sheets for row in sheet.iter_rows(min_row=2, values_only=True)]
    assert read == [(number, None if number == 7 else f"row {number}") for number in range(1, 2501)]


async def test_a_time_is_never_shown_as_the_next_day(
    export: Export, database: asyncpg.Connection, schema: str
) -> None:
    """V5, V23: programs round a serial number to the seconds that the cell shows."""
    moments = [
        f"{day} 23:59:59{fraction}"
        for day in ("1900-03-01", "1969-12-31", "2026-01-31", "5000-06-30", "9999-12-31")
        for fraction in ("", ".0001", ".4999", ".5", ".9996", ".999999")
    ]
    source = await table(
        database,
        schema,
        "id int PRIMARY KEY, ts timestamp, tz timestamptz, tm time",
        *(f"{n}, '{moment}', '{moment}Z', '{moment}'" for n, moment in enumerate(moments)),
        f"{len(moments)}, '2026-01-31 12:30:59.75', '2026-01-31 12:30:59.75Z', '12:30:59.75'",
    )
    content = (await export(source, "excel")).content
    *rows, between = by_openpyxl(content)[1:]
    for moment, (_, ts, tz, tm) in zip(moments, rows, strict=True):
        assert ts == tz == datetime.fromisoformat(moment[:19])
        assert tm == time(23, 59, 59)
    with ZipFile(io.BytesIO(content)) as archive:
        sheet = archive.read("xl/worksheets/sheet1.xml").decode()
    serials = [float(serial) for serial in re.findall(r"<v>(\d+\.\d+)</v>", sheet)]
    assert len(serials) == 3 * (len(moments) + 1)
    assert all(int(serial + 0.5 / 86_400) == int(serial) for serial in serials)
    assert max(serials) < 2_958_466
    quarter = timedelta(milliseconds=750)
    assert between[1:3] == (datetime(2026, 1, 31, 12, 30, 59) + quarter,) * 2  # other fractions are kept


async def test_identifiers_have_no_groups_of_digits(
    export: Export, database: asyncpg.Connection, schema: str
) -> None:
    """C21: keys and identity columns are known from the database, in tables and in queries of them."""
    await database.execute(
        "CREATE TABLE customers (customer int PRIMARY KEY);"
        "CREATE TABLE t (entry bigint PRIMARY KEY, buyer int REFERENCES customers,"
        " line int GENERATED ALWAYS AS IDENTITY, invoice_no int, pieces int, total numeric(12,3));"
        "INSERT INTO customers VALUES (1234567);"
        "INSERT INTO t VALUES (7654321, 1234567, DEFAULT, 1000001, 1000002, 1234567.5)"
    )
    expected = ["0", "0", "0", "0", "#,##0", "#,##0.00?"]
    query = Dataset(name="things", query=f"SELECT * FROM {schema}.t")
    for dataset in (None, query):
        content = (await export(f"{schema}.t", "excel", dataset=dataset)).content
        sheet = load_workbook(io.BytesIO(content)).worksheets[0]
        assert [cell.number_format for cell in sheet[2]] == expected
        assert by_openpyxl(content)[1] == (7654321, 1234567, 1, 1000001, 1000002, 1234567.5)
    options = {"locale": "de-DE", "language": "de"}
    report = (await export(f"{schema}.t", "pdf", options=options)).content
    text = PdfReader(io.BytesIO(report)).pages[0].extract_text()
    for shown in ("7654321", "1234567", "1000001", "1.000.002", "1.234.567,500"):
        assert shown in text
