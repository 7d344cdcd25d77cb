"""PDF: a printable report with a title and a table; :mod:`~.pdf.report` writes it.

Values have the same text as in csv, but times have a space before the time of day, and instants have no
offset: the head names their zone. With a locale, amounts have groups, and timestamps end with the second.
With a language, truth values are words. NULL is a grey dash, and an empty text is an empty cell. A line break
in a value is a line break in its cell, and a tab is four spaces. Characters that no installed font has, and
other control characters, are written as ``\\u{1f600}`` and counted in the manifest as
``replaced_characters``.
"""

from collections.abc import Iterator, Sequence

from sqlalchemy import select

from stream_app.exports.columns import Column
from stream_app.exports.formats.ascii_marks import marked, marked_rules, texts_of, unmarked
from stream_app.exports.formats.base import ROWS, CopySelect, Document, Format, Tally
from stream_app.exports.formats.file_words import FileWords
from stream_app.exports.formats.localized import printed_text
from stream_app.locales import find_locale
from streaming_exporter.events import Options, PdfOptions


class PdfFormat(Format):
    """The format ``pdf``."""

    name = "pdf"
    extension = "pdf"
    media_type = "application/pdf"
    description = "A table for printing, with page numbers"
    own_options = frozenset(PdfOptions.model_fields)
    row_bytes = 4 * 2**20  # a thousand pages; the layout needs up to 30 times as much memory
    own_process = True
    closing_bytes = 128 * 2**10
    max_file_bytes = 9 * 10**9  # an offset has ten digits

    def copy_select(self, columns: Sequence[Column], options: Options) -> CopySelect:
        """Return a SELECT for COPY's text format, which escapes tabs and line feeds in values."""
        rules = marked_rules(find_locale(options.locale)) if options.locale else None
        yes, no = map(marked, FileWords.of(options).booleans)
        cells = (printed_text(item, rules, (yes, no)) for item in columns)
        return CopySelect(select(*cells).select_from(ROWS), {"format": "text"})

    def frame(self, chunks: Iterator[bytes], document: Document, tally: Tally) -> Iterator[bytes]:
        """Yield full pages, then the fonts."""
        # Fonts are large, and the API only lists the formats.
        from stream_app.exports.formats.pdf.report import report

        options = document.options
        texts = [*FileWords.of(options).booleans]
        if options.locale:
            texts += texts_of(find_locale(options.locale))
        yield from report(unmarked(chunks, texts), document, tally)
