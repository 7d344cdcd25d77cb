"""Inserts and admits jobs. A job can be claimed once it is admitted: once its request came over Kafka."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from pydantic_core import to_json

from stream_app.db.engine import Connections, autocommit_connection, transaction
from stream_app.db.rows import each_readable
from stream_app.jobs.admission_claim import ADMISSION_CLAIM_SETTINGS, admit_and_claim
from stream_app.jobs.claim import Claim
from stream_app.jobs.claim_reader import ClaimReader
from stream_app.jobs.new_job import COLUMNS, PUBLISH_TIMEOUT, NewJob, request_event_of
from stream_app.jobs.queue_sql import LOOK_UP, UNADMITTED
from stream_app.jobs.states import Status
from stream_app.jobs.submission import (
    SubmitResult,
    accepted_data_of_row,
    submit,
    submit_lock_sql,
    submit_within_limit,
)
from streaming_exporter.events import Event, LifecycleData

_ADMIT_AND_CLAIM = admit_and_claim(COLUMNS)


MAX_PUBLISH_TIMEOUT = timedelta(minutes=2)
"""Longest time after which the request of an unadmitted job is published again."""

MAX_UNADMITTED_BYTES = 4 * 1024 * 1024
"""Bytes of unadmitted jobs that are read together: one row can have almost 1 MB."""


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
class AdmittedJob:
    """The result of :meth:`Admission.admit_and_claim`.

    Attributes:
        accepted: the ``export.accepted`` data of the job; empty if it was admitted before.
        claims: its claim; empty if it was not claimed.
    """

    accepted: list[LifecycleData]
    claims: list[Claim]


class Admission:
    """Inserts and admits jobs.

    Every method raises :class:`~streaming_exporter.errors.Retryable` while the database is unavailable.
    """

    def __init__(
        self, connections: Connections, claims: ClaimReader, *, lease: timedelta, user_slots: int
    ) -> None:
        """Create the admission. Its statements use ``connections``; ``claims`` reads what was claimed."""
        self._connections = connections
        self._claims = claims
        self._lease = lease
        self._user_slots = user_slots

    async def submit(self, job: NewJob, *, user_limit: int) -> SubmitResult:
        """Insert an unadmitted job, unless its user has ``user_limit`` unfinished jobs.

        Raises:
            InDoubt: it is not known whether the job was inserted.
            Retryable: the job was not inserted.
        """
        async with transaction(self._connections, submit_lock_sql(job.user_id)) as connection:
            return await submit_within_limit(connection, job, user_limit=user_limit)

    async def look_up(self, jobs: Sequence[NewJob]) -> dict[UUID, RecordState]:
        """Return what the table has about each job. Nothing is changed.

        A value that cannot be stored raises the same error here as when it is inserted.
        """
        if not jobs:
            return {}
        async with autocommit_connection(self._connections) as connection:
            found = await LOOK_UP.fetch(connection, {"jobs": to_json([job.row() for job in jobs]).decode()})
            return {row.id: RecordState(row.known, row.admissible, row.cancelled) for row in found}

    async def admit(self, jobs: Sequence[NewJob]) -> list[LifecycleData]:
        """Submit admitted jobs in a transaction of their own, in one round trip.

        Returns:
            The ``export.accepted`` data of the jobs that were inserted or admitted.

        Raises:
            Locked: another transaction holds the record of one of the jobs. None was admitted.
        """
        async with autocommit_connection(self._connections) as connection:
            return await submit(connection, jobs)

    async def admit_and_claim(self, worker: str, job: NewJob) -> AdmittedJob:
        """Submit one admitted job, and claim it in the same step if a claim would take it now.

        It must be due, without ``split`` and without an outcome. What waits or runs decides, exactly as in
        :meth:`.JobQueue.claim`. A job that is not claimed is pending, as after :meth:`admit`.

        Raises:
            Locked: another transaction holds the record of the job. It was not admitted.
        """
        values = {
            "jobs": to_json([job.row()]).decode(),
            "id": job.id,
            "user_id": job.user_id,
            "user_slots": self._user_slots,
            "worker": worker,
            "lease": self._lease,
        }
        async with transaction(self._connections, ADMISSION_CLAIM_SETTINGS) as connection:
            rows = await _ADMIT_AND_CLAIM.fetch(connection, values)
        claims = await self._claims.read(worker, [row for row in rows if row.status == Status.PROCESSING])
        return AdmittedJob([accepted_data_of_row(row) for row in rows], claims)

    async def take_unadmitted(self, limit: int = 100, max_bytes: int = MAX_UNADMITTED_BYTES) -> list[Event]:
        """Return the request events of jobs that were not admitted in time, and set when they are due again.

        The events are built from the rows. A row that a newer version wrote, and this one cannot read, is
        skipped.

        Args:
            limit: how many events.
            max_bytes: how many bytes of rows. The row that reaches this number is the last one.
        """
        values = {
            "limit": limit,
            "bytes": max_bytes,
            "shortest": PUBLISH_TIMEOUT,
            "longest": MAX_PUBLISH_TIMEOUT,
        }
        async with autocommit_connection(self._connections) as connection:
            rows = (await connection.execute(UNADMITTED, values)).all()
        return list(each_readable(rows, request_event_of))
