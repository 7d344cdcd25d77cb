"""Schedules on a real PostgreSQL, with a clock of the test's own."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Row, insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncEngine

from stream_app.addresses import AddressRules
from stream_app.app import job_store
from stream_app.exports.datasets import load_datasets
from stream_app.exports.formats.registry import FORMATS
from stream_app.jobs.models import ExportJob
from stream_app.jobs.states import Status
from stream_app.jobs.submission import RequestValidator
from stream_app.schedules.models import ScheduledExport
from stream_app.schedules.outcomes import apply_run_outcomes
from stream_app.schedules.records import Schedule
from stream_app.schedules.runs import calendar_of
from stream_app.schedules.scheduler import Scheduler
from stream_app.schedules.store import ScheduleStore
from stream_app.settings import Settings
from streaming_exporter.events import Event, JobError, LifecycleData

START = datetime(2026, 3, 1, tzinfo=UTC)


@dataclass
class Schedules:
    """A scheduler, and the few words that tests need."""

    engine: AsyncEngine
    settings: Settings
    published: list[Event] = field(default_factory=list)

    def scheduler(self, **changes: Any) -> Scheduler:
        """A scheduler as another worker would have it."""

        async def emit(events: Iterable[Event]) -> None:
            self.published += events

        settings = self.settings.model_copy(update=changes)
        jobs = job_store(settings, self.engine)
        datasets = load_datasets()
        validator = RequestValidator(FORMATS, datasets, AddressRules.of(settings))
        return Scheduler(ScheduleStore(self.engine), jobs, emit, validator, datasets, settings)

    async def create(self, *, after: datetime = START, **values: Any) -> UUID:
        """A schedule whose first run is the first one after ``after``."""
        store = ScheduleStore(self.engine)
        content = {"schedule": "daily", "user_id": "u", "export_type": "ledger", "format": "csv", **values}
        row = await store.create({"id": uuid4(), **content})
        assert row is not None
        async with store.transaction() as connection:
            first = calendar_of(row).next_run(after)
            await store.update(connection, row.id, {"next_run": values.get("next_run", first)})
        return UUID(str(row.id))

    async def create_many(self, orders: Iterable[dict[str, Any]]) -> None:
        """Schedules whose ``next_run`` is given."""
        common = {"schedule": "daily", "user_id": "u", "export_type": "ledger", "format": "csv"}
        async with self.engine.begin() as connection:
            rows = [{"id": uuid4(), **common, **order} for order in orders]
            await connection.execute(insert(ScheduledExport), rows)

    async def get(self, schedule_id: UUID) -> Schedule:
        found = await ScheduleStore(self.engine).get(schedule_id, user_id=None)
        assert found is not None
        return found

    async def set(self, schedule_id: UUID, **values: Any) -> None:
        async with self.engine.begin() as connection:
            statement = update(ScheduledExport).where(ScheduledExport.id == schedule_id)
            await connection.execute(statement.values(**values))

    async def jobs(self, schedule_id: UUID | None = None) -> list[Row[Any]]:
        """Jobs of the schedule, or of all, in the order of their runs."""
        statement = select(ExportJob.__table__).order_by(ExportJob.run_at)
        if schedule_id is not None:
            statement = statement.where(ExportJob.schedule_id == schedule_id)
        async with self.engine.connect() as connection:
            return list((await connection.execute(statement)).all())

    async def runs(self, schedule_id: UUID) -> list[str]:
        return [f"{job.run_at:%m-%d %H:%M}" for job in await self.jobs(schedule_id)]

    async def end(self, job: Row[Any], status: Status, *, max_failures: int = 3) -> None:
        """Record the end of a run as the projector does."""
        async with self.engine.begin() as connection:
            await connection.execute(
                text("UPDATE export_jobs SET status = :status, error_message = 'too large' WHERE id = :id"),
                {"status": status, "id": job.id},
            )
            await apply_run_outcomes(connection, [job.id], max_failures=max_failures)


@pytest.fixture
def schedules(engine: AsyncEngine, own_settings: Settings) -> Schedules:
    return Schedules(engine, own_settings)


def refusal(events: Iterable[Event]) -> JobError:
    """Why the only run that has ended was refused."""
    (found,) = [
        data.error for data in (LifecycleData.model_validate(event.data) for event in events) if data.error
    ]
    return found


def days(count: float) -> timedelta:
    return timedelta(days=count)
