"""The layout of the table: paper, font size, widths of columns, and the columns of each page."""

from collections.abc import Sequence
from dataclasses import dataclass

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

FLEXIBLE_LEAST, FLEXIBLE_MOST, COMFORTABLE = 80.0, 400.0, 160.0
"""Widths of a column of texts, in points: smallest (unless its texts are shorter), largest, comfortable."""

RIGHT = {Kind.INTEGER, Kind.NUMERIC, Kind.FLOAT}
_RIGID = {*RIGHT, Kind.BOOLEAN, Kind.DATE, Kind.TIME, Kind.TIMESTAMP, Kind.TIMESTAMPTZ, Kind.UUID}
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
    needs = [_need(*parts, fonts) for parts in zip(columns, names, sample, strict=True)]
    for paper, size in (((short, long), SIZES[0]), ((long, short), SIZES[0]), ((long, short), SIZES[1])):
        room = paper[0] - 2 * MARGIN
        wanted = [min(need * size / UNITS + 2 * PADDING, room) for need in needs]
        if sum(wanted) <= room:
            break
    least = [
        width if item.kind in _RIGID else min(width, FLEXIBLE_LEAST)
        for item, width in zip(columns, wanted, strict=True)
    ]
    groups = [list(range(len(columns)))]
    if sum(least) > room:
        key = least[0] if least[0] <= room / 3 else 0.0
        wanted[1:] = [min(width, room - key) for width in wanted[1:]]
        least[1:] = [
            min(max(low, COMFORTABLE), width) for low, width in zip(least[1:], wanted[1:], strict=True)
        ]
        groups = _groups(least, room, has_key=key > 0)
    widths = _widths(groups, least, wanted, room)
    return Grid(
        paper,
        size,
        tuple(width - 2 * PADDING for width in widths),
        tuple(_places(group, widths, columns) for group in groups),
    )


def _need(item: Column, name: str, cells: Sequence[str], fonts: Fonts) -> float:
    """Return the width that most values need on one line, or all values of kinds that must not be wrapped."""
    lines = sorted(
        max(map(fonts.measure, unescaped(cell)[:1000].split("\n"))) for cell in cells if cell != "\\N"
    )
    heading = fonts.measure(name)
    if item.kind in _RIGID:
        growth = fonts.measure("0" * _MORE_DIGITS) if item.kind in RIGHT else 0
        return max([heading, *(line + growth for line in lines[-1:])])
    usual, longest = (lines[int(len(lines) * 0.9)], lines[-1]) if lines else (0, 0)
    least, most = (points * UNITS / SIZES[0] for points in (FLEXIBLE_LEAST, FLEXIBLE_MOST))
    return max(min(max(heading, longest), least), min(usual, most))


def _groups(widths: Sequence[float], room: float, *, has_key: bool) -> list[list[int]]:
    """Distribute the columns to pages, in their order. The first column, the key, is on each page."""
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


def _widths(
    groups: Sequence[Sequence[int]], least: Sequence[float], wanted: Sequence[float], room: float
) -> list[float]:
    """Return widths that fill a page: columns that need more room share the rest, then all grow a little."""
    widths = list(least)
    for group in groups:
        own = [number for number in group if number or len(groups) == 1]
        lacking = {number: wanted[number] - widths[number] for number in own}
        left = room - sum(widths[number] for number in group)
        share = min(1.0, left / (sum(lacking.values()) or 1.0))
        for number in own:
            widths[number] += lacking[number] * share
        left = room - sum(widths[number] for number in group)
        spread = min(1.5, 1 + max(0.0, left) / (sum(widths[number] for number in own) or 1.0))
        for number in own:
            widths[number] *= spread
    return widths


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
