"""Every window is in exactly one file, whichever runs fail (R10); no run starts too early (R3)."""

import random
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Row, text
from structlog.testing import capture_logs

from stream_app.datasets.destination_paths import JobFacts, PathPattern
from stream_app.destinations.placement import path_facts
from stream_app.destinations.progress import DeliveryProgress
from stream_app.jobs.states import UNFINISHED, Status
from stream_app.notifications.notification import Notification
from stream_app.schedules.store import ScheduleStore
from tests.integration.schedules.conftest import START, Schedules, days

HOUR = timedelta(hours=1)

SEEDS = [0, 1, 4, 7, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (2, 5, 6, 9))]
"""The quick ones choose each kind of windows with each way to catch up."""


def window(job: Row[Any]) -> tuple[datetime, datetime]:
    return datetime.fromisoformat(job.window["from"]), datetime.fromisoformat(job.window["to"])


async def gaps(schedules: Schedules) -> int:
    async with schedules.engine.connect() as connection:
        return await connection.scalar(text("SELECT count(*) FROM schedule_gaps")) or 0


@pytest.mark.parametrize("kind", ["previous_period", "since_last_run"])
async def test_a_lost_window_before_a_later_run_gets_an_additional_run(
    schedules: Schedules, kind: str
) -> None:
    made = await schedules.create(window=kind, window_start=START)
    scheduler = schedules.scheduler()
    assert await scheduler.run_due(START + days(1)) == 1
    assert await scheduler.run_due(START + days(2)) == 1
    first, second = await schedules.jobs(made)
    await schedules.end(first, Status.FAILED)
    await schedules.end(second, Status.COMPLETED)
    assert await gaps(schedules) == 1
    assert await scheduler.run_due(START + days(3)) == 2
    assert await gaps(schedules) == 0
    made_up, third = sorted((await schedules.jobs(made))[2:], key=window)
    assert window(made_up) == window(first)
    assert window(third)[0] == window(second)[1]
    await schedules.end(made_up, Status.FAILED)
    await schedules.end(third, Status.COMPLETED)
    assert await scheduler.run_due(START + days(4)) == 2, "made up for again, with the next run"


async def test_a_made_up_window_counts_as_requested_before_the_regular_run_and_has_an_own_time_in_paths(
    schedules: Schedules,
) -> None:
    made = await schedules.create(window="since_last_run", window_start=START)
    scheduler = schedules.scheduler()
    for day in (1, 2, 3):
        await scheduler.run_due(START + days(day))
    first, second, third = await schedules.jobs(made)
    await schedules.end(second, Status.FAILED, max_failures=10)
    await schedules.end(first, Status.FAILED, max_failures=10)
    await schedules.end(third, Status.COMPLETED)
    assert await scheduler.run_due(START + days(4)) == 3
    found = sorted((await schedules.jobs(made))[3:], key=lambda job: job.created_at)
    assert [window(job)[0] for job in found] == [START, START + days(1), START + days(3)]
    assert len({job.created_at for job in found}) == 3
    pattern = PathPattern.parse("{date}/{time}-{number}.{extension}")
    paths = [pattern.path(facts(job), file_name="a.csv", number=1) for job in found]
    assert paths == [
        "2026-03-05/000000-20260301T000000-1.csv",
        "2026-03-05/000000-20260302T000000-1.csv",
        "2026-03-05/000000-1.csv",
    ]


def facts(job: Row[Any]) -> JobFacts:
    row = dict.fromkeys(
        ("revoked_at", "unsubscribed", "suppressed", "schedule", "progress", "paused", "sent_to")
    )
    claimed = {"delivery_id": job.id, "attempts": 1, "address": "acme", "due_at": job.created_at, "host": ""}
    about = {"job_id": job.id, "event": "completed", "gone": False, **claimed}
    notification = Notification.from_row({**row, **job._mapping, **about})
    assert notification.requested is not None
    return path_facts(notification, notification.requested, DeliveryProgress("p", "UTC", None))


