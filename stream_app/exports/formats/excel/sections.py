"""A workbook with the rows of several documents: an overview sheet, then the sheets of each document.

The overview is the first sheet, and the last one that is written: it has the numbers of rows.
"""

from collections.abc import Callable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import Any, cast

from openpyxl import Workbook
from openpyxl.styles import Alignment, Font, PatternFill
from openpyxl.worksheet.worksheet import Worksheet

from stream_app.exports.formats.base import Document, Tally
from stream_app.exports.formats.excel.archive import Archive
from stream_app.exports.formats.excel.format import FIRST_PARTS, SheetRows, markup_of
from stream_app.exports.formats.excel.row_heights import RowHeights
from stream_app.exports.formats.excel.rows import RowRenderer, plain
from stream_app.exports.formats.excel.sheet_layout import SAMPLE_ROWS
from stream_app.exports.formats.excel.sheet_titles import sheet_titles
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
    """The sheets of one document, with the numbers of their last rows."""

    document: Document
    builder: WorkbookBuilder
    last_rows: list[int] = field(default_factory=lambda: [1])


class SectionedWorkbook:
    """Builds the workbook around the rows. It is built again whenever a sheet begins or ends.

    Styles are made in the same order each time, so that their numbers in the rows stay valid.
    """

    def __init__(self, documents: Sequence[Document], overview: Overview, last_row: int) -> None:
        """Begin a workbook for ``documents``. A sheet has up to ``last_row`` rows."""
        self.sections = [_section(document) for document in documents]
        self._overview = overview
        self._last_row = last_row
        self._styles: list[list[int]] = []

    def titles(self) -> list[list[str]]:
        """Return the titles of each document's sheets."""
        names = [
            name if number == 1 else f"{name[:24]} ({number})"
            for section in self.sections
            for name in [section.document.dataset]
            for number in range(1, len(section.last_rows) + 1)
        ]
        # The overview first: its title does not depend on the number of sheets.
        found = iter(sheet_titles([self._overview.sheet, *names])[1:])
        return [[next(found) for _ in section.last_rows] for section in self.sections]

    def write(
        self, number: int, document: Document, chunks: Iterator[bytes], archive: Archive, tally: Tally
    ) -> Iterator[bytes]:
        """Yield the sheets of a document, whose rows are ``chunks``.

        Args:
            number: the number of the document, from 0.
            document: the document, now with its time.
            chunks: its rows.
            archive: the workbook's archive.
            tally: counts the rows.
        """
        rows_left = SheetRows(chunks, tally, len(document.columns))
        section = self.sections[number] = _section(document, rows_left.sample(SAMPLE_ROWS))
        rows_left.heights = RowHeights(section.builder.wrapped, len(document.columns) + 1)
        self.parts()
        rows_left.renderer = RowRenderer(
            [
                markup_of(item, style)
                for item, style in zip(document.columns, self._styles[number], strict=True)
            ]
        )
        while True:
            name = self._file_of(number)
            yield from archive.stream(name, self._sheet(rows_left, section, name))
            if not rows_left.has_more():
                return
            section.last_rows.append(1)

    def _sheet(self, rows_left: SheetRows, section: Section, name: str) -> Iterator[bytes]:
        head, _ = WorkbookParts(self.parts(), [name]).around_rows()
        yield head
        for xml, section.last_rows[-1] in rows_left.take(2, self._last_row):
            yield xml
        _, tail = WorkbookParts(self.parts(), [name]).around_rows()
        yield tail

    def _file_of(self, number: int) -> str:
        """Return the file of the last sheet of a document: it has those of the documents before it."""
        before = sum(len(section.last_rows) for section in self.sections[: number + 1])
        return f"xl/worksheets/sheet{before + 1}.xml"

    def rest(self, archive: Archive) -> Iterator[bytes]:
        """Yield what follows the sheets with rows: the overview, and the parts about all sheets."""
        count = sum(len(section.last_rows) for section in self.sections)
        written = {*FIRST_PARTS, *(f"xl/worksheets/sheet{number}.xml" for number in range(2, count + 2))}
        for name, content in self.parts().items():
            if name not in written:
                yield archive.add(name, content)
        yield archive.close()

    def parts(self) -> dict[str, bytes]:
        """Return the files inside the workbook, by name, with sheets that have a header row each."""
        book = Workbook()
        sheet = cast(Worksheet, book.active)
        titles = self.titles()
        self._lay_out(sheet, titles)
        self._styles = []
        first = self.sections[0].document
        for section, names in zip(self.sections, titles, strict=True):
            self._add(book, section, names)
        properties = book.properties
        properties.title, properties.creator = plain(self._overview.title), CREATOR
        properties.created = properties.modified = first.as_of.replace(tzinfo=None, microsecond=0)
        return saved_parts(book)

    def _add(self, book: Workbook, section: Section, titles: Sequence[str]) -> None:
        builder, columns = section.builder, section.document.columns
        sheet = cast(Worksheet, book.create_sheet(titles[0]))
        builder.lay_out(sheet)
        self._styles.append([builder.style(sheet, index, item) for index, item in enumerate(columns, 1)])
        sheet.delete_rows(2, sheet.max_row)
        for row in [row for row in sheet.row_dimensions if row > 1]:
            del sheet.row_dimensions[row]
        sheets = [sheet]
        for title in titles[1:]:
            another = book.copy_worksheet(sheet)
            another.title = title
            another.freeze_panes = sheet.freeze_panes
            another.HeaderFooter = copy(sheet.HeaderFooter)
            another.print_title_cols = sheet.print_title_cols
            sheets.append(another)
        for each, last_row in zip(sheets, section.last_rows, strict=True):
            builder.limit(each, last_row)

    def _lay_out(self, sheet: Worksheet, titles: Sequence[Sequence[str]]) -> None:
        """Fill the overview. Each cell has its style even while it is empty."""
        overview = self._overview
        sheet.title = sheet_titles([overview.sheet])[0]
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


def _section(document: Document, sample: Sequence[Sequence[bytes]] = ()) -> Section:
    return Section(document, WorkbookBuilder(document, sample))


def _write(sheet: Worksheet, row: int, index: int, value: Any) -> Any:
    cell: Any = sheet.cell(row, index)
    if isinstance(value, str):
        cell.value = plain(value)
        cell.data_type = "s"  # never a formula
    else:
        cell.value = value
    return cell
