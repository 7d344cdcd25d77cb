"""PDF: a report with a title and a table, for people; see ``pdf_report`` for what it looks like.

A value is the text that csv shows. NULL is a grey dash, an empty text is nothing. Line breaks in a value are
line breaks in its cell, a tab is four spaces. A character that no font here has is written as ``\\u{1f600}``
and counted in the manifest as ``replaced_characters``; so is any other control character.
"""

from collections.abc import Iterator, Sequence

from sqlalchemy import select

from stream_app.exports.columns import Column
from stream_app.exports.formats.base import ROWS, CopySelect, Document, Format, Tally
from stream_app.exports.formats.rendering import as_text
from streaming_exporter.events import Options


class PdfFormat(Format):
    """``pdf``."""

    name = "pdf"
    extension = "pdf"
    media_type = "application/pdf"
    description = "a printable table with title, filters and page numbers; title and page_size are options"
    row_bytes = 4 * 2**20  # a thousand pages; laying it out takes up to 30 times as much
    own_process = True

    def copy_select(self, columns: Sequence[Column], options: Options) -> CopySelect:
        """COPY's own text format: it splits at tabs and line feeds, whatever the values hold."""
        cells = (as_text(item) for item in columns)
        return CopySelect(select(*cells).select_from(ROWS), {"format": "text"})

    def frame(self, chunks: Iterator[bytes], document: Document, tally: Tally) -> Iterator[bytes]:
        """Pages as they fill up, then the fonts."""
        # Whoever only lists formats, like the API, need not load fonts.
        from stream_app.exports.formats.pdf.report import report

        yield from report(chunks, document, tally)
