"""Events in batches that grow with the load, acknowledged in order once they are dealt with."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from faust import Stream
from faust.types import EventT

MOST = 500


async def handle_in_batches(
    stream: Stream[bytes],
    handle: Callable[[Sequence[EventT[bytes]]], Awaitable[None]],
    *,
    most: int = MOST,
) -> None:
    """Hand whatever has arrived to ``handle``, up to ``most`` events at a time, then acknowledge it.

    While one batch is handled the next one gathers, so a quiet topic sees no delay and a backlog sees large
    batches. Acknowledgements are in offset order, because out of order they lose events
    (https://github.com/faust-streaming/faust/issues/606). ``handle`` may not raise: an event that it gave
    back unhandled would stop the stream.
    """
    waiting: asyncio.Queue[EventT[bytes]] = asyncio.Queue(maxsize=2 * most)

    async def consume() -> None:
        while True:
            batch = [await waiting.get()]
            while len(batch) < most and not waiting.empty():
                batch.append(waiting.get_nowait())
            await handle(batch)
            for event in batch:
                # What was read before a rebalance is read again after it, by whoever has the partition.
                if event.message.generation_id == event.app.consumer_generation_id:
                    event.ack()

    async with asyncio.TaskGroup() as group:
        consumer = group.create_task(consume())
        async for event in stream.noack().events():
            await waiting.put(event)
        consumer.cancel()
