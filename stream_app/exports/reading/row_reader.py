"""Reads the rows of one export: over one connection, or over several if there are many rows."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from secrets import token_hex
from typing import Any, Self

import structlog

from stream_app.exports.formats.base import Format
from stream_app.exports.queries.row_query import CopyStatement, RowQuery
from stream_app.exports.reading.parallel_reader import ParallelReader
from stream_app.exports.reading.ranges import plan_ranges
from stream_app.exports.reading.row_range import RowRange, narrowed
from stream_app.exports.reading.snapshot_checks import check_storage
from stream_app.exports.sources.snapshot import Sink, Snapshot
from stream_app.exports.sources.source import Source
from stream_app.exports.tables.source_table import SourceTable
from stream_app.settings import Settings
from streaming_exporter.events import Options

log = structlog.get_logger(__name__)

RANGES_OF_A_STREAM = 8
"""The fewest ranges for each stream: at the end of the export the streams wait for the last range."""

LOCK_SECONDS = 2
"""How long another stream waits for the lock of the table. Without it, it does not join."""

_CONDITION = f"/* {token_hex(16)} */ true"
"""The place of a range's condition in the statement that all ranges share. It is a secret of this process, so
no value of a request has the same text."""


@dataclass(frozen=True, slots=True)
class ParallelReading:
    """When, and over how many connections, an export is read.

    Attributes:
        streams: the largest number of connections of one export.
        min_bytes: an export with fewer bytes is read over one connection.
        range_bytes: bytes of the ranges that the rows are cut into.
        buffer_bytes: bytes that each connection reads ahead.
    """

    streams: int = 1
    min_bytes: int = 32 * 2**20
    range_bytes: int = 4 * 2**20
    buffer_bytes: int = 8 * 2**20

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Read the settings."""
        return cls(settings.source_streams, settings.parallel_min_bytes)


@dataclass(frozen=True, slots=True)
class RowReader:
    """The rows of one export.

    Attributes:
        name: names the export in the sessions of the source database.
        statement: reads all rows.
    """

    source: Source
    table: SourceTable
    query: RowQuery
    file_format: Format
    options: Options
    statement: CopyStatement
    reading: ParallelReading
    name: str

    async def read(self, snapshot: Snapshot, sink: Sink) -> int:
        """Read the rows into ``sink``, in their order, and return their number.

        Raises:
            MessageTooLong: a row exceeds the format's limit.
            SnapshotNotShared: the server cannot share snapshots. No row was read.
            Rejected: the time is over.
            Retryable: the table was truncated or rewritten after the snapshot was taken.
        """
        ranges = await self._ranges(snapshot)
        if len(ranges) < 2:
            rows = await self._copy(snapshot, self.statement.sql, self.statement.copy, sink)
            # A single table that was truncated behind the snapshot has no row at all. So a usual export needs
            # no further round trip.
            if rows == 0 or not self.table.can_be_cut:
                await check_storage(snapshot)
            return rows
        await check_storage(snapshot)  # to plan the ranges has locked the table
        whole = await asyncio.to_thread(self._statement_with_condition)
        log.info("export.cut", ranges=len(ranges))

        async def read(snapshot: Snapshot, one: RowRange, sink: Sink) -> int:
            sql = whole.sql.replace(_CONDITION, one.condition)
            return await self._copy(snapshot, sql, whole.copy, sink)

        reader = ParallelReader(
            ranges,
            read,
            self._join,
            streams=self.reading.streams,
            buffer_bytes=self.reading.buffer_bytes,
        )
        return await reader.run(snapshot, sink)

    async def _ranges(self, snapshot: Snapshot) -> Sequence[RowRange]:
        is_alone = self.reading.streams < 2 or not self.source.pool.free_connections
        if is_alone or not self.source.can_share_snapshots or self.file_format.own_process:
            return ()
        return await plan_ranges(
            snapshot,
            self.table,
            self.query,
            target_bytes=self.reading.range_bytes,
            min_bytes=self.reading.min_bytes,
            at_least=RANGES_OF_A_STREAM * self.reading.streams,
        )

    def _statement_with_condition(self) -> CopyStatement:
        """Return the statement with a place for the condition of a range: to render it takes long."""
        return CopyStatement.of(narrowed(self.query, _CONDITION), self.file_format, self.options)

    def _join(self, shared: str, number: int) -> AbstractAsyncContextManager[Snapshot]:
        return self.source.snapshot(
            f"exporter {self.name} stream {number}",
            search_path=self.table.search_path,
            shared=shared,
            only_free=True,
            # If another session waits to change the table, a reader has to wait behind it, and that session
            # waits for the first stream. So each stream has its lock before it takes a range.
            initial_sql=self.table.locking_sql,
            lock_seconds=LOCK_SECONDS,
            session=self.query.session,
        )

    async def _copy(self, snapshot: Snapshot, sql: str, copy: Mapping[str, Any], sink: Sink) -> int:
        return await snapshot.copy(sql, copy, sink, max_row_bytes=self.file_format.row_bytes)
