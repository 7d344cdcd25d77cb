"""Lines in scripts that need shaping: their widths, their breaks, and the operators that draw them.

A line is divided into runs at each change of direction or font. HarfBuzz returns the glyphs of each run, and
the runs are put into visual order. Characters of the main font are written as in other lines.
"""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from itertools import accumulate, groupby
from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple

from bidi.algorithm import MIRRORED

from stream_app.exports.formats.pdf.bidi import from_left, is_leftwards, levels
from stream_app.exports.formats.pdf.file import LEFTWARDS, PdfFile, string
from stream_app.exports.formats.pdf.glyphs import GlyphFont
from stream_app.exports.formats.pdf.typefaces import PER_MILLE, UNITS, Typeface, common, east_asian

if TYPE_CHECKING:
    from stream_app.exports.formats.pdf.fonts import MainFont

JOINERS = "\u200c\u200d\u200e\u200f"
"""Invisible characters that change how their neighbours are drawn."""

JOINING = frozenset(JOINERS)

REMEMBERED, SHORT = 16_384, 100
"""Size of the caches of lines and runs, and characters of their longest ones. A line is measured, then
drawn."""

_KANA = re.compile("[\u3040-\u30ff\uff66-\uff9f]")
_HANGUL = re.compile("[\u1100-\u11ff\u3130-\u318f\uac00-\ud7af]")
_IDEOGRAPHIC = "\u2e80-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff00-\uff60\U00020000-\U0003ffff"
_NOT_FIRST = re.escape(
    "、。，．：；！？）］｝〉》」』】〕〗ー々ゝゞぁぃぅぇぉっゃゅょァィゥェォッャュョ・…,.:;!?)]}%»”’"
)
_NOT_LAST = re.escape("（［｛〈《「『【〔〖([{«“‘")
_BREAK = re.compile(
    f"(?<= )(?! )|(?:(?<=[{_IDEOGRAPHIC}])|(?=[{_IDEOGRAPHIC}]))(?<![{_NOT_LAST}])(?![ {_NOT_FIRST}])"
)
"""Places where a line can end: after spaces, and around ideographs and kana, except some punctuation."""


class TextRun(NamedTuple):
    """Characters with one direction and font, in reading order. ``typeface`` ``None`` is the main font."""

    start: int
    text: str
    typeface: Typeface | None


class ShapedLine(NamedTuple):
    """A line as it is drawn: its width, per mille, and the fonts with their strings, from left to right."""

    width: float
    shown: tuple[tuple[bytes, bytes], ...]


