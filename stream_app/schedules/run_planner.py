"""Plans the runs of schedules that are due: the request and the job of each run. No I/O."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import lru_cache
from operator import attrgetter
from typing import Any
from uuid import UUID, uuid5
from zoneinfo import ZoneInfo

from stream_app.datasets.bundle_requests import filters_by_dataset
from stream_app.datasets.bundles import Bundle, has_windows, members_of
from stream_app.datasets.models import Dataset
from stream_app.exports.columns import Kind
from stream_app.exports.filters.relative_dates import resolve_filters, resolve_parameters
from stream_app.exports.filters.whole_days import day_zone, with_zone
from stream_app.jobs.new_job import NewJob
from stream_app.jobs.request_validator import RequestValidator
from stream_app.schedules.calendar import Calendar
from stream_app.schedules.due_runs import CatchUp, Run, earliest_start, plan_due_runs
from stream_app.schedules.grants import SchedulePermissions, dataset_of
from stream_app.schedules.models import DueSchedule, Gap, Schedule
from stream_app.schedules.windows import Window, Windowing, window_of
from stream_app.settings import Settings
from streaming_exporter.errors import Rejected, Unreadable
from streaming_exporter.events import SCHEDULES, Event, EventType

SCHEDULE_COLUMNS = (
    "export_type",
    "format",
    "name",
    "columns",
    "options",
    "split",
    "consistency",
    "encrypt",
    "scope",
    "parameters",
    "claims",
    "webhook",
    "destination",
    "user_id",
)


@dataclass(frozen=True, slots=True)
class RunRequest:
    """The request of a run.

    Attributes:
        event: the event that a service would publish for this request.
        schedule_id: the schedule.
        run_at: when the run is due.
        window: the window as the job's record keeps it, or ``None``.
    """

    event: Event
    schedule_id: UUID
    run_at: datetime
    window: dict[str, Any] | None

    def job(self, validator: RequestValidator, *, now: datetime, refusal: Rejected | None = None) -> NewJob:
        """Return the unadmitted job of the run.

        Args:
            validator: validates the request. The job of an invalid request has failed.
            now: the time by the database's clock.
            refusal: why the run cannot take place, or ``None``.

        Raises:
            Unreadable: the schedule lacks what a job's record needs.
        """
        job = validator.job(self.event, now=now)
        if refusal is not None and job.outcome is None:
            job = job.failed(refusal)
        return replace(job, schedule_id=self.schedule_id, run_at=self.run_at, window=self.window)


@dataclass(frozen=True, slots=True)
class PlannedSchedule:
    """What to do for one schedule that is due.

    Attributes:
        schedule_id: the schedule.
        jobs: the jobs of its runs.
        gap_jobs: jobs that export the windows of gaps. Each has the id of its gap.
        state: the new values of the schedule's row, or ``None``.
        error: why the schedule cannot be planned, or ``None``.
        window_start: where the next window begins if the schedule cannot be planned.
        left_out: when runs were due that start no job, because the next window begins later.
    """

    schedule_id: UUID
    jobs: list[NewJob]
    gap_jobs: Sequence[NewJob] = ()
    state: dict[str, Any] | None = None
    error: Exception | None = None
    window_start: datetime | None = None
    left_out: Sequence[datetime] = ()


@dataclass(frozen=True, slots=True)
class RunPlanner:
    """Plans the runs of schedules that are due."""

    validator: RequestValidator
    datasets: Mapping[str, Dataset]
    settings: Settings

    def plan_all(
        self, due: Sequence[DueSchedule], gaps: Mapping[UUID, Sequence[Gap]], until: datetime
    ) -> list[PlannedSchedule]:
        """Plan each schedule: its runs until ``until``, and runs for its ``gaps``.

        A schedule that cannot be planned does not delay the others.
        """
        found = []
        for schedule in due:
            try:
                found.append(self._plan(schedule, gaps.get(schedule.id, ()), until))
            except Exception as error:  # the other schedules must not wait for this one
                jobs = self._failed_run(schedule, planning_error(error))
                start = first_window_start(schedule)
                found.append(PlannedSchedule(schedule.id, jobs, error=error, window_start=start))
        return found

    def _plan(self, schedule: DueSchedule, gaps: Sequence[Gap], until: datetime) -> PlannedSchedule:
        """Return the jobs of a schedule that is due, and the new values of its row."""
        calendar = calendar_of(schedule)
        windowing = Windowing(schedule.window)
        plan = plan_due_runs(
            calendar,
            next_run=schedule.next_run,
            until=until,
            window_start=schedule.window_start,
            windowing=windowing,
            catch_up=CatchUp(schedule.catch_up),
            limit=self.settings.schedule_catch_up_limit,
        )
        if windowing is Windowing.NONE or not plan.takes_place:
            gaps = ()
        gap_jobs = [
            self._job(
                schedule,
                Run(schedule.next_run, Window(gap.window_start, gap.window_end), is_gap=True),
                until,
                calendar.zone,
                gap_id=gap.id,
            )
            for gap in sorted(gaps, key=attrgetter("window_start"))
        ]
        return PlannedSchedule(
            schedule.id,
            [self._job(schedule, run, until, calendar.zone) for run in plan.runs],
            gap_jobs=gap_jobs,
            left_out=plan.left_out,
            state={
                "id": schedule.id,
                "last_run": plan.runs[-1].at if plan.runs else None,
                "next_run": plan.next_run,
                "window_start": plan.window_start,
            },
        )

    def _job(
        self, schedule: DueSchedule, run: Run, until: datetime, zone: ZoneInfo, *, gap_id: UUID | None = None
    ) -> NewJob:
        """Return the job of a run. It starts once its time and its window are over by the database clock.

        Rights that end before it starts are no rights of the run.
        """
        dataset = dataset_of(self.datasets, schedule)
        request = run_request(schedule, run, dataset, zone, job_id=gap_id)
        jitter = start_delay(schedule.id, self.settings.schedule_jitter_seconds)
        due_in = run.at + timedelta(seconds=schedule.delay) + jitter - until
        not_before = max(schedule.now + due_in, earliest_start(run, schedule.delay))
        permissions = SchedulePermissions.of(self.settings)
        refusal = permissions.refusal(schedule, max(schedule.now, not_before))
        refusal = refusal or missing_time_column(run, dataset)
        job = request.job(self.validator, now=schedule.now, refusal=refusal)
        return replace(job, not_before=not_before if not_before > schedule.now else None)

    def _failed_run(self, schedule: DueSchedule, error: Rejected) -> list[NewJob]:
        """Return the failed job of a run that cannot be planned, for the history and for notifications."""
        try:
            return [unplanned_run_request(schedule).job(self.validator, now=schedule.now, refusal=error)]
        except Unreadable:
            return []  # the record of a job cannot be made either


def calendar_of(schedule: Schedule) -> Calendar:
    """Return the calendar of ``schedule``.

    Raises:
        Rejected: the stored values are not valid any more, such as a time zone that was renamed.
    """
    return _calendar(schedule.schedule, schedule.timezone, schedule.time_of_day, schedule.day)


@lru_cache(maxsize=4096)
def _calendar(schedule: str, timezone: str, time_of_day: str | None, day: int | None) -> Calendar:
    return Calendar.of(schedule, timezone=timezone, time_of_day=time_of_day, day=day)


def first_window_start(schedule: Schedule) -> datetime | None:
    """Return where the next window of ``schedule`` begins if its next run does not take place, as in a pause.

    Returns:
        The start of the next window. Before the first run it is the start of the period of the run that was
        due first. ``None``: no run was due, so the next run uses its own period.
    """
    if schedule.window_start is not None or schedule.window != Windowing.PREVIOUS_PERIOD:
        return schedule.window_start
    try:
        calendar, run = calendar_of(schedule), schedule.next_run
        if run is None and schedule.paused_at is not None:
            run = calendar.next_run(schedule.paused_at)
        window = None if run is None else window_of(Windowing.PREVIOUS_PERIOD, calendar, run, None)
    except Exception:  # the stored values can be anything, and then there is no period
        return None
    return None if window is None else window.start


def job_id_of(schedule_id: UUID, run_at: datetime) -> UUID:
    """Return the id of a run's job: the same run is always the same job."""
    return uuid5(schedule_id, run_at.isoformat())


