"""When a worker publishes the events of several jobs together: only while jobs wait for its slots."""

import asyncio
from collections import Counter

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from stream_app.settings import Settings
from stream_app.storage.object_store import ObjectStore
from stream_app.worker import dispatcher as module
from stream_app.worker.gathered_events import GatheredEvents
from streaming_exporter.events import Event, EventType
from tests.integration.worker.test_claims_of_a_worker import SLOTS, Worker
from tests.waiting import until_async


class Publishing(Worker):
    """A worker whose events are counted, by the moment at which the producer has them."""

    def __init__(self, engine: AsyncEngine, storage: ObjectStore, settings: Settings) -> None:
        self.events: list[EventType] = []
        self.requests: list[int] = []
        super().__init__(engine, storage, settings)

    async def publish_event(self, event: Event) -> None:
        if len(self.events) == sum(self.requests):
            asyncio.get_running_loop().call_soon(self._send)
        self.events.append(event.type)

    async def publish(self, number: int) -> None:
        """End the wait for other events once ``number`` of them wait."""
        gathered, published = self.dispatcher._runner.publish_event, len(self.events) + number
        assert isinstance(gathered, GatheredEvents)
        release = await until_async(lambda: gathered._release)
        await until_async(lambda: len(release._waiters) == number)
        gathered._publish_all(release)
        await until_async(lambda: sum(self.requests) == published)

    def publish_waiting(self) -> Counter[EventType]:
        """End the wait of events, if any wait; return how many of each type were published before."""
        published = Counter(self.events)
        gathered = self.dispatcher._runner.publish_event
        assert isinstance(gathered, GatheredEvents)
        if gathered._release is not None:
            gathered._publish_all(gathered._release)
        return published

    def _send(self) -> None:
        """Send what the producer has by now in one request."""
        self.requests.append(len(self.events) - sum(self.requests))


async def test_events_are_published_together_while_jobs_wait_and_at_once_otherwise(
    engine: AsyncEngine, storage: ObjectStore, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "POLL_SECONDS", 3_600)
    monkeypatch.setattr(module, "GATHER_SECONDS", 3_600)  # the test ends each wait by itself
    worker = Publishing(engine, storage, settings)
    worker.jobs.store._user_slots = SLOTS  # a user with all slots in use counts as one whose jobs wait
    working = asyncio.create_task(worker.dispatcher.work())
    try:
        await until_async(lambda: worker.claims == 1 and not worker.jobs.store.is_work_left)
        for user in "abcd":
            await worker.jobs.admit(user)
        await worker.notify()
        await worker.publish(SLOTS)
        assert worker.requests == [SLOTS]
        worker.exports.end_one()  # another job starts at once, but not at the moment of this outcome
        await worker.publish(2)
        assert worker.requests == [SLOTS, 2]
        worker.exports.end_one()  # the last job is claimed before or after this outcome is published
        await until_async(lambda: worker.publish_waiting() == {EventType.STARTED: 4, EventType.FAILED: 2})
        worker.exports.end_one()  # no job waits any more
        worker.exports.end_one()
        await until_async(lambda: Counter(worker.events) == {EventType.STARTED: 4, EventType.FAILED: 4})
    finally:
        await worker.dispatcher.drain(0)
        await working
