"""JSON: an array with one object on each line; and NDJSON: the same lines without the array."""

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import ColumnElement, func, literal_column, select

from stream_app.exports.columns import Column, Kind
from stream_app.exports.formats.base import (
    RAW_LINES,
    ROWS,
    CopySelect,
    Document,
    Format,
    Tally,
    cell,
    line_starts,
)
from stream_app.exports.formats.rendering import base64, column_sql, is_own_json, json_sql
from streaming_exporter.events import Options


class NdjsonFormat(Format):
    """The format ``ndjson``."""

    name = "ndjson"
    extension = "ndjson"
    media_type = "application/x-ndjson"
    description = "one JSON object on each line"
    compressible = True
    holds_rows = False
    closing_bytes = 1024

    def copy_select(self, columns: Sequence[Column], options: Options) -> CopySelect:
        """Return one JSON object for each row."""
        values = (_value(item).label(cell(item).name) for item in columns)
        row = select(*values).select_from(ROWS).subquery("row")
        line = func.row_to_json(literal_column('"row".*'))
        return CopySelect(select(line).select_from(row), RAW_LINES)

    def frame(self, chunks: Iterator[bytes], document: Document, tally: Tally) -> Iterator[bytes]:
        """Yield the lines, one for each object."""
        for chunk in chunks:
            lines = _whole_lines(chunk)
            tally.rows += len(line_starts(lines))
            yield lines


class JsonFormat(NdjsonFormat):
    """The format ``json``."""

    name = "json"
    extension = "json"
    media_type = "application/json"
    description = "one array of objects, one object on each line"

    def frame(self, chunks: Iterator[bytes], document: Document, tally: Tally) -> Iterator[bytes]:
        """Yield the lines as an array."""
        opening = b"[\n"
        for chunk in super().frame(chunks, document, tally):
            yield opening
            yield chunk[:-1].replace(b"\n", b",\n")
            opening = b",\n"
        yield b"[]\n" if opening == b"[\n" else b"\n]\n"


def _value(item: Column) -> ColumnElement[Any]:
    """Return the value in a form whose JSON is the one of ``docs/types.md``."""
    value = cell(item)
    if item.kind is Kind.BYTES:
        return base64(value)
    if is_own_json(item.data_type):
        return value
    return literal_column(json_sql(column_sql(item), item.data_type))


def _whole_lines(chunk: bytes) -> bytes:
    """Return the chunk with one line for each object.

    A stored ``json`` can have line breaks between its tokens. Within texts, control characters are escaped.
    So COPY quotes only objects with line breaks, and its quote never occurs in an object. That is true for
    every type, at every depth.
    """
    if b"\t" in chunk:
        chunk = chunk.replace(b"\t", b" ")
    if QUOTE not in chunk:
        return chunk
    pieces = chunk.split(QUOTE)
    pieces[1::2] = [piece.translate(_SPACES) for piece in pieces[1::2]]
    return b"".join(pieces)


QUOTE = RAW_LINES["quote"].encode()

_SPACES = bytes.maketrans(b"\r\n", b"  ")
