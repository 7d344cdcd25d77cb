"""A cancellation takes effect whenever it comes: before its request, with it, or while the job runs."""

import asyncio
import random
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import func, select, text, update
from sqlalchemy.ext.asyncio import AsyncEngine

from stream_app.jobs.models import EarlyCancellation
from stream_app.jobs.queue_sql import CANCELLED_EARLY
from streaming_exporter.events import cancel_event
from tests.integration.jobs.jobs import TRACE, Jobs, Requests, request


@pytest.fixture
def jobs(engine: AsyncEngine) -> Jobs:
    return Jobs(engine)


@pytest.fixture
def requests(jobs: Jobs) -> Requests:
    return Requests(jobs.store)


async def early(jobs: Jobs) -> int:
    async with jobs.engine.connect() as connection:
        return await connection.scalar(select(func.count()).select_from(EarlyCancellation)) or 0


async def assert_cancelled(jobs: Jobs, requests: Requests, job_id: UUID) -> None:
    assert await jobs.store.claim("w", 100) == []
    assert requests.kinds(job_id) == ["accepted", "cancelled"]
    assert {event.traceparent for event in requests.published if event.job_id == job_id} == {TRACE}
    job = await jobs.queries.get(job_id)
    assert job is not None
    assert job.outcome["status"] == "cancelled"
    assert job.cancel_requested_at is not None
    assert await early(jobs) == 0


@pytest.mark.parametrize("cancel_comes_first", [True, False])
@pytest.mark.parametrize("in_one_batch", [True, False])
async def test_a_cancellation_takes_effect_before_and_after_its_request(
    jobs: Jobs, requests: Requests, cancel_comes_first: bool, in_one_batch: bool
) -> None:
    job_id = uuid4()
    events = [request(job_id), cancel_event(job_id, source="/t")]
    if cancel_comes_first:
        events.reverse()
    if in_one_batch:
        await requests.handle(*events)
    else:
        for event in events:
            await requests.handle(event)
    await assert_cancelled(jobs, requests, job_id)


