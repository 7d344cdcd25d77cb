"""From COPY's text to lines that fit their column, and from lines to what a page's content says."""

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
"""Characters that are broken into lines at once: many more than a line has."""

PART = 512 * 2**10
"""Characters of a text in which matches take no memory to speak of: more than a chunk of short rows has."""

_PLAIN = bytes(range(0x20, 0x7F)) + b"\t\n"
_UNSEEN = re.compile(r"\\([bfv\\])")
_ESCAPED = re.compile(r"\\(r\\n|.)", re.DOTALL)
_MEANS = {"n": "\n", "r": "\n", "r\\n": "\n", "t": "    ", "\\": "\\"}
_UNSEEN_CODES = {"b": "\\\\u{8}", "f": "\\\\u{c}", "v": "\\\\u{b}"}


def columns_of(chunk: bytes, fonts: Fonts, tally: Tally) -> list[tuple[str, ...]]:
    """The cells of each column, as COPY escaped them, but only characters that can be shown."""
    text = chunk.decode()
    if strange := chunk.translate(None, _PLAIN):
        text = shown(text, strange.decode(), fonts, tally, "\\\\u{%x}")
    if any(unseen in chunk for unseen in (b"\\b", b"\\f", b"\\v")):
        text = _without_unseen(text, tally)
    return list(zip(*(line.split("\t") for line in text[:-1].split("\n")), strict=True))


def shown(text: str, strange: str, fonts: Fonts, tally: Tally, escape: str = "\\u{%x}") -> str:
    """``text``, in which ``strange`` are the characters to look at, with those escaped that no font has."""
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
    """``found.sub(replace, text)``, which takes 60 bytes for each match until it is done."""
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
    """The value that COPY wrote as ``cell``."""
    return _substituted(_ESCAPED, lambda match: _MEANS[match[1]], cell) if "\\" in cell else cell


class WrapCache(dict[str, str]):
    """What COPY wrote → the lines to show; remembers short ones, as most columns repeat theirs."""

    REMEMBERED = 4_096
    SHORT = 100

    def __init__(self, fonts: Fonts, width: float) -> None:
        self._fonts = fonts
        self._plain = fonts.plain
        self._width = width

    def __missing__(self, cell: str) -> str:
        if len(cell) <= WINDOW and cell.isascii() and "\\" not in cell:  # what most cells are like
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
    """``text`` with a line break wherever the next word, or else the next character, would not fit.

    Nothing is left out: without the breaks and marks that were added, the lines are the text.
    """
    if "\n" in text:
        return "\n".join(wrap(paragraph, width, fonts) for paragraph in text.split("\n"))
    if fonts.shaper and fonts.is_foreign(text):
        return "\n".join(fonts.shaper.wrap(text, width * PER_MILLE / UNITS, WINDOW, leftwards=leftwards))
    return _broken(text, width, fonts)


def _broken(text: str, width: float, fonts: Fonts) -> str:
    """Lines of one paragraph. A long one is cut window by window: each character's width takes 40 bytes."""
    lines: list[str] = []
    start = 0
    while len(text) - start > WINDOW:
        window = text[start : start + WINDOW]
        found = _lines(window, fonts.each(window), width)
        if len(found) > 1:
            found.pop()  # what follows the window may belong to it
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
            # A space may stand beyond the edge, where nobody sees it.
            end = text.rfind(" ", start + 1, end + 1) + 1 or end
        lines.append(text[start:end])
        start, done = end, ends[end - 1]
    return lines


def encoded(text: str, fonts: Fonts, shaped: list[bytes], size: float, room: float | None = None) -> bytes:
    """``text`` as the inside of a string in a page's content, its marks still marks.

    Lines in other scripts are appended to ``shaped``, as operators for ``size`` points, and marked. Those
    that run leftwards end at the right edge of ``room``, in units of :data:`UNITS`.
    """
    if fonts.foreign_lines and fonts.shaper and (not text.isascii() or LEFTWARDS in text):
        drawn = partial(fonts.shaper.drawn, size=size, room=room and room * PER_MILLE / UNITS)

        def mark(match: re.Match[str]) -> str:
            shaped.append(drawn(match[0]))
            return SHAPED

        text = fonts.foreign_lines.sub(mark, text)
    return string(text)


def operators(leading: float, gap: float) -> list[tuple[bytes, bytes]]:
    """What each mark stands for in a page's content; a row is followed by ``gap`` more than a line is."""
    meanings = {
        LINE: b")Tj T*(",
        ROW: b")Tj 0 %.2f Td(" % -(leading + gap),
        NULL: b")Tj .6 g(%b)Tj .13 g(" % "\N{EM DASH}".encode("utf-16-be"),
    }
    return [(mark.encode("utf-16-be"), meaning) for mark, meaning in meanings.items()]


_EMPTY = re.compile(rb"(?<!\\)\(\)Tj")
"""What shows nothing; a bracket that belongs to a text has a backslash before it."""


_SHAPED = b"(%b)Tj" % SHAPED.encode("utf-16-be")


def painted(data: bytes, meanings: list[tuple[bytes, bytes]], shaped: list[bytes]) -> bytes:
    """The operators that show :func:`encoded` text, with ``meanings`` in the place of its marks."""
    data = b"(%b)Tj" % data
    for mark, meaning in meanings:
        data = data.replace(mark, meaning)
    ends_in_bracket = b"\\()Tj" in data  # which is rare, and the expression is slow
    data = _EMPTY.sub(b"", data) if ends_in_bracket else data.replace(b"()Tj", b"")
    if not shaped:
        return data
    # Last, so that nothing is looked for in what glyphs are written as.
    between = data.split(_SHAPED)
    return b"".join(chain.from_iterable(zip(between, [*shaped, b""], strict=True)))
