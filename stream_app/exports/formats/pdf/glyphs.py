"""The glyphs of a shaped font in one file: their codes in page contents, and the embedded subset.

A letter can consist of several glyphs at relative positions. Page contents have one code for all of them, and
the code has the letter's text, so that programs can extract it. The embedded font has one composite glyph for
the code.
"""

from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import NamedTuple

from stream_app.exports.formats.pdf.file import PdfFile
from stream_app.exports.formats.pdf.typefaces import PER_MILLE, Glyph, Typeface

MOST_CODES = 4_000
"""Limit for the codes of one embedded font. If a file needs more, it embeds the font again."""


class _GlyphGroup(NamedTuple):
    """Glyphs with their offsets to the right and upwards, and the advance to the next glyph, per mille."""

    glyphs: tuple[tuple[int, int, int], ...]
    advance: int

    @property
    def is_plain(self) -> bool:
        """Whether it is a single glyph without an offset."""
        return len(self.glyphs) == 1 and self.glyphs[0][1:] == (0, 0)


class GlyphFont:
    """A shaped font of one file. ``name`` is its name in page contents."""

    def __init__(self, typeface: Typeface, name: bytes) -> None:
        self.typeface = typeface
        self.name = name
        self._codes: dict[tuple[_GlyphGroup, str], int] = {}

    @property
    def is_full(self) -> bool:
        """Whether it has reached the limit of codes."""
        return len(self._codes) >= MOST_CODES

    def code(self, glyphs: Sequence[Glyph], meaning: str) -> int:
        """Return the code for ``glyphs``, from left to right. ``meaning`` is the text that they show."""
        places = []
        pen = 0.0
        for glyph in glyphs:
            places.append((glyph.number, round(pen + glyph.right), round(glyph.up)))
            pen += glyph.advance
        key = (_GlyphGroup(tuple(places), round(pen)), meaning)
        code = self._codes.get(key)
        if code is None:
            code = self._codes[key] = len(self._codes) + 1
        return code

    def embed(self, file: PdfFile) -> int:
        """Write the subset of the font for the used glyphs, and return its object's number."""
        program, table = self._program()
        name = b"/EXPORT+" + self.typeface.name.encode()
        ascent, descent = self.typeface.measures
        embedded = file.stream(program, b"/Length1 %d" % len(program))
        descriptor = file.add(
            b"<</Type/FontDescriptor/FontName%b/Flags 4/FontBBox[0 %d %d %d]/ItalicAngle 0/Ascent %d"
            b"/Descent %d/CapHeight %d/StemV 80/FontFile2 %d 0 R>>"
            % (name, descent, PER_MILLE, ascent, ascent, descent, ascent, embedded)
        )
        widths = b" ".join(b"%d" % shape.advance for shape, _ in self._codes)
        descendant = file.add(
            b"<</Type/Font/Subtype/CIDFontType2/BaseFont%b/FontDescriptor %d 0 R/W[1[%b]]/CIDToGIDMap %d 0 R"
            b"/CIDSystemInfo<</Registry(Adobe)/Ordering(Identity)/Supplement 0>>>>"
            % (name, descriptor, widths, file.stream(table))
        )
        return file.add(
            b"<</Type/Font/Subtype/Type0/BaseFont%b/Encoding/Identity-H/DescendantFonts[%d 0 R]"
            b"/ToUnicode %d 0 R>>" % (name, descendant, file.stream(self._meanings()))
        )

    def _program(self) -> tuple[bytes, bytes]:
        """Return the font program, and two bytes for each code: the number of its glyph."""
        shapes = [shape for shape, _ in self._codes]
        program, numbers = self.typeface.subset(
            sorted({glyph for shape in shapes for glyph, *_ in shape.glyphs})
        )
        moved = sorted({shape for shape in shapes if not shape.is_plain})
        if moved:
            first = 1 + max(numbers.values())
            program = _with_composites(program, numbers, moved, PER_MILLE / self.typeface.face.upem)
            composites = {shape: first + number for number, shape in enumerate(moved)}
        table = b"\0\0" + b"".join(
            (numbers[shape.glyphs[0][0]] if shape.is_plain else composites[shape]).to_bytes(2, "big")
            for shape in shapes
        )
        return program, table

    def _meanings(self) -> bytes:
        lines = [
            b"<%04X><%b>" % (code, meaning.encode("utf-16-be").hex().encode())
            for (_, meaning), code in self._codes.items()
        ]
        return unicode_map(b"bfchar", lines)


def _with_composites(
    program: bytes, numbers: Mapping[int, int], shapes: Sequence[_GlyphGroup], scale: float
) -> bytes:
    """Return ``program`` with a composite glyph for each shape. ``numbers`` has the numbers of its glyphs."""
    from fontTools.ttLib import TTFont
    from fontTools.ttLib.tables import _g_l_y_f as outlines

    font = TTFont(BytesIO(program), recalcBBoxes=False)  # otherwise it would parse and write each glyph
    order = [f"glyph{number}" for number in range(font["maxp"].numGlyphs)]  # the font has no glyph names
    font.setGlyphOrder(order)
    glyf, hmtx = font["glyf"], font["hmtx"]
    added = []
    for number, shape in enumerate(shapes):
        composite = outlines.Glyph()
        composite.numberOfContours = -1
        composite.components = []
        for glyph, right, up in shape.glyphs:
            component = outlines.GlyphComponent()
            component.glyphName = order[numbers[glyph]]
            component.x, component.y = round(right / scale), round(up / scale)
            component.flags = 0
            composite.components.append(component)
        name = f"composite{number}"
        glyf.glyphs[name] = composite
        composite.recalcBounds(glyf)
        hmtx.metrics[name] = (max(0, round(shape.advance / scale)), composite.xMin)
        added.append(name)
    font["maxp"].maxComponentElements = max(len(shape.glyphs) for shape in shapes)
    font["maxp"].maxComponentDepth += 1
    font.setGlyphOrder([*order, *added])
    glyf.glyphOrder = [*order, *added]
    result = BytesIO()
    font.save(result, reorderTables=None)
    return result.getvalue()


def unicode_map(kind: bytes, lines: list[bytes]) -> bytes:
    """Return the CMap that maps two-byte codes to text: ``lines`` of one ``kind``, bfchar or bfrange."""
    parts = [
        b"/CIDInit/ProcSet findresource begin 12 dict begin begincmap"
        b"/CIDSystemInfo<</Registry(Adobe)/Ordering(UCS)/Supplement 0>>def"
        b"/CMapName/Adobe-Identity-UCS def/CMapType 2 def\n"
        b"1 begincodespacerange<0000><FFFF>endcodespacerange\n"
    ]
    for start in range(0, len(lines), 100):
        some = lines[start : start + 100]
        parts.append(b"%d begin%b\n%b\nend%b\n" % (len(some), kind, b"\n".join(some), kind))
    parts.append(b"endcmap CMapName currentdict/CMap defineresource pop end end")
    return b"".join(parts)
