"""The look of a sheet that no template gives: header, widths of columns, and how it is printed."""

import re
from collections.abc import Sequence
from copy import copy
from math import ceil
from typing import Any
from unicodedata import east_asian_width

from openpyxl.styles import Alignment, PatternFill
from openpyxl.utils import get_column_letter
from openpyxl.worksheet.header_footer import HeaderFooterItem
from openpyxl.worksheet.page import PageMargins
from openpyxl.worksheet.properties import PageSetupProperties
from openpyxl.worksheet.worksheet import Worksheet

from stream_app.exports.columns import Column, Kind
from stream_app.exports.formats.excel.number_formats import shown_length
from stream_app.exports.formats.excel.rows import AS_TEXT, EMPTY, plain

SAMPLE_ROWS = 100
"""Rows that the widths are computed from."""

RIGHT = frozenset(
    {Kind.INTEGER, Kind.NUMERIC, Kind.FLOAT, Kind.DATE, Kind.TIME, Kind.TIMESTAMP, Kind.TIMESTAMPTZ}
)
"""Kinds whose values programs show at the right edge of a cell."""

_NUMBERS = frozenset({Kind.INTEGER, Kind.NUMERIC, Kind.FLOAT})
_FIXED = {
    Kind.BOOLEAN: 9,
    Kind.UUID: 39,
    Kind.DATE: 12,
    Kind.TIME: 10,
    Kind.TIMESTAMP: 20,
    Kind.TIMESTAMPTZ: 20,
}
"""Widths in characters of kinds whose values all have about the same length."""

_UNKNOWN = {Kind.INTEGER: 14, Kind.NUMERIC: 16, Kind.FLOAT: 16, Kind.JSON: 50}
"""Widths of other kinds without a row; 24 for texts."""

_WIDTH, _LEAST, _MOST = 24, 8, 60
ROOM, _ROOM_FOR_ARROW, _MORE_DIGITS = 3, 4, 3
"""Characters that a column is wider than a value, a caption, and the longest number of the first rows."""

_SLACK, _SLACK_OF_BYTES = 1.15, 1.35
"""How much wider a column is than its wrapped values need on equal lines. Base64 has wide letters, and
programs break its lines at signs."""

_USUAL = 0.9
"""A text column is as wide as this share of its values needs on one line. Longer values are wrapped."""

_ARROW_INDENT = 2
"""Keeps the button of the filter, at the right edge of the header, off the caption."""

_A4, _LETTER = (9, 8.27, 11.69), (1, 8.5, 11.0)
"""Numbers of paper sizes in a workbook, and their sides in inches."""

_LETTER_TERRITORIES = frozenset(
    ["BZ", "CA", "CL", "CO", "CR", "GT", "MX", "NI", "PA", "PH", "PR", "SV", "US", "VE"]
)
"""Where paper is US Letter, by Unicode's CLDR (``paperSize``)."""

_SIDE, _TOP, _EDGE = 0.4, 0.75, 0.3
"""Margins in inches: at the sides, above and below the table, and of header and footer."""

_PORTRAIT_SCALE, _LEAST_SCALE = 0.85, 0.5
"""A sheet is turned if it would be printed smaller than the first on upright paper. It is never printed
smaller than the second: then it is divided between pages side by side."""

MAX_HEADER = 255
"""Characters of a header or footer of a page. A workbook with more is reported as damaged."""


def is_wrapped(item: Column) -> bool:
    """Return whether long values of a column continue on further lines of their cell."""
    return item.kind not in RIGHT and item.kind not in (Kind.BOOLEAN, Kind.UUID, Kind.ENUM, Kind.INTERVAL)


def cell_alignment(item: Column, *, is_first: bool, among_wrapped: bool) -> Alignment:
    """Return the alignment of a column's cells.

    A number beyond 15 digits is a text, but it belongs to the right edge as the other numbers do. The indent
    keeps a text off the column before it.
    """
    vertical = "top" if among_wrapped else None
    if item.kind in RIGHT:
        return Alignment(horizontal="right", vertical=vertical)
    if item.kind is Kind.BOOLEAN:
        return Alignment(horizontal="center", vertical=vertical)
    wrap = is_wrapped(item) or None
    if is_first:
        return Alignment(vertical=vertical, wrap_text=wrap)
    return Alignment("left", vertical, wrap_text=wrap, indent=1)


def widths_of(columns: Sequence[Column], sample: Sequence[Sequence[bytes]]) -> list[float]:
    """Return the widths of columns in characters, from the values of each column in the first rows."""
    return [
        min(max(_width(item, values), len(item.title) + _ROOM_FOR_ARROW), _MOST)
        for item, values in zip(columns, sample, strict=True)
    ]


