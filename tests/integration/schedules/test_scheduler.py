"""Ticks start each run exactly once, with its window."""

import asyncio
from collections import Counter
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Any
from uuid import NAMESPACE_OID, uuid4, uuid5

import pytest
from sqlalchemy import text
from structlog.testing import capture_logs

from dev.sample import DATASETS
from stream_app.datasets.file import load_datasets
from stream_app.jobs.states import Status
from stream_app.jobs.submission import SubmitResult
from stream_app.schedules import run_planner
from stream_app.schedules.run_planner import job_id_of, start_delay
from stream_app.worker import scheduler as scheduler_module
from streaming_exporter.errors import Retryable
from streaming_exporter.events import Event, EventType
from tests.integration.schedules.conftest import START, Schedules, days, producer, refusal

SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)


async def test_a_run_is_one_job_however_often_its_tick_comes(schedules: Schedules) -> None:
    order: dict[str, Any] = {
        "name": "Proofs of the day",
        "time_of_day": "06:00",
        "email_recipients": ["a@example.com"],
        "filters": {"kind": "proof"},
    }
    made = await schedules.create(**order, columns=["id"], options={"compression": "gzip"})
    at = START + timedelta(hours=6)
    scheduler = schedules.scheduler()
    assert await scheduler.run_due(at - MINUTE) == 0
    assert [await scheduler.run_due(at) for _ in range(3)] == [1, 0, 0]
    assert await scheduler.run_due(at - MINUTE) == 0
    (job,) = await schedules.jobs()
    assert (job.id, job.schedule_id, job.run_at) == (job_id_of(made, at), made, at)
    assert (job.priority, job.recipients, job.filters) == (2, ["a@example.com"], {"kind": "proof"})
    assert (job.columns, job.options, job.source) == (
        ["id"],
        {"compression": "gzip"},
        f"/exporter/schedules/{made}",
    )
    assert job.admitted_at is not None
    assert [job.name] == [event.lifecycle.name for event in schedules.published] == ["Proofs of the day"]
    schedule = await schedules.get(made)
    assert (schedule.last_run, schedule.next_run) == (at, at + days(1))
    assert [(event.type, event.job_id) for event in schedules.published] == [(EventType.ACCEPTED, job.id)]


async def test_two_workers_share_due_schedules_and_start_no_run_twice(
    schedules: Schedules, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler_module, "BATCH", 50)
    await schedules.create_many({"user_id": f"user-{number}", "next_run": START} for number in range(120))
    one, other = schedules.scheduler(), schedules.scheduler()
    started = await asyncio.gather(*(worker.run_due(START) for worker in (one, other, one, other)))
    assert sum(started) == 120
    jobs = await schedules.jobs()
    assert len({job.schedule_id for job in jobs}) == len(jobs) == 120
    assert len({event.id for event in schedules.published}) == len(schedules.published) == 120


async def test_a_run_that_kafka_does_not_confirm_is_on_record_and_unadmitted(schedules: Schedules) -> None:
    """R1, R5: no transaction is open while Kafka confirms. The relay publishes the request from the row."""
    made = await schedules.create(next_run=START)
    scheduler = schedules.scheduler()

    async def refuse(_: object) -> None:
        raise Retryable("Kafka is away")

    broken = replace(scheduler, producer=producer(refuse))
    with pytest.raises(Retryable):
        await broken.run_due(START)
    (job,) = await schedules.jobs(made)
    assert job.admitted_at is None
    assert await schedules.queue.claim("w", 10) == []
    assert (await schedules.get(made)).next_run == START + timedelta(days=1)
    assert await scheduler.run_due(START) == 0
    assert await schedules.queue.admission.take_unadmitted() == []
    async with schedules.engine.begin() as connection:
        await connection.execute(text("UPDATE export_jobs SET lease_until = now() - interval '1 s'"))
    (event,) = await schedules.queue.admission.take_unadmitted()
    assert (event.job_id, event.source) == (job.id, f"/exporter/schedules/{made}")


@pytest.mark.parametrize(
    ("catch_up", "runs"),
    [
        ("last", ["03-04 00:00"]),
        ("all", ["03-02 00:00", "03-03 00:00", "03-04 00:00"]),
        ("none", []),
    ],
)
async def test_runs_that_were_missed(schedules: Schedules, catch_up: str, runs: list[str]) -> None:
    made = await schedules.create(catch_up=catch_up)
    await schedules.scheduler().run_due(START + days(3.5))
    assert await schedules.runs(made) == runs
    schedule = await schedules.get(made)
    assert schedule.next_run == START + days(4)
    assert (schedule.last_run is None) == (catch_up == "none")


