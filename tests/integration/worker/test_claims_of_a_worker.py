"""When a worker claims: once for each notification, and once for each slot that work has waited for."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from stream_app.datasets.models import Dataset
from stream_app.exports.pipeline import Exporter
from stream_app.exports.sources.registry import SourceFinder
from stream_app.exports.sources.source import Source
from stream_app.exports.task import ExportProgress, ExportTask
from stream_app.jobs.claim_pauses import PausedClaims
from stream_app.settings import Settings
from stream_app.storage.object_store import ObjectStore
from stream_app.worker import dispatcher as module
from stream_app.worker.dispatcher import Dispatcher
from streaming_exporter.errors import Rejected
from streaming_exporter.events import Event
from tests.integration.jobs.jobs import Jobs, new_job
from tests.waiting import until_async

SLOTS = 2


class Exports:
    """Exports that run until a test ends them."""

    def __init__(self, storage: ObjectStore, settings: Settings) -> None:
        self.storage = storage
        self.sources: SourceFinder = Source(settings, connections=SLOTS)
        self.datasets: dict[str, Any] = {"ledger": Dataset(name="ledger", table="t")}
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
            queue=self.jobs.store,
            exporter=cast(Exporter, self.exports),
            publish_event=self.publish_event,
            settings=settings.model_copy(update={"worker_slots": SLOTS}),
        )

    async def publish_event(self, event: Event) -> None:
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
    worker.broker_is_there.clear()  # so no outcome is stored or published
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


async def test_a_new_job_starts_without_a_claim_if_a_slot_is_free(worker: Worker) -> None:
    claims = worker.claims
    for user in "ab":
        job = new_job(user)
        accepted = await worker.dispatcher.admit(job)
        assert accepted is not None
        assert [data.job_id for data in accepted] == [job.id]
    await worker.runs(SLOTS)
    assert await worker.dispatcher.admit(new_job("c")) is None, "no slot is free"
    worker.exports.end_one()
    await worker.runs(1)
    assert worker.claims == claims


async def test_a_new_job_of_a_user_whose_slots_are_full_starts_when_one_is_free(worker: Worker) -> None:
    for _ in range(2):
        assert await worker.dispatcher.admit(new_job("a")) is not None
    await worker.notify()
    await worker.runs(1)
    worker.exports.end_one()
    await worker.runs(1)


@pytest.mark.parametrize(
    "change",
    [
        "pauses unknown",
        "paused",
        "source away",
        "dataset unknown",
        "split",
        "claiming",
        "work left",
        "drained",
    ],
)
async def test_a_new_job_is_left_to_a_claim_where_only_a_claim_can_decide(
    worker: Worker, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """Nothing is admitted then: the caller does it."""
    dispatcher, job = worker.dispatcher, new_job("a", split={"rows": 5} if change == "split" else None)
    match change:
        case "pauses unknown":
            monkeypatch.setattr(dispatcher, "_paused", lambda: None)
        case "paused":
            monkeypatch.setattr(dispatcher, "_paused", lambda: PausedClaims(frozenset({"user:other"})))
        case "source away":
            cast(Source, worker.exports.sources).pool.note_outage()
        case "dataset unknown":
            worker.exports.datasets.clear()
        case "claiming":
            await dispatcher._claiming.acquire()
        case "work left":
            worker.jobs.store.is_work_left = True
        case "drained":
            await dispatcher.drain(0)
    assert await dispatcher.admit(job) is None
    if change == "claiming":
        dispatcher._claiming.release()
    assert await worker.jobs.queries.get(job.id) is None
    assert dispatcher.running == 0


async def test_a_claimed_job_starts_although_its_admission_is_cancelled(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rebalance or a stop can cancel the agent. The export does not end with it, and a drain waits."""
    is_claimed, go_on = asyncio.Event(), asyncio.Event()
    claim = worker.jobs.store.admission.admit_and_claim

    async def slow(*arguments: Any) -> Any:
        claimed = await claim(*arguments)
        is_claimed.set()
        await go_on.wait()
        return claimed

    monkeypatch.setattr(worker.jobs.store.admission, "admit_and_claim", slow)
    admission = asyncio.create_task(worker.dispatcher.admit(new_job("a")))
    await is_claimed.wait()
    admission.cancel()
    await asyncio.wait({admission})
    assert admission.cancelled()
    draining = asyncio.create_task(worker.dispatcher.drain(5))
    go_on.set()
    await until_async(lambda: len(worker.exports.running) == 1)
    worker.exports.end_one()
    await draining
    assert worker.dispatcher.running == 0


async def test_a_job_whose_record_is_locked_is_left_to_the_usual_admission(worker: Worker) -> None:
    job_id = await worker.jobs.admit("a", admitted=False)
    async with worker.jobs.engine.begin() as other:
        await other.execute(text("SELECT FROM export_jobs WHERE id = :id FOR UPDATE"), {"id": job_id})
        assert await worker.dispatcher.admit(new_job("a", job_id)) is None
