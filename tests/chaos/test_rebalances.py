"""Workers join and leave while requests are published: no request is lost."""

import asyncio
from uuid import UUID

import pytest

from dev.stack import Stack
from streaming_exporter.events import ExportRequest, request_event
from tests.chaos.supervisor import Supervisor
from tests.chaos.system_client import SystemClient, has_ended
from tests.waiting import until_async

pytestmark = [pytest.mark.chaos, pytest.mark.slow]

EACH = 40
"""Requests between two changes of the group."""


async def test_no_request_is_lost_in_rebalances(stack: Stack) -> None:
    """The requests name an unknown format, so each is admitted and ends at once."""
    sent: set[UUID] = set()
    workers = await asyncio.to_thread(Supervisor, stack, 2, {})
    with workers:
        async with SystemClient(stack) as client:

            async def publish() -> None:
                while True:
                    event = request_event(
                        ExportRequest(user_id="r", export_type="ledger", format="none"), source="/t"
                    )
                    await client.publish(event)
                    sent.add(event.job_id)
                    await asyncio.sleep(0.02)

            async def more() -> None:
                enough = len(sent) + EACH
                await until_async(lambda: len(sent) >= enough or publishing.done())

            publishing = asyncio.create_task(publish())
            await more()
            for change in (workers.restart, workers.kill):
                await asyncio.to_thread(change, 1)
                await more()
                await asyncio.to_thread(workers.wait_until_ready)
                await more()
            publishing.cancel()
            await asyncio.wait({publishing})
            assert publishing.cancelled()
            jobs = await client.until(sent, has_ended, within=60)
    assert {job["status"] for job in jobs.values()} == {"failed"}
