"""Rows of a table, cut into pages."""

from collections.abc import Sequence
from itertools import repeat

from stream_app.exports.formats.pdf_fonts import Fonts
from stream_app.exports.formats.pdf_grid import Grid
from stream_app.exports.formats.pdf_page import GAP, Painter
from stream_app.exports.formats.pdf_rows import Rows
from stream_app.exports.formats.pdf_text import LINE, ROW, Wrapped

TALL = 12
"""Lines that a row may have before it may be broken between pages, every so many lines."""


class Table:
    """Gathers rows until they fill a page, then has it painted, once for each group of columns."""

    def __init__(self, grid: Grid, fonts: Fonts, painter: Painter) -> None:
        self._grid = grid
        self._painter = painter
        self._wrapped = [Wrapped(fonts, grid.units(number)) for number in range(len(grid.widths))]
        self._waiting = Rows.of(len(grid.widths))
        self._dark = False

    def add(self, columns: Sequence[Sequence[str]]) -> None:
        """Add rows, given as the cells of each column."""
        cells = [
            list(map(known.__getitem__, column)) for known, column in zip(self._wrapped, columns, strict=True)
        ]
        counts = [list(map(str.count, column, repeat(LINE))) for column in cells]
        heights = (
            [1 + more for more in map(max, *counts)] if len(counts) > 1 else [1 + more for more in counts[0]]
        )
        rows = Rows.of(len(cells))
        rows.heights = heights
        rows.ends = [ROW] * len(heights)
        rows.shades = [bool(number % 2) ^ self._dark for number in range(len(heights))]
        self._dark ^= bool(len(heights) % 2)
        for number, (column, more) in enumerate(zip(cells, counts, strict=True)):
            rows.cells[number] = [
                lines + LINE * (height - count - 1)
                for lines, count, height in zip(column, more, heights, strict=True)
            ]
        self._waiting.extend(rows if max(heights) <= TALL else rows.broken(TALL))
        self._paint_full_pages()

    def finish(self) -> None:
        """Paint what is left; a table without rows still has a page."""
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
