"""``python -m bench.parts``: one split export on one worker and on several, across a slow network.

With ``--kill`` a worker dies that does not hold the export's snapshot. Then only its parts are to be claimed
again. DuckDB reads all files and checks that they have each row once.
"""

import asyncio
import os
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated
from uuid import UUID, uuid4

import asyncpg
import duckdb
import psutil
import typer
from minio import Minio

from bench.jobs import ours
from bench.throttle import throttled
from dev.app_process import AppProcess
from dev.postgres import READER, SOURCE
from dev.progress import Progress, console
from dev.s3 import BUCKET
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


@dataclass
class Measured:
    """One export.

    Attributes:
        memory: the most bytes that a worker held over what it held before.
        claims: how often each part was claimed.
    """

    seconds: float = 0.0
    memory: int = 0
    claims: dict[int, int] = field(default_factory=dict)

    @property
    def repeated(self) -> list[int]:
        """The parts that were claimed more than once."""
        return sorted(number for number, claims in self.claims.items() if claims > 1)


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
    if len(seconds) > 1:
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
    """Return the seconds from the request to the final event, with ``number`` workers.

    Raises:
        RuntimeError: the files do not have each row once.
    """
    with ThreadPoolExecutor(number) as pool:
        started = list(pool.map(stack.start_worker, range(1, number + 1)))
    job_id = uuid4()
    try:
        measured = asyncio.run(_export(Settings(), job_id, started, rows, kill))
    finally:
        for worker in started:
            worker.stop()
    console.print(
        f"{number} workers: {measured.seconds:.2f} s, {measured.memory / MEGABYTE:.0f} MB over idle in the "
        f"largest of them; claimed again: {len(measured.repeated)} of {len(measured.claims)} parts"
    )
    keys = asyncio.run(_keys(Settings(), job_id))
    _check_rows(stack.s3.client(), keys, rows)
    console.print(f"{len(keys)} files have each of {rows:,} rows once")
    return measured.seconds


async def _export(
    settings: Settings, job_id: UUID, workers: Sequence[AppProcess], rows: int, kill: bool
) -> Measured:
    request = ExportRequest(
        user_id="bench", export_type=DATASET, format="csv", scope="all", split=Split(rows=rows)
    )
    small = request.model_copy(update={"split": None, "filters": {"id": {"lte": 1_000}}})
    measured = Measured()
    state = await asyncpg.connect(settings.state_dsn)
    try:
        async with ours.stages(settings) as found, Publisher(settings) as publisher:
            first = [uuid4() for _ in range(WARM_UP * len(workers))]
            await asyncio.gather(*(publisher.request(small, warm_up_id) for warm_up_id in first))
            await found.wait(set(first), 120)
            idle = {worker.pid: _memory(worker) for worker in workers}
            began = time.perf_counter()
            await publisher.request(request, job_id)
            waiting = asyncio.create_task(found.wait({job_id}, 3_600))
            while not waiting.done():
                await asyncio.wait({waiting}, timeout=0.2)
                over = [_memory(worker) - idle[worker.pid] for worker in workers if worker.pid in idle]
                measured.memory = max(measured.memory, *over)
                for number, claims in await state.fetch(_CLAIMS, job_id):
                    measured.claims[number] = max(claims, measured.claims.get(number, 0))
                job = await state.fetchrow("SELECT row_count, worker FROM export_jobs WHERE id = $1", job_id)
                if kill and job is not None and (job["row_count"] or 0) > rows / 2:
                    next(worker for worker in workers if not job["worker"].endswith(f"-{worker.pid}")).kill()
                    kill = False
            await waiting
            if found.failed:
                raise RuntimeError(found.failed[0])
            measured.seconds = found.ended[job_id] - began
            return measured
    finally:
        await state.close()


_CLAIMS = "SELECT number, part_attempt FROM export_parts WHERE job_id = $1"


async def _keys(settings: Settings, job_id: UUID) -> list[str]:
    """Return the keys of the job's files."""
    state = await asyncpg.connect(settings.state_dsn)
    try:
        rows = await state.fetch(
            "SELECT key FROM export_files JOIN export_jobs AS job ON job.id = job_id AND result = file_path "
            "WHERE job_id = $1 ORDER BY number",
            job_id,
        )
        return [row["key"] for row in rows]
    finally:
        await state.close()


def _check_rows(store: Minio, keys: Sequence[str], rows: int) -> None:
    """Raise an error unless the files have the ids from 1 to ``rows``, each once, in their order."""
    last = 0
    with tempfile.TemporaryDirectory(prefix="bench-parts-") as folder:
        path = Path(folder) / "file.csv"
        for key in keys:
            store.fget_object(bucket_name=BUCKET, object_name=key, file_path=str(path))
            found = duckdb.sql(
                "SELECT min(id), max(id), count(*), count(DISTINCT id) "
                f"FROM read_csv('{path}', header = true, all_varchar = true, types = {{'id': 'BIGINT'}})"
            ).fetchall()[0]
            first, last, expected = last + 1, found[1], found[1] - last
            if found != (first, last, expected, expected):
                raise RuntimeError(f"{key} has wrong rows: {found}, expected from {first} on")
    if last != rows:
        raise RuntimeError(f"the files have {last:,} of {rows:,} rows")


def _memory(worker: AppProcess) -> int:
    try:
        return int(psutil.Process(worker.pid).memory_info().rss)
    except psutil.Error:
        return 0


if __name__ == "__main__":
    typer.run(main)
