"""The report: a title, facts about the rows, the table, and the page number on each page.

Rows are wrapped and written as soon as they fill a page. The numbers of rows and pages are known only at the
end. They are drawn by two forms, which each page refers to, and which are written last.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import chain
from typing import Any

from stream_app.exports.formats.base import Document, Tally
from stream_app.exports.formats.pdf.file import PdfFile, text_string
from stream_app.exports.formats.pdf.fonts import Fonts
from stream_app.exports.formats.pdf.layout import lay_out
from stream_app.exports.formats.pdf.page import PagePainter, PageTexts
from stream_app.exports.formats.pdf.table import Paginator
from stream_app.exports.formats.pdf.text import columns_of, shown
from stream_app.text_style import TextStyle

SAMPLE_BYTES = 128 * 2**10
"""Bytes of rows that the layout is computed from."""

SHOWN_VALUES = 20
"""Number of a filter's values that the report shows. The manifest has all."""

_WORDS = {
    "eq": "=",
    "ne": "is not",
    "lt": "<",
    "lte": "<=",
    "gt": ">",
    "gte": ">=",
    "in": "is one of",
    "not_in": "is none of",
    "prefix": "starts with",
    "contains": "contains",
}


def report(chunks: Iterator[bytes], document: Document, tally: Tally) -> Iterator[bytes]:
    """Yield the bytes of the file. ``chunks`` have the rows as COPY's text."""
    fonts, file = Fonts(), PdfFile()
    title = document.options.title or document.title or document.dataset
    style = TextStyle.of(document.options.timezone, document.options.locale)
    words = _words(document, title, style, fonts, tally)
    rows = (columns_of(chunk, fonts, tally) for chunk in _with_sample(chunks))
    sample = next(rows, None)
    nothing: list[tuple[str, ...]] = [()] * len(document.columns)
    grid = lay_out(document.columns, words.names, sample or nothing, fonts, document.options.page_size)
    painter = PagePainter(file, fonts, grid, words, style)
    table = Paginator(grid, fonts, painter)
    for columns in chain([sample] if sample else [], rows):
        tally.rows += len(columns[0])
        for _ in table.add(columns):
            if data := file.take():
                yield data
    table.finish()
    for _ in painter.finish(tally.rows):
        yield file.take()
    file.finish(
        b"/Lang(en)/ViewerPreferences<</DisplayDocTitle true>>/PageLayout/OneColumn",
        {
            b"Title": text_string(title),
            b"Subject": text_string(f"Export of {document.dataset} as of {style.moment(document.as_of)}"),
            b"Creator": text_string("streaming-exporter"),
            b"CreationDate": f"(D:{document.as_of.astimezone(UTC):%Y%m%d%H%M%S}Z)".encode(),
        },
    )
    yield file.take()


def _with_sample(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield ``chunks``, with a first chunk that is large enough for the layout."""
    sample: list[bytes] = []
    for chunk in chunks:
        sample.append(chunk)
        if sum(map(len, sample)) >= SAMPLE_BYTES:
            break
    if sample:
        yield b"".join(sample)
    yield from chunks


def _words(document: Document, title: str, style: TextStyle, fonts: Fonts, tally: Tally) -> PageTexts:
    def show(text: str) -> str:
        return shown(text, text, fonts, tally)

    facts = [f"as of {style.moment(document.as_of)}", f"generated {style.moment(datetime.now(UTC))}"]
    if document.options.timezone is not None:
        facts.append(f"times in {document.options.timezone}")
    if title != document.dataset:
        facts.insert(0, document.dataset)
    return PageTexts(
        title=show(title),
        facts=show("  ·  ".join(facts)),
        filters=show("; ".join(_filters(document))),
        names=tuple(show(item.title) for item in document.columns),
    )


def _filters(document: Document) -> Iterator[str]:
    titles = {item.name: item.title for item in document.columns}
    for column, wanted in document.filters.items():
        name = titles.get(column, column)
        for operator, value in (wanted if isinstance(wanted, dict) else {"eq": wanted}).items():
            if operator == "is_null" or value is None:
                empty = bool(value) if operator == "is_null" else operator == "eq"
                yield f"{name} is {'' if empty else 'not '}empty"
            else:
                yield f"{name} {_WORDS[operator]} {_value(value)}"


def _value(value: Any) -> str:
    if isinstance(value, list):
        more = f" and {len(value) - SHOWN_VALUES:,} more" if len(value) > SHOWN_VALUES else ""
        return ", ".join(map(str, value[:SHOWN_VALUES])) + more
    return str(value).lower() if isinstance(value, bool) else str(value)
