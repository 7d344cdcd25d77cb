"""The workbook around the rows, which openpyxl makes: a new one, or one from a template.

It depends on the rows only by the last row of each sheet, so it is built again when that row is known.
"""

import json
import re
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from io import BytesIO
from typing import Any, cast
from zipfile import ZipFile

from openpyxl import Workbook
from openpyxl.cell import Cell
from openpyxl.packaging.custom import StringProperty
from openpyxl.styles.cell_style import StyleArray
from openpyxl.utils import column_index_from_string, get_column_letter, range_boundaries
from openpyxl.worksheet.dimensions import ColumnDimension
from openpyxl.worksheet.filters import AutoFilter
from openpyxl.worksheet.table import Table, TableColumn
from openpyxl.worksheet.worksheet import Worksheet

from stream_app.datasets.excel_template import (
    column_positions,
    find_header_row,
    find_sheet,
    open_template,
    read_template,
)
from stream_app.exports.columns import Column, has_instants
from stream_app.exports.formats.base import Document
from stream_app.exports.formats.excel.below_header import Box, clear_below, print_to, printed_boxes
from stream_app.exports.formats.excel.number_formats import number_format_of
from stream_app.exports.formats.excel.rows import plain
from stream_app.exports.formats.excel.sheet_layout import (
    cell_alignment,
    is_wrapped,
    set_header_and_footer,
    set_page,
    set_widths,
    style_header,
    widths_of,
)
from stream_app.exports.formats.excel.sheet_titles import SheetTitles
from stream_app.exports.formats.file_words import FileWords
from stream_app.exports.formats.filter_words import FilterWords
from stream_app.messages.catalogue import text
from stream_app.text_style import TextStyle

CREATOR = "streaming-exporter"

_ZONE_PROPERTY = "timezone"
"""The own property of the workbook that names the time zone of its times."""

_DIMENSION = re.compile(rb"<dimension [^>]*>")


@dataclass(frozen=True, slots=True)
class WorkbookParts:
    """The files inside a workbook, by name. ``sheets`` are the names of the sheets that take rows."""

    content: Mapping[str, bytes]
    sheets: Sequence[str]

    def around_rows(self) -> tuple[bytes, bytes]:
        """Return the XML before the last sheet's rows, with an open header row, and the XML after them."""
        content = _DIMENSION.sub(b"", self.content[self.sheets[-1]], count=1)
        head, _, tail = content.partition(b"</row></sheetData>")
        head = head.replace(b"<is><t>", b'<is><t xml:space="preserve">')
        return head, b"</row></sheetData>" + tail


