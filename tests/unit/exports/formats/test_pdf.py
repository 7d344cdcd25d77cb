"""PDF files, read with pypdf."""

import io
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pytest
from pypdf import PdfReader

from stream_app.exports.columns import Column, Kind
from stream_app.exports.formats.base import Document, Tally
from stream_app.exports.formats.pdf.fonts import Fonts
from stream_app.exports.formats.pdf.format import PdfFormat
from stream_app.exports.formats.pdf.layout import MARGIN, PADDING, lay_out
from stream_app.exports.formats.pdf.typefaces import UNITS
from streaming_exporter.events import Options

ID = Column("id", "integer", "int4", Kind.INTEGER)
NOTE = Column("note", "text", "text", Kind.TEXT)
AS_OF = datetime(2026, 1, 31, 13, 30, tzinfo=UTC)


def pdf(
    columns: Sequence[Column], chunks: list[str], *, filters: dict[str, Any] | None = None, **options: Any
) -> PdfReader:
    document = Document("things", tuple(columns), Options(**options), AS_OF, filters or {})
    content = b"".join(PdfFormat().frame((chunk.encode() for chunk in chunks), document, Tally()))
    return PdfReader(io.BytesIO(content), strict=True)


def texts(reader: PdfReader) -> list[str]:
    return [page.extract_text() for page in reader.pages]


def squeezed(text: str) -> str:
    """Return the text without white space, which readers guess."""
    return "".join(text.split())


def test_the_head_describes_the_rows() -> None:
    filters = {"kind": "proof", "created_at": {"gte": "2026-01-01"}, "n": {"in": list(range(30))}, "x": None}
    (text,) = texts(pdf([ID, NOTE], ["1\tx\n"], filters=filters, title="Größe – Übersicht"))
    assert "Größe – Übersicht" in text
    assert "as of 2026-01-31 13:30:00 UTC" in text
    assert "generated 20" in text
    assert "1 row" in text
    for part in ("kind=proof;created_at", "2026-01-01;nisoneof0,1,2", "19and10more;xisempty"):
        assert part in squeezed(text)


@pytest.mark.parametrize(
    ("options", "heading"), [({}, "Ledger October"), ({"title": "For the board"}, "For the board")]
)
def test_the_name_of_the_export_is_the_title(options: dict[str, str], heading: str) -> None:
    document = Document("things", (ID,), Options(**options), AS_OF, title="Things", name="Ledger October")
    reader = PdfReader(io.BytesIO(b"".join(PdfFormat().frame(iter([b"1\n"]), document, Tally()))))
    assert reader.metadata is not None
    assert reader.metadata.title == heading
    assert heading in texts(reader)[0]


def test_every_page_has_heads_and_its_number() -> None:
    reader = pdf([ID, NOTE], ["".join(f"{n}\tnote {n}\n" for n in range(1_000))])
    pages = texts(reader)
    assert len(pages) > 10
    for number, text in enumerate(pages, 1):
        assert f"Page{number}of{len(pages)}" in squeezed(text)
        assert "idnote" in squeezed(text)
        assert "things" in text
    assert "1,000 rows" in pages[0]
    everything = "\n".join(pages)
    assert all(f"note {n}\n" in everything for n in range(999))


def test_properties() -> None:
    reader = pdf([ID], ["1\n"], title="Ελλάδα")
    assert reader.metadata is not None
    assert reader.metadata.title == "Ελλάδα"
    assert reader.metadata.creator == "streaming-exporter"
    assert reader.metadata.creation_date == AS_OF
    assert reader.trailer["/Root"]["/Lang"] == "en"  # type: ignore[index]


def test_fonts_are_embedded_and_small() -> None:
    reader = pdf([NOTE], ["Grüße\n"])
    fonts = reader.pages[0]["/Resources"]["/Font"]  # type: ignore[index]
    (descendant,) = fonts["/F0"]["/DescendantFonts"]
    program = descendant.get_object()["/FontDescriptor"]["/FontFile2"].get_data()
    assert program[:4] == b"\0\1\0\0"
    assert len(program) < 60_000


@pytest.mark.parametrize(
    "value", ["a(b)c\\\\d", "{\"k\": [1, 'x']}", "Привет Ελλάδα", "<&>", "=SUM(A1)", "čĩĨĊ", "\\\\N"]
)
def test_values_can_be_extracted(value: str) -> None:
    (text,) = texts(pdf([NOTE], [value + "\n"]))
    assert value.replace("\\\\", "\\") in text


def test_null_is_a_dash_and_an_empty_text_is_nothing() -> None:
    (text,) = texts(pdf([ID, NOTE], ["1\t\\N\n2\t\n\\N\t\\N\n"]))
    assert text.count("—") == 3


def test_all_null() -> None:
    (text,) = texts(pdf([ID, NOTE], ["\\N\t\\N\n" * 10]))
    assert text.count("—") == 20


