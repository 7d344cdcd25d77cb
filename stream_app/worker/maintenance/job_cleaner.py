"""Removes jobs that ended long ago, with their deliveries, in small batches, and old marks of dead letters.

A job is kept at any age if it has not ended, if its outcome is not applied, or if it has a file or an unsent
delivery. Admission refuses requests that are nearly as old as removed jobs (:func:`oldest_admissible`). So a
request that is read again after its job was removed starts no second job.
"""

import asyncio
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

import structlog
from sqlalchemy import text

from stream_app.jobs.erasure import FORGOTTEN_OUTCOMES
from stream_app.jobs.parts import PartStore
from stream_app.jobs.queue import JobQueue
from stream_app.jobs.states import FINAL
from stream_app.periodic import repeat

log = structlog.get_logger(__name__)

INTERVAL_SECONDS = 3_600.0
FIRST_SECONDS = 60.0

BATCH = 500
"""How many jobs one step reads."""

SLACK = timedelta(days=1)
"""Tolerance for clocks that differ: brokers accept messages from up to an hour ahead."""

Position = tuple[datetime, UUID]
BEGINNING: Position = (datetime(1, 1, 1, tzinfo=UTC), UUID(int=0))

BEFORE_STEP = text(
    """
    SELECT set_config('statement_timeout', '5s', true), set_config('jit', 'off', true),
           set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true),
           set_config('enable_sort', 'off', true), set_config('enable_incremental_sort', 'off', true)
    """
)
"""Makes PostgreSQL use the indexes, whatever its statistics are, as for claims."""

# The limit is not a parameter, and ids are arrays, so that PostgreSQL knows that both are few. The condition
# on the status is written so that PostgreSQL does not use its index: most jobs have one of these states.
STEP = text(
    f"""
    WITH oldest AS MATERIALIZED (
        SELECT job.id, job.created_at FROM export_jobs AS job
        WHERE (job.created_at, job.id) > (CAST(:created_at AS timestamptz), CAST(:id AS uuid))
            AND job.created_at < now() - CAST(:history AS interval)
        ORDER BY job.created_at, job.id LIMIT {BATCH}
    ), over AS MATERIALIZED (
        SELECT job.id FROM export_jobs AS job
        WHERE job.id = ANY (array(SELECT id FROM oldest))
            AND (job.status = ANY (CAST(:final AS text[]))) IS TRUE AND job.outcome IS NULL
            AND NOT EXISTS (
                SELECT FROM deliveries AS message
                WHERE message.job_id = job.id AND message.status IN ('pending', 'sending')
            )
        FOR UPDATE OF job SKIP LOCKED
    ), deliveries_removed AS (
        DELETE FROM deliveries WHERE job_id = ANY (array(SELECT id FROM over))
    ), files_removed AS (
        DELETE FROM export_files WHERE job_id = ANY (array(SELECT id FROM over))
    ), removed AS (
        DELETE FROM export_jobs WHERE id = ANY (array(SELECT id FROM over)) RETURNING id
    )
    SELECT oldest.created_at, oldest.id, (SELECT count(*) FROM removed) AS removed,
           (SELECT count(*) FROM oldest) AS seen
    FROM oldest ORDER BY oldest.created_at DESC, oldest.id DESC LIMIT 1
    """
)
"""Reads the next jobs after a position, oldest first, and removes those that need not be kept.

Returns the last position.
"""


ADDRESSES = (
    text(
        """
        DELETE FROM unsubscriptions AS item
        WHERE item.created_at < now() - CAST(:history AS interval)
            AND (
                item.topic LIKE 'user:%'
                OR NOT EXISTS (SELECT FROM scheduled_exports WHERE item.topic = 'schedule:' || id)
            )
            AND NOT EXISTS (
                SELECT FROM deliveries AS message
                WHERE lower(message.address) = item.address AND message.topic = item.topic
            )
        """
    ),
    text(
        """
        DELETE FROM suppressed_addresses AS known
        WHERE known.created_at < now() - CAST(:history AS interval)
            AND NOT EXISTS (SELECT FROM deliveries AS message WHERE lower(message.address) = known.address)
        """
    ),
    text("DELETE FROM receiver_hosts WHERE not_before < now() - interval '1 day'"),
)
"""Removes unsubscribed and suppressed addresses that no delivery on record names.

A delivery that is skipped for such an address names it too, so the address is kept while it is in use.
"""

GAPS = text(
    """
    DELETE FROM schedule_gaps AS gap
    WHERE NOT EXISTS (SELECT FROM scheduled_exports AS schedule WHERE schedule.id = gap.schedule_id)
    """
)
"""Removes gaps of schedules that do not exist any more. Version 0.2.0 left those of erased users."""

LETTERS_KEPT = timedelta(days=90)
"""Shortest time that the mark of a handled dead letter is kept: longer than the topic keeps the letter."""

LETTERS = text(
    """
    DELETE FROM handled_dead_letters
    WHERE greatest(written_at, handled_at) < now() - CAST(:kept AS interval)
    """
)
"""Removes the marks of dead letters that were handled long ago. They name operators."""


def oldest_admissible(now: datetime, history: timedelta) -> datetime:
    """Return the earliest time of an admissible request. The job of an older one can have been removed."""
    return now - history + SLACK


@dataclass(frozen=True, slots=True)
class JobCleaner:
    """Removes jobs that are older than ``history``. Several workers can do so at the same time."""

    queue: JobQueue
    history: timedelta

    async def run(self) -> None:
        """Remove old jobs about a minute after the start and then about every hour."""
        await repeat("job_cleaning", self.clean, INTERVAL_SECONDS, first=FIRST_SECONDS, jitter=0.5)

    async def clean(self) -> int:
        """Remove jobs that are older than the history; return how many. Complete what an erasure has left.

        It pauses half of the time, so that the database can do more important work.

        Raises:
            Retryable: the database is away. The next call continues with the rest.
        """
        await PartStore(self.queue).delete_of_ended()
        async with self.queue.transaction() as connection:
            for statement in ADDRESSES[:2]:
                await connection.execute(statement, {"history": self.history})
            await connection.execute(ADDRESSES[2])
            await connection.execute(FORGOTTEN_OUTCOMES)
            await connection.execute(GAPS)
            await connection.execute(LETTERS, {"kept": max(self.history, LETTERS_KEPT)})
        removed = 0
        position: Position | None = BEGINNING
        while position is not None:
            began = time.monotonic()
            count, position = await self._step(position)
            removed += count
            await asyncio.sleep(time.monotonic() - began)
        if removed:
            log.info("jobs.removed", jobs=removed)
        return removed

    async def _step(self, after: Position) -> tuple[int, Position | None]:
        """Remove one batch in a short transaction; return how many jobs, and where the next batch begins."""
        created_at, job_id = after
        values = {"created_at": created_at, "id": job_id, "history": self.history, "final": list(FINAL)}
        async with self.queue.transaction() as connection:
            await connection.execute(BEFORE_STEP)
            last = (await connection.execute(STEP, values)).one_or_none()
        if last is None:
            return 0, None
        return last.removed, (last.created_at, last.id) if last.seen == BATCH else None
