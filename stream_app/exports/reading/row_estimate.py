"""Estimates how many rows a running export has, for its progress."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from stream_app.exports.queries.row_query import RowQuery
from stream_app.exports.queries.sql_text import render
from stream_app.exports.sources.source import Source
from stream_app.exports.tables.rights import shows_planner_numbers
from stream_app.exports.tables.source_table import SourceTable
from stream_app.exports.task import ESTIMATE_AFTER, ExportProgress, ExportTask
from streaming_exporter.errors import ExporterError

ESTIMATE_SECONDS = 2
"""Time limit for PostgreSQL to plan the query, or to count its rows."""

COUNTED_ROWS = 1_000_000
"""A user's own rows are counted up to this number. If there are more, there is no estimate."""


@asynccontextmanager
async def estimate_while_running(
    task: ExportTask, source: Source, table: SourceTable, query: RowQuery, progress: ExportProgress
) -> AsyncIterator[None]:
    """Estimate the rows of the export that runs in the block, if it takes long."""

    async def estimate() -> None:
        if progress.estimated_rows is None and task.part is None:
            progress.estimated_rows = await estimated_rows(task, source, table, query)

    begun: set[asyncio.Task[None]] = set()
    loop = asyncio.get_running_loop()
    timer = loop.call_later(ESTIMATE_AFTER, lambda: begun.add(loop.create_task(estimate())))
    try:
        yield
    finally:
        timer.cancel()
        for running in begun:
            running.cancel()
            await asyncio.wait({running})


async def estimated_rows(task: ExportTask, source: Source, table: SourceTable, query: RowQuery) -> int | None:
    """Estimate the rows of a running export over another connection, because its own is busy.

    A user's own rows are counted, because the planner's estimate would reveal facts about the rows of other
    users. All estimates of a source share one connection. An estimate that waits for a lock soon gives up.

    Returns:
        The number of rows; ``None`` if it is not known in time.
    """
    with suppress(ExporterError, TimeoutError):  # the export itself reports the same error
        async with (
            source.estimating,
            asyncio.timeout(ESTIMATE_SECONDS),
            source.snapshot(
                f"exporter {task.name} estimate",
                search_path=table.search_path,
                seconds=ESTIMATE_SECONDS,
                lock_seconds=ESTIMATE_SECONDS / 2,
                session=query.session,
            ) as snapshot,
        ):
            sql = await asyncio.to_thread(render, query.select.order_by(None))
            if shows_planner_numbers(table, task.request):
                return await snapshot.estimate(sql)
            count = await snapshot.count(sql, COUNTED_ROWS + 1)
            return count if count <= COUNTED_ROWS else None
    return None
