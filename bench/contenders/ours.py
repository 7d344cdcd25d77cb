"""This project, as a worker runs it. A second task measures how long the event loop is blocked."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from uuid import uuid4

from bench.context import Context
from stream_app.datasets.models import Dataset
from stream_app.exports.formats.registry import FORMATS
from stream_app.exports.pipeline import Exporter
from stream_app.exports.reading.row_reader import ParallelReading
from stream_app.exports.sources.source import Source
from stream_app.exports.tables.catalog import Catalog
from stream_app.exports.task import ExportLimits, ExportProgress, ExportTask
from stream_app.storage.object_store import ObjectStore
from streaming_exporter.events import ExportRequest

NAP = 0.001


def run(context: Context) -> None:
    asyncio.run(_run(context))


async def _run(context: Context) -> None:
    settings = context.settings
    source = Source(settings, connections=settings.source_streams + 1)
    dataset = Dataset(name="bench", table=context.table)
    with ThreadPoolExecutor(1) as threads:
        exporter = Exporter(
            sources=source,
            catalog=Catalog(source),
            storage=ObjectStore(settings),
            datasets={dataset.name: dataset},
            formats=FORMATS,
            limits=ExportLimits.of(settings),
            threads=threads,
            reading=ParallelReading.of(settings),
        )
        queue_metrics = asyncio.create_task(_watch(context))
        try:
            done = await exporter.run(_task(dataset.name, context.format, exporter.storage), ExportProgress())
            context.key = done.key
        finally:
            queue_metrics.cancel()
            with suppress(asyncio.CancelledError):
                await queue_metrics
            await source.close()


def _task(dataset: str, output: str, storage: ObjectStore) -> ExportTask:
    request = {"user_id": "bench", "export_type": dataset, "format": output, "scope": "all"}
    job_id = uuid4()
    return ExportTask(
        name=str(job_id),
        request=ExportRequest.parse(request),
        requested_at=datetime.now(UTC),
        target=partial(storage.key, job_id, 1),
    )


async def _watch(context: Context) -> None:
    """Record the longest time for which a due task had to wait."""
    context.notes["stall"] = 0.0
    while True:
        due = time.perf_counter() + NAP
        await asyncio.sleep(NAP)
        late = time.perf_counter() - due
        context.notes["stall"] = max(context.notes["stall"], late)
