"""The layout of the table: paper, font size, widths of columns, and the columns of each page.

The paper is upright if all values fit on one line. Otherwise it is turned, and the widths are those with
which a usual row has the fewest lines: all columns get the room in which their values have this number of
lines.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter

from reportlab.lib import pagesizes

from stream_app.exports.columns import Column, Kind
from stream_app.exports.formats.pdf.fonts import Fonts
from stream_app.exports.formats.pdf.text import unescaped
from stream_app.exports.formats.pdf.typefaces import UNITS

MARGIN = 30.0
PADDING = 4.0
"""Points on both sides of a column's text."""

SIZES = (8.0, 7.0)
"""Font sizes. The larger one is used if the table fits."""

FLEXIBLE_LEAST, FLEXIBLE_MOST = 80.0, 400.0
"""Widths of a column of texts, in points: smallest (unless its texts are shorter), largest for one line."""

_ALIKE, _MARGIN = 1.25, 1.02
"""The longest value counts if it is at most this much longer than the usual one, with a small margin."""

_MEASURED = 4_000
"""Characters of a value that are measured."""

RIGHT = {Kind.INTEGER, Kind.NUMERIC, Kind.FLOAT}
_RIGID = {*RIGHT, Kind.BOOLEAN, Kind.DATE, Kind.TIME, Kind.TIMESTAMP, Kind.TIMESTAMPTZ}
MOST_LINES = 40
"""The most lines of a usual row that widths are tried for."""

_ROW_GAP = 0.35
"""Space between two rows, in lines."""

_WORD_LOSS = 0.6
"""The share of a word that stays free at the end of a line, because the word does not fit."""

_ONE_PAGE = 1.6
"""How much more paper a table can take if all of its columns are on one page."""

_USUAL = 0.9
"""A column is as wide as this share of its values needs."""

_MORE_DIGITS = 3
"""Room for this number of further digits, because later numbers can be longer than the first ones."""


@dataclass(frozen=True, slots=True)
class ColumnPlace:
    """A column on a page. ``left`` and ``width`` are those of its text, in points."""

    number: int
    left: float
    width: float
    right_aligned: bool


@dataclass(frozen=True, slots=True)
class Grid:
    """The layout of a table.

    Attributes:
        paper: width and height in points.
        size: font size in points.
        widths: width of each column's text in points.
        groups: the columns of each page; all pages of a group of rows have the same rows.
    """

    paper: tuple[float, float]
    size: float
    widths: tuple[float, ...]
    groups: tuple[tuple[ColumnPlace, ...], ...]

    @property
    def leading(self) -> float:
        """Distance of two lines, in points."""
        return self.size * 1.2

    def units(self, number: int) -> int:
        """Return the width of a column's text in the unit of fonts."""
        return round(self.widths[number] / self.size * UNITS)


def lay_out(
    columns: Sequence[Column],
    names: Sequence[str],
    sample: Sequence[Sequence[str]],
    fonts: Fonts,
    page_size: str,
) -> Grid:
    """Return the layout for ``columns``. ``names`` are their captions, ``sample`` has their first cells."""
    short, long = sorted(getattr(pagesizes, page_size))
    needs = [_Need.of(*parts, fonts) for parts in zip(columns, names, sample, strict=True)]
    for paper, size in (((short, long), SIZES[0]), ((long, short), SIZES[0]), ((long, short), SIZES[1])):
        room = paper[0] - 2 * MARGIN
        widths = [min(need.width(1, size), room) for need in needs]
        if sum(widths) <= room:
            groups = [list(range(len(columns)))]
            break
    else:
        size, widths, groups = _wrapped(needs, room)
    widths = _grown(groups, widths, needs, size, room)
    return Grid(
        paper,
        size,
        tuple(width - 2 * PADDING for width in widths),
        tuple(_places(group, widths, columns) for group in groups),
    )


