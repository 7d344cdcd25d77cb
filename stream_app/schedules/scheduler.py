"""Turns the schedules that are due into jobs: each run exactly once, whoever does it and however often."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from stream_app import tracing
from stream_app.delivery.addresses import Addressing
from stream_app.errors import Rejected, Unreadable
from stream_app.events import Event, EventType, LifecycleData, lifecycle_event
from stream_app.exports.datasets.base import Dataset
from stream_app.exports.formats.base import Format
from stream_app.jobs.admission import job_row
from stream_app.jobs.states import EVENT_OF, Status
from stream_app.jobs.store import JobStore
from stream_app.schedules.plan import CatchUp, plan
from stream_app.schedules.rights import Rights
from stream_app.schedules.runs import (
    Order,
    calendar_of,
    order_of,
    start_delay,
    unlimited,
    unplanned_order,
    why,
)
from stream_app.schedules.store import ScheduleStore
from stream_app.schedules.windows import Windowing
from stream_app.settings import Settings

log = structlog.get_logger(__name__)

PLANNING = ThreadPoolExecutor(1, thread_name_prefix="planning")
"""Planning is done in a transaction: it must not wait for a thread that something else holds."""

BATCH = 500
"""Schedules that one transaction takes."""


@dataclass(frozen=True, slots=True)
class Scheduler:
    """Starts runs. ``emit`` publishes events and returns once all are confirmed."""

    schedules: ScheduleStore
    jobs: JobStore
    emit: Callable[[Sequence[Event]], Awaitable[None]]
    formats: Mapping[str, Format]
    datasets: Mapping[str, Dataset]
    settings: Settings
    get_on: Callable[[], None] = lambda: None
    """Told of each batch that was committed: thousands of schedules can be due at one tick."""

    async def run_due(self, until: datetime) -> int:
        """Start everything that is due at ``until``; returns how many runs that were.

        Raises:
            Retryable: the database or Kafka is away; what was committed stays, the rest is still due.
        """
        started = 0
        while True:
            taken, runs = await self._run_batch(until)
            started += runs
            self.get_on()
            if taken < BATCH:
                return started

    async def _run_batch(self, until: datetime) -> tuple[int, int]:
        """One transaction: jobs are inserted and schedules advanced together, or not at all."""
        async with self.schedules.transaction() as connection:
            due = await self.schedules.due(connection, until, BATCH)
            if not due:
                return 0, 0
            # In a thread: for hundreds it takes a while, in which leases are to be renewed.
            rows, advanced, unusable = await asyncio.get_running_loop().run_in_executor(
                PLANNING, self._plan_all, due, until
            )
            for schedule_id, error in unusable:
                # It would stay due for ever: it is put aside, and its owner is told why by a failed run.
                reason = str(why(error))
                log.warning("schedule.unusable", schedule_id=str(schedule_id), error=reason, exc_info=error)
                await self.schedules.update(connection, schedule_id, paused(reason, datetime.now(UTC)))
            accepted = await self._admit(connection, rows)
            await self.schedules.advance(connection, advanced)
        await self._publish_outcomes(rows, accepted)
        return len(due), len(accepted)

    def _plan_all(
        self, due: Sequence[Row[Any]], until: datetime
    ) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[tuple[UUID, Exception]]]:
        """Jobs, what becomes of the schedules, and those that cannot be planned."""
        rows: list[dict[str, Any]] = []
        advanced: list[dict[str, Any]] = []
        unusable: list[tuple[UUID, Exception]] = []
        for schedule in due:
            try:
                jobs, state = self._plan(schedule, until)
            except Exception as error:  # whatever it is, the other schedules are not to wait for it
                unusable.append((schedule.id, error))
                rows += self._failed_run(schedule, why(error))
            else:
                rows += jobs
                advanced.append(state)
        return rows, advanced, unusable

    def _plan(self, schedule: Row[Any], until: datetime) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """The jobs of a schedule that is due, and what becomes of its own row."""
        calendar = calendar_of(schedule)
        found = plan(
            calendar,
            next_run=schedule.next_run,
            until=until,
            mark=schedule.window_start,
            windowing=Windowing(schedule.window),
            catch_up=CatchUp(schedule.catch_up),
            most=self.settings.schedule_catch_up_limit,
        )
        wait = timedelta(seconds=schedule.delay) + start_delay(
            schedule.id, self.settings.schedule_jitter_seconds
        )
        rows = []
        dataset = self.datasets.get(schedule.export_type)
        for run in found.runs:
            order = order_of(schedule, run, dataset, calendar.zone)
            refusal = self._refusal(schedule) or unlimited(run, dataset)
            rows.append(self._job_row(order, due_in=run.at + wait - until, refusal=refusal))
        last_run = found.runs[-1].at if found.runs else None
        return rows, {
            "id": schedule.id,
            "last_run": last_run,
            "next_run": found.next_run,
            "window_start": found.mark,
        }

    def _failed_run(self, schedule: Row[Any], refusal: Rejected) -> list[dict[str, Any]]:
        """The run that there should have been, for the history and for those who are told of failures."""
        try:
            return [self._job_row(unplanned_order(schedule), refusal=refusal)]
        except Unreadable:
            return []  # not even the record of a job can be made of it

    def _refusal(self, schedule: Row[Any]) -> Rejected | None:
        return Rights.of(self.settings).refusal(schedule, datetime.now(UTC))

    def _job_row(
        self, order: Order, *, due_in: timedelta = timedelta(0), refusal: Rejected | None
    ) -> dict[str, Any]:
        """The row of a run's job, which may start after ``due_in``, or that is refused."""
        now = datetime.now(UTC)
        row = job_row(
            order.event,
            now=now,
            formats=self.formats,
            datasets=self.datasets,
            addressing=Addressing.of(self.settings),
            refusal=refusal,
        )
        not_before = now + due_in if due_in > timedelta(0) else None
        return row | {"admitted_at": now, "not_before": not_before} | order.record

    async def _admit(
        self, connection: AsyncConnection, rows: Sequence[dict[str, Any]]
    ) -> Sequence[LifecycleData]:
        with tracing.spans(tracing.span("run schedule", attributes=_traced(row)) for row in rows) as begun:
            for row, span in zip(rows, begun, strict=True):
                row["traceparent"] = span.traceparent
            accepted = await self.jobs.admit(connection, rows)
            await self.emit([lifecycle_event(EventType.ACCEPTED, data) for data in accepted])
        return accepted

    async def _publish_outcomes(
        self, rows: Sequence[dict[str, Any]], accepted: Sequence[LifecycleData]
    ) -> None:
        """Runs that were refused have ended as they were admitted."""
        fresh = {data.job_id for data in accepted}
        refused = [
            LifecycleData.model_validate(row["outcome"] | {"traceparent": row["traceparent"]})
            for row in rows
            if row["outcome"] and row["id"] in fresh
        ]
        await self.emit([lifecycle_event(EVENT_OF[Status(data.status)], data) for data in refused])


def _traced(row: Mapping[str, Any]) -> tracing.Attributes:
    return {
        "exporter.job.id": str(row["id"]),
        "exporter.schedule.id": str(row["schedule_id"]),
        "exporter.dataset": row["export_type"],
        "exporter.format": row["format"],
    }


def paused(reason: str, at: datetime) -> dict[str, Any]:
    """Values of a schedule that is paused by the service."""
    return {"active": False, "next_run": None, "paused_at": at, "paused_reason": reason}
