"""The schedules' table: who is due, what is next, and what their owners change.

Every method raises :class:`~stream_app.errors.Retryable` while the database cannot be reached.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic_core import to_json
from sqlalchemy import Row, delete, func, insert, select, text, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from stream_app.jobs.database import outages_are_retryable
from stream_app.jobs.models import ExportJob
from stream_app.schedules.models import ScheduledExport

SCHEDULES = ScheduledExport.__table__

# One parameter for the whole batch, as with the jobs that go with it.
_ADVANCE = text(
    """
    UPDATE scheduled_exports AS schedule
    SET last_run = coalesce(run.last_run, schedule.last_run), next_run = run.next_run,
        window_start = run.window_start
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS run (
        id uuid, last_run timestamptz, next_run timestamptz, window_start timestamptz
    )
    WHERE schedule.id = run.id
    """
)

Position = tuple[datetime, UUID]
"""Created at, id: where a page ends."""


class ScheduleStore:
    """All statements about ``scheduled_exports``; its rows have the attributes of ``ScheduledExport``."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that the caller can extend over a publication."""
        with outages_are_retryable():
            async with self._engine.begin() as connection:
                yield connection

    # --- ticks ---------------------------------------------------------------------------------

    async def due(self, connection: AsyncConnection, until: datetime, limit: int) -> Sequence[Row[Any]]:
        """Lock up to ``limit`` schedules that are due, the longest due first; what others hold is skipped."""
        statement = (
            select(SCHEDULES)
            .where(ScheduledExport.active, ScheduledExport.next_run <= until)
            .order_by(ScheduledExport.next_run)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        return (await connection.execute(statement)).all()

    async def advance(self, connection: AsyncConnection, rows: Sequence[dict[str, Any]]) -> None:
        """Write ``next_run``, ``window_start`` and, unless it is ``None``, ``last_run`` of each ``id``."""
        await connection.execute(_ADVANCE, {"rows": to_json(rows).decode()})

    # --- owners --------------------------------------------------------------------------------

    async def create(self, values: dict[str, Any]) -> Row[Any]:
        """Insert a schedule; returns its row."""
        async with self.transaction() as connection:
            row: Row[Any] = (
                await connection.execute(insert(ScheduledExport).values(values).returning(SCHEDULES))
            ).one()
            return row

    async def get(self, schedule_id: UUID, *, user_id: str | None) -> Row[Any] | None:
        """The schedule, or ``None`` if there is none or it is not ``user_id``'s."""
        async with self.transaction() as connection:
            return await self._find(connection, select(SCHEDULES), schedule_id, user_id)

    async def lock(
        self, connection: AsyncConnection, schedule_id: UUID, *, user_id: str | None
    ) -> Row[Any] | None:
        """The schedule as :meth:`get` finds it, and nobody else changes it before the transaction ends."""
        return await self._find(connection, select(SCHEDULES).with_for_update(), schedule_id, user_id)

    async def update(
        self, connection: AsyncConnection, schedule_id: UUID, values: dict[str, Any]
    ) -> Row[Any]:
        """Change a schedule that is locked; returns its row."""
        statement = update(ScheduledExport).where(ScheduledExport.id == schedule_id).values(values)
        row: Row[Any] = (await connection.execute(statement.returning(SCHEDULES))).one()
        return row

    async def delete(self, schedule_id: UUID, *, user_id: str | None) -> bool:
        """Remove the schedule; its jobs stay. Returns whether it was there and ``user_id``'s."""
        statement = delete(ScheduledExport).where(ScheduledExport.id == schedule_id)
        if user_id is not None:
            statement = statement.where(ScheduledExport.user_id == user_id)
        async with self.transaction() as connection:
            found = await connection.execute(statement.returning(ScheduledExport.id))
            return found.one_or_none() is not None

    async def newest(
        self, user_id: str | None, *, active: bool | None = None, before: Position | None = None, limit: int
    ) -> Sequence[Row[Any]]:
        """Up to ``limit`` of the user's (or everybody's) schedules, newest first, older than ``before``."""
        statement = select(SCHEDULES)
        if user_id is not None:
            statement = statement.where(ScheduledExport.user_id == user_id)
        if active is not None:
            statement = statement.where(ScheduledExport.active == active)
        return await self._page(statement, ScheduledExport, before, limit)

    async def runs(
        self, schedule_id: UUID, *, before: Position | None = None, limit: int
    ) -> Sequence[Row[Any]]:
        """Up to ``limit`` of the schedule's jobs, newest first: rows with the attributes of ``ExportJob``."""
        statement = select(ExportJob.__table__).where(ExportJob.schedule_id == schedule_id)
        return await self._page(statement, ExportJob, before, limit)

    async def count(self, user_id: str) -> int:
        """How many schedules the user has."""
        statement = select(func.count()).where(ScheduledExport.user_id == user_id)
        async with self.transaction() as connection:
            return await connection.scalar(statement) or 0

    @staticmethod
    async def _find(
        connection: AsyncConnection, statement: Any, schedule_id: UUID, user_id: str | None
    ) -> Row[Any] | None:
        statement = statement.where(ScheduledExport.id == schedule_id)
        if user_id is not None:
            statement = statement.where(ScheduledExport.user_id == user_id)
        return (await connection.execute(statement)).one_or_none()

    async def _page(
        self, statement: Any, table: type[ScheduledExport | ExportJob], before: Position | None, limit: int
    ) -> Sequence[Row[Any]]:
        if before is not None:
            statement = statement.where(tuple_(table.created_at, table.id) < tuple_(*before))
        statement = statement.order_by(table.created_at.desc(), table.id.desc()).limit(limit)
        async with self.transaction() as connection:
            return (await connection.execute(statement)).all()
