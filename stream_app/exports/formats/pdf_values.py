"""Which rows are small enough to be laid out in bounded memory."""

from collections.abc import Iterator, Sequence

from stream_app.errors import value_too_large
from stream_app.exports.columns import Column
from stream_app.exports.formats.pdf_text import unescaped

ROW_BYTES = 4 * 2**20
"""The most bytes of one row, as COPY writes it: a thousand pages of text.

Laying it out takes up to 30 times as much: each character that is not shown takes six others.
"""

SHOWN_KEY = 100
"""Characters of a key in an error."""


def small_rows(chunks: Iterator[bytes], columns: Sequence[Column]) -> Iterator[bytes]:
    """``chunks``, which are COPY's text.

    Raises:
        Rejected: a row has more than :data:`ROW_BYTES`.
    """
    for chunk in chunks:
        if len(chunk) > ROW_BYTES:
            _check(chunk, columns)
        yield chunk


def _check(chunk: bytes, columns: Sequence[Column]) -> None:
    start = 0
    while start < len(chunk):
        end = chunk.index(b"\n", start)
        if end - start > ROW_BYTES:
            values = chunk[start:end].split(b"\t")
            size, number = max((len(value), number) for number, value in enumerate(values))
            raise value_too_large(columns[number].name, _row(values, columns), size, ROW_BYTES, "pdf")
        start = end + 1


def _row(values: Sequence[bytes], columns: Sequence[Column]) -> str:
    """What tells a row from others: its first column is the key in most tables."""
    key = unescaped(values[0][: 4 * SHOWN_KEY].decode(errors="ignore"))[:SHOWN_KEY]
    return f"the row whose {columns[0].name} is {key!r}"
