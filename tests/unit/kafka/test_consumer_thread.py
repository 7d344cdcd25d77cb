"""Messages that need no handling wait in the consumer's thread for others, but not for long."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from faust.types import TP

from stream_app.kafka import consumer_thread
from stream_app.kafka.consumer_thread import ConsumerThread

EVENTS, OTHER, REQUESTS = TP("exports.events", 0), TP("exports.events", 1), TP("exports.requests", 0)

Answer = Mapping[TP, Sequence[Any]]


def record(offset: int, value: bytes = b"-") -> SimpleNamespace:
    return SimpleNamespace(offset=offset, value=value, headers=())


class Thread(ConsumerThread):
    """The consumer's thread, with answers in place of a client. Without further ones it waits in vain."""

    def __init__(self, *answers: Answer | Exception, most: int = 500) -> None:
        self.answers = list(answers)
        self.asked: list[int] = []
        self.most = most

    def _ensure_consumer(self) -> Any:
        return SimpleNamespace(_max_poll_records=self.most)

    async def _fetch_records(
        self, consumer: Any, active_partitions: Any, timeout: Any = None, max_records: Any = None
    ) -> Any:
        self.asked.append(max_records)
        if not self.answers:
            await asyncio.sleep(timeout)
            return {}
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def fetch(self, timeout: float = 30.0) -> dict[TP, list[int]]:
        unneeded = {EVENTS.topic: lambda value, _: value == b"-"}
        found = await self._fetch_until_needed({EVENTS, REQUESTS}, timeout, unneeded)
        return {tp: [one.offset for one in records] for tp, records in found.items()}


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consumer_thread, "UNNEEDED_SECONDS", 30.0)


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("last", [{EVENTS: [record(9), record(10, b"x")]}, {REQUESTS: [record(4)]}])
async def test_messages_without_need_come_together_with_the_next_one(last: Answer) -> None:
    thread = Thread({EVENTS: [record(5)]}, {OTHER: [record(1)], EVENTS: [record(6), record(8)]}, last)
    (place,) = last
    offsets = [one.offset for one in last[place]]
    found = await thread.fetch()
    assert found.pop(OTHER) == [1]
    assert found.pop(EVENTS) == [5, 6, 8, *(offsets if place == EVENTS else [])]
    assert found == ({} if place == EVENTS else {REQUESTS: offsets})


async def test_a_message_that_needs_handling_does_not_wait() -> None:
    thread = Thread({EVENTS: [record(5, b"x")]}, {EVENTS: [record(6, b"x")]})
    assert await thread.fetch() == {EVENTS: [5]}
    assert len(thread.asked) == 1


async def test_messages_without_need_wait_for_a_short_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their acknowledgement is not delayed for longer, also if the worker waits for the end of a topic."""
    monkeypatch.setattr(consumer_thread, "UNNEEDED_SECONDS", 0.01)
    thread = Thread({EVENTS: [record(5)]}, {EVENTS: [record(6)]})
    began = time.monotonic()
    assert await thread.fetch(timeout=3_600) == {EVENTS: [5, 6]}
    assert time.monotonic() - began < 60


async def test_without_messages_it_waits_for_the_time_out() -> None:
    thread = Thread()
    assert await thread.fetch(timeout=0.01) == {}
    assert len(thread.asked) == 1


@pytest.mark.usefixtures("patient")
async def test_the_number_of_messages_without_need_is_bounded() -> None:
    thread = Thread(*({EVENTS: [record(2 * number), record(2 * number + 1)]} for number in range(9)), most=5)
    assert await thread.fetch() == {EVENTS: list(range(6))}
    assert thread.asked == [5, 3, 1]


@pytest.mark.usefixtures("patient")
async def test_an_error_loses_no_message_that_needs_handling() -> None:
    thread = Thread({EVENTS: [record(5)]}, OSError("gone"), {EVENTS: [record(6, b"x")]})
    with pytest.raises(OSError, match="gone"):
        await thread.fetch()
    assert await thread.fetch() == {EVENTS: [6]}
