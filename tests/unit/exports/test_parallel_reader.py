"""Reading over several streams: order, bounds, errors. Streams that are no connections take the place."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.exports.reading.parallel_reader import ParallelReader
from stream_app.exports.sources.errors import NoFreeConnection
from stream_app.exports.sources.snapshot import Sink, Snapshot
from streaming_exporter.errors import Outage, Rejected
from tests.waiting import at_most


class OpenTransaction:
    """A snapshot that counts how often it is ended."""

    def __init__(self, seconds: float = 60) -> None:
        self.seconds = seconds
        self.ended = 0

    async def export(self) -> str:
        return "shared"

    async def end(self) -> None:
        self.ended += 1


class Connections:
    """Opens the connections of the other streams, and counts them."""

    def __init__(self, refusal: Exception | None = None) -> None:
        self.refusal = refusal
        self.open = 0
        self.most = 0

    @asynccontextmanager
    async def join(self, shared: str, number: int) -> AsyncIterator[Snapshot]:
        assert shared == "shared"
        assert number >= 2
        await asyncio.sleep(0)
        if self.refusal is not None:
            raise self.refusal
        self.open += 1
        self.most = max(self.most, self.open)
        try:
            yield cast(Snapshot, OpenTransaction())
        finally:
            self.open -= 1


Read = Callable[[Snapshot, Any, Sink], Awaitable[int]]


async def read_chunks(_: Snapshot, chunks: list[bytes], sink: Sink) -> int:
    """Read a range with these chunks at an unpredictable speed."""
    for chunk in chunks:
        for _step in range(random.Random(chunk).randrange(4)):
            await asyncio.sleep(0)
        await sink(chunk)
    return len(chunks)


async def read_all(
    ranges: list[Any],
    streams: int,
    *,
    read: Read = read_chunks,
    connections: Connections | None = None,
    first: OpenTransaction | None = None,
    sink: Sink | None = None,
    buffer_bytes: int = 10,
) -> tuple[int, bytes]:
    """Read the ranges: the number of rows, and the bytes."""
    written: list[bytes] = []

    async def keep(chunk: bytes) -> None:
        await asyncio.sleep(0)
        written.append(chunk)

    opened = connections or Connections()
    reader = ParallelReader(ranges, read, opened.join, streams=streams, buffer_bytes=buffer_bytes)
    try:
        async with at_most(20):
            count = await reader.run(cast(Snapshot, first or OpenTransaction()), sink or keep)
    finally:
        assert opened.open == 0
        assert not [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    return count, b"".join(written)


@given(st.lists(st.lists(st.binary(max_size=12), max_size=5), min_size=1, max_size=12), st.integers(1, 5))
def test_the_rows_come_in_order_whatever_the_speed(ranges: list[list[bytes]], streams: int) -> None:
    """Empty ranges, empty chunks and chunks that are larger than the buffer included."""
    count, content = asyncio.run(read_all(ranges, streams))
    assert content == b"".join(chunk for chunks in ranges for chunk in chunks)
    assert count == sum(map(len, ranges))


async def test_every_stream_reads_ahead_and_none_beyond_its_buffer() -> None:
    """While the sink waits, each stream holds a full buffer and waits within its range."""
    held, within = 0, 0
    released = asyncio.Event()
    full = asyncio.Event()

    async def read(_: Snapshot, number: int, sink: Sink) -> int:
        nonlocal held, within
        within += 1
        for _step in range(20):
            held += 1
            await sink(b"x")
            if held >= 3 * 5 and within == 3:
                full.set()
        within -= 1
        return 20

    async def sink(chunk: bytes) -> None:
        nonlocal held
        await released.wait()
        held -= 1

    reader = ParallelReader([0, 1, 2, 3], read, Connections().join, streams=3, buffer_bytes=6)
    reading = asyncio.create_task(reader.run(cast(Snapshot, OpenTransaction()), sink))
    await full.wait()
    for _ in range(50):
        await asyncio.sleep(0)
    assert held <= 3 * 6 + 1
    assert within == 3
    released.set()
    assert await reading == 80
    assert held == 0


async def test_the_first_stream_reads_everything_if_no_other_joins() -> None:
    """A refused connection or snapshot costs speed, not the export."""
    for refusal in (Outage("too many connections"), NoFreeConnection("all are in use")):
        first = OpenTransaction()
        ranges = [[b"%d" % number] for number in range(6)]
        count, content = await read_all(ranges, 4, connections=Connections(refusal), first=first)
        assert (count, content, first.ended) == (6, b"012345", 1)


@pytest.mark.parametrize("failing", range(5))
async def test_an_error_of_any_stream_ends_all_with_that_error(failing: int) -> None:
    async def read(snapshot: Snapshot, number: int, sink: Sink) -> int:
        await sink(b"x")
        if number == failing:
            raise Rejected("a value is too large")
        await asyncio.Event().wait() if number > failing else await sink(b"y")
        return 1

    connections = Connections()
    with pytest.raises(Rejected, match="a value is too large"):
        await read_all(list(range(5)), 3, read=read, connections=connections)


async def test_an_error_of_the_sink_ends_all_streams() -> None:
    async def sink(_: bytes) -> None:
        raise OSError("the store is gone")

    with pytest.raises(OSError, match="the store is gone"):
        await read_all([[b"x" * 9] * 9] * 5, 3, sink=sink)


async def test_the_time_limit_holds_for_all_ranges_together() -> None:
    async def read(_: Snapshot, number: int, sink: Sink) -> int:
        await asyncio.sleep(0.06)
        return 1

    with pytest.raises(Rejected) as raised:
        await read_all(list(range(20)), 2, read=read, first=OpenTransaction(0.2))
    assert raised.value.code == "timeout"


async def test_a_timeout_of_a_stream_is_not_the_time_limit() -> None:
    """The driver raises TimeoutError for a server that does not answer."""

    async def read(_: Snapshot, number: int, sink: Sink) -> int:
        raise TimeoutError("no answer")

    with pytest.raises(TimeoutError, match="no answer"):
        await read_all([1, 2, 3], 2, read=read)


async def test_a_cancellation_ends_all_streams() -> None:
    connections = Connections()
    has_begun = asyncio.Event()

    async def read(_: Snapshot, number: int, sink: Sink) -> int:
        if number == 2:
            has_begun.set()
        await asyncio.Event().wait()
        return 0

    reader = ParallelReader([0, 1, 2], read, connections.join, streams=3, buffer_bytes=10)

    async def sink(_: bytes) -> None: ...

    reading = asyncio.create_task(reader.run(cast(Snapshot, OpenTransaction()), sink))
    await has_begun.wait()
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert (connections.open, connections.most) == (0, 2)


async def test_memory_does_not_grow_with_the_number_of_ranges() -> None:
    """Only the ranges that are being read or handed on take memory."""
    most = 0

    def count() -> None:
        nonlocal most
        most = max(most, len(reader._rows))

    async def read(_: Snapshot, chunk: bytes, sink: Sink) -> int:
        await sink(chunk)
        count()
        return 1

    async def discard(_: bytes) -> None:
        count()

    connections = Connections()
    reader = ParallelReader([b"12345"] * 2_000, read, connections.join, streams=3, buffer_bytes=10)
    assert await reader.run(cast(Snapshot, OpenTransaction()), discard) == 2_000
    assert 0 < most < 20
    assert not reader._rows
