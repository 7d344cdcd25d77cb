"""Removes from the bucket the objects and uploads that no job needs.

A worker removes the objects of earlier attempts when a job is retried or ends. The bucket cleaner removes the
rest: objects of workers that died, and objects whose removal failed.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from types import MappingProxyType
from uuid import UUID

import structlog
from sqlalchemy import and_, false, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from stream_app.datasets.models import Dataset
from stream_app.datasets.retention import longest_retention
from stream_app.jobs.job_files import has_lost_list
from stream_app.jobs.models import ExportFile, ExportJob
from stream_app.jobs.queue import JobQueue
from stream_app.jobs.states import UNFINISHED, Status
from stream_app.periodic import repeat
from stream_app.settings import Settings
from stream_app.storage.listing import ListedObject
from stream_app.storage.manifest import is_part_of_result
from stream_app.storage.object_store import ObjectStore

log = structlog.get_logger(__name__)

INTERVAL_SECONDS = 3_600.0
FIRST_SECONDS = 60.0

SLACK = timedelta(hours=1)
"""Tolerance for clocks that differ."""

CLEANING_LOCK = 7_301_584_224
"""Advisory lock: one worker cleans at a time."""

CLEANING_LOCK_0_1 = 7_301_584_223
"""The advisory lock of the bucket cleaners of version 0.1, which keep only one file of a job.

Each worker holds it in shared mode, so none of them cleans while newer workers run.
"""

NO_DATASETS: Mapping[str, Dataset] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class JobFilesNeeded:
    """The columns of a job's row that determine which files it needs.

    ``listed`` are those of the keys found that are in the list of its files. ``keeps_parts`` means that a
    later attempt can need the files of an earlier one. ``lost_list`` means that the list of its files
    is lost, with a database that was restored.
    """

    status: str
    attempt: int
    file_path: str | None
    listed: frozenset[str] = frozenset()
    keeps_parts: bool = False
    lost_list: bool = False


def is_needed(
    found: ListedObject,
    job: JobFilesNeeded | None,
    *,
    now: datetime,
    settings: Settings,
    datasets: Mapping[str, Dataset] = NO_DATASETS,
) -> bool:
    """Return whether a job needs an object or upload, or can need it.

    An object is needed at any age if it belongs to the current attempt of an unfinished job, or is a file
    of a job whose completion is stored or applied. If the list of these files is lost with a database that
    was restored, all files of the job are needed. Every other object is needed until it is older than the
    longest attempt. A job that this database does not have can belong to another database: its objects are
    needed until the file would have expired.
    """
    longest = timedelta(seconds=settings.lease_seconds + settings.export_timeout_seconds) + SLACK
    if job is None:
        kept = timedelta(0) if found.upload_id else longest_retention(datasets, settings.retention_days)
        unknown = kept + timedelta(days=1)
        return now - found.since < max(longest, unknown)
    if now - found.since < longest:
        return True
    if job.status in UNFINISHED and (found.attempt == job.attempt or job.keeps_parts):
        return True
    if found.upload_id is not None or job.status != Status.COMPLETED or job.file_path is None:
        return False
    return job.lost_list or is_part_of_result(found.key, job.file_path) or found.key in job.listed


async def owning_jobs(
    connection: AsyncConnection, found: Collection[ListedObject]
) -> Mapping[UUID, JobFilesNeeded]:
    """Return the jobs to which the found objects and uploads belong, by id."""
    has_kept_parts = and_(ExportJob.split.is_not(None), ExportJob.consistency == "part")
    statement = select(
        ExportJob.id,
        ExportJob.status,
        ExportJob.attempt,
        ExportJob.file_path,
        func.coalesce(has_kept_parts, false()),
        has_lost_list(),
    ).where(ExportJob.id.in_({item.job_id for item in found}))
    listed_files = (
        select(ExportFile.job_id, ExportFile.key)
        .join(ExportJob, and_(ExportJob.id == ExportFile.job_id, ExportJob.file_path == ExportFile.result))
        .where(ExportFile.job_id.in_({item.job_id for item in found}))
        .where(ExportFile.key.in_([item.key for item in found]))
    )
    listed: dict[UUID, set[str]] = {}
    for job_id, key in await connection.execute(listed_files):
        listed.setdefault(job_id, set()).add(key)
    return {
        job_id: JobFilesNeeded(
            status, attempt, file_path, frozenset(listed.get(job_id, ())), keeps_parts, lost_list
        )
        for job_id, status, attempt, file_path, keeps_parts, lost_list in await connection.execute(statement)
    }


async def longest_promise(connection: AsyncConnection) -> timedelta:
    """Return the longest retention of the files on record. It can be longer than what is set now."""
    statement = select(func.max(ExportJob.expires_at - ExportJob.completed_at)).where(
        ExportJob.status == Status.COMPLETED
    )
    return await connection.scalar(statement) or timedelta(0)


@dataclass(frozen=True, slots=True)
class BucketCleaner:
    """Cleans the whole bucket, page by page."""

    queue: JobQueue
    storage: ObjectStore
    settings: Settings
    datasets: Mapping[str, Dataset] = field(default_factory=dict)

    async def run(self) -> None:
        """Clean the bucket about a minute after the start and then about every hour."""
        await repeat("bucket_cleaning", self.clean, INTERVAL_SECONDS, first=FIRST_SECONDS, jitter=0.5)

    async def clean(self) -> int:
        """Remove objects and uploads that no job needs, and set the bucket's lifecycle rules.

        Returns:
            How many were removed. 0 if another worker cleans now.

        Raises:
            Retryable: the database or the store is away.
        """
        async with self.queue.statement() as connection:
            # A lock of the session and not of a transaction, because a large bucket takes long.
            if not await connection.scalar(select(func.pg_try_advisory_lock(CLEANING_LOCK))):
                return 0
            try:
                return await self._clean(connection)
            finally:
                await connection.scalar(select(func.pg_advisory_unlock(CLEANING_LOCK)))

    async def _clean(self, connection: AsyncConnection) -> int:
        storage = self.storage
        removed = 0
        kept = longest_retention(self.datasets, self.settings.retention_days)
        longest = max(kept, await longest_promise(connection))
        await storage.run_in_thread(storage.set_lifecycle_rules, self.settings, longest)
        pages = storage.listing.pages()
        while (page := await storage.run_in_thread(next, pages, None)) is not None:
            jobs = await owning_jobs(connection, page)
            now = await self.queue.clock.read()
            for found in page:
                job = jobs.get(found.job_id)
                if not is_needed(found, job, now=now, settings=self.settings, datasets=self.datasets):
                    await storage.run_in_thread(storage.removal.remove_listed, found)
                    removed += 1
                    log.info("object.removed", key=found.key, upload=found.upload_id)
        return removed
