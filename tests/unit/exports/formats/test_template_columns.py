"""Captions of a template follow their columns (V3); tables (V13); templates that do not fit (V14)."""

import io
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import permutations
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
from openpyxl import Workbook, load_workbook
from openpyxl.styles import Font
from openpyxl.worksheet.table import Table, TableColumn

from stream_app.datasets.file import DatasetsFileError, load_datasets
from stream_app.exports.columns import Column, Kind
from stream_app.exports.formats.base import Document, Tally
from stream_app.exports.formats.excel.format import ExcelFormat
from streaming_exporter.errors import Rejected
from streaming_exporter.events import Options

COLUMNS = {
    "id": Column("id", "bigint", "int8", Kind.INTEGER),
    "total": Column("total", "numeric(18,2)", "numeric", Kind.NUMERIC),
    "placed_at": Column("placed_at", "date", "date", Kind.DATE),
    "note": Column("note", "text", "text", Kind.TEXT),
}
NAMES = tuple(COLUMNS)
CAPTIONS = ("No.", "Total EUR", "Placed on", "Remark")
VALUES = {"id": (b"7", 7), "total": (b"1.50", 1.5), "placed_at": (b"46000", 46000), "note": (b"x", "x")}
FONTS = dict(zip(NAMES, ("Arial", "Courier", "Georgia", "Verdana"), strict=True))
FORMATS = dict(zip(NAMES, ("000", "#,##0.00", "dd.mm.yyyy", "@"), strict=True))
WIDTHS = dict(zip(NAMES, (5.0, 15.0, 25.0, 35.0), strict=True))


def template(
    folder: Path, *, header: int = 4, captions: Sequence[str] = CAPTIONS, table: bool = True, note: str = ""
) -> Path:
    """Create a template: a title, captions with different fonts, and a row of styles."""
    book: Any = Workbook()
    sheet = book.active
    sheet["A1"] = "All orders"
    for index, (name, caption) in enumerate(zip(NAMES, captions, strict=False), 1):
        sheet.cell(header, index, caption).font = Font(name=FONTS[name])
        sheet.cell(header + 1, index).number_format = FORMATS[name]
        sheet.column_dimensions["ABCD"[index - 1]].width = WIDTHS[name]
    if note:
        sheet.cell(header + 1, 1).value = note
    if table:
        own: Any = Table(displayName="Orders", ref=f"A{header}:D{header + 2}", totalsRowCount=1)
        own._initialise_columns()
        for column, caption in zip(own.tableColumns, captions, strict=True):
            column.name = caption
        own.tableColumns[1].totalsRowFunction = "sum"
        sheet.add_table(own)
    path = folder / "template.xlsx"
    book.save(path)
    return path


def opened(content: bytes) -> Any:
    """Return the filled sheet."""
    return load_workbook(io.BytesIO(content)).active


def filled(path: Path, columns: Sequence[str], header: int | None = None) -> bytes:
    document = Document(
        "orders",
        tuple(COLUMNS[name] for name in columns),
        Options(),
        datetime(2026, 11, 24, tzinfo=UTC),
        template=path,
        template_header=header,
        template_columns=NAMES,
    )
    rows = b"\x02".join(VALUES[name][0] for name in columns) + b"\n"
    return b"".join(ExcelFormat().frame(iter([rows]), document, Tally()))


CHOICES = [choice for size in (1, 2, 3, 4) for choice in permutations(NAMES, size)]


@pytest.mark.parametrize("columns", [*CHOICES[::12], NAMES], ids="-".join)
def test_captions_styles_and_tables_follow_their_columns(tmp_path: Path, columns: tuple[str, ...]) -> None:
    """V3, V13: for any columns in any order, with a note below the captions."""
    content = filled(template(tmp_path, note="Confidential"), columns)
    sheet = opened(content)
    rows = list(sheet.iter_rows(min_row=4, values_only=True))
    captions = [CAPTIONS[NAMES.index(name)] for name in columns]
    assert [cell for cell in rows[0] if cell is not None] == captions
    assert sheet["A1"].value == "All orders"
    assert len(rows) == 2
    for index, name in enumerate(columns, 1):
        assert sheet.cell(4, index).font.name == FONTS[name]
        assert sheet.cell(5, index).number_format == FORMATS[name]
        assert sheet.column_dimensions["ABCD"[index - 1]].width == pytest.approx(WIDTHS[name], abs=0.01)
        if name != "placed_at":
            assert sheet.cell(5, index).value == VALUES[name][1]
    (table,) = sheet.tables.values()
    assert table.ref == f"A4:{'ABCD'[len(columns) - 1]}5"
    assert [column.name for column in table.tableColumns] == captions
    assert [column.id for column in table.tableColumns] == list(range(1, len(columns) + 1))
    assert table.totalsRowCount is None
    with ZipFile(io.BytesIO(content)) as archive:
        xml = archive.read("xl/tables/table1.xml").decode()
    assert f'<tableColumns count="{len(columns)}">' in xml


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 1, 0, 2)])
def test_captions_equal_to_names_can_be_in_any_order(tmp_path: Path, order: tuple[int, ...]) -> None:
    """V3: columns are found by name, not by position."""
    captions = [NAMES[place].upper() for place in order]
    sheet = opened(filled(template(tmp_path, captions=captions, table=False), NAMES))
    assert [cell.value for cell in sheet[4]] == [name.upper() for name in NAMES]
    assert [sheet.cell(4, index).font.name for index in (1, 2, 3, 4)] == [
        FONTS[NAMES[order.index(place)]] for place in range(4)
    ]


