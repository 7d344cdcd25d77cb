"""The job queue: workers claim jobs from it, renew their leases, release jobs and store their outcomes."""

from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import asdict
from datetime import timedelta
from typing import Self
from uuid import UUID

from pydantic_core import to_json
from sqlalchemy import and_, case, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from stream_app.db.clock import DatabaseClock
from stream_app.db.engine import Connections, autocommit_connection, autocommitting, transaction
from stream_app.db.listener import WAKE_CHANNEL
from stream_app.exports.task import ExportResult
from stream_app.jobs.admission import Admission
from stream_app.jobs.cancellations import Cancellations
from stream_app.jobs.claim import AttemptProgress, Claim
from stream_app.jobs.claim_reader import ClaimReader
from stream_app.jobs.job_files import has_lost_list
from stream_app.jobs.models import ExportJob
from stream_app.jobs.queue_sql import (
    CLAIM,
    CLAIM_SETTINGS,
    DELETE_EARLIER_FILES,
    LOCK_HELD,
    RECORD_FILES,
    RENEW,
    STORE_OUTCOME,
)
from stream_app.jobs.states import Status
from stream_app.jobs.unclaimed_jobs import UnclaimedJobs
from stream_app.settings import Settings
from streaming_exporter.events import JobError, LifecycleData

USERS_PER_CLAIM = 200
"""How many users, and how many of the oldest jobs, one claim reads at most."""

USERS_PER_SLOT = 50
"""How many of them it reads for each job that it claims: a worker under load claims one or two at a time."""