def _width(item: Column, values: Sequence[bytes]) -> float:
    if item.kind in _FIXED:
        return _FIXED[item.kind]
    if item.kind is Kind.ENUM and item.labels:
        return max(_length(label) for label in item.labels) + ROOM
    shown = [value for value in values if value and value != EMPTY]
    if not shown:
        return _UNKNOWN.get(item.kind, _WIDTH)
    if item.kind in _NUMBERS:
        longest = max(
            len(value) if value.startswith(AS_TEXT) else shown_length(item, value) for value in shown
        )
        return longest + _MORE_DIGITS + ROOM
    lengths = sorted(map(_longest_line, shown))
    usual = max(lengths[int(len(lengths) * _USUAL) if len(lengths) > 1 else 0], min(lengths[-1], _WIDTH))
    lines = max(1, ceil(usual / (_MOST - ROOM)))  # a value of line feeds only has lines without characters
    slack = 1.0 if lines == 1 else _SLACK_OF_BYTES if item.kind is Kind.BYTES else _SLACK
    return max(_LEAST, ceil(usual / lines * slack) + ROOM)


def _longest_line(value: bytes) -> int:
    """Return the length of the longest line of a value that is escaped for XML."""
    text = value.decode()
    if "&" in text:
        for entity, character in (
            ("&#10;", "\n"),
            ("&#13;", ""),
            ("&lt;", "<"),
            ("&gt;", ">"),
            ("&amp;", "&"),
        ):
            text = text.replace(entity, character)
    return max(map(_length, text.split("\n"))) if "\n" in text else _length(text)


def _length(text: str) -> int:
    """Return the width of a text in characters: those of East Asia are twice as wide."""
    if text.isascii():
        return len(text)
    return len(text) + sum(east_asian_width(character) in "WF" for character in text)


def style_header(sheet: Worksheet, row: int, columns: Sequence[Column]) -> None:
    """Give the captions in ``row`` the font of the sheet, and the alignment of the values below them."""
    font = copy(sheet.cell(row, 1).font)  # with the name and the size of the cells below
    font.bold, font.color = True, "FFFFFF"
    fill = PatternFill("solid", fgColor="1F3864")
    made: dict[tuple[str | None, float], Any] = {}
    for index, item in enumerate(columns, 1):
        caption: Any = sheet.cell(row, index)
        alignment = cell_alignment(item, is_first=index == 1, among_wrapped=False)
        indent = _ARROW_INDENT if item.kind in RIGHT else alignment.indent
        known = made.get((alignment.horizontal, indent))
        if known is None:
            caption.font, caption.fill = font, fill
            caption.alignment = Alignment(alignment.horizontal, "center", indent=indent)
            made[alignment.horizontal, indent] = caption._style
        else:  # each style takes the library long
            caption._style = copy(known)
    sheet.row_dimensions[row].height = 20


def set_widths(sheet: Worksheet, widths: Sequence[float]) -> None:
    """Set the widths of the first columns, in characters."""
    for index, width in enumerate(widths, 1):
        sheet.column_dimensions[get_column_letter(index)].width = width


def set_page(sheet: Worksheet, widths: Sequence[float], locale: str | None) -> None:
    """Set the paper: turned if the table is wide, and all columns on one page if they stay legible."""
    territory = re.split("[-_]", locale or "")[-1].upper()
    number, short, long = _LETTER if territory in _LETTER_TERRITORIES else _A4
    total = sum(map(_inches, widths))
    setup = sheet.page_setup
    is_wide = total * _PORTRAIT_SCALE > short - 2 * _SIDE
    setup.orientation = "landscape" if is_wide else "portrait"
    setup.paperSize = number
    room = (long if is_wide else short) - 2 * _SIDE
    setup.fitToWidth = max(1, ceil(total * _LEAST_SCALE / room))
    setup.fitToHeight = 0  # as many as the rows need
    sheet.sheet_properties.pageSetUpPr = PageSetupProperties(fitToPage=True)
    sheet.page_margins = PageMargins(
        left=_SIDE, right=_SIDE, top=_TOP, bottom=_TOP, header=_EDGE, footer=_EDGE
    )
    if setup.fitToWidth > 1 and _inches(widths[0]) * _LEAST_SCALE < room / 4:
        sheet.print_title_cols = "A:A"


def _inches(width: float) -> float:
    return (width * 7 + 5) / 96  # a digit of the standard font has seven pixels


def set_header_and_footer(
    sheet: Worksheet, *, title: str, filters: str, zone: str, page: str, made: str
) -> None:
    """Set what is printed on each page: title and filters above, zone, page number and time below.

    ``page`` has the codes ``&P`` and ``&N``. The other texts are shortened to what a workbook can have.
    """
    title = shortened(title, 80)
    header, footer = HeaderFooterItem(), HeaderFooterItem()
    header.left.text = f"&B{title}"
    if filters:
        header.right.text = shortened(filters, MAX_HEADER - len(title) - 10)
    footer.left.text = shortened(zone, 110) or None  # an empty part would hide the next one from readers
    footer.center.text = page
    footer.right.text = shortened(made, 80)
    sheet.HeaderFooter.oddHeader, sheet.HeaderFooter.oddFooter = header, footer


def shortened(text: str, most: int) -> str:
    """Return ``text`` for a header: with its ampersands doubled, and at most ``most`` characters long."""
    text = " ".join(plain(text).split())
    escaped = text.replace("&", "&&")
    while len(escaped) > most:
        text = text[: len(text) - max(1, (len(escaped) - most) // 2)].rstrip()
        escaped = text.replace("&", "&&") + "…"
    return escaped
