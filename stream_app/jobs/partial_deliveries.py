"""Waits until the sender has removed the files of deliveries to destinations that cannot be completed.

Only the row of a delivery says where its files are. So an erasure lets the jobs of such deliveries expire,
and keeps their rows until the sender has removed what it has sent. Files of deliveries that were completed
belong to their receivers, as mails do.
"""

import asyncio
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from stream_app.db.engine import outages_are_retryable

POLL_SECONDS = 1.0
"""Seconds between two looks at deliveries in progress."""

# A delivery that is being sent counts from its claim on: nothing else says that it is about to begin.
# Version 0.2.0 did not record whether an attempt has begun, nor whether its files were removed.
_IS_PARTIAL = """(
    delivery.channel = 'destination' AND (
        delivery.status = 'sending'
        OR delivery.status <> 'sent' AND delivery.progress IS NOT NULL
            AND coalesce(delivery.progress ->> 'writing', '1') <> '0'
            AND coalesce(delivery.progress ->> 'removed', 'false') <> 'true'
    )
)"""
"""Condition: files of the delivery are possibly at the destination, and the set is not complete."""

_IS_ELSEWHERE = """(
    delivery.channel = 'destination' AND jsonb_array_length(coalesce(delivery.progress -> 'left', '[]')) > 0
)"""
"""Condition: files were sent before the destination was moved. The service cannot remove them."""

# Afterwards a claim of such a delivery is not renewed, and none begins to send.
_EXPIRE = text(
    f"""
    UPDATE export_jobs AS job
    SET cancel_requested_at = coalesce(job.cancel_requested_at, now()),
        expires_at = least(job.expires_at, now())
    WHERE job.user_id = :user_id AND job.status = 'completed' AND job.outcome IS NULL
        AND (job.cancel_requested_at IS NULL OR job.expires_at > now())
        AND EXISTS (
            SELECT FROM deliveries AS delivery
            WHERE delivery.job_id = job.id
                AND (delivery.channel = 'destination' AND delivery.status = 'pending' OR {_IS_PARTIAL})
        )
    """
)

_FIND = text(
    f"""
    SELECT delivery.id, delivery.job_id, delivery.address, delivery.status, delivery.reason,
           delivery.progress ->> 'path' AS path, delivery.progress -> 'left' AS elsewhere,
           {_IS_PARTIAL} AS is_partial
    FROM export_jobs AS job JOIN deliveries AS delivery ON delivery.job_id = job.id
    WHERE job.user_id = :user_id AND ({_IS_PARTIAL} OR {_IS_ELSEWHERE})
    ORDER BY delivery.address, delivery.job_id
    """
)

_REMOVE_NOW = text(
    f"""
    UPDATE deliveries AS delivery SET status = 'pending', not_before = now(), finished_at = NULL
    WHERE delivery.id = ANY (CAST(:ids AS uuid[])) AND delivery.status <> 'sending' AND {_IS_PARTIAL}
    """
)

_LOCK = text(
    f"""
    SELECT delivery.job_id, {_IS_PARTIAL} OR {_IS_ELSEWHERE} AS is_partial FROM deliveries AS delivery
    WHERE delivery.job_id = ANY (CAST(:ids AS uuid[])) ORDER BY delivery.id FOR UPDATE
    """
)


@dataclass(frozen=True, slots=True)
class FilesLeft:
    """Files of a job that are possibly at a destination. ``path`` is that of the first one, if it is known.

    ``reason`` says why the last attempt of the delivery has ended, if one has. ``elsewhere`` are the paths of
    the first files at the places where the destination was before. ``in_doubt`` are those that were found
    after the host or the user was changed: they are at an earlier place only if they were copied.
    """

    job_id: str
    destination: str
    path: str | None
    reason: str | None
    elsewhere: tuple[str, ...] = ()
    in_doubt: tuple[str, ...] = ()

    def __str__(self) -> str:
        where = self.destination if self.path is None else f"{self.destination}, {self.path}"
        where += "".join(f", {path} (before the destination was moved)" for path in self.elsewhere)
        doubt = "possibly also where the destination was before its host or user was changed"
        where += "".join(f", {path} ({doubt})" for path in self.in_doubt)
        return f"{where} (job {self.job_id}{f': {self.reason}' if self.reason else ''})"


class PartialDeliveries:
    """The partial deliveries of one user.

    ``report`` is called with a line of text when something is waited for.
    """

    def __init__(self, engine: AsyncEngine, user_id: str, report: Callable[[str], None]) -> None:
        self._engine = engine
        self._user_id = user_id
        self._report = report
        self._hurried: set[UUID] = set()
        """Deliveries whose removal was made due. Each is once, then the sender's own delays count."""
        self._reported = ""

    async def take_back(self, seconds: float) -> dict[UUID, FilesLeft]:
        """Let the sender remove the files of partial deliveries, and wait for it.

        Args:
            seconds: how long to wait at the longest.

        Returns:
            What is left, by the ids of the jobs.

        Raises:
            Retryable: the database is away.
        """
        until = time.monotonic() + seconds
        await self._execute(_EXPIRE, user_id=self._user_id)
        while True:
            found = await self._execute(_FIND, user_id=self._user_id)
            partial = [row for row in found if row.is_partial]
            due = {row.id for row in partial if row.status != "sending"} - self._hurried
            if due:
                await self._execute(_REMOVE_NOW, ids=list(due))
                self._hurried |= due
            waiting = [row for row in partial if row.status in ("pending", "sending") or row.id in due]
            if not waiting or time.monotonic() >= until:
                return {row.job_id: _left(row) for row in found}
            self._report_waiting(waiting)
            await asyncio.sleep(POLL_SECONDS)

    def _report_waiting(self, waiting: Sequence[Row[Any]]) -> None:
        names = ", ".join(sorted({row.address for row in waiting}))
        line = f"Waiting until the files of {len(waiting)} deliveries are removed from {names} …"
        if line != self._reported:
            self._reported = line
            self._report(line)

    async def _execute(self, statement: Any, **values: Any) -> Sequence[Row[Any]]:
        with outages_are_retryable():
            async with self._engine.begin() as connection:
                result = await connection.execute(statement, values)
                return result.all() if result.returns_rows else []


async def lock_deliveries(connection: AsyncConnection, ids: Collection[UUID]) -> set[UUID]:
    """Lock the deliveries of jobs until the transaction ends, so that none can be claimed or begin to send.

    The jobs must be locked before, as others lock them in that order.

    Returns:
        The jobs that have partial deliveries.
    """
    rows = (await connection.execute(_LOCK, {"ids": list(ids)})).all()
    return {row.job_id for row in rows if row.is_partial}


def _left(row: Row[Any]) -> FilesLeft:
    places = row.elsewhere or ()
    elsewhere = tuple(str(earlier.get("path")) for earlier in places if not earlier.get("found"))
    in_doubt = tuple(str(earlier.get("path")) for earlier in places if earlier.get("found"))
    path = row.path if row.is_partial else None
    return FilesLeft(str(row.job_id), row.address, path, row.reason, elsewhere, in_doubt)
