"""Events in batches that grow with the load, acknowledged in order once they are dealt with."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import cast

import structlog
from faust import Stream
from faust.types import EventT

from stream_app.agents.emitter import Emitter
from stream_app.agents.transport import App
from stream_app.errors import Retryable, Unreadable
from stream_app.events import Event, Topic, decode
from stream_app.patience import until_possible

log = structlog.get_logger(__name__)

MOST = 500

Messages = Sequence[EventT[bytes]]
Handle = Callable[[Messages], Awaitable[None]]
Read = Sequence[tuple[EventT[bytes], Event]]
"""Messages, each with the event that it holds."""
Unread = Sequence[tuple[EventT[bytes], Unreadable]]
"""Messages that no event can be read from, each with why."""


def sorted_out(messages: Messages, topic: Topic) -> tuple[Read, Unread]:
    """The events of a batch in their order, and the messages that hold none, or none of ``topic``."""
    read: list[tuple[EventT[bytes], Event]] = []
    unread: list[tuple[EventT[bytes], Unreadable]] = []
    for message in messages:
        try:
            event = decode(message.message.value)
            if event.topic is not topic:
                raise Unreadable(f"{event.type} does not belong on {topic}")
            read.append((message, event))
        except Unreadable as error:
            log.warning("message.unreadable", topic=topic, error=str(error))
            unread.append((message, error))
    return read, unread


async def handle_in_batches(stream: Stream[bytes], handle: Handle, emit: Emitter) -> None:
    """Hand whatever has arrived to ``handle``, up to :data:`MOST` at a time, then acknowledge it.

    While one batch is handled the next one gathers, so a quiet topic sees no delay and a backlog sees large
    batches. Acknowledgements are in offset order, because out of order they lose events
    (https://github.com/faust-streaming/faust/issues/606).
    """
    waiting: asyncio.Queue[EventT[bytes]] = asyncio.Queue(maxsize=2 * MOST)

    async def consume() -> None:
        while True:
            batch = [await waiting.get()]
            while len(batch) < MOST and not waiting.empty():
                batch.append(waiting.get_nowait())
            await _handle_all(batch, handle, emit)
            for event in batch:
                # What was read before a rebalance is read again after it, by whoever has the partition.
                if event.message.generation_id == event.app.consumer_generation_id:
                    event.ack()

    async with asyncio.TaskGroup() as group:
        consumer = group.create_task(consume())
        async for event in stream.noack().events():
            await waiting.put(event)
        consumer.cancel()


async def _handle_all(messages: Messages, handle: Handle, emit: Emitter) -> None:
    """Wait out failures of the parts; find a message that can never be handled, and put it aside.

    Nothing else may leave an agent: it would stand still, and with it every event behind this one.
    """
    app = cast(App, messages[0].app)
    try:
        await until_possible(_noting_refusals, app, handle, messages)
    except Exception as error:
        if len(messages) > 1:
            for message in messages:
                await _handle_all([message], handle, emit)
            return
        log.exception("message.impossible", topic=messages[0].message.topic)
        reason = Unreadable(f"cannot be dealt with: {error!r}")
        await until_possible(_noting_refusals, app, emit.dead_letter, messages[0], reason)


async def _noting_refusals(app: App, action: Callable[..., Awaitable[None]], *arguments: object) -> None:
    """A part may answer the watchdog's questions and refuse this: then the worker waits, and is well."""
    try:
        await action(*arguments)
    except Retryable as error:
        app.held_up_at, app.held_up_by = time.monotonic(), str(error)
        raise
