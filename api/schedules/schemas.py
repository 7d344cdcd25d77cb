"""Bodies of requests and responses about schedules."""

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Annotated, Any, Literal
from uuid import UUID
from zoneinfo import ZoneInfo

from pydantic import AliasChoices, AwareDatetime, BaseModel, ConfigDict, Field
from sqlalchemy import Row

from api.jobs.schemas import RECIPIENTS, Estimate, JobView, Order, OrderEncrypt, OrderOptions, OrderSplit
from stream_app.chat_addresses import shown_addresses
from stream_app.jobs.states import Status
from stream_app.schedules.due_runs import CatchUp, upcoming_runs
from stream_app.schedules.grants import granted_until
from stream_app.schedules.models import Schedule
from stream_app.schedules.run_planner import calendar_of
from stream_app.schedules.windows import Windowing
from streaming_exporter.errors import Rejected
from streaming_exporter.events import DestinationName, JobError, Name, Scope, Values, Word

SHOWN_RUNS = 5
MAX_DELAY = 7 * 24 * 3600
EARLIEST, LATEST = datetime(1970, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)
"""Limits of a window's start. At the ends of the calendar a time zone could lead out of it."""

SCHEDULE_EXAMPLE: dict[str, Any] = {
    "export_type": "ledger",
    "format": "csv",
    "name": "Proofs of the week",
    "schedule": "weekly",
    "day": 0,
    "time_of_day": "06:30",
    "timezone": "Europe/Berlin",
    "window": "previous_period",
    "filters": {"kind": "proof"},
    "email_recipients": ["team@example.com"],
}

Recipients = Annotated[
    list[str] | None,
    Field(
        max_length=50,
        validation_alias=AliasChoices("email_recipients", "recipients"),
        description=f"{RECIPIENTS} when a run ends; `recipients` is accepted too. A change can name the "
        "chats of the schedule as it shows them",
    ),
]
When = Annotated[
    str,
    Field(
        max_length=200,
        description="`daily`, `weekly`, `monthly`, or a cron expression of five fields. With a day of the "
        "month and a day of the week, runs take place on each of them; if one of both begins with `*`, both "
        "must match",
    ),
]
TimeOfDay = Annotated[
    str | None, Field(description="Time of day, such as 06:30. Default: 00:00. Not with a cron expression")
]
Day = Annotated[
    int | None,
    Field(
        strict=True,
        description="weekly: 0 (Monday) to 6; monthly: 1 to 31, in shorter months the last day",
    ),
]
Zone = Annotated[str, Field(max_length=100, description="IANA name of the time zone. Default: UTC")]
Window = Annotated[
    Windowing,
    Field(
        description="Limits the rows by the time column of the dataset. `previous_period`: the complete day, "
        "week or month before the run (with cron: since the previous run). `since_last_run`: the time since "
        "the last run. Windows have no overlaps and no gaps"
    ),
]
WindowFrom = Annotated[
    AwareDatetime | None,
    Field(
        ge=EARLIEST,
        le=LATEST,
        description="Begin of the next window, from 1970 to 2100. Default: the end of the last one. Runs "
        "that are due before it start no job",
    ),
]
Delay = Annotated[
    int,
    Field(
        strict=True,
        ge=0,
        le=MAX_DELAY,
        description="Seconds that a run waits for rows that are written late",
    ),
]
Catching = Annotated[
    CatchUp, Field(description="Runs that were missed in an outage: start the last one, all, or none")
]


class ScheduleOrder(Order):
    """A request for exports on a calendar."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": SCHEDULE_EXAMPLE})

    schedule: When
    time_of_day: TimeOfDay = None
    day: Day = None
    timezone: Zone = "UTC"
    window: Window = Windowing.NONE
    window_from: WindowFrom = None
    delay: Delay = 0
    catch_up: Catching = CatchUp.LAST
    recipients: Recipients = None
    active: bool = True


class SchedulePatch(BaseModel):
    """The fields to change; the others stay. The dataset of a schedule cannot be changed."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"active": False}})

    format: Word | None = None
    name: Name = None
    filters: Values | None = None
    columns: Annotated[list[str] | None, Field(min_length=1, max_length=1600)] = None
    options: OrderOptions | None = None
    split: OrderSplit | None = None
    consistency: Literal["snapshot", "part"] | None = None
    encrypt: OrderEncrypt | None = None
    scope: Scope | None = None
    parameters: Values | None = None
    schedule: When | None = None
    time_of_day: TimeOfDay = None
    day: Day = None
    timezone: Zone | None = None
    window: Window | None = None
    window_from: WindowFrom = None
    delay: Delay | None = None
    catch_up: Catching | None = None
    recipients: Recipients = None
    webhook: Annotated[str | None, Field(max_length=2000)] = None
    destination: DestinationName | None = None
    active: bool | None = None


