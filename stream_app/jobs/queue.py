"""The job queue: every statement that changes ``export_jobs``, except the projector's."""

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, Self
from uuid import UUID

import structlog
from pydantic import ValidationError
from pydantic_core import to_json
from sqlalchemy import ARRAY, Row, Uuid, and_, any_, case, delete, func, literal, or_, select, true, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from stream_app.db.clock import DatabaseClock
from stream_app.db.engine import autocommitting, outages_are_retryable, transaction
from stream_app.db.listener import WAKE_CHANNEL
from stream_app.db.rows import each_readable
from stream_app.db.statements import Record
from stream_app.exports.task import ExportResult
from stream_app.jobs.claim import AttemptProgress, Claim
from stream_app.jobs.models import EarlyCancellation, ExportJob
from stream_app.jobs.part_claim import PartClaim
from stream_app.jobs.queue_sql import (
    ABANDONED,
    CLAIM,
    CLAIM_SETTINGS,
    COME,
    FORGET_FILES,
    LOCK_HELD,
    LOOK_UP,
    RECORD_FILES,
    RELEASE_UNREADABLE,
    RENEW,
    SEAL,
    UNADMITTED,
)
from stream_app.jobs.states import UNFINISHED, Status
from stream_app.jobs.submission import (
    PUBLISH_TIMEOUT,
    NewJob,
    SubmitResult,
    request_event_of,
    submit,
    submit_lock,
    submit_within_limit,
)
from streaming_exporter.errors import Retryable
from streaming_exporter.events import Event, ExportRequest, JobError, LifecycleData

log = structlog.get_logger(__name__)

UNREADABLE_KEPT = timedelta(days=7)
"""How long a job waits for a worker of a version that can read it."""

UNREADABLE_ERROR = JobError(
    code="unknown_request",
    message="No worker understood the request within 7 days; operators: a newer version admitted it",
).model_dump()

USERS_PER_CLAIM = 200
"""How many users, and how many of the oldest jobs, one claim reads."""

EARLY_CANCELLATIONS_KEPT = timedelta(days=7)

EARLY_CANCELLATIONS_RACE = timedelta(minutes=10)
"""How long a cancellation and its request can miss each other. Later the request finds the cancellation."""

CANCELLATION_BATCH = 200
"""How many early cancellations one statement reads or deletes."""

MAX_PUBLISH_TIMEOUT = timedelta(minutes=2)
"""Longest time after which the request of an unadmitted job is published again."""


@dataclass(frozen=True, slots=True)
class RecordState:
    """What the table has about a job that is submitted.

    Attributes:
        is_known: the job is on record.
        is_admissible: the job is to be admitted: it is new, or on record and unadmitted.
        is_cancelled: the job was cancelled before its request came.
    """

    is_known: bool
    is_admissible: bool
    is_cancelled: bool


@dataclass(frozen=True, slots=True)
class LockedJob:
    """The columns of a locked row that decide how its job ends.

    ``now`` is the time by the database's clock.
    """

    id: UUID
    user_id: str
    export_type: str
    format: str
    status: str
    attempt: int
    failures: int
    traceparent: str | None
    started_at: datetime | None
    completed_at: datetime | None
    expires_at: datetime | None
    cancel_requested_at: datetime | None
    file_path: str | None
    outcome: dict[str, Any] | None
    now: datetime

    @classmethod
    def of(cls, row: Row[Any]) -> Self:
        """Return the job of a row that has these columns, among others."""
        return cls(**{name: row._mapping[name] for name in cls.__slots__})