def test_a_file_without_rows_has_a_page_that_shows_it() -> None:
    (text,) = texts(pdf([ID, NOTE], []))
    assert "0 rows" in text
    assert "idnote" in squeezed(text)


def test_a_value_longer_than_a_page_is_complete() -> None:
    value = "".join(f"{number} " for number in range(20_000))
    pages = texts(pdf([NOTE], [f"before\n{value}\nafter\n"]))
    assert len(pages) > 10
    body = "".join(page.rpartition("note\n")[2].partition("Page")[0] for page in pages)
    assert squeezed(body) == "before" + squeezed(value) + "after"


def test_three_hundred_columns_share_out_pages_with_the_key_on_each() -> None:
    columns = [ID, *(Column(f"c{n:03}", "text", "text", Kind.TEXT) for n in range(1, 300))]
    row = "\t".join(["4711", *(f"value {n:03}" for n in range(1, 300))])
    pages = texts(pdf(columns, [row + "\n"]))
    assert len(pages) > 5
    for page in pages:
        assert "4711" in page
    everything = "".join(pages)
    assert all(f"value {n:03}" in everything and f"c{n:03}" in everything for n in range(1, 300))
    assert "Columns 1 to" in pages[0]
    assert pages[-1].endswith("of 300")


def test_a_character_without_a_glyph_is_shown_as_its_code_and_counted() -> None:
    document = Document("things", (NOTE,), Options(), AS_OF)
    tally = Tally()
    content = b"".join(PdfFormat().frame(iter([b"x\n", "\U0001f600 \U0001f600\n".encode()]), document, tally))
    assert "\\u{1f600} \\u{1f600}" in PdfReader(io.BytesIO(content)).pages[0].extract_text()
    assert tally == Tally(2, tally.warnings)
    assert tally.warnings == {"replaced_characters": 2}


def test_unusual_names() -> None:
    names = ['a"b', "=x", "Ünï", "new\nline", "x" * 63, "\U0001f600", " "]
    columns = [Column(name, "text", "text", Kind.TEXT) for name in names]
    (text,) = texts(pdf(columns, ["\t".join("abcdefg") + "\n"]))
    for name in ('a"b', "=x", "Ünï", "new\\u{a}line", "x" * 63, "\\u{1f600}"):
        assert name in squeezed(text)


def test_only_the_glyphs_in_use_are_embedded() -> None:
    """V12: the font of all Chinese characters has 17 MB."""
    reader = pdf([NOTE, ID], ["Grüße, 中文 (Wörld)\t1\n"])
    assert "Grüße, 中文 (Wörld)" in texts(reader)[0]
    fonts = reader.pages[0]["/Resources"]["/Font"].values()  # type: ignore[index]
    assert [font["/BaseFont"] for font in fonts] == ["/EXPORT+NotoSans-Regular", "/EXPORT+NotoSansSC"]
    (descendant,) = list(fonts)[1]["/DescendantFonts"]
    assert len(descendant.get_object()["/FontDescriptor"]["/FontFile2"].get_data()) < 5_000


@pytest.mark.parametrize("page_size", ["A4", "A3", "LETTER", "LEGAL", "TABLOID"])
def test_paper(page_size: str) -> None:
    box = pdf([ID], ["1\n"], page_size=page_size).pages[0].mediabox
    assert box.height > box.width
    wide = [Column(f"c{n}", "text", "text", Kind.TEXT) for n in range(12)]
    turned = (
        pdf(wide, ["\t".join(["some words that need room"] * 12) + "\n"], page_size=page_size)
        .pages[0]
        .mediabox
    )
    assert turned.width > turned.height
    assert {float(turned.width), float(turned.height)} == {float(box.width), float(box.height)}


def test_pages_are_yielded_while_rows_arrive() -> None:
    chunks = iter([b"".join(b"%d\tsome text\n" % n for n in range(10_000))] * 100)
    next(PdfFormat().frame(chunks, Document("things", (ID, NOTE), Options(), AS_OF), Tally()))
    assert len(list(chunks)) >= 98


def test_columns_stay_on_the_paper() -> None:
    fonts = Fonts()
    kinds = [Kind.INTEGER, Kind.TEXT, Kind.TIMESTAMPTZ, Kind.UUID, Kind.NUMERIC]
    for count in (1, 2, 5, 10, 40, 300):
        columns = [Column(f"column_{n}", "x", "x", kinds[n % len(kinds)]) for n in range(count)]
        for length in (0, 1, 20, 60, 5_000):
            names = [item.name for item in columns]
            grid = lay_out(columns, names, [["0" * length] * 3] * count, fonts, "A4")
            assert sorted({place.number for group in grid.groups for place in group}) == list(range(count))
            for group in grid.groups:
                for place, following in pairwise(group):
                    assert place.left + place.width + 2 * PADDING == pytest.approx(following.left)
                assert group[-1].left + group[-1].width + PADDING <= grid.paper[0] - MARGIN + 0.01
                assert all(grid.units(place.number) >= UNITS for place in group)
