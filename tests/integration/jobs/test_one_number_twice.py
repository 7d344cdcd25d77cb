"""Two attempts with one number, as after a failover, do not affect each other (R4); refusals are shown (P11).

Also: a sweep holds no transaction (Q6), and what waits for the store keeps nothing else waiting (R13).
"""

import asyncio
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import asyncpg
import pytest
from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncEngine

from api.jobs.schemas import JobView
from stream_app.datasets.models import Dataset
from stream_app.exports.pipeline import Exporter
from stream_app.exports.sources.errors import SessionEnded
from stream_app.jobs.claim import Claim
from stream_app.jobs.models import ExportJob
from stream_app.jobs.queue import JobQueue
from stream_app.settings import Settings
from stream_app.storage.listing import ListedObject
from stream_app.storage.object_store import ObjectStore
from stream_app.worker import job_runner as attempts
from stream_app.worker.job_runner import JobRunner
from stream_app.worker.maintenance.bucket_cleaner import BucketCleaner
from stream_app.worker.maintenance.job_recovery import JobRecovery
from streaming_exporter.errors import NeedsOperator, Outage
from streaming_exporter.events import Event, LifecycleData
from tests.integration.jobs.jobs import Jobs, completed
from tests.waiting import at_most


@pytest.fixture
def jobs(engine: AsyncEngine) -> Jobs:
    return Jobs(engine)


@pytest.fixture
def recovery(jobs: Jobs, storage: ObjectStore) -> JobRecovery:
    async def publish_event(event: Event) -> None:
        """Publish nothing."""

    return JobRecovery(jobs.store, storage, publish_event)


def put(storage: ObjectStore, claim: Claim) -> LifecycleData:
    """Write the file of an attempt; return the outcome that names it."""
    key = storage.key(claim.job_id, claim.attempt, "f")
    storage.put(key, iter([b"x"]), content_type="text/plain", file_name="f", metadata=dict)
    return completed(claim).model_copy(update={"key": key, "completed_at": datetime.now(UTC)})


async def twice(jobs: Jobs) -> tuple[Claim, Claim]:
    """Two claims of one job with the same number: the commit of the first was lost."""
    job_id = await jobs.admit()
    (old,) = await jobs.store.claim("w1", 1)
    async with jobs.engine.begin() as connection:
        before = {"status": "pending", "attempt": 0, "worker": None, "lease_until": None, "started_at": None}
        await connection.execute(update(ExportJob).where(ExportJob.id == job_id).values(before))
    (new,) = await jobs.store.claim("w2", 1)
    assert (old.attempt, new.attempt) == (1, 1)
    return old, new


class Written:
    """An export that has ended with an outcome."""

    def __init__(self, storage: ObjectStore, outcome: LifecycleData) -> None:
        self.storage = storage
        self._outcome = outcome

    async def run(self, *_: object) -> LifecycleData:
        return self._outcome.model_copy(update={"files": (), "manifest": {}})


@pytest.mark.parametrize(("of_dataset", "days"), [(None, 7), (2, 2), (30, 30), (0.5, 0.5)])
async def test_the_files_of_a_dataset_expire_at_its_own_time(
    jobs: Jobs,
    storage: ObjectStore,
    recovery: JobRecovery,
    settings: Settings,
    of_dataset: float | None,
    days: float,
) -> None:
    await jobs.admit()
    (claim,) = await jobs.store.claim("w", 1)
    dataset = Dataset(name="ledger", table="ledger", retention_days=of_dataset)
    exporter = cast(Exporter, Written(storage, put(storage, claim)))
    datasets = {claim.request.export_type: dataset}
    runner = JobRunner(jobs.store, exporter, recovery.publish_event, recovery, settings, datasets=datasets)
    await runner.finish(runner.start(claim))
    job = await jobs.queries.get(claim.job_id)
    assert job is not None
    assert job.outcome is not None
    ends, completed_at = (
        datetime.fromisoformat(job.outcome[name]) for name in ("expires_at", "completed_at")
    )
    assert ends - completed_at == timedelta(days=days)


@pytest.mark.parametrize("applied", [False, True])
async def test_the_old_attempt_removes_only_its_own_file(
    jobs: Jobs, storage: ObjectStore, recovery: JobRecovery, settings: Settings, applied: bool
) -> None:
    """R4: the completion of the new attempt is only stored, or applied."""
    old, new = await twice(jobs)
    lost, kept = put(storage, old), put(storage, new)
    assert lost.key != kept.key
    assert await jobs.store.store_outcome(new, kept)
    if applied:
        assert await jobs.apply(kept)
    runner = JobRunner(
        jobs.store, cast(Exporter, Written(storage, lost)), recovery.publish_event, recovery, settings
    )
    await runner.finish(runner.start(old))
    assert storage.exists(str(kept.key))
    assert not storage.exists(str(lost.key))