async def test_a_job_is_not_claimed_between_its_request_and_a_cancellation_of_the_same_batch(
    jobs: Jobs, requests: Requests, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise it could complete, and its file would expire at once."""
    job_id = uuid4()
    admit, claimed = jobs.store.admission.admit, []

    async def admit_and_claim(*arguments: Any) -> Any:
        admitted = await admit(*arguments)
        claimed.extend(await jobs.store.claim("w", 100))
        return admitted

    monkeypatch.setattr(jobs.store.admission, "admit", admit_and_claim)
    await requests.handle(cancel_event(job_id, source="/t"), request(job_id))
    assert claimed == []
    await assert_cancelled(jobs, requests, job_id)


async def test_a_cancellation_takes_effect_while_its_request_commits(jobs: Jobs, requests: Requests) -> None:
    job_id = uuid4()

    async def cancel_elsewhere() -> None:
        await Requests(jobs.store).handle(cancel_event(job_id, source="/t"))
        assert await early(jobs) == 1

    requests.meanwhile = cancel_elsewhere
    await requests.handle(request(job_id))
    await assert_cancelled(jobs, requests, job_id)


async def test_a_cancellation_takes_effect_if_its_request_comes_while_it_commits(
    jobs: Jobs, requests: Requests
) -> None:
    job_id = uuid4()
    async with jobs.store.transaction() as connection:
        assert await jobs.store.cancellations.cancel(connection, job_id) is None
        await requests.handle(request(job_id))
        assert requests.kinds(job_id) == ["accepted"]
    await requests.handle(cancel_event(job_id, source="/t"))
    await assert_cancelled(jobs, requests, job_id)


async def test_cancellations_take_effect_that_are_handled_at_the_same_time_as_their_requests(
    jobs: Jobs,
) -> None:
    seed = random.randrange(2**32)
    shuffled = random.Random(seed)
    wanted = [uuid4() for _ in range(60)]
    events = [event for job_id in wanted for event in (request(job_id), cancel_event(job_id, source="/t"))]
    shuffled.shuffle(events)
    agents = [Requests(jobs.store) for _ in range(4)]

    async def handle(number: int) -> None:
        for event in events[number :: len(agents)]:
            await agents[number].handle(event)

    await asyncio.gather(*map(handle, range(len(agents))))
    assert await jobs.store.claim("w", 100) == [], f"seed {seed}"
    assert await early(jobs) == 0, f"seed {seed}"
    for job_id in wanted:
        kinds = [kind for agent in agents for kind in agent.kinds(job_id)]
        assert sorted(kinds) == ["accepted", "cancelled"], f"seed {seed}"


async def test_the_recovery_applies_early_cancellations_that_are_left(jobs: Jobs) -> None:
    job_id, unknown = uuid4(), uuid4()
    await jobs.cancel(unknown)
    async with jobs.store.transaction() as connection:
        await jobs.store.cancellations.cancel(connection, job_id)
        await jobs.admit_again(job_id)
    assert await jobs.store.cancellations.apply_early([unknown]) == []
    (outcome,) = await jobs.store.cancellations.apply_early()
    assert (outcome.job_id, outcome.status, outcome.traceparent) == (job_id, "cancelled", TRACE)
    assert await jobs.store.cancellations.apply_early() == []
    assert await early(jobs) == 1


async def pages_of_the_look_for_cancellations(engine: AsyncEngine, ids: list[UUID]) -> int:
    async with engine.connect() as connection:
        explain = text(f"EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) {CANCELLED_EARLY.text}")
        plan = (await connection.execute(explain, {"ids": ids})).scalar_one()[0]["Plan"]
    return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])


@pytest.mark.parametrize("is_analyzed", [False, True])
async def test_the_look_for_early_cancellations_reads_no_jobs_without_one(
    jobs: Jobs, is_analyzed: bool
) -> None:
    """It runs for each batch of requests. The statistics can be from before the first job."""
    async with jobs.engine.begin() as connection:
        await connection.execute(text("ALTER TABLE export_jobs DISABLE TRIGGER USER"))
        await connection.execute(
            text(
                """
                INSERT INTO export_jobs (id, user_id, export_type, format, admitted_at)
                SELECT gen_random_uuid(), 'u', 'ledger', 'csv', now() FROM generate_series(1, 20000)
                """
            )
        )
        if is_analyzed:
            await connection.execute(text("ANALYZE export_jobs, early_cancellations"))
    some = [uuid4() for _ in range(500)]
    assert await pages_of_the_look_for_cancellations(jobs.engine, some) < 50
    await jobs.cancel(some[0])
    assert await pages_of_the_look_for_cancellations(jobs.engine, some) < 200


async def test_a_cancellation_without_a_job_is_deleted_after_a_week(jobs: Jobs) -> None:
    old, young = uuid4(), uuid4()
    await jobs.cancel(old)
    await jobs.cancel(young)
    async with jobs.engine.begin() as connection:
        for job_id, age in ((old, timedelta(days=7, minutes=1)), (young, timedelta(days=6))):
            await connection.execute(
                update(EarlyCancellation)
                .where(EarlyCancellation.job_id == job_id)
                .values(requested_at=func.now() - age)
            )
    await jobs.store.cancellations.delete_old()
    async with jobs.engine.connect() as connection:
        assert (await connection.scalars(select(EarlyCancellation.job_id))).all() == [young]


@pytest.mark.parametrize("failed", [True, False])
async def test_a_job_that_is_released_while_its_cancellation_is_recorded_is_cancelled(
    jobs: Jobs, failed: bool
) -> None:
    job_id = await jobs.admit()
    (claim,) = await jobs.store.claim("w", 1)
    assert await jobs.cancel(job_id) is None
    assert await jobs.store.release(claim, failed=failed) is True
    assert await jobs.store.claim("w", 1) == []
    (outcome,) = await jobs.store.unclaimed.end_exhausted()
    assert outcome.status == "cancelled"
    assert await jobs.apply(outcome)
    assert await jobs.status(job_id) == "cancelled"


async def test_outcomes_that_are_published_again_keep_their_trace(jobs: Jobs, requests: Requests) -> None:
    job_id = uuid4()
    await requests.handle(request(job_id, format="docx"))
    assert requests.kinds(job_id) == ["accepted", "failed"]
    assert [event.traceparent for event in requests.published] == [TRACE, TRACE]
    await jobs.expire_leases()
    (outcome,) = await jobs.store.unclaimed.take_unpublished()
    assert outcome.traceparent == TRACE
