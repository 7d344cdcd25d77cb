"""A worker checks stored offsets, and notices new topics and partitions."""

import asyncio
import time
from collections.abc import Iterator
from uuid import UUID

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import NewPartitions, RecordsToDelete

from dev.app_process import AppProcess
from dev.stack import Stack
from stream_app.doctor.checks import run_checks
from stream_app.doctor.findings import Finding, State
from streaming_exporter.events import Topic
from streaming_exporter.kafka_connection import ensure_topics
from tests.e2e.deployment import Deployment
from tests.waiting import patient, until_async

IN_ORDER = True
"""Each test continues with the topics of the test before."""

PARTITIONS = 8
NOTICED = patient(30)
"""Seconds within which a worker must notice new topics and partitions."""


@pytest.fixture(scope="module")
def own(stack: Stack) -> Iterator[Deployment]:
    deployment = Deployment(stack, EXPORTER_STUCK_SECONDS=f"{patient(10):g}")
    yield deployment
    deployment.close()


@pytest.fixture(scope="module")
def lost(own: Deployment) -> set[UUID]:
    """Requests before the committed offset, which is beyond the end of the log in one partition."""

    async def publish() -> set[UUID]:
        await ensure_topics(own.settings)
        ids = await own.ask(3, partition=0) | await own.ask(2, partition=1)
        await own.commit({0: 100_000, 1: 0, 2: 7})
        # The retention has removed unread messages of partition 1.
        gone = await own.ask(2, partition=3)
        await own.commit({3: 0})
        async with own.admin() as admin:
            place = TopicPartition(own.settings.topic(Topic.REQUESTS), 3)
            await admin.delete_records({place: RecordsToDelete(before_offset=2)})
        kept = await own.ask(1, partition=3)
        assert gone.isdisjoint(kept)
        return ids | kept

    return asyncio.run(publish())


async def _offsets(own: Deployment) -> tuple[State, str]:
    """Return the finding about offsets. There is none if Kafka does not answer in time."""

    async def look() -> Finding | None:
        found = {(item.area, item.check): item async for item in run_checks(own.settings)}
        return found.get(("kafka", "offsets"))

    finding = await until_async(look)
    return finding.state, finding.what


@pytest.fixture(scope="module")
def worker(stack: Stack, own: Deployment, lost: set[UUID]) -> Iterator[AppProcess]:
    """A worker. Before its start the doctor reports the wrong offsets."""
    name = own.settings.topic(Topic.REQUESTS)
    state, what = asyncio.run(_offsets(own))
    assert state is State.PROBLEM
    assert f"{name}[0] ends at 3, but 100000 is committed" in what
    assert f"{name}[2] ends at 0, but 7 is committed" in what
    assert f"{name}[3] begins at 2, but 0 is committed" in what
    started = stack.start_worker(settings=own.variables)
    yield started
    started.kill()


@pytest.mark.slow
async def test_an_offset_beyond_the_log_loses_nothing(
    own: Deployment, worker: AppProcess, lost: set[UUID]
) -> None:
    """R7: messages before and after the offset are read, and the offsets are corrected."""
    await own.has(lost | await own.ask(PARTITIONS))
    said = [line for line in worker.log.read_text().splitlines() if "offset.lost" in line]
    assert len([line for line in said if "beyond the log's end" in line]) == 2
    assert len([line for line in said if "before the log's beginning" in line]) == 1

    async def right() -> bool:
        return (await _offsets(own))[0] is State.OK

    await until_async(right, within=30)


@pytest.mark.slow
async def test_a_topic_that_was_created_again_is_read(own: Deployment, worker: AppProcess) -> None:
    """R7: it is read from its beginning, even if the new log is soon longer than the old one.

    The worker ends and is started again. It can have read all messages before its end.
    """
    await own.has(await own.ask(20))
    async with own.admin() as admin:
        await admin.delete_topics([own.settings.topic(Topic.REQUESTS)])
    await ensure_topics(own.settings)
    ids = await own.ask(60)

    await until_async(lambda: not worker.running, otherwise=lambda: worker.child.tail(80))
    await asyncio.to_thread(worker.start)
    await own.has(ids | await own.ask(PARTITIONS))


@pytest.mark.slow
async def test_new_partitions_are_read(own: Deployment, worker: AppProcess) -> None:
    """R7: within half a minute, from their beginning."""
    async with own.admin() as admin:
        await admin.create_partitions(
            {own.settings.topic(Topic.REQUESTS): NewPartitions(total_count=PARTITIONS + 2)}
        )
    # At first a producer does not know the new partition.
    ids = await until_async(lambda: own.ask(3, partition=PARTITIONS + 1), ignoring=(AssertionError,))
    began = time.monotonic()
    await own.has(ids)
    assert time.monotonic() - began < NOTICED
    assert worker.running
