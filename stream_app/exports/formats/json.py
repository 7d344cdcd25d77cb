"""JSON: one array of objects, one object a line; and the same lines alone."""

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Text, cast, func, literal_column, select
from sqlalchemy.dialects.postgresql import JSON

from stream_app.events import Options
from stream_app.exports.columns import Column, Kind
from stream_app.exports.formats.base import RAW_LINES, ROWS, Document, Format, Projection, Tally, cell
from stream_app.exports.formats.sql import base64


class NdjsonFormat(Format):
    """``ndjson``."""

    name = "ndjson"
    extension = "ndjson"
    media_type = "application/x-ndjson"
    description = "one JSON object a line"
    compressible = True

    def project(self, columns: Sequence[Column], options: Options) -> Projection:
        """One finished object for each row.

        JSON escapes every control character, so no line is ever quoted or broken by COPY.
        """
        values = (_value(item).label(cell(item).name) for item in columns)
        row = select(*values).select_from(ROWS).subquery("row")
        line = func.row_to_json(literal_column('"row".*'))
        return Projection(select(line).select_from(row), RAW_LINES)

    def frame(self, chunks: Iterator[bytes], document: Document, tally: Tally) -> Iterator[bytes]:
        """The lines as they come."""
        for chunk in chunks:
            tally.rows += chunk.count(b"\n")
            yield chunk


class JsonFormat(NdjsonFormat):
    """``json``."""

    name = "json"
    extension = "json"
    media_type = "application/json"
    description = "one array of objects, one object a line"

    def frame(self, chunks: Iterator[bytes], document: Document, tally: Tally) -> Iterator[bytes]:
        """The lines, joined by commas, in brackets."""
        opening = b"[\n"
        for chunk in super().frame(chunks, document, tally):
            yield opening
            yield chunk[:-1].replace(b"\n", b",\n")
            opening = b",\n"
        yield b"[]\n" if opening == b"[\n" else b"\n]\n"


def _value(item: Column) -> ColumnElement[Any]:
    """The value as something whose JSON is what a reader expects.

    The text of a ``json`` column is kept as it was stored, only its line breaks (which valid JSON has between
    tokens alone) become spaces.
    """
    value = cell(item)
    if item.kind is Kind.BYTES:
        return base64(value)
    if item.base == "json" and item.kind is Kind.JSON:
        return cast(func.translate(cast(value, Text), "\r\n\t", "   "), JSON)
    return value
