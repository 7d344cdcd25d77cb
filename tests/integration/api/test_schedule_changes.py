"""A change of a schedule loses no run, no day and no row, and exports none of them twice."""

from collections.abc import AsyncIterator, Iterable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Any
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import asyncpg
import pytest
import pytest_asyncio
from sqlalchemy import insert, select, update

from stream_app.datasets.bundles import Bundle, BundleSettings
from stream_app.datasets.file import DatasetsFile
from stream_app.datasets.models import Dataset
from stream_app.datasets.registry import Datasets
from stream_app.db.engine import autocommitting
from stream_app.exports.tables.catalog import Catalog
from stream_app.jobs.models import ExportJob
from stream_app.schedules.models import ScheduledExport, ScheduleGap
from stream_app.schedules.run_planner import RunPlanner
from stream_app.worker.scheduler import Scheduler
from streaming_exporter.events import Event
from tests.integration.api.conftest import Harness
from tests.integration.api.test_schedules import made, path
from tests.integration.schedules.conftest import producer

DAY = timedelta(days=1)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def schema(source_dsn: str) -> AsyncIterator[str]:
    """A schema with empty tables of days and of times, which no test changes."""
    name = f"test_{uuid4().hex[:8]}"
    database = await asyncpg.connect(source_dsn)
    await database.execute(
        f"""
        CREATE SCHEMA {name}; GRANT USAGE ON SCHEMA {name} TO PUBLIC;
        CREATE TABLE {name}.sales (id int PRIMARY KEY, owner text, day date);
        CREATE TABLE {name}.visits (id int PRIMARY KEY, owner text, at timestamptz);
        GRANT SELECT ON ALL TABLES IN SCHEMA {name} TO PUBLIC
        """
    )
    yield name
    await database.execute(f"DROP SCHEMA {name} CASCADE")
    await database.close()


@pytest_asyncio.fixture(loop_scope="module")
async def shop(api: Harness, schema: str) -> Harness:
    """The API with a dataset of days, one of times, and a bundle of both."""
    sales = Dataset(name="sales", table=f"{schema}.sales", owner="owner", time="day")
    visits = Dataset(name="visits", table=f"{schema}.visits", owner="owner", time="at")
    both = Bundle.of(BundleSettings(name="both", datasets=("sales", "visits")), (sales, visits))
    known = api.services
    content = DatasetsFile(datasets={"sales": sales, "visits": visits}, bundles={"both": both})
    datasets = Datasets(content)
    api.use(
        datasets=datasets,
        validator=replace(known.validator, datasets=datasets),
        catalog=Catalog(known.estimate_sources),
    )
    return api


async def store(api: Harness, schedule: dict[str, Any], **values: Any) -> None:
    """Change the row of a schedule."""
    async with api.engine.begin() as connection:
        row = update(ScheduledExport).where(ScheduledExport.id == UUID(schedule["id"]))
        await connection.execute(row.values(**values))


async def add_gaps(api: Harness, schedule: dict[str, Any], *limits: datetime) -> None:
    """Add gaps from each limit to the next one."""
    async with api.engine.begin() as connection:
        for start, end in pairwise(limits):
            values = {"schedule_id": UUID(schedule["id"]), "window_start": start, "window_end": end}
            await connection.execute(insert(ScheduleGap).values(values))


async def gaps(api: Harness) -> list[tuple[datetime, datetime]]:
    async with api.engine.connect() as connection:
        rows = select(ScheduleGap.window_start, ScheduleGap.window_end).order_by(ScheduleGap.window_start)
        return [(row[0], row[1]) for row in await connection.execute(rows)]


ZONES = [
    ("Europe/Berlin", "America/New_York"),
    ("America/New_York", "Europe/Berlin"),
    ("UTC", "Asia/Tokyo"),
    ("Pacific/Kiritimati", "Pacific/Honolulu"),
]


@pytest.mark.parametrize(("old", "new"), ZONES)
@pytest.mark.parametrize("hour", [0, 20])
async def test_another_time_zone_repeats_and_loses_no_day(
    shop: Harness, old: str, new: str, hour: int
) -> None:
    """The file before has the days before the first of March, in the zone of then."""
    begin = datetime(2026, 3, 1, hour, tzinfo=ZoneInfo(old))
    async with shop.user() as client:
        schedule = await made(client, export_type="sales", window="since_last_run", timezone=old)
        await store(shop, schedule, window_start=begin)
        await add_gaps(shop, schedule, begin - 3 * DAY, begin - 2 * DAY, begin - DAY)
        answer = await client.patch(path(schedule), json={"timezone": new})
        assert answer.status_code == 200, answer.text
        ran = await client.post(path(schedule, ":run"))
        assert ran.status_code == 202, ran.text
    job = await shop.queries.get(UUID(ran.json()["export_job_id"]))
    assert job is not None
    assert job.filters["day"]["gte"] == "2026-03-01"
    days = [tuple(moment.astimezone(ZoneInfo(new)).date() for moment in gap) for gap in await gaps(shop)]
    assert days == [
        (date(2026, 2, 26), date(2026, 2, 27)),
        (date(2026, 2, 27), date(2026, 2, 28)),
    ]


