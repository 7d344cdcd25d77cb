"""Measures small exports through the whole system, with more and more workers on the same machine."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import asyncpg
import uvloop

from bench.jobs import ours
from bench.spent import Spent, cores, measuring
from dev.postgres import SOURCE
from dev.stack import Stack
from stream_app.settings import Settings
from streaming_exporter.publisher import Publisher

WARM_UP = 50
"""Jobs for each worker before the measurement, so that everything is loaded and every partition is read."""

PUBLISHED_AT_ONCE = 1_000
"""Requests that are published together: each must be confirmed within the publisher's time-out."""

POLL_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Round:
    """The result of one backlog of ``jobs``: ``workers`` completed it at ``rate`` jobs a second."""

    workers: int
    jobs: int
    rate: float
    spent: Spent

    @property
    def cpu(self) -> float:
        """The processor seconds of one job, in all parts."""
        return sum(self.spent.cpu.values()) / self.jobs

    @property
    def ceiling(self) -> float:
        """The jobs a second if all cores worked for these jobs only."""
        return cores() / self.cpu


def throughput(stack: Stack, settings: Settings, workers: int, jobs: int) -> Round:
    """Publish all requests at once, and wait until the last job has ended."""
    with ThreadPoolExecutor(workers) as pool:
        first = 1 + len([name for name in stack.apps if name.startswith("worker-")])
        started = list(pool.map(stack.start_worker, range(first, first + workers)))
    try:
        uvloop.run(ours.backlog(settings, count=WARM_UP * workers))
        with measuring(stack) as spent:
            rate = uvloop.run(ours.backlog(settings, count=jobs))
    finally:
        for worker in started:
            worker.stop()
    return Round(workers, jobs, rate, spent)


def admission(stack: Stack, settings: Settings, requests: int) -> float:
    """Return how many requests a second one worker admits from a backlog in Kafka, without exports."""

    async def publish() -> None:
        async with Publisher(settings) as publisher:
            for first in range(0, requests, PUBLISHED_AT_ONCE):
                numbers = range(first, min(first + PUBLISHED_AT_ONCE, requests))
                await asyncio.gather(*(publisher.request(ours.request(number)) for number in numbers))

    asyncio.run(publish())
    with ThreadPoolExecutor(1) as pool:
        queue_metrics = pool.submit(asyncio.run, _admitted(stack, requests))
        worker = stack.start_worker()
        try:
            return queue_metrics.result()
        finally:
            worker.kill()  # it would start exports


async def _admitted(stack: Stack, requests: int) -> float:
    """Return the admitted jobs a second, from the first one to the last.

    Until then the exported table is locked, so that no export uses a core.
    """
    state = await asyncpg.connect(stack.postgres.state_url)
    source = await asyncpg.connect(stack.postgres.admin_url(SOURCE))
    before = await state.fetchval("SELECT count(*) FROM export_jobs")
    try:
        async with source.transaction(), asyncio.timeout(300):
            await source.execute(f"LOCK TABLE {ours.DATASET} IN ACCESS EXCLUSIVE MODE")
            seen: list[tuple[float, int]] = []
            while not seen or seen[-1][1] < requests:
                count = await state.fetchval("SELECT count(*) FROM export_jobs") - before
                if count:
                    seen.append((time.perf_counter(), count))
                await asyncio.sleep(POLL_SECONDS)
    finally:
        await source.close()
        await state.close()
    (began, first), (ended, last) = seen[0], seen[-1]
    return (last - first) / (ended - began) if ended > began else float("inf")
