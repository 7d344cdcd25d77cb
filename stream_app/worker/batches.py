"""Events in batches that grow with the load, acknowledged in order once they are dealt with."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import cast

import structlog
from faust import Stream
from faust.types import EventT

from stream_app.kafka.buffers import MessageBuffer
from stream_app.kafka.event_producer import EventProducer
from stream_app.kafka.transport import App
from stream_app.retries import retry_until_possible
from streaming_exporter.errors import Outage, Retryable, Unreadable
from streaming_exporter.events import Event, Headers, Topic, decode

log = structlog.get_logger(__name__)

MOST = 500
MOST_BYTES = 2 * 2**20
"""Messages of a batch, and their bytes: decoded they take several times as many."""

Messages = Sequence[EventT[bytes]]
Handle = Callable[[Messages], Awaitable[None]]
Prove = Callable[[], Awaitable[None]]
"""Does what good messages lead to, leaves nothing behind, and raises whatever prevents it."""
Decoded = Sequence[tuple[EventT[bytes], Event]]
"""Messages, each with the event that it holds."""
Undecoded = Sequence[tuple[EventT[bytes], Unreadable]]
"""Messages that no event can be read from, each with why."""


def decode_all(messages: Messages, topic: Topic) -> tuple[Decoded, Undecoded]:
    """The events of a batch in their order, and the messages that hold none, or none of ``topic``."""
    read: list[tuple[EventT[bytes], Event]] = []
    unread: list[tuple[EventT[bytes], Unreadable]] = []
    for message in messages:
        try:
            event = decode(message.message.value, cast(Headers, message.message.headers or ()))
            if event.topic is not topic:
                raise Unreadable(f"{event.type} does not belong on {topic}")
            read.append((message, event))
        except Unreadable as error:
            log.warning("message.unreadable", topic=topic, error=str(error))
            unread.append((message, error))
    return read, unread


async def handle_in_batches(stream: Stream[bytes], handle: Handle, emit: EventProducer, prove: Prove) -> None:
    """Hand whatever has arrived to ``handle``, in batches of at most :data:`MOST`, then acknowledge it.

    While one batch is handled the next one gathers: a quiet topic has no delay, and a topic with many waiting
    messages has large batches. Acknowledgements are in offset order, because out of order they lose events
    (https://github.com/faust-streaming/faust/issues/606).
    """
    message_buffer = MessageBuffer(2 * MOST)

    async def consume() -> None:
        first: EventT[bytes] | None = None
        while True:
            # In a function of its own: what was handled is not kept until the next message comes.
            first = await _handle_next(
                first or await message_buffer.get(), message_buffer, handle, emit, prove
            )

    async with asyncio.TaskGroup() as group:
        consumer = group.create_task(consume())
        async for event in stream.noack().events():
            await message_buffer.put(event)
            del event
        consumer.cancel()


async def _handle_next(
    first: EventT[bytes], message_buffer: MessageBuffer, handle: Handle, emit: EventProducer, prove: Prove
) -> EventT[bytes] | None:
    """Handle ``first`` and what waits, up to a batch; returns the message that was one too many, if any."""
    cast(App, first.app).message_buffers[first.message.topic] = message_buffer
    batch, size = [first], len(first.message.value or b"")
    over: EventT[bytes] | None = None
    while len(batch) < MOST and not message_buffer.is_empty:
        event = message_buffer.get_nowait()
        size += len(event.message.value or b"")
        if size > MOST_BYTES:
            over = event
            break
        batch.append(event)
    await _handle_all(batch, handle, emit, prove)
    message_buffer.note_handled(batch)
    for event in batch:
        # What was read before a rebalance is read again after it, by whoever has the partition.
        if event.message.generation_id == event.app.consumer_generation_id:
            event.ack()
    return over


async def _handle_all(messages: Messages, handle: Handle, emit: EventProducer, prove: Prove) -> None:
    """Wait out failures of the parts; find a message that can never be handled, and put it aside.

    Nothing else may leave an agent: it would stand still, and with it every event behind this one.
    """
    app, topic = cast(App, messages[0].app), messages[0].message.topic
    try:
        await retry_until_possible(_noting_refusals, app, topic, handle, messages)
    except Exception as error:
        if len(messages) > 1:
            for message in messages:
                await _handle_all([message], handle, emit, prove)
            return
        log.warning("message.failed", topic=topic, error=repr(error))
        await retry_until_possible(_noting_refusals, app, topic, _put_aside, messages[0], handle, emit, prove)
    app.note_progress(topic)


async def _put_aside(message: EventT[bytes], handle: Handle, emit: EventProducer, prove: Prove) -> None:
    """Publish a dead letter of ``message``, if it fails between two proofs that what is good succeeds.

    Raises:
        Retryable: nothing succeeds now, or Kafka does not take the dead letter.
    """
    await _proven(prove)
    try:
        await handle([message])
    except Retryable:
        raise
    except Exception as error:
        await _proven(prove)
        log.exception("message.impossible", topic=message.message.topic)
        await emit.dead_letter(message, Unreadable(f"cannot be dealt with: {error!r}"))


async def _proven(prove: Prove) -> None:
    """An error that meets everything is an outage, whatever its code says."""
    try:
        await prove()
    except Retryable:
        raise
    except Exception as error:
        raise Outage(f"what messages lead to cannot be written, whatever they say: {error!r}") from error


async def _noting_refusals(
    app: App, topic: str, action: Callable[..., Awaitable[None]], *arguments: object
) -> None:
    """A part may answer the watchdog's questions and refuse this: then the worker waits, and is well."""
    try:
        await action(*arguments)
    except Retryable as error:
        app.blocked_since, app.blocked_by = time.monotonic(), str(error)
        app.failed_at[topic] = app.blocked_since
        raise
