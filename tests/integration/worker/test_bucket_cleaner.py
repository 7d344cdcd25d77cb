"""The bucket cleaner removes from a real bucket only the objects that no job needs."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from minio.commonconfig import ENABLED, Filter
from minio.lifecycleconfig import Expiration, LifecycleConfig, Rule
from sqlalchemy import func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncEngine

from stream_app.datasets.models import Dataset
from stream_app.db import listener
from stream_app.db.listener import listen
from stream_app.doctor.bucket import Leftovers
from stream_app.jobs.models import ExportFile, ExportJob
from stream_app.jobs.queue import JobQueue
from stream_app.settings import Settings
from stream_app.storage import listing
from stream_app.storage.listing import object_key
from stream_app.storage.object_store import ObjectStore
from stream_app.worker.maintenance.bucket_cleaner import CLEANING_LOCK, CLEANING_LOCK_0_1, BucketCleaner
from tests.waiting import until_async


@pytest.fixture
def bucket(settings: Settings) -> ObjectStore:
    """A separate bucket for the test."""
    storage = ObjectStore(settings.model_copy(update={"s3_bucket": f"sweeps-{uuid4().hex[:8]}"}))
    storage.ensure_bucket()
    return storage


@pytest.fixture
def bucket_cleaner(
    engine: AsyncEngine, bucket: ObjectStore, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> BucketCleaner:
    """A bucket cleaner for which all objects are two days old, with pages of three."""
    monkeypatch.setattr(listing, "PAGE", 3)
    store = JobQueue(engine, lease=timedelta(seconds=5), user_slots=2, max_attempts=3)
    read = store.clock.read

    async def later() -> datetime:
        return await read() + timedelta(days=2)

    monkeypatch.setattr(store.clock, "read", later)
    return BucketCleaner(store, bucket, settings)


async def job(engine: AsyncEngine, status: str, attempt: int, file: str | None = None) -> object:
    job_id = uuid4()
    async with engine.begin() as connection:
        await connection.execute(
            insert(ExportJob).values(
                id=job_id,
                user_id="s",
                export_type="ledger",
                format="csv",
                status=status,
                attempt=attempt,
                file_path=file and object_key(job_id, attempt, file),
            )
        )
    return job_id


def put(bucket: ObjectStore, key: str) -> str:
    bucket.put(key, iter([b"x"]), content_type="text/plain", file_name="f", metadata=dict)
    return key


def left(bucket: ObjectStore) -> set[str]:
    found = bucket._client.list_objects(bucket.bucket, recursive=True)
    return {str(item.object_name) for item in found} | {item.key for item in bucket.listing.open_uploads()}


async def test_the_cleaner_removes_only_unneeded_objects(
    engine: AsyncEngine, bucket_cleaner: BucketCleaner, bucket: ObjectStore
) -> None:
    completed = await job(engine, "completed", 2, "f")
    running = await job(engine, "processing", 2)
    failed = await job(engine, "failed", 3)
    expired = await job(engine, "expired", 1, "f")
    kept = {
        put(bucket, object_key(completed, 2, "f")),
        put(bucket, object_key(running, 2, "f")),
        put(bucket, object_key(uuid4(), 1, "of another database")),
        put(bucket, "jobs/readme.txt"),
        put(bucket, "somebody/else"),
        object_key(running, 2, "under way"),
    }
    bucket._client._create_multipart_upload(bucket.bucket, object_key(running, 2, "under way"), {})
    for lost in (completed, running, failed, expired):
        put(bucket, object_key(lost, 1, "f"))
        bucket._client._create_multipart_upload(bucket.bucket, object_key(lost, 1, "g"), {})
    assert await bucket_cleaner.clean() == 8
    assert left(bucket) == kept
    assert await bucket_cleaner.clean() == 0
    assert left(bucket) == kept


async def test_all_files_of_a_completed_job_are_kept(
    engine: AsyncEngine, bucket_cleaner: BucketCleaner, bucket: ObjectStore
) -> None:
    """Those in the folder of its manifest, and those elsewhere that are in its list. No others."""
    split = await job(engine, "completed", 2, "manifest.json")
    listed = object_key(split, 1, "b-00002.csv")
    async with engine.begin() as connection:
        await connection.execute(
            insert(ExportFile).values(
                job_id=split, number=2, key=listed, attempt=2, result=object_key(split, 2, "manifest.json"),
                bucket="b", file_name="f", content_type="t", row_count=1, file_size=1, sha256="x",
            )
        )  # fmt: skip
    kept = {put(bucket, object_key(split, 2, name)) for name in ("manifest.json", "b-00001.csv")}
    kept.add(put(bucket, listed))
    put(bucket, object_key(split, 1, "b-00001.csv"))
    put(bucket, object_key(split, 2, "b-00001.csv", suffix="f" * 16))
    assert await bucket_cleaner.clean() == 2
    assert left(bucket) == kept
    async with engine.begin() as connection:
        await connection.execute(update(ExportJob).where(ExportJob.id == split).values(status="expired"))
    assert await bucket_cleaner.clean() == 3
    assert left(bucket) == set()


@pytest.mark.parametrize("recorded", [None, "that of an earlier attempt"])
async def test_all_files_of_a_job_whose_list_is_lost_are_kept_until_it_expires(
    engine: AsyncEngine,
    bucket_cleaner: BucketCleaner,
    bucket: ObjectStore,
    settings: Settings,
    recorded: str | None,
) -> None:
    """A restored job has the key of its manifest and no list. Files of its parts are in another folder."""
    split = await job(engine, "completed", 2, "manifest.json")
    kept = {
        put(bucket, object_key(split, 2, "manifest.json")),
        put(bucket, object_key(split, 1, "part-00001-1-b.csv", suffix="f" * 16)),
        put(bucket, object_key(split, 1, "part-00002-1-b.csv", suffix="f" * 16)),
    }
    if recorded is not None:
        async with engine.begin() as connection:
            await connection.execute(
                insert(ExportFile).values(
                    job_id=split, number=1, key=recorded, attempt=1,
                    result=object_key(split, 1, "manifest.json"),
                    bucket="b", file_name="f", content_type="t", row_count=1, file_size=1, sha256="x",
                )
            )  # fmt: skip
    bucket._client._create_multipart_upload(bucket.bucket, object_key(split, 1, "open"), {})
    assert await bucket_cleaner.clean() == 1
    assert left(bucket) == kept
    assert await bucket_cleaner.queue.completed_attempt(UUID(str(split))) == 0
    leftovers = Leftovers(settings, await bucket_cleaner.queue.clock.read())
    async with engine.connect() as connection:
        for page in bucket.listing.pages():
            await leftovers.count_page(connection, page)
    assert [finding.check for finding in leftovers.findings("all")] == ["content", "jobs of files"]
    async with engine.begin() as connection:
        await connection.execute(update(ExportJob).where(ExportJob.id == split).values(status="expired"))
    assert await bucket_cleaner.clean() == 3
    assert left(bucket) == set()


async def test_one_worker_cleans_at_a_time(
    engine: AsyncEngine, bucket_cleaner: BucketCleaner, bucket: ObjectStore
) -> None:
    key = put(bucket, object_key(await job(engine, "failed", 1), 1, "f"))
    async with engine.begin() as other:
        await other.execute(select(func.pg_advisory_xact_lock(CLEANING_LOCK)))
        assert await bucket_cleaner.clean() == 0
        assert left(bucket) == {key}
    assert await bucket_cleaner.clean() == 1


async def test_cleaners_of_the_version_before_do_nothing_beside_newer_workers(
    engine: AsyncEngine,
    bucket_cleaner: BucketCleaner,
    own_settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They would remove all files of a job except one. Newer cleaners go on."""
    monkeypatch.setattr(listener, "LOCK_SECONDS", 0.05)
    take = select(func.pg_try_advisory_lock(CLEANING_LOCK_0_1))

    async def can_clean() -> bool:
        async with engine.connect() as old:
            taken = bool(await old.scalar(take))
            await old.execute(select(func.pg_advisory_unlock_all()))
            return taken

    async def cannot_clean() -> bool:
        return not await can_clean()

    assert await can_clean()
    connected: list[str] = []
    async with engine.connect() as old:
        assert await old.scalar(take)  # it cleans when the newer worker starts
        worker = asyncio.create_task(
            listen(own_settings, connected.append, application="t", shared_lock=CLEANING_LOCK_0_1)
        )
        await until_async(lambda: connected)
        await old.execute(select(func.pg_advisory_unlock_all()))
    await until_async(cannot_clean)
    assert await bucket_cleaner.clean() >= 0
    worker.cancel()
    await asyncio.gather(worker, return_exceptions=True)
    await until_async(can_clean)


