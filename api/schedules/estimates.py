"""Estimates the size of a run of a schedule, with the window of a usual run."""

from dataclasses import fields
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from api.auth.authenticator import User
from api.jobs.estimates import estimate
from api.schedules.changes import changed_values, checked_values, not_found
from api.schedules.schemas import ScheduleEstimate, ScheduleOrder, SchedulePatch
from api.services import ApiServices
from stream_app.schedules.calendar import Calendar
from stream_app.schedules.due_runs import Run
from stream_app.schedules.grants import dataset_of
from stream_app.schedules.models import Schedule
from stream_app.schedules.run_planner import calendar_of, run_request
from stream_app.schedules.windows import Window, Windowing, period_before


async def estimate_new(services: ApiServices, user: User, order: ScheduleOrder) -> ScheduleEstimate:
    """Estimate a run of the schedule that ``order`` describes.

    Raises:
        Rejected: a field is invalid; the text names the field.
        Problem: the user's roles do not allow it.
        Retryable: the source database is unavailable.
    """
    values = await checked_values(services, user, user.id, order, None)
    return await _estimate(services, _schedule({"user_id": user.id, **values}), order.window_from)


async def estimate_changed(
    services: ApiServices, user: User, schedule_id: UUID, patch: SchedulePatch
) -> ScheduleEstimate:
    """Estimate a run of a schedule as it would be after a change. It has the rows of the schedule's owner.

    Raises:
        Rejected, Problem, Retryable: as :func:`estimate_new`, and 404 if there is no such schedule.
    """
    current = await services.schedules.get(schedule_id, user_id=user.data_owner)
    if current is None:
        raise not_found()
    values = await changed_values(services, user, current, patch)
    stored = {field.name: getattr(current, field.name) for field in fields(Schedule)}
    return await _estimate(services, _schedule(stored | values), patch.window_from)


def _schedule(values: dict[str, Any]) -> Schedule:
    """Return a schedule with these columns. It is not stored."""
    empty: dict[str, Any] = {field.name: None for field in fields(Schedule)}
    return Schedule(**{**empty, "id": uuid4(), **values})


async def _estimate(
    services: ApiServices, schedule: Schedule, window_from: datetime | None
) -> ScheduleEstimate:
    now = (await services.clock.read()).replace(microsecond=0)
    calendar, dataset = calendar_of(schedule), dataset_of(services.datasets, schedule)
    run = Run(now, usual_window(Windowing(schedule.window), calendar, now, window_from))
    request = run_request(schedule, run, dataset, calendar.zone)
    found = await estimate(services, services.validator.validate(request.event.data))
    return ScheduleEstimate(**found.model_dump(), window=request.window)


def usual_window(
    windowing: Windowing, calendar: Calendar, now: datetime, window_from: datetime | None
) -> Window | None:
    """Return the window of a usual run: the last one that has ended at ``now``.

    Args:
        windowing: how the windows of the schedule are computed.
        calendar: the calendar of the schedule.
        now: the present time.
        window_from: where the first window begins, if the request states that.
    """
    if windowing is Windowing.NONE:
        return None
    before = calendar.previous(now) or now
    if windowing is Windowing.PREVIOUS_PERIOD:
        usual = period_before(calendar, before if calendar.is_cron else now)
    else:
        usual = Window(calendar.previous(before) or before, before)
    if window_from is not None and window_from < usual.end:
        return Window(window_from, usual.end)
    return usual
