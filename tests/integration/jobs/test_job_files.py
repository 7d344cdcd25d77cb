"""The several files of a job share its life: listed when its outcome is stored, removed when it ends."""

from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

import pytest
from sqlalchemy import func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncEngine

from stream_app.exports.task import ExportedFile, ExportResult
from stream_app.jobs.claim import Claim
from stream_app.jobs.job_files import JobFiles
from stream_app.jobs.models import ExportFile, ExportJob
from stream_app.jobs.states import Status
from stream_app.storage.object_store import ObjectStore
from stream_app.worker.maintenance.job_cleaner import JobCleaner
from stream_app.worker.maintenance.job_recovery import JobRecovery
from streaming_exporter.events import Event, LifecycleData
from tests.integration.jobs.jobs import HISTORY, Jobs, ids


@pytest.fixture
def jobs(engine: AsyncEngine) -> Jobs:
    return Jobs(engine)


@pytest.fixture
def recovery(jobs: Jobs, storage: ObjectStore) -> JobRecovery:
    async def publish_event(_: Event) -> None:
        """Publish nothing."""

    return JobRecovery(jobs.store, storage, publish_event)


def put(storage: ObjectStore, key: str) -> str:
    storage.put(key, iter([b"x"]), content_type="text/plain", file_name="f", metadata=dict)
    return key


def write(storage: ObjectStore, claim: Claim, count: int) -> ExportResult:
    """Write the files of an attempt and their manifest."""
    folder = storage.folder(claim.job_id, claim.attempt)
    files = tuple(
        ExportedFile(
            number=number,
            file_name=f"f-{number}.csv",
            key=put(storage, f"{folder}/f-{number}.csv"),
            content_type="text/csv",
            row_count=2,
            file_size=1,
            sha256="x",
        )
        for number in range(1, count + 1)
    )
    return ExportResult(
        row_count=2 * count,
        file_size=count,
        sha256="x",
        bucket=storage.bucket,
        key=put(storage, f"{folder}/manifest.json"),
        content_type="application/json",
        file_name="manifest.json",
        as_of=datetime.now(UTC),
        manifest={"file_count": count},
        files=files,
    )


def outcome(claim: Claim, result: ExportResult) -> LifecycleData:
    return claim.lifecycle(
        Status.COMPLETED,
        row_count=result.row_count,
        file_size=result.file_size,
        key=result.key,
        file_name=result.file_name,
        file_count=len(result.files),
        content_type=result.content_type,
        completed_at=datetime.now(UTC),
    )


async def claimed(jobs: Jobs) -> Claim:
    job_id = await jobs.admit(split={"rows": 2})
    claims = await jobs.store.claim("w", 10)
    assert ids(claims) == [job_id]
    return claims[0]


async def listed(jobs: Jobs, job_id: UUID) -> list[str]:
    job = await jobs.queries.get(job_id)
    assert job is not None

    async def read(_: str) -> bytes:
        return b'{"files": []}'

    files = await JobFiles(jobs.engine, read).list(job, limit=100)
    return [file.file_name for file in files]


def left(storage: ObjectStore, job_id: UUID) -> list[str]:
    return [item.key for page in storage.listing.pages(job_id) for item in page]


async def test_the_files_of_the_attempt_that_completed_the_job_are_listed(
    jobs: Jobs, storage: ObjectStore
) -> None:
    first = await claimed(jobs)
    lost = write(storage, first, 3)
    await jobs.store.record_files(first, lost)
    await jobs.expire_leases()
    (second,) = await jobs.store.claim("w2", 10)
    kept = write(storage, second, 2)
    await jobs.store.record_files(second, kept)
    await jobs.store.record_files(second, kept)  # the answer to the first call was lost
    # The first worker was only slow: what it writes now is of no attempt that counts.
    await jobs.store.record_files(first, lost)
    assert not await jobs.store.store_outcome(first, outcome(first, lost))
    ended = outcome(second, kept)
    assert await jobs.store.store_outcome(second, ended)
    assert await jobs.apply(ended)
    assert await listed(jobs, second.job_id) == ["f-1.csv", "f-2.csv"]
    job = await jobs.queries.get(second.job_id)
    assert job is not None
    assert (job.file_count, job.file_name) == (2, "manifest.json")


async def test_an_attempt_that_lost_its_lease_removes_its_own_files_only(
    jobs: Jobs, storage: ObjectStore, recovery: JobRecovery
) -> None:
    claim = await claimed(jobs)
    lost, kept = write(storage, claim, 2), write(storage, claim, 2)
    await recovery.discard(outcome(claim, lost))
    assert sorted(left(storage, claim.job_id)) == sorted([kept.key, *(file.key for file in kept.files)])


async def test_a_worker_that_died_between_two_files_leaves_none(
    jobs: Jobs, storage: ObjectStore, recovery: JobRecovery
) -> None:
    """Its successor, or the recovery of a job without one, removes them."""
    claim = await claimed(jobs)
    folder = storage.folder(claim.job_id, claim.attempt)
    for number in range(1, 6):
        put(storage, f"{folder}/f-{number}.csv")
    await recovery.remove_leftovers(claim.job_id, before=2)
    assert left(storage, claim.job_id) == []
    put(storage, f"{folder}/f-1.csv")
    async with jobs.engine.begin() as connection:
        await connection.execute(update(ExportJob).values(cancel_requested_at=func.now()))
    await jobs.expire_leases()
    await recovery.recover()
    assert left(storage, claim.job_id) == []


@pytest.mark.parametrize("count", [1, 7])
async def test_all_files_expire_together(
    jobs: Jobs, storage: ObjectStore, recovery: JobRecovery, count: int
) -> None:
    claim = await claimed(jobs)
    other = write(storage, replace(claim, job_id=UUID(int=claim.job_id.int ^ 1)), 1)
    result = write(storage, claim, count)
    await recovery.publish_outcome(
        claim.lifecycle(Status.EXPIRED, key=result.key, completed_at=datetime.now(UTC))
    )
    assert left(storage, claim.job_id) == []
    assert storage.exists(other.key)
    assert storage.exists(other.files[0].key)


async def test_more_files_than_one_call_removes(storage: ObjectStore, jobs: Jobs) -> None:
    claim = await claimed(jobs)
    result = write(storage, claim, 20)
    storage.removal.remove_all([*(file.key for file in result.files), "jobs/nothing/1/here"])
    assert left(storage, claim.job_id) == [result.key]


async def test_the_list_is_removed_with_the_job(jobs: Jobs, storage: ObjectStore) -> None:
    old, young = await jobs.admit(), await jobs.admit()
    async with jobs.engine.begin() as connection:
        for job_id in (old, young):
            await connection.execute(
                insert(ExportFile).values(
                    job_id=job_id, number=1, key="k", attempt=1, bucket="b", file_name="f",
                    content_type="t", row_count=1, file_size=1, sha256="x",
                )
            )  # fmt: skip
        await connection.execute(update(ExportJob).values(status="expired", outcome=None))
        await connection.execute(
            update(ExportJob).where(ExportJob.id == old).values(created_at=datetime.now(UTC) - 2 * HISTORY)
        )
    assert await JobCleaner(jobs.store, HISTORY).clean() == 1
    async with jobs.engine.connect() as connection:
        assert list(await connection.scalars(select(ExportFile.job_id))) == [young]