def test_a_wrong_key_removes_no_object_of_another_job(bucket: ObjectStore) -> None:
    mine, other = uuid4(), uuid4()
    kept = {put(bucket, object_key(other, 1, "f")), put(bucket, "jobs/readme.txt")}
    for wrong in (f"jobs/{mine}/manifest.json", "jobs/manifest.json", f"jobs/{mine}/x/manifest.json"):
        put(bucket, wrong)
        bucket.removal.remove_job(wrong)
        bucket.removal.remove_result(wrong)
        assert left(bucket) == kept
    for name in ("manifest.json", "part-1"):
        put(bucket, object_key(mine, 2, name))
    put(bucket, object_key(mine, 1, "part-1"))
    bucket.removal.remove_job(object_key(mine, 2, "manifest.json"))
    assert left(bucket) == kept


async def test_the_lifecycle_rules_are_set(bucket: ObjectStore, settings: Settings) -> None:
    """Rules that exist are not set again, and rules of others are kept."""
    client = bucket._client
    theirs = Rule(ENABLED, Filter(prefix="logs/"), "theirs", expiration=Expiration(days=3))
    client.set_bucket_lifecycle(bucket.bucket, LifecycleConfig([theirs]))
    for days in (7, 7, 30):
        assert bucket.set_lifecycle_rules(settings.model_copy(update={"retention_days": days}))
    config = client.get_bucket_lifecycle(bucket.bucket)
    assert config is not None
    rules = {rule.rule_id: rule for rule in config.rules}
    assert "theirs" in rules
    files = rules["exporter-files"]
    assert files.rule_filter is not None
    assert files.rule_filter.prefix == "jobs/"
    assert files.expiration is not None
    assert files.expiration.days == 37