class JobQueue:
    """Admits, claims, renews, releases, seals and cancels jobs.

    Every method raises :class:`~streaming_exporter.errors.Retryable` while the database cannot be reached.
    """

    def __init__(self, engine: AsyncEngine, *, lease: timedelta, user_slots: int, max_attempts: int) -> None:
        self.clock = DatabaseClock(engine)
        self._autocommit = autocommitting(engine)
        self.lease = lease
        self.max_attempts = max_attempts
        self._user_slots = user_slots

    def transaction(self, script: str = "") -> AbstractAsyncContextManager[AsyncConnection]:
        """Open a transaction, which can begin with a script: see :func:`stream_app.db.engine.transaction`."""
        return transaction(self._autocommit, script)

    @asynccontextmanager
    async def statement(self) -> AsyncIterator[AsyncConnection]:
        """Open a connection whose every statement is a transaction: one round trip instead of three."""
        with outages_are_retryable():
            async with self._autocommit.connect() as connection:
                yield connection

    def _until(self) -> Any:
        return func.now() + self.lease

    async def submit(self, job: NewJob, *, user_limit: int) -> SubmitResult:
        """Insert an unadmitted job, unless its user has ``user_limit`` unfinished jobs.

        Raises:
            InDoubt: it is not known whether the job was inserted.
            Retryable: the job was not inserted.
        """
        async with self.transaction(submit_lock(job.user_id)) as connection:
            return await submit_within_limit(connection, job, user_limit=user_limit)

    async def look_up(self, jobs: Sequence[NewJob]) -> dict[UUID, RecordState]:
        """Return what the table has about each job. Nothing is changed.

        A value that cannot be stored raises the same error here as when it is inserted.
        """
        if not jobs:
            return {}
        async with self.statement() as connection:
            found = await LOOK_UP.fetch(connection, {"jobs": to_json([job.row() for job in jobs]).decode()})
            return {row.id: RecordState(row.known, row.admissible, row.cancelled) for row in found}

    async def admit(self, jobs: Sequence[NewJob]) -> list[LifecycleData]:
        """Submit admitted jobs in a transaction of their own, in one round trip.

        Returns:
            The ``export.accepted`` data of the jobs that were inserted or admitted.

        Raises:
            Locked: another transaction holds the record of one of the jobs. None was admitted.
        """
        async with self.statement() as connection:
            return await submit(connection, jobs)

    async def take_unadmitted(self, limit: int = 100) -> list[Event]:
        """Return the request events of jobs that were not admitted in time, and set when they are due again.

        The events are built from the rows. A row that a newer version wrote, and this one cannot read, is
        skipped.
        """
        values = {"limit": limit, "shortest": PUBLISH_TIMEOUT, "longest": MAX_PUBLISH_TIMEOUT}
        async with self.statement() as connection:
            rows = (await connection.execute(UNADMITTED, values)).all()
        return list(each_readable(rows, request_event_of))

    async def cancel(
        self, connection: AsyncConnection, job_id: UUID, *, include_sealed: bool = False
    ) -> LifecycleData | None:
        """Cancel a job.

        A pending job is sealed as cancelled. The worker of a running job is notified. The file of a completed
        job expires now. The cancellation of an unknown job, or of one that another transaction holds, is
        stored as an early cancellation, and applied when the job is there.

        Args:
            connection: in a transaction.
            job_id: the job.
            include_sealed: return the outcome of a job that is already sealed as cancelled, too. The API
                seals jobs and leaves the publication to workers.

        Returns:
            The outcome to publish after the commit, or ``None``.
        """
        locked = select(ExportJob.__table__, func.now().label("now")).where(ExportJob.id == job_id)
        row = (await connection.execute(locked.with_for_update(skip_locked=True))).one_or_none()
        if row is None:
            await connection.execute(insert(EarlyCancellation).values(job_id=job_id).on_conflict_do_nothing())
            return None
        found = LockedJob.of(row)
        if found.status == Status.COMPLETED:
            await self._set(connection, job_id, expires_at=found.now)
            return None
        if found.status not in UNFINISHED:
            return None
        asked = found.cancel_requested_at or found.now
        if found.cancel_requested_at is None:
            await self._set(connection, job_id, cancel_requested_at=asked)
        if found.outcome is not None:
            # It has ended, and the outcome is not applied yet. The projector sets the expiry of its file.
            return _sealed_as_cancelled(found) if include_sealed else None
        if found.status == Status.PROCESSING:
            await connection.execute(select(func.pg_notify(WAKE_CHANNEL, str(job_id))))
            return None
        return await self._seal_unheld(connection, found, Status.CANCELLED, completed_at=asked)

    @staticmethod
    async def _set(connection: AsyncConnection, job_id: UUID, **values: Any) -> None:
        await connection.execute(update(ExportJob).where(ExportJob.id == job_id).values(**values))

    async def apply_early_cancellations(self, ids: Sequence[UUID] | None = None) -> list[LifecycleData]:
        """Apply early cancellations whose jobs are on record by now.

        A request and its cancellation that are handled at the same time, in two transactions, do not see each
        other. The transaction that commits last sees both, so both call this after their commit.

        Args:
            ids: the jobs. The default are the newest early cancellations.

        Returns:
            The outcomes to publish.
        """
        is_known = select(true()).where(ExportJob.id == EarlyCancellation.job_id).scalar_subquery()
        newest = (
            select(EarlyCancellation.job_id)
            .where(EarlyCancellation.requested_at > func.now() - EARLY_CANCELLATIONS_RACE)
            .order_by(EarlyCancellation.requested_at.desc())
            .limit(CANCELLATION_BATCH)
        )
        meant = (
            EarlyCancellation.job_id.in_(newest) if ids is None else EarlyCancellation.job_id == _any_of(ids)
        )
        come = and_(meant, is_known)
        async with self.statement() as connection:
            if ids is not None:
                found = await COME.scalar(connection, {"ids": list(ids)})
            else:
                found = await connection.scalar(select(EarlyCancellation.job_id).where(come).limit(1))
            if found is None:
                return []
        statement = delete(EarlyCancellation).where(come).returning(EarlyCancellation.job_id)
        async with self.transaction() as connection:
            settled = sorted(await connection.scalars(statement))
            outcomes = [await self.cancel(connection, job_id) for job_id in settled]
        return [outcome for outcome in outcomes if outcome is not None]

    async def delete_old_cancellations(self) -> None:
        """Delete early cancellations whose request has not come within :data:`EARLY_CANCELLATIONS_KEPT`."""
        old = (
            select(EarlyCancellation.job_id)
            .where(EarlyCancellation.requested_at < func.now() - EARLY_CANCELLATIONS_KEPT)
            .order_by(EarlyCancellation.requested_at)
            .limit(CANCELLATION_BATCH)
            .with_for_update(skip_locked=True)
        )
        async with self.statement() as connection:
            await connection.execute(delete(EarlyCancellation).where(EarlyCancellation.job_id.in_(old)))

    _last_user = ""

    async def claim(
        self,
        worker: str,
        limit: int,
        *,
        with_split: bool = True,
        held_back: Collection[str] = (),
        away: Collection[str] = (),
    ) -> list[Claim]:
        """Claim up to ``limit`` jobs and parts that are pending and due, or whose lease has expired.

        The order is: priority, then the user with the fewest slots in use, then age. A job that has used up
        its attempts is not claimed (see :meth:`seal_exhausted`).

        Args:
            worker: the worker.
            limit: how many.
            with_split: whether to claim jobs with ``split``. Parts are always claimed.
            held_back: datasets whose jobs and parts are not claimed.
            away: datasets whose source does not answer. Their running jobs take no slot of their user.

        Returns:
            The claims. Those of parts are :class:`~stream_app.jobs.part_claim.PartClaim`.
        """
        values = {
            "after": self._last_user,
            "window": USERS_PER_CLAIM,
            "worker": worker,
            "limit": limit,
            "lease": self.lease,
            "user_slots": self._user_slots,
            "max_attempts": self.max_attempts,
            "with_split": with_split,
            "held_back": list(held_back),
            "away": list(away),
        }
        async with self.transaction(CLAIM_SETTINGS) as connection:
            rows = await CLAIM.fetch(connection, values)
        self._last_user = rows[0].after
        claims, unknown = [], []
        for row in rows:
            if row.id is not None:
                try:
                    claims.append(_claim_of(row, worker) if row.part is None else _part_claim_of(row, worker))
                except Exception as error:  # a newer version wrote it; other jobs are claimed as well
                    log.warning("job.request_unreadable", job_id=str(row.id), error=str(error))
                    if row.part is None:  # the lease of a part expires, and another worker claims it
                        unknown.append(row.id)
        if unknown:
            await self._release_unreadable(worker, unknown)
        return claims

    async def _release_unreadable(self, worker: str, ids: Sequence[UUID]) -> None:
        """Release jobs that this version cannot read, without a failure. After some days they fail."""
        error = to_json(UNREADABLE_ERROR).decode()
        values = {"worker": worker, "ids": list(ids), "kept_for": UNREADABLE_KEPT, "error": error}
        try:
            async with self.statement() as connection:
                await connection.execute(RELEASE_UNREADABLE, values)
        except Retryable as error:  # their leases will expire. The other claimed jobs must run
            log.warning("job.release_failed", jobs=len(ids), error=str(error))

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

        A job that is to be cancelled is left as an abandoned job, which :meth:`seal_exhausted` cancels.

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

    async def seal(self, claim: Claim, outcome: LifecycleData) -> bool:
        """Store the outcome of the job on its row, before the outcome is published.

        A sealed job cannot be claimed. If its event is not published, :meth:`take_unpublished` returns the
        outcome again.

        Returns:
            Whether the lease was still held. A repeated call returns the same.
        """
        sealed = outcome.model_dump(mode="json", exclude_none=True)
        values = {
            "id": claim.job_id,
            "attempt": claim.attempt,
            "worker": claim.worker,
            "outcome": to_json(sealed).decode(),
            "lease": self.lease,
        }
        async with self.statement() as connection:
            if await SEAL.scalar(connection, values) is not None:
                return True
            # A rescuer can have published it before this repeated call. The whole outcome is
            # compared: an attempt of the same number can have ended the job otherwise, see ObjectStore.key.
            applied = and_(
                ExportJob.outcome.is_(None),
                ExportJob.status == outcome.status,
                ExportJob.file_path.is_not_distinct_from(outcome.key),
                ExportJob.completed_at.is_not_distinct_from(outcome.completed_at),
            )
            own = and_(
                ExportJob.id == claim.job_id,
                ExportJob.attempt == claim.attempt,
                or_(ExportJob.outcome == sealed, applied),
            )
            return await connection.scalar(select(ExportJob.id).where(own)) is not None

    @staticmethod
    async def lock_held(connection: AsyncConnection, claim: Claim) -> bool:
        """Lock the job in a transaction if its lease is still held; return whether it is."""
        own = {"id": claim.job_id, "attempt": claim.attempt, "worker": claim.worker}
        return await connection.scalar(LOCK_HELD, own) is not None

    async def record_files(self, claim: Claim, result: ExportResult) -> None:
        """Store the list of the several files that an attempt has written, before its outcome is sealed.

        A repeated call changes nothing. Only the files of the attempt that completes the job count. An
        attempt that has lost its lease stores nothing.
        """
        files = to_json([asdict(file) for file in result.files]).decode()
        which = {"id": claim.job_id, "attempt": claim.attempt}
        async with self.transaction() as connection:
            if not await self.lock_held(connection, claim):
                return
            await connection.execute(FORGET_FILES, which)
            values = which | {"result": result.key, "bucket": result.bucket, "files": files}
            await connection.execute(RECORD_FILES, values)

    async def completed_attempt(self, job_id: UUID) -> int | None:
        """Return the first attempt whose files a completed job needs; ``None`` if the job is not completed.

        The job can be completed by an outcome that is only sealed. Its files are those of the attempt that
        completed it, and also those of all earlier ones if their parts were kept.
        """
        completed = or_(
            ExportJob.status == Status.COMPLETED, ExportJob.outcome["status"].as_string() == Status.COMPLETED
        )
        needed = case((ExportJob.consistency == "part", 0), else_=ExportJob.attempt)
        async with self.statement() as connection:
            return await connection.scalar(select(needed).where(ExportJob.id == job_id, completed))

    async def seal_exhausted(self) -> list[LifecycleData]:
        """Seal abandoned jobs (their lease has expired) that must not be tried again; return the outcomes.

        These are jobs that were cancelled, and jobs that have used up their attempts.
        """
        async with self.transaction() as connection:
            rows = (await connection.execute(ABANDONED, {"max_attempts": self.max_attempts})).all()
            return await self._seal_each(connection, rows, self._seal_abandoned)

    async def _seal_abandoned(self, connection: AsyncConnection, job: LockedJob) -> LifecycleData:
        known = {"started_at": job.started_at, "completed_at": job.now}
        if job.cancel_requested_at is not None:
            return await self._seal_unheld(connection, job, Status.CANCELLED, **known)
        error = JobError(
            code="worker_lost",
            message=f"The export was interrupted {job.failures + 1} times and is not tried again; "
            "request it anew, with fewer rows if it is very large",
        )
        return await self._seal_unheld(connection, job, Status.FAILED, error=error, **known)

    async def _seal_unheld(
        self, connection: AsyncConnection, job: LockedJob, status: Status, **known: Any
    ) -> LifecycleData:
        """Seal a job that no attempt holds and that this transaction has locked; return the outcome."""
        outcome = LifecycleData(
            job_id=job.id,
            user_id=job.user_id,
            export_type=job.export_type,
            format=job.format,
            attempt=job.attempt,
            status=status,
            traceparent=job.traceparent,
            **known,
        )
        await connection.execute(
            update(ExportJob)
            .where(ExportJob.id == job.id)
            .values(outcome=outcome.model_dump(mode="json", exclude_none=True), lease_until=self._until())
        )
        return outcome

    async def seal_expired(self, limit: int = 100) -> list[LifecycleData]:
        """Seal completed jobs whose file has expired.

        Return the outcomes. Remove the files before publishing them.
        """
        async with self.transaction() as connection:
            rows = await connection.execute(
                select(ExportJob.__table__, func.now().label("now"))
                .where(
                    ExportJob.status == Status.COMPLETED,
                    ExportJob.outcome.is_(None),
                    ExportJob.expires_at < func.now(),
                )
                .limit(limit)
                .with_for_update(skip_locked=True)
            )
            return await self._seal_each(connection, rows.all(), self._seal_expired)

    async def _seal_expired(self, connection: AsyncConnection, job: LockedJob) -> LifecycleData:
        times = {"completed_at": job.completed_at, "expires_at": job.expires_at}
        return await self._seal_unheld(connection, job, Status.EXPIRED, key=job.file_path, **times)

    @staticmethod
    async def _seal_each(
        connection: AsyncConnection,
        rows: Sequence[Row[Any]],
        seal: Callable[[AsyncConnection, LockedJob], Awaitable[LifecycleData]],
    ) -> list[LifecycleData]:
        """Seal row by row. A row of which no outcome can be made is logged and skipped."""
        sealed = []
        for row in rows:
            try:
                sealed.append(await seal(connection, LockedJob.of(row)))
            except ValidationError as error:
                log.warning("job.seal_failed", job_id=str(row.id), error=str(error))
        return sealed

    async def take_unpublished(self, limit: int = 100) -> list[LifecycleData]:
        """Return outcomes that were sealed a lease ago and are not applied yet, to publish them again.

        Expired jobs come last: files that cannot be removed must not delay other outcomes.
        """
        waiting = (
            select(ExportJob.id)
            .where(ExportJob.outcome.is_not(None), ExportJob.lease_until < func.now())
            .order_by(ExportJob.outcome["status"].as_string() == Status.EXPIRED)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        statement = (
            update(ExportJob)
            .where(ExportJob.id.in_(waiting))
            .values(lease_until=self._until())
            .returning(ExportJob.id, ExportJob.outcome, ExportJob.traceparent)
        )
        async with self.statement() as connection:
            rows = (await connection.execute(statement)).all()
        return list(each_readable(rows, sealed_outcome))


def _claim_of(row: Record, worker: str) -> Claim:
    """Return the claim of a claimed row.

    Raises:
        Rejected: this version cannot read the request.
    """
    return Claim(
        job_id=row.id,
        attempt=row.attempt,
        worker=worker,
        failures=row.failures,
        request=ExportRequest.parse(dict(row) | {"priority": None}),
        started_at=row.started_at,
        traceparent=row.traceparent,
        requested_at=row.created_at,
        window=row.window,
    )


def _part_claim_of(row: Record, worker: str) -> PartClaim:
    """Return the claim of a claimed part.

    Raises:
        Rejected: this version cannot read the request.
    """
    part = row.part
    return PartClaim(
        job_id=row.id,
        attempt=part["attempt"],
        worker=worker,
        failures=part["failures"],
        request=ExportRequest.parse(dict(row) | {"priority": None}),
        started_at=row.now,
        traceparent=row.traceparent,
        requested_at=row.created_at,
        window=row.window,
        number=part["number"],
        part_attempt=part["part_attempt"],
        range=part["range"],
        folder=part["folder"],
        snapshot=part["snapshot"],
        as_of=part["as_of"] and datetime.fromisoformat(part["as_of"]),
    )


def sealed_outcome(row: Any) -> LifecycleData:
    """Return the sealed outcome of a row, in the job's trace.

    Raises:
        pydantic.ValidationError: another version sealed it, and this one cannot read it.
    """
    return LifecycleData.model_validate(row.outcome | {"traceparent": row.traceparent})


def _sealed_as_cancelled(job: LockedJob) -> LifecycleData | None:
    if job.outcome is None or job.outcome.get("status") != Status.CANCELLED:
        return None
    return sealed_outcome(job)


def _any_of(ids: Collection[UUID]) -> Any:
    return any_(literal(list(ids), ARRAY(Uuid)))
