"""A new job is claimed with its admission, but only if a claim would take it now."""

import asyncio
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from stream_app.db.engine import driver_connection
from stream_app.db.listener import WAKE_CHANNEL
from stream_app.jobs.admission import AdmittedJob
from stream_app.jobs.new_job import NewJob
from stream_app.jobs.parts import PartStore
from stream_app.jobs.queue_sql import CLAIMS
from streaming_exporter.errors import Locked
from tests.integration.jobs.jobs import Jobs, completed, ids, new_job
from tests.integration.jobs.parts import part_claims, plan
from tests.waiting import until_async

USER_SLOTS = 2
LEASE = timedelta(seconds=30)


@pytest.fixture
def jobs(engine: AsyncEngine) -> Jobs:
    return Jobs(engine, user_slots=USER_SLOTS)


async def execute(jobs: Jobs, statement: str, **values: Any) -> None:
    async with jobs.engine.begin() as connection:
        await connection.execute(text(statement), values)


async def row_of(jobs: Jobs, job_id: UUID) -> Any:
    async with jobs.engine.begin() as connection:
        found = await connection.execute(text("SELECT * FROM export_jobs WHERE id = :id"), {"id": job_id})
        return found.one()


async def start(jobs: Jobs, job: NewJob, worker: str = "w") -> AdmittedJob:
    return await jobs.store.admission.admit_and_claim(worker, job)


async def test_a_job_is_claimed_as_by_a_claim(jobs: Jobs) -> None:
    """The claim, the row and the answer are those of an admission and a claim."""
    data: dict[str, Any] = {"columns": ["id"], "filters": {"kind": "proof"}, "name": "my file"}
    job = new_job("new", **data)
    admitted = await start(jobs, job)
    other = await jobs.admit("new", **data)
    (usual,) = await jobs.store.claim("w", 1)
    assert usual.job_id == other
    (claim,) = admitted.claims
    assert claim == replace(
        usual, job_id=job.id, started_at=claim.started_at, requested_at=claim.requested_at
    )
    assert claim.started_at >= job.created_at == claim.requested_at
    assert [(data.job_id, data.status) for data in admitted.accepted] == [(job.id, "pending")]
    row, usual_row = await row_of(jobs, job.id), await row_of(jobs, other)
    own = {"id", "created_at", "admitted_at", "started_at", "lease_until"}
    same = row._mapping.keys() - own
    assert {name: row._mapping[name] for name in same} == {name: usual_row._mapping[name] for name in same}
    assert row.lease_until - row.started_at == usual_row.lease_until - usual_row.started_at == LEASE
    assert await jobs.store.store_outcome(claim, completed(claim))


async def _one_waits(jobs: Jobs) -> None:
    await jobs.admit("other")


async def _one_is_retried_later(jobs: Jobs) -> None:
    job_id = await jobs.admit("other")
    await execute(
        jobs, "UPDATE export_jobs SET not_before = now() + interval '1 h' WHERE id = :id", id=job_id
    )


async def _one_waits_to_be_admitted(jobs: Jobs) -> None:
    await jobs.admit("other", admitted=False)


async def _one_is_abandoned(jobs: Jobs) -> None:
    await jobs.admit("other")
    assert await jobs.store.claim("dead", 1)
    await jobs.expire_leases()


async def _a_part_waits(jobs: Jobs) -> None:
    await jobs.admit("other")
    (claim,) = await jobs.store.claim("holder", 1)
    assert await plan(PartStore(jobs.store), claim, 1)


async def _a_part_is_abandoned(jobs: Jobs) -> None:
    await _a_part_waits(jobs)
    assert part_claims(await jobs.store.claim("dead", 1))
    await execute(jobs, "UPDATE export_parts SET lease_until = now() - interval '1 s'")


async def _the_slots_of_the_user_are_full(jobs: Jobs) -> None:
    for _ in range(USER_SLOTS):
        await jobs.admit("new")
    assert len(await jobs.store.claim("w1", USER_SLOTS)) == USER_SLOTS


async def _parts_fill_the_slots_of_the_user(jobs: Jobs) -> None:
    await jobs.admit("new")
    (claim,) = await jobs.store.claim("holder", 1)
    assert await plan(PartStore(jobs.store), claim, USER_SLOTS)
    assert len(part_claims(await jobs.store.claim("w1", 9))) == USER_SLOTS


@pytest.mark.parametrize(
    "before",
    [
        _one_waits,
        _one_is_retried_later,
        _one_waits_to_be_admitted,
        _one_is_abandoned,
        _a_part_waits,
        _a_part_is_abandoned,
        _the_slots_of_the_user_are_full,
        _parts_fill_the_slots_of_the_user,
    ],
)
async def test_a_job_is_pending_if_other_work_can_come_before_it(jobs: Jobs, before: Any) -> None:
    await before(jobs)
    job = new_job("new")
    admitted = await start(jobs, job)
    assert [data.job_id for data in admitted.accepted] == [job.id]
    assert admitted.claims == []
    row = await row_of(jobs, job.id)
    assert (row.status, row.attempt, row.worker, row.started_at) == ("pending", 0, None, None)
    assert row.admitted_at == job.admitted_at


async def test_jobs_of_others_that_run_do_not_matter(jobs: Jobs) -> None:
    for user in ("a", "a", "b", "new"):
        await jobs.admit(user)
    assert len(await jobs.store.claim("w1", 9)) == 4
    assert len((await start(jobs, new_job("new"))).claims) == 1


