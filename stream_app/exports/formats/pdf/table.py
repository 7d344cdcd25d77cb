"""Distributes the rows of a table to pages."""

from collections.abc import Iterator, Sequence
from itertools import repeat

from stream_app.exports.formats.pdf.file import LINE, ROW
from stream_app.exports.formats.pdf.fonts import Fonts
from stream_app.exports.formats.pdf.layout import Grid
from stream_app.exports.formats.pdf.page import GAP, PagePainter, WrappedRows
from stream_app.exports.formats.pdf.text import WrapCache

TALL = 12
"""A row with more lines can be divided between pages, at multiples of this number of lines."""

PIECES = 100
"""Pieces of such a row that are made at a time: a row can have many lines, and a table many columns."""


class Paginator:
    """Collects rows until they fill a page, and then draws the page, once for each group of columns."""

    def __init__(self, grid: Grid, fonts: Fonts, painter: PagePainter) -> None:
        self._grid = grid
        self._painter = painter
        self._wrapped = [WrapCache(fonts, grid.units(number)) for number in range(len(grid.widths))]
        self._waiting = WrappedRows.of(len(grid.widths))
        self._dark = False

    def add(self, columns: Sequence[Sequence[str]]) -> Iterator[None]:
        """Add rows, given as the cells of each column. Yields whenever pages can be drawn."""
        cells = [
            list(map(known.__getitem__, column)) for known, column in zip(self._wrapped, columns, strict=True)
        ]
        counts = [list(map(str.count, column, repeat(LINE))) for column in cells]
        heights = (
            [1 + more for more in map(max, *counts)] if len(counts) > 1 else [1 + more for more in counts[0]]
        )
        if max(heights) <= TALL:  # true for most rows
            yield from self._add(cells, counts, heights)
            return
        start = 0
        for tall in (number for number, height in enumerate(heights) if height > TALL):
            part = slice(start, tall)
            yield from self._add(
                [column[part] for column in cells], [column[part] for column in counts], heights[part]
            )
            yield from self._add_tall([column[tall] for column in cells], heights[tall])
            start = tall + 1
        part = slice(start, None)
        yield from self._add(
            [column[part] for column in cells], [column[part] for column in counts], heights[part]
        )

    def _add(self, cells: list[list[str]], counts: list[list[int]], heights: list[int]) -> Iterator[None]:
        """Add rows that are not divided between pages. ``counts`` are the line breaks of each cell."""
        padded = [
            [
                lines + LINE * (height - count - 1)
                for lines, count, height in zip(column, more, heights, strict=True)
            ]
            for column, more in zip(cells, counts, strict=True)
        ]
        shades = [bool(number % 2) ^ self._dark for number in range(len(heights))]
        self._dark ^= bool(len(heights) % 2)
        self._waiting.extend(WrappedRows(padded, heights, [ROW] * len(heights), shades))
        self._paint_full_pages()
        yield

    def _add_tall(self, cells: list[str], height: int) -> Iterator[None]:
        """Add a row in pieces for different pages. Only some pieces are in memory at a time."""
        lines = [cell.split(LINE) for cell in cells]
        for start in range(0, height, TALL * PIECES):
            starts = range(start, min(start + TALL * PIECES, height), TALL)
            heights = [min(TALL, height - first) for first in starts]
            pieces = [
                [
                    _piece(column[first : first + TALL], size)
                    for first, size in zip(starts, heights, strict=True)
                ]
                for column in lines
            ]
            ends = [ROW if first + TALL >= height else LINE for first in starts]
            self._waiting.extend(WrappedRows(pieces, heights, ends, [self._dark] * len(starts)))
            self._paint_full_pages()
            yield
        self._dark = not self._dark

    def finish(self) -> None:
        """Draw the last page. A table without rows also has a page."""
        if self._waiting.heights or not self._painter.pages:
            self._painter.paint(self._waiting)

    def _paint_full_pages(self) -> None:
        leading = self._grid.leading
        start, room = 0, self._painter.room
        for number, (height, end) in enumerate(zip(self._waiting.heights, self._waiting.ends, strict=True)):
            need = height * leading + (GAP if end == ROW else 0)
            if need > room and number > start:
                self._painter.paint(self._waiting.slice(start, number))
                start, room = number, self._painter.room
            room -= need
        self._waiting = self._waiting.slice(start, len(self._waiting.heights))


def _piece(lines: list[str], height: int) -> str:
    return LINE.join(lines) + LINE * (height - max(len(lines), 1))