class JobQueue:
    """Claims, renews and releases jobs, and stores their outcomes.

    Attributes:
        admission: inserts and admits jobs.
        cancellations: cancels jobs.
        unclaimed: ends abandoned jobs and expired files.
        is_work_left: whether jobs or parts can wait that the last claim did not take, because a limit of
            slots was reached or they were excluded.

    Every method raises :class:`~streaming_exporter.errors.Retryable` while the database cannot be reached.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        *,
        lease: timedelta,
        user_slots: int,
        max_attempts: int,
        connections: Connections | None = None,
    ) -> None:
        """Create the queue. Its statements use ``connections``; the default is the pool of ``engine``."""
        self.clock = DatabaseClock(engine)
        self._connections = connections or autocommitting(engine)
        self.lease = lease
        self.max_attempts = max_attempts
        self._user_slots = user_slots
        self.is_work_left = True
        self._claim_after_user = ""
        self._claims = ClaimReader(self._connections)
        self.admission = Admission(self._connections, self._claims, lease=lease, user_slots=user_slots)
        self.cancellations = Cancellations(self._connections, lease=lease)
        self.unclaimed = UnclaimedJobs(self._connections, lease=lease, max_attempts=max_attempts)

    @classmethod
    def of(cls, settings: Settings, engine: AsyncEngine, connections: Connections | None = None) -> Self:
        """Return the queue with the limits of the settings."""
        return cls(
            engine,
            lease=timedelta(seconds=settings.lease_seconds),
            user_slots=settings.user_slots,
            max_attempts=settings.max_attempts,
            connections=connections,
        )

    def transaction(self, script: str = "") -> AbstractAsyncContextManager[AsyncConnection]:
        """Open a transaction, which can begin with a script: see :func:`stream_app.db.engine.transaction`."""
        return transaction(self._connections, script)

    @asynccontextmanager
    async def statement(self) -> AsyncIterator[AsyncConnection]:
        """Open a connection whose every statement is a transaction: one round trip instead of three."""
        async with autocommit_connection(self._connections) as connection:
            yield connection

    async def claim(
        self,
        worker: str,
        limit: int,
        *,
        with_split: bool = True,
        held_back: Collection[str] = (),
        away: Collection[str] = (),
        paused: Collection[str] = (),
        paused_users: Collection[str] = (),
        only_parts: bool = False,
    ) -> list[Claim]:
        """Claim up to ``limit`` jobs and parts that are pending and due, or whose lease has expired.

        The order is: priority, then the user with the fewest slots in use, then age. A job that has used up
        its attempts is not claimed (see :meth:`.UnclaimedJobs.end_exhausted`).

        Args:
            worker: the worker.
            limit: how many.
            with_split: whether to claim jobs with ``split``. Parts are always claimed.
            held_back: datasets whose jobs and parts are not claimed.
            away: datasets whose source does not answer. Their running jobs take no slot of their user.
            paused: datasets whose jobs are not claimed. Parts of their running jobs are.
            paused_users: users whose jobs are not claimed. Parts of their running jobs are.
            only_parts: claim parts of running jobs, and no jobs.

        Returns:
            The claims. Those of parts are :class:`~stream_app.jobs.part_claim.PartClaim`.
        """
        values = {
            "after": self._claim_after_user,
            "window": min(USERS_PER_CLAIM, USERS_PER_SLOT * limit),
            "worker": worker,
            "limit": limit,
            "lease": self.lease,
            "user_slots": self._user_slots,
            "max_attempts": self.max_attempts,
            "with_split": with_split,
            "held_back": [*held_back, *paused],
            "users_held_back": list(paused_users),
            "parts_held_back": list(held_back),
            "only_parts": only_parts,
            "away": list(away),
        }
        self.is_work_left = True  # what ends during this claim can make room for what this claim does not see
        async with self.transaction(CLAIM_SETTINGS) as connection:
            rows = await CLAIM.fetch(connection, values)
        self._claim_after_user = rows[0].after
        are_held_back = bool(held_back or paused or paused_users or only_parts)
        self.is_work_left = rows[0].is_left or bool(rows[0].after) or are_held_back or not with_split
        return await self._claims.read(worker, [row for row in rows if row.id is not None])

    async def renew(self, worker: str, progress: Sequence[AttemptProgress]) -> tuple[set[UUID], set[UUID]]:
        """Renew the leases of running attempts and store their progress.

        Returns:
            The ids of the jobs whose lease is still held, and of those among them that are to be cancelled.
        """
        if not progress:
            return set(), set()
        async with self.statement() as connection:
            rows = await RENEW.fetch(
                connection,
                {
                    "worker": worker,
                    "lease": self.lease,
                    "ids": [item.job_id for item in progress],
                    "attempts": [item.attempt for item in progress],
                    "rows": [item.rows for item in progress],
                    "estimates": [item.estimated_rows for item in progress],
                    "stages": [item.stages and to_json(item.stages).decode() for item in progress],
                },
            )
        return {row.id for row in rows}, {row.id for row in rows if row.cancelled}

    async def release(
        self,
        claim: Claim,
        *,
        delay: timedelta = timedelta(0),
        failed: bool = True,
        waits_for: JobError | None = None,
    ) -> bool:
        """Set a claimed job back to ``pending``.

        If the job is to be cancelled, it stays ``processing`` with an expired lease, and
        :meth:`.UnclaimedJobs.end_exhausted` cancels it.

        Args:
            claim: the claim.
            delay: how long the job waits before it can be claimed.
            failed: whether to count a failure. A job of a worker that stops has not failed.
            waits_for: what the job waits for. It is shown as the job's error until the next claim.

        Returns:
            Whether the lease was still held.
        """
        cancelled = ExportJob.cancel_requested_at.is_not(None)
        values = {
            "status": case((cancelled, ExportJob.status), else_=Status.PENDING),
            "worker": None,
            "lease_until": case((cancelled, func.now())),
            "not_before": func.now() + delay,
            "row_count": None,
            "failures": ExportJob.failures + int(failed),
            "error_code": waits_for and waits_for.code,
            "error_message": waits_for and waits_for.message,
        }
        statement = (
            update(ExportJob)
            .where(
                ExportJob.id == claim.job_id,
                ExportJob.attempt == claim.attempt,
                ExportJob.worker == claim.worker,
                ExportJob.status == Status.PROCESSING,
                ExportJob.outcome.is_(None),
            )
            .values(**values)
            .returning(func.pg_notify(WAKE_CHANNEL, ""))
        )
        async with self.statement() as connection:
            return (await connection.execute(statement)).one_or_none() is not None

    async def store_outcome(self, claim: Claim, outcome: LifecycleData) -> bool:
        """Store the outcome of the job on its row, before the outcome is published.

        A job with an outcome cannot be claimed. If its event is not published,
        :meth:`.UnclaimedJobs.take_unpublished` returns the outcome again.

        Returns:
            Whether the lease was still held. A repeated call returns the same.
        """
        stored = outcome.model_dump(mode="json", exclude_none=True)
        values = {
            "id": claim.job_id,
            "attempt": claim.attempt,
            "worker": claim.worker,
            "outcome": to_json(stored).decode(),
            "lease": self.lease,
        }
        async with self.statement() as connection:
            if await STORE_OUTCOME.scalar(connection, values) is not None:
                return True
            # The recovery of jobs can have published it before this repeated call. The whole outcome is
            # compared: an attempt of the same number can have ended the job otherwise, see ObjectStore.key.
            applied = and_(
                ExportJob.outcome.is_(None),
                ExportJob.status == outcome.status,
                ExportJob.file_path.is_not_distinct_from(outcome.key),
                ExportJob.completed_at.is_not_distinct_from(outcome.completed_at),
            )
            has_this_outcome = and_(
                ExportJob.id == claim.job_id,
                ExportJob.attempt == claim.attempt,
                or_(ExportJob.outcome == stored, applied),
            )
            return await connection.scalar(select(ExportJob.id).where(has_this_outcome)) is not None

    @staticmethod
    async def lock_held(connection: AsyncConnection, claim: Claim) -> bool:
        """Lock the job in a transaction if its lease is still held; return whether it is."""
        own = {"id": claim.job_id, "attempt": claim.attempt, "worker": claim.worker}
        return await connection.scalar(LOCK_HELD, own) is not None

    async def record_files(self, claim: Claim, result: ExportResult) -> None:
        """Store the list of the several files that an attempt has written, before its outcome is stored.

        A repeated call changes nothing. Only the files of the attempt that completes the job count. An
        attempt that has lost its lease stores nothing.
        """
        files = to_json([asdict(file) for file in result.files]).decode()
        which = {"id": claim.job_id, "attempt": claim.attempt}
        async with self.transaction() as connection:
            if not await self.lock_held(connection, claim):
                return
            await connection.execute(DELETE_EARLIER_FILES, which)
            values = which | {"result": result.key, "bucket": result.bucket, "files": files}
            await connection.execute(RECORD_FILES, values)

    async def completed_attempt(self, job_id: UUID) -> int | None:
        """Return the first attempt whose files a completed job needs; ``None`` if the job is not completed.

        The job can be completed by an outcome that is only stored. Its files are those of the attempt that
        completed it, and also those of all earlier ones if their parts were kept or can have been kept.
        """
        completed = or_(
            ExportJob.status == Status.COMPLETED, ExportJob.outcome["status"].as_string() == Status.COMPLETED
        )
        needed = case((or_(ExportJob.consistency == "part", has_lost_list()), 0), else_=ExportJob.attempt)
        async with self.statement() as connection:
            return await connection.scalar(select(needed).where(ExportJob.id == job_id, completed))
