"""Parts are unavailable for a while: jobs wait, no job fails, and work continues without help."""

import asyncio
from collections.abc import Iterator
from uuid import UUID

import pytest

from dev.postgres import SOURCE
from dev.stack import Stack
from streaming_exporter.events import ExportRequest, request_event
from tests.chaos.items import COLUMNS, GATED_ROWS, ROWS, Source
from tests.chaos.plan import PlannedJob
from tests.chaos.supervisor import Supervisor
from tests.chaos.system_client import SystemClient, has_ended
from tests.chaos.verdict import wrong_files, wrong_histories, wrong_objects
from tests.gate import Gate
from tests.waiting import patient, until_async

pytestmark = [pytest.mark.chaos, pytest.mark.slow]

LEASE_SECONDS = patient(6)  # a worker that lives renews in time also on a busy machine
SETTINGS = {"EXPORTER_LEASE_SECONDS": f"{LEASE_SECONDS:g}", "EXPORTER_WORKER_SLOTS": "4"}

NOTICED_SECONDS = 120.0
"""Limit of the time until an attempt ends because the store is away."""


def order(dataset: str, last: int) -> PlannedJob:
    """Return one job. Each job belongs to another user."""
    request = ExportRequest(
        user_id="?", export_type=dataset, format="csv", scope="all", columns=list(COLUMNS),
        filters={"id": {"lte": last}},
    )  # fmt: skip
    job_id = request_event(request, source="/t").job_id
    return PlannedJob(0, job_id, request.model_copy(update={"user_id": f"user of {job_id}"}), last)


@pytest.fixture(scope="module")
def workers(stack: Stack, datasets: dict[str, str]) -> Iterator[Supervisor]:
    """Two workers, for all outages."""
    with Supervisor(stack, 2, SETTINGS | datasets) as running:
        yield running


@pytest.mark.parametrize("part", ["s3", "postgres", "kafka"])
async def test_an_outage_fails_no_job(stack: Stack, source: Source, workers: Supervisor, part: str) -> None:
    """Some exports run when the outage begins; others are requested during the outage.

    The outage lasts until the workers have noticed it, and longer than a lease.
    """
    during = [order("gated", GATED_ROWS) for _ in range(2)]
    later = [order("items", 300), order("items", ROWS)]
    service = stack.services[part]
    gave_up = workers.gave_up()
    async with SystemClient(stack) as client, Gate(stack.postgres.admin_url(SOURCE)) as gate:
        await asyncio.to_thread(workers.wait_until_ready)
        await _ask(client, during)
        await client.until(_ids(during), lambda job: job["row_count"] is not None, within=60)
        await asyncio.to_thread(service.kill)
        asking = asyncio.create_task(_ask(client, later))
        await until_async(lambda: not any(map(workers.is_ready, range(2))))
        if part == "s3":
            await gate.open()
            ids = {str(job_id) for job_id in _ids(during)}

            def is_noticed() -> bool:
                postponed = [line for line in workers.logged() if line["event"] == "job.postponed"]
                return any(line.get("job_id") in ids for line in postponed)

            await until_async(is_noticed, within=NOTICED_SECONDS)
        await asyncio.sleep(LEASE_SECONDS)
        waiting = await client.jobs(_ids(during + later))
        assert {job["status"] for job in waiting.values()} <= {"pending", "processing"}
        assert part == "postgres" or waiting
        await asyncio.to_thread(service.restart)
        await gate.open()
        await asking
        jobs = await client.until(_ids(during + later), has_ended, within=120)
        told = await client.history(jobs.keys())
        files, uploads = await asyncio.to_thread(client.objects)
        assert await wrong_files(client, source, during + later, jobs) == []
    assert workers.gave_up() == gave_up
    assert {job["status"] for job in jobs.values()} == {"completed"}
    # The statement can be the cause of a lost connection to the database, so that attempt counts.
    allowed = {0, 1} if part == "postgres" else {0}
    assert {job["failures"] for job in jobs.values()} <= allowed
    assert wrong_objects(jobs, [key for key in files if UUID(key.split("/")[1]) in jobs], uploads) == []
    assert wrong_histories(jobs, told) == []


def _ids(orders: list[PlannedJob]) -> list[UUID]:
    return [item.job_id for item in orders]


async def _ask(client: SystemClient, orders: list[PlannedJob]) -> None:
    for item in orders:
        await client.publish(request_event(item.request, job_id=item.job_id, source="/t"))
