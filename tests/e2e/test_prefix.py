"""P18: two deployments share the brokers, and nothing else."""

import asyncio
from collections.abc import Iterator

import pytest

from stream_app.kafka.brokers import Brokers, Group
from streaming_exporter.errors import Outage
from streaming_exporter.events import Topic
from tests.e2e.conftest import System
from tests.e2e.deployment import Deployment, request
from tests.topics import messages_on
from tests.waiting import until_async


@pytest.fixture
def own(system: System) -> Iterator[Deployment]:
    deployment = Deployment(system.stack)
    yield deployment
    deployment.close()


@pytest.mark.slow
async def test_two_deployments_on_one_cluster(system: System, own: Deployment) -> None:
    """Each admits its own requests, publishes their events, and has its own group."""
    worker = await asyncio.to_thread(system.stack.start_worker, settings=own.variables)
    other = own.settings.model_copy(update={"kafka_topic_prefix": ""})
    mine, theirs = request(), request()
    try:
        await own.publish([mine])
        beside = object.__new__(Deployment)
        beside.settings = other
        await beside.publish([theirs])
        await own.has({mine.job_id})
        ended = await asyncio.to_thread(system.ended, theirs.job_id)
        assert ended["status"] == "failed"
        assert await asyncio.to_thread(system.job, mine.job_id) is None
        assert theirs.job_id not in await own.jobs()
        told = [message.key for message in await messages_on(own.settings, Topic.EVENTS)]
        assert mine.key in told
        assert theirs.key not in told
        brokers = Brokers(own.settings, client_id="t")

        async def stable() -> Group | None:
            found = await brokers.group()
            return found if found.is_stable else None

        group = await until_async(stable, ignoring=(Outage,))
        await brokers.close()
        assert len(group.members) == 1
        assert {topic for topic, _ in group.committed} <= {own.settings.topic(topic) for topic in Topic}
    finally:
        await asyncio.to_thread(worker.kill)
