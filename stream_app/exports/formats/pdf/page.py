"""Draws a page: its head, table and foot, as the operators of its content."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from math import inf
from operator import add

from stream_app.exports.formats.file_words import FileWords
from stream_app.exports.formats.pdf.file import LINE, NULL, ROW, PdfFile
from stream_app.exports.formats.pdf.fonts import Fonts
from stream_app.exports.formats.pdf.layout import MARGIN, PADDING, ColumnPlace, Grid
from stream_app.exports.formats.pdf.text import encoded, operators, painted, wrap
from stream_app.exports.formats.pdf.typefaces import UNITS
from stream_app.messages.catalogue import text
from stream_app.text_style import TextStyle

GAP = 3.0
"""Points between two rows."""

TITLE_SIZE, FACT_SIZE, RUNNING_SIZE = 15.0, 8.0, 7.0
FOOT = 18.0
"""Height of the page number above the lower margin, in points."""

INK, GREY, RULE, HEAD, SHADE = b".13", b".45", b".75", b".91", b".965"

_MARKS = {mark: mark.encode("utf-16-be") for mark in (LINE, ROW)}


@dataclass(frozen=True, slots=True)
class PageTexts:
    """The texts of the head, and the words of the rest. The fonts have all characters of the texts.

    ``facts`` ends with a separator, because the number of rows follows.
    """

    title: str
    facts: str
    filters: str
    names: tuple[str, ...]
    words: FileWords


@dataclass(slots=True)
class WrappedRows:
    """Rows whose texts are wrapped, column by column.

    Attributes:
        cells: the lines of each cell, for each column.
        heights: the number of lines of each row.
        ends: the mark after each row: ``ROW``, or ``LINE`` if its next piece follows.
        shades: whether each row has a dark background.
    """

    cells: list[list[str]]
    heights: list[int] = field(default_factory=list)
    ends: list[str] = field(default_factory=list)
    shades: list[bool] = field(default_factory=list)

    @classmethod
    def of(cls, columns: int) -> "WrappedRows":
        """Return no rows, for a number of columns."""
        return cls([[] for _ in range(columns)])

    def extend(self, more: "WrappedRows") -> None:
        """Add rows at the end."""
        for column, added in zip(self.cells, more.cells, strict=True):
            column.extend(added)
        self.heights.extend(more.heights)
        self.ends.extend(more.ends)
        self.shades.extend(more.shades)

    def slice(self, start: int, end: int) -> "WrappedRows":
        """Return the rows from ``start`` up to ``end``, which is left out."""
        return WrappedRows(
            [column[start:end] for column in self.cells],
            self.heights[start:end],
            self.ends[start:end],
            self.shades[start:end],
        )


class PagePainter:
    """Draws pages into a file."""

    def __init__(self, file: PdfFile, fonts: Fonts, grid: Grid, words: PageTexts, style: TextStyle) -> None:
        self._file, self._fonts, self._grid, self._words, self._style = file, fonts, grid, words, style
        self.pages = 0
        fonts.admit(style.number(1_000_000))  # the separator
        fonts.admit(
            self._page_text() + self._columns_text("", "", "") + self._rows_text(0) + self._rows_text(1)
        )
        self._resources, self._total, self._count = file.reserve(), file.reserve(), file.reserve()
        self._names = [wrap(name, grid.units(number), fonts) for number, name in enumerate(words.names)]
        self._name_lines = 1 + max(name.count(LINE) for name in self._names)
        self._operators = operators(grid.leading, GAP)
        self._headings: dict[tuple[int, float], bytes] = {}
        self._null_width = fonts.measure("\N{EM DASH}")

    @property
    def room(self) -> float:
        """The height in points that rows can have on the next page."""
        return self._top() - self._head_height - MARGIN - FOOT

    @property
    def _head_height(self) -> float:
        return self._name_lines * self._grid.leading + GAP * 2

    def paint(self, rows: WrappedRows) -> None:
        """Draw one page for each group of columns, all with the same rows."""
        for group in range(len(self._grid.groups)):
            top = self._top()
            self.pages += 1
            content = b"".join((*self._head(), *self._table(rows, group, top), *self._foot(group)))
            self._file.page(content, self._grid.paper, self._resources)

    def finish(self, rows: int) -> Iterator[None]:
        """Write the objects that the pages refer to. Yields after each font, because fonts can be large."""
        size = RUNNING_SIZE
        form = b"/Type/XObject/Subtype/Form/BBox[0 -5 300 20]/Resources %d 0 R" % self._resources
        self._file.stream(self._text(self._style.number(self.pages), 0, 0, size, GREY), form, self._total)
        counted = self._rows_text(rows)
        self._file.stream(self._text(counted, 0, 0, FACT_SIZE, GREY), form, self._count)
        fonts = []
        for entry in self._fonts.embed(self._file):
            fonts.append(entry)
            yield
        entries = (b"".join(fonts), self._total, self._count)
        self._file.add(b"<</Font<<%b>>/XObject<</Total %d 0 R/Count %d 0 R>>>>" % entries, self._resources)

    # -- parts of a page ---------------------------------------------------------------------------------

    @property
    def _width(self) -> float:
        return self._grid.paper[0] - 2 * MARGIN

    def _top(self) -> float:
        """Return the upper edge of the table."""
        height = self._grid.paper[1] - MARGIN
        if self.pages:
            return height - RUNNING_SIZE - 8
        titles, facts = len(self._titles), 1 + len(self._filters)
        return height - titles * TITLE_SIZE * 1.2 - facts * FACT_SIZE * 1.4 - 8

    @cached_property
    def _titles(self) -> list[str]:
        return wrap(self._words.title, self._width / TITLE_SIZE * UNITS, self._fonts).split(LINE)

    @cached_property
    def _filters(self) -> list[str]:
        if not self._words.filters:
            return []
        room = self._width / FACT_SIZE * UNITS
        return wrap(self._words.filters, room, self._fonts, leftwards=False).split(
            LINE
        )  # filters are shown in English

    def _head(self) -> Iterator[bytes]:
        words = self._words
        y = self._grid.paper[1] - MARGIN
        if self.pages > 1:
            title = words.title if len(words.title) < 80 else words.title[:79] + "…"
            title = wrap(title, inf, self._fonts)
            yield self._text(title, MARGIN, y - RUNNING_SIZE, RUNNING_SIZE, GREY)
            return
        for line in self._titles:
            y -= TITLE_SIZE * 1.2
            yield self._text(line, MARGIN, y + 4, TITLE_SIZE, INK, bold=True)
        y -= FACT_SIZE * 1.4
        yield self._text(words.facts, MARGIN, y + 2, FACT_SIZE, GREY)
        after = self._fonts.measure(words.facts) * FACT_SIZE / UNITS
        yield b"q 1 0 0 1 %.2f %.2f cm/Count Do Q\n" % (MARGIN + after, y + 2)
        for line in self._filters:
            y -= FACT_SIZE * 1.4
            yield self._text(line, MARGIN, y + 2, FACT_SIZE, GREY)

    def _table(self, rows: WrappedRows, group: int, top: float) -> Iterator[bytes]:
        grid = self._grid
        places = grid.groups[group]
        left, right = MARGIN, places[-1].left + places[-1].width + PADDING
        body = top - self._head_height
        steps = [
            height * grid.leading + (GAP if end == ROW else 0)
            for height, end in zip(rows.heights, rows.ends, strict=True)
        ]
        bottoms = list(accumulate((-step for step in steps), initial=body))[1:]
        yield HEAD + b" g %.2f %.2f %.2f %.2f re f\n" % (left, body, right - left, self._head_height)
        yield SHADE + b" g "
        for bottom, step, shade in zip(bottoms, steps, rows.shades, strict=True):
            if shade:
                yield b"%.2f %.2f %.2f %.2f re " % (left, bottom, right - left, step)
        yield b"f " + RULE + b" G .5 w "
        for y in (top, body, *bottoms[-1:]):
            yield b"%.2f %.2f m %.2f %.2f l " % (left, y, right, y)
        yield b"S\n" + INK + b" g " + INK + b" G\n"
        yield self._heading(group, top)
        drop = GAP / 2 + grid.size * 0.95
        for place in places:
            yield self._column(rows.cells[place.number], rows.ends, place, body - drop)

    def _heading(self, group: int, top: float) -> bytes:
        """Return the captions of the columns. They are the same on all pages but the first."""
        known = self._headings.get((group, top))
        if known is None:
            y = top - GAP - self._grid.size * 0.9
            names = (
                self._column([self._names[place.number]], [ROW], place, y)
                for place in self._grid.groups[group]
            )
            known = self._headings[group, top] = b"q 2 Tr .2 w %bQ\n" % b"".join(names)
        return known

    def _foot(self, group: int) -> Iterator[bytes]:
        y = MARGIN
        page = self._page_text()
        yield self._text(page, MARGIN, y, RUNNING_SIZE, GREY)
        after = MARGIN + self._fonts.measure(page) * RUNNING_SIZE / UNITS
        yield b"q 1 0 0 1 %.2f %.2f cm/Total Do Q\n" % (after, y)
        if len(self._grid.groups) > 1:
            places = self._grid.groups[group]
            first = places[1 if group and len(places) > 1 and not places[0].number else 0].number + 1
            numbers = map(self._style.number, (first, places[-1].number + 1, len(self._names)))
            columns = self._columns_text(*numbers)
            width = self._fonts.measure(columns) * RUNNING_SIZE / UNITS
            yield self._text(columns, MARGIN + self._width - width, y, RUNNING_SIZE, GREY)

    def _page_text(self) -> str:
        """Return the text before the number of all pages, which is drawn last."""
        number = self._style.number(self.pages)
        return text(self._words.words.language, "files.page", number=number, total="")

    def _columns_text(self, first: str, last: str, number: str) -> str:
        return text(self._words.words.language, "files.columns", first=first, last=last, number=number)

    def _rows_text(self, rows: int) -> str:
        language, number = self._words.words.language, self._style.number(rows)
        return (
            text(language, "files.row", number=number)
            if rows == 1
            else text(language, "files.rows", number=number)
        )

    def _text(self, shown: str, x: float, y: float, size: float, grey: bytes, *, bold: bool = False) -> bytes:
        style = b"2 Tr %.2f w %b G " % (size / 40, grey) if bold else b""
        shaped: list[bytes] = []
        data = encoded(shown, self._fonts, shaped, size, self._width / size * UNITS)
        inside = painted(data, [], shaped)
        return b"q %b g BT %b/F0 %g Tf %.2f %.2f Td%b ET Q\n" % (grey, style, size, x, y, inside)

    def _column(self, cells: list[str], ends: list[str], place: ColumnPlace, y: float) -> bytes:
        """Return one text object for all cells of a column."""
        grid = self._grid
        shaped: list[bytes] = []
        if place.right_aligned and cells:
            data = self._right_aligned(cells, ends, place, shaped)
        else:
            room = grid.units(place.number)
            data = encoded("".join(map(add, cells, ends)), self._fonts, shaped, grid.size, room)
        start = (grid.size, grid.leading, place.left, y)
        return b"BT/F0 %g Tf %.2f TL %.2f %.2f Td%b ET\n" % (*start, painted(data, self._operators, shaped))

    def _right_aligned(
        self, cells: list[str], ends: list[str], place: ColumnPlace, shaped: list[bytes]
    ) -> bytes:
        """Return the text with each line moved to the right edge. Spaces would be in text that users copy."""
        units = self._grid.units(place.number)

        def moved(line: str, data: bytes) -> bytes:
            used = self._null_width if line == NULL else self._fonts.measure(line)
            return b")Tj[%d]TJ(%b" % ((used - units) * 1000 / UNITS, data)

        def placed(cell: str, data: bytes) -> bytes:
            line = cell.rstrip(LINE)
            if LINE not in line:
                return moved(line, data)
            return _MARKS[LINE].join(map(moved, cell.split(LINE), data.split(_MARKS[LINE])))

        data = encoded(ROW.join(cells), self._fonts, shaped, self._grid.size)
        encoded_cells = data.split(_MARKS[ROW])
        return b"".join(
            placed(cell, data) + _MARKS[end]
            for cell, data, end in zip(cells, encoded_cells, ends, strict=True)
        )
