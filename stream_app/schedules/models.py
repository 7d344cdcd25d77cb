"""The tables of schedules, and their rows, typed."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import DDL, Index, Integer, SmallInteger, UniqueConstraint, event, func, text
from sqlalchemy.orm import Mapped, mapped_column

from stream_app.jobs.models import Base
from stream_app.schedules.due_runs import CatchUp

RUNS_OF_OLDER_WORKERS = (
    """
    CREATE OR REPLACE FUNCTION export_jobs_complete_run() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE
        schedule scheduled_exports;
    BEGIN
        SELECT * INTO schedule FROM scheduled_exports WHERE id = NEW.schedule_id;
        IF NOT FOUND THEN RETURN NEW; END IF;
        NEW.name = coalesce(NEW.name, schedule.name);
        NEW.split = coalesce(NEW.split, schedule.split);
        NEW.consistency = coalesce(NEW.consistency, schedule.consistency);
        NEW.encrypt = coalesce(NEW.encrypt, schedule.encrypt);
        NEW.destination = coalesce(NEW.destination, schedule.destination);
        NEW.parameters = coalesce(NEW.parameters, nullif(schedule.parameters, '{}'));
        NEW.claims = coalesce(NEW.claims, CASE
            WHEN schedule.claims = '{}' THEN NULL
            WHEN schedule.claims_until > now() THEN schedule.claims
            WHEN schedule.claims IS NOT NULL THEN '{}'
        END);
        RETURN NEW;
    END $$
    """,
    """
    CREATE TRIGGER export_jobs_complete_run BEFORE INSERT ON export_jobs FOR EACH ROW
    WHEN (NEW.schedule_id IS NOT NULL) EXECUTE FUNCTION export_jobs_complete_run()
    """,
)
"""Workers of version 0.1 leave these columns of a schedule out of the jobs that they plan.

The trigger adds them, so that the claim guards leave such jobs to newer workers. Without it, the runs of a
schedule with ``encrypt`` would make plain files after a rollback. Claims that have expired become empty ones.
"""


class ScheduledExport(Base):
    """A schedule: a request that is submitted again and again on a calendar.

    Attributes:
        name: the name for people. The jobs of the runs have it too.
        next_run: when the next run is due. It is empty while the schedule is not active.
        window_start: where the window of the next run begins. It is empty before the first run with
            ``previous_period``, whose window is its period.
        delay: how many seconds a run waits for rows that arrive late.
        column_kinds: the kinds of the columns to which windows and relative filters apply.
        all_rows_until: the time until which runs can export the rows of all users (docs/decisions).
        claims_until: the time until which runs have the claims of the owner.
        failures: how many runs failed in a row.
    """

    __tablename__ = "scheduled_exports"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    user_id: Mapped[str]
    export_type: Mapped[str]
    format: Mapped[str]
    name: Mapped[str | None]
    schedule: Mapped[str]
    time_of_day: Mapped[str | None]
    timezone: Mapped[str] = mapped_column(server_default="UTC")
    day: Mapped[int | None] = mapped_column(SmallInteger)
    window: Mapped[str] = mapped_column(server_default="none")
    catch_up: Mapped[str] = mapped_column(server_default=CatchUp.LAST)
    delay: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    filters: Mapped[Any] = mapped_column(nullable=True)
    columns: Mapped[Any] = mapped_column(nullable=True)
    options: Mapped[Any] = mapped_column(nullable=True)
    split: Mapped[Any] = mapped_column(nullable=True)
    encrypt: Mapped[Any] = mapped_column(nullable=True)
    consistency: Mapped[str | None]
    scope: Mapped[str] = mapped_column(server_default="own")
    parameters: Mapped[Any] = mapped_column(nullable=True)
    claims: Mapped[Any] = mapped_column(nullable=True)
    email_recipients: Mapped[Any] = mapped_column(nullable=True)
    webhook: Mapped[str | None]
    destination: Mapped[str | None]
    active: Mapped[bool] = mapped_column(server_default=text("true"))
    last_run: Mapped[datetime | None]
    next_run: Mapped[datetime | None]
    window_start: Mapped[datetime | None]
    column_kinds: Mapped[Any] = mapped_column(nullable=True)
    all_rows_until: Mapped[datetime | None]
    claims_until: Mapped[datetime | None]
    failures: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    paused_at: Mapped[datetime | None]
    paused_reason: Mapped[str | None]
    paused_code: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (
        Index("scheduled_exports_user_active", "user_id", "active"),
        Index("scheduled_exports_user_newest", "user_id", text("created_at DESC"), text("id DESC")),
        Index("scheduled_exports_newest", text("created_at DESC"), text("id DESC")),
        Index("scheduled_exports_next_run", "next_run"),
    )


# Of this table, which is created after export_jobs: the function names both.
for statement in RUNS_OF_OLDER_WORKERS:
    event.listen(ScheduledExport.__table__, "after_create", DDL(statement))  # type: ignore[no-untyped-call]


class ScheduleGap(Base):
    """A window that is in no file: its run failed or was cancelled after the next run was planned.

    An additional run exports it, when the schedule's next runs start. The job of that run has the gap's id.
    """

    __tablename__ = "schedule_gaps"

    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=func.gen_random_uuid())
    schedule_id: Mapped[UUID]
    window_start: Mapped[datetime]
    window_end: Mapped[datetime]

    __table_args__ = (
        UniqueConstraint("schedule_id", "window_start", "window_end", name="schedule_gaps_once"),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A row of ``scheduled_exports``; see :class:`ScheduledExport`."""

    id: UUID
    user_id: str
    export_type: str
    format: str
    name: str | None
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
    split: Any
    encrypt: Any
    consistency: str | None
    scope: str
    parameters: Any
    claims: Any
    email_recipients: Any
    webhook: str | None
    destination: str | None
    active: bool
    last_run: datetime | None
    next_run: datetime | None
    window_start: datetime | None
    column_kinds: Any
    all_rows_until: datetime | None
    claims_until: datetime | None
    failures: int
    paused_at: datetime | None
    paused_reason: str | None
    paused_code: str | None
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
