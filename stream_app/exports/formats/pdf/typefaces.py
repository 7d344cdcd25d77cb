"""Fonts for the scripts that the main one lacks: those of the extra ``[fonts]`` that are installed.

A font is read from its file as needed, not loaded. HarfBuzz chooses and places its glyphs, as most scripts
need: letters of Arabic join, vowels of Devanagari stand before the consonant that they follow.
"""

from collections.abc import Sequence
from functools import cached_property, lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple
from unicodedata import category

PER_MILLE = 1000
"""A PDF's unit of glyph widths: the font's size by a thousand."""

UNITS = 250
"""The same, as coarse as widths of lines need be; see :mod:`pdf_fonts`."""

WEIGHT = 400.0
"""Regular; some variable fonts open with their thinnest style."""

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
"""All under the SIL Open Font Licence, which each package brings."""


_UNNEEDED = ("BASE", "GDEF", "GPOS", "GSUB", "OS/2", "STAT", "cmap", "name", "post", "vhea", "vmtx")
"""Tables of a font that nobody reads who draws its glyphs by their numbers."""


class Glyph(NamedTuple):
    """A glyph in its place, lengths per mille; ``cluster`` is the number of its first character."""

    number: int
    cluster: int
    advance: float
    right: float
    up: float


class Typeface:
    """One font file."""

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
        """The visible characters that it has."""
        return frozenset(filter(is_visible, map(chr, self.face.unicodes)))

    @property
    def measures(self) -> tuple[float, float]:
        """Ascent and descent, per mille."""
        extents = self._font.get_font_extents("ltr")
        return extents.ascender * self._scale, extents.descender * self._scale

    def shape(self, text: str, *, rightwards: bool) -> list[Glyph]:
        """The glyphs of ``text``, from left to right; a letter and its marks are one cluster."""
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
        """A font program with ``glyphs`` alone, and the number of each of them in it."""
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
    """Whether a character can be seen, or is a space."""
    return character.isprintable() or category(character) == "Zs"


def can_shape() -> bool:
    """Whether the libraries of the extra are installed."""
    return bool(find_spec("uharfbuzz") and find_spec("bidi"))


@lru_cache(maxsize=1)
def common() -> tuple[Typeface, ...]:
    """Fonts of scripts of which each has its own characters."""
    return _installed(_FILES)


@lru_cache(maxsize=4)
def east_asian(first: str) -> tuple[Typeface, ...]:
    """Fonts of Han characters, drawn as ``Jpan``, ``Kore`` or ``Hans`` draws them where it has them."""
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
    """Where a package has a file, if it is installed."""
    spec = find_spec(package)
    path = Path(spec.origin).parent / file if spec and spec.origin else None
    return path if path and path.exists() else None
