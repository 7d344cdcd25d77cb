"""The format ``tsv``: values between tabs, as PostgreSQL's COPY and MySQL's LOAD DATA read them.

``\\N`` is NULL. Tabs, line breaks and backslashes in values are escaped by a backslash.
"""

from collections.abc import Iterator, Sequence

from sqlalchemy import select

from stream_app.plugins import (
    INTERFACE,
    ROWS,
    Column,
    CopySelect,
    Document,
    Format,
    Options,
    Tally,
    as_text,
    line_starts,
)

ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


class TsvFormat(Format):
    """Tab-separated values with a line of titles."""

    interface = INTERFACE
    name = "tsv"
    extension = "tsv"
    media_type = "text/tab-separated-values; charset=utf-8"
    description = "values between tabs, for COPY and LOAD DATA"
    compressible = True
    holds_rows = False
    growth = 1.0

    def copy_select(self, columns: Sequence[Column], options: Options) -> CopySelect:
        """Return the values as texts. PostgreSQL escapes them, because that is COPY's text format."""
        texts = (as_text(item).label(f"c{number}") for number, item in enumerate(columns))
        return CopySelect(select(*texts).select_from(ROWS), {"format": "text"})

    def frame(self, chunks: Iterator[bytes], document: Document, tally: Tally) -> Iterator[bytes]:
        """Yield the titles of the columns, then the rows as PostgreSQL has written them."""
        yield ("\t".join(item.title.translate(ESCAPES) for item in document.columns) + "\n").encode()
        for chunk in chunks:
            tally.rows += len(line_starts(chunk))
            yield chunk