def test_sample_rows_below_the_captions_are_replaced(tmp_path: Path) -> None:
    path = template(tmp_path, table=False)
    book: Any = load_workbook(path)
    for index, text in enumerate(("1", "2", "3", "4"), 1):
        book.active.cell(5, index).value = text
    book.save(path)
    sheet = opened(filled(path, NAMES))
    assert [cell.value for cell in sheet[4]] == list(CAPTIONS)
    assert sheet.max_row == 5


def test_another_table_is_kept(tmp_path: Path) -> None:
    path = template(tmp_path, header=8)
    book: Any = load_workbook(path)
    other: Any = Table(displayName="Legend", ref="F1:G3")
    other._initialise_columns()
    other.tableColumns = [TableColumn(id=1, name="k"), TableColumn(id=2, name="v")]
    book.active["F1"], book.active["G1"] = "k", "v"
    book.active.add_table(other)
    book.save(path)
    sheet = opened(filled(path, ("note", "id"), header=8))
    found = {table.displayName: table.ref for table in sheet.tables.values()}
    assert found == {"Orders": "A8:B9", "Legend": "F1:G3"}


# --- when the datasets file is read


def datasets_file(folder: Path, entry: str) -> Path:
    path = folder / "datasets.toml"
    path.write_text(f'[datasets.orders]\ntable = "orders"\n{entry}\n')
    return path


LISTED = 'columns = ["id", "total", "placed_at", "note"]\ntemplate = "template.xlsx"'


def test_a_matching_template_is_accepted(tmp_path: Path) -> None:
    template(tmp_path, note="Confidential")
    assert load_datasets(datasets_file(tmp_path, LISTED)).datasets["orders"].template_header is None
    found = load_datasets(datasets_file(tmp_path, LISTED + "\ntemplate_header = 4")).datasets["orders"]
    assert found.template_header == 4


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ('template = "nowhere.xlsx"', r"'nowhere.xlsx' cannot be read: No such file"),
        ('template = "."', "cannot be read: Is a directory"),
        ('template = "datasets.toml"', "is not an Excel workbook"),
        (LISTED.replace('"note"', '"note", "more"'), "no row of 5 captions from column A to E"),
        (LISTED + "\ntemplate_header = 5", "template_header = 5: that row .* has 0 captions .* 4 columns"),
        (LISTED + "\ntemplate_header = 99", "template_header = 99"),
        ('template = "template.xlsx"\ntemplate_header = 2', "template_header = 2: .* no captions"),
        ("template_header = 2", "template_header: it needs a template"),
        (LISTED + "\ntemplate_header = 0", "expected at least 1"),
    ],
)
def test_a_template_that_does_not_fit_is_refused_when_the_datasets_file_is_read(
    tmp_path: Path, entry: str, reason: str
) -> None:
    """V13, V14: the error has the names of the file and of the entry, and the reason."""
    template(tmp_path)
    with pytest.raises(DatasetsFileError, match=reason) as raised:
        load_datasets(datasets_file(tmp_path, entry))
    assert re.search(r"datasets.toml:\d: datasets.orders.template", str(raised.value))


def test_two_possible_rows_of_captions_are_refused(tmp_path: Path) -> None:
    path = template(tmp_path, table=False)
    book: Any = load_workbook(path)
    for index in range(1, 5):
        book.active.cell(9, index).value = f"other {index}"
    book.save(path)
    with pytest.raises(DatasetsFileError, match=r"each of the rows 4, 9 .* template_header"):
        load_datasets(datasets_file(tmp_path, LISTED))
    with pytest.raises(Rejected, match="each of the rows 4, 9"):
        filled(path, NAMES)
    assert opened(filled(path, NAMES, header=4))["A4"].value == "No."


def test_a_template_that_is_removed_later_fails_the_job_with_its_name(tmp_path: Path) -> None:
    """V14: the error is not mapped as one of another part."""
    with pytest.raises(Rejected, match=r"the template 'gone.xlsx' cannot be read") as raised:
        filled(tmp_path / "gone.xlsx", NAMES)
    assert raised.value.code == "bad_template"
