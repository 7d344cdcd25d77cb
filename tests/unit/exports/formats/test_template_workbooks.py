"""A template's own kind of workbook does not change what the rows mean, or whether the file can be opened."""

import io
import re
from collections.abc import Callable
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import fastexcel
import pytest
from openpyxl import Workbook, load_workbook
from openpyxl.utils.datetime import CALENDAR_MAC_1904, CALENDAR_WINDOWS_1900
from openpyxl.worksheet.pagebreak import Break

from stream_app.datasets.excel_template import check_template
from stream_app.exports.columns import Column, Kind
from stream_app.exports.formats.base import Document, Tally
from stream_app.exports.formats.excel.below_header import clear_below
from stream_app.exports.formats.excel.format import ExcelFormat
from streaming_exporter.events import Options

COLUMNS = (
    Column("id", "bigint", "int8", Kind.INTEGER),
    Column("placed_on", "date", "date", Kind.DATE),
    Column("placed_at", "timestamp", "timestamp", Kind.TIMESTAMP),
    Column("at", "time", "time", Kind.TIME),
)
NAMES = [item.name for item in COLUMNS]
ROWS = b"1\x0246023\x0246023.75\x020.5\n2\x0261\x02149.25\x020.25\n"
TYPES = "[Content_Types].xml"
DATES = [
    (date(2026, 1, 1), datetime(2026, 1, 1, 18), time(12)),
    (date(1900, 3, 1), datetime(1900, 5, 28, 6), time(6)),
]


def template(
    folder: Path, epoch: datetime, suffix: str = ".xlsx", prepare: Callable[[Any], None] | None = None
) -> Path:
    """Make a template with a date above its captions, on a second sheet and below the captions.

    ``prepare`` changes its first sheet.
    """
    book: Any = Workbook()
    book.epoch = epoch
    sheet = book.active
    sheet["A1"] = date(2026, 11, 28)
    for index, name in enumerate(NAMES, 1):
        sheet.cell(2, index, name)
    sheet["B3"] = date(2020, 2, 29)
    notes = book.create_sheet("Notes")
    notes["A1"], notes["A2"] = datetime(2026, 11, 28, 9, 30), 46023
    book.template = suffix.startswith(".xlt")
    if prepare is not None:
        prepare(sheet)
    path = folder / f"orders{suffix}"
    book.save(path)
    return path


def filled(path: Path, *, rows: bytes = ROWS, last_row: int = 100) -> bytes:
    check_template(path, "orders", NAMES, None)
    document = Document(
        "orders",
        COLUMNS,
        Options(),
        datetime(2026, 11, 28, tzinfo=UTC),
        template=path,
        template_columns=tuple(NAMES),
    )
    return b"".join(ExcelFormat(last_row=last_row).frame(iter([rows]), document, Tally()))


@pytest.mark.parametrize("epoch", [CALENDAR_WINDOWS_1900, CALENDAR_MAC_1904], ids=["1900", "1904"])
def test_dates_are_the_same_whichever_year_a_template_counts_from(tmp_path: Path, epoch: datetime) -> None:
    content = filled(template(tmp_path, epoch))

    book: Any = load_workbook(io.BytesIO(content))
    sheet = book.worksheets[0]
    assert sheet["A1"].value == datetime(2026, 11, 28)
    found = list(sheet.iter_rows(min_row=3, min_col=2, values_only=True))
    assert [(day.date(), moment, clock) for day, moment, clock in found] == DATES
    assert (book["Notes"]["A1"].value, book["Notes"]["A2"].value) == (datetime(2026, 11, 28, 9, 30), 46023)
    reader = fastexcel.read_excel(content)
    rows = reader.load_sheet(0, header_row=1).to_arrow().to_pylist()
    assert [(row["placed_on"].date(), row["placed_at"]) for row in rows] == [
        (day, moment) for day, moment, _ in DATES
    ]
    with ZipFile(io.BytesIO(content)) as archive:
        workbook = archive.read("xl/workbook.xml")
        cells = archive.read("xl/worksheets/sheet1.xml")
        notes = archive.read("xl/worksheets/sheet2.xml")
    # The numbers themselves, which every program reads by the one flag of the workbook.
    assert not re.search(rb'date1904="(?!0|false)', workbook)
    assert [number for number in (b"46023", b"46023.75", b"46354") if b"<v>%b</v>" % number in cells] == [
        b"46023", b"46023.75", b"46354",
    ]  # fmt: skip
    assert b"<v>46354.395833" in notes


