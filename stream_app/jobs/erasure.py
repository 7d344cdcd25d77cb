"""Erases the personal data of a user, or an address, and keeps the ids of jobs.

The row of a job stays, without the content of its request: a request that Kafka delivers again finds the row
and makes no second job. The job cleaner removes the row later. Data in Kafka, logs and sent mails is not
erased: it is deleted when its own retention ends.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncEngine

from stream_app.addresses import spellings
from stream_app.db.engine import outages_are_retryable
from stream_app.jobs.partial_deliveries import FilesLeft, PartialDeliveries, lock_deliveries
from streaming_exporter.errors import Rejected

BATCH = 200
"""How many jobs one transaction erases."""

POLL_SECONDS = 1.0
"""Seconds between two looks at jobs that have not ended."""

SHOWN = 20
"""How many jobs with files at destinations an error names."""


def is_forgotten(job_id: UUID, user_id: str) -> bool:
    """Return whether the request of the job was erased."""
    return user_id == f"forgotten:{job_id}"


_ENDED = text(
    f"""
    SELECT id, file_path, status FROM export_jobs
    WHERE user_id = :user_id AND status NOT IN ('pending', 'processing') AND outcome IS NULL
        AND id <> ALL (CAST(:kept AS uuid[]))
    ORDER BY created_at, id LIMIT {BATCH}
    """
)

_LOCK = text(
    "SELECT id FROM export_jobs "
    "WHERE id = ANY(:ids) AND user_id = :user_id AND outcome IS NULL ORDER BY id FOR UPDATE"
)

# No token has the new user id. It is different for each job, so the jobs of the user cannot be joined.
_EMPTY = text(
    """
    UPDATE export_jobs SET
        user_id = 'forgotten:' || id, status = CASE status WHEN 'completed' THEN 'expired' ELSE status END,
        filters = NULL, columns = NULL, options = NULL, parameters = NULL, claims = NULL, recipients = NULL,
        name = NULL, webhook = NULL, destination = NULL, source = NULL, encrypt = NULL, rerun_of = NULL,
        "window" = NULL, schedule_id = NULL, traceparent = NULL, manifest = NULL, file_path = NULL,
        file_name = NULL, sha256 = NULL, error_message = NULL
    WHERE id = ANY(:ids)
    """
)
_ANY = text(
    "SELECT id FROM export_jobs WHERE user_id = :user_id AND id <> ALL (CAST(:kept AS uuid[])) LIMIT 1"
)

FORGOTTEN_OUTCOMES = text(
    """
    UPDATE export_jobs SET outcome = NULL, lease_until = NULL
    WHERE outcome IS NOT NULL AND user_id = 'forgotten:' || id
    """
)
"""Removes outcomes that are stored in the rows of erased jobs, and have the data of the user.

