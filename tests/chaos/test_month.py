"""A month of ticks in a minute: every run exactly once, whatever happens to ticks and workers."""

import asyncio
import random
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from uuid import UUID, uuid4

from aiokafka import AIOKafkaProducer
from pydantic import SecretStr
from sqlalchemy import delete, func, insert, select
from sqlalchemy.ext.asyncio import AsyncEngine

from local.stack import Stack
from stream_app.events import Topic, tick_event
from stream_app.jobs.database import create_engine
from stream_app.jobs.models import ExportJob
from stream_app.schedules.calendar import Calendar
from stream_app.schedules.models import ScheduledExport
from stream_app.settings import Settings

GROUP = {"EXPORTER_KAFKA_GROUP": "month"}
START, END = datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 4, 1, tzinfo=UTC)
"""Clocks change in America on the 8th, in Africa on the 22nd, in Europe on the 29th."""

ZONES = [
    "UTC", "Europe/Berlin", "Europe/London", "America/New_York", "America/Sao_Paulo", "America/St_Johns",
    "Africa/Casablanca", "Asia/Kolkata", "Asia/Kathmandu", "Asia/Tokyo", "Australia/Lord_Howe",
    "Pacific/Apia",
]  # fmt: skip
KINDS = ["daily"] * 6 + ["weekly"] * 2 + ["monthly", "0 */6 * * *"]
YEARS = 3 * 365 * 24 * 3600
"""Seconds: what is started here is not to be exported, which is another test's matter."""


def orders() -> list[dict[str, Any]]:
    """Two hundred schedules, due at every quarter of an hour."""
    dice = random.Random(17)
    found = []
    for number in range(200):
        kind = KINDS[number % len(KINDS)]
        at = f"{dice.randrange(24):02}:{dice.choice(['00', '15', '30', '45'])}" if len(kind) < 10 else None
        day = {"weekly": dice.randrange(7), "monthly": dice.choice([1, 15, 31])}.get(kind)
        zone = ZONES[number % len(ZONES)]
        calendar = Calendar.of(kind, timezone=zone, time_of_day=at, day=day)
        found.append(
            {
                "id": uuid4(),
                "user_id": f"month-{number}",
                "export_type": "ledger",
                "format": "csv",
                "schedule": kind,
                "time_of_day": at,
                "timezone": zone,
                "day": day,
                "window": ["previous_period", "since_last_run"][number % 2],
                "catch_up": ["last", "all"][number // 2 % 2],
                "delay": YEARS,
                "next_run": calendar.next_run(START),
                "column_kinds": {"created_at": "timestamptz"},
            }
        )
    return found


def due(order: dict[str, Any]) -> list[datetime]:
    """Every run of the month."""
    names = ("timezone", "time_of_day", "day")
    calendar = Calendar.of(order["schedule"], **{name: order[name] for name in names})
    return calendar.latest(START, END, 10_000)


def ticks() -> list[datetime]:
    """One an hour, as if the other 59 were lost; of these too some are lost, some come twice, some late."""
    dice = random.Random(4)
    found = []
    for number in range(31 * 24):
        at = START + number * timedelta(hours=1)
        found += [at] * dice.choices([0, 1, 2], [1, 8, 1])[0]
        if dice.random() < 0.05:
            found.append(dice.choice(found))
    return [*found, END]


async def test_a_month_of_ticks(stack: Stack) -> None:
    wanted = {order["id"]: order for order in orders()}
    expected = {key: due(order) for key, order in wanted.items()}
    total = sum(map(len, expected.values()))
    moments = ticks()
    third = len(moments) // 3
    async with workers(stack, 2) as running, database(stack) as engine:
        await add(engine, wanted.values())
        await publish(stack, moments[:third])
        await reached(engine, total // 10)
        await asyncio.to_thread(running[0].kill)
        await publish(stack, moments[third : 2 * third])
        running.append(await asyncio.to_thread(stack.start_worker, settings=GROUP))
        await reached(engine, total // 2)
        await asyncio.to_thread(running[1].kill)
        await publish(stack, moments[2 * third :])
        await reached(engine, total)
        await asyncio.sleep(1)
        runs = await found_runs(engine)
    assert {key: [at for at, _ in found] for key, found in runs.items()} == expected
    for found in runs.values():
        windows = [window for _, window in found]
        assert all(first["to"] == second["from"] for first, second in pairwise(windows))
        times = [[datetime.fromisoformat(window[end]) for end in ("from", "to")] for window in windows]
        assert all(start < end for start, end in times)


@asynccontextmanager
async def workers(stack: Stack, count: int) -> AsyncIterator[list[Any]]:
    starts = (asyncio.to_thread(stack.start_worker, number, GROUP) for number in range(70, 70 + count))
    running = list(await asyncio.gather(*starts))
    try:
        yield running
    finally:
        for worker in running:
            await asyncio.to_thread(worker.kill)


@asynccontextmanager
async def database(stack: Stack) -> AsyncIterator[AsyncEngine]:
    """The state database, which has nothing of this left at the end."""
    url = stack.settings()["EXPORTER_DATABASE_URL"]
    settings = Settings(_env_file=None, database_url=SecretStr(url))  # type: ignore[call-arg]
    engine = create_engine(settings, application="test")
    try:
        yield engine
    finally:
        async with engine.begin() as connection:
            await connection.execute(delete(ScheduledExport).where(ScheduledExport.user_id.like("month-%")))
            await connection.execute(delete(ExportJob).where(ExportJob.user_id.like("month-%")))
        await engine.dispose()


async def add(engine: AsyncEngine, rows: Iterable[dict[str, Any]]) -> None:
    async with engine.begin() as connection:
        await connection.execute(insert(ScheduledExport), list(rows))


async def publish(stack: Stack, moments: Iterable[datetime]) -> None:
    servers = stack.settings()["EXPORTER_KAFKA_BOOTSTRAP_SERVERS"]
    async with AIOKafkaProducer(bootstrap_servers=servers) as producer:
        events = [tick_event(at, source="/t") for at in moments]
        sent = [await producer.send(Topic.TICKS, event.encode(), key=event.key) for event in events]
        await asyncio.gather(*sent)


async def reached(engine: AsyncEngine, count: int, *, within: float = 90) -> None:
    """Wait until there are ``count`` runs."""
    deadline = time.monotonic() + within
    statement = select(func.count()).where(ExportJob.user_id.like("month-%"))
    while True:
        async with engine.connect() as connection:
            found = await connection.scalar(statement) or 0
        if found >= count:
            return
        assert time.monotonic() < deadline, f"{found} of {count} runs after {within} s"
        await asyncio.sleep(0.2)


async def found_runs(engine: AsyncEngine) -> dict[UUID, list[tuple[datetime, Any]]]:
    statement = select(ExportJob.schedule_id, ExportJob.run_at, ExportJob.window)
    statement = statement.where(ExportJob.user_id.like("month-%")).order_by(ExportJob.run_at)
    runs = defaultdict(list)
    async with engine.connect() as connection:
        for key, at, window in await connection.execute(statement):
            runs[key].append((at, window))
    return dict(runs)
