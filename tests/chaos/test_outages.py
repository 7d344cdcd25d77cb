"""Parts go away for a while: jobs wait, nothing fails for it, and everything goes on by itself."""

import asyncio
from uuid import UUID

import pytest

from local.stack import Stack
from stream_app.events import ExportRequest, request_event
from tests.chaos.client import Client, has_ended
from tests.chaos.items import COLUMNS, ROWS, SLOW_ROWS_A_SECOND, Source
from tests.chaos.plan import Order
from tests.chaos.supervisor import Supervisor
from tests.chaos.verdict import wrong_files, wrong_histories, wrong_objects

SETTINGS = {"EXPORTER_KAFKA_GROUP": "outages", "EXPORTER_LEASE_SECONDS": "10", "EXPORTER_WORKER_SLOTS": "4"}


def order(dataset: str, last: int) -> Order:
    """One job; all of them belong to different users."""
    request = ExportRequest(
        user_id="?", export_type=dataset, format="csv", scope="all", columns=list(COLUMNS),
        filters={"id": {"lte": last}},
    )  # fmt: skip
    job_id = request_event(request, source="/t").job_id
    return Order(0, job_id, request.model_copy(update={"user_id": f"user of {job_id}"}), last)


@pytest.mark.parametrize(("part", "seconds"), [("s3", 40), ("postgres", 8), ("kafka", 12)])
async def test_an_outage_fails_no_job(
    stack: Stack, source: Source, datasets: dict[str, str], part: str, seconds: float
) -> None:
    """Some exports run when the part goes away; others are asked for while it is away."""
    during = [order("slow", 4 * SLOW_ROWS_A_SECOND) for _ in range(2)]
    later = [order("items", 300), order("items", ROWS)]
    service = stack.services[part]
    workers = await asyncio.to_thread(Supervisor, stack, 2, SETTINGS | datasets)
    with workers:
        async with Client(stack) as client:
            await _ask(client, during)
            await client.until(_ids(during), lambda job: job["row_count"] is not None, within=60)
            await asyncio.to_thread(service.kill)
            asking = asyncio.create_task(_ask(client, later))
            await asyncio.sleep(seconds)
            waiting = await client.jobs(_ids(during + later))
            assert {job["status"] for job in waiting.values()} <= {"pending", "processing"}
            assert part == "postgres" or waiting
            await asyncio.to_thread(service.restart)
            await asking
            jobs = await client.until(_ids(during + later), has_ended, within=120)
            told = await client.history(jobs.keys())
            files, uploads = await asyncio.to_thread(client.objects)
            assert await wrong_files(client, source, during + later, jobs) == []
    assert workers.gave_up() == 0
    assert {job["status"] for job in jobs.values()} == {"completed"}
    # A connection to the database that is lost may be the statement's fault, so that counts once.
    allowed = {0, 1} if part == "postgres" else {0}
    assert {job["failures"] for job in jobs.values()} <= allowed
    assert wrong_objects(jobs, [key for key in files if UUID(key.split("/")[1]) in jobs], uploads) == []
    assert wrong_histories(jobs, told) == []


def _ids(orders: list[Order]) -> list[UUID]:
    return [item.job_id for item in orders]


async def _ask(client: Client, orders: list[Order]) -> None:
    for item in orders:
        await client.publish(request_event(item.request, job_id=item.job_id, source="/t"))
