"""This project: requests are published to Kafka, and final events are read from ``exports.events``."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID, uuid4

from aiokafka import AIOKafkaConsumer

from stream_app.settings import Settings
from streaming_exporter.errors import Unreadable
from streaming_exporter.events import EventType, ExportRequest, Topic, decode
from streaming_exporter.kafka_connection import client_options
from streaming_exporter.publisher import Publisher

DATASET = "small"

ENDS = {EventType.COMPLETED, EventType.FAILED, EventType.CANCELLED}

STAGES = {EventType.ACCEPTED: "accepted", EventType.STARTED: "started"} | dict.fromkeys(ENDS, "completed")
"""The stage that a job has reached with an event."""


class Stages:
    """The times at which this process read that jobs had reached their stages, by its clock."""

    def __init__(self) -> None:
        self.at: dict[str, dict[UUID, float]] = {stage: {} for stage in STAGES.values()}
        self.failed: list[str] = []
        self._more = asyncio.Condition()

    @property
    def ended(self) -> dict[UUID, float]:
        """The times of the final events."""
        return self.at["completed"]

    async def note(self, raw: bytes) -> None:
        now = time.perf_counter()
        try:
            event = decode(raw)
        except Unreadable:
            return
        stage = STAGES.get(event.type)
        if stage is None or event.job_id is None:
            return
        self.at[stage].setdefault(event.job_id, now)
        if event.type in ENDS:
            if event.type is not EventType.COMPLETED:
                self.failed.append(str(event.data))
            async with self._more:
                self._more.notify_all()

    async def wait(self, jobs: set[UUID], timeout: float) -> None:
        async with asyncio.timeout(timeout), self._more:
            await self._more.wait_for(lambda: jobs <= self.ended.keys())


@asynccontextmanager
async def stages(settings: Settings) -> AsyncIterator[Stages]:
    """Collect the events of jobs that are published during the block."""
    consumer = AIOKafkaConsumer(
        settings.topic(Topic.EVENTS), **client_options(settings), auto_offset_reset="latest"
    )
    await consumer.start()
    await consumer.seek_to_end()
    found = Stages()

    async def read() -> None:
        async for message in consumer:
            await found.note(message.value)

    reading = asyncio.create_task(read())
    try:
        yield found
    finally:
        reading.cancel()
        await asyncio.wait({reading})
        await consumer.stop()


async def latencies(settings: Settings, *, rate: float, count: int) -> dict[str, list[float]]:
    """Return the seconds from each request to each of its stages, at ``rate`` requests a second."""
    sent: dict[UUID, float] = {}
    async with stages(settings) as found, Publisher(settings) as publisher:
        await publisher.check()  # it connects, which takes longer than an export
        started = time.perf_counter()
        for number in range(count):
            await asyncio.sleep(max(0.0, started + number / rate - time.perf_counter()))
            job_id = uuid4()
            sent[job_id] = time.perf_counter()
            await publisher.request(request(number), job_id)
        await found.wait(set(sent), 60)
    if found.failed:
        raise RuntimeError(f"{len(found.failed)} exports did not complete, the first: {found.failed[0]}")
    return {stage: [at[job_id] - moment for job_id, moment in sent.items()] for stage, at in found.at.items()}


async def backlog(settings: Settings, *, count: int) -> float:
    """Return the jobs a second, from the first request to the last final event."""
    async with stages(settings) as found, Publisher(settings) as publisher:
        ids = [uuid4() for _ in range(count)]
        started = time.perf_counter()
        await asyncio.gather(
            *(publisher.request(request(number), job_id) for number, job_id in enumerate(ids))
        )
        await found.wait(set(ids), 300)
    return count / (max(found.ended[job_id] for job_id in ids) - started)


def request(number: int) -> ExportRequest:
    """Return a request of a user of its own, so that no request waits for another one's slot."""
    return ExportRequest(user_id=f"user-{number}", export_type=DATASET, format="csv", scope="all")
