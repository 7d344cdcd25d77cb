"""Reads ranges of rows over several connections at a time, and passes their rows on in order.

Each stream is a connection that takes one range after the other. It keeps the rows of its ranges in a buffer
until it is their turn, and waits while the buffer is full. No stream waits for a connection while others
could go on: the first stream reads all ranges alone if no other joins it.

::

    stream 1  range 1 ──► buffer ─┐
    stream 2  range 2 ──► buffer ─┼──► rows of range 1, 2, 3 … ──► sink
    stream 1  range 3 ──► buffer ─┘
"""

import asyncio
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import structlog

from stream_app.exports.sources.errors import NoFreeConnection, time_limit_exceeded
from stream_app.exports.sources.snapshot import Sink, Snapshot
from streaming_exporter.errors import ExporterError

log = structlog.get_logger(__name__)

Range = TypeVar("Range")
ReadRange = Callable[[Snapshot, Range, Sink], Awaitable[int]]
"""Reads one range over a connection, and returns the number of its rows."""
JoinSnapshot = Callable[[str, int], AbstractAsyncContextManager[Snapshot]]
"""Opens another connection for a shared snapshot; the second argument numbers the stream."""


@dataclass(slots=True)
class _Stream:
    """The buffer of one stream. ``capacity`` and ``size`` are bytes."""

    capacity: int
    size: int = 0
    has_room: asyncio.Event = field(default_factory=asyncio.Event)

    async def added(self, count: int) -> None:
        """Count bytes that were added, and wait until there is room for more."""
        self.size += count
        while self.size >= self.capacity:
            self.has_room.clear()
            await self.has_room.wait()

    def removed(self, count: int) -> None:
        self.size -= count
        self.has_room.set()


@dataclass(slots=True)
class _RangeRows:
    """The rows of a range that are read but not passed on yet."""

    chunks: deque[tuple[_Stream, bytes]] = field(default_factory=deque)
    is_complete: bool = False
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def put(self, stream: _Stream, chunk: bytes) -> None:
        self.chunks.append((stream, chunk))
        self.changed.set()
        await stream.added(len(chunk))

    def complete(self) -> None:
        self.is_complete = True
        self.changed.set()

    async def hand_on(self, sink: Sink) -> None:
        """Give all rows to ``sink``, until the range is complete."""
        while True:
            while self.chunks:
                stream, chunk = self.chunks.popleft()
                await sink(chunk)
                stream.removed(len(chunk))
            if self.is_complete:
                return
            self.changed.clear()
            await self.changed.wait()


class ParallelReader(Generic[Range]):
    """Reads the ranges of one export."""

    def __init__(
        self,
        ranges: Sequence[Range],
        read: ReadRange[Range],
        join: JoinSnapshot,
        *,
        streams: int,
        buffer_bytes: int,
    ) -> None:
        """Prepare to read ranges over several connections.

        Args:
            ranges: the ranges in the order of their rows.
            read: reads one range.
            join: opens the connection of another stream.
            streams: the largest number of streams, with the first one.
            buffer_bytes: a stream that holds so many bytes waits. Most ranges fit in.
        """
        self._ranges = ranges
        # Only of the ranges that are being read or handed on: an export can have thousands.
        self._rows: defaultdict[int, _RangeRows] = defaultdict(_RangeRows)
        self._waiting = iter(range(len(ranges)))
        self._read = read
        self._join = join
        self._streams = min(streams, len(ranges))
        self._buffer_bytes = buffer_bytes
        self._count = 0
        self._joining: set[asyncio.Task[None]] = set()

    async def run(self, first: Snapshot, sink: Sink) -> int:
        """Read all ranges into ``sink``. The transaction of ``first`` ends when no range is left for it.

        The time limit of a statement is the limit of all of them together.

        Returns:
            The number of rows.

        Raises:
            Rejected: the time is over.
            SnapshotNotShared: the server cannot share snapshots. No row was read.

        The first error of a stream or of the sink ends all streams and is raised.
        """
        shared = await first.export()
        handing_on = asyncio.create_task(self._hand_on(sink))
        tasks = {handing_on, asyncio.create_task(self._read_first(first))}
        for number in range(2, self._streams + 1):
            task = asyncio.create_task(self._read_joined(shared, number))
            self._joining.add(task)
            tasks.add(task)
        limit = asyncio.timeout(first.seconds)
        try:
            async with limit:
                await _first_error(tasks)
        except TimeoutError as error:
            if limit.expired():
                raise time_limit_exceeded() from error
            raise
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return self._count

    async def _hand_on(self, sink: Sink) -> None:
        for number in range(len(self._ranges)):
            await self._rows[number].hand_on(sink)
            del self._rows[number]

    async def _read_first(self, snapshot: Snapshot) -> None:
        await self._read_ranges(snapshot)
        # The snapshot is no longer needed: a stream that has not joined has no range left to read.
        for task in self._joining:
            task.cancel()
        await snapshot.end()

    async def _read_joined(self, shared: str, number: int) -> None:
        """Read over a connection of its own. If there is none, the other streams read everything."""
        task = asyncio.current_task()
        has_joined = False
        try:
            async with self._join(shared, number) as snapshot:
                has_joined = True
                self._joining.discard(task)
                await self._read_ranges(snapshot)
        except NoFreeConnection:
            pass
        except ExporterError as error:
            if has_joined:
                raise
            log.warning("source.stream_refused", stream=number, error=str(error))

    async def _read_ranges(self, snapshot: Snapshot) -> None:
        stream = _Stream(self._buffer_bytes)
        for number in self._waiting:
            rows = self._rows[number]

            async def put(chunk: bytes, rows: _RangeRows = rows) -> None:
                await rows.put(stream, chunk)

            count = await self._read(snapshot, self._ranges[number], put)
            self._count += count
            rows.complete()


async def _first_error(tasks: set[asyncio.Task[None]]) -> None:
    """Wait for all ``tasks``. Raise the first error at once; a task that was cancelled is none."""
    pending = tasks
    while pending:
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            if not task.cancelled() and (error := task.exception()) is not None:
                raise error
