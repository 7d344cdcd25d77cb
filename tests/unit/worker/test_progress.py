"""The partitions for which a step is progress (R15)."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
from faust.types import TP
from faust.types.tuples import ConsumerMessage

from stream_app.kafka.buffers import BufferedBytes, MessageBuffer
from stream_app.kafka.consumer import MAX_BUFFERED_BYTES, LosslessConsumer
from stream_app.kafka.topic_outages import TopicOutage
from stream_app.kafka.transport import App
from stream_app.worker.batches import _handle_next

TOPIC = "exports.requests"


@pytest.fixture
def app() -> App:
    made = App("progress", broker="kafka://nowhere", web_enabled=False)
    consumer = object.__new__(LosslessConsumer)
    consumer.buffered = BufferedBytes()
    made._consumer = consumer
    made.consumer_generation_id = 1
    return made


def event(app: App, partition: int, size: int = 0) -> Any:
    place = TP(TOPIC, partition)
    message = ConsumerMessage(TOPIC, partition, 0, 0.0, 1, [], None, bytes(size), None, tp=place)
    cast(LosslessConsumer, app._consumer).buffered.add(message)
    return SimpleNamespace(app=app, message=message, ack=lambda: None)


async def handled(app: App, partitions: list[int], *, most: int = 100, size: int = 0) -> list[int]:
    """Handle a message of the first partition while others are read; return the progress of each."""
    message_buffer = MessageBuffer(most)
    await message_buffer.put(event(app, partitions[0], size))

    async def handle(_: object) -> None:
        for partition in partitions[1:]:
            await message_buffer.put(event(app, partition))
        app.note_progress(TOPIC)

    nothing = cast(Any, None)
    await _handle_next(await message_buffer.get(), message_buffer, handle, nothing, nothing)
    return [app.steps((TOPIC, partition)) for partition in range(4)]


async def test_a_step_is_progress_for_handled_and_waiting_messages(app: App) -> None:
    """A partition without buffered messages could be read, so progress of others does not count for it."""
    assert await handled(app, [0, 1]) == [2, 2, 0, 0]
    assert await handled(app, [2]) == [2, 2, 2, 0]
    assert app.steps(("exports.ticks", 0)) == 0


async def test_a_step_ends_the_refusal_of_its_topic(app: App) -> None:
    """A backlog can last for hours: that messages wait does not mean that they are still refused."""
    outage = TopicOutage(1.0, "the disk is full")
    app.outages.note(TOPIC, outage)
    app.outages.note("exports.ticks", earlier := TopicOutage(0.5, "it is away"))
    assert app.outages.newest == outage
    await handled(app, [0, 1])
    assert app.outages.newest == earlier
    app.note_progress("exports.ticks")
    assert app.outages.newest is None


async def test_a_step_is_progress_for_all_while_the_backlog_is_full(app: App) -> None:
    """Messages of every partition can wait for room."""
    assert await handled(app, [0, 1], most=1) == [2, 2, 2, 2]


async def test_a_step_is_progress_for_all_while_reading_waits_for_room(app: App) -> None:
    assert await handled(app, [0], size=MAX_BUFFERED_BYTES) == [2, 2, 2, 2]
