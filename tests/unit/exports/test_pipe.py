"""The pipe: order, back-pressure, and its end, which means success."""

import asyncio
from collections.abc import Iterator

import pytest

from stream_app.exports.reading.pipe import BytePipe, PipeClosed
from tests.waiting import patient


async def test_everything_arrives_in_order() -> None:
    pipe = BytePipe(capacity=64)
    reading = asyncio.create_task(asyncio.to_thread(lambda: b"".join(pipe)))
    written = [bytes([number % 256]) * (number % 50) for number in range(500)]
    for chunk in written:
        await pipe.write(chunk)
    pipe.finish()
    assert await reading == b"".join(written)


async def test_a_full_pipe_blocks_the_writer() -> None:
    pipe = BytePipe(capacity=10)
    await pipe.write(b"x" * 10)
    waiting = asyncio.create_task(pipe.write(b"y"))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    chunks = iter(pipe)
    assert await asyncio.to_thread(next, chunks) == b"x" * 10
    await asyncio.wait_for(waiting, patient(10))


async def test_a_failed_writer_is_never_mistaken_for_the_end() -> None:
    pipe = BytePipe()
    await pipe.write(b"half")

    def read() -> Iterator[bytes]:
        return iter(list(pipe))

    pipe.fail(OSError("the database is gone"))
    with pytest.raises(PipeClosed) as caught:
        await asyncio.to_thread(read)
    assert isinstance(caught.value.__cause__, OSError)


async def test_a_reader_that_stops_ends_a_waiting_writer() -> None:
    pipe = BytePipe(capacity=1)
    await pipe.write(b"xx")
    waiting = asyncio.create_task(pipe.write(b"y"))
    await asyncio.sleep(0)
    await asyncio.to_thread(pipe.close_reader)
    with pytest.raises(PipeClosed):
        await asyncio.wait_for(waiting, patient(10))
