"""Fonts for scripts that the main font lacks: the installed fonts of the extra ``[fonts]``.

A font is mapped from its file and not loaded. HarfBuzz chooses and places its glyphs, because most scripts
need shaping: Arabic letters join, and some vowels of Devanagari are drawn before their consonant.
"""

from collections.abc import Sequence
from functools import cached_property, lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple
from unicodedata import category

PER_MILLE = 1000
"""The unit of glyph widths in a PDF is the font's size divided by this number."""

UNITS = 250
"""The coarser unit of :mod:`~.pdf.fonts` is the font's size divided by this number."""

WEIGHT = 400.0
"""The weight of the Regular style. The default of some variable fonts is their thinnest style."""

_FILES = (
    ("justmytype_intl_rtl", "notosanshebrew/NotoSansHebrew[wdth,wght].ttf"),
    ("justmytype_intl_rtl", "notosansarabic/NotoSansArabic[wdth,wght].ttf"),
    ("justmytype_intl_south_asia", "notosansdevanagari/NotoSansDevanagari[wdth,wght].ttf"),
    ("justmytype_intl_south_asia", "notosansbengali/NotoSansBengali[wdth,wght].ttf"),
    ("justmytype_intl_south_asia", "notosanstamil/NotoSansTamil[wdth,wght].ttf"),
    ("justmytype_intl_south_asia", "notosanstelugu/NotoSansTelugu[wdth,wght].ttf"),
    ("justmytype_intl_sea", "notosansthai/NotoSansThai[wdth,wght].ttf"),
    ("justmytype_intl_sea", "notosanslao/NotoSansLao[wdth,wght].ttf"),
    ("justmytype_intl_sea", "notosanskhmer/NotoSansKhmer[wdth,wght].ttf"),
    ("justmytype_intl_sea", "notosansmyanmar/NotoSansMyanmar[wdth,wght].ttf"),
    ("justmytype_intl_africa", "notosansethiopic/NotoSansEthiopic[wdth,wght].ttf"),
)
_SIMPLIFIED = ("justmytype_intl_cjk", "notosanssc/NotoSansSC[wght].ttf")
_TRADITIONAL = ("justmytype_intl_cjk", "notosanstc/NotoSansTC[wght].ttf")
_JAPANESE = ("justmytype_intl_cjk", "notosansjp/NotoSansJP[wght].ttf")
_KOREAN = ("justmytype_intl_cjk", "notosanskr/NotoSansKR[wght].ttf")
"""All fonts have the SIL Open Font Licence, which is in each package."""


_UNNEEDED = ("BASE", "GDEF", "GPOS", "GSUB", "OS/2", "STAT", "cmap", "name", "post", "vhea", "vmtx")
"""Tables of a font that are not needed to draw glyphs by their numbers."""


class Glyph(NamedTuple):
    """A glyph with its position, per mille. ``cluster`` is the index of its first character."""

    number: int
    cluster: int
    advance: float
    right: float
    up: float


class Typeface:
    """A font file whose text is shaped by HarfBuzz."""

    def __init__(self, path: Path) -> None:
        import uharfbuzz

        self._hb = uharfbuzz
        self.face = uharfbuzz.Face(uharfbuzz.Blob.from_file_path(str(path)))
        self._font = uharfbuzz.Font(self.face)
        self._font.set_variations({"wght": WEIGHT})
        self._scale: float = PER_MILLE / self.face.upem
        self.name = path.name.partition("[")[0].partition(".")[0]

    @cached_property
    def characters(self) -> frozenset[str]:
        """The visible characters of the font."""
        return frozenset(filter(is_visible, map(chr, self.face.unicodes)))

    @property
    def measures(self) -> tuple[float, float]:
        """Ascent and descent, per mille."""
        extents = self._font.get_font_extents("ltr")
        return extents.ascender * self._scale, extents.descender * self._scale

    def shape(self, text: str, *, rightwards: bool) -> list[Glyph]:
        """Return the glyphs of ``text``, from left to right. A letter and its marks are one cluster."""
        buffer = self._hb.Buffer()
        buffer.add_str(text)
        buffer.guess_segment_properties()
        buffer.direction = "ltr" if rightwards else "rtl"
        self._hb.shape(self._font, buffer)
        scale = self._scale
        return [
            Glyph(
                info.codepoint,
                info.cluster,
                place.x_advance * scale,
                place.x_offset * scale,
                place.y_offset * scale,
            )
            for info, place in zip(buffer.glyph_infos, buffer.glyph_positions, strict=True)
        ]

    def subset(self, glyphs: Sequence[int]) -> tuple[bytes, dict[int, int]]:
        """Return a font program with only ``glyphs``, and the new number of each of them."""
        wanted = self._hb.SubsetInput()
        wanted.glyph_set.update(glyphs)
        wanted.drop_table_tag_set.update(int.from_bytes(tag.encode(), "big") for tag in _UNNEEDED)
        wanted.flags = self._hb.SubsetFlags.NO_HINTING | self._hb.SubsetFlags.NOTDEF_OUTLINE
        for axis in self.face.axis_infos:
            value = WEIGHT if axis.tag == "wght" else axis.default_value
            wanted.pin_axis_location(self.face, axis.tag, value)
        plan = self._hb.SubsetPlan(self.face, wanted)
        return bytes(plan.execute().blob.data), dict(plan.old_to_new_glyph_mapping)


def is_visible(character: str) -> bool:
    """Return whether a character is visible or a space."""
    return character.isprintable() or category(character) == "Zs"


def can_shape() -> bool:
    """Return whether the libraries of the extra are installed."""
    return bool(find_spec("uharfbuzz") and find_spec("bidi"))


@lru_cache(maxsize=1)
def common() -> tuple[Typeface, ...]:
    """Return the fonts of scripts with characters of their own."""
    return _installed(_FILES)


@lru_cache(maxsize=4)
def east_asian(first: str) -> tuple[Typeface, ...]:
    """Return the fonts of Han characters, first the one for ``Jpan``, ``Kore`` or ``Hans``."""
    orders = {
        "Jpan": (_JAPANESE, _SIMPLIFIED, _TRADITIONAL, _KOREAN),
        "Kore": (_KOREAN, _SIMPLIFIED, _TRADITIONAL, _JAPANESE),
        "Hans": (_SIMPLIFIED, _TRADITIONAL, _JAPANESE, _KOREAN),
    }
    return _installed(orders[first])


def _installed(files: Sequence[tuple[str, str]]) -> tuple[Typeface, ...]:
    if not can_shape():
        return ()
    found = (locate(package, f"fonts/ofl/{file}") for package, file in files)
    return tuple(_typeface(path) for path in found if path is not None)


@lru_cache(maxsize=32)
def _typeface(path: Path) -> Typeface:
    return Typeface(path)


def locate(package: str, file: str) -> Path | None:
    """Return the path of a file in a package, or ``None`` if the package is not installed."""
    spec = find_spec(package)
    path = Path(spec.origin).parent / file if spec and spec.origin else None
    return path if path and path.exists() else None
