"""The rows of a bundle's datasets on their way to the writing thread: few at a time."""

import asyncio
from unittest.mock import Mock

import pytest

from stream_app.exports.bundles.members import AHEAD, MemberFeed
from stream_app.exports.reading.pipe import BytePipe, PipeClosed


async def begun(feed: MemberFeed, content: bytes = b"x") -> BytePipe:
    """Write the rows of a dataset to their end."""
    pipe = await feed.begin(Mock())
    await pipe.write(content)
    pipe.finish()
    return pipe


async def passed() -> None:
    """Let all tasks run until they wait."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_only_a_few_datasets_are_read_ahead() -> None:
    """A slow upload of a bundle with many small datasets must not keep all of them in memory."""
    feed = MemberFeed()
    for _ in range(AHEAD):
        await begun(feed)
    waiting = asyncio.create_task(begun(feed))
    await passed()
    assert not waiting.done()
    reader = iter(feed)
    _, rows = next(reader)
    assert list(rows) == [b"x"]
    await passed()
    assert not waiting.done()
    next(reader)
    await waiting


async def test_a_dataset_that_waits_for_room_learns_that_the_reader_has_stopped() -> None:
    feed = MemberFeed()
    for _ in range(AHEAD):
        await begun(feed)
    waiting = asyncio.create_task(begun(feed))
    await passed()
    await asyncio.to_thread(feed.close_reader)
    with pytest.raises(PipeClosed):
        await waiting