@pytest.mark.parametrize("seed", SEEDS)
async def test_windows_have_no_gaps_and_no_overlaps_whichever_runs_fail(
    schedules: Schedules, seed: int
) -> None:
    """Runs end in any order, long after later runs were planned. At the end each moment is in one file."""
    chance = random.Random(seed)
    kind, every = chance.choice(["previous_period", "since_last_run"]), chance.choice(["last", "all"])
    made = await schedules.create(
        schedule="0 * * * *", window=kind, window_start=START, catch_up=every, next_run=START + HOUR
    )
    scheduler = schedules.scheduler()

    async def end_some(share: float, outcomes: list[Status]) -> None:
        waiting = [job for job in await schedules.jobs(made) if job.status in UNFINISHED]
        for job in chance.sample(waiting, round(share * len(waiting))):
            await schedules.end(job, chance.choice(outcomes), max_failures=10_000)

    at = START
    for _ in range(12):
        at += chance.choice([HOUR, HOUR, 2 * HOUR, 5 * HOUR])
        await scheduler.run_due(at)
        await end_some(chance.random(), [Status.COMPLETED, Status.FAILED, Status.CANCELLED])
    for _ in range(4):
        await end_some(1, [Status.COMPLETED])
        at += HOUR
        await scheduler.run_due(at)
    await end_some(1, [Status.COMPLETED])
    files = sorted(window(job) for job in await schedules.jobs(made) if job.status == "completed")
    assert files[0][0] == START
    assert all(one[1] == other[0] for one, other in pairwise(files)), f"seed {seed}"
    assert files[-1][1] == at
    assert await gaps(schedules) == 0


@pytest.mark.parametrize(("moved_to", "lost"), [(12, [(0, 12)]), (36, [(0, 24)]), (0, [])])
async def test_what_a_lost_run_had_before_the_new_begin_of_the_next_window_is_a_gap(
    schedules: Schedules, moved_to: int, lost: list[tuple[int, int]]
) -> None:
    """The owner moves the begin while the run takes place. The next run exports what lies behind it."""
    made = await schedules.create(window="since_last_run", window_start=START)
    await schedules.scheduler().run_due(START + days(1))
    await schedules.set(made, window_start=START + moved_to * HOUR)
    (run,) = await schedules.jobs(made)
    await schedules.end(run, Status.FAILED)
    async with schedules.engine.connect() as connection:
        rows = await connection.execute(text("SELECT window_start, window_end FROM schedule_gaps"))
        assert [((row[0] - START) / HOUR, (row[1] - START) / HOUR) for row in rows] == lost
    assert (await schedules.get(made)).window_start == START + moved_to * HOUR


def in_hours(limits: Iterable[tuple[datetime, datetime]]) -> list[tuple[float, float]]:
    return [((start - START) / HOUR, (end - START) / HOUR) for start, end in limits]


@pytest.mark.parametrize(
    ("order", "lost"),
    [
        ("first", [(0, 12)]),
        ("first, second", [(0, 12), (12, 48)]),
        ("second, first", [(0, 12), (12, 48)]),
        ("first, second, third", [(0, 12)]),
        ("third, second, first", [(0, 12)]),
    ],
)
async def test_what_a_later_run_does_not_contain_of_a_lost_window_is_exported_once(
    schedules: Schedules, order: str, lost: list[tuple[float, float]]
) -> None:
    """The owner moves the begin back into the window of a run that takes place, for rows that came late."""
    made = await schedules.create(window="since_last_run", window_start=START)
    scheduler = schedules.scheduler()
    await scheduler.run_due(START + days(1))
    await schedules.set(made, window_start=START + 12 * HOUR)
    await scheduler.run_due(START + days(2))
    await scheduler.run_due(START + days(3))
    runs = dict(zip(("first", "second", "third"), await schedules.jobs(made), strict=True))
    for name in order.split(", "):
        await schedules.end(runs.pop(name), Status.FAILED, max_failures=10)
    async with schedules.engine.connect() as connection:
        rows = await connection.execute(
            text("SELECT window_start, window_end FROM schedule_gaps ORDER BY window_start")
        )
        assert in_hours((row[0], row[1]) for row in rows) == lost
    for run in runs.values():
        await schedules.end(run, Status.COMPLETED)
    await scheduler.run_due(START + days(4))
    for run in await schedules.jobs(made):
        if run.status in UNFINISHED:
            await schedules.end(run, Status.COMPLETED)
    files = sorted(window(job) for job in await schedules.jobs(made) if job.status == "completed")
    assert files[0][0] == START
    assert all(one[1] == other[0] for one, other in pairwise(files)), in_hours(files)
    assert files[-1][1] == START + days(4)