async def test_a_late_tick_starts_runs_that_are_only_a_little_late(schedules: Schedules) -> None:
    made = await schedules.create(catch_up="none")
    await schedules.scheduler().run_due(START + days(1) + 4 * MINUTE)
    assert await schedules.runs(made) == ["03-02 00:00"]


async def test_catching_up_is_bounded_and_leaves_no_gap(schedules: Schedules) -> None:
    made = await schedules.create(
        schedule="0 * * * *", catch_up="all", window="since_last_run", window_start=START
    )
    await schedules.scheduler(schedule_catch_up_limit=3).run_due(START + days(1))
    jobs = await schedules.jobs(made)
    assert [job.window["from"] for job in jobs] == [
        "2026-03-01T00:00:00+00:00",
        "2026-03-01T22:00:00+00:00",
        "2026-03-01T23:00:00+00:00",
    ]
    assert jobs[-1].window["to"] == "2026-03-02T00:00:00+00:00"
    assert jobs[0].created_at < jobs[1].created_at < jobs[2].created_at, (
        "the later one replaces a shared file"
    )


@pytest.mark.parametrize("window", ["none", "previous_period"])
async def test_a_claim_has_the_day_of_the_run_in_the_zone_of_its_schedule(
    schedules: Schedules, window: str
) -> None:
    made = await schedules.create(time_of_day="00:30", timezone="Europe/London", window=window)
    await schedules.scheduler().run_due(START + days(29))
    (job,) = await schedules.jobs(made)
    assert job.run_at == datetime(2026, 3, 29, 23, 30, tzinfo=UTC)
    (claim,) = await schedules.queue.claim("w", 10)
    assert claim.run_day == date(2026, 3, 30)


async def test_windows_are_filters_of_the_job_in_utc(schedules: Schedules) -> None:
    made = await schedules.create(
        window="previous_period",
        timezone="Europe/Berlin",
        time_of_day="06:30",
        filters={"kind": "proof"},
        column_kinds={"created_at": "timestamptz"},
        after=datetime(2026, 3, 29, 12, tzinfo=UTC),
    )
    await schedules.scheduler().run_due(datetime(2026, 3, 30, 5, tzinfo=UTC))
    (job,) = await schedules.jobs(made)
    # The 29th had 23 hours.
    assert job.filters == {
        "kind": "proof",
        "created_at": {"gte": "2026-03-28T23:00:00Z", "lt": "2026-03-29T22:00:00Z"},
    }
    assert job.window == {
        "column": "created_at",
        "from": "2026-03-29T00:00:00+01:00",
        "to": "2026-03-30T00:00:00+02:00",
        "timezone": "Europe/Berlin",
    }


async def test_relative_filters_count_from_the_time_of_the_run(schedules: Schedules) -> None:
    made = await schedules.create(
        timezone="Asia/Tokyo",
        filters={"created_at": {"gte": "start_of_month-1mo"}, "kind": "today"},
        column_kinds={"created_at": "timestamptz"},
    )
    await schedules.scheduler().run_due(START + days(2))
    (job,) = await schedules.jobs(made)
    assert job.filters == {"created_at": {"gte": "2026-01-31T15:00:00Z"}, "kind": "today"}


@pytest.mark.parametrize(
    ("options", "on", "yesterday"),
    [
        (None, "2026-01-31[Asia/Tokyo]", "2026-03-02[Asia/Tokyo]"),
        ({"timezone": "Europe/Berlin"}, "2026-01-31", "2026-03-02[Asia/Tokyo]"),
        ({"timezone": "Asia/Tokyo"}, "2026-01-31", "2026-03-02"),
    ],
)
async def test_days_are_those_of_the_schedule_unless_the_request_names_a_zone(
    schedules: Schedules, options: dict[str, str] | None, on: str, yesterday: str
) -> None:
    """people A1: a date is its whole day in schedules, too."""
    made = await schedules.create(
        timezone="Asia/Tokyo",
        options=options,
        filters={"created_at": {"lte": "2026-01-31"}, "sealed_at": {"lte": "yesterday"}},
        column_kinds={"created_at": "timestamptz", "sealed_at": "timestamptz"},
    )
    await schedules.scheduler().run_due(START + days(2))
    (job,) = await schedules.jobs(made)
    assert job.filters == {"created_at": {"lte": on}, "sealed_at": {"lte": yesterday}}


