"""The rows of the tables of schedules, typed."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A row of ``scheduled_exports``; see :class:`~stream_app.schedules.models.ScheduledExport`."""

    id: UUID
    user_id: str
    export_type: str
    format: str
    schedule: str
    time_of_day: str | None
    timezone: str
    day: int | None
    window: str
    catch_up: str
    delay: int
    filters: Any
    columns: Any
    options: Any
    scope: str
    email_recipients: Any
    webhook: str | None
    active: bool
    last_run: datetime | None
    next_run: datetime | None
    window_start: datetime | None
    column_kinds: Any
    all_rows_until: datetime | None
    failures: int
    paused_at: datetime | None
    paused_reason: str | None
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class DueSchedule(Schedule):
    """A schedule that is due.

    Attributes:
        next_run: when the run is due.
        version: PostgreSQL's number of the transaction that wrote the row last.
        now: the time by the database's clock when the row was read.
    """

    next_run: datetime
    version: str
    now: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """A row of ``schedule_gaps``: a window that no file contains."""

    id: UUID
    schedule_id: UUID
    window_start: datetime
    window_end: datetime
