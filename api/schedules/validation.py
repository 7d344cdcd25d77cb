"""What the owner of a schedule asks for: validated without the source database, as columns of its row."""

from dataclasses import dataclass
from typing import Any

from api.auth.authenticator import User
from api.jobs.validation import dataset_for, validated_event
from api.schedules.grants import claims_of, grant_columns
from api.schedules.schemas import ScheduleOrder
from api.services import ApiServices
from stream_app.schedules.calendar import Calendar
from stream_app.schedules.models import Schedule
from streaming_exporter.events import ExportRequest


@dataclass(frozen=True, slots=True)
class ValidatedSchedule:
    """A schedule that is valid as far as this can be known without the source database.

    ``columns`` are those that say what the owner asks for.
    """

    columns: dict[str, Any]
    grants: dict[str, Any]
    request: ExportRequest
    calendar: Calendar


def validate_schedule(
    services: ApiServices, user: User, owner: str, order: ScheduleOrder, current: Schedule | None
) -> ValidatedSchedule:
    """Validate a schedule without the source database.

    Args:
        services: what the calls work with.
        user: who makes the call.
        owner: whose schedule it is.
        order: the schedule.
        current: the schedule before the change, if there is one.

    Raises:
        Rejected: a field is invalid; the text names the field.
        Problem: the user's roles do not allow it.
    """
    calendar = Calendar.of(
        order.schedule, timezone=order.timezone, time_of_day=order.time_of_day, day=order.day
    )
    if user.id == owner:
        dataset_for(services, user, order.export_type)
    claims = claims_of(services, user, owner, order, current)
    grants = grant_columns(services, user, owner, order, current, claims)
    _, request = validated_event(services, owner, order, claims=claims)
    columns = {
        **{
            name: getattr(order, name)
            for name in (
                *("export_type", "format", "name", "filters", "columns", "parameters"),
                *("webhook", "destination"),
            )
        },
        "options": order.options.model_dump(mode="json", exclude_unset=True) if order.options else None,
        "split": order.split.model_dump(mode="json", exclude_unset=True) if order.split else None,
        "consistency": order.consistency,
        "encrypt": order.encrypt.model_dump(mode="json", exclude_unset=True) if order.encrypt else None,
        "scope": request.scope,
        "email_recipients": request.recipients or None,
        "schedule": calendar.schedule,
        "timezone": calendar.zone.key,
        "time_of_day": None if calendar.is_cron else f"{calendar.at:%H:%M}",
        "day": calendar.day,
        "window": order.window,
        "delay": order.delay,
        "catch_up": order.catch_up,
    }
    return ValidatedSchedule(columns, grants, request, calendar)
