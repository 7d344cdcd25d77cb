"""The whole system with a small table to export, and the requests for its jobs."""

import asyncio
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg

from bench.jobs.ours import DATASET
from dev.postgres import READER, SOURCE
from dev.progress import Progress
from dev.stack import Stack

ROWS = 1_000
"""How many rows one export has."""


@contextmanager
def system(slots: int) -> Iterator[Stack]:
    """Start all services, without a worker. The settings of this process name them too."""
    with tempfile.TemporaryDirectory(prefix="bench-jobs-") as temporary:
        folder = Path(temporary)
        datasets = folder / "datasets.toml"
        datasets.write_text(f'[datasets.{DATASET}]\ntable = "public.{DATASET}"\n')
        extra = {"EXPORTER_DATASETS_FILE": str(datasets), "EXPORTER_WORKER_SLOTS": str(slots)}
        with Stack(folder / "stack", settings=extra, progress=Progress()) as stack:
            asyncio.run(_fill(stack.postgres.admin_url(SOURCE)))
            os.environ.update(stack.settings())
            yield stack


async def _fill(url: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(
            f"CREATE TABLE {DATASET} AS SELECT * FROM ledger ORDER BY id LIMIT {ROWS};"
            f"ALTER TABLE {DATASET} ADD PRIMARY KEY (id); GRANT SELECT ON {DATASET} TO {READER}"
        )
    finally:
        await connection.close()