async def test_the_old_attempt_does_not_affect_a_running_one(
    jobs: Jobs, storage: ObjectStore, recovery: JobRecovery, settings: Settings
) -> None:
    """R4: the new attempt has written its file, but not stored its outcome."""
    old, new = await twice(jobs)
    lost, kept = put(storage, old), put(storage, new)
    runner = JobRunner(
        jobs.store, cast(Exporter, Written(storage, lost)), recovery.publish_event, recovery, settings
    )
    await runner.finish(runner.start(old))
    assert storage.exists(str(kept.key))
    assert await jobs.store.store_outcome(new, kept)


async def test_an_attempt_does_not_take_over_the_outcome_of_another(jobs: Jobs, storage: ObjectStore) -> None:
    """R4: the whole outcome is compared, not only the status."""
    old, new = await twice(jobs)
    lost, kept = put(storage, old), put(storage, new)
    await jobs.store.store_outcome(new, kept)
    assert await jobs.store.store_outcome(old, lost) is False
    await jobs.apply(kept)
    assert await jobs.store.store_outcome(old, lost) is False
    assert await jobs.store.store_outcome(new, kept) is True


class Failing:
    """An export whose attempts end with an error."""

    def __init__(self, storage: ObjectStore, error: Exception) -> None:
        self.storage = storage
        self.error = error

    async def run(self, *_: object) -> LifecycleData:
        raise self.error


@pytest.mark.parametrize(
    ("error", "limit", "shown"),
    [
        (
            NeedsOperator(
                "object store: AccessDenied: internal words", reason="the object store refuses the service"
            ),
            (attempts, "OPERATOR_WAIT"),
            "waits for an operator: the object store refuses the service",
        ),
        (
            SessionEnded("source database: internal words", seconds=1800),
            (JobRunner, "_retention"),
            "the session with the source database was ended from outside after 1,800 s, before the last row "
            "was read; the export begins again",
        ),
    ],
)
async def test_a_job_shows_what_it_waits_for_or_why_it_begins_again(
    jobs: Jobs,
    storage: ObjectStore,
    recovery: JobRecovery,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    error: Outage,
    limit: tuple[Any, str],
    shown: str,
) -> None:
    """P11, P3: it costs no attempts, and ends after a day or after the retention."""
    job_id = await jobs.admit()
    (claim,) = await jobs.store.claim("w", 1)
    runner = JobRunner(
        jobs.store, cast(Exporter, Failing(storage, error)), recovery.publish_event, recovery, settings
    )
    await runner.finish(runner.start(claim))
    job = await jobs.queries.get(job_id)
    assert job is not None
    assert (job.status, job.failures) == ("pending", 0)
    view = JobView.of(job, datetime.now(UTC))
    assert view.error is not None
    assert (view.error.code, view.error.message) == (error.code, shown)

    async with jobs.engine.begin() as connection:
        await connection.execute(update(ExportJob).where(ExportJob.id == job_id).values(not_before=None))
    (again,) = await jobs.store.claim("w", 1)
    running = await jobs.queries.get(job_id)
    assert running is not None
    assert running.error_message is None

    monkeypatch.setattr(*limit, timedelta(0))
    await runner.finish(runner.start(again))
    ended = await jobs.queries.get(job_id)
    assert ended is not None
    assert ended.outcome["status"] == "failed"
    assert ended.outcome["error"]["code"] == error.code
    assert "internal words" not in ended.outcome["error"]["message"]
    assert "operators" in ended.outcome["error"]["message"]


async def test_the_bucket_cleaner_holds_no_transaction(
    engine: AsyncEngine, storage: ObjectStore, own_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Q6: neither while it lists the bucket nor while it sets rules."""
    url = own_settings.database_url.get_secret_value()
    seen: list[Any] = []

    def look(*_: object, **__: object) -> None:
        async def states() -> list[str]:
            connection = await asyncpg.connect(url)
            rows = await connection.fetch(
                "SELECT state FROM pg_stat_activity WHERE datname = current_database() "
                "AND pid <> pg_backend_pid() AND xact_start IS NOT NULL "
                "AND backend_type = 'client backend'"  # and not autovacuum, which comes at any time
            )
            await connection.close()
            return [row["state"] for row in rows]

        seen.append(asyncio.run(states()))

    def pages() -> Iterator[list[ListedObject]]:
        look()
        yield []

    monkeypatch.setattr(storage.listing, "pages", pages)
    monkeypatch.setattr(type(storage), "set_lifecycle_rules", look)
    store = JobQueue(engine, lease=timedelta(seconds=5), user_slots=2, max_attempts=3)
    assert await BucketCleaner(store, storage, own_settings).clean() == 0
    assert seen == [[], []]


async def test_a_store_that_hangs_blocks_no_other_work(storage: ObjectStore) -> None:
    """R13: there are more calls than threads of the store, and other work in threads continues."""
    let_go = threading.Event()
    hanging = [asyncio.create_task(storage.run_in_thread(let_go.wait)) for _ in range(50)]
    try:
        async with at_most(10):
            assert await asyncio.to_thread(lambda: 7) == 7
    finally:
        let_go.set()
        await asyncio.gather(*hanging)
