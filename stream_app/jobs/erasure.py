"""Removes what the service knows of a user or of an address, and keeps the ids of jobs.

A job's row stays, without anything that came with its request: an event that Kafka delivers again finds the
row and makes no second job. It is pruned like any other. What Kafka, logs and sent mails hold is not reached
from here: it ends with their own retention.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncEngine

from stream_app.db.engine import outages_are_retryable
from streaming_exporter.errors import Rejected

BATCH = 200
"""Jobs that one transaction empties."""

_ENDED = text(
    f"""
    SELECT id, file_path, status FROM export_jobs
    WHERE user_id = :user_id AND status NOT IN ('pending', 'processing') AND outcome IS NULL
    ORDER BY created_at, id LIMIT {BATCH}
    """
)

# The new user id is one that no token names; it differs from job to job, so that nothing joins them.
_EMPTY = text(
    """
    UPDATE export_jobs SET
        user_id = 'forgotten:' || id, status = CASE status WHEN 'completed' THEN 'expired' ELSE status END,
        filters = NULL, columns = NULL, options = NULL, recipients = NULL, webhook = NULL, source = NULL,
        "window" = NULL, schedule_id = NULL, traceparent = NULL, manifest = NULL, file_path = NULL,
        file_name = NULL, sha256 = NULL, error_message = NULL
    WHERE id = ANY(:ids) AND user_id = :user_id
    """
)
_UNSENT = text("DELETE FROM deliveries WHERE job_id = ANY(:ids)")
_UNSUBSCRIPTIONS = text(
    """
    DELETE FROM unsubscriptions
    WHERE topic = 'user:' || :user_id
        OR topic IN (SELECT 'schedule:' || id FROM scheduled_exports WHERE user_id = :user_id)
    """
)
_SCHEDULES = text("DELETE FROM scheduled_exports WHERE user_id = :user_id RETURNING id")
_UNFINISHED = text(
    "SELECT id FROM export_jobs WHERE user_id = :user_id AND (status IN ('pending', 'processing') "
    "OR outcome IS NOT NULL)"
)

_OF_ADDRESS = """
    UPDATE {table} AS item SET
        {recipients} = (
            SELECT jsonb_agg(one) FROM jsonb_array_elements(
                CASE jsonb_typeof(item.{recipients}) WHEN 'array' THEN item.{recipients} ELSE '[]' END
            ) AS one
            WHERE lower(one #>> '{{}}') <> lower(:address)
        ),
        webhook = CASE WHEN lower(item.webhook) <> lower(:address) THEN item.webhook END
    WHERE lower(item.webhook) = lower(:address)
        OR jsonb_typeof(item.{recipients}) = 'array' AND EXISTS (
            SELECT FROM jsonb_array_elements_text(item.{recipients}) AS one WHERE lower(one) = lower(:address)
        )
    RETURNING item.id
    """
"""Reads the whole table: which job names an address has no index, and is asked for seldom."""

_JOBS_OF_ADDRESS = text(_OF_ADDRESS.format(table="export_jobs", recipients="recipients"))
_SCHEDULES_OF_ADDRESS = text(_OF_ADDRESS.format(table="scheduled_exports", recipients="email_recipients"))
_DELIVERIES_TO = text("DELETE FROM deliveries WHERE lower(address) = lower(:address) RETURNING id")
_ADDRESSES = (
    text("DELETE FROM suppressed_addresses WHERE address = lower(:address)"),
    text("DELETE FROM unsubscriptions WHERE address = lower(:address)"),
)


@dataclass(frozen=True, slots=True)
class Erased:
    """How much was removed: jobs that were emptied, files, schedules, deliveries."""

    jobs: int = 0
    files: int = 0
    schedules: int = 0
    deliveries: int = 0


class PersonalDataEraser:
    """Empties and removes rows. ``remove`` deletes an object of the store; deleting one twice is no error."""

    def __init__(self, engine: AsyncEngine, remove: Callable[[str], Awaitable[None]]) -> None:
        self._engine = engine
        self._remove = remove

    async def unfinished(self, user_id: str) -> list[UUID]:
        """The jobs of a user that have not ended, or whose end is not on record yet.

        Raises:
            Retryable: the database is away.
        """
        return [row.id for row in await self._execute(_UNFINISHED, user_id=user_id)]

    async def erase_user(self, user_id: str) -> Erased:
        """Remove a user's schedules and files, and empty the record of the user's jobs.

        Files go first: a run that is interrupted is finished by the next one.

        Raises:
            Rejected: jobs of the user have not ended.
            Retryable: the database or the object store is away; what was not reached is left for another run.
        """
        if jobs := await self.unfinished(user_id):
            raise Rejected(f"{len(jobs)} jobs of this user have not ended", code="jobs_unfinished")
        await self._execute(_UNSUBSCRIPTIONS, user_id=user_id)
        schedules = len(await self._execute(_SCHEDULES, user_id=user_id))
        emptied = files = 0
        while rows := await self._execute(_ENDED, user_id=user_id):
            for key in [row.file_path for row in rows if row.file_path and row.status == "completed"]:
                await self._remove(key)
                files += 1
            values: dict[str, Any] = {"ids": [row.id for row in rows], "user_id": user_id}
            with outages_are_retryable():
                async with self._engine.begin() as connection:
                    await connection.execute(_UNSENT, {"ids": values["ids"]})
                    await connection.execute(_EMPTY, values)
            emptied += len(rows)
        return Erased(jobs=emptied, files=files, schedules=schedules)

    async def erase_address(self, address: str) -> Erased:
        """Remove an address from jobs, schedules and what was or is to be sent.

        That it wanted no mails is forgotten too: a new request can name it again.

        Raises:
            Retryable: the database is away; nothing was changed.
        """
        with outages_are_retryable():
            async with self._engine.begin() as connection:
                values = {"address": address}
                jobs = (await connection.execute(_JOBS_OF_ADDRESS, values)).all()
                schedules = (await connection.execute(_SCHEDULES_OF_ADDRESS, values)).all()
                deliveries = (await connection.execute(_DELIVERIES_TO, values)).all()
                for statement in _ADDRESSES:
                    await connection.execute(statement, values)
        return Erased(jobs=len(jobs), schedules=len(schedules), deliveries=len(deliveries))

    async def _execute(self, statement: Any, **values: Any) -> list[Row[Any]]:
        with outages_are_retryable():
            async with self._engine.begin() as connection:
                result = await connection.execute(statement, values)
                return list(result.all()) if result.returns_rows else []