async def test_files_with_a_longer_retention_are_kept_longer(
    engine: AsyncEngine, bucket_cleaner: BucketCleaner, bucket: ObjectStore
) -> None:
    """The setting can have been larger when they were written."""
    promised = await job(engine, "completed", 1, "f")
    over = await job(engine, "expired", 1)
    ends = [(promised, timedelta(days=40)), (over, timedelta(days=90))]
    async with engine.begin() as connection:
        for job_id, time in ends:
            now = datetime.now(UTC)
            await connection.execute(
                update(ExportJob)
                .where(ExportJob.id == job_id)
                .values(completed_at=now, expires_at=now + time)
            )
    await bucket_cleaner.clean()
    config = bucket._client.get_bucket_lifecycle(bucket.bucket)
    assert config is not None
    (files,) = [rule for rule in config.rules if rule.rule_id == "exporter-files"]
    assert files.expiration is not None
    assert files.expiration.days == 47


async def test_the_lifecycle_rule_waits_for_the_dataset_that_is_kept_longest(
    bucket_cleaner: BucketCleaner, bucket: ObjectStore
) -> None:
    """The service removes files earlier, at their own time."""
    for longest, days in ((None, 14), (2, 14), (90, 97)):
        datasets = {
            "short": Dataset(name="short", table="t", retention_days=1),
            "long": Dataset(name="long", table="t", retention_days=longest),
        }
        await replace(bucket_cleaner, datasets=datasets).clean()
        config = bucket._client.get_bucket_lifecycle(bucket.bucket)
        assert config is not None
        (files,) = [rule for rule in config.rules if rule.rule_id == "exporter-files"]
        assert files.expiration is not None
        assert files.expiration.days == days


async def test_removing_twice_is_no_error(bucket: ObjectStore) -> None:
    key = put(bucket, object_key(uuid4(), 1, "f"))
    upload = object_key(uuid4(), 1, "g")
    bucket._client._create_multipart_upload(bucket.bucket, upload, {})
    found = [item for page in bucket.listing.pages() for item in page]
    assert {item.key for item in found} == {key, upload}
    for _ in range(2):
        bucket.removal.remove(key)
        for item in found:
            bucket.removal.remove_listed(item)
    assert left(bucket) == set()
