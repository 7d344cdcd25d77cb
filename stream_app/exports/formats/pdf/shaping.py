"""Lines in scripts that need more than one character after the other: widths, breaks, and what a page says.

A line is cut where its direction or its font changes. HarfBuzz gives the glyphs of each part, and the
parts are put in the order in which they stand. What the main font has is written as everywhere else.
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
"""Not seen, but what they stand between is drawn otherwise for them."""

JOINING = frozenset(JOINERS)

REMEMBERED, SHORT = 16_384, 100
"""Lines that are remembered, and their most characters: those of one page come back when it is painted."""

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
"""Where a line can end: after a space, and around ideographs and kana but for some punctuation."""


class TextRun(NamedTuple):
    """Characters of one direction and font, in reading order; ``typeface`` None: the main one."""

    start: int
    text: str
    typeface: Typeface | None


class ShapedLine(NamedTuple):
    """A line as it is drawn: its width, per mille, and what each font shows of it, from left to right."""

    width: float
    shown: tuple[tuple[bytes, bytes], ...]


class Shaper:
    """What one file shows in such scripts, beside what its ``main`` font has."""

    def __init__(self, main: "MainFont") -> None:
        self._main = main
        self._fonts: dict[Typeface, GlyphFont] = {}
        self._embedded: list[GlyphFont] = []
        self._typefaces: dict[str, dict[str, Typeface | None]] = {"Hans": {}, "Jpan": {}, "Kore": {}}
        self._lines: dict[str, ShapedLine] = {}

    def has(self, character: str) -> bool:
        """Whether a font has ``character``, or it only joins others."""
        return character in JOINERS or self._typeface(character, "Hans") is not None

    def width(self, line: str) -> float:
        """The width of a line, per mille."""
        return self._line(line).width

    def wrap(
        self, paragraph: str, width: float, window: int, *, leftwards: bool | None = None
    ) -> Iterator[str]:
        """Lines of ``paragraph`` that are ``width`` per mille wide, ``window`` characters looked at at once.

        Its first letter says in which direction it runs, unless ``leftwards`` does.
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
                lines.pop()  # what follows the window may belong to it
            start += sum(map(len, lines))
            yield from (mark + line for line in lines)

    def drawn(self, line: str, size: float, room: float | None) -> bytes:
        """The operators that show a line; one that runs leftwards ends at the right of ``room`` per mille."""
        width, shown = self._line(line)
        place = b"[%d]TJ" % (width - room) if room is not None and line.startswith(LEFTWARDS) else b""
        return b"%b%b/F0 %g Tf" % (
            place,
            b"".join(b"%b %g Tf%bTj" % (name, size, data) for name, data in shown),
            size,
        )

    def embed(self, file: PdfFile) -> Iterator[bytes]:
        """Write the fonts in use, one after the other; yields their entries of a page's font dictionary."""
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
        """The parts of a line with their levels, from left to right."""
        return from_left(list(self._read_parts(line, levels(line, leftwards=leftwards))))

    def _read_parts(self, line: str, found: list[int]) -> Iterator[tuple[int, TextRun]]:
        """The parts of a line in the order they are read in."""
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
                typefaces[space] = around  # all of them have a space; readers take the words for one text
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
        """The width of a part, per mille, the font that shows it and the string that it shows."""
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
        glyphs = typeface.shape(text, rightwards=rightwards)
        starts = sorted({glyph.cluster for glyph in glyphs})
        ends = dict(zip(starts, [*starts[1:], len(text)], strict=True))
        codes = b"".join(
            b"%04X" % font.code(list(members), text[cluster : ends[cluster]])
            for cluster, members in groupby(glyphs, key=attrgetter("cluster"))
        )
        return sum(glyph.advance for glyph in glyphs), font.name, b"<%b>" % codes

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
        """The end of the line, at ``end`` or before it, so that it fits as it is drawn by itself.

        Letters that are cut off from their neighbours take other forms, which can be wider. One letter with
        what belongs to it is the least that a line has.
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
        """The width of a line without the spaces at its end, which can stand beyond the edge."""
        return self._line(line).width - (len(line) - len(line.rstrip(" "))) * self._plain(" ")

    def _break(self, text: str, advances: list[float], breaks: list[int], start: int, end: int) -> int:
        """The end of a line that starts at ``start`` and has no room for the character at ``end``."""
        over = end
        while over < len(text) and text[over] == " ":
            over += 1  # spaces may stand beyond the edge, where nobody sees them
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
        """The width of each character, less than nothing where a line must not be cut before it.

        With them comes a byte for each character, which is 1 where glyphs were chosen by its neighbours.
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
        # A mark of no width is drawn on what stands before it.
        return [advance or -1.0 for advance in advances], shaped
