"""A batch waits for the part that refuses it, notes that for the watchdog, and is bounded by bytes."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, Self, cast
from uuid import uuid4

import pytest

from stream_app.kafka.buffers import MessageBuffer
from stream_app.kafka.event_producer import EventProducer
from stream_app.kafka.topic_outages import TopicOutage, TopicOutages
from stream_app.worker import batches
from stream_app.worker.batches import MAX_BYTES, MAX_MESSAGES, _handle_all, _handle_next, decode_all
from streaming_exporter.errors import Outage, Unreadable
from streaming_exporter.events import Topic, cancel_event, tick_event
from tests.waiting import until_async


class App(SimpleNamespace):
    """The attributes of the Faust app that batches use."""

    def __init__(self) -> None:
        super().__init__(consumer_generation_id=1, steps=0)
        self.outages = TopicOutages()
        self.refused: list[TopicOutage | None] = []
        """The outage at each end of a step."""
        self.message_buffers: dict[str, MessageBuffer] = {}

    def note_progress(self, topic: str) -> None:
        self.steps += 1
        self.refused.append(self.outages.outage_of(topic))


class Message(SimpleNamespace):
    """An event of the stream."""

    def __init__(self, app: App, value: bytes = b"") -> None:
        message = SimpleNamespace(topic="t", partition=0, value=value, headers=(), generation_id=1)
        super().__init__(app=app, message=message, acked=False)

    def ack(self) -> None:
        self.acked = True


class Parts:
    """A database and a broker. ``impossible`` messages always fail; all calls fail ``broken`` times."""

    def __init__(self, *, impossible: Sequence[bytes] = (), broken: int = 0, refused: int = 0) -> None:
        self.impossible = impossible
        self.broken = broken
        self.refused = refused
        self.handled: list[bytes] = []
        self.dead: list[bytes] = []
        self.proofs = 0

    def _refuse(self) -> None:
        if self.refused:
            self.refused -= 1
            raise Outage("the disk is full")

    async def handle(self, messages: Sequence[Any]) -> None:
        values = [message.message.value for message in messages]
        if self.broken or set(values) & set(self.impossible):
            raise KeyError("impossible")
        self._refuse()
        self.handled += values

    async def check_writes(self) -> None:
        self.proofs += 1
        if self.broken:
            self.broken -= 1
            raise KeyError("impossible")

    async def dead_letter(self, event: Any, _: Unreadable) -> None:
        self._refuse()
        self.dead.append(event.message.value)

    async def take(self, messages: Sequence[Any]) -> None:
        await _handle_all(cast(Any, messages), self.handle, cast(EventProducer, self), self.check_writes)


@pytest.mark.parametrize("impossible", [False, True])
async def test_a_refusal_is_noted(impossible: bool) -> None:
    app = App()
    parts = Parts(impossible=[b"x"] if impossible else [], refused=1)
    before = time.monotonic()
    await parts.take([Message(app, b"x")])
    (outage,) = app.refused
    assert outage is not None
    assert before <= outage.at <= time.monotonic()
    assert outage.error == "the disk is full"
    assert len(parts.dead) == impossible


@pytest.mark.parametrize("number", [1, 2, 20])
async def test_an_error_of_every_message_is_an_outage_and_dead_letters_none(number: int) -> None:
    """R2: this holds for any error and any size of a batch."""
    app = App()
    parts = Parts(broken=3)
    values = [b"%d" % name for name in range(number)]
    await parts.take([Message(app, value) for value in values])
    assert parts.dead == []
    assert parts.handled == values
    assert all(outage and "writes fail for every message" in outage.error for outage in app.refused)
    assert app.refused


async def test_a_message_that_fails_alone_is_dead_lettered_and_the_others_are_handled() -> None:
    """R2: other messages of its batch succeed at the same time."""
    parts = Parts(impossible=[b"2"])
    await parts.take([Message(App(), b"%d" % name) for name in range(5)])
    assert parts.dead == [b"2"]
    assert parts.handled == [b"0", b"1", b"3", b"4"]
    assert parts.proofs == 2


async def test_a_message_that_fails_at_the_start_of_an_outage_is_kept() -> None:
    """R2: the check before the message is not enough."""

    class Ending(Parts):
        async def check_writes(self) -> None:
            await super().check_writes()
            if self.proofs == 1:
                self.broken = 2  # from here on, for a while

    parts = Ending()
    parts.broken = 0
    first = [True]

    async def handle(messages: Sequence[Any]) -> None:
        if first.pop() if first else False:
            raise KeyError("once")
        await parts.handle(messages)

    await _handle_all(
        cast(Any, [Message(App(), b"x")]), handle, cast(EventProducer, parts), parts.check_writes
    )
    assert parts.dead == []
    assert parts.handled == [b"x"]


async def test_each_message_of_a_split_batch_is_progress() -> None:
    """R15: handling 500 messages one by one takes a while."""
    app = App()
    await Parts(impossible=[b"2"]).take([Message(app, b"%d" % name) for name in range(5)])
    assert app.steps >= 5


@pytest.mark.parametrize(
    ("sizes", "batch"),
    [
        ([10] * (MAX_MESSAGES + 5), MAX_MESSAGES),
        ([MAX_BYTES // 4] * 9, 4),
        ([5 * MAX_BYTES, 10], 1),
        ([10, 5 * MAX_BYTES, 10], 1),
        ([MAX_BYTES], 1),
    ],
)
async def test_batches_are_bounded_by_bytes_and_lose_nothing(sizes: list[int], batch: int) -> None:
    """R14: a message that is larger than the limit is a batch of its own."""
    app, handled = App(), []
    events = [Message(app, bytes(size)) for size in sizes]
    message_buffer = MessageBuffer(2 * MAX_MESSAGES)
    for event in cast(list[Any], events):
        await message_buffer.put(event)
    first: Any = await message_buffer.get()

    async def handle(messages: Sequence[Any]) -> None:
        handled.append(list(messages))

    nothing = cast(Any, None)
    over: Any = first
    while over is not None or not message_buffer.is_empty:
        assert message_buffer.partitions == {("t", 0)}
        over = await _handle_next(
            over or message_buffer.get_nowait(), message_buffer, handle, nothing, nothing
        )
    assert message_buffer.partitions == set()
    assert len(handled[0]) == batch
    assert [event for messages in handled for event in messages] == events
    assert all(event.acked for event in events)


class Stream:
    """A stream of messages that a test gives one by one."""

    def __init__(self) -> None:
        self.given: asyncio.Queue[Message] = asyncio.Queue()

    def noack(self) -> Self:
        return self

    async def events(self) -> AsyncIterator[Message]:
        while True:
            yield await self.given.get()
            self.given.task_done()  # it is in the buffer


@pytest.mark.parametrize(
    ("interval", "expected"), [(0.0, [b"a", b"b", b"c", b"d"]), (3_600.0, [b"a", b"bcd"])]
)
async def test_messages_that_come_within_the_interval_are_one_batch(
    monkeypatch: pytest.MonkeyPatch, interval: float, expected: list[bytes]
) -> None:
    """The first one does not wait. What comes until the end of the interval is handled together."""
    app, stream, handled = App(), Stream(), []
    is_over = asyncio.Event()

    async def sleep(seconds: float) -> None:
        assert 0 < seconds <= interval
        await is_over.wait()

    async def handle(messages: Sequence[Any]) -> None:
        handled.append(b"".join(message.message.value for message in messages))

    monkeypatch.setattr(batches, "asyncio", SimpleNamespace(sleep=sleep, TaskGroup=asyncio.TaskGroup))
    nothing = cast(Any, None)
    handling = asyncio.create_task(
        batches.handle_in_batches(cast(Any, stream), handle, nothing, nothing, lambda: interval)
    )
    for value in (b"a", b"b", b"c", b"d"):
        await stream.given.put(Message(app, value))
        await stream.given.join()
        if value == b"a" or not interval:
            await until_async(lambda: value in handled)  # noqa: B023 - it is awaited here
    assert len(handled) == (1 if interval else 4)
    is_over.set()
    await until_async(lambda: handled == expected, otherwise=lambda: handled)
    handling.cancel()
    await asyncio.wait({handling})


def test_a_batch_is_decoded_in_order() -> None:
    at = datetime(2026, 11, 24, 6, tzinfo=UTC)
    ticks = [tick_event(at, source="/t"), tick_event(at, source="/u")]
    misplaced = cancel_event(uuid4(), source="/t")
    contents = [ticks[0].encode(), b"?", misplaced.encode(), None, ticks[1].encode()]
    messages = [SimpleNamespace(message=SimpleNamespace(value=content, headers=())) for content in contents]
    read, unread = decode_all(cast(Any, messages), Topic.TICKS)
    read = cast(list[Any], read)
    assert read == [(messages[0], ticks[0]), (messages[4], ticks[1])]
    assert [message for message, _ in unread] == messages[1:4]
    assert "export.cancel_requested does not belong on exports.ticks" in str(unread[1][1])


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retry without a delay."""
    import stamina

    monkeypatch.setattr(
        batches,
        "retry_until_possible",
        stamina.AsyncRetryingCaller(attempts=None, timeout=None, wait_initial=0, wait_max=0.01).on(Outage),
    )
