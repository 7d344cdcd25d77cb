"""A workbook with the rows of several documents: its sheets, and the work for each of them."""

import io
import sys
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Any

import fastexcel
import pytest
from openpyxl import load_workbook

from stream_app.exports.formats.base import Document, Tally
from stream_app.exports.formats.excel.archive import Archive
from stream_app.exports.formats.excel.sections import Overview, SectionedWorkbook
from streaming_exporter.events import Options
from tests.unit.exports.formats.test_excel import AS_OF, MOMENT, NUMBER, TEXT, copied

COLUMNS = (NUMBER, TEXT, MOMENT)
ROWS: Sequence[Sequence[str | None]] = [("1", "a", "46350.25"), ("2", None, "46351.5")]


def overview(titles: Sequence[Sequence[str]]) -> Sequence[Sequence[Any]]:
    return [[number, ", ".join(names)] for number, names in enumerate(titles, 1)]


def workbook(documents: Sequence[Document], *, last_row: int = 1_048_576) -> bytes:
    book = SectionedWorkbook(documents, Overview("All", "Overview", ["n", "sheets"], overview), last_row)
    archive, tally = Archive(AS_OF), Tally()

    def chunks() -> Iterator[bytes]:
        yield from book.begin(archive)
        for number, document in enumerate(documents):
            yield from book.write(number, document, iter([copied(ROWS)]), archive, tally)
        yield from book.rest(archive)

    return b"".join(chunks())


def documents(count: int) -> list[Document]:
    return [Document(f"dataset {number}", COLUMNS, Options(), AS_OF) for number in range(count)]


def calls_for(count: int) -> int:
    """Return how many functions of Python are called for a workbook of ``count`` documents."""
    calls = 0

    def note(frame: FrameType, event: str, argument: object) -> None:
        nonlocal calls
        calls += event == "call"

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        workbook(documents(count))
    finally:
        sys.setprofile(before)
    return calls


def test_the_work_for_each_document_does_not_grow_with_their_number() -> None:
    calls_for(1)  # the first workbook of a process also reads the messages of the service
    few, some, many = (calls_for(count) for count in (2, 4, 8))
    assert (many - some) / (some - few) == pytest.approx(2, rel=0.05)


def test_values_have_the_styles_of_their_columns_in_each_sheet() -> None:
    """The styles of a sheet are numbered behind those of the sheets before it."""
    content = workbook(documents(3), last_row=2)
    book = load_workbook(io.BytesIO(content))
    names = [f"dataset {number}{mark}" for number in range(3) for mark in ("", " (2)")]
    assert book.sheetnames == ["Overview", *names]
    for sheet in book.worksheets[1:]:
        assert [cell.value for cell in sheet[1]] == ["id", "note", "at"]
        assert sheet["A1"].font.b
        assert not sheet["A2"].font.b
        assert "yy" in sheet["C2"].number_format
        assert sheet.auto_filter.ref == "A1:C2"
        assert sheet.print_title_rows == "$1:$1"
        assert sheet.freeze_panes == "A2"
    assert [row[1] for row in book["Overview"].iter_rows(min_row=4, values_only=True)] == [
        f"{name}, {name} (2)" for name in names[::2]
    ]
    assert fastexcel.read_excel(content).sheet_names == ["Overview", *names]
