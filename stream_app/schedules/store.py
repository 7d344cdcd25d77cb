"""Reads and writes schedules for their owners, and the jobs of a schedule.

Every method raises :class:`~streaming_exporter.errors.Retryable` while the database is unavailable.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, delete, func, insert, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from stream_app.db.engine import autocommit_connection, autocommitting, transaction
from stream_app.jobs.models import ExportJob
from stream_app.jobs.states import UNFINISHED, Status
from stream_app.jobs.submission import submit_lock_sql
from stream_app.schedules.models import Schedule, ScheduledExport, ScheduleGap

SCHEDULES = ScheduledExport.__table__

Position = tuple[datetime, UUID]
"""The last item of a page: created at, and id."""


class ScheduleStore:
    """Reads and writes ``scheduled_exports``."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._autocommit = autocommitting(engine)

    def transaction(self, script: str = "") -> AbstractAsyncContextManager[AsyncConnection]:
        """Open a transaction, which can begin with a script: see :func:`stream_app.db.engine.transaction`."""
        return transaction(self._autocommit, script)

    async def create(
        self, values: dict[str, Any], *, limit: int | None = None
    ) -> tuple[Schedule, bool] | None:
        """Insert a schedule; return its row, or ``None`` if its user already has ``limit`` schedules.

        If the user has a schedule with this id, its row is returned as it is, and the second value is false.

        Raises:
            InDoubt: it is not known whether the schedule was inserted.
        """
        async with self.transaction(submit_lock_sql(values["user_id"])) as connection:
            known = await self._find(connection, select(SCHEDULES), values["id"], values["user_id"])
            if known is not None:
                return known, False
            if limit is not None and await self._count(connection, values["user_id"]) >= limit:
                return None
            statement = insert(ScheduledExport).values(values).returning(SCHEDULES)
            return Schedule(**(await connection.execute(statement)).one()._mapping), True

    async def get(self, schedule_id: UUID, *, user_id: str | None) -> Schedule | None:
        """Return the schedule, or ``None`` if there is none, or it belongs to another user."""
        async with autocommit_connection(self._autocommit) as connection:
            return await self._find(connection, select(SCHEDULES), schedule_id, user_id)

    async def lock(
        self, connection: AsyncConnection, schedule_id: UUID, *, user_id: str | None
    ) -> Schedule | None:
        """Return the schedule as :meth:`get` does, locked until the transaction ends."""
        return await self._find(connection, select(SCHEDULES).with_for_update(), schedule_id, user_id)

    async def update(
        self, connection: AsyncConnection, schedule_id: UUID, values: dict[str, Any]
    ) -> Schedule:
        """Change a schedule that is locked; return its row."""
        statement = update(ScheduledExport).where(ScheduledExport.id == schedule_id).values(values)
        return Schedule(**(await connection.execute(statement.returning(SCHEDULES))).one()._mapping)

    async def delete(self, schedule_id: UUID, *, user_id: str | None) -> bool:
        """Remove the schedule; its jobs stay. Return whether it existed and belonged to ``user_id``."""
        statement = delete(ScheduledExport).where(ScheduledExport.id == schedule_id)
        if user_id is not None:
            statement = statement.where(ScheduledExport.user_id == user_id)
        async with self.transaction() as connection:
            found = await connection.execute(statement.returning(ScheduledExport.id))
            gone = found.one_or_none() is not None
            if gone:
                await self.delete_gaps(connection, schedule_id)
            return gone

    @staticmethod
    async def delete_gaps(connection: AsyncConnection, schedule_id: UUID) -> None:
        """Remove all gaps of a schedule."""
        await connection.execute(delete(ScheduleGap).where(ScheduleGap.schedule_id == schedule_id))

    @staticmethod
    async def end_gaps(connection: AsyncConnection, schedule_id: UUID, at: datetime) -> None:
        """Remove from the gaps of a schedule what lies behind ``at``, where its next window begins."""
        of_schedule = ScheduleGap.schedule_id == schedule_id
        await connection.execute(delete(ScheduleGap).where(of_schedule, ScheduleGap.window_start >= at))
        cut = update(ScheduleGap).where(of_schedule, ScheduleGap.window_end > at)
        await connection.execute(cut.values(window_end=at))

    @staticmethod
    async def move_gaps(
        connection: AsyncConnection, schedule_id: UUID, moved: Callable[[datetime], datetime]
    ) -> None:
        """Move the limits of the gaps of a schedule. Gaps that are empty then are removed."""
        removed = delete(ScheduleGap).where(ScheduleGap.schedule_id == schedule_id)
        gaps = (await connection.execute(removed.returning(ScheduleGap.__table__))).all()
        rows = [
            {
                "id": gap.id,
                "schedule_id": gap.schedule_id,
                "window_start": moved(gap.window_start),
                "window_end": moved(gap.window_end),
            }
            for gap in gaps
        ]
        if rows := [row for row in rows if row["window_start"] < row["window_end"]]:
            await connection.execute(insert(ScheduleGap), rows)

    @staticmethod
    async def first_gap(connection: AsyncConnection, schedule_id: UUID) -> datetime | None:
        """Return where the first gap of a schedule begins."""
        statement = select(func.min(ScheduleGap.window_start))
        return await connection.scalar(statement.where(ScheduleGap.schedule_id == schedule_id))

    @staticmethod
    async def has_unfinished_windows(connection: AsyncConnection, schedule_id: UUID) -> bool:
        """Return whether a run of the schedule that has a window has not ended."""
        statement = select(ExportJob.id).where(
            ExportJob.schedule_id == schedule_id,
            ExportJob.status.in_(UNFINISHED),
            ExportJob.window.is_not(None),
        )
        return await connection.scalar(statement.limit(1)) is not None

    @staticmethod
    async def planned_runs(connection: AsyncConnection, schedule_id: UUID) -> Sequence[Row[Any]]:
        """Return the runs that are on record and whose time to start has not come: what they can export."""
        statement = select(ExportJob.id, ExportJob.scope, ExportJob.claims, ExportJob.destination).where(
            ExportJob.schedule_id == schedule_id,
            ExportJob.status == Status.PENDING,
            ExportJob.attempt == 0,
            ExportJob.outcome.is_(None),
            ExportJob.not_before > func.now(),
        )
        return (await connection.execute(statement)).all()

    async def list_newest(
        self, user_id: str | None, *, active: bool | None = None, before: Position | None = None, limit: int
    ) -> list[Schedule]:
        """Return up to ``limit`` schedules of the user (``None``: of all users), newest first."""
        statement = select(SCHEDULES)
        if user_id is not None:
            statement = statement.where(ScheduledExport.user_id == user_id)
        if active is not None:
            statement = statement.where(ScheduledExport.active == active)
        rows = await self._page(statement, ScheduledExport, before, limit)
        return [Schedule(**row._mapping) for row in rows]

    async def runs(
        self, schedule_id: UUID, *, before: Position | None = None, limit: int
    ) -> Sequence[Row[Any]]:
        """Return up to ``limit`` jobs of the schedule, newest first, as rows of ``ExportJob``."""
        statement = select(ExportJob.__table__).where(ExportJob.schedule_id == schedule_id)
        return await self._page(statement, ExportJob, before, limit)

    @staticmethod
    async def _count(connection: AsyncConnection, user_id: str) -> int:
        statement = select(func.count()).where(ScheduledExport.user_id == user_id)
        return await connection.scalar(statement) or 0

    @staticmethod
    async def _find(
        connection: AsyncConnection, statement: Any, schedule_id: UUID, user_id: str | None
    ) -> Schedule | None:
        statement = statement.where(ScheduledExport.id == schedule_id)
        if user_id is not None:
            statement = statement.where(ScheduledExport.user_id == user_id)
        row = (await connection.execute(statement)).one_or_none()
        return None if row is None else Schedule(**row._mapping)

    async def _page(
        self, statement: Any, table: type[ScheduledExport | ExportJob], before: Position | None, limit: int
    ) -> Sequence[Row[Any]]:
        if before is not None:
            statement = statement.where(tuple_(table.created_at, table.id) < tuple_(*before))
        statement = statement.order_by(table.created_at.desc(), table.id.desc()).limit(limit)
        async with autocommit_connection(self._autocommit) as connection:
            return (await connection.execute(statement)).all()
