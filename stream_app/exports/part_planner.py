"""Plans the parts of a large split export: ranges of its rows, which any worker can export.

The snapshot of the plan stays open, and the parts share it, so all files have the data of one moment.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial

import structlog

from stream_app.datasets.bundles import Bundle
from stream_app.datasets.caller import Caller
from stream_app.exports.columns import quote_text
from stream_app.exports.files.compression import compression_for
from stream_app.exports.pipeline import Exporter
from stream_app.exports.queries.deletions import has_deletions
from stream_app.exports.queries.row_query import RowQuery, row_query
from stream_app.exports.queries.sql_text import render
from stream_app.exports.queries.windows import with_window
from stream_app.exports.reading.ranges import plan_ranges
from stream_app.exports.reading.row_range import RowRange
from stream_app.exports.reading.snapshot_checks import check_row_count, check_storage, check_table
from stream_app.exports.sources.errors import SnapshotNotShared
from stream_app.exports.sources.registry import SourceFinder
from stream_app.exports.sources.session import IDLE_SECONDS
from stream_app.exports.sources.snapshot import Snapshot
from stream_app.exports.sources.source import Source
from stream_app.exports.tables.rights import shows_planner_numbers, use_visible
from stream_app.exports.tables.source_table import SourceTable
from stream_app.exports.task import ExportTask
from streaming_exporter.errors import Rejected, Retryable
from streaming_exporter.events import ExportRequest

log = structlog.get_logger(__name__)

SMALLEST_PART = 64 * 2**20
LARGEST_PART = 2 * 2**30
"""Bytes of rows of a part, where the size of the files allows it. A lost worker costs this much work."""

PARTS_AT_LEAST = 12
"""The fewest parts of an export. Two, three, four and six workers, with a slot each, share them evenly."""

MOST_PARTS = 10_000
"""The most parts of an export: each is a row of the state database and a claim. Larger exports have larger
parts."""

FILLED = 0.9
"""The part of a file that the rows of one part fill: estimates are not exact, and a file can be too small."""

DENSE_FORMATS = frozenset({"excel", "parquet"})
DENSITY = 4
"""Bytes of rows for each byte of a file that is compressed."""

USUAL_ROW = 100
"""Bytes of a row, if PostgreSQL has no statistics."""

KEEP_ALIVE_TIMEOUT = 10.0
"""Seconds that the server has to answer."""

_PARTS_WAIT = """
SELECT 1
FROM pg_catalog.pg_stat_activity AS part
CROSS JOIN LATERAL pg_catalog.unnest(pg_catalog.pg_blocking_pids(part.pid)) AS change (pid)
WHERE pg_catalog.starts_with(part.application_name, 'exporter ' || {name} || ' part ')
AND part.wait_event_type = 'Lock'
AND pg_catalog.pg_backend_pid() = ANY (pg_catalog.pg_blocking_pids(change.pid))
LIMIT 1
"""
"""Whether a part waits for a lock behind a session that waits for this transaction.

PostgreSQL does not see this deadlock, because the holder waits for the parts outside of the server.
"""


@dataclass(frozen=True, slots=True)
class OpenPlan:
    """The parts of an export.

    Attributes:
        ranges: the range of each part, in the order of the rows.
        shared: the id of the snapshot that the parts share; ``None`` if each part takes its own.
        as_of: the time of that snapshot.
        estimated_rows: the planner's estimate, where the user can know it.
        snapshot: the shared snapshot.
        name: name of the export; the sessions of its parts begin with it.
        source: the source of the exports.
    """

    ranges: Sequence[RowRange]
    shared: str | None = None
    as_of: datetime | None = None
    estimated_rows: int | None = None
    snapshot: Snapshot | None = None
    name: str = ""
    source: Source | None = None

    def cannot_share(self) -> None:
        """Note that the source's transactions cannot share snapshots. No further export shares one."""
        if self.source is not None:
            self.source.can_share_snapshots = False

    async def keep_alive(self) -> None:
        """Keep the snapshot's transaction open: the server ends one that is idle for long.

        Raises:
            Retryable: the snapshot is lost, or its transaction blocks a change of the table that parts wait
                for, so neither the change nor the parts could continue.
        """
        if self.snapshot is None:
            return
        try:
            async with asyncio.timeout(KEEP_ALIVE_TIMEOUT):
                # In a transaction pg_stat_activity stays as it was when it was read first.
                await self.snapshot.fetch("SELECT pg_catalog.pg_stat_clear_snapshot()")
                is_blocking = await self.snapshot.fetch(_PARTS_WAIT.format(name=quote_text(self.name)))
        except Exception as error:
            raise Retryable(f"the snapshot of the export is lost: {error}", code="snapshot_lost") from error
        if is_blocking:
            raise Retryable(
                "another session waits to change the table, and parts of the export wait behind it",
                code="table_locked",
            )

    async def end(self) -> None:
        """End the snapshot's transaction, when no part needs it any more."""
        if self.snapshot is not None:
            await self.snapshot.end()


