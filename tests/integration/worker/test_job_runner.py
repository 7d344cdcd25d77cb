"""Attempts and their files while parts of the service are unavailable."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, cast

import pytest
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncEngine

from stream_app.datasets.models import Dataset
from stream_app.exports.pipeline import Exporter
from stream_app.exports.sources.registry import SourceFinder
from stream_app.exports.sources.source import Source
from stream_app.exports.task import ExportProgress, ExportResult, ExportTask
from stream_app.jobs.claim import Claim
from stream_app.jobs.models import ExportJob
from stream_app.jobs.states import Status
from stream_app.settings import Settings
from stream_app.storage.listing import object_key
from stream_app.storage.object_store import ObjectStore
from stream_app.worker.dispatcher import Dispatcher
from stream_app.worker.job_runner import JobRunner
from stream_app.worker.maintenance.job_recovery import JobRecovery
from streaming_exporter.errors import Outage, Rejected, Retryable
from streaming_exporter.events import Event, LifecycleData
from tests.integration.jobs.jobs import Jobs, completed
from tests.waiting import at_most, until_async

LEASE_SECONDS = 600
"""The lease of a dispatcher. It renews leases whose half has passed, before it claims."""

SHORT_LEASE_SECONDS = 6
"""The lease of a dispatcher whose heartbeat gets no answer."""


@pytest.fixture
def jobs(engine: AsyncEngine) -> Jobs:
    return Jobs(engine)


@pytest.fixture
def published() -> list[Event]:
    return []


@pytest.fixture
def recovery(jobs: Jobs, storage: ObjectStore, published: list[Event]) -> JobRecovery:
    async def publish_event(event: Event) -> None:
        published.append(event)

    return JobRecovery(jobs.store, storage, publish_event)


def put(storage: ObjectStore, claim: Claim) -> LifecycleData:
    """Write the file of an attempt; return the outcome that names it."""
    key = object_key(claim.job_id, claim.attempt, "f")
    storage.put(key, iter([b"x"]), content_type="text/plain", file_name="f", metadata=dict)
    return completed(claim).model_copy(update={"key": key})


async def test_a_seal_can_be_repeated_after_its_outcome_was_applied(jobs: Jobs) -> None:
    await jobs.admit()
    (claim,) = await jobs.store.claim("w", 1)
    assert await jobs.store.store_outcome(claim, completed(claim)) is True
    assert await jobs.apply(completed(claim)) is True
    assert await jobs.store.store_outcome(claim, completed(claim)) is True
    assert await jobs.store.store_outcome(claim, claim.lifecycle(Status.FAILED)) is False


async def test_leftovers_never_include_the_file_of_a_completed_job(
    jobs: Jobs, storage: ObjectStore, recovery: JobRecovery
) -> None:
    await jobs.admit()
    (lost,) = await jobs.store.claim("w1", 1)
    await jobs.expire_leases()
    (claim,) = await jobs.store.claim("w2", 1)
    left, outcome = put(storage, lost), put(storage, claim)
    await jobs.store.store_outcome(claim, outcome)
    await recovery.remove_leftovers(claim.job_id, before=claim.attempt + 1)
    assert storage.exists(str(outcome.key))
    assert not storage.exists(str(left.key))
    await jobs.apply(outcome)
    await recovery.remove_leftovers(claim.job_id, before=claim.attempt + 1)
    assert storage.exists(str(outcome.key))


class NoSources:
    """No source is away or slow, because there is none."""

    def source_for(self, dataset: Dataset) -> Source:
        raise KeyError(dataset.source)

    def each(self) -> Sequence[Source]:
        return ()


@dataclass
class Exports:
    """Exports that fail with an error, or last until they are stopped."""

    storage: ObjectStore
    error: Exception | None = None
    running: list[int] = field(default_factory=list)
    datasets: dict[str, Dataset] = field(default_factory=dict)
    sources: SourceFinder = field(default_factory=NoSources)

    async def run(self, task: ExportTask, _progress: ExportProgress) -> ExportResult:
        attempt = int(task.target("file").split("/")[-2].partition("-")[0])
        self.running.append(attempt)
        try:
            if self.error is not None:
                raise self.error
            await asyncio.Event().wait()
            raise AssertionError
        finally:
            self.running.remove(attempt)


@pytest.mark.parametrize(("error", "failures"), [(Outage("away"), 0), (Retryable("fault"), 1)])
async def test_a_job_is_released_when_the_state_database_is_available_again(
    jobs: Jobs,
    storage: ObjectStore,
    recovery: JobRecovery,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    failures: int,
) -> None:
    job_id = await jobs.admit()
    (claim,) = await jobs.store.claim("w", 1)
    release, away = jobs.store.release, [True, True]

    async def late(*arguments: Any, **named: Any) -> bool:
        if away:
            away.pop()
            raise Retryable("state database: away")
        return await release(*arguments, **named)

    monkeypatch.setattr(jobs.store, "release", late)
    exporter = cast(Exporter, Exports(storage, error))
    runner = JobRunner(jobs.store, exporter, recovery.publish_event, recovery, settings)
    await runner.finish(runner.start(claim))
    job = await jobs.queries.get(job_id)
    assert job is not None
    assert (job.status, job.failures) == ("pending", failures)


@pytest.mark.parametrize("error", [Outage("away"), Retryable("fault"), Rejected("no")])
async def test_all_events_of_an_attempt_are_published_before_its_job_is_released(
    jobs: Jobs, storage: ObjectStore, recovery: JobRecovery, settings: Settings, error: Exception
) -> None:
    job_id = await jobs.admit()
    (claim,) = await jobs.store.claim("w", 1)
    kafka_is_there = asyncio.Event()

    async def publish_event(_: Event) -> None:
        await kafka_is_there.wait()

    runner = JobRunner(jobs.store, cast(Exporter, Exports(storage, error)), publish_event, recovery, settings)
    attempt = runner.start(claim)
    finishing = asyncio.create_task(runner.finish(attempt))
    await asyncio.wait({attempt.export})
    await asyncio.wait({finishing}, timeout=0.3)
    job = await jobs.queries.get(job_id)
    assert job is not None
    assert (job.status, job.outcome) == ("processing", None)
    kafka_is_there.set()
    await finishing
    job = await jobs.queries.get(job_id)
    assert job is not None
    assert job.status == "pending" or job.outcome["status"] == "failed"


async def test_an_attempt_that_lost_its_lease_publishes_no_more_events(
    jobs: Jobs, storage: ObjectStore, recovery: JobRecovery, settings: Settings
) -> None:
    await jobs.admit()
    started: list[int] = []

    async def publish_event(event: Event) -> None:
        started.append(event.lifecycle.attempt)
        await asyncio.Event().wait()

    dispatcher = Dispatcher(
        worker="w",
        queue=jobs.store,
        exporter=cast(Exporter, Exports(storage, Outage("away"))),
        publish_event=publish_event,
        settings=settings,
    )
    working = asyncio.create_task(dispatcher.work())
    await until_async(lambda: started)
    await jobs.expire_leases()
    (claim,) = await jobs.store.claim("another", 1)
    assert (dispatcher.running, claim.attempt) == (1, 2)
    await dispatcher._renew()
    await until_async(lambda: not dispatcher.running)
    await dispatcher.drain(0)
    await working
    assert started == [1]


async def test_the_back_off_of_a_job_grows_during_an_outage(
    jobs: Jobs, storage: ObjectStore, recovery: JobRecovery, settings: Settings
) -> None:
    job_id = await jobs.admit()
    exporter = cast(Exporter, Exports(storage, Outage("away")))
    runner = JobRunner(jobs.store, exporter, recovery.publish_event, recovery, settings)
    for longest in (5, 10, 20, 40, 80, 120, 120):
        (claim,) = await jobs.store.claim("w", 1)
        began = datetime.now(UTC)
        await runner.finish(runner.start(claim))
        job = await jobs.queries.get(job_id)
        assert job is not None
        assert job.not_before is not None
        assert longest / 2 <= (job.not_before - began).total_seconds() <= longest + 5
        async with jobs.store.transaction() as connection:
            await connection.execute(update(ExportJob).values(not_before=None))
    assert job is not None
    assert job.failures == 0


@pytest.fixture
def exports(storage: ObjectStore) -> Exports:
    return Exports(storage)


@pytest.fixture
def dispatcher(
    jobs: Jobs, exports: Exports, recovery: JobRecovery, settings: Settings, request: pytest.FixtureRequest
) -> Dispatcher:
    """A dispatcher with the lease in seconds that the test has as its parameter, or a long one."""
    return Dispatcher(
        worker="w",
        queue=jobs.store,
        exporter=cast(Exporter, exports),
        publish_event=recovery.publish_event,
        settings=settings.model_copy(
            update={"lease_seconds": getattr(request, "param", LEASE_SECONDS), "worker_slots": 2}
        ),
    )


async def test_a_worker_that_claims_its_own_job_again_stops_the_old_attempt(
    jobs: Jobs, dispatcher: Dispatcher, exports: Exports
) -> None:
    await jobs.admit()
    assert not await dispatcher._claim(2)  # one job, so no more can be claimed
    await until_async(lambda: exports.running == [1])
    await jobs.expire_leases()
    assert await dispatcher._claim(1)
    assert dispatcher.running == 2
    await until_async(lambda: exports.running == [2])
    await until_async(lambda: dispatcher.running == 1)
    await dispatcher.drain(0.1)
    assert exports.running == []


async def test_after_an_outage_a_worker_renews_its_leases_before_it_claims(
    jobs: Jobs, dispatcher: Dispatcher, exports: Exports
) -> None:
    await jobs.admit()
    assert not await dispatcher._claim(2)  # one job, so no more can be claimed
    await until_async(lambda: exports.running == [1])
    dispatcher._renewed_at -= LEASE_SECONDS
    await jobs.expire_leases()
    assert not await dispatcher._claim(1)
    assert exports.running == [1]
    await dispatcher.drain(0.1)


@pytest.mark.parametrize("dispatcher", [SHORT_LEASE_SECONDS], indirect=True)
async def test_a_heartbeat_without_an_answer_times_out_before_the_lease(
    jobs: Jobs, dispatcher: Dispatcher, exports: Exports
) -> None:
    job_id = await jobs.admit()
    assert not await dispatcher._claim(2)  # one job, so no more can be claimed
    await until_async(lambda: exports.running == [1])
    async with jobs.engine.begin() as other:
        await other.execute(select(ExportJob.id).where(ExportJob.id == job_id).with_for_update())
        async with asyncio.timeout(SHORT_LEASE_SECONDS):
            with pytest.raises(Retryable, match="leases were not renewed within"):
                await dispatcher._renew()
    await dispatcher._renew()
    assert exports.running == [1]
    await dispatcher.drain(0.1)
    assert await jobs.status(job_id) == "pending"


async def test_a_drain_does_not_wait_for_a_claim_that_hangs(dispatcher: Dispatcher) -> None:
    async with dispatcher._claiming, at_most(10):
        await dispatcher.drain(0.1)
    assert dispatcher.running == 0


async def test_files_that_cannot_be_removed_delay_no_other_work(
    jobs: Jobs, recovery: JobRecovery, published: list[Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the object store is away, one removal is tried in each round, after all other work."""
    tried: list[int] = []

    def remove(_: str) -> None:
        tried.append(len(published))
        raise Outage("object store: away")

    monkeypatch.setattr(recovery.storage.removal, "remove", remove)
    for _ in range(3):
        await jobs.admit()
    for claim in await jobs.store.claim("w", 3):
        assert await jobs.apply(completed(claim).model_copy(update={"expires_at": claim.started_at}))
    await recovery.recover()
    await jobs.expire_leases()
    ended = await jobs.admit()
    (claim,) = await jobs.store.claim("w", 1)
    await jobs.store.store_outcome(claim, completed(claim))
    await jobs.expire_leases()
    assert [outcome.job_id for outcome in await jobs.store.unclaimed.take_unpublished(limit=1)] == [ended]
    await jobs.expire_leases()
    await recovery.recover()
    assert [event.job_id for event in published] == [ended]
    assert tried == [0, 1]