@pytest.mark.parametrize(
    ("areas", "last_row"),
    [(("A4:D4", "A5:B5", "D6:F9"), 100), (("B4:C200", "D4:D5"), 100), (("B4:C200",), 5)],
)
def test_nothing_below_the_captions_hides_values(
    tmp_path: Path, areas: tuple[str, ...], last_row: int
) -> None:
    def prepare(sheet: Any) -> None:
        sheet["A5"] = "Confidential"
        for area in ("A1:C1", "F1:G9", *areas):  # the second of them is beside the rows
            sheet.merge_cells(area)
        sheet.sheet_format.zeroHeight = True
        for row in (1, 3, 4):
            sheet.row_breaks.append(Break(id=row))

    path = template(tmp_path, CALENDAR_WINDOWS_1900, prepare=prepare)
    content = filled(path, rows=ROWS * 4, last_row=last_row)
    book: Any = load_workbook(io.BytesIO(content))
    sheets = [each for each in book.worksheets if each.title != "Notes"]
    found = [
        row for each in sheets for row in each.iter_rows(min_row=3, max_col=4, values_only=True) if any(row)
    ]
    assert [(number, day.date(), *others) for number, day, *others in found] == [
        (1, *DATES[0]),
        (2, *DATES[1]),
    ] * 4
    assert len(sheets) == (1 if last_row == 100 else 3)
    for each in sheets:
        assert sorted(str(area) for area in each.merged_cells.ranges) == ["A1:C1", "F1:G9"]
        assert [each.id for each in each.row_breaks.brk if each.id > 2] == []
    with ZipFile(io.BytesIO(content)) as archive:
        names = [name for name in archive.namelist() if name.startswith("xl/worksheets/sheet")]
        for name in names:
            xml = archive.read(name)
            assert b"zeroHeight" not in xml
            assert set(re.findall(rb'<mergeCell ref="([^"]*)"', xml)) <= {b"A1:C1", b"F1:G9"}


def test_a_merged_range_that_reaches_the_rows_is_cut_at_the_captions() -> None:
    sheet: Any = Workbook().active
    for area in ("A1:A9", "B2:C9", "D2:D9", "F2:F9"):
        sheet.merge_cells(area)
    clear_below(sheet, 2, 4)
    assert sorted(str(area) for area in sheet.merged_cells.ranges) == ["A1:A2", "B2:C2", "F2:F9"]
    assert sheet.max_row == 2


@pytest.mark.parametrize(
    ("area", "first", "second"),
    [
        (None, [], []),
        ("A2:D2", ["$A$2:$D$5"], ["$A$2:$D$4"]),
        ("A1:D1", ["$A$1:$D$1"], ["$A$1:$D$1"]),
        ("A4:D9", [], []),
        ("A1:B3,C1:D9,A7:B8", ["$A$1:$B$5", "$C$1:$D$5"], ["$A$1:$B$4", "$C$1:$D$4"]),
    ],
)
def test_the_print_area_reaches_to_the_last_row(
    tmp_path: Path, area: str | None, first: list[str], second: list[str]
) -> None:
    def prepare(sheet: Any) -> None:
        sheet.title = "orders, 'A1'"
        sheet.print_area = area

    path = template(tmp_path, CALENDAR_WINDOWS_1900, prepare=prepare)
    book: Any = load_workbook(
        io.BytesIO(filled(path, rows=ROWS * 2 + ROWS[: ROWS.index(b"\n") + 1], last_row=5))
    )
    found = [re.findall(r"![$A-Z\d:]+", str(each.print_area)) for each in book.worksheets[:2]]
    assert found == [[f"!{each}" for each in areas] for areas in (first, second)]
    empty: Any = load_workbook(io.BytesIO(filled(path, rows=b""))).worksheets[0]
    assert re.findall(r"![$A-Z\d:]+", str(empty.print_area)) == [
        f"!{each}".replace("$5", "$2") for each in first
    ]


@pytest.mark.parametrize("suffix", [".xlsx", ".xltx", ".xlsm", ".xltm"])
def test_the_file_is_a_workbook_whatever_the_template_is(tmp_path: Path, suffix: str) -> None:
    """A program opens a file whose type is not that of its name only after a warning, or not at all."""
    path = template(tmp_path, CALENDAR_WINDOWS_1900, suffix)
    if suffix.endswith("m"):
        plain = (
            b"officedocument.spreadsheetml.template"
            if suffix == ".xltm"
            else b"officedocument.spreadsheetml.sheet"
        )
        macros = b"ms-excel.template.macroEnabled" if suffix == ".xltm" else b"ms-excel.sheet.macroEnabled"
        with ZipFile(path) as archive:
            parts = {name: archive.read(name) for name in archive.namelist()}
        parts[TYPES] = parts[TYPES].replace(
            b"vnd.openxmlformats-" + plain + b".main", b"vnd." + macros + b".main"
        )
        assert macros in parts[TYPES]
        with ZipFile(path, "w") as archive:
            for name, content in parts.items():
                archive.writestr(name, content)

    with ZipFile(io.BytesIO(filled(path))) as archive:
        found = re.findall(rb'<Override[^>]*PartName="/xl/workbook.xml"[^>]*>', archive.read(TYPES))
        assert not [name for name in archive.namelist() if "vba" in name.lower()]
    assert [re.findall(rb'ContentType="([^"]*)"', each) for each in found] == [
        [b"application/vnd.openxmlformats-officedocument.spreadsheetml.sheet.main+xml"]
    ]
