"""SQL of the formats is ASCII with each locale and language, and the file has their characters (case P6)."""

from stream_app.exports.columns import Column, Kind
from stream_app.exports.formats.ascii_marks import marked, texts_of, unmarked
from stream_app.exports.formats.csv import CsvFormat
from stream_app.exports.formats.pdf.format import PdfFormat
from stream_app.exports.queries.sql_text import render
from stream_app.locales import find_locale
from streaming_exporter.events import Options
from tests.rows import each_row

COLUMNS = [
    Column(f"c{number}", name, name, kind)
    for number, (name, kind) in enumerate(
        [
            ("numeric", Kind.NUMERIC),
            ("date", Kind.DATE),
            ("timestamp", Kind.TIMESTAMP),
            ("timestamptz", Kind.TIMESTAMPTZ),
            ("bool", Kind.BOOLEAN),
        ]
    )
]


@each_row("output", [CsvFormat(), PdfFormat()])
@each_row("tag", ["fr", "de-AT", "bg", "mk", "bgn", "ks", "ff-Adlm", "ja", "ru", "th"])
def test_the_sql_is_ascii(output: CsvFormat | PdfFormat, tag: str) -> None:
    options = Options.model_validate({"locale": tag, "language": tag})
    sql = render(output.copy_select(COLUMNS, options).select)
    assert sql.isascii()
    rules = find_locale(tag)
    rows = "\n".join(texts_of(rules))
    assert b"".join(unmarked(iter([marked(rows).encode()]), texts_of(rules))).decode() == rows
