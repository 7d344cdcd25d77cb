"""The same export function as a Celery task, with a broker in memory: sender and worker share a process.

So no message crosses the network, and no task survives the process. This is the lowest cost of Celery. Its
threads have the event loop of our worker, and no garbage collection of what is loaded, as our worker.
"""

import asyncio
import gc
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from uuid import UUID, uuid4

import uvloop
from celery import Celery
from celery.contrib.testing.worker import start_worker

from bench.jobs.ours import DATASET
from stream_app.datasets.file import load_datasets
from stream_app.exports.formats.registry import FORMATS
from stream_app.exports.pipeline import Exporter
from stream_app.exports.sources.source import Source
from stream_app.exports.tables.catalog import Catalog
from stream_app.exports.task import ExportLimits, ExportProgress, ExportTask
from stream_app.settings import Settings
from stream_app.storage.object_store import ObjectStore
from streaming_exporter.events import ExportRequest

app = Celery("bench", broker="memory://")
app.conf.task_ignore_result = True
app.conf.broker_transport_options = {"polling_interval": 0.001}

WARM_UP = 100
"""Tasks before the measurement, so that each thread has run some."""

_done: dict[str, float] = {}
_own = threading.local()


@app.task(name="export")  # type: ignore[untyped-decorator]
def _export(job_id: str) -> None:
    if not hasattr(_own, "runner"):
        _own.runner, _own.exporter = asyncio.Runner(loop_factory=uvloop.new_event_loop), _exporter()
    request = ExportRequest(user_id=job_id, export_type=DATASET, format="csv", scope="all")
    task = ExportTask(
        name=job_id,
        request=request,
        requested_at=datetime.now(UTC),
        target=partial(_own.exporter.storage.key, UUID(job_id), 1),
    )
    _own.runner.run(_own.exporter.run(task, ExportProgress()))
    _done[job_id] = time.perf_counter()


def _exporter() -> Exporter:
    settings = Settings()
    source = Source(settings, connections=1)
    return Exporter(
        source,
        Catalog(source),
        ObjectStore(settings),
        load_datasets(settings.datasets_file).datasets,
        FORMATS,
        ExportLimits.of(settings),
        ThreadPoolExecutor(1),
    )


@contextmanager
def worker(threads: int) -> Iterator[None]:
    """Run a worker with a pool of ``threads`` threads, which have run tasks before."""
    with start_worker(app, pool="threads", concurrency=threads, perform_ping_check=False, loglevel="ERROR"):
        _wait([_send() for _ in range(WARM_UP)])
        gc.collect()
        gc.freeze()
        try:
            yield
        finally:
            gc.unfreeze()


def latencies(*, rate: float, count: int) -> list[float]:
    """Return the seconds from sending a task to the end of its export, at ``rate`` tasks a second."""
    sent: dict[str, float] = {}
    started = time.perf_counter()
    for number in range(count):
        time.sleep(max(0.0, started + number / rate - time.perf_counter()))
        moment = time.perf_counter()
        sent[_send()] = moment
    _wait(list(sent))
    return [_done[job_id] - moment for job_id, moment in sent.items()]


def backlog(*, count: int) -> float:
    """Return the jobs a second, from sending the first task to the end of the last one."""
    started = time.perf_counter()
    ids = [_send() for _ in range(count)]
    _wait(ids)
    return count / (max(_done[job_id] for job_id in ids) - started)


def _send() -> str:
    job_id = str(uuid4())
    _export.delay(job_id)
    return job_id


def _wait(ids: list[str], timeout: float = 300) -> None:
    deadline = time.monotonic() + timeout
    while missing := [job_id for job_id in ids if job_id not in _done]:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{len(missing)} of {len(ids)} tasks did not end in {timeout:g} s")
        time.sleep(0.02)