def start_delay(schedule_id: UUID, jitter: float) -> timedelta:
    """Return the delay of this schedule's runs, between 0 and ``jitter`` seconds: always the same one."""
    return timedelta(seconds=jitter * (schedule_id.int % 10_007) / 10_007)


def run_request(
    schedule: Schedule, run: Run, dataset: Dataset | None, zone: ZoneInfo, *, job_id: UUID | None = None
) -> RunRequest:
    """Return the request of ``run``, with its window and relative dates replaced by absolute times.

    Days are those of the schedule's zone. Dates are days of ``options.timezone``, if the schedule has it.

    Without a dataset the run fails. Its window is on record, so the next run exports it.
    """
    kinds = {name: Kind(kind) for name, kind in (schedule.column_kinds or {}).items()}
    timezone = (schedule.options or {}).get("timezone")
    parameters, filters = schedule.parameters, schedule.filters or {}
    known = (
        {}
        if dataset is None
        else {key: item for one in members_of(dataset) for key, item in one.parameters.items()}
    )
    if dataset is not None:
        parameters = resolve_parameters(parameters or {}, known, run.at, zone)
    if isinstance(dataset, Bundle):
        given = filters_by_dataset(dataset, filters)
        # What names no dataset of the bundle any more stays: without it the run would have more rows.
        filters = given | {
            member.name: _member_filters(member, given.get(member.name) or {}, kinds, run, zone, timezone)
            for member in dataset.members
        }
        filters = {name: found for name, found in filters.items() if found != {}}
    else:
        filters = _run_filters(dataset, filters, kinds, run, zone, timezone)
    window = None
    if run.window is not None:
        marks = {"again": run.is_repeat, "gap": run.is_gap}
        window = window_record(run.window, dataset, zone) | {name: True for name, has in marks.items() if has}
    return _run_request(
        schedule, run.at, filters=filters, parameters=parameters, window=window, job_id=job_id
    )


