"""Names the value of a filter or parameter that PostgreSQL refuses.

The service itself checks values of the usual types. Those of other types, such as ``inet``, ranges or types
of extensions, only PostgreSQL can read, and only it knows whether its encoding has all characters of a text.
Its message stays in the log, so further queries find the value.
"""

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from itertools import islice
from typing import Any

from stream_app.datasets.typed_values import Kind, value_mismatch
from stream_app.exports.columns import Column
from stream_app.exports.filters.conditions import TEXTUAL
from stream_app.exports.sources.errors import QUERY_REFUSED
from stream_app.exports.sources.source import Source
from stream_app.exports.tables.source_table import SourceTable
from streaming_exporter.errors import ExporterError, Rejected
from streaming_exporter.events import ExportRequest

MAX_TRIED = 100
"""Values that are tried, each by a query."""

_TRIED_KINDS = (Kind.OTHER, Kind.INTERVAL)
"""Kinds whose values only PostgreSQL can read."""

_TEXTS = (Kind.TEXT, Kind.ENUM)
"""Kinds whose values can have characters that the encoding of the database lacks."""

_TEXT = "pg_catalog.text"
_OF_THE_ENCODING = "only characters that the encoding of the source database has"


@asynccontextmanager
async def naming_refused_value(
    source: Source, table: SourceTable, request: ExportRequest
) -> AsyncIterator[None]:
    """Replace the error of a query that PostgreSQL refuses, if a value of the request is the reason.

    Raises:
        Rejected: it names the filter or parameter, the value and the type.
    """
    try:
        yield
    except Rejected as error:
        if error.code != QUERY_REFUSED:
            raise
        found = None
        with suppress(ExporterError):
            found = await _refused_parameter(source, request.parameters)
            found = found or await _refused_value(source, table, request.filters)
        if found is None:
            raise
        raise found from error


async def _refused_parameter(source: Source, parameters: Mapping[str, Any]) -> Rejected | None:
    for name, value in parameters.items():
        if not isinstance(value, str) or value.isascii():
            continue
        if not await _is_read(source, value, _TEXT):
            error = value_mismatch(f"parameters.{name}", value, _OF_THE_ENCODING)
            error.code = "bad_parameter_value"
            return error
    return None


async def _refused_value(source: Source, table: SourceTable, filters: Mapping[str, Any]) -> Rejected | None:
    for field, column, value in islice(_values(table, filters), MAX_TRIED):
        wanted, target = f"a value of type {column.type}", column.cast or column.type
        if column.kind in _TEXTS:
            wanted, target = _OF_THE_ENCODING, _TEXT
        if not await _is_read(source, value, target):
            return value_mismatch(field, value, wanted)
    return None


async def _is_read(source: Source, value: str, target: str) -> bool:
    """Return whether PostgreSQL reads ``value`` as a value of the type ``target``."""
    try:
        await source.fetch(f"SELECT CAST($1::{_TEXT} AS {target})", value)
    except Rejected:
        return False
    return True


def _values(table: SourceTable, filters: Mapping[str, Any]) -> Iterator[tuple[str, Column, str]]:
    """Yield the values that only PostgreSQL can read or convert to its encoding, with their places."""
    for name, wanted in filters.items():
        column = table.filterable.get(name)
        if column is None or column.kind not in (*_TRIED_KINDS, *_TEXTS):
            continue
        for operator, value in (wanted if isinstance(wanted, dict) else {"eq": wanted}).items():
            field = f"filters.{name}.{operator}" if isinstance(wanted, dict) else f"filters.{name}"
            for item in value if isinstance(value, list) else (value,):
                if not isinstance(item, str):
                    continue
                if not item.isascii() if column.kind in _TEXTS else operator not in TEXTUAL:
                    yield field, column, item