@pytest.mark.parametrize("window", ["previous_period", "since_last_run"])
async def test_windows_have_no_gaps_after_missed_runs_a_pause_and_a_failure(
    schedules: Schedules, window: str
) -> None:
    made = await schedules.create(window=window, window_start=START, time_of_day="03:00")
    scheduler = schedules.scheduler()
    await scheduler.run_due(START + days(1.2))
    await scheduler.run_due(START + days(2.2))
    await scheduler.run_due(START + days(4.2))  # two ticks are missing
    failed = (await schedules.jobs(made))[-1]
    await schedules.end(failed, Status.FAILED)
    await schedules.set(made, active=False, next_run=None)
    assert await scheduler.run_due(START + days(9)) == 0
    await schedules.set(made, active=True, next_run=START + days(10.125))
    await scheduler.run_due(START + days(10.2))
    files = [job.window for job in await schedules.jobs(made) if job.status != "failed"]
    assert len(files) == 3
    assert files[0]["from"] == START.isoformat()
    assert all(first["to"] == second["from"] for first, second in pairwise(files))
    assert failed.window["from"] == files[-1]["from"]


async def test_a_failed_window_before_a_later_run_does_not_move_window_start_back(
    schedules: Schedules,
) -> None:
    made = await schedules.create(window="since_last_run", window_start=START)
    scheduler = schedules.scheduler()
    await scheduler.run_due(START + days(1))
    await scheduler.run_due(START + days(2))
    first, second = await schedules.jobs(made)
    await schedules.end(first, Status.FAILED)
    assert (await schedules.get(made)).window_start == START + days(2)
    await schedules.end(second, Status.COMPLETED)
    assert (await schedules.get(made)).window_start == START + days(2)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0), (0, 2, 1)])
async def test_the_windows_of_several_failures_are_returned_in_whatever_order_they_end(
    schedules: Schedules, order: tuple[int, ...]
) -> None:
    made = await schedules.create(window="since_last_run", window_start=START)
    scheduler = schedules.scheduler()
    for day in (1, 2, 3):
        await scheduler.run_due(START + days(day))
    jobs = await schedules.jobs(made)
    for number in order:
        status = Status.CANCELLED if number == 1 else Status.FAILED
        await schedules.end(jobs[number], status, max_failures=9)
    await scheduler.run_due(START + days(4))
    last = (await schedules.jobs(made))[-1]
    assert (last.window["from"], last.window["to"]) == (START.isoformat(), (START + days(4)).isoformat())


async def test_a_window_that_a_later_run_has_exported_is_not_returned(schedules: Schedules) -> None:
    made = await schedules.create(window="since_last_run", window_start=START)
    scheduler = schedules.scheduler()
    await scheduler.run_due(START + days(1))
    (first,) = await schedules.jobs(made)
    await schedules.end(first, Status.FAILED)
    await schedules.set(made, next_run=START + days(1) + MINUTE)
    await scheduler.run_due(START + days(1) + MINUTE)
    second = (await schedules.jobs(made))[-1]
    await schedules.end(second, Status.COMPLETED)
    # The owner sets window_start to the end of the first window, which is inside of the second one.
    await schedules.set(made, window_start=START + days(1))
    await scheduler.run_due(START + days(2))
    await schedules.end((await schedules.jobs(made))[-1], Status.FAILED)
    assert (await schedules.get(made)).window_start == START + days(1)


async def test_a_schedule_that_fails_repeatedly_is_paused_with_the_reason(schedules: Schedules) -> None:
    made = await schedules.create(schedule="0 * * * *")
    scheduler = schedules.scheduler()
    ends = [Status.FAILED, Status.FAILED, Status.COMPLETED, Status.FAILED, Status.FAILED, Status.FAILED]
    for hour, status in enumerate(ends, 1):
        assert await scheduler.run_due(START + timedelta(hours=hour)) == 1
        await schedules.end((await schedules.jobs(made))[-1], status)
    schedule = await schedules.get(made)
    assert (schedule.active, schedule.next_run, schedule.failures) == (False, None, 3)
    assert schedule.paused_reason == "paused after 3 failures in a row; the last one: too large"
    assert schedule.paused_code == "repeated_failures"
    assert schedule.paused_at is not None
    assert await scheduler.run_due(START + days(2)) == 0


