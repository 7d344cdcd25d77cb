"""Schedules on a real PostgreSQL, with times chosen by the test."""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Row, insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncEngine

from dev.sample import DATASETS
from stream_app.addresses import AddressRules
from stream_app.datasets.file import load_datasets
from stream_app.datasets.registry import Datasets
from stream_app.db.engine import autocommitting
from stream_app.exports.formats.registry import FORMATS
from stream_app.jobs.models import ExportJob
from stream_app.jobs.queue import JobQueue
from stream_app.jobs.request_validator import RequestValidator
from stream_app.jobs.states import Status
from stream_app.kafka.event_producer import EventProducer
from stream_app.schedules.models import Schedule, ScheduledExport
from stream_app.schedules.outcomes import apply_run_outcomes
from stream_app.schedules.run_planner import RunPlanner, calendar_of
from stream_app.schedules.store import ScheduleStore
from stream_app.settings import Settings
from stream_app.worker.scheduler import Scheduler
from streaming_exporter.events import Event, JobError, LifecycleData

START = datetime(2026, 3, 1, tzinfo=UTC)


@dataclass
class Schedules:
    """Creates schedulers and schedules, and reads the jobs of their runs."""

    engine: AsyncEngine
    settings: Settings
    published: list[Event] = field(default_factory=list)

    def scheduler(self, **changes: Any) -> Scheduler:
        """Return a scheduler such as each worker has."""

        async def publish_all(events: Iterable[Event]) -> None:
            self.published += events

        settings = self.settings.model_copy(update=changes)
        datasets = Datasets(load_datasets(DATASETS))
        validator = RequestValidator(FORMATS, datasets, AddressRules.of(settings), has_passwords=lambda: True)
        planner = RunPlanner(validator, datasets, settings)
        return Scheduler(autocommitting(self.engine), producer(publish_all), planner, settings)

    @property
    def queue(self) -> JobQueue:
        """The queue of the jobs that the runs become."""
        return JobQueue.of(self.settings, self.engine)

    async def create(self, *, after: datetime = START, **values: Any) -> UUID:
        """Create a schedule whose first run is the first one after ``after``; return its id."""
        store = ScheduleStore(self.engine)
        content = {"schedule": "daily", "user_id": "u", "export_type": "ledger", "format": "csv", **values}
        created = await store.create({"id": uuid4(), **content})
        assert created is not None
        row, _ = created
        async with store.transaction() as connection:
            first = calendar_of(row).next_run(after)
            await store.update(connection, row.id, {"next_run": values.get("next_run", first)})
        return UUID(str(row.id))

    async def create_many(self, orders: Iterable[dict[str, Any]]) -> None:
        """Create schedules whose ``next_run`` is given."""
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
        """Return the jobs of the schedule, or of all schedules, in the order of their runs."""
        statement = select(ExportJob.__table__).order_by(ExportJob.run_at)
        if schedule_id is not None:
            statement = statement.where(ExportJob.schedule_id == schedule_id)
        async with self.engine.connect() as connection:
            return list((await connection.execute(statement)).all())

    async def runs(self, schedule_id: UUID) -> list[str]:
        return [f"{job.run_at:%m-%d %H:%M}" for job in await self.jobs(schedule_id)]

    async def end(self, job: Row[Any], status: Status, *, max_failures: int = 3) -> None:
        """Record the outcome of a run as the projector does."""
        async with self.engine.begin() as connection:
            await connection.execute(
                text("UPDATE export_jobs SET status = :status, error_message = 'too large' WHERE id = :id"),
                {"status": status, "id": job.id},
            )
            await apply_run_outcomes(connection, [job.id], max_failures=max_failures)


def producer(publish_all: Callable[[Iterable[Event]], Awaitable[None]]) -> EventProducer:
    """Return a producer that publishes with ``publish_all``."""
    return cast(EventProducer, SimpleNamespace(publish_all=publish_all))


@pytest.fixture
def schedules(engine: AsyncEngine, own_settings: Settings) -> Schedules:
    return Schedules(engine, own_settings)


def refusal(events: Iterable[Event]) -> JobError:
    """Return the error of the only run that has ended."""
    (found,) = [
        data.error for data in (LifecycleData.model_validate(event.data) for event in events) if data.error
    ]
    return found


def days(count: float) -> timedelta:
    return timedelta(days=count)
