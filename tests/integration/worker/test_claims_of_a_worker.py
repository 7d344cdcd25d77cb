"""When a worker claims: once for each notification, and once for each slot that work has waited for."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from stream_app.exports.pipeline import Exporter
from stream_app.exports.source import Source
from stream_app.exports.sources import SourceFinder
from stream_app.exports.task import ExportProgress, ExportTask
from stream_app.settings import Settings
from stream_app.storage.object_store import ObjectStore
from stream_app.worker import dispatcher as module
from stream_app.worker.dispatcher import Dispatcher
from streaming_exporter.errors import Rejected
from streaming_exporter.events import Event
from tests.integration.jobs.jobs import Jobs
from tests.waiting import until_async

SLOTS = 2


class Exports:
    """Exports that run until a test ends them."""

    def __init__(self, storage: ObjectStore, settings: Settings) -> None:
        self.storage = storage
        self.sources: SourceFinder = Source(settings, connections=SLOTS)
        self.datasets: dict[str, Any] = {}
        self.running: list[asyncio.Event] = []

    async def run(self, task: ExportTask, progress: ExportProgress) -> None:
        end = asyncio.Event()
        self.running.append(end)
        await end.wait()
        raise Rejected("it ends without a file")

    def end_one(self) -> None:
        self.running.pop(0).set()


class Worker:
    """A dispatcher that works, without a listener: a test notifies it itself."""

    def __init__(self, engine: AsyncEngine, storage: ObjectStore, settings: Settings) -> None:
        self.jobs = Jobs(engine, user_slots=1)
        self.broker_is_there = asyncio.Event()
        self.broker_is_there.set()
        self.exports = Exports(storage, settings)
        self.claims = 0
        claim = self.jobs.store.claim

        async def counted(*arguments: Any, **options: Any) -> Any:
            self.claims += 1
            return await claim(*arguments, **options)

        self.jobs.store.claim = counted  # type: ignore[method-assign]
        self.dispatcher = Dispatcher(
            worker="w",
            store=self.jobs.store,
            exporter=cast(Exporter, self.exports),
            emit=self.emit,
            settings=settings.model_copy(update={"worker_slots": SLOTS}),
        )

    async def emit(self, event: Event) -> None:
        """Publish nothing, and wait as long as no broker is there."""
        await self.broker_is_there.wait()

    async def notify(self) -> None:
        claims = self.claims
        self.dispatcher.wake()
        await until_async(lambda: self.claims > claims)

    async def runs(self, number: int) -> None:
        await until_async(lambda: len(self.exports.running) == self.dispatcher.running == number)


@pytest.fixture
async def worker(
    engine: AsyncEngine, storage: ObjectStore, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Worker]:
    monkeypatch.setattr(module, "POLL_SECONDS", 3_600)
    made = Worker(engine, storage, settings)
    working = asyncio.create_task(made.dispatcher.work())
    await until_async(lambda: made.claims == 1 and not made.jobs.store.is_work_left)
    yield made
    made.broker_is_there.set()
    await made.dispatcher.drain(0)
    await working


async def test_a_job_that_no_slot_was_free_for_starts_when_one_is(worker: Worker) -> None:
    for user in "abc":
        await worker.jobs.admit(user)
    await worker.notify()
    await worker.runs(SLOTS)
    worker.exports.end_one()
    await worker.runs(SLOTS)


async def test_a_job_that_was_notified_while_no_slot_was_free_starts_when_one_is(worker: Worker) -> None:
    for user in "ab":
        await worker.jobs.admit(user)
        await worker.notify()
    await worker.runs(SLOTS)
    await worker.jobs.admit("c")
    worker.dispatcher.wake()
    worker.exports.end_one()
    await worker.runs(SLOTS)


async def test_the_next_job_of_a_user_starts_when_the_one_before_has_ended(worker: Worker) -> None:
    for _ in range(2):
        await worker.jobs.admit("a")
    await worker.notify()
    await worker.runs(1)
    worker.exports.end_one()
    await worker.runs(1)


async def test_the_end_of_a_job_is_no_reason_to_claim_if_nothing_waits(worker: Worker) -> None:
    worker.jobs.store._user_slots = SLOTS
    await worker.jobs.admit("a")
    await worker.notify()
    await worker.runs(1)
    await until_async(lambda: not worker.jobs.store.is_work_left)
    claims = worker.claims
    worker.exports.end_one()
    await worker.runs(0)
    await worker.jobs.admit("b")
    assert worker.claims == claims
    await worker.notify()
    await worker.runs(1)
    assert worker.claims == claims + 1


async def test_an_ended_export_has_no_slot_unless_there_are_more_of_them_than_slots(worker: Worker) -> None:
    exports, dispatcher = worker.exports, worker.dispatcher
    for user in "abcdefgh":
        await worker.jobs.admit(user)
    worker.broker_is_there.clear()  # so no outcome is sealed or published
    await worker.notify()
    for ended in range(SLOTS + 1):
        running = SLOTS + ended
        await until_async(lambda: len(exports.running) == SLOTS)
        assert dispatcher.running == running
        exports.end_one()
    await until_async(lambda: dispatcher.slots_in_use == SLOTS)
    assert len(exports.running) == SLOTS - 1
    worker.broker_is_there.set()
    await worker.runs(SLOTS)
