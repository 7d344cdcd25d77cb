"""The files of finished jobs for the HTTP API: one from the row of its job, several from their list.

The list is in the table. Where it is lost with a database that was restored, the manifest has it.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from pydantic_core import from_json
from sqlalchemy import ColumnElement, Row, and_, exists, func, not_, select, update
from sqlalchemy.ext.asyncio import AsyncEngine

from stream_app.db.engine import autocommitting, outages_are_retryable, transaction
from stream_app.exports.task import ExportedFile
from stream_app.jobs.download_names import download_name
from stream_app.jobs.models import ExportFile, ExportJob
from stream_app.storage.manifest import MANIFEST
from streaming_exporter.errors import Rejected, Retryable


def has_several_files(job: ExportJob | Row[Any]) -> bool:
    """Return whether the job has written several files, or one that is listed by a manifest."""
    return (job.file_path or "").endswith(f"/{MANIFEST}")


def has_lost_list() -> ColumnElement[bool]:
    """Return the condition that the job has several files, and that they are not on record.

    A job that an event has restored has only the key of its manifest. Its files can be in the folders of
    several attempts.
    """
    listed = exists().where(ExportFile.job_id == ExportJob.id, ExportFile.result == ExportJob.file_path)
    is_split = func.coalesce(ExportJob.file_path, "").endswith(f"/{MANIFEST}", autoescape=True)
    return and_(is_split, not_(listed))


@dataclass(frozen=True, slots=True)
class JobFiles:
    """Reads the files of completed jobs.

    Every method raises :class:`~streaming_exporter.errors.Retryable` while the database is unavailable, and
    where a manifest cannot be read.

    Attributes:
        engine: of the state database.
        read: returns the content of an object, as :meth:`~stream_app.storage.object_store.ObjectStore.read`.
    """

    engine: AsyncEngine
    read: Callable[[str], Awaitable[bytes]]

    async def list(self, job: ExportJob, *, after: int = 0, limit: int) -> Sequence[ExportedFile]:
        """Return up to ``limit`` files with numbers above ``after``, by their numbers."""
        if not has_several_files(job):
            return [file for file in _only_file(job) if file.number > after][:limit]
        statement = (
            select(ExportFile)
            .where(ExportFile.job_id == job.id, ExportFile.result == job.file_path)
            .where(ExportFile.number > after)
            .order_by(ExportFile.number)
            .limit(limit)
        )
        with outages_are_retryable():
            async with autocommitting(self.engine).connect() as connection:
                rows = (await connection.execute(statement)).all()
        if rows or (after and job.file_count is not None and after >= job.file_count):
            return [_from_row(row) for row in rows]
        return [file for file in await self._of_manifest(job) if file.number > after][:limit]

    async def get(self, job: ExportJob, number: int) -> ExportedFile | None:
        """Return the file with the number, or ``None``."""
        found = await self.list(job, after=number - 1, limit=1)
        return found[0] if found and found[0].number == number else None

    async def mark_password_shown(self, job_id: UUID) -> bool:
        """Record that the password of the job's zip archives is shown; return False if it was before.

        Raises:
            InDoubt: it is not known whether it was recorded.
        """
        statement = (
            update(ExportJob)
            .where(ExportJob.id == job_id, ExportJob.password_shown_at.is_(None))
            .values(password_shown_at=func.now())
        )
        async with transaction(autocommitting(self.engine)) as connection:
            return (await connection.execute(statement)).rowcount == 1

    async def _of_manifest(self, job: ExportJob) -> Sequence[ExportedFile]:
        """Return the files that the manifest lists; none if it does not exist any more."""
        try:
            content = await self.read(job.file_path or "")
        except Rejected as error:
            if error.code != "no_file":  # a store that refuses to read has not lost the manifest
                raise Retryable(str(error)) from error
            return []
        try:
            return [_from_item(item) for item in from_json(content)["files"]]
        except (ValueError, KeyError, TypeError) as error:  # a proxy has cut it, or has sent a page
            raise Retryable("object store: the content of a manifest is not as it was written") from error


def _from_item(item: Mapping[str, Any]) -> ExportedFile:
    """Return the file of an item of a manifest."""
    return ExportedFile(
        number=item["number"],
        file_name=item["file_name"],
        key=item["key"],
        content_type=item["content_type"],
        row_count=item["rows"],
        file_size=item["bytes"],
        sha256=item["sha256"],
    )


def _from_row(row: Row[Any]) -> ExportedFile:
    """Return the file of a row of ``export_files``, which has no column for the kind of its content."""
    return ExportedFile(
        number=row.number,
        file_name=row.file_name,
        key=row.key,
        content_type=row.content_type,
        row_count=row.row_count,
        file_size=row.file_size,
        sha256=row.sha256,
    )


def _only_file(job: ExportJob) -> Sequence[ExportedFile]:
    if job.file_path is None or job.file_name is None or job.content_type is None:
        return []
    return [
        ExportedFile(
            number=1,
            file_name=download_name(job.file_name, job.export_type, job.name),
            key=job.file_path,
            content_type=job.content_type,
            row_count=job.row_count or 0,
            file_size=job.file_size or 0,
            sha256=job.sha256 or "",
        )
    ]
