"""Prepares the statement of an export: in the event loop if that is known to be quick, else in a thread."""

import asyncio
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy.util import LRUCache

from stream_app.exports.formats.base import Document, Format
from stream_app.exports.queries.presentation import presented, title_of
from stream_app.exports.queries.row_query import CopyStatement, RowQuery, row_query
from stream_app.exports.reading.row_range import RowRange
from stream_app.exports.tables.source_table import SourceTable
from stream_app.time_zones import TimeZone
from streaming_exporter.events import ExportRequest

FEW_VALUES = 100
"""A request with more values is prepared in a thread: they take long to check and to render."""

_known: LRUCache[Any, bool] = LRUCache(50)
"""What was prepared before, so that the SQL of its columns and its format is at hand."""


async def prepare_statement(
    table: SourceTable,
    request: ExportRequest,
    file_format: Format,
    zone: TimeZone | None,
    part: RowRange | None = None,
) -> tuple[RowQuery, CopyStatement]:
    """Return the query for the rows of ``request``, and the statement that renders them.

    Args:
        table: the table as the caller of the request sees it.
        request: the request with its settled options.
        file_format: the format.
        zone: the time zone of the file.
        part: the part of the rows that is wanted.

    Raises:
        Rejected: as :func:`~stream_app.exports.queries.row_query.row_query` and :meth:`.CopyStatement.of`.
    """

    def prepare() -> tuple[RowQuery, CopyStatement]:
        query = presented(row_query(table, request), table.dataset, request.options, file_format, zone)
        if part is not None:
            query = part.apply(query)
        return query, CopyStatement.of(query, file_format, request.options)

    named = None if request.columns is None else tuple(request.columns)
    kind = (table.dataset.name, table.fingerprint, table.columns, file_format.name, request.options, named)
    if kind in _known and has_few_values(request):
        return prepare()
    found = await asyncio.to_thread(prepare)
    _known[kind] = True
    return found


def document_of(
    table: SourceTable, request: ExportRequest, query: RowQuery, as_of: datetime, target_bytes: int | None
) -> Document:
    """Return the facts about a file with the rows of ``query``, as formats need them.

    Args:
        table: the table as the caller of the request sees it.
        request: the request with its settled options.
        query: reads the rows.
        as_of: the time of their snapshot.
        target_bytes: the size at which the file ends; ``None`` without a limit.
    """
    return Document(
        dataset=table.dataset.name,
        columns=query.columns,
        options=request.options,
        as_of=as_of,
        filters=request.filters,
        order=table.visible_order,
        template=table.dataset.template,
        template_header=table.dataset.template_header,
        template_columns=table.template_columns or tuple(item.name for item in table.columns),
        target_bytes=target_bytes,
        title=title_of(table.dataset, request.options),
        name=request.name or "",
        filter_kinds={
            name: table.all_columns[name].kind for name in request.filters if name in table.all_columns
        },
    )


def has_few_values(request: ExportRequest) -> bool:
    """Return whether filters, parameters and claims have at most :data:`FEW_VALUES` values together.

    The values of a claim are conditions too: a dataset can give the rows of each value of one.
    """
    return sum(map(_values, (request.filters, request.parameters, request.claims))) <= FEW_VALUES


def _values(value: Any) -> int:
    """Return the number of values; a long text counts as many."""
    if isinstance(value, Mapping):
        return sum(map(_values, value.values()))
    if isinstance(value, list):
        return len(value) if len(value) > FEW_VALUES else sum(map(_values, value))
    return 1 + len(value) // 1_000 if isinstance(value, str) else 1
