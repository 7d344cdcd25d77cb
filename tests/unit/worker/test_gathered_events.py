"""While jobs wait, the events of several jobs are published together."""

import asyncio
from uuid import uuid4

import pytest

from stream_app.worker.gathered_events import GatheredEvents
from streaming_exporter.errors import Outage
from streaming_exporter.events import Event, cancel_event


class Producer:
    """Counts how many events it has when its next request begins, as the producer of the client does."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.requests: list[int] = []
        self.refused: Event | None = None

    async def __call__(self, event: Event) -> None:
        if event is self.refused:
            raise Outage("Kafka: refused")
        if len(self.events) == sum(self.requests):
            asyncio.get_running_loop().call_soon(self._send)
        self.events.append(event)

    def _send(self) -> None:
        self.requests.append(len(self.events) - sum(self.requests))


def events(count: int) -> list[Event]:
    return [cancel_event(uuid4(), source="/tests") for _ in range(count)]


async def test_without_waiting_jobs_an_event_is_published_at_once() -> None:
    producer, (event,) = Producer(), events(1)
    publishing = GatheredEvents(producer, lambda: 0.0)(event)
    with pytest.raises(StopIteration):
        publishing.send(None)  # it ends without a wait
    assert producer.events == [event]


async def test_while_jobs_wait_the_events_of_a_short_time_are_one_request() -> None:
    producer, all_events = Producer(), events(3)
    gathered = GatheredEvents(producer, lambda: 3_600)
    async with asyncio.TaskGroup() as group:
        for event in all_events:
            group.create_task(gathered(event))
            await asyncio.sleep(0.01)
            assert not producer.events
        assert gathered._release is not None
        gathered._publish_all(gathered._release)  # as its timer does
    await asyncio.sleep(0)
    assert producer.events == all_events
    assert producer.requests == [3]


async def test_an_event_that_comes_later_waits_for_the_next_ones() -> None:
    producer, all_events = Producer(), events(3)
    gathered = GatheredEvents(producer, lambda: 0.05)
    await gathered(all_events[0])
    await asyncio.gather(*map(gathered, all_events[1:]))
    await asyncio.sleep(0)
    assert producer.requests == [1, 2]


async def test_an_event_is_not_left_behind_when_no_job_waits_any_more() -> None:
    producer, all_events, seconds = Producer(), events(2), [0.05, 0.0]
    gathered = GatheredEvents(producer, lambda: seconds.pop(0))
    await asyncio.gather(gathered(all_events[0]), gathered(all_events[1]))
    assert producer.events == all_events
    assert seconds == [0.0]  # the second one joined the first one, which waited already


async def test_the_error_of_an_event_is_raised_for_that_event_only() -> None:
    producer, all_events = Producer(), events(3)
    producer.refused = all_events[1]
    gathered = GatheredEvents(producer, lambda: 0.01)
    found = await asyncio.gather(*map(gathered, all_events), return_exceptions=True)
    assert [type(error) for error in found] == [type(None), Outage, type(None)]
    assert producer.events == [all_events[0], all_events[2]]


async def test_a_cancelled_event_is_not_published_and_delays_no_other_one() -> None:
    producer, all_events = Producer(), events(2)
    gathered = GatheredEvents(producer, lambda: 0.05)
    first = asyncio.create_task(gathered(all_events[0]))
    second = asyncio.create_task(gathered(all_events[1]))
    await asyncio.sleep(0)
    first.cancel()
    await second
    assert first.cancelled()
    assert producer.events == [all_events[1]]
