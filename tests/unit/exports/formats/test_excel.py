"""Workbooks made from COPY's output, read with two libraries that share no code with the writer."""

import io
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, time
from random import Random
from typing import Any
from xml.etree import ElementTree
from zipfile import ZipFile

import fastexcel
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from openpyxl import load_workbook

from stream_app.exports.columns import Column, Kind
from stream_app.exports.formats.base import Document, Tally
from stream_app.exports.formats.excel.archive import Archive
from stream_app.exports.formats.excel.format import ExcelFormat
from stream_app.exports.formats.excel.sections import Overview, SectionedWorkbook
from stream_app.exports.queries.sql_text import render
from streaming_exporter.errors import Rejected
from streaming_exporter.events import Options

AS_OF = datetime(2026, 11, 24, 6, 30, 10, tzinfo=UTC)
TEXT = Column("note", "text", "text", Kind.TEXT)
NUMBER = Column("id", "bigint", "int8", Kind.INTEGER)
DATE = Column("day", "date", "date", Kind.DATE)
MOMENT = Column("at", "timestamp with time zone", "timestamptz", Kind.TIMESTAMPTZ)
CLOCK = Column("clock", "time without time zone", "time", Kind.TIME)
FLAG = Column("flag", "boolean", "bool", Kind.BOOLEAN)
AMOUNT = Column("amount", "numeric(18,6)", "numeric", Kind.NUMERIC)

Row = Sequence[str | None]


def copied(rows: Sequence[Row]) -> bytes:
    """Return COPY's output with QUOTE \\x01 and DELIMITER \\x02. None is NULL."""
    return b"".join(b"\x02".join(map(_copied, row)) + b"\n" for row in rows)


def _copied(value: str | None) -> bytes:
    if value is None:
        return b""
    if value == "" or any(mark in value for mark in "\x01\x02\r\n"):
        value = "\x01" + value.replace("\x01", "\x01\x01") + "\x01"
    return value.encode()


def document(*columns: Column, **more: Any) -> Document:
    return Document("ledger", columns, Options(), AS_OF, **more)


def workbook(
    doc: Document, rows: Sequence[Row], *, chunk: int = 1000, last_row: int = 1_048_576
) -> tuple[bytes, Tally]:
    tally = Tally()
    chunks = (copied(rows[start : start + chunk]) for start in range(0, len(rows), chunk))
    return b"".join(ExcelFormat(last_row=last_row).frame(chunks, doc, tally)), tally


def values(content: bytes, sheet: int = 0) -> list[tuple[Any, ...]]:
    """Return the rows as openpyxl reads them. Every part must be valid."""
    with ZipFile(io.BytesIO(content)) as archive:
        assert archive.testzip() is None
        for name in archive.namelist():
            if name.endswith((".xml", ".rels")):
                ElementTree.fromstring(archive.read(name))
    return list(load_workbook(io.BytesIO(content)).worksheets[sheet].iter_rows(values_only=True))


def by_rust(content: bytes, sheet: int = 0) -> list[tuple[Any, ...]]:
    """Return the rows as calamine reads them, with every cell as text."""
    reader = fastexcel.read_excel(content)
    loaded = reader.load_sheet(sheet, header_row=None, dtypes="string", skip_rows=0)
    return [tuple(row.values()) for row in loaded.to_arrow().to_pylist()]


def texts(content: bytes) -> list[Any]:
    return [row[0] for row in values(content)[1:]]


UNCHANGED = [
        "=SUM(A1)", "007", "12345678901234567890", "<b>&amp;</b> \"'", "]]>", "é e\u0301 مرحبا", "😀" * 10,
        "a,b;c\td", " leading and trailing ", "\\N", "\\.", "two\nlines", "carriage\rreturn\r\n", "NULL",
        "1e5", "2026-01-01", "_x", "_x00", "\uffee", "tab\tend\t", "\nfirst",
]  # fmt: skip


def test_texts_are_unchanged() -> None:
    content, tally = workbook(document(TEXT), [[text] for text in UNCHANGED])

    assert texts(content) == UNCHANGED
    assert by_rust(content)[1:] == [(text,) for text in UNCHANGED]
    assert tally.rows == len(UNCHANGED)
    assert not tally.warnings


