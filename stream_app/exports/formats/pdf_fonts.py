"""Fonts: which characters they have, how wide these are, and the part of a font that a file needs.

Widths are in units of which :data:`UNITS` are the font's size: coarse enough that the width of any ASCII
character is one byte, so that adding up those of a text is a matter of two fast calls.

Characters are written as their UTF-16 code unit, which the font maps to its glyphs (a Type 0 font with a
CIDToGIDMap), so encoding a text takes no lookup for each character.
"""

import re
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from math import ceil
from pathlib import Path
from unicodedata import category

from reportlab.pdfbase.ttfonts import TTFontFile

from stream_app.exports.formats.pdf_file import PdfFile

UNITS = 250

MAIN_FONT = ("fontpkg_noto_sans", "files/NotoSans[wdth,wght].ttf")
"""Latin, Greek and Cyrillic, in the Regular style that a variable font opens with. SIL Open Font Licence."""

WIDER_FONT = ("paperang_p2_fonts_cjk", "fonts/wqy-microhei.ttc")
"""WenQuanYi Micro Hei, used where it is installed: Han, kana and Hangul. Apache Licence."""

_UNSET = range(0x0900, 0x1000)
"""Scripts that letters alone do not set: glyphs must be chosen and moved by their neighbours.

That :mod:`pdf_text` can mark places in a text by U+000A to U+000F relies on U+0A00 to U+0FFF being here.
"""


class Face:
    """One font file."""

    def __init__(self, path: Path) -> None:
        self._font = TTFontFile(str(path))
        self.widths = {
            chr(code): ceil(self._font.charWidths[code] * UNITS / 1000)
            for code in self._font.charToGlyph
            if code <= 0xFFFF and code not in _UNSET and _is_visible(chr(code))
        }
        self.used: set[str] = set()

    def embed(self, file: PdfFile) -> int:
        """Write the font, cut down to the characters used; returns its object's number."""
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
        unicode = file.stream(_unicode_map(codes))
        return file.add(
            b"<</Type/Font/Subtype/Type0/BaseFont%b/Encoding/Identity-H/DescendantFonts[%d 0 R]"
            b"/ToUnicode %d 0 R>>" % (name, descendant, unicode)
        )

    def _glyphs(self, codes: list[int]) -> bytes:
        """Two bytes for each possible character: its glyph's number, which follows the order of ``codes``."""
        numbers: dict[int, int] = {0: 0}
        table = bytearray(2 * 0x10000)
        for code in codes:
            number = numbers.setdefault(self._font.charToGlyph[code], len(numbers))
            table[2 * code : 2 * code + 2] = number.to_bytes(2, "big")
        return bytes(table)


class Fonts:
    """The fonts of one file: a main one, and if need be a wider one for what it lacks."""

    def __init__(self) -> None:
        main = _locate(MAIN_FONT)
        if main is None:
            raise ModuleNotFoundError(f"the font package {MAIN_FONT[0]} is not installed", name=MAIN_FONT[0])
        self.main = Face(main)
        self.wider: Face | None = None
        self.foreign: re.Pattern[str] | None = None
        """Matches what only the wider font has, once that is in use."""
        self.widths: dict[str, int] = {}
        """Of every character in use."""
        plain = "".join(map(chr, range(0x20, 0x7F))) + "\N{EM DASH}\N{HORIZONTAL ELLIPSIS}"
        self.admit(plain)
        self.plain = bytes(self.widths.get(chr(code), 0) for code in range(256))
        """The width of each ASCII character, for :meth:`bytes.translate`."""

    def admit(self, characters: str) -> set[str]:
        """Take ``characters`` into use; returns those that no font has."""
        unknown = set(characters).difference(self.widths)
        self._use(self.main, unknown)
        unknown.difference_update(self.main.used)
        if unknown and (wider := self._wider()):
            self._use(wider, unknown)
            unknown.difference_update(wider.used)
        return unknown

    def measure(self, text: str) -> int:
        """The width of a line."""
        return sum(self.each(text))

    def each(self, text: str) -> Iterable[int]:
        """The width of each character of a line."""
        return text.encode().translate(self.plain) if text.isascii() else map(self.widths.__getitem__, text)

    def embed(self, file: PdfFile) -> bytes:
        """Write the fonts; returns the entries of a page's font dictionary."""
        entries = b"/F0 %d 0 R" % self.main.embed(file)
        return entries + b"/F1 %d 0 R" % self.wider.embed(file) if self.foreign and self.wider else entries

    def _use(self, face: Face, characters: set[str]) -> None:
        found = characters.intersection(face.widths)
        face.used |= found
        self.widths |= {character: face.widths[character] for character in found}
        if found and face is self.wider:
            self.foreign = re.compile("[" + re.escape("".join(sorted(face.used))) + "]+")

    def _wider(self) -> Face | None:
        if self.wider is None and (path := _locate(WIDER_FONT)):
            self.wider = Face(path)
        return self.wider


def _is_visible(character: str) -> bool:
    return character.isprintable() or category(character) == "Zs"


def _locate(font: tuple[str, str]) -> Path | None:
    package, file = font
    spec = find_spec(package)
    return Path(spec.origin).parent / file if spec and spec.origin else None


def _unicode_map(codes: list[int]) -> bytes:
    """How readers get text back: codes are UTF-16 already, said block by block of 256."""
    blocks = sorted({code >> 8 for code in codes})
    ranges = [b"<%02X00><%02XFF><%02X00>" % (block, block, block) for block in blocks]
    return b"".join(_unicode_parts(ranges))


def _unicode_parts(ranges: list[bytes]) -> Iterator[bytes]:
    yield (
        b"/CIDInit/ProcSet findresource begin 12 dict begin begincmap"
        b"/CIDSystemInfo<</Registry(Adobe)/Ordering(UCS)/Supplement 0>>def"
        b"/CMapName/Adobe-Identity-UCS def/CMapType 2 def\n"
        b"1 begincodespacerange<0000><FFFF>endcodespacerange\n"
    )
    for start in range(0, len(ranges), 100):
        some = ranges[start : start + 100]
        yield b"%d beginbfrange\n%b\nendbfrange\n" % (len(some), b"\n".join(some))
    yield b"endcmap CMapName currentdict/CMap defineresource pop end end"