async def test_another_time_zone_moves_no_window_of_times(shop: Harness) -> None:
    begin = datetime(2026, 3, 1, tzinfo=ZoneInfo("Europe/Berlin"))
    async with shop.user() as client:
        schedule = await made(
            client, export_type="visits", window="previous_period", timezone="Europe/Berlin"
        )
        await store(shop, schedule, window_start=begin)
        await add_gaps(shop, schedule, begin - DAY, begin)
        changed = (await client.patch(path(schedule), json={"timezone": "America/New_York"})).json()
    assert datetime.fromisoformat(changed["window_from"]) == begin
    assert await gaps(shop) == [(begin - DAY, begin)]


async def test_another_time_zone_for_days_and_times_needs_the_begin_of_the_next_window(shop: Harness) -> None:
    async with shop.user() as client:
        schedule = await made(client, export_type="both", format="excel", window="since_last_run")
        refused = await client.patch(path(schedule), json={"timezone": "Asia/Tokyo"})
        assert (refused.status_code, refused.json()["field"]) == (422, "timezone")
        assert "window_from" in refused.json()["detail"]
        change = {"timezone": "Asia/Tokyo", "window_from": "2026-03-01T00:00:00Z"}
        assert (await client.patch(path(schedule), json=change)).status_code == 200


async def test_the_time_zone_of_days_and_times_waits_for_runs_and_gaps(shop: Harness) -> None:
    """Their windows cannot move, so in the new zone they would repeat a day or leave it out."""
    begin = datetime(2026, 3, 1, tzinfo=UTC)
    change = {"timezone": "Asia/Tokyo", "window_from": begin.isoformat()}
    async with shop.user() as client:
        schedule = await made(
            client,
            export_type="both",
            format="excel",
            window="since_last_run",
            window_from=(begin - DAY).isoformat(),
        )
        job_id = (await client.post(path(schedule, ":run"))).json()["export_job_id"]
        await add_gaps(shop, schedule, begin - 3 * DAY, begin - 2 * DAY)
        refused = await client.patch(path(schedule), json=change)
        assert (refused.status_code, refused.json()["code"]) == (409, "runs_unfinished")
        await shop.set(job_id, status="completed")
        refused = await client.patch(path(schedule), json=change)
        assert (refused.status_code, refused.json()["code"]) == (409, "gaps_left")
        assert (begin - 3 * DAY).isoformat() in refused.json()["detail"]
        assert (await client.get(path(schedule))).json()["timezone"] == "UTC"
        assert await gaps(shop) == [(begin - 3 * DAY, begin - 2 * DAY)]
        same_zone = {"window_from": begin.isoformat()}
        assert (await client.patch(path(schedule), json=same_zone)).status_code == 200
        assert await gaps(shop) == [(begin - 3 * DAY, begin - 2 * DAY)]
        change["window_from"] = (begin - 3 * DAY).isoformat()
        assert (await client.patch(path(schedule), json=change)).status_code == 200
        assert await gaps(shop) == []


async def test_the_time_zone_of_days_waits_for_the_end_of_runs(shop: Harness) -> None:
    """If such a run fails, its days must be exported again, and they are those of the old zone."""
    async with shop.user() as client:
        schedule = await made(
            client, export_type="sales", window="since_last_run", window_from="2026-03-01T00:00:00Z"
        )
        job_id = (await client.post(path(schedule, ":run"))).json()["export_job_id"]
        refused = await client.patch(path(schedule), json={"timezone": "Asia/Tokyo"})
        assert (refused.status_code, refused.json()["code"]) == (409, "runs_unfinished")
        assert (await client.patch(path(schedule), json={"time_of_day": "09:00"})).status_code == 200
        await shop.set(job_id, status="completed")
        assert (await client.patch(path(schedule), json={"timezone": "Asia/Tokyo"})).status_code == 200


@pytest.mark.parametrize(
    "change", [{"time_of_day": "09:00"}, {"schedule": "weekly"}, {"timezone": "Asia/Tokyo"}]
)
async def test_a_run_that_is_due_takes_place_after_a_change_of_the_calendar(
    api: Harness, change: dict[str, Any]
) -> None:
    """Its tick comes after the change."""
    due = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=1)
    async with api.user() as client:
        schedule = await made(client)
        await store(api, schedule, next_run=due)
        changed = (await client.patch(path(schedule), json=change)).json()
        assert datetime.fromisoformat(changed["next_run"]) == due
        paused = (await client.patch(path(schedule), json={"active": False})).json()
        assert paused["next_run"] is None
        resumed = (await client.patch(path(schedule), json={"active": True})).json()
        assert datetime.fromisoformat(resumed["next_run"]) > due


async def tick(api: Harness, at: datetime) -> int:
    """Start the runs that are due, as a worker does at a tick; return how many."""

    async def publish_nothing(_: Iterable[Event]) -> None: ...

    services = api.app.state.services
    planner = RunPlanner(services.validator, services.datasets, api.settings)
    scheduler = Scheduler(autocommitting(api.engine), producer(publish_nothing), planner, api.settings)
    return await scheduler.run_due(at)


