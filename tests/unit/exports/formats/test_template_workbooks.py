"""A template's own kind of workbook does not change what the rows mean, or whether the file can be opened."""

import io
import re
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
from openpyxl import Workbook, load_workbook
from openpyxl.utils.datetime import CALENDAR_MAC_1904, CALENDAR_WINDOWS_1900

from stream_app.datasets.excel_template import check_template
from stream_app.exports.columns import Column, Kind
from stream_app.exports.formats.base import Document, Tally
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
DATES = [
    (date(2026, 1, 1), datetime(2026, 1, 1, 18), time(12)),
    (date(1900, 3, 1), datetime(1900, 5, 28, 6), time(6)),
]


def template(folder: Path, epoch: datetime, suffix: str = ".xlsx") -> Path:
    """Make a template with a date above its captions, on a second sheet and below the captions."""
    book: Any = Workbook()
    book.epoch = epoch
    sheet = book.active
    sheet["A1"] = date(2026, 11, 28)
    for index, name in enumerate(NAMES, 1):
        sheet.cell(2, index, name)
    sheet["B3"] = date(2020, 2, 29)
    notes = book.create_sheet("Notes")
    notes["A1"], notes["A2"] = datetime(2026, 11, 28, 9, 30), 46023
    book.template = suffix == ".xltx"
    path = folder / f"orders{suffix}"
    book.save(path)
    return path


def filled(path: Path) -> bytes:
    check_template(path, "orders", NAMES, None)
    document = Document(
        "orders",
        COLUMNS,
        Options(),
        datetime(2026, 11, 28, tzinfo=UTC),
        template=path,
        template_columns=tuple(NAMES),
    )
    return b"".join(ExcelFormat().frame(iter([ROWS]), document, Tally()))


@pytest.mark.parametrize("epoch", [CALENDAR_WINDOWS_1900, CALENDAR_MAC_1904], ids=["1900", "1904"])
def test_dates_are_the_same_whichever_year_a_template_counts_from(tmp_path: Path, epoch: datetime) -> None:
    content = filled(template(tmp_path, epoch))

    book: Any = load_workbook(io.BytesIO(content))
    sheet = book.worksheets[0]
    assert sheet["A1"].value == datetime(2026, 11, 28)
    found = list(sheet.iter_rows(min_row=3, min_col=2, values_only=True))
    assert [(day.date(), moment, clock) for day, moment, clock in found] == DATES
    assert (book["Notes"]["A1"].value, book["Notes"]["A2"].value) == (datetime(2026, 11, 28, 9, 30), 46023)
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
