"""A team's own workbook as template."""

import io
from datetime import UTC, datetime
from pathlib import Path
from zipfile import ZipFile

import pytest
from openpyxl import Workbook, load_workbook
from openpyxl.drawing.image import Image
from openpyxl.styles import Font, PatternFill
from openpyxl.worksheet.table import Table
from PIL import Image as Picture

from stream_app.exports.columns import Column, Kind
from stream_app.exports.formats.base import Document, Tally
from stream_app.exports.formats.excel.format import ExcelFormat
from streaming_exporter.events import Options

COLUMNS = (
    Column("id", "bigint", "int8", Kind.INTEGER),
    Column("amount", "numeric(18,2)", "numeric", Kind.NUMERIC),
    Column("note", "text", "text", Kind.TEXT),
)
ROWS = b"".join(b"%d\x02%d.50\x02note %d\n" % (number, number, number) for number in range(20))


@pytest.fixture
def template(tmp_path: Path) -> Path:
    """A cover sheet, and a sheet with a logo, a title and captions in its fourth row."""
    book = Workbook()
    cover = book.worksheets[0]
    cover.title = "Cover"
    cover["B2"] = "Quarterly report"
    sheet = book.create_sheet("ledger")
    picture = io.BytesIO()
    Picture.new("RGB", (40, 20), "navy").save(picture, "png")
    sheet.add_image(Image(picture), "D1")
    sheet["A1"] = "All entries"
    sheet["A1"].font = Font(size=20)
    sheet.merge_cells("A1:C1")
    for column, caption in enumerate(("Number", "Amount (€)", "Remark"), 1):
        sheet.cell(4, column, caption).fill = PatternFill("solid", fgColor="00FF00")
    sheet["B5"].number_format = "#,##0.00 [$€-407]"
    sheet.column_dimensions["C"].width = 77
    sheet.row_dimensions[6].height = 33
    book.create_sheet("Notes")["A1"] = "=SUM(ledger!B:B)"
    path = tmp_path / "template.xlsx"
    book.save(path)
    return path


def filled(
    template: Path, *columns: Column, rows: bytes = ROWS, dataset: str = "ledger", last_row: int = 100
) -> bytes:
    document = Document(
        dataset, columns or COLUMNS, Options(), datetime(2026, 11, 24, tzinfo=UTC), template=template
    )
    return b"".join(ExcelFormat(last_row=last_row).frame(iter([rows]), document, Tally()))


def test_the_sheet_named_like_the_dataset_is_filled_below_its_header(template: Path) -> None:
    content = filled(template)

    book = load_workbook(io.BytesIO(content))
    assert book.sheetnames == ["Cover", "ledger", "Notes"]
    assert book["Cover"]["B2"].value == "Quarterly report"
    assert book["Notes"]["A1"].value == "=SUM(ledger!B:B)"
    sheet = book["ledger"]
    rows = list(sheet.iter_rows(values_only=True))
    assert rows[0] == ("All entries", None, None)
    assert rows[3] == ("Number", "Amount (€)", "Remark")
    assert rows[4:] == [(number, number + 0.5, f"note {number}") for number in range(20)]
    assert sheet["B9"].number_format == "#,##0.00 [$€-407]"
    assert sheet["A9"].number_format == "0"
    assert sheet["A4"].fill.fgColor.rgb == "0000FF00"
    assert sheet.column_dimensions["C"].width == 77
    assert sheet.auto_filter.ref == "A4:C24"
    assert [str(area) for area in sheet.merged_cells.ranges] == ["A1:C1"]
    with ZipFile(io.BytesIO(content)) as archive:
        assert archive.testzip() is None
        assert [name for name in archive.namelist() if name.endswith(".png")] == ["xl/media/image1.png"]


def test_further_sheets_stand_next_to_the_first(template: Path) -> None:
    book = load_workbook(io.BytesIO(filled(template, last_row=14)))

    assert book.sheetnames == ["Cover", "ledger", "ledger (2)", "Notes"]
    first, second = book["ledger"], book["ledger (2)"]
    assert [row[0] for row in second.iter_rows(values_only=True)] == [
        "All entries", None, None, "Number", *range(10, 20),
    ]  # fmt: skip
    assert second["B9"].number_format == "#,##0.00 [$€-407]"
    assert (first.auto_filter.ref, second.auto_filter.ref) == ("A4:C14", "A4:C14")


def test_captions_are_replaced_if_their_number_differs(template: Path) -> None:
    book = load_workbook(io.BytesIO(filled(template, COLUMNS[0], COLUMNS[2], rows=b"1\x02x\n")))

    rows = list(book["ledger"].iter_rows(min_row=4, values_only=True))
    assert [row[:2] for row in rows] == [("id", "note"), (1, "x")]


def test_a_template_without_a_sheet_of_that_name_or_captions(tmp_path: Path) -> None:
    path = tmp_path / "plain.xlsx"
    Workbook().save(path)
    book = load_workbook(io.BytesIO(filled(path)))

    assert book.sheetnames == ["Sheet"]
    assert next(book["Sheet"].iter_rows(values_only=True)) == ("id", "amount", "note")


@pytest.mark.parametrize(("rows", "end"), [(ROWS, 21), (b"", 2)])
def test_a_table_reaches_to_the_last_row(tmp_path: Path, rows: bytes, end: int) -> None:
    book = Workbook()
    book.worksheets[0].append(["Number", "Amount", "Remark"])
    book.worksheets[0].add_table(Table(displayName="Entries", ref="A1:C2"))
    path = tmp_path / "table.xlsx"
    book.save(path)

    sheet = load_workbook(io.BytesIO(filled(path, rows=rows))).worksheets[0]
    assert sheet.tables["Entries"].ref == f"A1:C{end}"
    assert sheet.tables["Entries"].autoFilter.ref == f"A1:C{end}"
    assert sheet.auto_filter.ref is None