@pytest.mark.parametrize(
    ("changes", "until", "code"),
    [
        ({}, days(1), None),
        ({}, -days(1), "grant_lapsed"),
        ({}, None, "grant_lapsed"),
        ({"schedule_all_users": "someone, else"}, days(1), "scope_not_allowed"),
        ({"schedule_all_users": "someone, u"}, days(1), None),
        ({"schedule_all_users": ""}, days(1), "scope_not_allowed"),
    ],
)
async def test_the_permission_for_all_rows_is_checked_when_a_run_is_due(
    schedules: Schedules, changes: dict[str, str], until: timedelta | None, code: str | None
) -> None:
    granted = datetime.now(UTC) + until if until is not None else None
    made = await schedules.create(scope="all", all_rows_until=granted)
    assert await schedules.scheduler(**changes).run_due(START + days(1)) == 1
    (job,) = await schedules.jobs(made)
    assert job.scope == "all"
    if code is None:
        assert job.outcome is None
    else:
        assert job.outcome["status"] == "failed"
        assert refusal(schedules.published).code == code


async def test_runs_of_one_minute_start_at_different_times_within_the_jitter(schedules: Schedules) -> None:
    ids = [uuid5(NAMESPACE_OID, str(number)) for number in range(200)]
    await schedules.create_many({"id": schedule_id, "next_run": START} for schedule_id in ids)
    late = await schedules.create(next_run=START, delay=600)
    before = datetime.now(UTC)
    await schedules.scheduler(schedule_jitter_seconds=60).run_due(START)
    lasted = datetime.now(UTC) - before
    # A run that has no jitter at all starts at once.
    waits = {job.schedule_id: (job.not_before or before) - before for job in await schedules.jobs()}
    assert timedelta(minutes=10) <= waits.pop(late) <= timedelta(minutes=12) + lasted
    delays = {schedule_id: start_delay(schedule_id, 60) for schedule_id in ids}
    assert waits.keys() == delays.keys()
    # The runs are planned one after the other, and each waits from then on. The database's clock is another.
    for schedule_id, delay in delays.items():
        assert -SECOND <= waits[schedule_id] - delay <= lasted + SECOND
    counts = Counter(delay // (15 * SECOND) for delay in delays.values())
    assert sorted(counts) == [0, 1, 2, 3]
    assert min(counts.values()) > 20


async def test_runs_that_wait_for_late_rows_do_not_count_for_the_limit_of_their_user(
    schedules: Schedules,
) -> None:
    due = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=3)
    made = await schedules.create(
        schedule="0 * * * *",
        catch_up="all",
        window="since_last_run",
        window_start=due,
        next_run=due + timedelta(hours=1),
        delay=7 * 24 * 3600,
    )
    scheduler = schedules.scheduler()
    assert await scheduler.run_due(due + timedelta(hours=3)) == 3
    data = {"user_id": "u", "export_type": "ledger", "format": "csv"}

    async def submitted() -> SubmitResult:
        event = Event(id=str(uuid4()), source="/test", type=EventType.REQUESTED, data=data)
        job = scheduler.planner.validator.job(event, now=datetime.now(UTC))
        return await schedules.queue.admission.submit(job, user_limit=2)

    assert await submitted() is SubmitResult.NEW
    async with schedules.engine.begin() as connection:
        await connection.execute(
            text("UPDATE export_jobs SET not_before = now() WHERE run_at = :at"),
            {"at": due + timedelta(hours=1)},
        )
    assert len(await schedules.jobs(made)) == 3
    assert await submitted() is SubmitResult.TOO_MANY, "a run that can start counts"


async def test_missed_runs_start_without_jitter(schedules: Schedules) -> None:
    await schedules.create(catch_up="all", delay=600)
    await schedules.scheduler().run_due(START + days(2.5))
    assert [job.not_before for job in await schedules.jobs()] == [None, None]


async def test_a_schedule_that_cannot_be_planned_is_a_failed_run_and_delays_no_other(
    schedules: Schedules,
) -> None:
    lost = await schedules.create(next_run=START)
    await schedules.set(lost, timezone="Mars/Olympus")
    healthy = await schedules.create(next_run=START)
    assert await schedules.scheduler().run_due(START) == 2
    assert len(await schedules.jobs(healthy)) == 1
    schedule = await schedules.get(lost)
    assert (schedule.active, schedule.next_run) == (False, None)
    assert "Mars/Olympus" in (schedule.paused_reason or "")
    assert schedule.paused_code == "unknown_timezone"
    (run,) = await schedules.jobs(lost)
    assert (run.run_at, run.outcome["status"], run.outcome["error"]["message"]) == (
        START,
        "failed",
        schedule.paused_reason,
    )
    assert refusal(schedules.published).code == "unknown_timezone"


