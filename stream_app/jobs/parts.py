"""The parts of large split exports: they are planned, renewed, completed, released and deleted.

The statement that claims jobs claims parts too, see :mod:`stream_app.jobs.queue_sql`. ``lost_claims``
releases parts, and ``erasure`` deletes them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from pydantic_core import to_json

from stream_app.jobs import part_sql
from stream_app.jobs.claim import Claim
from stream_app.jobs.part_claim import PartClaim, PartKey, PartProgress, PartsState, PlannedPart
from stream_app.jobs.queue import JobQueue
from streaming_exporter.events import JobError


@dataclass(frozen=True, slots=True)
class KeptPlan:
    """The plan of an earlier attempt that a new holder goes on with.

    Attributes:
        attempt: the attempt that planned the parts.
        folder: the folder of their files.
        parts: how many parts there are.
    """

    attempt: int
    folder: str
    parts: int


@dataclass(frozen=True, slots=True)
class PartStore:
    """Plans, renews, completes, releases and deletes parts.

    Every method raises :class:`~streaming_exporter.errors.Retryable` while the database is unavailable.
    """

    queue: JobQueue

    async def plan(
        self,
        claim: Claim,
        parts: Sequence[PlannedPart],
        *,
        folder: str,
        snapshot: str | None = None,
        as_of: datetime | None = None,
    ) -> bool:
        """Replace the parts of the claimed job. From then on workers can claim them.

        A repeated call begins all parts anew.

        Args:
            claim: the claim of the job.
            parts: the parts.
            folder: the folder of their files in the object store.
            snapshot: the snapshot that all parts read, or ``None`` if each part takes its own.
            as_of: the time of that snapshot.

        Returns:
            Whether the lease of the job was still held.
        """
        values = {
            "job_id": claim.job_id,
            "attempt": claim.attempt,
            "folder": folder,
            "snapshot": snapshot,
            "as_of": as_of,
            "parts": to_json([{"number": part.number, "range": part.range} for part in parts]).decode(),
        }
        async with self.queue.transaction() as connection:
            if not await self.queue.lock_held(connection, claim):
                return False
            await connection.execute(part_sql.DELETE_PARTS, {"job_id": claim.job_id})
            await connection.execute(part_sql.INSERT_PARTS, values)
        return True

    async def kept_plan(self, job_id: UUID) -> KeptPlan | None:
        """Return the plan of an earlier attempt at the job whose parts have snapshots of their own."""
        async with self.queue.statement() as connection:
            row = (await connection.execute(part_sql.KEPT_PLAN, {"job_id": job_id})).one_or_none()
        return None if row is None else KeptPlan(row.attempt, row.folder, row.parts)

    async def state(self, job_id: UUID, attempt: int) -> PartsState:
        """Return the state of the parts that attempt number ``attempt`` has planned."""
        values = {"job_id": job_id, "attempt": attempt, "max_attempts": self.queue.max_attempts}
        async with self.queue.statement() as connection:
            row = (await connection.execute(part_sql.STATE, values)).one()
        return PartsState(**row._mapping)

    async def file_count(self, job_id: UUID, attempt: int) -> int:
        """Return how many files the completed parts of a plan have, also those without rows."""
        async with self.queue.statement() as connection:
            return int(
                await connection.scalar(part_sql.FILE_COUNT, {"job_id": job_id, "attempt": attempt}) or 0
            )

    async def results(self, job_id: UUID, attempt: int) -> list[dict[str, Any]]:
        """Return the results of the completed parts of a plan, in the order of their rows."""
        async with self.queue.statement() as connection:
            rows = await connection.scalars(part_sql.RESULTS, {"job_id": job_id, "attempt": attempt})
            return list(rows)

    async def renew(self, worker: str, progress: Sequence[PartProgress]) -> tuple[set[PartKey], set[PartKey]]:
        """Renew the leases of running parts and store their progress.

        Returns:
            The parts whose lease is still held, and those among them whose job is to be cancelled.
        """
        if not progress:
            return set(), set()
        values = {
            "worker": worker,
            "lease": self.queue.lease,
            "ids": [item.key.job_id for item in progress],
            "attempts": [item.key.attempt for item in progress],
            "numbers": [item.key.number for item in progress],
            "part_attempts": [item.part_attempt for item in progress],
            "rows": [item.rows for item in progress],
        }
        async with self.queue.statement() as connection:
            rows = (await connection.execute(part_sql.RENEW, values)).all()
        held = {PartKey(row.job_id, row.attempt, row.number): row.cancelled for row in rows}
        return set(held), {key for key, cancelled in held.items() if cancelled}

    async def complete(self, claim: PartClaim, result: Mapping[str, Any], *, rows: int) -> bool:
        """Complete a part.

        Args:
            claim: the claim.
            result: the result, which can be written as JSON.
            rows: how many rows the part has.

        Returns:
            Whether the lease was still held. A repeated call returns the same, until the job has ended and
            its parts are deleted: see :meth:`listed_keys`.
        """
        own = {**_own(claim), "result": to_json(dict(result)).decode()}
        async with self.queue.statement() as connection:
            if await connection.scalar(part_sql.COMPLETE, {**own, "rows": rows}) is not None:
                return True
            return await connection.scalar(part_sql.IS_COMPLETED, own) is not None

    async def listed_keys(self, job_id: UUID, keys: Sequence[str]) -> set[str]:
        """Return the ``keys`` that are in the list of the job's files.

        The list is written before the job ends, and its parts are deleted after that. So a part that was
        completed, and is not on record any more, has its files in the list.
        """
        async with self.queue.statement() as connection:
            found = await connection.scalars(part_sql.LISTED_KEYS, {"job_id": job_id, "keys": list(keys)})
            return set(found)

    async def release(
        self,
        claim: PartClaim,
        *,
        delay: timedelta = timedelta(0),
        failed: bool,
        waits_for: JobError | None = None,
    ) -> bool:
        """Set a claimed part back to ``pending``.

        Args:
            claim: the claim.
            delay: how long the part waits before it can be claimed.
            failed: whether to count a failure.
            waits_for: the part of the system that is away.

        Returns:
            Whether the lease was still held.
        """
        values = _own(claim) | {"delay": delay, "failed": int(failed)} | _error(waits_for)
        async with self.queue.statement() as connection:
            return (await connection.execute(part_sql.RELEASE, values)).one_or_none() is not None

    async def fail(self, claim: PartClaim, error: JobError) -> bool:
        """End a part that cannot succeed: its job fails with ``error``.

        Returns:
            Whether the lease was still held.
        """
        async with self.queue.statement() as connection:
            return await connection.scalar(part_sql.FAIL, _own(claim) | _error(error)) is not None

    async def delete(self, job_id: UUID) -> None:
        """Delete the parts of a job. Workers stop those that still run."""
        async with self.queue.statement() as connection:
            await connection.execute(part_sql.DELETE_PARTS, {"job_id": job_id})

    async def delete_of_ended(self) -> None:
        """Delete parts of jobs that have ended: a worker that is killed can leave them."""
        async with self.queue.statement() as connection:
            await connection.execute(part_sql.DELETE_OF_ENDED)


def _own(claim: PartClaim) -> dict[str, Any]:
    return {
        "job_id": claim.job_id,
        "attempt": claim.attempt,
        "number": claim.number,
        "part_attempt": claim.part_attempt,
        "worker": claim.worker,
    }


def _error(error: JobError | None) -> dict[str, Any]:
    return {"error_code": error and error.code, "error_message": error and error.message}
