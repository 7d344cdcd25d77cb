"""The widths of columns and the words of reports."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from stream_app.exports.columns import Column, Kind
from stream_app.exports.formats.base import Document, Tally
from stream_app.exports.formats.pdf.fonts import Fonts
from stream_app.exports.formats.pdf.format import PdfFormat
from stream_app.exports.formats.pdf.layout import lay_out
from stream_app.exports.queries.sql_text import render
from streaming_exporter.events import Options
from tests.unit.exports.formats.test_pdf import AS_OF, ID, NOTE, pdf, texts

FONTS = Fonts()
UUID = "6046dee3-4b15-4e99-a044-a833010d2e0e"
HASH = "0123456789abcdef" * 4
JSON = '{"v": 2, "ip": "10.74.230.182", "note": "Sunset over the harbour", "asset": "7edbeec93d9a40ec"}'
LEDGER = [
    (ID, "20000"),
    (Column("kind", "text", "text", Kind.TEXT), "enrollment"),
    (Column("subject", "uuid", "uuid", Kind.UUID), UUID),
    (Column("at", "timestamptz", "timestamptz", Kind.TIMESTAMPTZ), "2026-01-01 00:49:19.052047"),
    (Column("amount", "numeric(18,6)", "numeric", Kind.NUMERIC), "21403.964483"),
    (Column("sealed", "boolean", "bool", Kind.BOOLEAN), "false"),
    (Column("payload", "jsonb", "jsonb", Kind.JSON), JSON),
    (Column("previous", "text", "text", Kind.TEXT), HASH),
    (Column("entry", "text", "text", Kind.TEXT), HASH),
]
MOMENT = Column("at", "timestamptz", "timestamptz", Kind.TIMESTAMPTZ)


def test_long_values_share_the_paper() -> None:
    """C22: one jsonb column of seven lines made 2,420 pages of 20,000 rows."""
    columns, row = zip(*LEDGER, strict=True)
    reader = pdf(columns, ["\t".join(row).replace("20000", str(number)) + "\n" for number in range(160)])
    assert 160 / len(reader.pages) > 15
    everything = "".join("".join(texts(reader)).split())
    assert everything.count(HASH) == 320


@pytest.mark.parametrize("long", [JSON, HASH, "word " * 60, "x" * 900])
def test_a_column_is_as_wide_as_its_values_need(long: str) -> None:
    """The lines of all long columns are about as many: none is narrow while others have room."""
    columns = [ID, NOTE, *(Column(f"c{n}", "text", "text", Kind.TEXT) for n in range(5))]
    cells = [["1"] * 20, [long] * 20, *[["a short text"] * 20] * 5]
    grid = lay_out(columns, [item.name for item in columns], cells, FONTS, "A4")
    assert len(grid.groups) == 1
    others = [grid.units(number) for number in range(2, 7)]
    assert grid.units(1) > 2 * max(others)
    assert min(others) >= FONTS.measure("a short text")


def test_values_of_one_length_leave_no_letter_for_another_line() -> None:
    cells = [["1"] * 20, [f"{number:032x}" for number in range(20)], [JSON * 2] * 20]
    columns = [ID, NOTE, Column("payload", "jsonb", "jsonb", Kind.JSON)]
    grid = lay_out(columns, ["id", "code", "payload"], cells, FONTS, "A4")
    assert all(FONTS.measure(cell) <= grid.units(1) for cell in cells[1])


def head(as_of: datetime = AS_OF, *columns: Column, **options: Any) -> str:
    import io

    from pypdf import PdfReader

    document = Document("things", columns or (ID,), Options(**options), as_of)
    content = b"".join(PdfFormat().frame(iter([]), document, Tally()))
    return PdfReader(io.BytesIO(content)).pages[0].extract_text()


def test_one_time_is_enough_if_both_are_the_same() -> None:
    """C22: "as of" and "generated" were the same minute, and the number of rows had no separator."""
    now = datetime.now(UTC)
    assert "generated" not in head(now)
    assert "UTC · 0 rows" in " ".join(head(now).split())
    assert "generated" in head(now - timedelta(minutes=2))


def test_words_of_the_head() -> None:
    assert "times in" not in head()
    assert "times in UTC" in head(AS_OF, MOMENT)
    assert "to the second" not in head(AS_OF, MOMENT)
    assert "times in UTC, to the second" in head(AS_OF, MOMENT, locale="en-GB")
    german = head(AS_OF, MOMENT, language="de-AT", timezone="Europe/Vienna")
    for words in ("Stand 2026-01-31 14:30", "Zeiten in Europe/Vienna", "0 Zeilen", "Seite 1 von"):
        assert words in german


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, None),
        ({"language": "de-AT"}, "'ja' WHEN NOT rows.\"b\" THEN 'nein'"),
        ({"locale": "fr-FR"}, "'oui' WHEN NOT rows.\"b\" THEN 'non'"),
        ({"locale": "fr-FR", "language": "en"}, "'yes' WHEN NOT rows.\"b\" THEN 'no'"),
        ({"language": "tlh"}, None),
    ],
)
def test_truth_values_are_words_of_the_language(options: dict[str, str], words: str | None) -> None:
    flag = Column("b", "boolean", "bool", Kind.BOOLEAN)
    sql = render(PdfFormat().copy_select([flag], Options(**options)).select)
    assert (words in sql) if words else ("CASE" not in sql)