@dataclass(frozen=True, slots=True)
class _Need:
    """The room that a column needs, in the unit of fonts.

    Attributes:
        rigid: width of a column whose values must not be wrapped, else 0.
        heading: width of its caption.
        usual: width of its usual value on one line, or of the value's longest line.
        word: width of a word of that value; of two letters of a value without spaces.
        breaks: line breaks in that value.
    """

    rigid: float
    heading: float
    usual: float
    word: float
    breaks: int

    @classmethod
    def of(cls, item: Column, name: str, cells: Sequence[str], fonts: Fonts) -> "_Need":
        """Measure the first cells of a column."""
        heading = fonts.measure(name)
        values = sorted(
            (max(map(fonts.measure, lines)), len(lines) - 1, lines)
            for lines in (unescaped(cell)[:_MEASURED].split("\n") for cell in cells if cell != "\\N")
        )
        if item.kind in _RIGID:
            growth = fonts.measure("0" * _MORE_DIGITS) if item.kind in RIGHT else 0
            return cls(max([heading, *(line + growth for line, _, _ in values[-1:])]), heading, 0, 0, 0)
        if not values or not values[-1][0]:
            return cls(0, heading, 0, 0, 0)
        usual, breaks, lines = values[int(len(values) * _USUAL)]
        longest, least = values[-1][0], FLEXIBLE_LEAST * UNITS / SIZES[0]
        # Values of about the same length, such as hashes, must not leave one letter for another line.
        needed = longest * _MARGIN if longest <= max(usual * _ALIKE, least) else usual
        line = max(lines, key=len)
        words = len(line.split()) if " " in line else len(line) // 2
        return cls(0, heading, needed, usual / max(words, 1), breaks)

    def width(self, lines: int, size: float) -> float:
        """Return the width, in points and with padding, in which a usual value has ``lines`` lines."""
        return self._units(lines) * size / UNITS + 2 * PADDING

    def _units(self, lines: int) -> float:
        if self.rigid:
            return self.rigid
        least, most = (points * UNITS / SIZES[0] for points in (FLEXIBLE_LEAST, FLEXIBLE_MOST))
        lines = max(1, lines - self.breaks)
        wrapped = (self.usual + (lines - 1) * self.word * _WORD_LOSS) / lines
        if lines == 1:
            wrapped = min(wrapped, most)
        return max(wrapped, min(max(self.heading, self.usual), least))


def _wrapped(needs: Sequence[_Need], room: float) -> tuple[float, list[float], list[list[int]]]:
    """Return the font size, the widths and the columns of each page that take the least paper.

    With more lines in a row its columns are narrower, and fewer pages beside each other are needed.
    """
    tried: list[tuple[float, float, list[float], list[list[int]]]] = []
    for lines in range(1, MOST_LINES + 1):
        for size in SIZES:
            widths = [min(need.width(lines, size), room) for need in needs]
            key = widths[0] if widths[0] <= room / 3 else 0.0
            if sum(widths) > room:
                widths[1:] = [min(width, room - key) for width in widths[1:]]
            groups = _groups(widths, room, has_key=key > 0)
            cost = len(groups) * (lines + _ROW_GAP) * size
            if len(groups) > 1:
                cost *= _ONE_PAGE
            tried.append((cost, size, widths, groups))
        if len(groups) == 1:
            break
    return min(tried, key=itemgetter(0))[1:]


def _groups(widths: Sequence[float], room: float, *, has_key: bool) -> list[list[int]]:
    """Distribute the columns to pages, in their order. The first column, the key, is on each page."""
    if sum(widths) <= room:
        return [list(range(len(widths)))]
    key = [0] if has_key else []
    groups = [[0]]
    taken = widths[0]
    for number in range(1, len(widths)):
        if taken + widths[number] > room:
            groups.append(list(key))
            taken = sum(widths[shared] for shared in key)
        groups[-1].append(number)
        taken += widths[number]
    return groups


def _grown(
    groups: Sequence[Sequence[int]],
    widths: Sequence[float],
    needs: Sequence[_Need],
    size: float,
    room: float,
) -> list[float]:
    """Return widths that fill a page: columns of long values share the rest, then all grow a little."""
    grown = list(widths)
    for group in groups:
        own = [number for number in group if number or len(groups) == 1]
        lacking = {number: max(0.0, needs[number].width(1, size) - grown[number]) for number in own}
        left = room - sum(grown[number] for number in group)
        share = min(1.0, left / (sum(lacking.values()) or 1.0))
        for number in own:
            grown[number] += lacking[number] * share
        left = room - sum(grown[number] for number in group)
        spread = min(1.5, 1 + max(0.0, left) / (sum(grown[number] for number in own) or 1.0))
        for number in own:
            grown[number] *= spread
    return grown


def _places(
    group: Sequence[int], widths: Sequence[float], columns: Sequence[Column]
) -> tuple[ColumnPlace, ...]:
    places = []
    left = MARGIN
    for number in group:
        right = columns[number].kind in RIGHT
        places.append(ColumnPlace(number, left + PADDING, widths[number] - 2 * PADDING, right))
        left += widths[number]
    return tuple(places)
