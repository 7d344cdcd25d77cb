"""The usual rolling update: the next worker joins the consumer group while the old one drains."""

import asyncio
import os
import signal

import pytest

from dev.postgres import SOURCE
from dev.stack import Stack
from stream_app.kafka.brokers import Brokers
from streaming_exporter.errors import Outage
from streaming_exporter.events import ExportRequest, request_event
from tests.chaos.items import COLUMNS, GATED_ROWS
from tests.chaos.system_client import SystemClient, has_ended
from tests.gate import Gate
from tests.stacks import settings_of
from tests.waiting import until_async

pytestmark = [pytest.mark.chaos, pytest.mark.slow]

SETTINGS = {"EXPORTER_DRAIN_SECONDS": "300", "EXPORTER_WORKER_SLOTS": "4"}
LONG = ExportRequest(
    user_id="j", export_type="gated", format="csv", scope="all", filters={"id": {"lte": GATED_ROWS}},
    columns=list(COLUMNS),
)  # fmt: skip
INVALID = ExportRequest(user_id="j", export_type="ledger", format="none")
"""It ends as soon as it is admitted."""


async def members_of(brokers: Brokers) -> frozenset[str]:
    """Return the members of the workers' group."""
    return (await until_async(brokers.group, ignoring=(Outage,))).members


async def test_a_worker_that_drains_reads_on_after_a_rebalance_and_leaves_the_group(
    stack: Stack, datasets: dict[str, str]
) -> None:
    workers = [await asyncio.to_thread(stack.start_worker, settings=SETTINGS | datasets)]
    brokers = Brokers(settings_of(stack), client_id="test")
    try:
        async with SystemClient(stack) as client, Gate(stack.postgres.admin_url(SOURCE)) as gate:
            event = request_event(LONG, source="/t")
            await client.publish(event)
            jobs = await client.until([event.job_id], lambda job: bool(job["row_count"]), within=60)
            leaving = jobs[event.job_id]["worker"]
            os.kill(workers[0].child.pid, signal.SIGTERM)
            workers.append(await asyncio.to_thread(stack.start_worker, settings=SETTINGS | datasets))
            members = await members_of(brokers)
            assert len(members) == 2
            assert leaving in members
            requests = [request_event(INVALID, source="/t") for _ in range(20)]
            for request in requests:  # to all partitions
                await client.publish(request)
            await client.until([request.job_id for request in requests], has_ended, within=60)
            assert await members_of(brokers) == members  # no session has timed out
            await gate.open()
            jobs = await client.until([event.job_id], has_ended, within=60)
            await until_async(lambda: workers[0].child.exit_code is not None, otherwise=workers[0].child.tail)
            assert await members_of(brokers) == members - {leaving}
        assert workers[0].child.exit_code == 0, workers[0].child.tail()
        assert (jobs[event.job_id]["status"], jobs[event.job_id]["worker"]) == ("completed", leaving)
    finally:
        await brokers.close()
        for worker in workers:
            worker.kill()