@dataclass(frozen=True, slots=True)
class PartPlanner:
    """Plans parts.

    Attributes:
        exporter: runs exports.
        sources: connections for the snapshots of plans. They are separate from those of exports: otherwise an
            export that waits for a connection could wait for a plan that waits for the export.
        min_bytes: an export with fewer bytes has no parts.
    """

    exporter: Exporter
    sources: SourceFinder
    min_bytes: int

    @asynccontextmanager
    async def open(self, task: ExportTask) -> AsyncIterator[OpenPlan | None]:
        """Plan the parts of an export, and keep their snapshot open for the block.

        ``None`` means that the export has no parts: it is small, or its rows cannot be cut, or its source has
        no connections for that.

        Raises:
            Rejected, Retryable: as :meth:`~stream_app.exports.pipeline.Exporter.run` does.
        """
        dataset = self.exporter.datasets.get(task.request.export_type)
        if dataset is None or task.request.format not in self.exporter.formats:
            yield None  # Exporter.run raises the error for it
            return
        if isinstance(dataset, Bundle) or has_deletions(dataset, task.window):
            yield None  # a bundle has no table of its own, and deletions are no part of the rows
            return
        source = self.sources.source_for(dataset)
        # One connection holds the snapshot, another one tests it.
        if source.pool.free_connections < (1 if task.request.consistency == "part" else 2):
            yield None
            return
        async with AsyncExitStack() as stack:
            caller = Caller.of(task.request)
            plan = partial(self._plan, stack, source, task)
            yield await use_visible(self.exporter.catalog, dataset, caller, plan)

    async def _plan(
        self, stack: AsyncExitStack, source: Source, task: ExportTask, table: SourceTable
    ) -> OpenPlan | None:
        request = table.resolve(with_window(table, task.request, task.window), task.requested_at)
        query = await asyncio.to_thread(row_query, table, request)
        snapshot = await stack.enter_async_context(
            source.snapshot(
                f"exporter {task.name} parts",
                search_path=table.search_path,
                initial_sql=table.fingerprint_sql,
                session=query.session,
            )
        )
        plan = None
        try:
            plan = await self._plan_in(source, snapshot, task, table, request, query)
        finally:
            if plan is None or plan.shared is None:
                await stack.aclose()
        return plan

    async def _plan_in(
        self,
        source: Source,
        snapshot: Snapshot,
        task: ExportTask,
        table: SourceTable,
        request: ExportRequest,
        query: RowQuery,
    ) -> OpenPlan | None:
        exporter, has_own_snapshots = self.exporter, request.consistency == "part"
        export_source = exporter.sources.source_for(table.dataset)
        if not has_own_snapshots and not export_source.can_share_snapshots:
            return None
        await check_table(snapshot, table, task)
        ranges = await plan_ranges(
            snapshot,
            table,
            query,
            target_bytes=self._part_bytes(table, request),
            min_bytes=self.min_bytes,
            at_least=PARTS_AT_LEAST,
            at_most=min(MOST_PARTS, exporter.limits.max_files),  # each part has a file
        )
        if len(ranges) < 2:
            return None
        await check_storage(snapshot)  # to plan the ranges has locked the table
        await check_row_count(snapshot, query, exporter.limits.of_dataset(table.dataset).of_rows(request))
        estimated = await snapshot.estimate(await asyncio.to_thread(render, query.select.order_by(None)))
        known = estimated if shows_planner_numbers(table, request) else None
        if has_own_snapshots:
            return OpenPlan(ranges, estimated_rows=known)
        shared = await self._share(source, export_source, snapshot, task, query)
        if shared is None:
            return None
        return OpenPlan(ranges, shared, snapshot.as_of, known, snapshot, task.name, export_source)

    async def _share(
        self, source: Source, export_source: Source, snapshot: Snapshot, task: ExportTask, query: RowQuery
    ) -> str | None:
        """Return the id of the snapshot, once another connection could take it; ``None`` if none can."""
        try:
            # A worker that stands still must not keep the snapshot. keep_alive() comes more often.
            shared = await snapshot.export(idle_seconds=IDLE_SECONDS)
            async with source.snapshot(f"exporter {task.name} test", shared=shared, session=query.session):
                return shared
        except SnapshotNotShared as error:
            log.warning("source.snapshot_not_shared", source=source.name, error=str(error))
            export_source.can_share_snapshots = False
        except (Retryable, Rejected) as error:
            # Connections lead to several servers, or there is no second connection.
            log.warning("parts.snapshot_not_shared", error=str(error))
        return None

    def _part_bytes(self, table: SourceTable, request: ExportRequest) -> int:
        """Return how many bytes of rows a part has, so that it fills one file, or several small ones."""
        split = request.split
        if split is not None and split.rows is not None:
            size = table.size
            row = size.bytes / size.rows if size and size.rows > 0 else USUAL_ROW
            one_file = split.rows * row
        else:
            file_format = self.exporter.formats[request.format]
            is_dense = request.format in DENSE_FORMATS or compression_for(
                request.options.compression, file_format
            )
            asked = LARGEST_PART if split is None or split.bytes is None else split.bytes
            one_file = asked * (DENSITY if is_dense else 1)
        return int(min(max(FILLED * one_file, SMALLEST_PART), LARGEST_PART))
