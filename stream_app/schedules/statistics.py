"""Counts schedules by their state, for metrics and operators."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import or_, select, text, true
from sqlalchemy.ext.asyncio import AsyncEngine

from stream_app.db.engine import autocommitting, transaction
from stream_app.jobs.models import ExportJob
from stream_app.schedules.models import ScheduledExport

LATE = timedelta(minutes=2)
"""A run that was due so long ago and is not planned is late: the ticker or the workers do not work."""

TIMEOUT = "5s"
LISTED = 50
"""Limit of the schedules with failures that are listed."""

COUNT = text(
    """
    SELECT count(*) FILTER (WHERE active) AS active,
           count(*) FILTER (WHERE NOT active) AS paused,
           count(*) FILTER (WHERE active AND next_run < now() - CAST(:late AS interval)) AS late,
           count(*) FILTER (WHERE active AND failures > 0) AS failing,
           count(*) FILTER (WHERE NOT active AND paused_reason IS NOT NULL) AS paused_by_service
    FROM scheduled_exports
    """
)


@dataclass(frozen=True, slots=True)
class ScheduleStatistics:
    """Numbers of schedules.

    Attributes:
        active, paused: all schedules are one of both.
        late: active ones whose next run was due :data:`LATE` ago and is not planned.
        failing: active ones whose last run failed.
        paused_by_service: paused ones that the service has paused, after failures or because of lost rights.
    """

    active: int
    paused: int
    late: int
    failing: int
    paused_by_service: int

    def by_state(self) -> dict[str, int]:
        """Return the numbers by their names."""
        return asdict(self)


async def count_schedules(engine: AsyncEngine) -> ScheduleStatistics:
    """Count the schedules.

    Raises:
        Retryable: the database is away or too slow.
    """
    async with transaction(
        autocommitting(engine), f"SET LOCAL statement_timeout = '{TIMEOUT}'"
    ) as connection:
        row = (await connection.execute(COUNT, {"late": LATE})).one()
    return ScheduleStatistics(**row._mapping)


async def list_failing(engine: AsyncEngine) -> Sequence[dict[str, Any]]:
    """Return schedules whose last runs failed or that the service has paused, worst first, with the last job.

    Raises:
        Retryable: the database is away or too slow.
    """
    table = ScheduledExport
    last = (
        select(ExportJob.id, ExportJob.error_code)
        .where(ExportJob.schedule_id == table.id)
        .order_by(ExportJob.created_at.desc(), ExportJob.id.desc())
        .limit(1)
        .lateral("last_job")
    )
    statement = (
        select(
            table.id, table.user_id, table.export_type, table.format, table.schedule, table.active,
            table.failures, table.last_run, table.next_run, table.paused_at,
            last.c.id.label("last_job_id"), last.c.error_code,
        )
        .outerjoin(last, true())
        .where(or_(table.failures > 0, table.paused_reason.is_not(None)))
        .order_by(table.failures.desc(), table.id)
        .limit(LISTED)
    )  # fmt: skip
    async with transaction(
        autocommitting(engine), f"SET LOCAL statement_timeout = '{TIMEOUT}'"
    ) as connection:
        return [dict(row._mapping) for row in await connection.execute(statement)]
