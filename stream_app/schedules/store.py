"""Reads and writes the table of schedules.

Every method raises :class:`~streaming_exporter.errors.Retryable` while the database cannot be reached.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic_core import to_json
from sqlalchemy import ColumnElement, Row, delete, func, insert, literal_column, select, text, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from stream_app.db.engine import autocommitting, outages_are_retryable, transaction
from stream_app.jobs.models import ExportJob
from stream_app.jobs.submission import submit_lock
from stream_app.schedules.models import ScheduledExport, ScheduleGap
from stream_app.schedules.records import DueSchedule, Gap, Schedule

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

VERSION: ColumnElement[str] = literal_column("xmin::text")
"""PostgreSQL's own number of the transaction that wrote the row last."""

_LOCK_UNCHANGED = text(
    """
    SELECT schedule.id
    FROM unnest(CAST(:ids AS uuid[]), CAST(:versions AS text[])) AS seen (id, version)
    JOIN scheduled_exports AS schedule ON schedule.id = seen.id AND schedule.xmin::text = seen.version
    FOR UPDATE OF schedule SKIP LOCKED
    """
)

_GAPS = text(
    """
    SELECT gap.id, gap.schedule_id, gap.window_start, gap.window_end
    FROM unnest(CAST(:ids AS uuid[])) AS schedule (id)
    CROSS JOIN LATERAL (
        SELECT * FROM schedule_gaps WHERE schedule_id = schedule.id ORDER BY window_start LIMIT :limit
    ) AS gap
    """
)

_CLOSE_GAPS = text("DELETE FROM schedule_gaps WHERE id = ANY (CAST(:ids AS uuid[])) RETURNING id")

Position = tuple[datetime, UUID]
"""Where a page ends: created at, and id."""


class ScheduleStore:
    """The statements on ``scheduled_exports``."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._autocommit = autocommitting(engine)

    def transaction(self, script: str = "") -> AbstractAsyncContextManager[AsyncConnection]:
        """Open a transaction, which can begin with a script: see :func:`stream_app.db.engine.transaction`."""
        return transaction(self._autocommit, script)

    @asynccontextmanager
    async def statement(self) -> AsyncIterator[AsyncConnection]:
        """Open a connection whose every statement is a transaction of its own."""
        with outages_are_retryable():
            async with self._autocommit.connect() as connection:
                yield connection

    # --- ticks ---------------------------------------------------------------------------------

    async def now(self) -> datetime:
        """The time by the database's clock."""
        async with self.statement() as connection:
            return (await connection.execute(select(func.now()))).scalar_one()

    async def due(self, until: datetime, limit: int) -> list[DueSchedule]:
        """Return up to ``limit`` schedules that are due, the longest due first. Locked schedules are skipped.

        No row stays locked. Each row has the schedule's columns, its ``version`` for :meth:`lock_unchanged`,
        and ``now``, the time by the database's clock.
        """
        statement = (
            select(SCHEDULES, VERSION.label("version"), func.now().label("now"))
            .where(ScheduledExport.active, ScheduledExport.next_run <= until)
            .order_by(ScheduledExport.next_run)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        async with self.statement() as connection:
            return [DueSchedule(**row._mapping) for row in await connection.execute(statement)]

    async def lock_unchanged(self, connection: AsyncConnection, rows: Sequence[DueSchedule]) -> set[UUID]:
        """Lock those of ``rows`` that were not changed, locked or removed since; return their ids."""
        versions = {"ids": [row.id for row in rows], "versions": [row.version for row in rows]}
        return set((await connection.scalars(_LOCK_UNCHANGED, versions)).all())

    async def gaps(self, ids: Sequence[UUID], limit: int) -> dict[UUID, list[Gap]]:
        """Return up to ``limit`` gaps of each schedule, the oldest first."""
        found: dict[UUID, list[Gap]] = {}
        async with self.statement() as connection:
            for row in await connection.execute(_GAPS, {"ids": list(ids), "limit": limit}):
                found.setdefault(row.schedule_id, []).append(Gap(**row._mapping))
        return found

    async def close_gaps(self, connection: AsyncConnection, ids: Sequence[UUID]) -> set[UUID]:
        """Remove gaps for which runs were planned; return the ids of those that still existed."""
        if not ids:
            return set()
        return set((await connection.scalars(_CLOSE_GAPS, {"ids": list(ids)})).all())

    async def advance(self, connection: AsyncConnection, rows: Sequence[dict[str, Any]]) -> None:
        """Write ``next_run``, ``window_start`` and, unless it is ``None``, ``last_run`` of each ``id``."""
        await connection.execute(_ADVANCE, {"rows": to_json(rows).decode()})

    # --- owners --------------------------------------------------------------------------------

    async def create(self, values: dict[str, Any], *, limit: int | None = None) -> Schedule | None:
        """Insert a schedule; return its row, or ``None`` if its user already has ``limit`` schedules."""
        async with self.transaction(submit_lock(values["user_id"])) as connection:
            if limit is not None and await self._count(connection, values["user_id"]) >= limit:
                return None
            statement = insert(ScheduledExport).values(values).returning(SCHEDULES)
            return Schedule(**(await connection.execute(statement)).one()._mapping)

    async def get(self, schedule_id: UUID, *, user_id: str | None) -> Schedule | None:
        """Return the schedule, or ``None`` if there is none, or it belongs to another user."""
        async with self.statement() as connection:
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

    async def revoke_all_rows(self, schedule_id: UUID, *, user_id: str) -> bool:
        """Revoke the permission of ``user_id``'s schedule to export all rows; return whether it had it."""
        statement = (
            update(ScheduledExport)
            .where(
                ScheduledExport.id == schedule_id,
                ScheduledExport.user_id == user_id,
                ScheduledExport.all_rows_until.is_not(None),
            )
            .values(all_rows_until=None)
        )
        async with self.statement() as connection:
            found = await connection.execute(statement.returning(ScheduledExport.id))
            return found.one_or_none() is not None

    async def delete(self, schedule_id: UUID, *, user_id: str | None) -> bool:
        """Remove the schedule; its jobs stay. Return whether it existed and belonged to ``user_id``."""
        statement = delete(ScheduledExport).where(ScheduledExport.id == schedule_id)
        if user_id is not None:
            statement = statement.where(ScheduledExport.user_id == user_id)
        async with self.transaction() as connection:
            found = await connection.execute(statement.returning(ScheduledExport.id))
            gone = found.one_or_none() is not None
            if gone:
                await connection.execute(delete(ScheduleGap).where(ScheduleGap.schedule_id == schedule_id))
            return gone

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
        async with self.statement() as connection:
            return (await connection.execute(statement)).all()
