"""Reads the state of the service for operators."""

from dataclasses import asdict
from typing import Any

from api.error_meanings import meaning_of
from api.operations.schemas import (
    DeliveryCounts,
    FailingSchedule,
    LostDelivery,
    Overview,
    PauseView,
    RunningJob,
    ScheduleCounts,
    WorkerView,
)
from api.services import ApiServices
from stream_app.jobs.job_queries import read_backlog
from stream_app.jobs.models import ClaimPause
from stream_app.jobs.states import Status
from stream_app.jobs.worker_registry import SILENT, WorkerRegistry
from stream_app.notifications.statistics import count_deliveries, list_lost
from stream_app.schedules.statistics import count_schedules, list_failing


def view_of_pause(pause: ClaimPause) -> PauseView:
    """Return the view of a pause."""
    return PauseView.model_validate(pause, from_attributes=True)


def _failing(row: dict[str, Any]) -> FailingSchedule:
    code = row["error_code"]
    return FailingSchedule(**row, error=None if code is None else meaning_of(code))


async def read_overview(services: ApiServices) -> Overview:
    """Return workers, queue, pauses, schedules and deliveries.

    Raises:
        Retryable: the state database is unavailable or too slow.
    """
    engine = services.read_engine
    workers, now = await WorkerRegistry(engine).all()
    backlog = await read_backlog(engine)
    views = [
        WorkerView(
            **{name: getattr(worker, name) for name in WorkerView.model_fields if name != "is_silent"},
            is_silent=worker.seen_at < now - SILENT,
        )
        for worker in workers
    ]
    present = [view for view in views if not view.is_silent]
    numbers = {
        state: sum(count for kind, count in backlog.jobs.items() if kind[0] == state)
        for state in (Status.PENDING, Status.PROCESSING)
    }
    return Overview(
        now=now,
        workers=views,
        slots=sum(view.slots for view in present),
        slots_running=sum(view.running for view in present),
        pending=numbers[Status.PENDING],
        processing=numbers[Status.PROCESSING],
        oldest_seconds=max(0.0, backlog.oldest),
        oldest_job_id=await services.statistics.oldest(),
        running=[RunningJob(**row) for row in await services.statistics.running()],
        drain_seconds=services.settings.drain_seconds,
        pauses=[view_of_pause(pause) for pause in await services.pauses.all()],
        schedules=ScheduleCounts(**(await count_schedules(engine)).by_state()),
        failing_schedules=[_failing(row) for row in await list_failing(engine)],
        deliveries=DeliveryCounts(**asdict(await count_deliveries(engine))),
        lost_deliveries=[LostDelivery(**row) for row in await list_lost(engine)],
        parts=await services.readiness.parts(),
        sources=services.source_monitor.states(),
        datasets=sorted(services.datasets),
    )
