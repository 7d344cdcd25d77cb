"""Excel: PostgreSQL renders the values, openpyxl makes the workbook, rows are streamed into its sheets."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from sqlalchemy import select

from stream_app.exports.columns import Column, Kind
from stream_app.exports.formats.base import RAW_LINES, ROWS, CopySelect, Document, Format, Tally
from stream_app.exports.formats.blocks import BLOCK_BYTES
from stream_app.exports.formats.excel.archive import Archive
from stream_app.exports.formats.excel.row_heights import RowHeights
from stream_app.exports.formats.excel.rows import CellMarkup, RowRenderer, cells
from stream_app.exports.formats.excel.values import value_of
from streaming_exporter.errors import Rejected
from streaming_exporter.events import Options

if TYPE_CHECKING:
    from stream_app.exports.formats.excel.workbook import WorkbookBuilder, WorkbookParts

MAX_COLUMNS, MAX_ROWS = 16_384, 1_048_576

_NUMBERS = {Kind.INTEGER, Kind.NUMERIC, Kind.FLOAT, Kind.DATE, Kind.TIME, Kind.TIMESTAMP, Kind.TIMESTAMPTZ}
_WITHOUT_OUTER_SPACES = {Kind.UUID, Kind.BYTES, Kind.INTERVAL, Kind.ARRAY}
FIRST_PARTS = ("_rels/.rels", "docProps/core.xml", "xl/theme/theme1.xml")
"""Parts at the start of the archive, by which programs such as file(1) recognize a workbook."""


class ExcelFormat(Format):
    """The format ``excel``."""

    name = "excel"
    extension = "xlsx"
    media_type = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
    description = "Excel workbook with real dates and numbers"
    own_options = frozenset()

    def __init__(self, *, last_row: int = MAX_ROWS) -> None:
        """Create the format. A sheet has up to ``last_row`` rows."""
        self._last_row = last_row

    @property
    def last_row(self) -> int:
        """The last row that a sheet can have."""
        return self._last_row

    def copy_select(self, columns: Sequence[Column], options: Options) -> CopySelect:
        """Return one SQL column for each cell.

        Raises:
            Rejected: a sheet cannot have so many columns.
        """
        if len(columns) > MAX_COLUMNS:
            raise Rejected(
                f"a sheet can have {MAX_COLUMNS:,} columns, the export has {len(columns):,}; select fewer",
                field="columns",
                code="too_wide",
            )
        return CopySelect(select(*map(value_of, columns)).select_from(ROWS), RAW_LINES)

    def frame(self, chunks: Iterator[bytes], document: Document, tally: Tally) -> Iterator[bytes]:
        """Yield the archive: the sheets with their rows, then the parts that depend on all sheets."""
        # openpyxl is large, and the API makes no workbooks.
        from stream_app.exports.formats.excel.sheet_layout import SAMPLE_ROWS
        from stream_app.exports.formats.excel.workbook import WorkbookBuilder

        rows_left = SheetRows(chunks, tally, len(document.columns))
        book = WorkbookBuilder(document, rows_left.sample(SAMPLE_ROWS))
        rows_left.heights = RowHeights(book.wrapped, len(document.columns) + 1)
        rows_left.renderer = RowRenderer(
            [markup_of(item, style) for item, style in zip(document.columns, book.styles, strict=True)]
        )
        # A small file has small blocks, so that its size can be foreseen.
        archive = Archive(document.as_of, min(BLOCK_BYTES, (document.target_bytes or 2**40) // 32))
        last_rows = [book.header]
        parts = book.parts(last_rows)
        for name in FIRST_PARTS:
            yield archive.add(name, parts.content[name])
        yield from archive.stream(parts.sheets[-1], self._sheet(rows_left, book, parts, last_rows))
        while rows_left.has_more():
            last_rows.append(book.header)
            parts = book.parts(last_rows)
            yield from archive.stream(parts.sheets[-1], self._sheet(rows_left, book, parts, last_rows))
        parts = book.parts(last_rows)
        for name, content in parts.content.items():
            if name not in FIRST_PARTS and name not in parts.sheets:
                yield archive.add(name, content)
        yield archive.close()

    def _sheet(
        self, rows_left: "SheetRows", book: "WorkbookBuilder", parts: "WorkbookParts", last_rows: list[int]
    ) -> Iterator[bytes]:
        """Yield the XML of the last sheet of ``parts``, and set its last row in ``last_rows``."""
        head, _ = parts.around_rows()
        yield head
        for xml, last_rows[-1] in rows_left.take(book.header + 1, self._last_row):
            yield xml
        _, tail = book.parts(last_rows).around_rows()
        yield tail


SAMPLE_BYTES = 2**20
"""Bytes of the rows by which the widths of columns are chosen."""


class SheetRows:
    """Distributes the rows to sheets."""

    renderer: RowRenderer
    heights: RowHeights

    def __init__(self, chunks: Iterator[bytes], tally: Tally, columns: int) -> None:
        self._chunks = chunks
        self._tally = tally
        self._width = columns + 1
        self._values: list[bytes] = []
        self._quoted = False

    def has_more(self) -> bool:
        """Return whether there is another row. It can wait for the next chunk."""
        while not self._values:
            chunk = next(self._chunks, None)
            if chunk is None:
                return False
            if chunk:
                self._values, self._quoted = cells(chunk, self._tally)
        return True

    def sample(self, rows: int) -> list[list[bytes]]:
        """Return the values of each column in the first rows. They stay to be taken.

        They do not depend on the sizes of the chunks: they are as many as ``rows``, or fewer if these have
        more than :data:`SAMPLE_BYTES`.
        """
        values, count = self._values, rows * self._width
        while len(values) < count and sum(map(len, values)) < SAMPLE_BYTES:
            chunk = next(self._chunks, None)
            if chunk is None:
                break
            if chunk:
                more, quoted = cells(chunk, self._tally)
                values += more
                self._quoted = self._quoted or quoted
        taken = size = 0
        while taken < min(count, len(values)) and size < SAMPLE_BYTES:
            size += sum(map(len, values[taken : taken + self._width]))
            taken += self._width
        return [values[column : taken : self._width] for column in range(1, self._width)]

    def take(self, number: int, last: int) -> Iterator[tuple[bytes, int]]:
        """Yield the XML for rows ``number`` to ``last`` of a sheet, with the number of its last row."""
        width = self._width
        while number <= last and self.has_more():
            values = self._values[: (last + 1 - number) * width]
            self._values = self._values[len(values) :]
            self.heights.set(values, quoted=self._quoted)
            xml = self.renderer.render(values, number, quoted=self._quoted)
            count = len(values) // width
            self._tally.rows += count
            number += count
            yield xml, number - 1


def markup_of(item: Column, style: int) -> CellMarkup:
    """Return the markup of the cells of a column whose style has this number."""
    if item.kind in _NUMBERS:
        return CellMarkup.number(style)
    if item.kind is Kind.BOOLEAN:
        return CellMarkup.number(style, boolean=True)
    return CellMarkup.text(style, spaces=item.kind not in _WITHOUT_OUTER_SPACES)
