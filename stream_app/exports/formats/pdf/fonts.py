"""The fonts of a file: their characters, the widths, and the subset that is embedded.

Widths have a unit of the font's size divided by :data:`UNITS`. So the width of each ASCII character fits into
one byte, and two fast calls add the widths of a text.

Characters are written as UTF-16 code units, which the font maps to its glyphs (a Type 0 font with a
CIDToGIDMap). So encoding a text needs no lookup for each character.
"""

import re
from collections.abc import Iterable, Iterator
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

from reportlab.pdfbase.ttfonts import TTFontFile

from stream_app.exports.formats.pdf.file import LEFTWARDS, MARKS, PdfFile
from stream_app.exports.formats.pdf.glyphs import unicode_map
from stream_app.exports.formats.pdf.typefaces import PER_MILLE, UNITS, can_shape, is_visible, locate

if TYPE_CHECKING:
    from stream_app.exports.formats.pdf.shaping import Shaper

MAIN_FONT = ("fontpkg_noto_sans", "files/NotoSans[wdth,wght].ttf")
"""Latin, Greek and Cyrillic, in the Regular style (the font's default). SIL Open Font Licence."""

_UNSET = range(0x0900, 0x1000)
"""Scripts that need shaping: neighbours decide which glyphs are drawn and where.

The marks of :mod:`~.pdf.file` are U+000A to U+000F. They need U+0A00 to U+0FFF in this range.
"""


class MainFont:
    """The main font: a font file whose characters need no shaping."""

    def __init__(self, path: Path) -> None:
        self._font = TTFontFile(str(path))
        self.widths: dict[str, int] = {
            chr(code): ceil(self._font.charWidths[code] * UNITS / 1000)
            for code in self._font.charToGlyph
            if code <= 0xFFFF and code not in _UNSET and is_visible(chr(code))
        }
        self.used: set[str] = set()

    def embed(self, file: PdfFile) -> int:
        """Write the subset of the font for the used characters, and return its object's number."""
        codes = sorted(map(ord, self.used))
        program = self._font.makeSubset(codes)
        name = b"/EXPORT+" + self._font.name.replace(b" ", b"")
        embedded = file.stream(program, b"/Length1 %d" % len(program))
        box = b" ".join(b"%d" % edge for edge in self._font.bbox)
        measures = (name, box, self._font.ascent, self._font.descent, self._font.capHeight, embedded)
        descriptor = file.add(
            b"<</Type/FontDescriptor/FontName%b/Flags 4/FontBBox[%b]/ItalicAngle 0/Ascent %d/Descent %d"
            b"/CapHeight %d/StemV 80/FontFile2 %d 0 R>>" % measures
        )
        widths = b"".join(b"%d[%d]" % (code, self._font.charWidths[code]) for code in codes)
        glyphs = file.stream(self._glyphs(codes))
        descendant = file.add(
            b"<</Type/Font/Subtype/CIDFontType2/BaseFont%b/FontDescriptor %d 0 R/W[%b]/CIDToGIDMap %d 0 R"
            b"/CIDSystemInfo<</Registry(Adobe)/Ordering(Identity)/Supplement 0>>>>"
            % (name, descriptor, widths, glyphs)
        )
        # The codes are UTF-16 already. They are mapped in blocks of 256.
        blocks = sorted({code >> 8 for code in codes})
        unicode = file.stream(
            unicode_map(b"bfrange", [b"<%02X00><%02XFF><%02X00>" % (block, block, block) for block in blocks])
        )
        return file.add(
            b"<</Type/Font/Subtype/Type0/BaseFont%b/Encoding/Identity-H/DescendantFonts[%d 0 R]"
            b"/ToUnicode %d 0 R>>" % (name, descendant, unicode)
        )

    def _glyphs(self, codes: list[int]) -> bytes:
        """Return two bytes for each possible character: its glyph's number, in the order of ``codes``."""
        numbers: dict[int, int] = {0: 0}
        table = bytearray(2 * 0x10000)
        for code in codes:
            number = numbers.setdefault(self._font.charToGlyph[code], len(numbers))
            table[2 * code : 2 * code + 2] = number.to_bytes(2, "big")
        return bytes(table)


class Fonts:
    """The fonts of one file: the main font, and the fonts of the extra ``[fonts]`` for other scripts.

    Attributes:
        foreign: matches characters that only other fonts have, once one of them is in use.
        foreign_lines: matches lines, between marks, that have such a character.
        widths: width of each character of the main font that is in use.
        plain: width of each ASCII character, for :meth:`bytes.translate`.
    """

    def __init__(self) -> None:
        main = locate(*MAIN_FONT)
        if main is None:
            raise ModuleNotFoundError(f"the font package {MAIN_FONT[0]} is not installed", name=MAIN_FONT[0])
        self.main = MainFont(main)
        self.shaper = _shaper(self.main)
        self.foreign: re.Pattern[str] | None = None
        self.foreign_lines: re.Pattern[str] | None = None
        self._foreign: set[str] = set()
        self.widths: dict[str, int] = {}
        plain = "".join(map(chr, range(0x20, 0x7F))) + "\N{EM DASH}\N{HORIZONTAL ELLIPSIS}"
        self.admit(plain)
        self.plain = bytes(self.widths.get(chr(code), 0) for code in range(256))

    def admit(self, characters: str) -> set[str]:
        """Add ``characters`` to the used ones. Returns those that no font has."""
        unknown = set(characters).difference(self.widths, self._foreign)
        found = unknown.intersection(self.main.widths)
        self.main.used |= found
        self.widths |= {character: self.main.widths[character] for character in found}
        unknown -= found
        if unknown and self.shaper:
            known = set(filter(self.shaper.has, unknown))
            unknown -= known
            self._take(known)
        return unknown

    def measure(self, text: str) -> float:
        """Return the width of a line."""
        if self.shaper and self.is_foreign(text):
            return self.shaper.width(text) * UNITS / PER_MILLE
        return sum(self.each(text))

    def is_foreign(self, text: str) -> bool:
        """Return whether a line needs a font other than the main one."""
        return self.foreign is not None and self.foreign.search(text) is not None

    def each(self, text: str) -> Iterable[int]:
        """Return the width of each character of a line. The main font must have all of them."""
        return text.encode().translate(self.plain) if text.isascii() else map(self.widths.__getitem__, text)

    def embed(self, file: PdfFile) -> Iterator[bytes]:
        """Write the fonts. Yields, after each of them, its entry for the font dictionary of pages."""
        yield b"/F0 %d 0 R" % self.main.embed(file)
        if self.shaper:
            yield from self.shaper.embed(file)

    def _take(self, foreign: set[str]) -> None:
        if foreign:
            self._foreign |= foreign
            some = "[" + re.escape(LEFTWARDS + "".join(sorted(self._foreign))) + "]"
            self.foreign = re.compile(some)
            self.foreign_lines = re.compile(f"(?<![^{MARKS}])[^{MARKS}]*?{some}[^{MARKS}]*")


def _shaper(main: MainFont) -> "Shaper | None":
    if not can_shape():
        return None
    from stream_app.exports.formats.pdf.shaping import Shaper

    return Shaper(main)