def _run_filters(
    dataset: Dataset | None,
    filters: Mapping[str, Any],
    kinds: Mapping[str, Kind],
    run: Run,
    zone: ZoneInfo,
    timezone: str | None,
) -> dict[str, Any]:
    """Return the filters of a run: without relative dates, and with its window."""
    default = day_zone(timezone, dataset.timezone if dataset else None)
    found = resolve_filters(filters, kinds, run.at, zone, day_default=default)
    if timezone is None:
        found = with_zone(found, kinds, zone, default)
    column = dataset.time if dataset else None
    if run.window is not None and column is not None:
        found |= {column: run.window.limits(kinds.get(column, Kind.TIMESTAMPTZ), zone)}
    return found


def _member_filters(
    member: Dataset,
    given: Any,
    kinds: Mapping[str, Kind],
    run: Run,
    zone: ZoneInfo,
    timezone: str | None,
) -> Any:
    """Return the filters of a run for one dataset of a bundle. One without a time column is whole."""
    if not isinstance(given, Mapping):
        return given  # the check of the request reports it
    own = {
        name.partition(".")[2]: kind for name, kind in kinds.items() if name.partition(".")[0] == member.name
    }
    return _run_filters(member, given, own, run, zone, timezone)


def unplanned_run_request(schedule: DueSchedule) -> RunRequest:
    """Return the request of a run that cannot be planned: with the stored values, and without a window."""
    return _run_request(schedule, schedule.next_run, filters=schedule.filters, parameters=schedule.parameters)


def _run_request(
    schedule: Schedule,
    run_at: datetime,
    *,
    filters: Any,
    parameters: Any,
    window: dict[str, Any] | None = None,
    job_id: UUID | None = None,
) -> RunRequest:
    data: dict[str, Any] = {name: getattr(schedule, name) for name in SCHEDULE_COLUMNS}
    data |= {
        "filters": filters or None,
        "parameters": parameters or None,
        "recipients": schedule.email_recipients,
    }
    event = Event(
        id=str(job_id or job_id_of(schedule.id, run_at)),
        source=f"{SCHEDULES}/{schedule.id}",
        type=EventType.REQUESTED,
        time=run_at,
        data={name: value for name, value in data.items() if value is not None},
    )
    return RunRequest(event, schedule.id, run_at, window)


def missing_time_column(run: Run, dataset: Dataset | None) -> Rejected | None:
    """Return why the rows cannot be limited to the window of ``run``, or ``None`` if they can."""
    if run.window is None or dataset is None or has_windows(dataset):
        return None
    what = "bundle" if isinstance(dataset, Bundle) else "dataset"
    return Rejected(
        f"{what} {dataset.name!r} has no time column any more, which a window needs",
        code="no_time_column",
        field="window",
    )


def planning_error(error: Exception) -> Rejected:
    """Return the error for the owner of a schedule that cannot be planned."""
    if isinstance(error, Rejected):
        return error
    return Rejected(
        "its next run cannot be planned; the operators find the reason in the log by the schedule's id",
        code="schedule_unusable",
    )


def window_record(window: Window, dataset: Dataset | None, zone: ZoneInfo) -> dict[str, Any]:
    """Return the window as the job's row and the manifest keep it: in the schedule's time zone.

    That of a bundle names the column of each dataset; a dataset that is not named is whole.
    """
    column = dataset.time if dataset is not None else None
    columns = {}
    if isinstance(dataset, Bundle):
        columns = {member.name: member.time for member in dataset.members if member.time is not None}
    return {
        "column": column,
        **({"columns": columns} if columns else {}),
        "from": window.start.astimezone(zone).isoformat(),
        "to": window.end.astimezone(zone).isoformat(),
        "timezone": zone.key,
    }