@pytest.mark.parametrize("seed", SEEDS)
async def test_each_moment_is_in_a_file_wherever_the_owner_moves_the_begin(
    schedules: Schedules, seed: int
) -> None:
    """Runs end in any order, and the begin moves back by minutes while they take place."""
    chance = random.Random(seed)
    made = await schedules.create(
        schedule="0 * * * *", window="since_last_run", window_start=START, next_run=START + HOUR
    )
    scheduler = schedules.scheduler()
    at = START
    for step in range(14):
        at += HOUR
        await scheduler.run_due(at)
        waiting = [job for job in await schedules.jobs(made) if job.status in UNFINISHED]
        share = 1 if step > 10 else chance.random()
        outcomes = [Status.COMPLETED] if step > 10 else [Status.COMPLETED, Status.FAILED, Status.CANCELLED]
        for job in chance.sample(waiting, round(share * len(waiting))):
            await schedules.end(job, chance.choice(outcomes), max_failures=10_000)
        known = (await schedules.get(made)).window_start
        if known is not None and step < 10 and chance.random() < 0.5:
            back = max(START, known - chance.randrange(1, 150) * timedelta(minutes=1))
            async with ScheduleStore(schedules.engine).transaction() as connection:
                await ScheduleStore.end_gaps(connection, made, back)
            await schedules.set(made, window_start=back)
    reached = START
    for start, end in sorted(window(job) for job in await schedules.jobs(made) if job.status == "completed"):
        assert start <= reached, f"seed {seed}: nothing from {reached} to {start}"
        reached = max(reached, end)
    assert reached == at
    assert await gaps(schedules) == 0


@pytest.mark.parametrize("kind", ["previous_period", "since_last_run"])
async def test_a_run_before_the_begin_of_the_next_window_is_no_job_and_gaps_are_exported(
    schedules: Schedules, kind: str
) -> None:
    """The owner wants no rows for some days."""
    made = await schedules.create(window=kind, window_start=START)
    scheduler = schedules.scheduler()
    await scheduler.run_due(START + days(1))
    await scheduler.run_due(START + days(2))
    first, second = await schedules.jobs(made)
    await schedules.set(made, window_start=START + days(5))
    await schedules.end(first, Status.FAILED)
    await schedules.end(second, Status.COMPLETED)
    assert await scheduler.run_due(START + days(3)) == 1
    with capture_logs() as logs:
        assert await scheduler.run_due(START + days(4)) == 0
        assert await scheduler.run_due(START + days(5)) == 0
    left_out = [entry for entry in logs if entry["event"] == "schedule.run_left_out"]
    assert [entry["run_at"] for entry in left_out] == [(START + days(day)).isoformat() for day in (4, 5)]
    assert {entry["schedule_id"] for entry in left_out} == {str(made)}
    schedule = await schedules.get(made)
    assert (schedule.next_run, schedule.window_start) == (START + days(6), START + days(5))
    assert await scheduler.run_due(START + days(6)) == 1
    windows = [window(job) for job in await schedules.jobs(made)]
    assert in_hours(windows) == [(0, 24), (24, 48), (0, 24), (120, 144)]


async def test_a_gap_is_deleted_with_its_schedule(schedules: Schedules) -> None:
    made = await schedules.create(window="since_last_run", window_start=START)
    scheduler = schedules.scheduler()
    await scheduler.run_due(START + days(1))
    await scheduler.run_due(START + days(2))
    (first, _) = await schedules.jobs(made)
    await schedules.end(first, Status.CANCELLED)
    assert await gaps(schedules) == 1
    assert await ScheduleStore(schedules.engine).delete(UUID(str(made)), user_id=None)
    assert await gaps(schedules) == 0


@pytest.mark.parametrize("delay", [0, 3_600])
async def test_no_run_starts_before_the_databases_clock_has_passed_its_window(
    schedules: Schedules, delay: int
) -> None:
    """R3: a tick can come a little early, because another machine's clock is ahead."""
    due = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=50)
    made = await schedules.create(
        window="since_last_run", window_start=due - HOUR, next_run=due, delay=delay, schedule="0 0 * * *"
    )
    scheduler = schedules.scheduler(schedule_jitter_seconds=0)
    assert await scheduler.run_due(due) == 1
    (job,) = await schedules.jobs(made)
    assert window(job)[1] == due
    assert job.not_before >= due + timedelta(seconds=delay)
    assert await schedules.queue.claim("w", 10) == []


async def test_a_schedule_that_changes_while_it_is_planned_is_planned_again(schedules: Schedules) -> None:
    made = await schedules.create(next_run=START)
    scheduler = schedules.scheduler()
    due = await scheduler._due(START)
    await schedules.set(made, active=False, next_run=None)
    assert await scheduler._run_batch(due, START) == (0, 0)
    assert await schedules.jobs(made) == []
