"""The job queue on a real PostgreSQL: who can claim a job, and who can end it."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from stream_app.jobs.claim import AttemptProgress
from stream_app.jobs.queue_sql import RENEW
from stream_app.jobs.states import Status
from tests.integration.jobs.jobs import Jobs, Requests, completed, ids, request


@pytest.fixture
def jobs(engine: AsyncEngine) -> Jobs:
    return Jobs(engine)


async def test_admitting_twice_makes_one_job_and_accepts_it_once(jobs: Jobs) -> None:
    job_id = uuid4()
    assert await jobs.admit_again(job_id) == 1
    assert await jobs.admit_again(job_id) == 0
    assert ids(await jobs.store.claim("w", 10)) == [job_id]


async def test_the_order_of_requests_of_one_batch_is_on_record(jobs: Jobs) -> None:
    """The later one replaces the file of an earlier one where both have the same path at a destination."""
    asked = [uuid4() for _ in range(20)]
    await Requests(jobs.store).handle(*(request(job_id) for job_id in asked))
    found = [await jobs.queries.get(job_id) for job_id in asked]
    created = [job.created_at for job in found if job is not None]
    assert len(set(created)) == len(asked)
    assert created == sorted(created)


async def test_a_job_can_be_claimed_only_after_its_admission(jobs: Jobs) -> None:
    job_id = await jobs.admit(admitted=False)
    assert await jobs.store.claim("w", 10) == []
    assert await jobs.admit_again(job_id) == 1
    assert ids(await jobs.store.claim("w", 10)) == [job_id]


async def test_a_claim_has_the_facts_that_the_rights_of_the_request_depend_on(jobs: Jobs) -> None:
    claims = {"org": ["acme"], "tid": "t-1", "roles": ["pii"]}
    await jobs.admit(claims=claims, scope="all")
    (claim,) = await jobs.store.claim("w", 10)
    assert claim.request.claims == claims
    assert "acme" not in claim.lifecycle(Status.PROCESSING).model_dump_json()
    assert "acme" not in repr(claim.log_fields)


async def test_priority_comes_first_then_age(jobs: Jobs) -> None:
    low, first, second = await jobs.admit(priority="low"), await jobs.admit(), await jobs.admit()
    high = await jobs.admit(priority="high")
    assert set(ids(await jobs.store.claim("w", 1))) == {high}
    assert set(ids(await jobs.store.claim("w", 2))) == {first, second}
    assert ids(await jobs.store.claim("w", 2)) == [low]


async def test_a_long_queue_of_one_user_delays_no_other(jobs: Jobs) -> None:
    for _ in range(20):
        await jobs.admit("busy")
    other = await jobs.admit("quiet")
    assert other in ids(await jobs.store.claim("w", 2))


async def test_a_user_has_a_limited_number_of_slots(engine: AsyncEngine) -> None:
    jobs = Jobs(engine, user_slots=2)
    for _ in range(5):
        await jobs.admit()
    assert len(await jobs.store.claim("w1", 10)) == 2
    assert await jobs.store.claim("w2", 10) == []


async def test_only_the_holder_of_the_lease_can_finish(jobs: Jobs) -> None:
    job_id = await jobs.admit()
    (lost,) = await jobs.store.claim("w1", 1)
    await jobs.expire_leases()
    (held,) = await jobs.store.claim("w2", 1)
    assert held.attempt == lost.attempt + 1
    assert await jobs.store.store_outcome(lost, completed(lost)) is False
    assert await jobs.apply(completed(lost)) is False
    assert await jobs.store.store_outcome(held, completed(held)) is True
    assert await jobs.apply(completed(held)) is True
    assert await jobs.status(job_id) == "completed"


async def test_events_are_applied_once_and_replays_change_nothing(jobs: Jobs) -> None:
    job_id = await jobs.admit()
    (claim,) = await jobs.store.claim("w", 1)
    assert await jobs.apply(completed(claim)) is True
    assert await jobs.apply(completed(claim)) is False
    assert await jobs.apply(claim.lifecycle(Status.FAILED)) is False
    assert await jobs.status(job_id) == "completed"


async def test_a_sealed_job_is_not_claimed_but_published_again(jobs: Jobs) -> None:
    await jobs.admit()
    (claim,) = await jobs.store.claim("w1", 1)
    await jobs.store.store_outcome(claim, completed(claim))
    assert await jobs.store.unclaimed.take_unpublished() == []
    await jobs.expire_leases()
    assert await jobs.store.claim("w2", 1) == []
    assert await jobs.store.unclaimed.take_unpublished() == [completed(claim)]
    assert await jobs.store.unclaimed.take_unpublished() == []


async def test_renewing_keeps_the_lease_and_returns_cancelled_and_lost_jobs(jobs: Jobs) -> None:
    kept, cancelled, lost = await jobs.admit(), await jobs.admit(), await jobs.admit()
    claims = {claim.job_id: claim for claim in await jobs.store.claim("w", 3)}
    await jobs.cancel(cancelled)
    progress = [AttemptProgress(job_id, claims[job_id].attempt, 5, 100) for job_id in (kept, cancelled)]
    progress.append(AttemptProgress(lost, claims[lost].attempt + 1, 5, None))
    assert await jobs.store.renew("w", progress) == ({kept, cancelled}, {cancelled})
    job = await jobs.queries.get(kept)
    assert job is not None
    assert (job.row_count, job.estimated_rows) == (5, 100)


async def test_a_heartbeat_changes_no_index(jobs: Jobs) -> None:
    """Otherwise each heartbeat of each running job would write an entry into every index of the table."""
    await jobs.admit()
    (claim,) = await jobs.store.claim("w", 1)
    updated = text(
        "SELECT pg_stat_get_xact_tuples_updated(oid), pg_stat_get_xact_tuples_hot_updated(oid) "
        "FROM pg_class WHERE oid = 'export_jobs'::regclass"
    )
    async with jobs.engine.begin() as connection:
        before, hot_before = (await connection.execute(updated)).one()
        for rows in range(3):
            values = {
                "worker": "w", "lease": jobs.store.lease, "ids": [claim.job_id], "attempts": [claim.attempt],
                "rows": [rows], "estimates": [9], "stages": [None],
            }  # fmt: skip
            assert await RENEW.fetch(connection, values)
        after, hot_after = (await connection.execute(updated)).one()
    assert (after - before, hot_after - hot_before) == (3, 3)


async def test_jobs_that_are_not_admitted_are_taken_in_turn(jobs: Jobs) -> None:
    """The one that waits longest for its turn comes first, whichever is older."""
    placed = [await jobs.admit(admitted=False) for _ in range(4)]
    for rank, job_id in enumerate(reversed(placed)):
        async with jobs.engine.begin() as connection:
            await connection.execute(
                text("UPDATE export_jobs SET lease_until = now() - CAST(:late AS interval) WHERE id = :id"),
                {"late": timedelta(seconds=60 - rank), "id": job_id},
            )
    taken = [event.job_id for _ in placed for event in await jobs.store.admission.take_unadmitted(1)]
    assert taken == placed[::-1]
    assert await jobs.store.admission.take_unadmitted() == []


async def test_large_jobs_that_are_not_admitted_are_taken_a_few_at_a_time(jobs: Jobs) -> None:
    """The memory of a worker does not grow with the size of the requests that wait."""
    placed = [await jobs.admit(admitted=False) for _ in range(5)]
    async with jobs.engine.begin() as connection:
        await connection.execute(
            text(
                "UPDATE export_jobs SET lease_until = now() - interval '1 s', filters = "
                "jsonb_build_object('note', jsonb_build_object('eq', repeat('x', 100000))) "
                "WHERE id = ANY (:ids)"
            ),
            {"ids": placed},
        )
    numbers = []
    while taken := await jobs.store.admission.take_unadmitted(max_bytes=150_000):
        numbers.append(len(taken))
    assert numbers == [2, 2, 1]


async def test_a_failed_attempt_is_retried_when_it_is_due(jobs: Jobs) -> None:
    job_id = await jobs.admit()
    (claim,) = await jobs.store.claim("w", 1)
    assert await jobs.store.release(claim, delay=timedelta(hours=1)) is True
    assert await jobs.status(job_id) == "pending"
    assert await jobs.store.claim("w", 1) == []


async def test_a_drained_attempt_is_retried_at_once_and_does_not_count(jobs: Jobs) -> None:
    await jobs.admit()
    for _ in range(5):
        (claim,) = await jobs.store.claim("w", 1)
        await jobs.store.release(claim, failed=False)
    (claim,) = await jobs.store.claim("w", 1)
    assert (claim.attempt, claim.failures) == (6, 0)


async def test_a_job_whose_workers_die_fails(jobs: Jobs) -> None:
    job_id = await jobs.admit()
    for _ in range(3):
        assert len(await jobs.store.claim("w", 1)) == 1
        await jobs.expire_leases()
    assert await jobs.store.claim("w", 1) == []
    (outcome,) = await jobs.store.unclaimed.end_exhausted()
    assert outcome.error is not None
    assert outcome.error.code == "worker_lost"
    assert await jobs.apply(outcome)
    assert await jobs.status(job_id) == "failed"


async def test_a_pending_job_is_cancelled_at_once(jobs: Jobs) -> None:
    job_id = await jobs.admit()
    outcome = await jobs.cancel(job_id)
    assert outcome is not None
    assert await jobs.store.claim("w", 1) == []
    assert await jobs.apply(outcome)
    assert await jobs.status(job_id) == "cancelled"
    assert await jobs.cancel(job_id) is None


async def test_an_abandoned_job_with_a_cancellation_is_cancelled(jobs: Jobs) -> None:
    job_id = await jobs.admit()
    await jobs.store.claim("w", 1)
    assert await jobs.cancel(job_id) is None
    await jobs.expire_leases()
    assert await jobs.store.claim("w", 1) == []
    (outcome,) = await jobs.store.unclaimed.end_exhausted()
    assert await jobs.apply(outcome)
    assert await jobs.status(job_id) == "cancelled"


async def test_the_file_of_a_completed_job_expires_in_time_or_when_it_is_cancelled(jobs: Jobs) -> None:
    job_id = await jobs.admit()
    (claim,) = await jobs.store.claim("w", 1)
    later = datetime.now(UTC) + timedelta(days=7)
    assert await jobs.apply(completed(claim).model_copy(update={"expires_at": later}))
    assert await jobs.store.unclaimed.expire_files() == []
    assert await jobs.cancel(job_id) is None
    (outcome,) = await jobs.store.unclaimed.expire_files()
    assert (outcome.status, outcome.key) == ("expired", "k")
    assert await jobs.store.unclaimed.expire_files() == []
    assert await jobs.apply(outcome)
    assert await jobs.status(job_id) == "expired"


async def test_a_sealed_job_takes_no_slot_of_its_user(engine: AsyncEngine) -> None:
    jobs = Jobs(engine, user_slots=1)
    await jobs.admit()
    waiting = await jobs.admit()
    (claim,) = await jobs.store.claim("w", 1)
    assert await jobs.store.claim("w", 1) == []
    await jobs.store.store_outcome(claim, completed(claim))
    assert ids(await jobs.store.claim("w", 1)) == [waiting]


async def test_sealing_twice_is_sealing_once(jobs: Jobs) -> None:
    await jobs.admit()
    (claim,) = await jobs.store.claim("w", 1)
    assert await jobs.store.store_outcome(claim, completed(claim)) is True
    assert await jobs.store.store_outcome(claim, completed(claim)) is True
    assert await jobs.store.store_outcome(claim, claim.lifecycle(Status.FAILED)) is False


async def test_a_cancellation_of_a_sealed_job_lets_its_file_expire(jobs: Jobs) -> None:
    job_id = await jobs.admit()
    (claim,) = await jobs.store.claim("w", 1)
    later = datetime.now(UTC) + timedelta(days=7)
    outcome = completed(claim).model_copy(update={"expires_at": later})
    await jobs.store.store_outcome(claim, outcome)
    assert await jobs.cancel(job_id) is None
    assert await jobs.apply(outcome)
    assert [item.job_id for item in await jobs.store.unclaimed.expire_files()] == [job_id]


async def test_a_cancellation_before_admission_cancels_a_job_that_the_api_recorded(jobs: Jobs) -> None:
    job_id = await jobs.admit(admitted=False)
    outcome = await jobs.cancel(job_id)
    assert outcome is not None
    assert await jobs.admit_again(job_id) == 0
    assert await jobs.store.claim("w", 1) == []


async def test_a_limit_of_locked_rows_holds_whatever_plan_postgresql_chooses(engine: AsyncEngine) -> None:
    """A subquery that locks rows runs once, also where a loop over its rows is the cheapest join."""
    jobs = Jobs(engine)
    for _ in range(4):
        await jobs.admit()
    for claim in await jobs.store.claim("w", 4):
        await jobs.store.store_outcome(claim, completed(claim))
    await jobs.expire_leases()
    async with engine.begin() as connection:
        await connection.execute(
            text(
                "DO $$ DECLARE setting text; BEGIN "
                "FOREACH setting IN ARRAY '{hashjoin, mergejoin, hashagg, sort, material}'::text[] LOOP "
                "EXECUTE format('ALTER DATABASE %I SET enable_%s = off', current_database(), setting); "
                "END LOOP; END $$"
            )
        )
    await engine.dispose()
    assert len(await jobs.store.unclaimed.take_unpublished(limit=1)) == 1
    assert len(await jobs.store.unclaimed.take_unpublished(limit=2)) == 2