@pytest.mark.parametrize(
    ("text", "escaped", "count"),
    [
        ("\x01", "_x0001_", 1),
        ("a\x02b\x01c\x01", "a_x0002_b_x0001_c_x0001_", 3),
        ("\x03\x04\x1f", "_x0003__x0004__x001F_", 3),
        ("bell\x07\nline", "bell_x0007_\nline", 1),
        ("\ufffe\uffff", "_xFFFE__xFFFF_", 2),
        ("_x0041_", "_x005F_x0041_", 0),
        ("_x0001_\x01", "_x005F_x0001__x0001_", 1),
    ],
)
def test_characters_that_xml_cannot_hold_are_escaped_and_counted(text: str, escaped: str, count: int) -> None:
    content, tally = workbook(document(TEXT), [[text]])

    with ZipFile(io.BytesIO(content)) as archive:
        sheet = ElementTree.fromstring(archive.read("xl/worksheets/sheet1.xml"))
    found = [element.text for element in sheet.iter() if element.tag.endswith("}t")]
    assert found == ["note", escaped]
    assert tally.warnings["escaped_characters"] == count
    if text != "\ufffe\uffff":  # which calamine leaves escaped
        assert by_rust(content)[1] == (text,)


def test_null_is_no_cell_and_an_empty_text_is_one() -> None:
    content, _ = workbook(
        document(TEXT, NUMBER, TEXT), [["", None, "x"], [None, None, None], [None, "5", ""], ["y", "6", "z"]]
    )

    with ZipFile(io.BytesIO(content)) as archive:
        sheet = ElementTree.fromstring(archive.read("xl/worksheets/sheet1.xml"))
    cells = {
        element.get("r"): "".join(element.itertext())
        for element in sheet.iter()
        if element.tag.endswith("}c")
    }
    del cells["A1"], cells["B1"], cells["C1"]
    assert cells == {"A2": "", "C2": "x", "B4": "5", "C4": "", "A5": "y", "B5": "6", "C5": "z"}
    assert [e.get("r") for e in sheet.iter() if e.tag.endswith("}row")] == ["1", "2", "3", "4", "5"]


def test_values_have_types_and_formats() -> None:
    columns = (NUMBER, AMOUNT, FLAG, DATE, MOMENT, CLOCK)
    content, _ = workbook(document(*columns), [["42", "1.500000", "1", "46350", "46350.270949074074", "0.5"]])

    sheet = load_workbook(io.BytesIO(content)).worksheets[0]
    assert [cell.value for cell in sheet[2]] == [
        42, 1.5, True, datetime(2026, 11, 24), datetime(2026, 11, 24, 6, 30, 10), time(12),
    ]  # fmt: skip
    assert [cell.number_format for cell in sheet[2]] == [
        "0", "#,##0.00????", '"TRUE";"TRUE";"FALSE"', "yyyy-mm-dd", "yyyy-mm-dd hh:mm:ss", "hh:mm:ss",
    ]  # fmt: skip
    assert sheet.freeze_panes == "A2"
    assert sheet.auto_filter.ref == "A1:F2"
    assert sheet["A1"].font.bold


def test_a_value_that_a_typed_cell_cannot_hold_becomes_text() -> None:
    rows: list[list[str | None]] = [
        ["1", "46350", "a"],
        ["\n1234567890123456789", "\n0001-01-01 BC", None],
        [None, "\ninfinity", "\x02"],
        ["\n9007199254740993", None, "c"],
    ]
    content, tally = workbook(document(NUMBER, DATE, TEXT), rows)

    assert values(content)[1:] == [
        (1, datetime(2026, 11, 24), "a"),
        ("1234567890123456789", "0001-01-01 BC", None),
        (None, "infinity", "_x0002_"),
        ("9007199254740993", None, "c"),
    ]
    assert tally.warnings == {"escaped_characters": 1}


