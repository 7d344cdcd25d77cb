"""``python -m bench.schedules``: measures a tick at which 5,000 of 100,000 schedules are due."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import asyncpg
import psutil
import typer

from dev.progress import console
from dev.stack import Stack
from stream_app.settings import Settings
from streaming_exporter.events import tick_event
from streaming_exporter.publisher import Publisher

LIMIT = 5.0
"""Limit of the duration, in seconds."""

_FILL = """
    INSERT INTO scheduled_exports (
        id, user_id, export_type, format, schedule, time_of_day, timezone, day, "window", column_kinds,
        filters, email_recipients, next_run
    )
    SELECT gen_random_uuid(), 'user-' || n % 10000, 'ledger', 'csv',
        (ARRAY['daily', 'weekly', 'monthly', '0 9 * * MON-FRI'])[1 + n % 4],
        CASE WHEN n % 4 < 3 THEN '09:00' END,
        (ARRAY['UTC', 'Europe/Berlin', 'America/New_York', 'Asia/Tokyo'])[1 + n / 4 % 4],
        CASE n % 4 WHEN 1 THEN 0 WHEN 2 THEN 31 END, 'previous_period', '{"created_at": "timestamptz"}',
        '{"kind": "proof"}', '["team@example.com"]',
        $1::timestamptz + CASE WHEN n <= $3 THEN interval '0' ELSE n * interval '17 s' + interval '1 h' END
    FROM generate_series(1, $2) AS n
"""


def main(
    schedules: Annotated[int, typer.Option(help="Number of schedules")] = 100_000,
    due: Annotated[int, typer.Option(help="Number of schedules that are due")] = 5_000,
    rounds: Annotated[int, typer.Option(help="Number of ticks that are measured")] = 3,
    folder: Annotated[Path, typer.Option(help="Folder for the services' data")] = Path(
        ".local/bench-schedules"
    ),
) -> None:
    """Measure from the tick's publication to the commit of its last run, through a real worker."""
    # Runs start after the measurement, so nothing is exported.
    with Stack(folder, ledger_rows=None, settings={"EXPORTER_SCHEDULE_JITTER_SECONDS": "1e9"}) as stack:
        worker = psutil.Process(stack.start_worker().pid)
        times, spent = [], []
        for _ in range(rounds):
            before = sum(worker.cpu_times()[:2])
            times.append(asyncio.run(measure(stack, schedules, due)))
            spent.append(sum(worker.cpu_times()[:2]) - before)
    shown = ", ".join(f"{seconds:.2f} s" for seconds in times)
    shown += f"; processor time of the worker: {', '.join(f'{seconds:.2f} s' for seconds in spent)}"
    console.print(f"{due:,} of {schedules:,} schedules due in one minute: {shown} (allowed: {LIMIT:.0f} s)")
    if max(times) > LIMIT:
        raise typer.Exit(1)


async def measure(stack: Stack, schedules: int, due: int) -> float:
    """Return the seconds until all runs of one tick are recorded and all schedules are advanced.

    Raises:
        AssertionError: the number of runs is wrong.
    """
    variables = {name.removeprefix("EXPORTER_").lower(): value for name, value in stack.settings().items()}
    settings = Settings(_env_file=None, **variables)  # type: ignore[arg-type]
    connection = await asyncpg.connect(variables["database_url"])
    minute = datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(minutes=1)
    await connection.execute("TRUNCATE scheduled_exports, export_jobs")
    await connection.execute(_FILL, minute, schedules, due)
    await connection.execute("VACUUM ANALYZE scheduled_exports")
    async with Publisher(settings) as publisher:
        await publisher.check()
        start = time.perf_counter()
        await publisher.publish(tick_event(minute, source="/bench"))
        await until(lambda: connection.fetchval("SELECT count(*) >= $1 FROM export_jobs", due))
        seconds = time.perf_counter() - start
        await publisher.publish(tick_event(minute, source="/bench"))
        await asyncio.sleep(1)
    assert await connection.fetchval("SELECT count(DISTINCT schedule_id) FROM export_jobs") == due
    assert await connection.fetchval("SELECT count(*) FROM export_jobs") == due
    assert not await connection.fetchval(
        "SELECT count(*) FROM scheduled_exports WHERE next_run <= $1", minute
    )
    await connection.close()
    return seconds


async def until(reached: Callable[[], Awaitable[bool]]) -> None:
    """Wait until ``reached`` returns True."""
    async with asyncio.timeout(120):
        while not await reached():  # noqa: ASYNC110 - the database is polled
            await asyncio.sleep(0.02)


if __name__ == "__main__":
    typer.run(main)