class WorkbookBuilder:
    """Builds the workbook of one document.

    Attributes:
        header: number of the header's row.
        styles: number of each column's style.
        wrapped: positions of the columns, from 1, whose texts are wrapped, and their widths in characters.
    """

    def __init__(self, document: Document, sample: Sequence[Sequence[bytes]] = ()) -> None:
        """Begin a workbook for ``document``. ``sample`` has the values of each column in the first rows."""
        self._document = document
        options = document.options
        self._style_of_texts = TextStyle.of(options.timezone, options.locale)
        self._words = FileWords.of(options)
        self._filters = FilterWords.of(document, self._style_of_texts, self._words).line(document.filters)
        self._widths = widths_of(document.columns, sample or [()] * len(document.columns))
        self._among_wrapped = any(map(is_wrapped, document.columns))
        self._is_laid_out = False
        self._made: tuple[tuple[int, ...], WorkbookParts] | None = None
        self._template = read_template(document.template) if document.template else None
        _, sheet = self._open()
        self.header = self._prepare(sheet)
        self.wrapped = (
            [
                (index, self._widths[index - 1])
                for index, item in enumerate(document.columns, 1)
                if is_wrapped(item)
            ]
            if self._is_laid_out
            else []
        )
        self.styles = [self.style(sheet, index, item) for index, item in enumerate(document.columns, 1)]

    def parts(self, last_rows: Sequence[int]) -> WorkbookParts:
        """Return the workbook with a sheet for each of ``last_rows``, the number of its last row."""
        wanted = tuple(last_rows)
        if self._made is None or self._made[0] != wanted:
            self._made = wanted, self._parts(wanted)
        return self._made[1]

    def _parts(self, last_rows: Sequence[int]) -> WorkbookParts:
        book, sheet = self._open()
        self._prepare(sheet)
        # Styles are created in the same order, so that their numbers stay the same.
        for index, item in enumerate(self._document.columns, 1):
            self.style(sheet, index, item)
        clear_below(sheet, self.header, len(self._document.columns))
        printed = printed_boxes(sheet)
        sheets = [sheet]
        for number in range(2, len(last_rows) + 1):
            another = book.copy_worksheet(sheet)
            another.title = f"{sheet.title[:24]} ({number})"
            another.freeze_panes = sheet.freeze_panes
            another.HeaderFooter = copy(sheet.HeaderFooter)
            another.print_title_cols = sheet.print_title_cols
            book.move_sheet(another, book.index(sheets[-1]) + 1 - book.index(another))
            sheets.append(another)
        for each, last_row in zip(sheets, last_rows, strict=True):
            self.limit(each, last_row)
            print_to(each, printed, self.header, last_row)
        return WorkbookParts(
            saved_parts(book),
            [
                f"xl/worksheets/sheet{number}.xml"
                for number, each in enumerate(book.worksheets, 1)
                if each in sheets
            ],
        )

    def _open(self) -> tuple[Workbook, Worksheet]:
        dataset = self._document.dataset
        if self._template is not None:
            book = open_template(self._template)
            sheet = find_sheet(book, dataset)
        else:
            book = Workbook()
            sheet = cast(Worksheet, book.active)
            sheet.title = SheetTitles().add(dataset)
        properties = book.properties
        properties.title = properties.title or plain(self._document.heading)
        zone = self._document.options.timezone
        if zone is not None:
            properties.subject = properties.subject or _sentence(
                text(self._words.language, "files.times_in", zone=zone)
            )
            own = cast(Any, book).custom_doc_props
            if _ZONE_PROPERTY in own.names:
                del own[_ZONE_PROPERTY]
            own.append(StringProperty(name=_ZONE_PROPERTY, value=zone))
        properties.creator = CREATOR
        properties.created = properties.modified = self._document.as_of.replace(tzinfo=None, microsecond=0)
        if self._document.filters:
            exact = json.dumps(self._document.filters, default=str, ensure_ascii=False)
            properties.description = plain(
                f"{text(self._words.language, 'files.filters', filters=self._filters)}\n{exact}"
            )
        return book, sheet

    def _prepare(self, sheet: Worksheet) -> int:
        """Prepare the header and return its row. A template's captions are moved to their columns."""
        columns = self._document.columns
        names = self._document.template_columns
        if self._template is not None and names:
            row = find_header_row(sheet, names, self._document.template_header)
            if row == 0:
                self.lay_out(sheet)
                return 1
            self._arrange(sheet, row)
            return row
        row = next((row for row in range(sheet.max_row, 0, -1) if _captions(sheet, row)), 0)
        if row == 0:
            self.lay_out(sheet)
        elif _captions(sheet, row) != len(columns):
            for index in range(len(columns) + 1, sheet.max_column + 1):
                sheet.cell(row, index).value = None
            model = sheet.cell(row, 1)
            for index, item in enumerate(columns, 1):
                caption = _caption(sheet, row, index, item)
                if not caption.has_style:
                    for part in ("font", "fill", "border", "alignment"):
                        setattr(caption, part, copy(getattr(model, part)))
        return row or 1

    def _arrange(self, sheet: Worksheet, row: int) -> None:
        """Move captions, styles and widths to the positions of the requested columns."""
        names = self._document.template_columns
        wanted = [item.name for item in self._document.columns]
        places = column_positions(sheet, row, names)
        if [places.get(name) for name in wanted] == list(range(1, len(names) + 1)):
            return
        lines = (row, row + 1)
        parts = {
            (line, index): _look(sheet.cell(line, index))
            for line in lines
            for index in range(1, len(names) + 1)
        }
        widths = _widths(sheet)
        for index in range(1, max(len(names), len(wanted)) + 1):
            item = self._document.columns[index - 1] if index <= len(wanted) else None
            place = places.get(item.name) if item is not None else None
            for line in lines:
                cell: Any = sheet.cell(line, index)
                if item is None:
                    cell.value, cell._style = None, StyleArray()
                elif place is not None:
                    cell.value, cell._style = parts[line, place][0], copy(parts[line, place][1])
                else:
                    cell._style = copy(parts[line, 1][1])
            if item is not None and place is None:
                _caption(sheet, row, index, item)
            letter = get_column_letter(index)
            sheet.column_dimensions.pop(letter, None)
            if place in widths:
                sheet.column_dimensions[letter] = ColumnDimension(
                    sheet, index=letter, width=widths[place][0], hidden=widths[place][1], customWidth=True
                )

    def lay_out(self, sheet: Worksheet) -> None:
        """Make the header, the widths and the pages of a sheet that no template lays out."""
        self._is_laid_out = True
        document, words, style = self._document, self._words, self._style_of_texts
        for index, item in enumerate(document.columns, 1):
            _caption(sheet, 1, index, item)
        style_header(sheet, 1, document.columns)
        set_widths(sheet, self._widths)
        sheet.freeze_panes = "A2"
        set_page(sheet, self._widths, document.options.locale)
        zone = document.options.timezone or "UTC"
        set_header_and_footer(
            sheet,
            title=document.heading,
            filters=self._filters,
            zone=text(words.language, "files.times_in", zone=zone)
            if any(map(has_instants, document.columns))
            else "",
            page=text(words.language, "files.page", number="&P", total="&N"),
            made=text(words.language, "files.as_of", time=style.moment(document.as_of, seconds=False)),
        )

    def style(self, sheet: Worksheet, index: int, item: Column) -> int:
        """Return the number of a column's style. A template can set it in the row below its header."""
        below = sheet.cell(self.header + 1, index)
        number_format = item.number_format or number_format_of(
            item, self._style_of_texts.rules, self._words.booleans
        )
        if number_format and below.number_format == "General":
            below.number_format = number_format
        if self._is_laid_out:
            below.alignment = cell_alignment(item, is_first=index == 1, among_wrapped=self._among_wrapped)
        return below.style_id

    def limit(self, sheet: Worksheet, last_row: int) -> None:
        """Extend the filter, or the template's table, to ``last_row``."""
        width = len(self._document.columns)
        for table in list(sheet.tables.values()):
            left, head, right, _ = cast(Box, range_boundaries(table.ref))
            own = len(self._document.template_columns) or right
            if head == self.header and (left, right) == (1, own):
                self._resize(sheet, table, last_row)
            elif head >= self.header:
                del sheet.tables[table.name]  # its cells are removed, or overwritten by rows
        if sheet.auto_filter.ref:
            sheet.auto_filter.filterColumn = []
        if not any(range_boundaries(table.ref)[1] == self.header for table in sheet.tables.values()):
            sheet.auto_filter.ref = f"A{self.header}:{get_column_letter(width)}{last_row}"
        sheet.print_title_rows = f"{self.header}:{self.header}"

    def _resize(self, sheet: Worksheet, table: Table, last_row: int) -> None:
        """Adapt a table to the columns of the file, and extend it to ``last_row``.

        A table must have at least one row. Its totals are removed, because rows overwrite them.
        """
        end = get_column_letter(len(self._document.columns))
        table.ref = f"A{self.header}:{end}{max(last_row, self.header + 1)}"
        captions = [
            str(sheet.cell(self.header, index + 1).value) for index in range(len(self._document.columns))
        ]
        if [column.name for column in table.tableColumns] != captions:
            known = {column.name: column for column in table.tableColumns}
            columns = []
            for number, caption in enumerate(captions, 1):
                column = copy(known[caption]) if caption in known else TableColumn(id=number, name=caption)
                column.id = number
                columns.append(column)
            table.tableColumns = columns
        for column in table.tableColumns:
            column.totalsRowFunction = column.totalsRowLabel = column.totalsRowFormula = None
            column.calculatedColumnFormula = None
        table.totalsRowCount = table.totalsRowShown = None
        table.sortState = None
        if table.autoFilter is not None:
            table.autoFilter = AutoFilter(ref=table.ref)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _look(cell: Any) -> tuple[Any, StyleArray]:
    """Return value and style of a cell. The library has no public access to the style."""
    return cell.value, copy(cell._style)


def _widths(sheet: Worksheet) -> dict[int, tuple[float, bool]]:
    """Return the width of each column that has one, and whether the column is hidden."""
    found = {}
    for letter, dimension in sheet.column_dimensions.items():
        first = dimension.min or column_index_from_string(letter)
        for index in range(first, (dimension.max or first) + 1):
            found[index] = (dimension.width, bool(dimension.hidden))
    return found


def _captions(sheet: Worksheet, row: int) -> int:
    return sum(cell.value is not None for cell in sheet[row])


def _caption(sheet: Worksheet, row: int, index: int, item: Column) -> Cell:
    caption = cast(Cell, sheet.cell(row, index))
    caption.value = plain(item.title)
    caption.data_type = "s"  # never a formula
    return caption


def saved_parts(book: Workbook) -> dict[str, bytes]:
    """Return the files inside a workbook, by name."""
    file = BytesIO()
    book.save(file)
    with ZipFile(file) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    core = "docProps/core.xml"
    created = book.properties.created
    # save() has set it to the current time, but the same rows must give the same file.
    content[core] = re.sub(
        rb"(<dcterms:modified[^>]*>)[^<]*", rb"\g<1>%bZ" % created.isoformat().encode(), content[core]
    )
    return content
