"""A worker that stops while Kafka does not answer: it claims nothing more, and releases its jobs in time."""

import asyncio
import json
import os
import signal
import time
from uuid import UUID, uuid4

import pytest

from dev.app_process import AppProcess
from dev.postgres import SOURCE
from dev.stack import Stack
from stream_app.kafka.stopping import CLOSE_SECONDS
from stream_app.worker.dispatcher import DRAIN_SECONDS as STOP_SECONDS
from streaming_exporter.events import ExportRequest, request_event
from tests.chaos.freezing import frozen
from tests.chaos.items import COLUMNS, GATED_ROWS
from tests.chaos.system_client import SystemClient
from tests.gate import Gate
from tests.waiting import patient, until_async

pytestmark = [pytest.mark.chaos, pytest.mark.slow]

DRAIN_SECONDS = 1
SETTINGS = {
    "EXPORTER_DRAIN_SECONDS": str(DRAIN_SECONDS),
    "EXPORTER_DELIVERY_TIMEOUT_SECONDS": "1",
    "EXPORTER_MAX_ATTEMPTS": "1",
    "EXPORTER_WORKER_SLOTS": "4",
}
REQUEST = ExportRequest(
    user_id="k", export_type="gated", format="csv", scope="all", filters={"id": {"lte": GATED_ROWS}},
    columns=list(COLUMNS),
)  # fmt: skip
COPY = """
    INSERT INTO export_jobs
    SELECT copy.* FROM export_jobs job, jsonb_populate_record(job, $2::jsonb) copy WHERE job.id = $1
"""
PENDING = dict.fromkeys(("worker", "lease_until", "started_at", "row_count", "stages"))


async def insert_copy(client: SystemClient, job_id: UUID, **changes: object) -> UUID:
    """Insert a pending job like another one into the table, as Kafka takes no request now."""
    new = uuid4()
    values = {**PENDING, "id": str(new), "status": "pending", "attempt": 0, **changes}
    await client.fetch(COPY, job_id, json.dumps(values))
    return new


async def stop_in_outage(stack: Stack, worker: AppProcess, client: SystemClient) -> None:
    """Stop the worker while Kafka is frozen, an export runs, and an event waits for Kafka."""
    event = request_event(REQUEST, source="/t")
    await client.publish(event)
    await client.until([event.job_id], lambda job: bool(job["row_count"]), within=60)
    with frozen(stack.kafka):
        reported = await insert_copy(client, event.job_id, export_type="items", filters={"id": {"lte": 3}})
        await client.until([reported], lambda job: job["status"] == "processing", within=60)
        os.kill(worker.child.pid, signal.SIGTERM)
        began = time.monotonic()
        held = [event.job_id, reported]
        await client.until(held, lambda job: job["status"] == "pending", within=DRAIN_SECONDS + STOP_SECONDS)
        late = await insert_copy(client, event.job_id)
        await until_async(lambda: worker.child.exit_code is not None, otherwise=worker.child.tail)
        assert time.monotonic() - began < patient(DRAIN_SECONDS + STOP_SECONDS + CLOSE_SECONDS + 4)
        jobs = await client.jobs([*held, late])
    assert worker.child.exit_code == 0, worker.child.tail()
    assert {(job["status"], job["failures"], job["worker"]) for job in jobs.values()} == {
        ("pending", 0, None)
    }
    assert {job_id: job["attempt"] for job_id, job in jobs.items()} == {**dict.fromkeys(held, 1), late: 0}


async def test_a_worker_releases_its_jobs_while_kafka_is_frozen(
    stack: Stack, datasets: dict[str, str]
) -> None:
    """Otherwise they would stand still until the lease expires, and count a failure."""
    worker = await asyncio.to_thread(stack.start_worker, settings=SETTINGS | datasets)
    try:
        async with SystemClient(stack) as client, Gate(stack.postgres.admin_url(SOURCE)):
            await stop_in_outage(stack, worker, client)
    finally:
        worker.kill()
