"""What producers ask of jobs: that there is one, that it ends."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from hashlib import blake2b
from typing import Any
from uuid import UUID

from pydantic_core import to_json
from sqlalchemy import ARRAY, Row, Uuid, and_, any_, delete, func, literal, select, true, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from stream_app.events import Event, LifecycleData
from stream_app.jobs.admission import PUBLISHING, request_of
from stream_app.jobs.models import EarlyCancellation, ExportJob
from stream_app.jobs.outcomes import Outcomes, sealed_outcome
from stream_app.jobs.rows import each_readable
from stream_app.jobs.sql import ADMITTED, ORDERS, PROBE, UNADMITTED, admit, place
from stream_app.jobs.states import UNFINISHED, Status
from stream_app.jobs.transactions import WAKE_CHANNEL

EARLY_CANCELLATIONS_KEPT = timedelta(days=7)
EARLY_CANCELLATIONS_RACE = timedelta(minutes=10)
"""For how long a cancellation and its request can have missed each other; later the request finds it."""

AT_ONCE = 200
"""Early cancellations that are looked at, or dropped, in one go: however many are garbage."""
LONGEST_PUBLISHING = timedelta(minutes=2)
"""How long a request that is not admitted may wait to be published once more."""


class Placed(Enum):
    """What became of an order."""

    NEW = "new"
    KNOWN = "known"
    TOO_MANY = "too_many"


@dataclass(frozen=True, slots=True)
class Known:
    """What the record says about a job that is asked for.

    ``admissible``: it is to be admitted, being new or only placed. ``cancelled``: it was cancelled before.
    """

    known: bool
    admissible: bool
    cancelled: bool


class Requests(Outcomes):
    """Admit and cancel."""

    async def admit(self, connection: AsyncConnection, rows: Sequence[dict[str, Any]]) -> list[LifecycleData]:
        """Insert jobs, or mark those that the API inserted as admitted; what is known already is left alone.

        Returns the newly admitted ones' ``export.accepted`` data. Idle workers are woken on commit.
        """
        if not rows:
            return []
        admitted = await connection.execute(admit(rows[0]), {"rows": to_json(rows).decode()})
        return [
            LifecycleData(
                job_id=row.id,
                user_id=row.user_id,
                export_type=row.export_type,
                format=row.format,
                status=Status.PENDING,
                traceparent=row.traceparent,
            )
            for row in admitted
        ]

    async def probe(self, rows: Sequence[dict[str, Any]]) -> dict[UUID, Known]:
        """What is on record of the jobs that ``rows`` are to become; it changes nothing.

        A value that cannot be stored raises here what it would raise when it is inserted.
        """
        if not rows:
            return {}
        async with self.statement() as connection:
            found = await connection.execute(PROBE, {"rows": to_json(rows).decode()})
            return {row.id: Known(row.known, row.admissible, row.cancelled) for row in found}

    async def admit_alone(self, rows: Sequence[dict[str, Any]]) -> list[LifecycleData]:
        """:meth:`admit` as a transaction of its own, in one round trip.

        Raises:
            Locked: another transaction holds a row; none was admitted.
        """
        async with self.statement() as connection:
            return await self.admit(connection, rows)

    async def place(self, row: dict[str, Any], *, limit: int) -> Placed:
        """Insert the job of an order, unadmitted, unless its user has ``limit`` unfinished jobs.

        Raises:
            InDoubt: whether it was inserted is not known.
            Retryable: it was not.
        """
        async with self.transaction(lock_orders(row["user_id"])) as connection:
            return await self.place_within(connection, row, limit=limit)

    async def place_within(self, connection: AsyncConnection, row: dict[str, Any], *, limit: int) -> Placed:
        """:meth:`place` in a transaction that holds the lock of :func:`lock_orders`."""
        values = {
            "rows": to_json([row]).decode(), "id": row["id"], "user_id": row["user_id"], "limit": limit,
        }  # fmt: skip
        found = (await connection.execute(place(row), values)).one()
        if found.placed:
            return Placed.NEW
        return Placed.KNOWN if found.known else Placed.TOO_MANY

    async def mark_admitted(self, ids: Sequence[UUID]) -> None:
        """Let jobs be claimed; called once Kafka has their ``export.accepted``."""
        if ids:
            async with self.statement() as connection:
                await connection.execute(ADMITTED, {"ids": list(ids)})

    async def unadmitted(self, limit: int = 100) -> list[Event]:
        """Request events, from their rows, of jobs that were not admitted in time; due again after a while.

        A row that this version cannot make an event of is left to a newer one.
        """
        values = {"limit": limit, "shortest": PUBLISHING, "longest": LONGEST_PUBLISHING}
        async with self.statement() as connection:
            rows = (await connection.execute(UNADMITTED, values)).all()
        return list(each_readable(rows, request_of))

    async def cancel(
        self, connection: AsyncConnection, job_id: UUID, *, again: bool = False
    ) -> LifecycleData | None:
        """Ask for ``job_id`` to end; a cancellation of an unknown job is remembered for when it comes.

        A pending job is sealed as cancelled and its event's data returned for publication after the
        commit; the worker of a running one is notified. A completed one's file expires now. A job that
        another transaction holds is not waited for: its cancellation is remembered too.
        ``again``: the data of one that is sealed as cancelled already is returned as well, as the API seals
        jobs and leaves it to workers to say so.
        """
        locked = select(ExportJob.__table__, func.now().label("now")).where(ExportJob.id == job_id)
        found = (await connection.execute(locked.with_for_update(skip_locked=True))).one_or_none()
        if found is None:
            await connection.execute(insert(EarlyCancellation).values(job_id=job_id).on_conflict_do_nothing())
            return None
        if found.status == Status.COMPLETED:
            await self._set(connection, job_id, expires_at=found.now)
            return None
        if found.status not in UNFINISHED:
            return None
        asked = found.cancel_requested_at or found.now
        if found.cancel_requested_at is None:
            await self._set(connection, job_id, cancel_requested_at=asked)
        if found.outcome is not None:
            # It has ended, only not on record yet; the projection lets its file expire.
            return _sealed_as_cancelled(found) if again else None
        if found.status == Status.PROCESSING:
            await connection.execute(select(func.pg_notify(WAKE_CHANNEL, str(job_id))))
            return None
        return await self._seal_unheld(connection, found, Status.CANCELLED, completed_at=asked)

    @staticmethod
    async def _set(connection: AsyncConnection, job_id: UUID, **values: Any) -> None:
        await connection.execute(update(ExportJob).where(ExportJob.id == job_id).values(**values))

    async def settle_cancellations(self, ids: Sequence[UUID] | None = None) -> list[LifecycleData]:
        """Carry out early cancellations, of ``ids`` or the newest, whose jobs have come.

        Returns the outcomes, which are to be published.

        A request and its cancellation that are dealt with at the same time, in two transactions, do not see
        each other. Whoever commits last does: so this is called after the commit by both.
        """
        is_known = select(true()).where(ExportJob.id == EarlyCancellation.job_id).scalar_subquery()
        newest = (
            select(EarlyCancellation.job_id)
            .where(EarlyCancellation.requested_at > func.now() - EARLY_CANCELLATIONS_RACE)
            .order_by(EarlyCancellation.requested_at.desc())
            .limit(AT_ONCE)
        )
        meant = (
            EarlyCancellation.job_id.in_(newest) if ids is None else EarlyCancellation.job_id == _any_of(ids)
        )
        come = and_(meant, is_known)
        async with self.statement() as connection:
            if await connection.scalar(select(EarlyCancellation.job_id).where(come).limit(1)) is None:
                return []
        statement = delete(EarlyCancellation).where(come).returning(EarlyCancellation.job_id)
        async with self.transaction() as connection:
            settled = sorted(await connection.scalars(statement))
            outcomes = [await self.cancel(connection, job_id) for job_id in settled]
        return [outcome for outcome in outcomes if outcome is not None]

    async def forget_cancellations(self) -> None:
        """Drop the oldest early cancellations: no request has come in :data:`EARLY_CANCELLATIONS_KEPT`."""
        old = (
            select(EarlyCancellation.job_id)
            .where(EarlyCancellation.requested_at < func.now() - EARLY_CANCELLATIONS_KEPT)
            .order_by(EarlyCancellation.requested_at)
            .limit(AT_ONCE)
            .with_for_update(skip_locked=True)
        )
        async with self.statement() as connection:
            await connection.execute(delete(EarlyCancellation).where(EarlyCancellation.job_id.in_(old)))


def lock_orders(user_id: str) -> str:
    """The beginning of a transaction in which the user's unfinished jobs are counted: one after the other."""
    number = int.from_bytes(
        blake2b(user_id.encode("utf-8", "surrogatepass"), digest_size=4).digest(), signed=True
    )
    return f"SELECT pg_advisory_xact_lock({ORDERS}, {number});"


def _sealed_as_cancelled(row: Row[Any]) -> LifecycleData | None:
    if row.outcome.get("status") != Status.CANCELLED:
        return None
    return sealed_outcome(row)


def _any_of(ids: Collection[UUID]) -> Any:
    return any_(literal(list(ids), ARRAY(Uuid)))