class ScheduleView(BaseModel):
    """A schedule. ``next_run`` is when its calendar is due next.

    ``next_runs`` are the next times at which it starts jobs, in its time zone; there are none while it is
    paused.

    ``granted_until`` is the time until which its runs have the roles and claims of its owner. It is null if
    they need none, and a past time if they have lost one. The owner renews them by changing, resuming
    or running the schedule.

    The URLs of chats in ``email_recipients`` are shortened.

    ``unsubscribed`` are those of ``email_recipients`` who get no more mails of the schedule.
    """

    id: UUID
    user_id: str
    export_type: str
    format: str
    name: str | None
    schedule: str
    time_of_day: str | None
    day: int | None
    timezone: str
    window: str
    window_from: datetime | None
    delay: int
    catch_up: str
    filters: Any
    columns: Any
    options: Any
    split: Any
    encrypt: Any
    consistency: str | None
    scope: str
    parameters: Any
    email_recipients: Any
    unsubscribed: list[str]
    webhook: str | None
    destination: str | None
    active: bool
    paused_at: datetime | None
    paused_reason: str | None
    paused_code: str | None
    failures: int
    granted_until: datetime | None
    last_run: datetime | None
    next_run: datetime | None
    next_runs: list[datetime]
    created_at: datetime

    @classmethod
    def of(cls, row: Schedule, now: datetime, unsubscribed: Sequence[str] = ()) -> "ScheduleView":
        """Return the view of a schedule's row.

        Args:
            row: the row.
            now: the time by the database's clock.
            unsubscribed: recipients who get no more mails.
        """
        known = {name: getattr(row, name) for name in cls.model_fields if hasattr(row, name)}
        known["email_recipients"] = shown_addresses(row.email_recipients)
        return cls(
            **known,
            window_from=row.window_start,
            granted_until=granted_until(row),
            next_runs=_next_runs(row, now),
            unsubscribed=list(unsubscribed),
        )


class ScheduleEstimate(Estimate):
    """The estimated size of a usual run. ``window`` is the time range whose rows were counted.

    It is the last window that has ended, and null if the schedule has no window.
    """

    window: Any


class SchedulePage(BaseModel):
    """Schedules, newest first. ``next_cursor`` is the cursor of the page with older ones."""

    schedules: list[ScheduleView]
    next_cursor: str | None


class RunView(BaseModel):
    """One run of a schedule. ``run_at`` is the minute it was due at, ``seconds`` its duration.

    The file has a ``download_url`` until it expires; several files have a ``files_url`` only.
    """

    export_job_id: UUID
    run_at: datetime
    status: Status
    window: Any
    row_count: int | None
    file_size: int | None
    seconds: float | None
    created_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    expires_at: datetime | None
    cancel_requested: bool
    file_name: str | None
    file_count: int | None
    warnings: dict[str, int]
    download_url: str | None
    files_url: str | None
    error: JobError | None

    @classmethod
    def of(cls, row: Row[Any], now: datetime) -> "RunView":
        """Return the view of a run from the row of its job; ``now`` is the time by the database's clock."""
        job = JobView.of(row, now)
        known = {name: getattr(job, name) for name in cls.model_fields if hasattr(job, name)}
        times = job.started_at, job.completed_at
        seconds = round((times[1] - times[0]).total_seconds(), 3) if times[0] and times[1] else None
        return cls(**known | {"seconds": seconds})


class RunPage(BaseModel):
    """Runs, newest first. ``next_cursor`` is the cursor of the page with older ones."""

    runs: list[RunView]
    next_cursor: str | None


def _next_runs(row: Schedule, now: datetime) -> list[datetime]:
    if not row.active or row.next_run is None:
        return []
    try:
        calendar, windowing = calendar_of(row), Windowing(row.window)
    except (Rejected, ValueError):
        return []  # the next tick pauses the schedule with the reason
    times = upcoming_runs(
        calendar,
        next_run=row.next_run,
        now=now,
        window_start=row.window_start,
        windowing=windowing,
    )
    return [run.astimezone(ZoneInfo(row.timezone)) for run in islice(times, SHOWN_RUNS)]