No event can end such a job. Version 0.2.0 could erase a job while its outcome was stored.
"""
_FILES = text("DELETE FROM export_files WHERE job_id = ANY(:ids)")
_PARTS = text("DELETE FROM export_parts WHERE job_id = ANY(:ids)")
_UNSENT = text("DELETE FROM deliveries WHERE job_id = ANY(:ids)")

# A tick that has read a schedule before starts no run of it, because the row has changed.
_PAUSE = text(
    """
    UPDATE scheduled_exports SET active = false, next_run = NULL, paused_at = coalesce(paused_at, now())
    WHERE user_id = :user_id AND (active OR next_run IS NOT NULL)
    """
)
_SCHEDULES = text("DELETE FROM scheduled_exports WHERE user_id = :user_id RETURNING id")
_OF_SCHEDULES = (
    text("DELETE FROM schedule_gaps WHERE schedule_id = ANY(CAST(:ids AS uuid[]))"),
    text(
        "DELETE FROM unsubscriptions "
        "WHERE topic IN (SELECT 'schedule:' || id FROM unnest(CAST(:ids AS uuid[])) AS id)"
    ),
)
_UNSUBSCRIPTIONS = text("DELETE FROM unsubscriptions WHERE topic = 'user:' || :user_id")
_OPERATIONS = (
    text("DELETE FROM claim_pauses WHERE scope = 'user:' || :user_id"),
    text("UPDATE claim_pauses SET paused_by = 'forgotten' WHERE paused_by = :user_id"),
    text("UPDATE handled_dead_letters SET handled_by = 'forgotten' WHERE handled_by = :user_id"),
)
"""A user can also be an operator, or one whose claims operators have paused."""

_UNFINISHED = text(
    "SELECT id FROM export_jobs WHERE user_id = :user_id AND (status IN ('pending', 'processing') "
    "OR outcome IS NOT NULL)"
)

_LOWER = "ARRAY(SELECT lower(known) FROM unnest(CAST(:addresses AS text[])) AS known)"
"""All spellings of an address, compared without case."""

_OF_ADDRESS = """
    UPDATE {table} AS item SET
        {recipients} = (
            SELECT jsonb_agg(one) FROM jsonb_array_elements(
                CASE jsonb_typeof(item.{recipients}) WHEN 'array' THEN item.{recipients} ELSE '[]' END
            ) AS one
            WHERE lower(one #>> '{{}}') <> ALL ({addresses})
        ),
        webhook = CASE WHEN lower(item.webhook) <> ALL ({addresses}) THEN item.webhook END
    WHERE lower(item.webhook) = ANY ({addresses})
        OR jsonb_typeof(item.{recipients}) = 'array' AND EXISTS (
            SELECT FROM jsonb_array_elements_text(item.{recipients}) AS one
            WHERE lower(one) = ANY ({addresses})
        )
    RETURNING item.id
    """
"""This statement reads the whole table, because there is no index by address. The command is rare."""

_JOBS_OF_ADDRESS = text(_OF_ADDRESS.format(table="export_jobs", recipients="recipients", addresses=_LOWER))
_SCHEDULES_OF_ADDRESS = text(
    _OF_ADDRESS.format(table="scheduled_exports", recipients="email_recipients", addresses=_LOWER)
)
# The address of a delivery to a destination is the destination's name. No person has it, and the record is
# needed to remove the files there.
_DELIVERIES_TO = text(
    f"DELETE FROM deliveries WHERE lower(address) = ANY ({_LOWER}) AND channel <> 'destination' RETURNING id"
)
_ADDRESSES = (
    text(f"DELETE FROM suppressed_addresses WHERE address = ANY ({_LOWER})"),
    text(f"DELETE FROM unsubscriptions WHERE address = ANY ({_LOWER})"),
)


@dataclass(frozen=True, slots=True)
class ErasureResult:
    """How many jobs were erased, and how many files, schedules and deliveries were removed.

    ``left`` are files at destinations of which there is no record any more.
    """

    jobs: int = 0
    files: int = 0
    schedules: int = 0
    deliveries: int = 0
    left: Sequence[FilesLeft] = ()


class PersonalDataEraser:
    """Erases rows.

    ``remove`` deletes the file or the several files of a job by its key. It is no error if they are gone.
    ``report`` is called with a line of text when something is waited for, or left.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        remove: Callable[[str], Awaitable[None]],
        report: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._engine = engine
        self._remove = remove
        self._report = report

    async def pause_schedules(self, user_id: str) -> None:
        """Pause the schedules of a user, so that they start no jobs until they are removed.

        Raises:
            Retryable: the database is away.
        """
        await self._execute(_PAUSE, user_id=user_id)

    async def unfinished(self, user_id: str) -> list[UUID]:
        """Return the jobs of a user that have not ended, or whose outcome is not applied yet.

        Raises:
            Retryable: the database is away.
        """
        return [row.id for row in await self._execute(_UNFINISHED, user_id=user_id)]

    async def erase_user(
        self, user_id: str, *, wait_seconds: float = 0.0, leave_files: bool = False
    ) -> ErasureResult:
        """Remove a user's files and schedules, and erase the records of the user's jobs.

        Files are removed first, so that a later call finishes a call that was interrupted. A job whose
        outcome is stored meanwhile, because its file expires, is erased when the outcome is applied.
        Schedules and unsubscriptions are removed last: without them a job could begin or a mail be sent.

        Args:
            user_id: the user.
            wait_seconds: how long each wait lasts at most: for jobs that have not ended, and for the removal
                of files from destinations.
            leave_files: erase also the records of jobs whose files could not be removed from destinations.

        Raises:
            Rejected: jobs of the user have not ended, or files are left at destinations. All other jobs are
                erased then.
            Retryable: the database or the object store is away. Call it again: it continues with the rest.
        """
        await self._wait_for_ends(user_id, wait_seconds)
        await self.pause_schedules(user_id)
        await self._execute(FORGOTTEN_OUTCOMES)
        partial = PartialDeliveries(self._engine, user_id, self._report)
        left: dict[UUID, FilesLeft] = {}
        given_up: dict[UUID, FilesLeft] = {}
        emptied = files = 0
        while await self._execute(_ANY, user_id=user_id, kept=list(left)):
            await self._wait_for_ends(user_id, wait_seconds)
            found = await partial.take_back(wait_seconds)
            if leave_files:
                self._report_left(given_up, found)
            else:
                left = found
            kept = set(left)
            while rows := await self._execute(_ENDED, user_id=user_id, kept=list(kept)):
                for key in [row.file_path for row in rows if row.file_path and row.status == "completed"]:
                    await self._remove(key)
                    files += 1
                ids = {row.id for row in rows}
                done = await self._empty(user_id, ids, given_up)
                emptied += len(done)
                kept |= ids - done
        schedules = await self._finish(user_id)
        if left:
            raise Rejected(_text_of(list(left.values())), code="files_left")
        return ErasureResult(jobs=emptied, files=files, schedules=schedules, left=tuple(given_up.values()))

    async def _wait_for_ends(self, user_id: str, seconds: float) -> None:
        """Wait until all jobs of the user have ended, for ``seconds`` at the longest."""
        until = time.monotonic() + seconds
        while jobs := await self.unfinished(user_id):
            if time.monotonic() >= until:
                raise Rejected(f"{len(jobs)} jobs of this user have not ended", code="jobs_unfinished")
            await asyncio.sleep(POLL_SECONDS)

    def _report_left(self, known: dict[UUID, FilesLeft], found: Mapping[UUID, FilesLeft]) -> None:
        """Report files that are left, before their record is erased."""
        for job_id, files in found.items():
            if job_id not in known:
                known[job_id] = files
                self._report(f"Left at {files}")

    async def _empty(self, user_id: str, ids: Collection[UUID], given_up: Container[UUID]) -> set[UUID]:
        """Erase the records of jobs, except those whose outcome was stored meanwhile; return which.

        The record of a job with a partial delivery is erased only if its files are given up.
        """
        with outages_are_retryable():
            async with self._engine.begin() as connection:
                locked = await connection.scalars(_LOCK, {"ids": list(ids), "user_id": user_id})
                emptied = set(locked.all())
                partial = await lock_deliveries(connection, emptied)
                emptied -= {job_id for job_id in partial if job_id not in given_up}
                for statement in (_EMPTY, _UNSENT, _FILES, _PARTS):
                    await connection.execute(statement, {"ids": list(emptied)})
        return emptied

    async def _finish(self, user_id: str) -> int:
        """Remove what the user has besides jobs; return how many schedules that were."""
        with outages_are_retryable():
            async with self._engine.begin() as connection:
                values = {"user_id": user_id}
                schedules = list((await connection.scalars(_SCHEDULES, values)).all())
                for statement in _OF_SCHEDULES:
                    await connection.execute(statement, {"ids": schedules})
                for statement in (_UNSUBSCRIPTIONS, *_OPERATIONS):
                    await connection.execute(statement, values)
        return len(schedules)

    async def erase_address(self, address: str) -> ErasureResult:
        """Remove an address, in all its spellings, from jobs, schedules and deliveries.

        Its unsubscriptions are removed too, so it gets mails again if a new request names it.

        Raises:
            Retryable: the database is away; nothing was changed.
        """
        with outages_are_retryable():
            async with self._engine.begin() as connection:
                values = {"addresses": spellings(address)}
                jobs = (await connection.execute(_JOBS_OF_ADDRESS, values)).all()
                schedules = (await connection.execute(_SCHEDULES_OF_ADDRESS, values)).all()
                deliveries = (await connection.execute(_DELIVERIES_TO, values)).all()
                for statement in _ADDRESSES:
                    await connection.execute(statement, values)
        return ErasureResult(jobs=len(jobs), schedules=len(schedules), deliveries=len(deliveries))

    async def _execute(self, statement: Any, **values: Any) -> list[Row[Any]]:
        with outages_are_retryable():
            async with self._engine.begin() as connection:
                result = await connection.execute(statement, values)
                return list(result.all()) if result.returns_rows else []


def _text_of(left: Sequence[FilesLeft]) -> str:
    shown = "; ".join(map(str, left[:SHOWN]))
    more = f"; and {len(left) - SHOWN} more" if len(left) > SHOWN else ""
    return (
        f"the files of {len(left)} jobs are left at destinations, so the records of these jobs are kept: "
        f"{shown}{more}. See that a worker runs and that the destinations can be reached, or give "
        "--leave-files"
    )
