"""The text of PDF files is extracted unchanged by two independent programs (V1)."""

import io
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from unicodedata import normalize

import pypdfium2
import pytest
from bidi.algorithm import MIRRORED
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pypdf import PdfReader

from stream_app.exports.columns import Column, Kind
from stream_app.exports.formats.base import Document, Tally
from stream_app.exports.formats.pdf.bidi import turns
from stream_app.exports.formats.pdf.fonts import Fonts
from stream_app.exports.formats.pdf.format import PdfFormat
from stream_app.exports.formats.pdf.text import shown
from streaming_exporter.events import Options

AS_OF = datetime(2026, 1, 31, 13, 30, tzinfo=UTC)
FONTS = Fonts()
KEY = Column("id", "integer", "int4", Kind.INTEGER)

DELIMITERS = "()\\<>[]{}/%'\" TjBDEMC*"
"""Delimiters and names in the content of a page."""

ENCODED_LIKE_DELIMITERS = "".join(
    chr(code)
    for code in range(0x100, 0x3000)
    if {code >> 8, code & 0xFF} & {*b"()\\<>[]\n\r\f\v\x0e\x0f"} and not 0x0900 <= code < 0x1000
)
"""Characters with a byte in the content that is also a delimiter, a line end or a mark."""

texts = st.text(
    st.one_of(
        st.sampled_from(DELIMITERS),
        st.sampled_from(ENCODED_LIKE_DELIMITERS),
        st.characters(codec="utf-8", exclude_characters="\0"),
        st.characters(codec="utf-8", max_codepoint=0x24F, exclude_categories=["Cc"]),
    ),
    max_size=60,
)


def written(
    cells: Sequence[str], *, name: str = "note", title: str | None = None, filter_value: str | None = None
) -> bytes:
    columns = (KEY, Column(name, "text", "text", Kind.TEXT))
    filters = {} if filter_value is None else {"note": {"contains": filter_value}}
    document = Document("things", columns, Options(title=title), AS_OF, filters)
    rows = "".join(f"{number}\t{copied(cell)}\n" for number, cell in enumerate(cells))
    return b"".join(PdfFormat().frame(iter([rows.encode()]), document, Tally()))


def copied(text: str) -> str:
    """Return the text as COPY writes it."""
    for character, escape in zip("\\\b\f\n\r\t\v", "\\bfnrtv", strict=True):
        text = text.replace(character, "\\" + escape)
    return text


def pdfium(content: bytes) -> str:
    with pypdfium2.PdfDocument(content) as document:
        text = "".join(page.get_textpage().get_text_range() for page in document)
    return text.replace("\ufffe", "-")  # its form of a hyphen at the end of a line


def pypdf(content: bytes) -> str:
    return "".join(page.extract_text() for page in PdfReader(io.BytesIO(content), strict=True).pages)


READERS = (pdfium, pypdf)


def squeezed(text: str) -> str:
    """Return the text without white space, which readers guess, and with its compatibility form."""
    return "".join(normalize("NFKD", text).split())


def is_shown(part: str, page: str) -> bool:
    """Return whether a text is on a page, in its order.

    Readers guess the order where a text runs from right to left and has other parts, marks or brackets in it;
    there every character of it must be on the page.
    """
    if not turns(part):
        return squeezed(part) in squeezed(page)
    return not Counter(_unordered(part)) - Counter(_unordered(page))


def _unordered(text: str) -> str:
    return "".join(max(character, MIRRORED.get(character, character)) for character in squeezed(text))


def visible(text: str) -> str:
    """Return the shown text: its lines, with codes for characters that no font has."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").replace("\t", "    ").split("\n")
    return "".join(shown(line, line, FONTS, Tally()) for line in lines)


EXAMPLES = 3 * settings().max_examples // 10
"""A share of the examples of the chosen profile."""


def of_the_page(text: str) -> str:
    """Return ``text`` as a name, a title or a filter is shown, without line breaks."""
    return shown(text, text, FONTS, Tally())


@given(st.lists(texts, min_size=1, max_size=8))
@example([":(", "second", "third"])
@example(["(", "a(", "\\", "\\(", "č(", "Ĩ(", ")(", "()Tj", "T*()Tj", "\\()Tj"])
@example(["x" * 300 + "(", "words that wrap (" * 30])
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_cells_can_be_extracted(cells: list[str]) -> None:
    """V1: texts with any bytes, in short and in wrapped cells."""
    content = written(cells)
    expected = "".join(map(visible, cells))
    for read in READERS:
        assert is_shown(expected, read(content)), read.__name__


@given(texts, texts.filter(lambda text: "\t" not in text), texts)
@example("Total (", "name (", "like (")
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_titles_names_and_filters_can_be_extracted(title: str, name: str, value: str) -> None:
    """V1: the same for the texts around the rows."""
    content = written(["cell"], name=name, title=title or None, filter_value=value)
    for read in READERS:
        page = read(content)
        for part in (title, name, value):
            assert is_shown(of_the_page(part), page), read.__name__


@pytest.mark.parametrize("title", ["t(" * 60, "\\" * 90], ids=["brackets", "backslashes"])
def test_a_long_title_is_cut_on_later_pages_only(title: str) -> None:
    content = written(["row"] * 200, title=title)
    for read in READERS:
        text = squeezed(read(content))
        assert text.count(squeezed(title)) == 1
        assert squeezed(title[:79]) + "..." in text


SAMPLES = {
    "Hebrew": "שלום עולם",
    "Arabic": "السلام عليكم ورحمة الله",
    "Persian": "فارسی",
    "Chinese": "中文（简体），繁體字。",
    "Japanese": "日本語のテキスト。カタカナ、ひらがな",
    "Korean": "한국어 텍스트",
    "Thai": "ที่นี่น้ำภาษาไทย",
    "Hindi": "हिन्दी क्षेत्र ज्ञान श्री प्रार्थना",
    "Bengali": "বাংলা ক্ষেত্র",
    "Tamil": "தமிழ் மொழி",
    "Telugu": "తెలుగు భాష",
    "Amharic": "አማርኛ",
    "Lao": "ພາສາລາວ",
    "in one line": "a 中 हि ที่ 한 か",
}


@pytest.mark.parametrize("script", SAMPLES)
def test_texts_of_all_scripts_can_be_extracted(script: str) -> None:
    """V12: in cells, wrapped ones too, names, titles and filters, in the order in which they are read."""
    text = SAMPLES[script]
    long = " ".join([text] * 30)  # a line of the cell has room for 23 of the shortest
    word = text.partition(" ")[0]  # pdfium returns Hebrew words in an English line one after the other
    content = written([text, f"({text})", long], name=text, title=text, filter_value=word)
    for read in READERS:
        page = read(content)
        assert squeezed(page).count(squeezed(text)) >= 34, read.__name__
        assert f"contains{squeezed(word)}" in squeezed(page)
        assert "u{" not in page
