"""Converts COPY's text to lines that fit their column, and lines to the operators of a page's content."""

import re
from bisect import bisect_right
from collections.abc import Callable, Iterable
from functools import partial
from io import StringIO
from itertools import accumulate, chain

from stream_app.exports.formats.base import Tally
from stream_app.exports.formats.pdf.file import LEFTWARDS, LINE, NULL, ROW, SHAPED, string
from stream_app.exports.formats.pdf.fonts import Fonts
from stream_app.exports.formats.pdf.typefaces import PER_MILLE, UNITS

WINDOW = 4_096
"""Characters that are wrapped at a time: many more than a line has."""

PART = 512 * 2**10
"""A text up to this length needs little memory for matches. A chunk of short rows is shorter."""

_PLAIN = bytes(range(0x20, 0x7F)) + b"\t\n"
_UNSEEN = re.compile(r"\\([bfv\\])")
_ESCAPED = re.compile(r"\\(r\\n|.)", re.DOTALL)
_MEANS = {"n": "\n", "r": "\n", "r\\n": "\n", "t": "    ", "\\": "\\"}
_UNSEEN_CODES = {"b": "\\\\u{8}", "f": "\\\\u{c}", "v": "\\\\u{b}"}


def columns_of(chunk: bytes, fonts: Fonts, tally: Tally) -> list[tuple[str, ...]]:
    """Return the cells of each column, still escaped by COPY, with characters that can be shown only."""
    text = chunk.decode()
    if strange := chunk.translate(None, _PLAIN):
        text = shown(text, strange.decode(), fonts, tally, "\\\\u{%x}")
    if any(unseen in chunk for unseen in (b"\\b", b"\\f", b"\\v")):
        text = _without_unseen(text, tally)
    return list(zip(*(line.split("\t") for line in text[:-1].split("\n")), strict=True))


def shown(text: str, strange: str, fonts: Fonts, tally: Tally, escape: str = "\\u{%x}") -> str:
    """Return ``text`` with those of the characters ``strange`` escaped that no font has."""
    unknown = fonts.admit(strange)
    if not unknown:
        return text
    found = re.compile("[" + re.escape("".join(unknown)) + "]")

    def replace(match: re.Match[str]) -> str:
        tally.warnings["replaced_characters"] += 1
        return escape % ord(match[0])

    return _substituted(found, replace, text)


def _without_unseen(text: str, tally: Tally) -> str:
    def replace(match: re.Match[str]) -> str:
        code = _UNSEEN_CODES.get(match[1])
        if code is None:
            return match[0]
        tally.warnings["replaced_characters"] += 1
        return code

    return _substituted(_UNSEEN, replace, text)


def _substituted(found: re.Pattern[str], replace: Callable[[re.Match[str]], str], text: str) -> str:
    """Return ``found.sub(replace, text)``, without its memory of 60 bytes for each match."""
    if len(text) <= PART:
        return found.sub(replace, text)
    result = StringIO()
    done = 0
    for match in found.finditer(text):
        result.write(text[done : match.start()])
        result.write(replace(match))
        done = match.end()
    result.write(text[done:])
    return result.getvalue()


def unescaped(cell: str) -> str:
    """Return the value that COPY wrote as ``cell``."""
    return _substituted(_ESCAPED, lambda match: _MEANS[match[1]], cell) if "\\" in cell else cell


class WrapCache(dict[str, str]):
    """A cache from COPY's text of a cell to its lines. It keeps short cells, which most columns repeat."""

    REMEMBERED = 4_096
    SHORT = 100

    def __init__(self, fonts: Fonts, width: float) -> None:
        self._fonts = fonts
        self._plain = fonts.plain
        self._width = width

    def __missing__(self, cell: str) -> str:
        if len(cell) <= WINDOW and cell.isascii() and "\\" not in cell:  # true for most cells
            widths = cell.encode().translate(self._plain)
            fits = sum(widths) <= self._width
            lines = cell if fits else "\n".join(_lines(cell, widths, self._width))
        else:
            lines = NULL if cell == "\\N" else wrap(unescaped(cell), self._width, self._fonts)
        if len(cell) <= self.SHORT:
            if len(self) >= self.REMEMBERED:
                self.clear()
            self[cell] = lines
        return lines


