"""``python -m bench.parts``: one split export on one worker and on several, across a slow network."""

import asyncio
import os
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated
from uuid import uuid4

import asyncpg
import psutil
import typer

from bench.jobs import ours
from bench.throttle import throttled
from dev.app_process import AppProcess
from dev.postgres import READER, SOURCE
from dev.progress import Progress, console
from dev.stack import Stack
from stream_app.settings import Settings
from streaming_exporter.events import ExportRequest, Split
from streaming_exporter.publisher import Publisher

MEGABYTE = 2**20
LIMIT = 3.5
"""How many times as fast four workers must be as one."""

DATASET = "large"

WARM_UP = 10
"""Small jobs for each worker before the measurement, so that each has read the partitions and the catalog."""


def main(
    rows: Annotated[int, typer.Option(help="Number of rows")] = 1_000_000,
    rate: Annotated[int, typer.Option(help="MB a second of each connection to the source")] = 20,
    workers: Annotated[str, typer.Option(help="Numbers of workers, separated by commas")] = "1,4",
    kill: Annotated[
        bool, typer.Option(help="Kill the last worker when half of the rows are written")
    ] = False,
) -> None:
    """Measure a split export of the ledger. Each worker has one slot and reads over one connection."""
    with tempfile.TemporaryDirectory(prefix="bench-parts-") as temporary:
        folder = Path(temporary)
        datasets = folder / "datasets.toml"
        datasets.write_text(f'[datasets.{DATASET}]\ntable = "public.{DATASET}"\n')
        extra = {
            "EXPORTER_DATASETS_FILE": str(datasets),
            "EXPORTER_WORKER_SLOTS": "1",
            "EXPORTER_USER_SLOTS": "100",
            "EXPORTER_SOURCE_STREAMS": "1",
            "EXPORTER_PARTS_MIN_BYTES": str(MEGABYTE),
        }
        with Stack(folder / "stack", ledger_rows=rows, settings=extra, progress=Progress()) as stack:
            asyncio.run(_create_table(stack.postgres.admin_url(SOURCE)))
            url = stack.settings()["EXPORTER_SOURCE_DATABASE_URL"]
            with (
                throttled(url, rate * MEGABYTE) as slow,
                stack.configured({"EXPORTER_SOURCE_DATABASE_URL": slow}),
            ):
                os.environ.update(stack.settings())
                seconds = [_measure(stack, int(number), rows, kill) for number in workers.split(",")]
    console.print(f"load: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    console.print(f"{seconds[0] / seconds[-1]:.2f} times as fast (required of four workers: {LIMIT})")


async def _create_table(url: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(
            f"CREATE TABLE {DATASET} AS SELECT * FROM ledger ORDER BY id;"
            f"ALTER TABLE {DATASET} ADD PRIMARY KEY (id); GRANT SELECT ON {DATASET} TO {READER};"
            f"ANALYZE {DATASET}"
        )
    finally:
        await connection.close()


def _measure(stack: Stack, number: int, rows: int, kill: bool) -> float:
    """Return the seconds from the request to the final event, with ``number`` workers."""
    with ThreadPoolExecutor(number) as pool:
        started = list(pool.map(stack.start_worker, range(1, number + 1)))
    try:
        seconds, memory = asyncio.run(_export(Settings(), started, rows, kill))
    finally:
        for worker in started:
            worker.stop()
    console.print(f"{number} workers: {seconds:.2f} s, {memory / MEGABYTE:.0f} MB in the largest of them")
    return seconds


async def _export(
    settings: Settings, workers: Sequence[AppProcess], rows: int, kill: bool
) -> tuple[float, int]:
    request = ExportRequest(
        user_id="bench", export_type=DATASET, format="csv", scope="all", split=Split(rows=rows)
    )
    small = request.model_copy(update={"split": None, "filters": {"id": {"lte": 1_000}}})
    job_id, memory = uuid4(), 0
    state = await asyncpg.connect(settings.state_dsn)
    try:
        async with ours.ends(settings) as found, Publisher(settings) as publisher:
            first = [uuid4() for _ in range(WARM_UP * len(workers))]
            await asyncio.gather(*(publisher.request(small, warm_up_id) for warm_up_id in first))
            await found.wait(set(first), 120)
            began = time.perf_counter()
            await publisher.request(request, job_id)
            waiting = asyncio.create_task(found.wait({job_id}, 3_600))
            while not waiting.done():
                await asyncio.wait({waiting}, timeout=0.2)
                memory = max(memory, *(_memory(worker) for worker in workers))
                if kill and await _rows(state, job_id) > rows / 2:
                    workers[-1].kill()
                    kill = False
            await waiting
            if found.failed:
                raise RuntimeError(found.failed[0])
            return found.at[job_id] - began, memory
    finally:
        await state.close()


async def _rows(state: asyncpg.Connection, job_id: object) -> int:
    return await state.fetchval("SELECT row_count FROM export_jobs WHERE id = $1", job_id) or 0


def _memory(worker: AppProcess) -> int:
    try:
        return int(psutil.Process(worker.pid).memory_info().rss)
    except psutil.Error:
        return 0


if __name__ == "__main__":
    typer.run(main)
