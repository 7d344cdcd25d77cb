"""Finds the row above the size limit, so that the error can name it."""

import asyncio
from contextlib import suppress
from functools import partial

from stream_app.exports.formats.base import Format
from stream_app.exports.queries.row_query import row_query
from stream_app.exports.reading.largest_row_sql import largest_row_query, longest_row_query, row_too_large
from stream_app.exports.sources.source import Source
from stream_app.exports.tables.source_table import SourceTable
from stream_app.exports.task import ExportTask
from streaming_exporter.errors import ExporterError, Rejected
from streaming_exporter.events import ExportRequest

LARGEST_SECONDS = 60
"""Time limit of the search."""


async def find_too_large_row(
    task: ExportTask, source: Source, table: SourceTable, request: ExportRequest, file_format: Format
) -> Rejected | None:
    """Find the row that was too long and return the error that names it; ``None`` if it is not found.

    The driver does not receive any part of such a row, so another query has to find it.
    """
    named = request.columns or [item.name for item in table.columns]
    key = [item for item in table.columns if item.name in table.primary_key]
    wanted = [*named, *(item.name for item in key if item.name not in named)]
    query = row_query(table, request.model_copy(update={"columns": wanted}))
    with suppress(ExporterError, TimeoutError):
        async with source.snapshot(
            f"exporter {task.name} largest row",
            search_path=table.search_path,
            seconds=LARGEST_SECONDS,
            session=query.session,
        ) as snapshot:
            found = await snapshot.first(await asyncio.to_thread(largest_row_query, query, key))
            if found is not None and sum(found["sizes"]) <= file_format.row_bytes:
                measure = partial(longest_row_query, query, key, file_format, request.options)
                found = await snapshot.first(await asyncio.to_thread(measure))
            if found is not None:
                return row_too_large(
                    query, key, (found["key"], found["sizes"]), file_format.row_bytes, file_format.name
                )
    return None
