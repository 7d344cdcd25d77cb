"""Checks the bucket against the table of jobs: files without jobs, and jobs without files."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from itertools import islice

from sqlalchemy import func, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from stream_app.doctor.findings import Finding, FindingFactory, Value
from stream_app.doctor.part import Part
from stream_app.jobs.models import ExportJob
from stream_app.jobs.states import Status
from stream_app.settings import Settings
from stream_app.storage.checksums import ChecksumMethod
from stream_app.storage.listing import ListedObject
from stream_app.storage.manifest import is_part_of_result
from stream_app.storage.object_store import TRIAL_JOB, ObjectStore
from stream_app.worker.maintenance.bucket_cleaner import JobFilesNeeded, is_needed, owning_jobs
from streaming_exporter.errors import NeedsOperator, Rejected, Retryable

AREA = FindingFactory("bucket")

SAMPLE_PAGES, SAMPLE_JOBS = 2, 200
SHOWN = 3


async def check_bucket(
    connection: AsyncConnection,
    storage: ObjectStore,
    settings: Settings,
    *,
    full: bool,
    part: Part = Part.ALL,
    now: datetime | None = None,
) -> AsyncIterator[Finding]:
    """Check the bucket. With ``full`` every file and every job is checked, otherwise a sample.

    The key of an API can neither write nor list uploads, so for it only the files of jobs are checked.

    Raises:
        Retryable: the object store does not answer.
    """
    await storage.run_in_thread(storage.check)
    scope = "all" if full else "a sample"
    if part.writes_files:
        yield await _check_upload(storage, settings)
        leftovers = Leftovers(settings, now or datetime.now(UTC))
        pages = storage.listing.pages()
        chosen = pages if full else islice(pages, SAMPLE_PAGES)
        while (page := await storage.run_in_thread(next, chosen, None)) is not None:
            await leftovers.count_page(connection, page)
        for finding in leftovers.findings(scope):
            yield finding
    lost = [key async for key in _missing_files(connection, storage, None if full else SAMPLE_JOBS)]
    yield AREA.problem_if(
        bool(lost),
        "files of jobs",
        f"every completed job has its file ({scope})",
        "missing_files",
        **_named(lost),
    )


class Leftovers:
    """Counts the files in the bucket, and those that should not be there."""

    def __init__(self, settings: Settings, now: datetime) -> None:
        self._settings = settings
        self._now = now
        self._seen = Counter[str]()
        self._unknown: list[str] = []
        self._overdue: list[str] = []
        self._waiting: list[str] = []
        self._trials: list[str] = []

    async def count_page(self, connection: AsyncConnection, page: Sequence[ListedObject]) -> None:
        """Count the files of one page of the listing."""
        jobs = await owning_jobs(connection, page)
        for found in page:
            if found.job_id == TRIAL_JOB:
                self._trials.append(found.key)
                continue
            self._seen["uploads" if found.upload_id else "files"] += 1
            job = jobs.get(found.job_id)
            if job is None:
                self._unknown.append(found.key)
            elif not is_needed(found, job, now=self._now, settings=self._settings):
                self._overdue.append(found.key)
            elif not _is_in_use(found, job):
                self._waiting.append(found.key)

    def findings(self, scope: str) -> list[Finding]:
        """Return the findings. ``scope`` names what was checked."""
        seen = f"{self._seen['files']} files, {self._seen['uploads']} open uploads ({scope})"
        findings = [AREA.ok("content", seen)]
        if self._unknown:
            findings.append(AREA.problem("jobs of files", "files_without_jobs", **_named(self._unknown)))
        if self._overdue:
            findings.append(AREA.problem("leftovers", "overdue_files", **_named(self._overdue)))
        if self._waiting:
            findings.append(AREA.warning("leftovers", "leftover_files", **_named(self._waiting)))
        if self._trials:
            findings.append(
                AREA.ok(
                    "trials", f"{len(self._trials)} objects of an interrupted doctor; the workers remove them"
                )
            )
        if not (self._unknown or self._overdue or self._waiting):
            findings.append(AREA.ok("jobs of files", f"every file belongs to a job ({scope})"))
        return findings


def _is_in_use(found: ListedObject, job: JobFilesNeeded) -> bool:
    if job.file_path is not None and is_part_of_result(found.key, job.file_path):
        return True
    if job.lost_list and job.status == Status.COMPLETED and found.upload_id is None:
        return True
    return found.key in job.listed or (
        found.attempt == job.attempt and job.status in (Status.PENDING, Status.PROCESSING)
    )


async def _missing_files(
    connection: AsyncConnection, storage: ObjectStore, limit: int | None
) -> AsyncIterator[str]:
    """Yield the keys of completed jobs that are not in the bucket, the newest jobs first."""
    statement = (
        select(ExportJob.file_path, ExportJob.created_at, ExportJob.id)
        .where(
            ExportJob.status == Status.COMPLETED,
            ExportJob.outcome.is_(None),
            ExportJob.expires_at > func.now(),
        )
        .order_by(ExportJob.created_at.desc(), ExportJob.id.desc())
        .limit(SAMPLE_JOBS)
    )
    after = None
    # Each page is a statement of its own, so that no transaction waits for the object store.
    while True:
        page = statement
        if after is not None:
            page = statement.where(tuple_(ExportJob.created_at, ExportJob.id) < after)
        rows = (await connection.execute(page)).all()
        for start in range(0, len(rows), 20):
            keys = [str(row.file_path) for row in rows[start : start + 20]]
            there = await asyncio.gather(*(storage.run_in_thread(storage.exists, key) for key in keys))
            for key, exists in zip(keys, there, strict=True):
                if not exists:
                    yield key
        if limit is not None or len(rows) < SAMPLE_JOBS:
            return
        after = (rows[-1].created_at, rows[-1].id)


async def _check_upload(storage: ObjectStore, settings: Settings) -> Finding:
    """Write and remove an object as an export does: only this shows what the bucket's policy demands."""
    encryption = settings.s3_sse
    try:
        way = await storage.run_in_thread(storage.probe_upload)
    except Rejected as error:
        return AREA.problem("upload", "unsupported_uploads", reason=str(error))
    except NeedsOperator as error:
        return AREA.problem("upload", "refused_upload", reason=str(error), encryption=encryption)
    except Retryable as error:
        return AREA.problem("upload", "failed_upload", reason=str(error), encryption=encryption)
    if way is ChecksumMethod.CHECKSUM:
        checked = f"integrity check: {way.value}; encryption: {encryption}"
        return AREA.ok("upload", f"an object was written and removed; {checked}")
    return AREA.warning("upload", "no_checksums", method=way.value)


def _named(keys: Sequence[str]) -> dict[str, Value]:
    return {"count": len(keys), "keys": _first_keys(keys)}


def _first_keys(keys: Sequence[str]) -> str:
    return ", ".join(keys[:SHOWN]) + (" …" if len(keys) > SHOWN else "")
