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


class Ends:
    """The times at which the final events of jobs were published, by the clock of this process."""

    def __init__(self) -> None:
        self.at: dict[UUID, float] = {}
        self.failed: list[str] = []
        self._more = asyncio.Condition()

    async def note(self, raw: bytes) -> None:
        try:
            event = decode(raw)
        except Unreadable:
            return
        if event.type in ENDS and event.job_id is not None:
            async with self._more:
                self.at.setdefault(event.job_id, time.perf_counter())
                if event.type is not EventType.COMPLETED:
                    self.failed.append(str(event.data))
                self._more.notify_all()

    async def wait(self, jobs: set[UUID], timeout: float) -> None:
        async with asyncio.timeout(timeout), self._more:
            await self._more.wait_for(lambda: jobs <= self.at.keys())


@asynccontextmanager
async def ends(settings: Settings) -> AsyncIterator[Ends]:
    """Collect the final events that are published during the block."""
    consumer = AIOKafkaConsumer(
        settings.topic(Topic.EVENTS), **client_options(settings), auto_offset_reset="latest"
    )
    await consumer.start()
    await consumer.seek_to_end()
    found = Ends()

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


async def latencies(settings: Settings, *, rate: float, count: int) -> list[float]:
    """Return the seconds from each request to its final event, at ``rate`` requests a second."""
    sent: dict[UUID, float] = {}
    async with ends(settings) as found, Publisher(settings) as publisher:
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
    return [found.at[job_id] - moment for job_id, moment in sent.items()]


async def backlog(settings: Settings, *, count: int) -> float:
    """Return the jobs a second, from the first request to the last final event."""
    async with ends(settings) as found, Publisher(settings) as publisher:
        ids = [uuid4() for _ in range(count)]
        started = time.perf_counter()
        await asyncio.gather(
            *(publisher.request(request(number), job_id) for number, job_id in enumerate(ids))
        )
        await found.wait(set(ids), 300)
    return count / (max(found.at[job_id] for job_id in ids) - started)


def request(number: int) -> ExportRequest:
    """Return a request of a user of its own, so that no request waits for another one's slot."""
    return ExportRequest(user_id=f"user-{number}", export_type=DATASET, format="csv", scope="all")
