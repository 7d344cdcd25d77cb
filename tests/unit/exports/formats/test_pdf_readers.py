"""PDF text: what is put in comes out, read by two programs that know nothing of each other (V1)."""

import io
from collections.abc import Sequence
from datetime import UTC, datetime
from unicodedata import normalize

import pypdfium2
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pypdf import PdfReader

from stream_app.events import Options
from stream_app.exports.columns import Column, Kind
from stream_app.exports.formats.base import Document, Tally
from stream_app.exports.formats.pdf import PdfFormat
from stream_app.exports.formats.pdf_fonts import Fonts
from stream_app.exports.formats.pdf_text import shown

AS_OF = datetime(2026, 1, 31, 13, 30, tzinfo=UTC)
FONTS = Fonts()
KEY = Column("id", "integer", "int4", Kind.INTEGER)

DELIMITERS = "()\\<>[]{}/%'\" TjBDEMC*"
"""What delimits and names things in a page's content."""

ENCODED_LIKE_DELIMITERS = "".join(
    chr(code)
    for code in range(0x100, 0x3000)
    if {code >> 8, code & 0xFF} & {*b"()\\<>[]\n\r\f\v\x0e\x0f"} and not 0x0900 <= code < 0x1000
)
"""Characters of which one of the two bytes that stand in the content is a delimiter, a line end or a mark."""

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
    """As COPY writes it."""
    for character, escape in zip("\\\b\f\n\r\t\v", "\\bfnrtv", strict=True):
        text = text.replace(character, "\\" + escape)
    return text


def pdfium(content: bytes) -> str:
    with pypdfium2.PdfDocument(content) as document:
        text = "".join(page.get_textpage().get_text_range() for page in document)
    return text.replace("\ufffe", "-")  # what it makes of a hyphen at the end of a line


def pypdf(content: bytes) -> str:
    return "".join(page.extract_text() for page in PdfReader(io.BytesIO(content), strict=True).pages)


READERS = (pdfium, pypdf)


def squeezed(text: str) -> str:
    """Without white space, which readers guess, and compatibility characters, which pdfium resolves."""
    return "".join(normalize("NFKD", text).split())


def visible(text: str) -> str:
    """What is shown for ``text``: its lines, with the code of what no font has."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").replace("\t", "    ").split("\n")
    return "".join(shown(line, line, FONTS, Tally()) for line in lines)


def of_the_page(text: str) -> str:
    """``text`` as a name, a title or a filter shows it, where a line break has no meaning."""
    return shown(text, text, FONTS, Tally())


@given(st.lists(texts, min_size=1, max_size=8))
@example([":(", "second", "third"])
@example(["(", "a(", "\\", "\\(", "č(", "Ĩ(", ")(", "()Tj", "T*()Tj", "\\()Tj"])
@example(["x" * 300 + "(", "words that wrap (" * 30])
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_cells_come_out(cells: list[str]) -> None:
    """V1: whatever the bytes of a text look like, in short cells and in wrapped ones."""
    content = written(cells)
    expected = squeezed("".join(map(visible, cells)))
    for read in READERS:
        assert expected in squeezed(read(content)), read.__name__


@given(texts, texts.filter(lambda text: "\t" not in text), texts)
@example("Total (", "name (", "like (")
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_titles_names_and_filters_come_out(title: str, name: str, value: str) -> None:
    """V1: the same for what stands around the rows."""
    content = written(["cell"], name=name, title=title or None, filter_value=value)
    for read in READERS:
        text = squeezed(read(content))
        for part in (title, name, value):
            assert squeezed(of_the_page(part)) in text, read.__name__


@pytest.mark.parametrize("title", ["t(" * 60, "\\" * 90], ids=["brackets", "backslashes"])
def test_a_long_title_is_cut_on_later_pages_only(title: str) -> None:
    content = written(["row"] * 200, title=title)
    for read in READERS:
        text = squeezed(read(content))
        assert text.count(squeezed(title)) == 1
        assert squeezed(title[:79]) + "..." in text
