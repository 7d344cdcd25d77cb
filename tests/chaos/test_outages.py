"""Parts go away for a while: jobs wait, nothing fails for it, and everything goes on by itself."""

import asyncio
import time
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from aiokafka import AIOKafkaProducer

from local.stack import Stack
from stream_app.events import ExportRequest, Topic, request_event

SETTINGS = {"EXPORTER_KAFKA_GROUP": "outages", "EXPORTER_LEASE_SECONDS": "3"}


async def ask(stack: Stack, count: int) -> set[UUID]:
    servers = stack.settings()["EXPORTER_KAFKA_BOOTSTRAP_SERVERS"]
    asked = set()
    async with AIOKafkaProducer(bootstrap_servers=servers) as producer:
        for number in range(count):
            wanted = ExportRequest(user_id=f"o{number}", export_type="ledger", format="csv", scope="all")
            event = request_event(wanted, source="/t")
            await producer.send_and_wait(Topic.REQUESTS, event.encode(), key=event.key)
            asked.add(event.job_id)
    return asked


async def jobs(stack: Stack, asked: set[UUID]) -> list[Any]:
    connection = await asyncpg.connect(stack.settings()["EXPORTER_DATABASE_URL"])
    rows: list[Any] = await connection.fetch("SELECT * FROM export_jobs WHERE id = ANY($1)", list(asked))
    await connection.close()
    return rows


async def all_completed(stack: Stack, asked: set[UUID], *, within: float = 90) -> None:
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        found = await jobs(stack, asked)
        if len(found) == len(asked) and all(job["status"] == "completed" for job in found):
            return
        assert not [job for job in found if job["status"] == "failed"]
        await asyncio.sleep(0.5)
    raise AssertionError(
        [(job["status"], job["attempt"], job["failures"], job["error_message"]) for job in found]
    )


@pytest.mark.parametrize("part", ["s3", "postgres", "kafka"])
async def test_an_outage_fails_no_job(stack: Stack, part: str) -> None:
    worker = await asyncio.to_thread(stack.start_worker, settings=SETTINGS)
    service = getattr(stack, part)
    try:
        await all_completed(stack, await ask(stack, 2))
        asked = await ask(stack, 6)
        await asyncio.to_thread(service.kill)
        if part == "s3":
            asked |= await ask(stack, 6)
        await asyncio.sleep(8)
        await asyncio.to_thread(service.restart)
        asked |= await ask(stack, 6)
        await all_completed(stack, asked)
        assert {job["failures"] for job in await jobs(stack, asked)} <= {0, 1}
    finally:
        await asyncio.to_thread(worker.stop)
