"""A workbook with the rows of several documents: an overview sheet, then the sheets of each document.

The overview is the first sheet, and the last one that is written: it has the numbers of rows.
"""

from collections.abc import Callable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any, cast

from openpyxl import Workbook
from openpyxl.styles import Alignment, Font, PatternFill
from openpyxl.worksheet._writer import WorksheetWriter
from openpyxl.worksheet.worksheet import Worksheet

from stream_app.exports.formats.base import Document, Tally
from stream_app.exports.formats.excel.archive import Archive
from stream_app.exports.formats.excel.format import FIRST_PARTS, SheetRows, markup_of
from stream_app.exports.formats.excel.row_heights import RowHeights
from stream_app.exports.formats.excel.rows import RowRenderer, plain
from stream_app.exports.formats.excel.sheet_layout import SAMPLE_ROWS
from stream_app.exports.formats.excel.sheet_titles import SheetTitles
from stream_app.exports.formats.excel.workbook import (
    CREATOR,
    WorkbookBuilder,
    WorkbookParts,
    saved_parts,
)

OVERVIEW_WIDTHS = (32, 28, 14, 12, 24, 20, 60)
"""Widths of the columns of the overview, in characters."""


@dataclass(frozen=True, slots=True)
class Overview:
    """The texts of the overview sheet.

    Attributes:
        title: what stands above, and the title of the workbook.
        sheet: the title of the sheet.
        captions: the captions of its columns.
        rows: returns the cells of a line for each document, after the sheets' titles; ``None`` is empty.
    """

    title: str
    sheet: str
    captions: Sequence[str]
    rows: Callable[[Sequence[Sequence[str]]], Sequence[Sequence[Any]]]


@dataclass(slots=True)
class Section:
    """The sheets of one document: their titles, and their files in the archive."""

    document: Document
    titles: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)