class Shaper:
    """Shapes the lines of one file. Characters of its ``main`` font need no shaping."""

    def __init__(self, main: "MainFont") -> None:
        self._main = main
        self._fonts: dict[Typeface, GlyphFont] = {}
        self._embedded: list[GlyphFont] = []
        self._typefaces: dict[str, dict[str, Typeface | None]] = {"Hans": {}, "Jpan": {}, "Kore": {}}
        self._lines: dict[str, ShapedLine] = {}
        self._runs: dict[tuple[str, Typeface, bool], tuple[float, bytes, bytes]] = {}

    def has(self, character: str) -> bool:
        """Return whether a font has ``character``, or it is a joiner."""
        return character in JOINERS or self._typeface(character, "Hans") is not None

    def width(self, line: str) -> float:
        """Return the width of a line, per mille."""
        return self._line(line).width

    def wrap(
        self, paragraph: str, width: float, window: int, *, leftwards: bool | None = None
    ) -> Iterator[str]:
        """Yield the lines of ``paragraph`` of ``width`` per mille, from windows of ``window`` characters.

        Its first letter decides the direction, unless ``leftwards`` is given.
        """
        if leftwards is None:
            leftwards = is_leftwards(paragraph[:window])
        mark = LEFTWARDS if leftwards else ""
        if len(paragraph) <= SHORT and self._line(mark + paragraph).width <= width:
            yield mark + paragraph
            return
        start = 0
        while start < len(paragraph):
            part = paragraph[start : start + window]
            lines = list(self._broken(part, width, leftwards=leftwards))
            if start + len(part) < len(paragraph) and len(lines) > 1:
                lines.pop()  # the next window can belong to the same line
            start += sum(map(len, lines))
            yield from (mark + line for line in lines)

    def drawn(self, line: str, size: float, room: float | None) -> bytes:
        """Return the operators that draw a line. ``room``, per mille, is for lines from right to left."""
        width, shown = self._line(line)
        place = b"[%d]TJ" % (width - room) if room is not None and line.startswith(LEFTWARDS) else b""
        return b"%b%b/F0 %g Tf" % (
            place,
            b"".join(b"%b %g Tf%bTj" % (name, size, data) for name, data in shown),
            size,
        )

    def embed(self, file: PdfFile) -> Iterator[bytes]:
        """Write the used fonts. Yields, after each of them, its entry for the font dictionary of pages."""
        for font in self._embedded:
            yield b"%b %d 0 R" % (font.name, font.embed(file))

    # -- parts -------------------------------------------------------------------------------------------

    def _line(self, line: str) -> ShapedLine:
        known = self._lines.get(line)
        if known is None:
            leftwards = line.startswith(LEFTWARDS)
            parts = self._parts(line.removeprefix(LEFTWARDS), leftwards=leftwards)
            drawn = [self._part(part, level) for level, part in parts]
            known = ShapedLine(
                sum(width for width, *_ in drawn), tuple((name, data) for _, name, data in drawn)
            )
            if len(line) <= SHORT:
                if len(self._lines) >= REMEMBERED:
                    self._lines.clear()
                self._lines[line] = known
        return known

    def _parts(self, line: str, *, leftwards: bool) -> list[tuple[int, TextRun]]:
        """Return the runs of a line with their levels, from left to right."""
        return from_left(list(self._read_parts(line, levels(line, leftwards=leftwards))))

    def _read_parts(self, line: str, found: list[int]) -> Iterator[tuple[int, TextRun]]:
        """Yield the runs of a line with their levels, in reading order."""
        east = "Jpan" if _KANA.search(line) else "Kore" if _HANGUL.search(line) else "Hans"
        known = self._typefaces[east]
        for character in set(line).difference(known):
            self._typeface(character, east)
        typefaces = [known[character] for character in line]
        if not JOINING.isdisjoint(line):
            for number, character in enumerate(line):
                if character in JOINING:
                    typefaces[number] = typefaces[number - 1] if number else None
        space = line.find(" ", 1, -1)
        while space > 0:
            around = typefaces[space - 1]
            if around and around is typefaces[space + 1]:
                typefaces[space] = (
                    around  # all fonts have a space, and programs then extract the words as one text
                )
            space = line.find(" ", space + 1, -1)
        start = 0
        for end in range(1, len(line) + 1):
            if end == len(line) or found[end] != found[start] or typefaces[end] is not typefaces[start]:
                yield found[start], TextRun(start, line[start:end], typefaces[start])
                start = end

    def _typeface(self, character: str, east: str) -> Typeface | None:
        known = self._typefaces[east]
        if character not in known:
            faces = () if character in self._main.widths else (*common(), *east_asian(east))
            known[character] = next((face for face in faces if character in face.characters), None)
        return known[character]

    def _part(self, part: TextRun, level: int) -> tuple[float, bytes, bytes]:
        """Return the width of a run, per mille, its font and its string."""
        if part.typeface is not None:
            return self._glyphs(part.text, part.typeface, rightwards=not level % 2)
        text = "".join(character for character in part.text if character not in JOINERS)
        if level % 2:
            text = "".join(MIRRORED.get(character, character) for character in reversed(text))
            self._main.used.update(text)
        return sum(map(self._plain, text)), b"/F0", b"(%b)" % string(text)

    def _glyphs(self, text: str, typeface: Typeface, *, rightwards: bool) -> tuple[float, bytes, bytes]:
        font = self._fonts.get(typeface)
        if font is None or font.is_full:
            font = self._fonts[typeface] = GlyphFont(typeface, b"/F%d" % (len(self._embedded) + 1))
            self._embedded.append(font)
            self._runs.clear()  # their glyphs have the numbers of another font
        known = self._runs.get((text, typeface, rightwards))
        if known is not None:
            return known
        glyphs = typeface.shape(text, rightwards=rightwards)
        starts = sorted({glyph.cluster for glyph in glyphs})
        ends = dict(zip(starts, [*starts[1:], len(text)], strict=True))
        codes = b"".join(
            b"%04X" % font.code(list(members), text[cluster : ends[cluster]])
            for cluster, members in groupby(glyphs, key=attrgetter("cluster"))
        )
        run = sum(glyph.advance for glyph in glyphs), font.name, b"<%b>" % codes
        if len(text) <= SHORT:
            if len(self._runs) >= REMEMBERED:
                self._runs.clear()
            self._runs[text, typeface, rightwards] = run
        return run

    def _plain(self, character: str) -> float:
        return self._main.widths[character] * PER_MILLE / UNITS

    # -- lines -------------------------------------------------------------------------------------------

    def _broken(self, text: str, width: float, *, leftwards: bool) -> Iterator[str]:
        advances, shaped = self._advances(text, leftwards=leftwards)
        ends = list(accumulate(max(advance, 0.0) for advance in advances))
        if not ends or ends[-1] <= width:
            yield text
            return
        mark = LEFTWARDS if leftwards else ""
        found = (match.start() for match in _BREAK.finditer(text))
        breaks = [place for place in found if place == len(text) or advances[place] >= 0]
        start, done = 0, 0.0
        while start < len(text):
            end = bisect_right(ends, done + width, start)
            if end < len(text):
                end = self._break(text, advances, breaks, start, end)
            if shaped.find(1, start, end) >= 0:
                end = self._fitting(text, advances, breaks, start, end, width, mark)
            yield text[start:end]
            start, done = end, ends[end - 1]

    def _fitting(
        self,
        text: str,
        advances: list[float],
        breaks: list[int],
        start: int,
        end: int,
        width: float,
        mark: str,
    ) -> int:
        """Return the end of the line, at ``end`` or before it, with which the line really fits.

        Letters that lose their neighbours get other forms, which can be wider. A line has at least one letter
        with its marks.
        """
        while self._seen_width(mark + text[start:end]) > width:
            number = bisect_left(breaks, end)
            if number and breaks[number - 1] > start:
                shorter = breaks[number - 1]
            else:
                shorter = end - 1
                while shorter > start and advances[shorter] < 0:
                    shorter -= 1
            if shorter <= start:
                break
            end = shorter
        return end

    def _seen_width(self, line: str) -> float:
        """Return the width of a line without the spaces at its end, which can be outside of the column."""
        return self._line(line).width - (len(line) - len(line.rstrip(" "))) * self._plain(" ")

    def _break(self, text: str, advances: list[float], breaks: list[int], start: int, end: int) -> int:
        """Return the end of a line that starts at ``start`` and has no room for the character at ``end``."""
        over = end
        while over < len(text) and text[over] == " ":
            over += 1  # spaces can be outside of the column, because they are invisible
        number = bisect_right(breaks, over)
        if number and breaks[number - 1] > start:
            return breaks[number - 1]
        cut = end
        while cut > start and advances[cut] < 0:
            cut -= 1
        if cut > start:
            return cut
        cut = max(end, start + 1)
        while cut < len(text) and advances[cut] < 0:
            cut += 1
        return cut

    def _advances(self, text: str, *, leftwards: bool) -> tuple[list[float], bytearray]:
        """Return the width of each character, and a byte for each character that is 1 if it was shaped.

        A negative width means that a line must not be broken before the character.
        """
        advances = [-1.0] * len(text)
        shaped = bytearray(len(text))
        for level, part in self._parts(text, leftwards=leftwards):
            end = part.start + len(part.text)
            if part.typeface is None:
                advances[part.start : end] = [
                    -1.0 if character in JOINERS else self._plain(character) for character in part.text
                ]
                continue
            shaped[part.start : end] = b"\1" * len(part.text)
            for glyph in part.typeface.shape(part.text, rightwards=not level % 2):
                number = part.start + glyph.cluster
                advances[number] = max(advances[number], 0.0) + glyph.advance
        # A mark without a width is drawn on the character before it.
        return [advance or -1.0 for advance in advances], shaped
