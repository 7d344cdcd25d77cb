"""JSON: an array with one object on each line; and NDJSON: the same lines without the array."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from sqlalchemy import ColumnElement, func, literal_column, select
from sqlalchemy.sql.elements import quoted_name

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
from stream_app.exports.formats.json_objects import ESCAPED, Form, ObjectWriter
from stream_app.exports.formats.rendering import base64, column_sql, is_json_text, is_own_json, json_sql
from stream_app.exports.formats.zoned import zoned_text_sql
from streaming_exporter.events import Options

FLAT = 5
"""PostgreSQL makes the objects if more than one of this number of columns has JSON.

Its JSON functions take four times as long for a number or a text as COPY does. For JSON, arrays and composite
types COPY saves nothing, and it doubles their backslashes.
"""


MAX_NAME_BYTES = 63
"""Bytes of a name in PostgreSQL."""


class NdjsonFormat(Format):
    """The format ``ndjson``."""

    name = "ndjson"
    extension = "ndjson"
    media_type = "application/x-ndjson"
    description = "JSON Lines: one record on each line, for programs"
    compressible = True
    own_options = frozenset()
    holds_rows = False
    unique_titles = True
    closing_bytes = 1024

    def growth_of(self, columns: Sequence[Column]) -> float:
        """Return ``growth`` for rows with ``columns``: names can be much longer than the values."""
        if not is_flat(columns):
            return self.growth
        # A row has at least one byte for each column, and a control character of one byte becomes six.
        return 6 + len(_object_writer(columns, self.row_bytes, b",\n").empty_row) / len(columns)

    def copy_select(self, columns: Sequence[Column], options: Options) -> CopySelect:
        """Return each row as one JSON object, or its values for :class:`.ObjectWriter`."""
        if not is_flat(columns):
            return _objects_by_postgres(columns)
        values = (
            # Unlike COPY, the JSON functions write these values as JSON.
            func.to_json(_value(item)) if _is_json(item) and item.kind is not Kind.JSON else _flat_value(item)
            for item in columns
        )
        return CopySelect(select(*values).select_from(ROWS), {"format": "text"}, ESCAPED)

    def frame(self, chunks: Iterator[bytes], document: Document, tally: Tally) -> Iterator[bytes]:
        """Yield the lines, one for each object."""
        return self._objects(chunks, document, tally, b"\n")

    def _objects(
        self, chunks: Iterator[bytes], document: Document, tally: Tally, separator: bytes
    ) -> Iterator[bytes]:
        """Yield the objects of each chunk, with the separator after each object."""
        write = _writer(document.columns, self.row_bytes, separator)
        for chunk in chunks:
            for objects, rows in write(chunk):
                tally.rows += rows
                yield objects


class JsonFormat(NdjsonFormat):
    """The format ``json``."""

    name = "json"
    extension = "json"
    media_type = "application/json"
    description = "JSON: one list of records, for programs"

    def frame(self, chunks: Iterator[bytes], document: Document, tally: Tally) -> Iterator[bytes]:
        """Yield the lines as an array."""
        opening, separator = b"[\n", b",\n"
        for objects in self._objects(chunks, document, tally, separator):
            yield opening
            yield objects[: -len(separator)]
            opening = separator
        yield b"\n]\n" if opening == separator else b"[]\n"


def is_flat(columns: Sequence[Column]) -> bool:
    """Return whether PostgreSQL writes plain text, and :class:`.ObjectWriter` makes the objects."""
    return sum(map(_is_json, columns)) * FLAT <= len(columns) or not all(map(_is_alias, columns))


def _is_alias(item: Column) -> bool:
    """Return whether the title can be a name in SQL.

    PostgreSQL cuts longer names, and refuses a statement with characters that the encoding of its database
    lacks. It has the column's own name.
    """
    is_known = item.title.isascii() or item.encoding == "UTF8"
    return item.title == item.name or (is_known and len(item.title.encode()) <= MAX_NAME_BYTES)


def _writer(
    columns: Sequence[Column], limit: int, separator: bytes
) -> Callable[[bytes], Iterator[tuple[bytes, int]]]:
    """Return a function for the objects of a chunk, with the separator after each, and for their number."""
    if is_flat(columns):
        return _object_writer(columns, limit, separator).write

    def write(chunk: bytes) -> Iterator[tuple[bytes, int]]:
        lines = _whole_lines(chunk)
        yield lines if separator == b"\n" else lines.replace(b"\n", separator), len(line_starts(lines))

    return write


def _object_writer(columns: Sequence[Column], limit: int, separator: bytes) -> ObjectWriter:
    return ObjectWriter([item.title for item in columns], list(map(_form, columns)), limit, separator)


def _form(item: Column) -> Form:
    if _is_json(item):
        return Form.JSON
    # The offset of a local time is complete.
    return Form.TIMESTAMP if item.zone is not None else _FORMS.get(item.kind, Form.TEXT)


_FORMS = {
    Kind.BOOLEAN: Form.BOOLEAN,
    Kind.INTEGER: Form.INTEGER,
    Kind.NUMERIC: Form.NUMBER,
    Kind.FLOAT: Form.NUMBER,
    Kind.TIMESTAMP: Form.TIMESTAMP,
    Kind.TIMESTAMPTZ: Form.TIMESTAMPTZ,
    **dict.fromkeys((Kind.UUID, Kind.DATE, Kind.TIME, Kind.INTERVAL, Kind.BYTES), Form.WORD),
}


def _is_json(item: Column) -> bool:
    """Return whether the values are JSON values with parts. Only views of the system have ``anyarray``."""
    return is_json_text(item.data_type) or item.base == "anyarray"


def _value(item: Column) -> ColumnElement[Any]:
    """Return the value in a form whose JSON is the one of ``docs/types.md``."""
    value = cell(item)
    if item.kind is Kind.BYTES:
        return base64(value)
    if is_own_json(item.data_type):
        return value
    return literal_column(json_sql(column_sql(item), item.data_type))


def _flat_value(item: Column) -> ColumnElement[Any]:
    if item.zone is not None and item.kind is Kind.TIMESTAMPTZ:
        # ObjectWriter replaces the space, many at a time.
        return literal_column(zoned_text_sql(column_sql(item), item.zone, with_space=True))
    return _value(item)


def _objects_by_postgres(columns: Sequence[Column]) -> CopySelect:
    values = (_value(item).label(quoted_name(item.title, quote=True)) for item in columns)
    row = select(*values).select_from(ROWS).subquery("row")
    line = func.row_to_json(literal_column('"row".*'))
    return CopySelect(select(line).select_from(row), RAW_LINES, ESCAPED)


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