@pytest.mark.parametrize("filler", ["x", "é", "😀", "a\nb", "&<"])
def test_long_cells_are_cut_at_the_limit_and_counted(filler: str) -> None:
    fitting = (filler * 32_767)[: 32_767 // len(filler.encode("utf-16-le")) * 2]
    content, tally = workbook(
        document(NUMBER, TEXT), [["1", fitting], ["2", filler * 100_000], ["3", "next"]]
    )

    kept = [row[1] for row in values(content)[1:]]
    assert kept[0] == fitting
    assert len(kept[1].encode("utf-16-le")) // 2 in (32_767, 32_766)
    assert (filler * 100_000).startswith(kept[1])
    assert kept[2] == "next"
    assert tally.warnings == {"cut_cells": 1}


def test_no_rows_still_make_a_sheet() -> None:
    content, tally = workbook(document(NUMBER, TEXT), [])

    assert values(content) == [("id", "note")]
    assert tally.rows == 0


def test_headers_are_texts() -> None:
    names = ["=1+1", 'say "hi" & <go>', "two\nlines", "+x", "select", "\x01", "_x0041_", " "]
    columns = [Column(name, "text", "text", Kind.TEXT) for name in names]
    content, _ = workbook(document(*columns), [["1"] * len(names)])

    assert by_rust(content)[0] == tuple(names)
    sheet = load_workbook(io.BytesIO(content)).worksheets[0]
    assert [cell.data_type for cell in sheet[1]] == ["s"] * len(names)


def test_references_count_up_over_chunks_and_digits() -> None:
    rows = [[str(number), None if number % 7 else "seven"] for number in range(1_234)]
    content, tally = workbook(document(NUMBER, TEXT), rows, chunk=77)

    with ZipFile(io.BytesIO(content)) as archive:
        sheet = ElementTree.fromstring(archive.read("xl/worksheets/sheet1.xml"))
    found = [element for element in sheet.iter() if element.tag.endswith("}row")]
    assert [row.get("r") for row in found] == [str(number) for number in range(1, 1_236)]
    for row in found[1:]:
        assert [cell.get("r") for cell in row] == [f"A{row.get('r')}", f"B{row.get('r')}"][: len(row)]
    assert tally.rows == 1_234


@pytest.mark.parametrize(("width", "count"), [(300, 12), (30, 102)])
def test_references_of_wide_rows_count_up_over_their_digits(width: int, count: int) -> None:
    """The wider the rows, the fewer of their digits are prepared: one of 300 columns, two of 30."""
    columns = tuple(Column(f"c{index}", "text", "text", Kind.TEXT) for index in range(width))
    rows = [[f"{row}.{index}" for index in range(width)] for row in range(count)]
    content, _ = workbook(document(*columns), rows, chunk=4)

    assert [list(row) for row in values(content)[1:]] == rows


def test_too_many_columns_are_rejected() -> None:
    columns = tuple(Column(f"c{index}", "text", "text", Kind.TEXT) for index in range(16_385))

    with pytest.raises(Rejected, match="16,384 columns"):
        ExcelFormat().copy_select(columns, Options())


@pytest.mark.parametrize(("count", "sheets"), [(9, [9]), (10, [9, 1]), (18, [9, 9]), (25, [9, 9, 7])])
def test_rows_roll_over_to_further_sheets(count: int, sheets: list[int]) -> None:
    rows = [[str(number), f"row {number}"] for number in range(count)]
    content, tally = workbook(document(NUMBER, TEXT), rows, chunk=4, last_row=10)

    book = load_workbook(io.BytesIO(content))
    assert book.sheetnames == ["ledger", "ledger (2)", "ledger (3)"][: len(sheets)]
    assert [sheet.auto_filter.ref for sheet in book] == [f"A1:B{number + 1}" for number in sheets]
    assert [sheet.freeze_panes for sheet in book] == ["A2"] * len(sheets)
    read = [list(sheet.iter_rows(values_only=True)) for sheet in book]
    assert all(part[0] == ("id", "note") for part in read)
    assert [row for part in read for row in part[1:]] == [
        (number, f"row {number}") for number in range(count)
    ]
    assert [len(by_rust(content, sheet)) - 1 for sheet in range(len(sheets))] == sheets
    assert tally.rows == count


@pytest.mark.parametrize(
    ("dataset", "titles"),
    [
        ("history", ["history (2)", "history (2) (2)"]),
        ("History", ["History (2)", "History (2) (2)"]),
        ("'a'", ["_a_", "_a_ (2)"]),
    ],
)
def test_no_sheet_has_a_title_that_excel_refuses(dataset: str, titles: list[str]) -> None:
    """Excel calls a workbook with a sheet ``History`` damaged, in any case of letters."""
    facts = Document(dataset, (TEXT,), Options(), AS_OF)
    content, _ = workbook(facts, [["a"], ["b"]], last_row=2)
    assert load_workbook(io.BytesIO(content)).sheetnames == titles


def test_the_same_rows_make_the_same_file() -> None:
    doc = document(NUMBER, filters={"kind": "proof", "note": "\x01"})
    first, _ = workbook(doc, [["1"]])
    second, _ = workbook(doc, [["1"]])

    assert first == second
    properties = load_workbook(io.BytesIO(first)).properties
    assert (properties.title, properties.creator) == ("ledger", "streaming-exporter")
    assert properties.created == properties.modified == AS_OF.replace(tzinfo=None)
    assert "proof" in properties.description


def test_rows_are_written_as_they_come() -> None:
    """The archive grows while the source is still read."""
    read = 0

    def chunks() -> Iterator[bytes]:
        nonlocal read
        source = Random(1)  # numbers that compression makes no smaller than half
        for number in range(100):
            read = number
            yield copied([[str(number), source.randbytes(2_000).hex()] for _ in range(10)])

    size = 0
    for piece in ExcelFormat().frame(chunks(), document(NUMBER, TEXT), Tally()):
        size += len(piece)
        if size > 100_000:
            break
    assert read < 90


PLAIN = st.text(st.characters(codec="utf-8", exclude_characters="\0\ufffe\uffff"), max_size=12)


ROWS = st.tuples(st.none() | PLAIN, st.none() | st.integers(0, 10**15 - 1), PLAIN)


# A workbook takes far longer than a row, so each has many rows.
@settings(deadline=None, max_examples=3 * settings().max_examples // 10)
@given(st.just([]) | st.lists(ROWS, max_size=12) | st.lists(ROWS, min_size=40, max_size=60))
@example([])
@example([("", None, "")])
def test_any_text_comes_back(rows: list[tuple[str | None, int | None, str]]) -> None:
    """calamine decodes the escapes, so it returns control characters too."""
    rendered = [
        [str(index), one, None if number is None else str(number), two]
        for index, (one, number, two) in enumerate(rows)
    ]
    content, tally = workbook(document(NUMBER, TEXT, NUMBER, TEXT), rendered, chunk=5)

    expected = [[value or None for value in row] for row in rendered]
    assert [[value or None for value in row] for row in by_rust(content)[1:]] == expected
    assert tally.rows == len(rows)


def test_the_statement_renders_values_by_kind() -> None:
    columns = [NUMBER, AMOUNT, FLAG, DATE, MOMENT, CLOCK, TEXT]
    copy_select = ExcelFormat().copy_select(columns, Options())

    sql = render(copy_select.select)
    assert "date_part('epoch', " in sql
    assert "/ 86400" in sql
    assert "\"day\" - date '1899-12-30'" in sql
    assert '"note"' in sql
    assert copy_select.copy == {"format": "csv", "delimiter": "\x02", "quote": "\x01"}


@pytest.mark.parametrize("place", ["name", "title", "label", "filter", "bundle"])
def test_no_text_of_a_document_damages_the_workbook(place: str) -> None:
    """XML has no such characters, whichever part they are in: title, properties, header, captions."""
    text = "a\ufffe\uffff\x01\x0b\x1f\r\x85\ufdd0\U0001ffffb"
    column = Column("note", "text", "text", Kind.TEXT, caption=text if place == "label" else "Note")
    more: dict[str, Any] = {place: text} if place in ("name", "title") else {}
    filters = {"note": text} if place == "filter" else {}
    doc = Document("ledger", (column,), Options(headers="labels"), AS_OF, filters=filters, **more)
    if place == "bundle":
        book = SectionedWorkbook(
            [doc], Overview(text, "Overview", [text, "sheets"], lambda _: [[text, text]]), 1_048_576
        )
        archive, tally = Archive(AS_OF), Tally()
        written = [*book.begin(archive), *book.write(0, doc, iter([copied([["x"]])]), archive, tally)]
        content = b"".join([*written, *book.rest(archive)])
    else:
        content, _ = workbook(doc, [["x"]])
        assert values(content)[1:] == [("x",)]
    values(content)
    assert by_rust(content, 1 if place == "bundle" else 0)[-1] == ("x",)
    with ZipFile(io.BytesIO(content)) as zipped:
        title = ElementTree.fromstring(zipped.read("docProps/core.xml")).findtext(
            "{http://purl.org/dc/elements/1.1/}title"
        )
    assert title is not None
    assert title[:1] + title[-1:] == ("ab" if place in ("name", "title", "bundle") else "lr")
