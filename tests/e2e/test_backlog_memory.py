"""A backlog of large requests is read in memory that does not depend on its size."""

import asyncio
from collections.abc import Iterator
from uuid import uuid4

import pytest

from dev.stack import Stack
from streaming_exporter.kafka_connection import ensure_topics
from tests.e2e.deployment import Deployment, request
from tests.e2e.test_memory import MEGABYTE, memory
from tests.waiting import at_most

pytestmark = [pytest.mark.slow, pytest.mark.unmeasured]  # the measurement of coverage takes memory too

REQUESTS, VALUES = 200, 10_000
"""80 MB on Kafka, which take several times as much memory when they are decoded."""


@pytest.fixture
def own(stack: Stack) -> Iterator[Deployment]:
    deployment = Deployment(stack)
    yield deployment
    deployment.close()


def test_a_backlog_of_large_requests_is_admitted_in_bounded_memory(stack: Stack, own: Deployment) -> None:
    """R14: all requests are valid, and each has 400 kB of filters."""
    idle = stack.start_worker(settings=own.variables)
    before = memory(idle.pid, "VmHWM")
    idle.stop()

    async def publish() -> None:
        await ensure_topics(own.settings)
        values = [str(uuid4()) for _ in range(VALUES)]
        await own.publish(request(filters={"id": {"in": values}}) for _ in range(REQUESTS))

    async def admitted() -> None:
        async with at_most(300):
            while len(await own.jobs()) < REQUESTS:  # noqa: ASYNC110
                await asyncio.sleep(0.5)

    asyncio.run(publish())
    worker = stack.start_worker(settings=own.variables)
    try:
        asyncio.run(admitted())
        grown = memory(worker.pid, "VmHWM") - before
    finally:
        worker.kill()
    assert grown < 150 * MEGABYTE, f"{grown / MEGABYTE:.0f} MB"
