"""Parts are claimed with the leases, the fencing and the fairness that jobs have."""

import asyncio
from collections import Counter
from datetime import timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from stream_app.jobs.claim import Claim
from stream_app.jobs.part_claim import PartClaim, PartProgress
from stream_app.jobs.parts import PartStore
from streaming_exporter.events import JobError
from tests.integration.jobs.jobs import Jobs, completed
from tests.integration.jobs.parts import AS_OF, SNAPSHOT, numbers, part_claims, plan

RESULT = {"key": "k"}


@pytest.fixture
def jobs(engine: AsyncEngine) -> Jobs:
    return Jobs(engine, user_slots=4)


@pytest.fixture
def parts(jobs: Jobs) -> PartStore:
    return PartStore(jobs.store)


async def holder(jobs: Jobs, user: str = "u") -> Claim:
    """A claimed job of a user."""
    job_id = await jobs.admit(user)
    (claim,) = await jobs.store.claim("holder", 1)
    assert claim.job_id == job_id
    return claim


async def expire_parts(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE export_parts SET lease_until = now() - interval '1 second'"))


async def claim_one(jobs: Jobs, worker: str = "w") -> PartClaim:
    (claim,) = part_claims(await jobs.store.claim(worker, 1))
    return claim


def progress(claim: PartClaim, rows: int = 0) -> list[PartProgress]:
    return [PartProgress.of(claim, rows)]


async def test_parts_are_claimed_in_order_and_completed_once(jobs: Jobs, parts: PartStore) -> None:
    claim = await holder(jobs)
    assert await plan(parts, claim, 3)
    first, second = part_claims(await jobs.store.claim("w1", 2))
    assert [(item.number, item.part_attempt, item.range) for item in (first, second)] == [
        (1, 1, {"from": 1}),
        (2, 1, {"from": 2}),
    ]
    assert (first.snapshot, first.as_of, first.request) == (SNAPSHOT, AS_OF, claim.request)
    third = await claim_one(jobs, "w2")
    for item in (third, second, first):
        assert await parts.complete(item, {"key": str(item.number)}, rows=3)
        assert await parts.complete(item, {"key": str(item.number)}, rows=3)
        assert not await parts.complete(item, {"key": "another"}, rows=3)
    state = await parts.state(claim.job_id, claim.attempt)
    assert (state.parts, state.completed, state.rows) == (3, 3, 9)
    assert await parts.results(claim.job_id, claim.attempt) == [{"key": "1"}, {"key": "2"}, {"key": "3"}]
    assert await jobs.store.claim("w", 4) == []


@pytest.mark.parametrize("next_worker", ["w1", "w2"])
async def test_a_part_of_a_lost_worker_is_claimed_again_and_the_lost_claim_is_fenced(
    jobs: Jobs, parts: PartStore, engine: AsyncEngine, next_worker: str
) -> None:
    """Also by the same worker, which can have stood still."""
    claim = await holder(jobs)
    await plan(parts, claim, 1)
    lost = await claim_one(jobs, "w1")
    assert await jobs.store.claim("w2", 1) == []
    await expire_parts(engine)
    again = await claim_one(jobs, next_worker)
    assert (again.part_attempt, again.failures) == (2, 1)
    assert await parts.renew("w1", progress(lost)) == (set(), set())
    assert not await parts.complete(lost, RESULT, rows=3)
    assert not await parts.release(lost, failed=True)
    assert not await parts.fail(lost, JobError(code="c", message="m"))
    held, cancelled = await parts.renew(next_worker, progress(again, 7))
    assert (held, cancelled) == ({again.key}, set())
    assert (await parts.state(claim.job_id, 1)).rows == 7
    assert await parts.complete(again, RESULT, rows=3)


async def test_a_part_that_is_interrupted_too_often_is_exhausted(
    jobs: Jobs, parts: PartStore, engine: AsyncEngine
) -> None:
    claim = await holder(jobs)
    await plan(parts, claim, 1)
    for attempt in (1, 2, 3):
        assert (await claim_one(jobs)).part_attempt == attempt
        await expire_parts(engine)
    assert await jobs.store.claim("w", 1) == []
    assert (await parts.state(claim.job_id, 1)).exhausted == 1


async def test_a_released_part_waits_and_counts_only_failures(jobs: Jobs, parts: PartStore) -> None:
    claim = await holder(jobs)
    await plan(parts, claim, 1)
    assert await parts.release(await claim_one(jobs), failed=False)
    second = await claim_one(jobs)
    assert (second.part_attempt, second.failures) == (2, 0)
    assert await parts.release(second, failed=True)
    third = await claim_one(jobs)
    assert third.failures == 1
    outage = JobError(code="outage", message="away")
    assert await parts.release(third, failed=False, delay=timedelta(minutes=1), waits_for=outage)
    assert await jobs.store.claim("w", 1) == []
    assert (await parts.state(claim.job_id, 1)).waiting_for_outage == 1


async def test_the_error_of_a_failed_part_is_in_the_state(jobs: Jobs, parts: PartStore) -> None:
    claim = await holder(jobs)
    await plan(parts, claim, 2)
    assert await parts.fail(await claim_one(jobs), JobError(code="c", message="m"))
    state = await parts.state(claim.job_id, 1)
    assert (state.failed, state.error_code, state.error_message) == (1, "c", "m")
    assert numbers(await jobs.store.claim("w", 4)) == [2]


async def test_one_error_of_several_failed_parts_counts(jobs: Jobs, parts: PartStore) -> None:
    """Code and text are of one part: the first, or the first after which all parts begin anew."""
    claim = await holder(jobs)
    await plan(parts, claim, 4)
    errors = [("y", "a"), ("x", "b"), ("table_locked", "z"), ("snapshot_lost", "c")]
    found = []
    for part, (code, message) in zip(part_claims(await jobs.store.claim("w", 4)), errors, strict=True):
        assert await parts.fail(part, JobError(code=code, message=message))
        state = await parts.state(claim.job_id, 1)
        found.append((state.error_code, state.error_message))
    assert found == [("y", "a"), ("y", "a"), ("table_locked", "z"), ("table_locked", "z")]


async def test_parts_are_not_planned_by_a_holder_that_lost_its_lease(jobs: Jobs, parts: PartStore) -> None:
    lost = await holder(jobs)
    await jobs.expire_leases()
    (claim,) = await jobs.store.claim("w2", 1)
    assert not await plan(parts, lost, 2)
    assert await plan(parts, claim, 1)
    assert (await parts.state(claim.job_id, claim.attempt)).parts == 1


async def test_parts_of_a_lost_holder_begin_anew(jobs: Jobs, parts: PartStore) -> None:
    lost = await holder(jobs)
    await plan(parts, lost, 2)
    done, running = part_claims(await jobs.store.claim("w1", 2))
    await parts.complete(done, RESULT, rows=3)
    await jobs.expire_leases()
    assert numbers(await jobs.store.claim("w1", 0)) == []
    (claim,) = await jobs.store.claim("w2", 1)
    assert (claim.attempt, claim.failures) == (2, 1)
    assert await parts.kept_plan(claim.job_id) is None
    assert await jobs.store.claim("w2", 4) == []
    assert await parts.renew("w1", progress(running)) == (set(), set())
    await plan(parts, claim, 2)
    assert not await parts.complete(running, RESULT, rows=3)
    assert [(item.attempt, item.number) for item in part_claims(await jobs.store.claim("w1", 2))] == [
        (2, 1),
        (2, 2),
    ]
    assert await parts.renew("w1", progress(running)) == (set(), set())


async def test_parts_with_snapshots_of_their_own_are_kept_for_the_next_holder(
    jobs: Jobs, parts: PartStore
) -> None:
    lost = await holder(jobs)
    await plan(parts, lost, 3, own_snapshots=True)
    done, running = part_claims(await jobs.store.claim("w1", 2))
    await parts.complete(done, RESULT, rows=3)
    await jobs.expire_leases()
    assert (await parts.renew("w1", progress(running)))[0] == {running.key}
    (claim,) = await jobs.store.claim("w2", 1)
    assert await jobs.store.release(claim, failed=False)
    assert (await parts.renew("w1", progress(running)))[0] == {running.key}
    (claim,) = await jobs.store.claim("w2", 1)
    kept = await parts.kept_plan(claim.job_id)
    assert kept is not None
    assert (kept.attempt, kept.parts) == (1, 3)
    assert await parts.complete(running, RESULT, rows=3)
    last = await claim_one(jobs, "w2")
    assert (last.attempt, last.number) == (1, 3)
    assert await parts.complete(last, RESULT, rows=3)
    assert (await parts.state(claim.job_id, kept.attempt)).completed == 3


@pytest.mark.parametrize("own_snapshots", [False, True])
async def test_parts_of_a_job_that_ended_stop_and_are_deleted(
    jobs: Jobs, parts: PartStore, own_snapshots: bool
) -> None:
    claim = await holder(jobs)
    await plan(parts, claim, 2, own_snapshots=own_snapshots)
    running = await claim_one(jobs)
    await parts.delete_of_ended()
    assert (await parts.renew("w", progress(running)))[0] == {running.key}
    await jobs.store.store_outcome(claim, completed(claim))
    assert await parts.renew("w", progress(running)) == (set(), set())
    assert await jobs.store.claim("w", 4) == []
    await parts.delete_of_ended()
    assert (await parts.state(claim.job_id, 1)).parts == 0


async def test_a_cancellation_reaches_every_part(jobs: Jobs, parts: PartStore) -> None:
    claim = await holder(jobs)
    await plan(parts, claim, 3)
    running = part_claims(await jobs.store.claim("w", 2))
    await jobs.cancel(claim.job_id)
    assert await jobs.store.claim("w", 1) == []
    _, cancelled = await parts.renew("w", [PartProgress.of(item, 0) for item in running])
    assert cancelled == {item.key for item in running}


@pytest.mark.parametrize("slots", [1, 2, 3])
async def test_the_slots_of_a_user_count_parts(engine: AsyncEngine, slots: int) -> None:
    """With one slot the holder needs none beside its part. With more, no other job of the user begins."""
    jobs = Jobs(engine, user_slots=slots)
    parts = PartStore(jobs.store)
    claim = await holder(jobs)
    await plan(parts, claim, 9)
    await jobs.admit()
    running = await jobs.store.claim("w", 20)
    assert numbers(running) == list(range(1, slots + 1))
    assert len(running) == slots
    await parts.complete(part_claims(running)[0], RESULT, rows=3)
    assert numbers(await jobs.store.claim("w", 20)) == [slots + 1]
    assert await jobs.store.claim("w", 20) == []


async def test_users_share_the_workers_with_a_split_export_by_turns(jobs: Jobs, parts: PartStore) -> None:
    claim = await holder(jobs, "large")
    await plan(parts, claim, 50)
    small = [await jobs.admit(f"small {number}") for number in range(6)]
    first = await jobs.store.claim("w", 4)
    assert numbers(first) == [1]
    second = await jobs.store.claim("w", 4)
    assert {item.job_id for item in (*first, *second)} == {claim.job_id, *small}
    assert numbers(second) == [2]


async def test_two_workers_together_keep_to_the_slots_of_a_user(jobs: Jobs, parts: PartStore) -> None:
    claims = [await holder(jobs, user) for user in ("a", "b", "c")]
    for claim in claims:
        await plan(parts, claim, 20)
    claimed = await asyncio.gather(*(jobs.store.claim(f"w{number}", 3) for number in range(8)))
    running = Counter(claim.request.user_id for found in claimed for claim in found)
    assert running == {"a": 4, "b": 4, "c": 4}
    keys = [claim.key for found in claimed for claim in part_claims(found)]
    assert len(keys) == len(set(keys))