async def test_a_schedule_that_cannot_be_planned_before_its_first_run_keeps_its_first_period(
    schedules: Schedules, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await schedules.create(window="previous_period")
    other = await schedules.create(window="since_last_run", window_start=START)
    with monkeypatch.context() as patch:
        patch.setattr(run_planner, "resolve_parameters", None)
        await schedules.scheduler().run_due(START + days(3))
    for schedule in (await schedules.get(made), await schedules.get(other)):
        assert (schedule.active, schedule.next_run, schedule.window_start) == (False, None, START)


async def test_an_error_in_planning_one_schedule_delays_no_other(schedules: Schedules) -> None:
    first_moment = datetime(1, 1, 1, hour=1, tzinfo=UTC)
    poisoned = await schedules.create(
        next_run=START, timezone="America/New_York", window="since_last_run", window_start=first_moment
    )
    healthy = await schedules.create(next_run=START, window="since_last_run", window_start=START - days(1))
    with capture_logs() as logs:
        assert await schedules.scheduler().run_due(START) == 2
    assert await schedules.runs(healthy) == ["03-01 00:00"]
    schedule = await schedules.get(poisoned)
    assert (schedule.active, schedule.next_run) == (False, None)
    assert (schedule.paused_reason or "").startswith("its next run cannot be planned; the operators")
    assert schedule.paused_code == "schedule_unusable"
    (entry,) = [entry for entry in logs if entry["event"] == "schedule.paused"]
    assert isinstance(entry["exc_info"], OverflowError)
    assert await schedules.runs(poisoned) == ["03-01 00:00"]
    assert refusal(schedules.published).code == "schedule_unusable"


async def test_a_schedule_without_a_valid_request_is_paused_without_a_run(schedules: Schedules) -> None:
    lost = await schedules.create(next_run=START, user_id="")
    await schedules.set(lost, window="moon")
    assert await schedules.scheduler().run_due(START) == 0
    assert "its next run cannot be planned" in ((await schedules.get(lost)).paused_reason or "")


@pytest.mark.parametrize(
    ("changes", "code"),
    [({"export_type": "gone"}, "unknown_dataset"), ({"format": "gone"}, "unknown_format")],
    ids=["dataset", "format"],
)
async def test_a_missing_dataset_or_format_fails_the_run_and_the_next_run_exports_its_window(
    schedules: Schedules, changes: dict[str, Any], code: str
) -> None:
    made = await schedules.create(window="previous_period", window_start=START, **changes)
    scheduler = schedules.scheduler()
    assert await scheduler.run_due(START + days(1)) == 1
    assert refusal(schedules.published).code == code
    (failed,) = await schedules.jobs(made)
    assert (failed.window["from"], failed.window["to"]) == (START.isoformat(), (START + days(1)).isoformat())
    await schedules.end(failed, Status.FAILED)
    await schedules.set(made, export_type="ledger", format="csv")
    assert await scheduler.run_due(START + days(2)) == 1
    last = (await schedules.jobs(made))[-1]
    assert last.outcome is None
    assert (last.window["from"], last.window["to"]) == (START.isoformat(), (START + days(2)).isoformat())
    assert last.filters["created_at"] == {"gte": "2026-03-01T00:00:00Z", "lt": "2026-03-03T00:00:00Z"}


async def test_a_window_without_a_time_column_fails_the_run(schedules: Schedules) -> None:
    """Otherwise it would export every row."""
    made = await schedules.create(window="previous_period", next_run=START)
    timeless = dict(load_datasets(DATASETS).datasets)
    timeless["ledger"] = timeless["ledger"].model_copy(update={"time": None})
    scheduler = schedules.scheduler()
    scheduler = replace(scheduler, planner=replace(scheduler.planner, datasets=timeless))
    assert await scheduler.run_due(START) == 1
    assert refusal(schedules.published).code == "no_time_column"
    (run,) = await schedules.jobs(made)
    assert run.window["to"] == START.isoformat()


async def test_a_run_on_record_is_not_started_again(schedules: Schedules) -> None:
    made = await schedules.create(next_run=START)
    await schedules.scheduler().run_due(START)
    await schedules.set(made, next_run=START)
    assert await schedules.scheduler().run_due(START) == 0
    assert len(await schedules.jobs()) == 1
    assert job_id_of(uuid4(), START) != job_id_of(made, START)