async def test_a_job_is_pending_while_another_worker_claims(jobs: Jobs) -> None:
    """It does not wait for that claim. The notification makes both workers claim again."""
    async with jobs.engine.begin() as other:
        await other.execute(text(f"SELECT pg_advisory_xact_lock({CLAIMS})"))
        job = new_job("new")
        assert (await start(jobs, job)).claims == []
    assert ids(await jobs.store.claim("w", 1)) == [job.id]


async def test_workers_together_keep_to_the_slots_of_a_user(jobs: Jobs) -> None:
    new = [new_job(user) for user in "aabbccaabbcc"]

    async def admit(number: int, job: NewJob) -> AdmittedJob:
        return await start(jobs, job, f"w{number}")

    async def claim() -> None:
        await jobs.store.claim("claimer", 1)

    await asyncio.gather(*(admit(*item) for item in enumerate(new)), *(claim() for _ in range(4)))
    for _ in range(2):
        rows = [await row_of(jobs, job.id) for job in new]
        running = Counter(row.user_id for row in rows if row.status == "processing")
        assert all(number <= USER_SLOTS for number in running.values())
        assert {row.attempt for row in rows if row.status == "processing"} <= {1}
        await jobs.store.claim("claimer", 99)
    assert running == {"a": USER_SLOTS, "b": USER_SLOTS, "c": USER_SLOTS}


async def test_only_jobs_that_are_not_claimed_are_notified(jobs: Jobs) -> None:
    heard: list[str] = []
    async with jobs.engine.connect() as connection:
        raw = driver_connection(connection)
        await raw.add_listener(WAKE_CHANNEL, lambda *notification: heard.append(str(notification[3])))
        assert (await start(jobs, new_job("new"))).claims
        await execute(jobs, f"SELECT pg_notify('{WAKE_CHANNEL}', 'claimed')")
        await jobs.admit("other", admitted=False)
        assert not (await start(jobs, new_job("new"))).claims
        await until_async(lambda: len(heard) > 1)
    assert heard == ["claimed", ""]


async def test_a_job_that_the_api_has_recorded_is_claimed(jobs: Jobs) -> None:
    job_id = await jobs.admit("new", admitted=False, parameters={"year": 1}, claims={"team": "x"})
    job = new_job("new", job_id)
    admitted = await start(jobs, job)
    (claim,) = admitted.claims
    assert [data.job_id for data in admitted.accepted] == [job_id]
    assert (claim.request.parameters, claim.request.claims) == ({"year": 1}, {"team": "x"})
    row = await row_of(jobs, job_id)
    assert (row.status, row.attempt, row.worker) == ("processing", 1, "w")
    assert row.admitted_at == job.admitted_at


@pytest.mark.parametrize(
    "change",
    [
        "user_id = 'another'",
        "export_type = 'another'",
        "split = '{\"rows\": 5}'",
        "not_before = now() + interval '1 h'",
        "cancel_requested_at = now()",
    ],
)
async def test_a_record_that_differs_from_its_request_is_admitted_and_not_claimed(
    jobs: Jobs, change: str
) -> None:
    """What was checked for the request does not hold for the record."""
    job_id = await jobs.admit("new", admitted=False)
    await execute(jobs, f"UPDATE export_jobs SET {change}")
    admitted = await start(jobs, new_job("new", job_id))
    assert [data.job_id for data in admitted.accepted] == [job_id]
    assert admitted.claims == []
    row = await row_of(jobs, job_id)
    assert (row.status, row.attempt, row.worker, row.started_at) == ("pending", 0, None, None)
    assert row.admitted_at is not None


async def test_a_job_that_is_admitted_already_stays_as_it_is(jobs: Jobs) -> None:
    job = new_job("new")
    assert (await start(jobs, job)).claims
    assert await start(jobs, job, "other") == AdmittedJob([], [])
    assert (await row_of(jobs, job.id)).worker == "w"


async def test_a_record_that_another_transaction_holds_is_not_waited_for(jobs: Jobs) -> None:
    """The statement holds the lock of claims, so it must not wait for long."""
    job_id = await jobs.admit("new", admitted=False)
    async with jobs.engine.begin() as other:
        await other.execute(text("SELECT FROM export_jobs WHERE id = :id FOR UPDATE"), {"id": job_id})
        with pytest.raises(Locked):
            await start(jobs, new_job("new", job_id))
    row = await row_of(jobs, job_id)
    assert (row.status, row.admitted_at) == ("pending", None)


async def test_a_record_that_this_version_cannot_read_is_released(jobs: Jobs) -> None:
    job_id = await jobs.admit("new", admitted=False)
    await execute(jobs, "UPDATE export_jobs SET options = '[1]'")
    admitted = await start(jobs, new_job("new", job_id))
    assert admitted.claims == []
    row = await row_of(jobs, job_id)
    assert (row.status, row.worker, row.failures) == ("pending", None, 0)


async def test_an_expired_lease_is_claimed_again(jobs: Jobs) -> None:
    """A worker that dies between the admission and the export leaves what a claim leaves."""
    job = new_job("new")
    assert (await start(jobs, job, "dead")).claims
    assert await jobs.store.claim("w", 1) == []
    await jobs.expire_leases()
    (claim,) = await jobs.store.claim("w", 1)
    assert (claim.job_id, claim.attempt, claim.failures) == (job.id, 2, 1)