def wrap(text: str, width: float, fonts: Fonts, *, leftwards: bool | None = None) -> str:
    """Return ``text`` with line breaks where the next word, or else the next character, does not fit.

    No character is lost: without the added breaks and marks the lines are the text.
    """
    if "\n" in text:
        return "\n".join(wrap(paragraph, width, fonts) for paragraph in text.split("\n"))
    if fonts.shaper and fonts.is_foreign(text):
        return "\n".join(fonts.shaper.wrap(text, width * PER_MILLE / UNITS, WINDOW, leftwards=leftwards))
    return _broken(text, width, fonts)


def _broken(text: str, width: float, fonts: Fonts) -> str:
    """Return the lines of a paragraph. A long one is wrapped in windows: each width takes 40 bytes."""
    lines: list[str] = []
    start = 0
    while len(text) - start > WINDOW:
        window = text[start : start + WINDOW]
        found = _lines(window, fonts.each(window), width)
        if len(found) > 1:
            found.pop()  # the next window can belong to the same line
        lines += found
        start += sum(map(len, found))
    rest = text[start:]
    return "\n".join([*lines, *_lines(rest, fonts.each(rest), width)])


def _lines(text: str, widths: Iterable[int], width: float) -> list[str]:
    ends = list(accumulate(widths))
    if not ends or ends[-1] <= width:
        return [text]
    lines = []
    start, done, length = 0, 0, len(text)
    has_spaces = " " in text
    while start < length:
        end = bisect_right(ends, done + width, start)
        if end == start:
            end += 1
        if has_spaces and end < length:
            # A space can be outside of the column, because it is invisible.
            end = text.rfind(" ", start + 1, end + 1) + 1 or end
        lines.append(text[start:end])
        start, done = end, ends[end - 1]
    return lines


def encoded(text: str, fonts: Fonts, shaped: list[bytes], size: float, room: float | None = None) -> bytes:
    """Return ``text`` as the inside of a string in a page's content, still with its marks.

    Lines in other scripts are replaced by a mark, and their operators for ``size`` points are appended to
    ``shaped``. Lines from right to left end at the right edge of ``room``, in the unit of fonts.
    """
    if fonts.foreign_lines and fonts.shaper and (not text.isascii() or LEFTWARDS in text):
        drawn = partial(fonts.shaper.drawn, size=size, room=room and room * PER_MILLE / UNITS)

        def mark(match: re.Match[str]) -> str:
            shaped.append(drawn(match[0]))
            return SHAPED

        text = fonts.foreign_lines.sub(mark, text)
    return string(text)


def operators(leading: float, gap: float) -> list[tuple[bytes, bytes]]:
    """Return the operators for each mark. After a row there is ``gap`` more space than after a line."""
    meanings = {
        LINE: b")Tj T*(",
        ROW: b")Tj 0 %.2f Td(" % -(leading + gap),
        NULL: b")Tj .6 g(%b)Tj .13 g(" % "\N{EM DASH}".encode("utf-16-be"),
    }
    return [(mark.encode("utf-16-be"), meaning) for mark, meaning in meanings.items()]


_EMPTY = re.compile(rb"(?<!\\)\(\)Tj")
"""An operator without text. A bracket within a text has a backslash before it."""


_SHAPED = b"(%b)Tj" % SHAPED.encode("utf-16-be")


def painted(data: bytes, meanings: list[tuple[bytes, bytes]], shaped: list[bytes]) -> bytes:
    """Return the operators for :func:`encoded` text, with its marks replaced by ``meanings``."""
    data = b"(%b)Tj" % data
    for mark, meaning in meanings:
        data = data.replace(mark, meaning)
    ends_in_bracket = b"\\()Tj" in data  # rare, and the expression is slow
    data = _EMPTY.sub(b"", data) if ends_in_bracket else data.replace(b"()Tj", b"")
    if not shaped:
        return data
    # This comes last, so that no mark is replaced within the strings of glyphs.
    between = data.split(_SHAPED)
    return b"".join(chain.from_iterable(zip(between, [*shaped, b""], strict=True)))
