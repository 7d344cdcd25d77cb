"""Workers come and go while requests flow: none is lost."""

import asyncio
import time

import asyncpg
from aiokafka import AIOKafkaProducer

from local.stack import Stack
from stream_app.events import ExportRequest, Topic, request_event

GROUP = {"EXPORTER_KAFKA_GROUP": "rebalances"}


async def test_no_request_is_lost_in_rebalances(stack: Stack) -> None:
    """The requests name no known format, so that each is admitted and ends at once."""
    servers = stack.settings()["EXPORTER_KAFKA_BOOTSTRAP_SERVERS"]
    staying = await asyncio.to_thread(stack.start_worker, settings=GROUP)
    sent: set[str] = set()
    stopping = asyncio.Event()

    async def publish() -> None:
        async with AIOKafkaProducer(bootstrap_servers=servers) as producer:
            while not stopping.is_set():
                event = request_event(
                    ExportRequest(user_id="r", export_type="ledger", format="none"), source="/t"
                )
                await producer.send_and_wait(Topic.REQUESTS, event.encode(), key=event.key)
                sent.add(event.id)
                await asyncio.sleep(0.03)

    publishing = asyncio.create_task(publish())
    try:
        for ending in ("stop", "kill"):
            leaving = await asyncio.to_thread(stack.start_worker, settings=GROUP)
            await asyncio.sleep(1)
            await asyncio.to_thread(getattr(leaving, ending))
            await asyncio.sleep(1)
        stopping.set()
        await publishing
        missing = await _missing(stack, sent, within=60)
    finally:
        publishing.cancel()
        await asyncio.to_thread(staying.stop)
    assert sent
    assert not missing


async def _missing(stack: Stack, sent: set[str], *, within: float) -> set[str]:
    """Requests without an ended job, once there are none or the time is over."""
    connection = await asyncpg.connect(stack.settings()["EXPORTER_DATABASE_URL"])
    deadline = time.monotonic() + within
    while True:
        rows = await connection.fetch("SELECT id FROM export_jobs WHERE status = 'failed'")
        missing = sent - {str(row["id"]) for row in rows}
        if not missing or time.monotonic() > deadline:
            await connection.close()
            return missing
        await asyncio.sleep(0.5)
