"""The report: a title, facts about the rows, the table, and the page number on each page.

Rows are wrapped and written as soon as they fill a page. The numbers of rows and pages are known only at the
end. They are drawn by two forms, which each page refers to, and which are written last.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import chain

from stream_app.exports.columns import Kind, has_instants
from stream_app.exports.formats.base import Document, Tally
from stream_app.exports.formats.file_words import FileWords
from stream_app.exports.formats.filter_words import FilterWords
from stream_app.exports.formats.localized import has_fractions
from stream_app.exports.formats.pdf.file import PdfFile, text_string
from stream_app.exports.formats.pdf.fonts import Fonts
from stream_app.exports.formats.pdf.layout import lay_out
from stream_app.exports.formats.pdf.page import PagePainter, PageTexts
from stream_app.exports.formats.pdf.table import Paginator
from stream_app.exports.formats.pdf.text import columns_of, shown
from stream_app.messages.catalogue import text
from stream_app.text_style import TextStyle

SAMPLE_BYTES = 128 * 2**10
"""Bytes of rows that the layout is computed from."""

SAME_TIME = timedelta(minutes=1)
"""A report that is generated so soon after its rows were read names only the time of the rows."""


def report(chunks: Iterator[bytes], document: Document, tally: Tally) -> Iterator[bytes]:
    """Yield the bytes of the file. ``chunks`` have the rows as COPY's text."""
    fonts, file = Fonts(), PdfFile()
    title = document.options.title or document.heading
    style = TextStyle.of(document.options.timezone, document.options.locale)
    words = FileWords.of(document.options)
    head = _head(document, title, style, words, fonts, tally)
    rows = (columns_of(chunk, fonts, tally) for chunk in _with_sample(chunks))
    sample = next(rows, None)
    nothing: list[tuple[str, ...]] = [()] * len(document.columns)
    grid = lay_out(document.columns, head.names, sample or nothing, fonts, document.options.page_size)
    painter = PagePainter(file, fonts, grid, head, style)
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
        b"/Lang(%b)/ViewerPreferences<</DisplayDocTitle true>>/PageLayout/OneColumn"
        % words.language.encode(),
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


def _head(
    document: Document, title: str, style: TextStyle, words: FileWords, fonts: Fonts, tally: Tally
) -> PageTexts:
    def show(text: str) -> str:
        return shown(text, text, fonts, tally)

    return PageTexts(
        title=show(title),
        facts=show("  ·  ".join([*_facts(document, title, style, words), ""])),
        filters=show(FilterWords.of(document, style, words).line(document.filters)),
        names=tuple(show(item.title) for item in document.columns),
        words=words,
    )


def _facts(document: Document, title: str, style: TextStyle, words: FileWords) -> Iterator[str]:
    """Yield what the head says before the number of rows."""
    dataset = document.title or document.dataset
    if title != dataset:
        yield dataset
    as_of, now = style.moment(document.as_of), datetime.now(UTC)
    yield text(words.language, "files.as_of", time=as_of)
    if now - document.as_of >= SAME_TIME:
        yield text(words.language, "files.generated", time=style.moment(now))
    if any(map(has_instants, document.columns)):
        zone = text(words.language, "files.times_in", zone=document.options.timezone or "UTC")
        yield f"{zone}, {text(words.language, 'files.to_the_second')}" if _is_cut(document) else zone


def _is_cut(document: Document) -> bool:
    """Return whether fractions of seconds are left out."""
    return document.options.locale is not None and any(
        item.kind in (Kind.TIMESTAMP, Kind.TIMESTAMPTZ) and not has_fractions(item)
        for item in document.columns
    )
