"""Handles the messages of a topic in batches that grow with the load, and acknowledges them in order."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import cast

import structlog
from faust import Stream
from faust.types import EventT

from stream_app.kafka.buffers import MessageBuffer
from stream_app.kafka.event_producer import EventProducer
from stream_app.kafka.topic_outages import TopicOutage
from stream_app.kafka.transport import App
from stream_app.retries import retry_until_possible
from streaming_exporter.errors import Outage, Retryable, Unreadable
from streaming_exporter.events import Event, Headers, Topic, decode

log = structlog.get_logger(__name__)

MAX_MESSAGES = 500
MAX_BYTES = 2 * 2**20
"""Limits of a batch: messages, and bytes. Decoded messages take several times as much memory."""

Messages = Sequence[EventT[bytes]]
Handle = Callable[[Messages], Awaitable[None]]
WriteCheck = Callable[[], Awaitable[None]]
"""Tries the writes that messages cause, without leaving rows, and raises the error of a failed write."""
Decoded = Sequence[tuple[EventT[bytes], Event]]
"""Messages, each with the event that it holds."""
Undecoded = Sequence[tuple[EventT[bytes], Unreadable]]
"""Messages that hold no event, each with the reason."""


def decode_all(messages: Messages, topic: Topic) -> tuple[Decoded, Undecoded]:
    """Return the events of a batch in their order, and the messages without an event of ``topic``."""
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


def _no_interval() -> float:
    return 0.0


async def handle_in_batches(
    stream: Stream[bytes],
    handle: Handle,
    producer: EventProducer,
    check_writes: WriteCheck,
    interval: Callable[[], float] = _no_interval,
) -> None:
    """Handle the messages of a stream in batches of at most :data:`MAX_MESSAGES`, then acknowledge them.

    While one batch is handled, the next messages are collected: a quiet topic has no delay, and a topic with
    many messages has large batches. Acknowledgements are in offset order, because another order loses events
    (https://github.com/faust-streaming/faust/issues/606).

    Args:
        stream: the stream.
        handle: handles a batch.
        producer: publishes dead letters.
        check_writes: tries the writes that messages cause.
        interval: returns the least seconds from the beginning of a batch to that of the next one. Messages
            that come one by one in shorter intervals are handled together, which costs less.
    """
    message_buffer = MessageBuffer(2 * MAX_MESSAGES)

    async def consume() -> None:
        first: EventT[bytes] | None = None
        while True:
            first = first or await message_buffer.get()
            began = time.monotonic()
            # A function of its own, so that handled messages are not kept in memory until the next one comes.
            first = await _handle_next(first, message_buffer, handle, producer, check_writes)
            if first is None and (rest := began + interval() - time.monotonic()) > 0:
                await asyncio.sleep(rest)

    async with asyncio.TaskGroup() as group:
        consumer = group.create_task(consume())
        async for event in stream.noack().events():
            await message_buffer.put(event)
            del event
        consumer.cancel()


async def _handle_next(
    first: EventT[bytes],
    message_buffer: MessageBuffer,
    handle: Handle,
    producer: EventProducer,
    check_writes: WriteCheck,
) -> EventT[bytes] | None:
    """Handle a batch that begins with ``first``; return the next message if it did not fit in."""
    cast(App, first.app).message_buffers[first.message.topic] = message_buffer
    batch, size = [first], len(first.message.value or b"")
    over: EventT[bytes] | None = None
    while len(batch) < MAX_MESSAGES and not message_buffer.is_empty:
        event = message_buffer.get_nowait()
        size += len(event.message.value or b"")
        if size > MAX_BYTES:
            over = event
            break
        batch.append(event)
    await _handle_all(batch, handle, producer, check_writes)
    message_buffer.note_handled(batch)
    for event in batch:
        # After a rebalance the partition's new owner reads the message again, so it is not acknowledged here.
        if event.message.generation_id == event.app.consumer_generation_id:
            event.ack()
    return over


async def _handle_all(
    messages: Messages, handle: Handle, producer: EventProducer, check_writes: WriteCheck
) -> None:
    """Handle messages: retry during outages, and dead-letter a message that can never be handled.

    No other error is raised: it would stop the agent, and all later messages would wait.
    """
    app, topic = cast(App, messages[0].app), messages[0].message.topic
    try:
        await retry_until_possible(_note_outages, app, topic, handle, messages)
    except Exception as error:
        if len(messages) > 1:
            for message in messages:
                await _handle_all([message], handle, producer, check_writes)
            return
        log.warning("message.failed", topic=topic, error=repr(error))
        await retry_until_possible(
            _note_outages, app, topic, _dead_letter_if_it_fails, messages[0], handle, producer, check_writes
        )
    app.note_progress(topic)


async def _dead_letter_if_it_fails(
    message: EventT[bytes], handle: Handle, producer: EventProducer, check_writes: WriteCheck
) -> None:
    """Handle ``message``; dead-letter it if it fails while other writes succeed before and after it.

    Raises:
        Retryable: no write succeeds now, or Kafka does not take the dead letter.
    """
    await _require_writes(check_writes)
    try:
        await handle([message])
    except Retryable:
        raise
    except Exception as error:
        await _require_writes(check_writes)
        log.exception("message.dead_lettered", topic=message.message.topic)
        await producer.dead_letter(message, Unreadable(f"cannot be handled: {error!r}"))


async def _require_writes(check_writes: WriteCheck) -> None:
    """Return if writes succeed. An error of every write is an outage, whatever its code is.

    Raises:
        Retryable: writes fail.
    """
    try:
        await check_writes()
    except Retryable:
        raise
    except Exception as error:
        raise Outage(f"state database: writes fail for every message: {error!r}") from error


async def _note_outages(
    app: App, topic: str, action: Callable[..., Awaitable[None]], *arguments: object
) -> None:
    """Run ``action``, and note an outage for the watchdog, because a part can answer and refuse writes."""
    try:
        await action(*arguments)
    except Retryable as error:
        app.outages.note(topic, TopicOutage(time.monotonic(), str(error)))
        raise
