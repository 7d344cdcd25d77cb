"""A rolling restart: other workers continue long exports at once, before any lease expires."""

import asyncio
from datetime import datetime, timedelta
from uuid import UUID

import pytest

from dev.postgres import SOURCE
from dev.stack import Stack
from streaming_exporter.events import EventType, ExportRequest, request_event
from tests.chaos.items import COLUMNS, GATED_ROWS, Source
from tests.chaos.plan import PlannedJob
from tests.chaos.supervisor import Supervisor
from tests.chaos.system_client import SystemClient, has_ended
from tests.chaos.verdict import wrong_files, wrong_histories, wrong_objects
from tests.gate import Gate
from tests.waiting import patient

pytestmark = [pytest.mark.chaos, pytest.mark.slow]

DRAIN_SECONDS = 1
LEASE_SECONDS = 60

SETTINGS = {
    "EXPORTER_LEASE_SECONDS": str(LEASE_SECONDS),
    "EXPORTER_DRAIN_SECONDS": str(DRAIN_SECONDS),
    "EXPORTER_WORKER_SLOTS": "4",
}


@pytest.fixture
def orders() -> list[PlannedJob]:
    """Two exports that last until the gate is opened."""
    requests = [
        ExportRequest(
            user_id=f"d{number}",
            export_type="gated",
            format="csv",
            scope="all",
            filters={"id": {"lte": GATED_ROWS}},
            columns=list(COLUMNS),
        )
        for number in range(2)
    ]
    return [PlannedJob(0, request_event(item, source="/t").job_id, item, GATED_ROWS) for item in requests]


async def test_jobs_continue_at_once_in_a_rolling_restart(
    stack: Stack, source: Source, datasets: dict[str, str], orders: list[PlannedJob]
) -> None:
    ids = [order.job_id for order in orders]
    workers = await asyncio.to_thread(Supervisor, stack, 2, SETTINGS | datasets)
    with workers:
        async with SystemClient(stack) as client, Gate(stack.postgres.admin_url(SOURCE)) as gate:
            for order in orders:
                await client.publish(request_event(order.request, job_id=order.job_id, source="/t"))
            taken = 0
            for _ in range(2):
                jobs = await client.until(ids, lambda job: job["status"] == "processing", within=60)
                busy = {job["worker"] for job in jobs.values()}
                number = next(number for number, name in enumerate(workers.names()) if name in busy)
                leaving = workers.names()[number]
                held = [job["id"] for job in jobs.values() if job["worker"] == leaving]
                taken += len(held)
                await client.until(held, lambda job: bool(job["row_count"]), within=60)
                await asyncio.to_thread(workers.restart, number)
                await asyncio.to_thread(workers.wait_until_ready, number)
            await client.until(ids, lambda job: job["status"] == "processing", within=60)
            await gate.open()
            jobs = await client.until(ids, has_ended, within=60)
            told = await client.history(ids)
            files, uploads = await asyncio.to_thread(client.objects)
            assert await wrong_files(client, source, orders, jobs) == []
    handed_back = [line for line in workers.logged() if line.get("event") == "job.released"]
    assert len(handed_back) == taken > 0
    for line in handed_back:
        again = next(
            event.lifecycle.started_at
            for event in told[UUID(line["job_id"])]
            if event.type is EventType.STARTED and event.lifecycle.attempt == line["attempt"] + 1
        )
        assert again is not None
        assert again - datetime.fromisoformat(line["timestamp"]) < timedelta(seconds=patient(3))
    assert {job["status"] for job in jobs.values()} == {"completed"}
    assert {job["failures"] for job in jobs.values()} == {0}
    assert sum(job["attempt"] for job in jobs.values()) == len(orders) + taken
    assert wrong_objects(jobs, files, uploads) == []
    assert wrong_histories(jobs, told) == []