@pytest.mark.parametrize(
    "change", [{"schedule": "weekly"}, {"schedule": "monthly"}, {"timezone": "Asia/Tokyo"}]
)
async def test_a_run_that_is_due_has_the_period_of_its_own_calendar(
    api: Harness, change: dict[str, Any]
) -> None:
    """With another calendar its window would be empty, or a whole other period."""
    due = datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(minutes=1)
    today = due.replace(hour=0, minute=0)
    async with api.user() as client:
        schedule = await made(client, window="previous_period", time_of_day=f"{due:%H:%M}")
        await store(api, schedule, next_run=due, window_start=today - DAY)
        estimate = await client.post(path(schedule, ":estimate"), json=change)
        assert estimate.status_code == 200, estimate.text
        answer = await client.patch(path(schedule), json=change)
        assert await tick(api, due) == 1
        async with api.engine.connect() as connection:
            window = (await connection.execute(select(ExportJob.window))).scalar_one()
        assert window is not None
        found = [datetime.fromisoformat(window[limit]) for limit in ("from", "to")]
        assert found == [today - DAY, today]
        assert (answer.status_code, answer.json()["code"]) == (409, "run_due")
        assert answer.json()["field"] in change
        assert (await client.patch(path(schedule), json=change)).status_code == 200


async def test_a_run_is_repeated_after_its_time_column_became_one_of_dates(shop: Harness) -> None:
    begin = datetime(2026, 3, 1, tzinfo=UTC)
    window = {"column": "day", "from": begin.isoformat(), "to": (begin + DAY).isoformat(), "timezone": "UTC"}
    async with shop.user() as client:
        answer = await client.post("/exports/jobs", json={"export_type": "sales", "format": "csv"})
        job = answer.json()["export_job_id"]
        limits = {"gte": "2026-03-01T00:00:00Z", "lt": "2026-03-02T00:00:00Z"}
        await shop.set(job, filters={"day": limits}, window=window, status="failed")
        again = await client.post(f"/exports/jobs/{job}:rerun")
    assert again.status_code == 202, again.text


@pytest.mark.parametrize(
    "paused",
    [
        {"active": False},
        {"active": False, "format": "json"},
        {"active": False, "schedule": "monthly"},
        {"active": False, "window": "since_last_run"},
    ],
)
@pytest.mark.parametrize("is_due", [True, False])
async def test_a_pause_before_the_first_run_does_not_skip_its_period(
    api: Harness, paused: dict[str, Any], is_due: bool
) -> None:
    first = datetime(2026, 3, 2, tzinfo=UTC) if is_due else datetime(2099, 3, 2, tzinfo=UTC)
    async with api.user() as client:
        schedule = await made(client, window="previous_period")
        await store(api, schedule, next_run=first)
        changed = await client.patch(path(schedule), json=paused)
        assert changed.status_code == 200, changed.text
        assert datetime.fromisoformat(changed.json()["window_from"]) == first - DAY
        resumed = (await client.patch(path(schedule), json={"active": True})).json()
        assert datetime.fromisoformat(resumed["window_from"]) == first - DAY


@pytest.mark.parametrize("resumed", [{"active": True}, {"active": True, "schedule": "weekly"}])
async def test_a_schedule_that_was_paused_for_failures_before_its_first_run_keeps_its_period(
    api: Harness, resumed: dict[str, Any]
) -> None:
    """Additional runs can fail before the first run is due."""
    async with api.user() as client:
        schedule = await made(client, window="previous_period", time_of_day="06:00")
        await store(api, schedule, active=False, next_run=None, paused_at=datetime(2026, 3, 2, 7, tzinfo=UTC))
        changed = (await client.patch(path(schedule), json=resumed)).json()
        assert datetime.fromisoformat(changed["window_from"]) == datetime(2026, 3, 2, tzinfo=UTC)
        never = await made(client, window="previous_period", active=False)
        assert (await client.patch(path(never), json=resumed)).json()["window_from"] is None


async def test_a_gap_behind_the_begin_of_the_next_window_is_not_exported_twice(api: Harness) -> None:
    begin = datetime(2026, 3, 10, tzinfo=UTC)
    async with api.user() as client:
        schedule = await made(client, window="since_last_run", window_from=begin.isoformat())
        other = await made(client, window="since_last_run", window_from=begin.isoformat())
        await add_gaps(api, schedule, *(begin - days * DAY for days in (6, 4, 2, 1)))
        assert (await client.patch(path(schedule), json={"delay": 5})).status_code == 200
        assert len(await gaps(api)) == 3
        await add_gaps(api, other, begin - 9 * DAY, begin)
        back = begin - 3 * DAY
        assert (await client.patch(path(schedule), json={"window_from": back.isoformat()})).status_code == 200
        assert await gaps(api) == [
            (begin - 9 * DAY, begin),
            (begin - 6 * DAY, begin - 4 * DAY),
            (begin - 4 * DAY, back),
        ]
        assert (await client.patch(path(schedule), json={"window": "none"})).status_code == 200
        assert await gaps(api) == [(begin - 9 * DAY, begin)]