class SectionedWorkbook:
    """Builds the workbook around the rows, sheet by sheet.

    All sheets are in one workbook of the library, in the order of their rows. Each is laid out once, when its
    rows begin. Its styles only follow those that are there, so the numbers in older rows stay valid, and the
    work for a sheet does not grow with the number of sheets.
    """

    def __init__(self, documents: Sequence[Document], overview: Overview, last_row: int) -> None:
        """Begin a workbook for ``documents``. A sheet has up to ``last_row`` rows."""
        self.sections = [Section(document) for document in documents]
        self._overview = overview
        self._last_row = last_row
        self._titles = SheetTitles()
        self._book = Workbook()
        self._first_sheet = cast(Worksheet, self._book.active)
        self._first_sheet.title = self._titles.add(overview.sheet)
        properties = self._book.properties
        properties.title, properties.creator = plain(overview.title), CREATOR
        created = documents[0].as_of.replace(tzinfo=None, microsecond=0)
        properties.created = properties.modified = created

    def begin(self, archive: Archive) -> Iterator[bytes]:
        """Yield the first parts of the archive, which do not depend on the sheets."""
        parts = saved_parts(self._book)
        for name in FIRST_PARTS:
            yield archive.add(name, parts[name])

    def write(
        self, number: int, document: Document, chunks: Iterator[bytes], archive: Archive, tally: Tally
    ) -> Iterator[bytes]:
        """Yield the sheets of a document, whose rows are ``chunks``. The documents come in their order.

        Args:
            number: the number of the document, from 0.
            document: the document, now with its time.
            chunks: its rows.
            archive: the workbook's archive.
            tally: counts the rows.
        """
        rows_left = SheetRows(chunks, tally, len(document.columns))
        builder = WorkbookBuilder(document, rows_left.sample(SAMPLE_ROWS))
        rows_left.heights = RowHeights(builder.wrapped, len(document.columns) + 1)
        section = self.sections[number] = Section(document)
        sheet, styles = self._first_of(section, builder)
        rows_left.renderer = RowRenderer(
            [markup_of(item, style) for item, style in zip(document.columns, styles, strict=True)]
        )
        while True:
            yield from archive.stream(section.files[-1], self._sheet(rows_left, sheet, builder))
            if not rows_left.has_more():
                return
            sheet = self._next_of(section, sheet)

    def _sheet(self, rows_left: SheetRows, sheet: Worksheet, builder: WorkbookBuilder) -> Iterator[bytes]:
        last_row = 1
        builder.limit(sheet, last_row)
        yield _around_rows(sheet)[0]
        for xml, number in rows_left.take(2, self._last_row):
            yield xml
            last_row = number
        builder.limit(sheet, last_row)
        yield _around_rows(sheet)[1]

    def rest(self, archive: Archive) -> Iterator[bytes]:
        """Yield what follows the sheets with rows: the overview, and the parts about all sheets."""
        self._lay_out(self._first_sheet, [section.titles for section in self.sections])
        written = {*FIRST_PARTS, *(name for section in self.sections for name in section.files)}
        for name, content in saved_parts(self._book).items():
            if name not in written:
                yield archive.add(name, content)
        yield archive.close()

    def _first_of(self, section: Section, builder: WorkbookBuilder) -> tuple[Worksheet, list[int]]:
        """Add the first sheet of a document, with its header; return it and the numbers of its styles."""
        sheet = cast(Worksheet, self._book.create_sheet())
        self._note(section, sheet)
        builder.lay_out(sheet)
        columns = section.document.columns
        styles = [builder.style(sheet, index, item) for index, item in enumerate(columns, 1)]
        sheet.delete_rows(2, sheet.max_row)
        for row in [row for row in sheet.row_dimensions if row > 1]:
            del sheet.row_dimensions[row]
        return sheet, styles

    def _next_of(self, section: Section, sheet: Worksheet) -> Worksheet:
        """Add a sheet like the one before."""
        another = self._book.copy_worksheet(sheet)
        self._note(section, another)
        another.freeze_panes = sheet.freeze_panes
        another.HeaderFooter = copy(sheet.HeaderFooter)
        another.print_title_cols = sheet.print_title_cols
        return another

    def _note(self, section: Section, sheet: Worksheet) -> None:
        """Note a new sheet, which is the last one, and give it its title."""
        name, number = section.document.dataset, len(section.titles) + 1
        sheet.title = self._titles.add(name if number == 1 else f"{name[:24]} ({number})")
        section.titles.append(sheet.title)
        section.files.append(f"xl/worksheets/sheet{len(self._book.worksheets)}.xml")

    def _lay_out(self, sheet: Worksheet, titles: Sequence[Sequence[str]]) -> None:
        """Fill the overview. Each cell has its style even while it is empty."""
        overview = self._overview
        _write(sheet, 1, 1, overview.title).font = Font(name="Calibri", size=14, bold=True)
        fill = PatternFill("solid", fgColor="1F3864")
        for index, caption in enumerate(overview.captions, 1):
            cell = _write(sheet, 3, index, caption)
            cell.font = Font(name="Calibri", size=11, bold=True, color="FFFFFF")
            cell.fill = fill
        wrapped = Alignment(vertical="top", wrap_text=True)
        for number, line in enumerate(overview.rows(titles), 4):
            for index, value in enumerate(line, 1):
                cell = _write(sheet, number, index, value)
                cell.alignment = wrapped
                if isinstance(value, int):
                    cell.number_format = "#,##0"
        for index, width in enumerate(OVERVIEW_WIDTHS, 1):
            sheet.column_dimensions[chr(ord("A") + index - 1)].width = width
        sheet.freeze_panes = "A4"
        sheet.page_setup.orientation = "landscape"


def _around_rows(sheet: Worksheet) -> tuple[bytes, bytes]:
    """Return the XML of a sheet before its rows and after them. No other sheet is written for it."""
    writer = WorksheetWriter(sheet, BytesIO())
    writer.write()
    return WorkbookParts({"": writer.read()}, [""]).around_rows()


def _write(sheet: Worksheet, row: int, index: int, value: Any) -> Any:
    cell: Any = sheet.cell(row, index)
    if isinstance(value, str):
        cell.value = plain(value)
        cell.data_type = "s"  # never a formula
    else:
        cell.value = value
    return cell
